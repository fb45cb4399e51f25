"""The command line: parses, calls one library function per command, prints what it returns.

Nothing heavy is imported before a command runs, so that help is instant. This is the one module
that reaches `training`, inside the functions that need it.
"""

import argparse
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..terminal import complain, flush_output, say, standard_streams, visible
from .memory import add_memory_commands

if TYPE_CHECKING:
    from ...envs import Suite, Task
    from ..assemble import Assembled
    from ..recall import Recall
    from ..runner import RunSettings

_EXPECTED = (ValueError, LookupError, OSError, ImportError, NotImplementedError, RuntimeError)
"""Errors that say what, where and what to do; anything else is a bug and keeps its traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 where something was found wrong, 2 after an error
    that the user can mend, 130 after Ctrl-C."""
    with standard_streams():
        args = build_parser().parse_args(argv)
        return guarded(f"relive {args.command}", lambda: args.act(args))


def guarded(name: str, act: Callable[[], int | None]) -> int:
    """Runs something for a person: an expected error becomes one line that begins with `name`.
    Returns the exit status."""
    with standard_streams():
        try:
            status = act() or 0
            flush_output()  # while a full disk can still be told
            return status
        except KeyboardInterrupt:
            complain(
                "\nstopped; what is recorded is kept: the same command goes on where this one "
                "stopped",
                lines=True,
            )
            return 130
        except BrokenPipeError:
            return 0  # the reader has had enough: `relive … | head`
        except Exception as error:
            # The whole traceback is for whoever looks for a bug.
            if not isinstance(error, _EXPECTED) or os.environ.get("RELIVE_DEBUG"):
                complain(traceback.format_exc(), lines=True)
                return 1
            first = error.args[0] if isinstance(error, KeyError) and error.args else error
            complain(f"{name}: {' '.join(str(first).split())}")
            return 2


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints show arguments, file names above all, as text."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the arguments, and ends."""
        super().error(visible(message))


class _Version(argparse.Action):
    """Prints the version, which is looked up only then, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            say(f"relive {version('relive')}")
        except PackageNotFoundError:
            say("relive, run from its source and not installed: its pyproject.toml has the version")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser: argparse.ArgumentParser = _Parser(
        prog="relive",
        description="An agent that acts in text worlds, remembers what it lived through, and "
        "learns from it.",
        epilog="Start with: relive envs play household   (be the policy yourself)   or   make demo",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    run = commands.add_parser("run", help="play tasks and add every episode to a memory")
    _add_policy(run)
    _add_tasks(run, split="train")
    run.add_argument(
        "--memory", type=Path, required=True, help="folder of the memory; made if it is not there"
    )
    run.add_argument(
        "--again",
        action="store_true",
        help="also play tasks that this policy has in the memory already",
    )
    run.set_defaults(act=_run)

    evaluate = commands.add_parser(
        "eval", help="measure a policy; every task once, memory read-only"
    )
    _add_policy(evaluate)
    _add_tasks(evaluate, split="test")
    evaluate.add_argument(
        "--memory", type=Path, help="folder of a memory to retrieve from; none without it"
    )
    evaluate.add_argument(
        "--at",
        type=int,
        help="read the memory as it was at this log position (default: as it is, or was when the "
        "run began)",
    )
    evaluate.add_argument(
        "--out", type=Path, required=True, help="run directory; given again, the run goes on"
    )
    evaluate.set_defaults(act=_evaluate)

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
    _add_settings(learn)
    learn.set_defaults(act=_learn)

    train = commands.add_parser("train", help="fine-tune one adapter on the successes in a memory")
    train.add_argument("--memory", type=Path, required=True, help="folder of the memory")
    train.add_argument(
        "--out", type=Path, required=True, help="folder of the new adapter; must not exist"
    )
    _add_settings(train)
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
    _add_settings(study)
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
    _add_settings(stream)
    stream.set_defaults(act=_stream)

    add_memory_commands(commands)

    envs = commands.add_parser("envs", help="the worlds: list them, play one yourself, check one")
    whats = envs.add_subparsers(dest="what", required=True, metavar="what")
    whats.add_parser("list", help="suites, their task types and groups").set_defaults(
        act=_envs_list
    )
    play = whats.add_parser("play", help="be the policy yourself")
    play.add_argument("suite", nargs="?", default="household")
    play.add_argument("--split", default="train", help="train, valid or test (default train)")
    play.add_argument("--type", default="", help="task type; the first one by default")
    play.add_argument("--number", type=int, default=0, help="which task of the type (default 0)")
    play.set_defaults(act=_envs_play)
    check = whats.add_parser("check", help="does a suite keep the contract?")
    check.add_argument("suite", nargs="?", default="household")
    check.set_defaults(act=_envs_check)
    return parser


def _add_policy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who acts")
    group.add_argument(
        "--policy", default="local", help="local (a language model, default), expert or random"
    )
    group.add_argument(
        "--model", default="bundled", help="bundled (default), a transformers folder, or a hub name"
    )
    group.add_argument("--adapter", type=Path, help="folder of a PEFT adapter")
    group.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    group.add_argument("--dtype", default="float32", help="float32 (default) or bfloat16")
    group.add_argument(
        "--k", type=int, default=2, help="past episodes shown (default 2; 0 for none)"
    )
    group.add_argument(
        "--budget", type=int, default=1500, help="tokens of the memory block at most (default 1500)"
    )
    group.add_argument(
        "--min-score",
        type=float,
        help="show no episode that is less similar than this (default: however far)",
    )
    group.add_argument(
        "--brevity",
        type=float,
        default=0.0,
        help="what each doubling of an episode's length takes from its similarity",
    )
    group.add_argument(
        "--query", default="static", choices=("static", "dynamic"),
        help="ask the memory once, by the goal (default), or at every step, by the goal and the "
        "latest steps",
    )  # fmt: skip


def _add_tasks(parser: argparse.ArgumentParser, split: str) -> None:
    group = parser.add_argument_group("what is played")
    group.add_argument(
        "--suite", default="household", help="see: relive envs list (default household)"
    )
    group.add_argument("--split", default=split, help=f"train, valid or test (default {split})")
    group.add_argument("--types", default="", help="task types or groups, by comma; all by default")
    group.add_argument(
        "--tasks", type=int, default=60, help="number of tasks, spread over the types (default 60)"
    )
    group.add_argument("--start", type=int, default=0, help="skip so many tasks of each type")
    group.add_argument(
        "--max-steps", type=int, default=0, help="actions per episode (default: the suite's)"
    )
    group.add_argument(
        "--batch",
        type=int,
        default=16,
        help="episodes at once (default 16); never changes a result",
    )
    group.add_argument(
        "--workers",
        type=int,
        default=0,
        help="environment processes, one episode each (default 0: none, --batch at once)",
    )
    group.add_argument("--seed", type=int, default=0, help="base of all random numbers (default 0)")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="TOML file with settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="one setting, e.g. recall.k=4 (repeatable)",
    )


def _suite_and_tasks(args: argparse.Namespace) -> "tuple[Suite, list[Task]]":
    from ...envs import get_suite
    from ...envs.base import types_of

    suite = get_suite(args.suite)
    types = types_of(suite, [name for part in args.types.split(",") if (name := part.strip())])
    return suite, suite.tasks(args.split, args.tasks, types, args.start)


def _assembled(args: argparse.Namespace, suite: "Suite") -> "tuple[Assembled, RunSettings]":
    from ..assemble import PolicySettings, assemble
    from ..runner import RunSettings

    settings = RunSettings(
        max_steps=args.max_steps, batch=args.batch, workers=args.workers, seed=args.seed
    )
    policy = PolicySettings(
        args.policy,
        args.model,
        str(args.adapter) if args.adapter else "",
        args.temperature,
        args.dtype,
    )
    noted = {
        "k": args.k,
        "budget": args.budget,
        "query": args.query,
        "brevity": args.brevity,
        "seed": args.seed,
    }
    if args.min_score is not None:
        noted["min_score"] = args.min_score
    return assemble(policy, suite, args.batch, noted), settings


def _recall(
    args: argparse.Namespace,
    suite: "Suite",
    made: "Assembled",
    memory: Any,
    purpose: Any,
    position: int | None = None,
) -> "Recall":
    from ..recall import Recall, RecallSettings
    from ..runner import spec_of

    return Recall(
        memory,
        spec_of(suite),
        made.count,
        RecallSettings(
            k=args.k,
            budget=args.budget,
            query=args.query,
            brevity=args.brevity,
            min_score=args.min_score,
        ),
        purpose,
        position,
    )


def _run(args: argparse.Namespace) -> None:
    from ...memory import ExperienceMemory, Purpose
    from ..evaluation.metrics import table
    from ..evaluation.report import console, results_table, watched
    from ..runner import Runner, play_all

    suite, tasks = _suite_and_tasks(args)
    made, settings = _assembled(args, suite)
    with ExperienceMemory(args.memory) as memory:
        actor = made.actor
        played = {
            e.task.identity
            for e in memory.entries()
            if (e.policy, e.adapter) == (actor.policy, actor.adapter)
        }
        todo = [task for task in tasks if args.again or task.identity not in played]
        runner = Runner(
            suite,
            made.policy,
            made.actor,
            settings,
            _recall(args, suite, made, memory, Purpose.ACT),
        )

        with watched("playing", len(todo)) as live:

            def keep(episode: Any) -> None:
                memory.add(episode)
                live.announce("episode", episode)

            episodes = play_all(runner, todo, keep)
        rows = table(episodes, suite.groups, lambda i: memory.meta(i).task.type)
    skipped = (
        f"; {len(tasks) - len(todo)} tasks were there already (--again plays them too)"
        if len(todo) < len(tasks)
        else ""
    )
    console().print(
        results_table(rows, f"{len(episodes)} episodes added to {args.memory}{skipped}")
    )


def _evaluate(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ...memory import ExperienceMemory, Purpose
    from ..evaluation.audit import audit_all
    from ..evaluation.metrics import table
    from ..evaluation.report import console, results_table
    from ..rundir import RunDirectory, measure, recorded
    from ..runner import Runner

    suite, tasks = _suite_and_tasks(args)
    made, settings = _assembled(args, suite)
    if args.memory and args.split == "train":
        raise ValueError(
            "nothing of the split under evaluation is ever retrieved, and memories hold the train "
            "split only: evaluate "
            "valid or test, or leave out --memory (relive run plays train tasks with memory)"
        )
    memory = ExperienceMemory(args.memory, "r") if args.memory else None
    if args.at is not None and not (memory and 0 <= args.at <= memory.position):
        raise ValueError(
            f"--at {args.at} is no log position of --memory {args.memory}: give one from 0 to its "
            "newest"
        )
    # A run that goes on reads what it read before, though the memory has grown.
    position = recorded(args.out, "position") if args.at is None else args.at
    recall = _recall(args, suite, made, memory, Purpose.EVALUATE, position) if memory else None
    described = {
        "suite": args.suite, "version": suite.version, "split": args.split, "types": args.types,
        "tasks": args.tasks, "start": args.start, "max_steps": args.max_steps, "seed": args.seed,
        "actor": made.actor, "memory": str(args.memory) if args.memory else None,
        "position": recall.position if recall else None,
    }  # fmt: skip
    directory = RunDirectory(args.out, described)
    from ..evaluation.report import LiveProgress

    with LiveProgress() as live:
        live.announce("phase", "evaluating")
        runner = Runner(suite, made.policy, made.actor, settings, recall)
        episodes = measure(directory, "episodes", runner, tasks, live.announce)
    # As of then: what was shown may have been evicted since.
    rows = table(
        episodes,
        suite.groups,
        (lambda i: memory.meta(i, recall.position).task.type) if memory and recall else {},
    )
    audit = audit_all(episodes, memory, recall)
    directory.write(
        "metrics.json",
        {
            "rows": [{**asdict(row), "success": row.success} for row in rows],
            "clock": runner.clock,
            "audit": audit.plain,
        },
    )
    console().print(results_table(rows, f"{args.split} split, episodes in {args.out / 'episodes'}"))
    if memory:
        console().print(str(audit))
    if audit.leaks:
        raise ValueError(
            "the memory showed what an evaluation must not see; the results are worth nothing"
        )


def _learn(args: argparse.Namespace) -> None:
    from ...training.learn import Learner, LearnSettings
    from ..evaluation.report import LiveProgress
    from ..settings import load

    settings = load(LearnSettings, args.config, args.set)
    with LiveProgress() as live:
        learner = Learner(args.out, settings, args.memory, live.announce)
        rounds = learner.run()
    for r in rounds:
        say(r.line)
    in_force = learner.adapter
    say(f"in force: {learner.adapter_folder(in_force) if in_force else 'the bare model'}")


def _train(args: argparse.Namespace) -> None:
    from ...training.learn import LearnSettings, train_from_memory
    from ..evaluation.report import LiveProgress
    from ..settings import load

    settings = load(LearnSettings, args.config, args.set)
    with LiveProgress() as live:
        manifest = train_from_memory(settings, args.memory, args.out, live.announce)
    say(
        f"{args.out}: {manifest['examples']} examples, loss {manifest['loss_first']} → "
        f"{manifest['loss_last']}, "
        f"{manifest['seconds']} s"
    )


def _study(args: argparse.Namespace) -> None:
    from ...training.experiments.curve import curves
    from ...training.experiments.study import Study, StudySettings
    from ...training.experiments.study_results import markdown, publish
    from ..evaluation.report import LiveProgress, console
    from ..settings import load

    with LiveProgress() as live:
        study = Study(args.out, load(StudySettings, args.config, args.set), live.announce)
        records = study.run(args.sealed)
        rows = curves(study) if args.curves else []
    console().print(markdown(records))
    if args.publish:
        publish(args.publish, study, records, rows)
        say(f"written to {args.publish}")


def _stream(args: argparse.Namespace) -> None:
    from ...training.experiments.stream import Stream
    from ...training.experiments.stream_pictures import picture
    from ...training.experiments.stream_plan import StreamSettings
    from ...training.experiments.stream_results import markdown, publish, states_of
    from ..evaluation.report import LiveProgress, console
    from ..settings import load

    with LiveProgress() as live:
        stream = Stream(args.out, load(StreamSettings, args.config, args.set), live.announce)
        records = stream.run()
    console().print(markdown(records, states_of(stream)))
    if args.publish:
        publish(args.publish, stream, records)
        picture(args.publish.with_suffix(".png"), records)
        say(f"written to {args.publish}")


def _envs_list(args: argparse.Namespace) -> None:
    from ...envs import get_suite, suite_names

    for name in suite_names():
        suite = get_suite(name)
        say(f"{name} ({suite.version}), {suite.max_steps} steps at most")
        for group, types in suite.groups.items():
            say(f"  {group}: {', '.join(types)}")


def _envs_play(args: argparse.Namespace) -> None:
    from ...envs import get_suite

    suite = get_suite(args.suite)
    task = suite.tasks(args.split, 1, [args.type or suite.types[0]], args.number)[0]
    env = suite.make()
    seen, _ = env.reset(options={"task": task})
    say("'help!' lists what is possible now (policies never see it), 'quit!' ends\n", lines=True)
    say(seen, lines=True)
    left = suite.max_steps
    while left:
        try:
            action = input("\n> ").strip()
        except EOFError:
            break
        if action == "quit!":
            break
        if action == "help!":
            say(", ".join(env.admissible()))
            continue
        seen, _, terminated, truncated, info = env.step(action)
        left -= 1
        say(seen, lines=True)
        if info["success"]:
            say("Solved.")
        if terminated or truncated:
            break
    if not left:
        say(f"Over: the limit is {suite.max_steps} steps.")
    env.close()


def _envs_check(args: argparse.Namespace) -> None:
    from ...envs import check_env, get_suite

    findings = check_env(get_suite(args.suite))
    for finding in findings:
        say(str(finding))
    if any(not finding.ok for finding in findings):
        raise ValueError(f"suite {args.suite!r} does not keep the contract, see above")
