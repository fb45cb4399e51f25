"""The `relive memory` commands that keep a memory in order and move it: evict, compact, verify,
rebuild, export, import.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.terminal import byte_writer, complain, say
from .options import by_commands

if TYPE_CHECKING:
    from ...memory import Corruption

OnProgress = Callable[[str, int, int], None]
"""Told what is done, how much of it is, and how much it will be (0: not known)."""
_SHOWN = 20  # lines of a list that can be long
AddCommand = Callable[
    [str, Callable[[argparse.Namespace], int | None], str], argparse.ArgumentParser
]
"""Adds a command of `relive memory`: its name, what it does, its help. It has ``--memory``
already."""


def add_upkeep_commands(command: AddCommand) -> None:
    """Add what keeps a memory in order and moves it."""
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
    rebuild.add_argument(
        "--embedder",
        help="the folder of a tuned embedder, or hashed: from now on the memory's; implies "
        "--reembed",
    )
    rebuild.add_argument(
        "--index",
        help="kind of its index from now on: hnsw (a graph in main memory) or lancedb (a table on "
        "the disk)",
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


def _evict(args: argparse.Namespace) -> None:
    from ...memory import Memory
    from ...memory.plain import counted

    before = None if args.before is None else _time(args.before)
    with Memory(args.memory, "w") as memory:
        gone = memory.evict(
            capacity=args.capacity, before=before, by=args.by, keep_per_type=args.keep_per_type
        )
        left = len(memory)
    _print_some([f"{episode_id} deleted" for episode_id in gone])
    say(f"{counted(len(gone), 'episode')} deleted, {left} left")
    if gone:
        say("relive memory compact takes their bytes away")
    if args.capacity is not None and left > args.capacity:
        say(
            f"more than --capacity {args.capacity} are left: --keep-per-type {args.keep_per_type} "
            "spares the last successes of each type"
        )


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
    from ...memory.plain import counted

    with _watched("compacting"), Memory(args.memory, "w") as memory:
        done = memory.compact()
    say(
        f"{counted(done.episodes, 'episode')} and "
        f"{counted(done.records - done.episodes, 'record')} about them taken away; "
        f"the log had {done.before / 1e6:.1f} MB and has {done.after / 1e6:.1f}"
    )


def _verify(args: argparse.Namespace) -> int:
    from ...memory import Memory
    from ...memory.plain import counted

    with _watched("reading everything"), Memory(args.memory, "r") as memory:
        damage, count, position = memory.verify(), len(memory), memory.position
    say(
        f"{args.memory}: {counted(count, 'episode')} can be read, position {position}; "
        f"{len(damage) or 'nothing'} damaged"
    )
    print_damage(damage)
    if damage:
        say(
            "catalog, vectors, index: relive memory rebuild makes them again; log: only an earlier "
            "export still has it"
        )
    return 1 if damage else 0


def _rebuild(args: argparse.Namespace) -> int:
    from ...memory import IndexSettings
    from ...memory.maintenance.rebuild import rebuild
    from ...memory.plain import counted
    from ...memory.search.tuned import load_embedder

    embedder = load_embedder(args.embedder) if args.embedder else None
    with _watched("rebuilding") as on_progress:
        made = rebuild(
            args.memory,
            embedder=embedder,
            reembed=args.reembed or embedder is not None,
            index=IndexSettings(engine=args.index or ""),
            on_progress=on_progress,
        )
    say(
        f"{args.memory}: catalog of {counted(made.episodes, 'episode')} made from the log, "
        f"{counted(made.embedded, 'text')} embedded, "
        + (
            f"{counted(made.indexed, 'row')} in the index"
            if made.indexed
            else "no rows in the index (so few are all compared)"
        )
    )
    print_damage(made.damage)
    return 1 if made.damage else 0


def _export(args: argparse.Namespace) -> int:
    from ...memory import Memory
    from ...memory.plain import counted
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
    complain(
        f"{counted(count, 'episode')} exported" + ("" if args.file == "-" else f" to {args.file}")
    )
    for one in lost:
        complain(f"  not exported, damaged: {one}")
    return 1 if lost else 0


def _import(args: argparse.Namespace) -> int:
    from ...memory import Memory
    from ...memory.imports import Labels, import_file
    from ...memory.plain import counted

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
        f"{counted(done.added, 'episode')} added to {args.memory}; {done.there} "
        f"{'was' if done.there == 1 else 'were'} there already"
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
            f"{counted(done.bad, 'line')} not imported: repair what is wrong and import the file "
            "again (what is there is passed over)"
        )
    return 1 if done.bad else 0


def print_damage(damage: "Sequence[Corruption]") -> None:
    """Says what was found damaged, the first lines of it."""
    _print_some([by_commands(f"  damaged: {one}") for one in damage])


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
