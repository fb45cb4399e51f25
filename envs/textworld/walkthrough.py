"""The walk-throughs that TextWorld writes down beside its games, and an expert that follows one."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path


def walkthrough_of(path: Path) -> list[str]:
    """Commands that win a game, as the ``.json`` beside it has them, or Jericho.

    Doors and containers stay open where nothing is closed, so an `open` that was done before is
    left out: TextWorld's walk-throughs of large houses say it at every passage.

    Returns:
        The commands; none where nobody knows any.
    """
    try:
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        commands = dict(told["metadata"])["walkthrough"]
    except (OSError, ValueError, KeyError, TypeError):
        return _known_to_jericho(path)
    if not isinstance(commands, list):
        return []
    kept: list[str] = []
    closes = any(str(command).startswith("close ") for command in commands)
    for command in map(str, commands):
        if closes or not (command.startswith("open ") and command in kept):
            kept.append(command)
    return kept


def _known_to_jericho(path: Path) -> list[str]:
    from jericho.defines import BINDINGS_DICT

    known = BINDINGS_DICT.get(hashlib.md5(path.read_bytes()).hexdigest(), {})
    return [command for command in str(known.get("walkthrough", "")).split("/") if command]


class WalkthroughExpert:
    """Says the commands of a walk-through, one after the other; `look` behind its end.

    Args:
        find: gives the game's file. Asked at the first action: whoever plays has made it by then.
    """

    def __init__(self, find: Callable[[], Path]) -> None:
        self._find = find
        self._commands: list[str] | None = None

    def act(self, observation: str) -> str:
        """The next command, whatever was read."""
        if self._commands is None:
            self._commands = walkthrough_of(self._find())
        return self._commands.pop(0) if self._commands else "look"
