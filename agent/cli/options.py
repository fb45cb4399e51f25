"""Options that several commands have: every setting by ``--config`` and ``--set``, and short flags
for those that are changed most."""

import argparse
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...envs import Suite
    from ..evaluation.tracking import Target

_COMMANDS = tuple(
    (re.compile(said), instead)
    for said, instead in (
        (r"mode='create' makes one, and so does relive run", "relive run makes one"),
        (r"close it, or open with mode='r'", "or end it"),
        (
            r"open it once with mode='w' and fields=\(\.\.\., '(\w+)'\)",
            r"relive run --fields goal,\1 adds it",
        ),
        (r"opening with mode='w' cuts it off", "the next command that writes there cuts it off"),
    )
)
"""What the library advises whoever writes Python, and what does the same on the command line."""

ALL = -1
"""Number of tasks that stands for all there are."""


def suite_named(name: str) -> "Suite":
    """The suite of a name, for a command.

    Raises:
        UnknownSuiteError, ImportError, OSError: as :func:`relive.envs.get_suite`.
        ValueError: what the name stands for cannot be a suite.
    """
    from ...envs import get_suite

    try:
        return get_suite(name)
    except TypeError as error:  # somebody's environment, whose actions are numbers for example
        raise ValueError(str(error)) from error


def by_commands(text: str) -> str:
    """What the library says of a mistake, for somebody who types commands."""
    for said, instead in _COMMANDS:
        text = said.sub(instead, text)
    return text


def add_settings(
    parser: argparse.ArgumentParser, kind: str, default: Callable[[], Any] = lambda: None
) -> None:
    """Add ``--config`` and ``--set``, and ``--settings``, which lists what can be set.

    Args:
        parser: of the command.
        kind: ``module:Class`` of its settings; imported when they are listed.
        default: makes an object with the defaults, where they are not those of the class.
    """
    parser.add_argument("--config", type=Path, help="TOML file with settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="one setting, e.g. retrieval.k=4 (repeatable)",
    )
    parser.add_argument(
        "--settings", action=_Settings, nargs=0, kind=kind, defaults=default,
        help="list all settings with their defaults, as a file for --config, and exit",
    )  # fmt: skip


class _Settings(argparse.Action):
    """Prints the settings of a command, and ends."""

    def __init__(self, *args: Any, kind: str, defaults: Callable[[], Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self._kind, self._defaults = kind, defaults

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .main import guarded  # an extra may be missing

        parser.exit(guarded(parser.prog, self._tell))

    def _tell(self) -> None:
        from ..evaluation.terminal import say
        from ..settings import as_toml

        module, _, name = self._kind.partition(":")
        kind = getattr(import_module(module, __package__), name)
        say(as_toml(kind, self._defaults()).rstrip(), lines=True)


def add_on(parser: argparse.ArgumentParser) -> None:
    """Add ``--on``, the place of :func:`relive.agent.cluster.executor.executor`."""
    parser.add_argument(
        "--on", default="", metavar="WHERE",
        help="where to play: ray (workers on this machine), ray://auto (the cluster that this "
        "machine is a node of) or ray://HOST:PORT; how many and how large: --set ray.workers=8 "
        "(default: in this process)",
    )  # fmt: skip


def add_log_to(parser: argparse.ArgumentParser) -> None:
    """Add ``--log-to``, the targets of :func:`relive.agent.evaluation.tracking.tracked`."""
    parser.add_argument(
        "--log-to", action="append", default=[], type=_target, metavar="WHERE",
        help="log numbers to tensorboard:DIR, wandb[:PROJECT] or trackio[:PROJECT] (repeatable)",
    )  # fmt: skip


def _target(text: str) -> "Target":
    from ..evaluation.tracking import Target

    try:
        return Target.of(text)
    except (ValueError, ImportError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_flag(group: Any, flag: str, setting: str, help: str, **options: Any) -> None:
    """Add a short flag for a setting, which then need not be written out with ``--set``.

    Args:
        group: an argparse parser or group.
        flag: for example ``--k``.
        setting: for example ``retrieval.k``.
        help: what it sets.
        options: further arguments of argparse.
    """
    options.setdefault("metavar", flag.lstrip("-").replace("-", "_").upper())
    if options["metavar"] is None:  # a switch, which takes none
        del options["metavar"]
    group.add_argument(
        flag, dest=f"{_PREFIX}{setting}", default=argparse.SUPPRESS, help=help, **options
    )


def flags_of(args: argparse.Namespace) -> Mapping[str, Any]:
    """The settings that were given by short flags, by their dotted names."""
    return {
        name.removeprefix(_PREFIX): value
        for name, value in vars(args).items()
        if name.startswith(_PREFIX)
    }


_PREFIX = "setting "
