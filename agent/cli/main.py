"""The command line: parses, calls one library function per command, prints what it returns.

Nothing heavy is imported before a command runs, so that help is instant. The modules beside this
one hold a group of commands each; they reach `training` inside the functions that need it.
"""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from ..conversation import StopRun
from ..evaluation.terminal import complain, flush_output, say, silence, standard_streams, visible
from .envs import add_env_commands
from .export import add_export_command
from .learning import add_learning_commands
from .memory import add_memory_commands
from .options import by_commands
from .play import add_play_commands
from .report import add_report_command
from .retriever import add_retriever_command

_EXPECTED = (
    ValueError, LookupError, OSError, ImportError, NotImplementedError, RuntimeError, StopRun,
)  # fmt: skip
"""Errors that say what, where and what to do; anything else is a bug and keeps its traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 where something was found wrong, 2 after an error
    that the user can correct, 130 after Ctrl-C."""
    with standard_streams():
        if os.environ.get("RANK", "0") != "0":  # of several processes, the first one speaks
            silence(sys.stdout)
            silence(sys.stderr)
        args = build_parser().parse_args(argv)
        return guarded(f"relive {args.command}", lambda: args.act(args))


def guarded(name: str, act: Callable[[], int | None]) -> int:
    """Runs something for a person: an expected error becomes one line that begins with `name`.
    Returns the exit status."""
    with standard_streams(), warnings.catch_warnings():
        warnings.showwarning = _warn
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
            bare = type(error) is KeyError and error.args  # whose text is shown in quotes
            first = error.args[0] if bare else error
            complain(f"{name}: {by_commands(' '.join(str(first).split()))}")
            return 2


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line."""
    complain(f"warning: {' '.join(str(message).split())}")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are short, and show arguments, file names above all, as text."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does, but a command complains itself of arguments that it does not know."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the arguments, and ends; a long usage would hide it."""
        self.exit(2, f"{self.prog}: error: {visible(message)}\nsee {self.prog} --help\n")


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
        description="An agent that acts in text environments, remembers every episode, and learns "
        "from them.",
        epilog="Start with: relive envs play toy   (be the policy yourself)   or   make demo",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add_play_commands(commands)
    add_learning_commands(commands)
    add_retriever_command(commands)
    add_report_command(commands)
    add_memory_commands(commands)
    add_export_command(commands)
    add_env_commands(commands)
    return parser
