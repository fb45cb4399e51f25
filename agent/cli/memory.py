"""The `relive memory` commands: look into a memory, say something about it, keep it in order, move
it.

As in :mod:`relive.agent.cli`, every command calls one library function and prints what it returns;
nothing heavy is imported before.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..terminal import byte_writer, complain, say

if TYPE_CHECKING:
    from ...memory import Corruption, Memory

OnProgress = Callable[[str, int, int], None]
"""Told what is done, how much of it is, and how much it will be (0: not known)."""
_SHOWN = 20  # lines of a list that can be long


def add_memory_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `memory` and what it can do to the commands of `relive`."""
    memory = commands.add_parser("memory", help="look into a memory, keep it in order, move it")
    views = memory.add_subparsers(dest="view", required=True, metavar="what")

    def command(
        name: str, act: Callable[[argparse.Namespace], int | None], help: str
    ) -> argparse.ArgumentParser:
        parser = views.add_parser(name, help=help)
        parser.add_argument("--memory", type=Path, required=True, help="folder of the memory")
        parser.set_defaults(act=act)
        return parser

    command("stats", _stats, "what it holds, and what was found damaged")
    search = command("search", _search, "what an agent with this goal would be shown, and why")
    search.add_argument("goal", help="for example 'put a hot mug in cabinet'")
    search.add_argument("--k", type=int, default=5, help="number of episodes (default 5)")
    search.add_argument("--all-outcomes", action="store_true", help="failures too")
    search.add_argument(
        "--fields", default="goal", help="what is compared, by comma: goal (default), first, window"
    )
    search.add_argument(
        "--diversity",
        type=float,
        default=0.0,
        help="in [0, 1): how much being like a better hit counts against one",
    )
    search.add_argument(
        "--usefulness",
        type=float,
        default=0.0,
        help="weight of what an episode did for the runs that saw it (default 0)",
    )
    search.add_argument(
        "--length-penalty",
        type=float,
        default=0.0,
        help="what each doubling of an episode's length takes from its similarity",
    )
    search.add_argument(
        "--only", action="append", default=[], metavar="field=value",
        help="only episodes whose suite, type, split, policy or adapter is this (repeatable; of "
        "one field, any of them)",
    )  # fmt: skip
    show = command("show", _show, "one episode, step by step")
    rate = command(
        "rate", _rate, "give an episode a number; a later one of the same name replaces it"
    )
    annotate = command("annotate", _annotate, "attach a remark to an episode")
    delete = command(
        "delete", _delete, "leave episodes out from now on (compact takes their bytes away)"
    )
    for parser in (show, rate, annotate):
        parser.add_argument("episode", help="its id, or how it begins")
    rate.add_argument("name", help="what is rated, for example human")
    rate.add_argument("value", type=float)
    annotate.add_argument("text", help="the remark")
    delete.add_argument("episodes", nargs="+", metavar="episode", help="its id, or how it begins")
    delete.add_argument("--reason", default="", help="why, for whoever reads the log")

    evict = command(
        "evict",
        _evict,
        "delete what a bounded memory can do without, never all successes of a task type",
    )
    evict.add_argument("--capacity", type=int, help="how many episodes may stay")
    evict.add_argument(
        "--before", help="those that started before this go: 2026-01-31, or Unix seconds"
    )
    evict.add_argument(
        "--by",
        default="age",
        help="who goes first: age (default), usefulness (the least), largest-type or random",
    )
    evict.add_argument(
        "--keep-per-type", type=int, default=2, help="successes of a type that stay (default 2)"
    )
    command("compact", _compact, "take the bytes of deleted episodes away")
    command(
        "verify",
        _verify,
        "read everything, compare all checksums; changes nothing, exit status 1 if any is wrong",
    )
    rebuild = command(
        "rebuild", _rebuild, "throw catalog and index away and make them again from the log"
    )
    rebuild.add_argument(
        "--reembed", action="store_true", help="the vectors too, which takes longest"
    )

    export = command("export", _export, "all episodes as JSON lines, with ratings and notes")
    export.add_argument("file", help="a new file; - for standard output")
    imports = command(
        "import", _import, "add the episodes of a file; a new memory is made if need be"
    )
    imports.add_argument(
        "file", help="an export, conversations or logs, .gz too; - for standard input"
    )
    imports.add_argument("--format", help="episodes, messages, alfworld-logs (default: recognised)")
    imports.add_argument("--suite", help="suite of what is imported (default: the file's)")
    imports.add_argument("--split", help="its split (default: the file's, or train)")


def _stats(args: argparse.Namespace) -> None:
    from ...memory import Memory

    with Memory(args.memory, "r") as memory:
        stats = memory.stats()
    say(
        f"{stats.path}: {stats.entries} episodes, {stats.successes} successes, position "
        f"{stats.position}"
    )
    for name, counts in (
        ("type", stats.by_type),
        ("split", stats.by_split),
        ("policy", stats.by_policy),
    ):
        say(f"  by {name}: " + ", ".join(f"{key} {count}" for key, count in sorted(counts.items())))
    say(
        f"  {stats.ratings} ratings, {stats.notes} notes; {stats.total_bytes / 1e6:.1f} MB on "
        "disk, "
        f"{stats.log_bytes / 1e6:.1f} MB of it the log"
    )
    say(f"  {stats.deleted} deleted{', whose bytes compact takes away' if stats.deleted else ''}")
    if stats.other_records:
        say(f"  {stats.other_records} records of kinds that this program does not know")
    say(
        f"  shown to later runs {stats.credits} "
        f"times{'; most useful:' if stats.most_useful else ''}"
    )
    for episode_id, value in stats.most_useful.items():
        say(f"    {value:+.3f}  {episode_id}")
    say(f"  embedder {stats.embedder}; found by {', '.join(stats.fields)}")
    say(f"  {stats.index_entries} goals in the index, the others are compared one by one")
    _print_damage(stats.damage)


def _search(args: argparse.Namespace) -> None:
    from ...memory import Memory, Query

    query = Query(
        args.goal,
        k=args.k,
        successes_only=not args.all_outcomes,
        only=_only(args.only),
        fields=tuple(field.strip() for field in args.fields.split(",")),
        diversity=args.diversity,
        usefulness=args.usefulness,
        length_penalty=args.length_penalty,
    )
    with Memory(args.memory, "r") as memory:
        for hit in memory.search(query):
            entry, why = memory.meta(hit.episode_id), hit.explanation
            verdict = "success" if entry.success else "failure"
            say(
                f"{hit.score:.3f}  {hit.episode_id}  {verdict}, {entry.steps} steps, "
                f"{entry.policy}: {entry.task.goal}"
            )
            say(
                f"       similarity {why.similarity:.3f} (by {why.field}), "
                f"usefulness {why.usefulness:+.3f}, length −{why.length:.3f}, "
                f"redundancy {why.redundancy:.3f}"
            )
            say(
                f"       rank {why.considered}; {why.filtered} closer ones filtered; "
                f"{'all entries compared' if why.exact else 'candidates from the index'}"
            )


def _only(wanted: Sequence[str]) -> dict[str, set[str]]:
    """Values by field, from texts ``field=value``."""
    only: dict[str, set[str]] = {}
    for text in wanted:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(
                f"--only {text} is not field=value: write, for example, --only type=heat"
            )
        only.setdefault(name.strip(), set()).add(value)
    return only


def _show(args: argparse.Namespace) -> None:
    from ...memory import Memory

    with Memory(args.memory, "r") as memory:
        episode = memory.get(_the_one(memory, args.episode))
        notes = memory.notes(episode.id)
    task = episode.task
    say(f"{episode.id}: {task.goal} ({task.type}, {task.split}, {task.room})")
    actor = " ".join(
        filter(None, (episode.actor.policy, episode.actor.model, episode.actor.adapter))
    )
    outcome = episode.outcome
    say(f"{actor}: {outcome.reason} after {len(episode.steps)} steps {outcome.detail}")
    for name, value in episode.ratings.items():
        say(f"rated {name} {value:g}")
    for note in notes:
        say(f"note: {note}")
    say()
    for step in episode.steps:
        for hit in step.retrieved:
            say(f"(retrieved {hit.episode}, {hit.score:.3f})")
        say(f"{step.observation}\n", lines=True)
        if step.reasoning:
            say(f"({step.reasoning})\n", lines=True)
        say(f"> {step.action}{'   (refused)' if step.invalid else ''}")
    say(episode.final_observation, lines=True)


def _the_one(memory: "Memory", beginning: str) -> str:
    """The one episode whose id is this, or begins so."""
    if beginning in memory:
        return beginning
    ids = [entry.episode_id for entry in memory.entries() if entry.episode_id.startswith(beginning)]
    if len(ids) != 1:
        raise LookupError(
            f"{len(ids)} episodes in {memory.path} begin with {beginning!r}: give more of the id "
            "(relive memory search shows ids)"
        )
    return ids[0]


def _rate(args: argparse.Namespace) -> None:
    import math

    from ...memory import Memory

    if not math.isfinite(args.value):
        raise ValueError(f"{args.value} is no rating: give a number")
    with Memory(args.memory, "w") as memory:
        episode_id = _the_one(memory, args.episode)
        memory.rate(episode_id, args.name, args.value)
    say(f"{episode_id}: {args.name} {args.value:g}")


def _annotate(args: argparse.Namespace) -> None:
    from ...memory import Memory

    with Memory(args.memory, "w") as memory:
        episode_id = _the_one(memory, args.episode)
        memory.annotate(episode_id, args.text)
        say(f"{episode_id}: {len(memory.notes(episode_id))} notes")


def _delete(args: argparse.Namespace) -> None:
    from ...memory import Memory

    with Memory(args.memory, "w") as memory:
        # Each is looked for before any is deleted: a typing error deletes nothing.
        for episode_id in dict.fromkeys(
            [_the_one(memory, beginning) for beginning in args.episodes]
        ):
            memory.delete(episode_id, args.reason)
            say(f"{episode_id} deleted")


def _evict(args: argparse.Namespace) -> None:
    from ...memory import Memory

    before = None if args.before is None else _time(args.before)
    with Memory(args.memory, "w") as memory:
        gone = memory.evict(
            capacity=args.capacity, before=before, by=args.by, keep_per_type=args.keep_per_type
        )
        left = len(memory)
    _print_some([f"{episode_id} deleted" for episode_id in gone])
    say(f"{len(gone)} episodes deleted, {left} left; relive memory compact takes their bytes away")


def _time(text: str) -> float:
    """Unix seconds from a date, or from the number itself."""
    from datetime import datetime

    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(
            f"--before {text} is no time: write 2026-01-31, 2026-01-31T18:00 or Unix seconds"
        ) from None


def _compact(args: argparse.Namespace) -> None:
    from ...memory import Memory

    with _watched("compacting"), Memory(args.memory, "w") as memory:
        done = memory.compact()
    say(
        f"{done.episodes} episodes and {done.records - done.episodes} records about them taken "
        "away; "
        f"the log had {done.before / 1e6:.1f} MB and has {done.after / 1e6:.1f}"
    )


def _verify(args: argparse.Namespace) -> int:
    from ...memory import Memory

    with _watched("reading everything"), Memory(args.memory, "r") as memory:
        damage, count, position = memory.verify(), len(memory), memory.position
    say(
        f"{args.memory}: {count} episodes can be read, position {position}; "
        f"{len(damage) or 'nothing'} damaged"
    )
    _print_damage(damage)
    if damage:
        say(
            "catalog, vectors, index: relive memory rebuild makes them again; log: only an earlier "
            "export still has it"
        )
    return 1 if damage else 0


def _rebuild(args: argparse.Namespace) -> int:
    from ...memory.maintenance.rebuild import rebuild

    with _watched("rebuilding") as on_progress:
        made = rebuild(args.memory, reembed=args.reembed, on_progress=on_progress)
    say(
        f"{args.memory}: catalog of {made.episodes} episodes made from the log, {made.embedded} "
        "texts embedded, "
        f"{made.indexed or 'no'} rows in the "
        f"index{'' if made.indexed else ' (so few are all compared)'}"
    )
    _print_damage(made.damage)
    return 1 if made.damage else 0


def _export(args: argparse.Namespace) -> int:
    from ...memory import Memory
    from ...memory.transfer import export_file, export_lines

    with Memory(args.memory, "r") as memory:
        if args.file == "-":
            write, count = byte_writer(), -1  # the first line is no episode
            for line in export_lines(memory):
                write(line)
                count += 1
            sys.stdout.flush()
        else:
            total = len(memory)
            with _watched("exporting") as on_progress:
                count = export_file(
                    memory, args.file, lambda done: on_progress("exporting", done, total)
                )
        lost = [damage for damage in memory.stats().damage if damage.file.startswith("log/")]
    complain(f"{count} episodes exported" + ("" if args.file == "-" else f" to {args.file}"))
    for one in lost:
        complain(f"  not exported, damaged: {one}")
    return 1 if lost else 0


def _import(args: argparse.Namespace) -> int:
    from ...memory import Memory
    from ...memory.imports import Labels, import_file

    labels = Labels(args.suite, args.split)
    piped = args.file == "-"
    name = "standard input" if piped else args.file
    with (
        nullcontext(sys.stdin.buffer) if piped else Path(args.file).open("rb") as source,
        _watched("importing") as on_progress,
        Memory(args.memory) as memory,
    ):
        report = import_file(
            memory,
            source,
            name,
            format=args.format,
            labels=labels,
            on_progress=lambda line: on_progress("importing", line, 0),
        )
    done = report.imported
    say(
        f"{done.added} episodes added to {args.memory}; {done.there} were there already"
        + (f"; {done.deleted} had been deleted there and stay so" if done.deleted else "")
    )
    recognised = "" if args.format else ", as its first line says"
    say(f"{name} was read as {report.format}{recognised}")
    for line in report.summary():
        say(f"  {line}")
    for problem in done.problems:
        complain(str(problem))
    if done.bad > len(done.problems):
        complain(f"… and {done.bad - len(done.problems)} more")
    if done.bad:
        complain(
            f"{done.bad} lines were not imported: mend them and import the file again (what is "
            "there is passed over)"
        )
    return 1 if done.bad else 0


def _print_damage(damage: "Sequence[Corruption]") -> None:
    _print_some([f"  damaged: {one}" for one in damage])


def _print_some(lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        say(line)
    if len(lines) > _SHOWN:
        say(f"  … and {len(lines) - _SHOWN} more")


@contextmanager
def _watched(title: str) -> Iterator[OnProgress]:
    """A line on the terminal that says what is done and for how long; where none is, a plain line
    every ten seconds."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from ..evaluation.lines import PlainProgress
    from ..evaluation.report import console

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    shown = console(error=True)
    if not shown.is_terminal:
        yield PlainProgress().tell
        return
    with Progress(*columns, console=shown, transient=True) as bar:
        task = bar.add_task(title)

        def on_progress(what: str, done: int, total: int) -> None:
            bar.update(
                task,
                description=what + (f" {done}" if done else "") + (f" of {total}" if total else ""),
            )

        yield on_progress
