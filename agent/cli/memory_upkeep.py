"""The `relive memory` commands that keep a memory in order and move it: evict, compact, verify,
rebuild, export, import.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..evaluation.terminal import byte_writer, complain, say
from .options import by_commands

if TYPE_CHECKING:
    from ...memory import Corruption
    from ...memory.imports import ImportReport

OnProgress = Callable[[str, int, int], None]
"""Told what is done, how much of it is, and how much it will be (0: not known)."""
_SHOWN = 20  # lines of a list that can be long
_PIPE = "-"  # standard input
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
        "import", _import, "add the episodes of files; a new memory is made if need be"
    )
    imports.description = (
        "Each line of a file is an episode of an export, a log of an ALFWorld agent or a "
        'conversation: {"messages": [{"role": "user", "content": "Your task is to: …"}, {"role": '
        '"assistant", "content": "what was done"}], "success": true}. The field success (result in '
        "a log) is needed: without it an episode counts as a failure, and agents are shown "
        "successes."
    )
    imports.add_argument(
        "files",
        nargs="+",
        metavar="file",
        help="exports, conversations or logs, .gz too; - for standard input",
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
    from ...memory.imports import Labels, recognise
    from ...memory.plain import counted

    how: dict[str, Any] = {"format": args.format, "labels": Labels(args.suite, args.split)}
    if args.files.count(_PIPE) > 1:
        raise ValueError(f"{_PIPE} is standard input, which can be read once: name it once")
    # All are looked at first: one that cannot be taken leaves no new memory and half an import.
    for name in args.files:
        if name != _PIPE:
            with _opened(name) as source:
                recognise(source, name, **how)
    piped = recognise(sys.stdin.buffer, "standard input", **how) if _PIPE in args.files else None
    added = there = bad = 0
    with Memory(args.memory) as memory:
        for name in args.files:
            with _opened(name) as source, _watched("importing") as on_progress:
                file = piped if piped and name == _PIPE else recognise(source, name, **how)
                report = file.into(memory, partial(_on_line, on_progress))
            _tell(args, file.name, report)
            done = report.imported
            added, there, bad = added + done.added, there + done.there, bad + done.bad
    if len(args.files) > 1:
        say(
            f"{len(args.files)} files: {counted(added, 'episode')} added in all; {there} "
            f"{'was' if there == 1 else 'were'} there already; {counted(bad, 'line')} not imported"
        )
    return 1 if bad else 0


def _opened(name: str) -> "AbstractContextManager[BinaryIO]":
    if name == _PIPE:
        return nullcontext(sys.stdin.buffer)
    if Path(name).is_dir():
        raise IsADirectoryError(f"{name} is a folder: name the files in it ({name}/*.jsonl)")
    return Path(name).open("rb")


def _on_line(on_progress: OnProgress, line: int) -> None:
    on_progress("importing", line, 0)


def _tell(args: argparse.Namespace, name: str, report: "ImportReport") -> None:
    """Says what became of a file."""
    from ...memory.plain import counted

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
