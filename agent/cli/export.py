"""The command that hands episodes to other programs: `relive export`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.terminal import byte_writer, complain
from .options import suite_named

if TYPE_CHECKING:
    from ..export.report import Report
    from ..export.source import Source

FORMATS = ("messages", "datasets", "minari", "csv")
"""What can be written."""
_STDOUT = "-"
"""The name of standard output; a file of that name is ``./-``."""


def add_export_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `export` to the commands of `relive`."""
    export = commands.add_parser(
        "export", help="episodes for other programs: fine-tuning messages, data sets, tables"
    )
    export.add_argument(
        "source", type=Path, metavar="RUN|MEMORY", help="folder of a run or of a memory"
    )
    export.add_argument(
        "--to", required=True, choices=FORMATS,
        help="messages: JSON lines of conversations (trl, OpenAI); datasets: a folder for "
        "Hugging Face datasets; minari: a Minari data set; csv: two tables",
    )  # fmt: skip
    export.add_argument(
        "--out", required=True,
        help="new file (messages; - for standard output) or new folder (the others; minari: "
        "NAME-v0)",
    )  # fmt: skip
    export.add_argument("--successes", action="store_true", help="only episodes that succeeded")
    export.add_argument("--split", default="", help="only episodes of this split, e.g. train")
    export.add_argument(
        "--suite", help="messages: whose instructions they get (default: their own suite's)"
    )
    export.add_argument(
        "--spreadsheet", action="store_true",
        help="csv: an apostrophe before texts that a spreadsheet takes for formulas",
    )  # fmt: skip
    export.set_defaults(act=_export)


def _export(args: argparse.Namespace) -> int:
    from ...memory import Memory
    from ...memory.plain import counted
    from ..export.source import Source
    from ..export.whole import refuse_existing
    from ..rundir import memory_in

    if args.suite and args.to != "messages":
        raise ValueError(f"--suite chooses the instructions of messages, and --to is {args.to}")
    if args.spreadsheet and args.to != "csv":
        raise ValueError(f"--spreadsheet is about tables (--to csv), and --to is {args.to}")
    if args.out == _STDOUT and args.to != "messages":
        raise ValueError(
            f"--out - is standard output, and --to {args.to} makes a folder: give its name (only "
            "--to messages is one file)"
        )
    if args.out != _STDOUT:
        refuse_existing(Path(args.out))  # before anything is read
    with Memory(memory_in(args.source), "r") as memory:
        source = Source(memory, memory.position, args.successes, args.split)
        report = _write(args, source)
        damage = source.damage()
    complain(
        f"{counted(report.episodes, 'episode')} with {counted(report.steps, 'step')} exported"
        + ("" if args.out == _STDOUT else f" to {args.out}")
    )
    for note in report.remarks:
        complain(f"  {note}")
    for one in damage:
        complain(f"  not exported, damaged: {one}")
    return 1 if damage else 0


def _write(args: argparse.Namespace, source: "Source") -> "Report":
    if args.to == "messages":
        from ..export.messages import export_messages, write_messages

        suite = suite_named(args.suite) if args.suite else None
        if args.out == _STDOUT:
            return write_messages(source, byte_writer(), suite)
        return export_messages(source, Path(args.out), suite)
    if args.to == "datasets":
        from ..export.datasets import export_datasets

        return export_datasets(source, Path(args.out))
    if args.to == "minari":
        from ..export.minari import export_minari

        return export_minari(source, Path(args.out))
    from ..export.tables import export_tables

    return export_tables(source, Path(args.out), args.spreadsheet)
