"""`relive report`: one page about one run, or several beside each other."""

import argparse
from pathlib import Path


def add_report_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `report` to the commands of `relive`."""
    parser = commands.add_parser(
        "report", help="one page about runs: results, comparisons, and every episode"
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN",
        help="folder of a run (eval, learn, study, stream), or of a memory",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"),
        help="the page (default report.html); it is written over",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=Path,
        help="the memory that was read, if it is not where it was then",
    )  # fmt: skip
    parser.add_argument("--title", default="", help="default: the names of the runs")
    parser.add_argument(
        "--no-prompts", action="store_true",
        help="leave out what episodes were shown, which takes a search each",
    )  # fmt: skip
    parser.set_defaults(act=_report)


def _report(args: argparse.Namespace) -> None:
    from ...memory.plain import counted
    from ..evaluation.report import console
    from ..evaluation.terminal import say
    from ..report.report import report

    with console(error=True).status("reading episodes") as status:

        def tell(count: int, condition: str) -> None:
            if count % 50 == 0:
                status.update(f"reading episodes: {count:,} ({condition})")

        made = report(
            args.runs, args.out, memory=args.memory, title=args.title,
            prompts=not args.no_prompts, tell=tell,
        )  # fmt: skip
    say(f"{made.file}: {counted(made.episodes, 'episode')}, {made.size / 1e6:.1f} MB")
