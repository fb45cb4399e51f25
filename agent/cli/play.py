"""The commands that play: `relive run` and `relive eval`."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.terminal import complain
from .options import ALL, add_flag, add_log_to, add_on, add_settings, flags_of, suite_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...envs import Suite, Task
    from ...memory import Episode
    from .play_settings import PlaySettings


def add_play_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `run` and `eval` to the commands of `relive`."""
    run = commands.add_parser("run", help="play tasks and add every episode to a memory")
    run.add_argument(
        "--memory", type=Path, required=True, help="folder of the memory; made if it is not there"
    )
    run.add_argument(
        "--again",
        action="store_true",
        help="also play tasks that this policy has in the memory already",
    )
    run.add_argument(
        "--at",
        type=int,
        help="read the memory as it was at this log position (default: every episode sees what was "
        "stored before it began, this run's included)",
    )
    _add_flags(run, split="train")
    run.set_defaults(act=_run)

    evaluate = commands.add_parser(
        "eval", help="measure a policy; every task once, memory read-only"
    )
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
    _add_flags(evaluate, split="test")
    evaluate.set_defaults(act=_evaluate)


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _count(text: str) -> int:
    if text == "all":
        return ALL
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1, or 'all', not {count}")
    return count


def _add_flags(parser: argparse.ArgumentParser, split: str) -> None:
    add_settings(parser, ".play_settings:PlaySettings", lambda: _defaults(split))
    add_on(parser)
    add_log_to(parser)
    group = parser.add_argument_group("who acts")
    add_flag(
        group, "--policy", "policy.kind",
        "local (a language model, default), server, expert, random, or module:object for your own",
    )  # fmt: skip
    add_flag(
        group, "--model", "policy.model",
        "bundled (default), a transformers folder, a GGUF file, a hub name, or the name on a "
        "server",
    )  # fmt: skip
    add_flag(
        group, "--base-url", "policy.server.base_url",
        "address of an OpenAI-compatible API, with --policy server; several with commas between",
        metavar="URL",
    )  # fmt: skip
    add_flag(
        group, "--max-new-tokens", "policy.max_new_tokens",
        "tokens of an answer at most (default: what the action format needs)", type=int,
    )  # fmt: skip
    add_flag(
        group, "--action-format", "policy.action_format",
        "how an action is written: plain (default), react or tagged",
    )  # fmt: skip
    add_flag(group, "--thinking", "policy.thinking", "off (default of local models) or on")
    add_flag(
        group, "--chat-template", "policy.chat_template",
        "file with a chat template to use instead of the model's", metavar="FILE",
    )  # fmt: skip
    add_flag(group, "--adapter", "policy.adapter", "folder of a PEFT adapter")
    add_flag(group, "--temperature", "policy.temperature", "0 is greedy (default)", type=float)
    add_flag(group, "--dtype", "policy.dtype", "float32 (default), bfloat16 or 4bit")
    add_flag(group, "--k", "retrieval.k", "past episodes shown (default 2; 0 for none)", type=int)
    add_flag(
        group, "--max-tokens", "retrieval.max_tokens",
        "tokens of the memory block at most (default 1500)", type=int,
    )  # fmt: skip
    add_flag(
        group, "--min-score", "retrieval.min_score",
        "show no episode that is less similar than this (default: however far)", type=float,
    )  # fmt: skip
    add_flag(
        group, "--length-penalty", "retrieval.length_penalty",
        "what each doubling of an episode's length takes from its similarity", type=float,
    )  # fmt: skip
    add_flag(
        group, "--query", "retrieval.query",
        "static: ask the memory once, by the goal (default); opening: once, by the first "
        "observation (with --fields first); dynamic: at every step, by the goal "
        "and the latest steps",
    )  # fmt: skip
    add_flag(
        group, "--refresh-after", "retrieval.refresh_after",
        "ask once more after this many steps, by the goal and these (with window among --fields)",
        type=int,
    )  # fmt: skip
    add_flag(
        group, "--fields", "retrieval.fields",
        "what the query is compared with, by comma: goal (default), first (observation), window "
        "(of steps)", type=_names,
    )  # fmt: skip
    add_flag(
        group, "--long", "retrieval.long",
        "what becomes of an episode that does not fit: shorten (default) or skip",
    )  # fmt: skip
    add_flag(
        group, "--across", "retrieval.across", "also show episodes of other suites",
        action="store_const", const=True, metavar=None,
    )  # fmt: skip
    group = parser.add_argument_group("what is played")
    add_flag(
        group, "--suite", "suite",
        "see: relive envs list (default household); textworld:PATH for game files, gymnasium:ID",
    )  # fmt: skip
    add_flag(
        group, "--split", "split",
        f"train, valid, test, or another one that the suite has (default {split})",
    )  # fmt: skip
    add_flag(
        group, "--types", "types", "task types or groups, by comma; all by default", type=_names
    )
    add_flag(
        group, "--tasks", "tasks",
        "number of tasks, spread over the types, or all (default 60, or as many as there are)",
        type=_count,
    )  # fmt: skip
    add_flag(group, "--start", "start", "skip so many tasks of each type", type=int)
    add_flag(
        group, "--max-steps", "run.max_steps", "actions per episode (default: the suite's)",
        type=int,
    )  # fmt: skip
    add_flag(
        group, "--give-up-after", "run.give_up_after",
        "end an episode whose policy repeats a refused action so many times in a row (default: "
        "never)",
        type=int,
    )  # fmt: skip
    add_flag(group, "--batch", "run.batch", "episodes at once (default 16)", type=int)
    add_flag(
        group, "--workers", "run.workers",
        "environment processes, one episode each (default 0: none, --batch at once)", type=int,
    )  # fmt: skip
    add_flag(
        group, "--admissible", "run.admissible",
        "show the admissible commands: for comparison only", action="store_const", const=True,
        metavar=None,
    )  # fmt: skip
    add_flag(group, "--seed", "run.seed", "base of all random numbers (default 0)", type=int)


def _defaults(split: str) -> "PlaySettings":
    from .play_settings import PlaySettings

    return PlaySettings(split=split)


def _settings(args: argparse.Namespace, split: str) -> "PlaySettings":
    from ..settings import load
    from .play_settings import PlaySettings

    return load(PlaySettings, args.config, args.set, flags_of(args), _defaults(split))


def _suite_and_tasks(settings: "PlaySettings") -> "tuple[Suite, list[Task]]":
    from ...envs.base import types_of
    from ...memory.plain import counted

    suite = suite_named(settings.suite)
    types = types_of(suite, settings.types)
    split = suite.split_of(settings.split)
    everything = settings.tasks == ALL
    count = suite.count(split, types, settings.start) if everything else settings.tasks
    tasks = suite.up_to(split, count, types, settings.start)
    if not tasks and count:
        raise ValueError(
            f"suite {suite.name!r} has no such tasks in split {split!r}; it has "
            f"{', '.join(f'{suite.size(one)} in {one}' for one in suite.splits)}"
        )
    if len(tasks) < count:
        there = counted(len(tasks), "such task")
        complain(f"{suite.name} has {there} of split {split!r}: playing no more")
    return suite, tasks


def _status(episodes: "Sequence[Episode]") -> int:
    """Exit status: 1 where errors broke off every episode."""
    from ..collect import BROKEN

    return int(bool(episodes) and all(e.outcome.reason in BROKEN for e in episodes))


def _run(args: argparse.Namespace) -> int:
    from ...memory import Purpose
    from ...memory.plain import counted
    from ..cluster.executor import executor
    from ..collect import collect
    from ..evaluation.live import LiveProgress
    from ..evaluation.metrics import table
    from ..evaluation.remarks import other_words, remarks
    from ..evaluation.report import console, results_table
    from ..evaluation.tracking import tracked
    from ..events import Phase
    from ..policy import counter_of
    from ..retriever import MemoryRetriever
    from ..runner import spec_of
    from ..settings import as_stored

    settings = _settings(args, "train")
    suite, tasks = _suite_and_tasks(settings)
    with (
        executor(args.on, settings.ray) as place,
        nullcontext(place.policy(settings.policy, suite, settings.run.batch)) as policy,
        place.memory(args.memory, settings.retrieval.fields) as memory,
    ):
        _check_position(args.at, memory)
        retriever = MemoryRetriever(
            memory, spec_of(suite), counter_of(policy), settings.retrieval, Purpose.ACT, args.at
        )
        runner = place.runner(suite, policy, settings.run, retriever)
        described = as_stored(settings)
        with (
            LiveProgress() as live,
            tracked(args.log_to, "run", args.memory, described, live.on_event) as on_event,
        ):
            on_event(Phase("playing"))
            playing = collect(memory, runner, tasks, again=args.again, on_event=on_event)
            episodes = list(playing)
        rows = table(episodes, suite.groups, lambda i: memory.meta(i).task.type)
        notes = remarks(episodes)
        if not settings.retrieval.translate:
            notes.append(other_words(episodes, memory, retriever.spec))
    before = len(tasks) - len(episodes)
    was, it = ("was", "it") if before == 1 else ("were", "them")
    skipped = f"; {counted(before, 'task')} {was} there already (--again plays {it} too)"
    title = f"{counted(len(episodes), 'episode')} added to {args.memory}{skipped if before else ''}"
    console().print(results_table(rows, title) if episodes else title)
    for note in filter(None, notes):
        complain(note)
    return _status(episodes)


def _evaluate(args: argparse.Namespace) -> int:
    from ...memory import Memory
    from ..cluster.executor import executor
    from ..evaluation.evaluate import LeakageError, evaluate
    from ..evaluation.live import LiveProgress
    from ..evaluation.report import console, results_table
    from ..evaluation.tracking import tracked
    from ..settings import as_stored

    settings = _settings(args, "test")
    suite, tasks = _suite_and_tasks(settings)
    memory = Memory(args.memory, "r") if args.memory else None
    _check_position(args.at, memory)
    leaked: LeakageError | None = None
    with (
        executor(args.on, settings.ray) as place,
        nullcontext(place.policy(settings.policy, suite, settings.run.batch)) as policy,
        LiveProgress() as live,
        tracked(args.log_to, "eval", args.out, as_stored(settings), live.on_event) as on_event,
    ):
        try:
            result = evaluate(
                policy, suite, memory, tasks=tasks, split=settings.split, at=args.at, out=args.out,
                retrieval=settings.retrieval, settings=settings.run, on_event=on_event,
                executor=place,
            )  # fmt: skip
        except LeakageError as error:
            leaked, result = error, error.evaluation
    title = f"{suite.split_of(settings.split)} split, episodes in {args.out / 'episodes'}"
    if settings.run.admissible:
        title += " (with admissible commands: for comparison only)"
    console().print(results_table(result.rows, title))
    for note in result.notes:
        complain(note)
    if memory is not None:
        console().print(str(result.audit))
    if leaked:
        raise leaked
    return _status(result.episodes)


def _check_position(at: int | None, memory: Any) -> None:
    if at is not None and (memory is None or not 0 <= at <= memory.position):
        path = None if memory is None else memory.path
        raise ValueError(
            f"--at {at} is no log position of --memory {path}: give one from 0 to its newest"
        )
