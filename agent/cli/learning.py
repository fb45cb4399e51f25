"""The commands that learn: `relive learn`, `train`, `study` and `stream`."""

import argparse
from contextlib import nullcontext
from pathlib import Path

from ...extras import needs
from ..evaluation.terminal import say
from .options import add_log_to, add_on, add_settings, suite_named

_LEARN = "...training.learn:LearnSettings"


def add_learning_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that learn to those of `relive`."""
    learn = commands.add_parser(
        "learn", help="the cycle: play, remember, fine-tune, roll back what made it worse"
    )
    learn.add_argument(
        "--out", type=Path, required=True, help="run directory; given again, the run goes on"
    )
    learn.add_argument(
        "--memory",
        type=Path,
        help="an existing memory to go on with (default: one in the run directory)",
    )
    add_settings(learn, _LEARN)
    add_on(learn)
    add_log_to(learn)
    learn.set_defaults(act=_learn)

    train = commands.add_parser("train", help="fine-tune one adapter on the successes in a memory")
    train.add_argument("--memory", type=Path, required=True, help="folder of the memory")
    train.add_argument(
        "--out", type=Path, required=True, help="folder of the new adapter; must not exist"
    )
    add_settings(train, _LEARN)
    add_log_to(train)
    train.set_defaults(act=_train)

    study = commands.add_parser(
        "study",
        help="the paper's experiment: trainings x memories, paired and with intervals; resumable",
    )
    study.add_argument(
        "--out", type=Path, required=True, help="run directory; the same command goes on with it"
    )
    study.add_argument(
        "--sealed",
        action="store_true",
        help="also the sealed tier of composed goals: once, at the end",
    )
    study.add_argument(
        "--curves", action="store_true", help="also the learning curves, on valid rooms"
    )
    study.add_argument(
        "--publish", type=Path, help="folder that gets the results, the records and the adapters"
    )
    add_settings(study, "...training.experiments.study.settings:StudySettings")
    add_log_to(study)
    study.set_defaults(act=_study)

    stream = commands.add_parser(
        "stream",
        help="continual learning: stages one after the other, measured on all of them after each; "
        "resumable",
    )
    stream.add_argument(
        "--out", type=Path, required=True, help="run directory; the same command goes on with it"
    )
    stream.add_argument(
        "--publish", type=Path, help="file.json that gets the results; the records go beside it"
    )
    add_settings(stream, "...training.experiments.stream.plan:StreamSettings")
    add_log_to(stream)
    stream.set_defaults(act=_stream)


def _learn(args: argparse.Namespace) -> None:
    from ...doors import rehearsal_of
    from ...training.learn import Learner, LearnSettings
    from ..cluster.executor import executor
    from ..evaluation.live import LiveProgress
    from ..evaluation.tracking import tracked
    from ..settings import as_stored, load

    settings = load(LearnSettings, args.config, args.set)
    suite = suite_named(settings.suite)
    with (
        executor(args.on, settings.ray) as place,
        nullcontext(place.model(settings.policy, settings.run.batch)) as model,
        LiveProgress() as live,
        tracked(args.log_to, "learn", args.out, as_stored(settings), live.on_event) as on_event,
    ):
        memory = place.memory(args.memory, settings.retrieval.fields) if args.memory else None
        learner = Learner(
            args.out, settings, suite, model, memory, on_event, rehearsal_of(model), place
        )
        with learner:
            rounds = learner.run()
    for r in rounds:
        say(r.line)
    in_force = learner.adapter
    say(f"in force: {learner.adapter_folder(in_force) if in_force else 'the bare model'}")


def _train(args: argparse.Namespace) -> None:
    from ...doors import rehearsal_of
    from ...memory import Memory
    from ...memory.plain import counted
    from ...training.learn import LearnSettings
    from ...training.tune import train_on_memory
    from ..evaluation.live import LiveProgress
    from ..evaluation.tracking import tracked
    from ..load_policy import load_model
    from ..settings import as_stored, load

    settings = load(LearnSettings, args.config, args.set)
    suite, model = suite_named(settings.suite), load_model(settings.policy)
    with (
        LiveProgress() as live,
        tracked(args.log_to, "train", args.out, as_stored(settings), live.on_event) as on_event,
        Memory(args.memory, "r") as memory,
    ):
        manifest = train_on_memory(
            settings, suite, model, memory, args.out,
            on_event=on_event, rehearsal=rehearsal_of(model),
        )  # fmt: skip
    say(
        f"{args.out}: {counted(manifest.examples, 'example')}, loss {manifest.loss_first} → "
        f"{manifest.loss_last}, {manifest.seconds} s"
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in manifest.contexts.items())
    say(
        f"contexts: {kinds}; {counted(manifest.cut, 'episode')} learnt in parts, "
        f"{counted(manifest.too_long, 'sequence')} too long, {manifest.without_target} without a "
        "target"
    )


def _study(args: argparse.Namespace) -> None:
    from ...training.experiments.study.curve import curves, measured
    from ...training.experiments.study.methods import markdown as markdown_of_methods
    from ...training.experiments.study.pictures import picture, picture_of_curves
    from ...training.experiments.study.results import known, markdown, publish
    from ...training.experiments.study.run import Study
    from ...training.experiments.study.settings import StudySettings
    from ..evaluation.live import LiveProgress
    from ..evaluation.report import console
    from ..evaluation.tracking import tracked
    from ..settings import as_stored, load

    if args.publish:
        needs("plots")  # found out now, not after hours
    settings = load(StudySettings, args.config, args.set)
    with (
        LiveProgress() as live,
        tracked(args.log_to, "study", args.out, as_stored(settings), live.on_event) as on_event,
    ):
        study = Study(args.out, settings, on_event)
        records = study.run(args.sealed)
        on_event(known(records))
        rows = curves(study) if args.curves else measured(study)
    if settings.methods:
        console().print(markdown_of_methods(settings.methods, records))
    else:
        console().print(markdown(records))
    if args.publish:
        name = publish(args.publish, study, records, rows)
        picture(args.publish / f"{name}.png", records)
        if rows:
            picture_of_curves(args.publish / f"{name}-curves.png", rows)
        say(f"written to {args.publish}")


def _stream(args: argparse.Namespace) -> None:
    from ...training.experiments.stream.pictures import picture
    from ...training.experiments.stream.plan import StreamSettings
    from ...training.experiments.stream.publish import markdown, publish, states_of
    from ...training.experiments.stream.results import known
    from ...training.experiments.stream.run import Stream
    from ..evaluation.live import LiveProgress
    from ..evaluation.report import console
    from ..evaluation.tracking import tracked
    from ..settings import as_stored, load

    if args.publish:
        needs("plots")  # found out now, not after hours
    settings = load(StreamSettings, args.config, args.set)
    with (
        LiveProgress() as live,
        tracked(args.log_to, "stream", args.out, as_stored(settings), live.on_event) as on_event,
    ):
        stream = Stream(args.out, settings, on_event)
        records = stream.run()
        for results in known(records):
            on_event(results)
    console().print(markdown(records, states_of(stream)))
    if args.publish:
        publish(args.publish, stream, records)
        picture(args.publish.with_suffix(".png"), records)
        say(f"written to {args.publish}")
