"""The one search call of these tests, and what it has to hide."""

import re
from dataclasses import dataclass

from relive.memory import Hit, Holdout, Memory, Query, Task


@dataclass(frozen=True)
class Hide:
    """What a search must not show; the fields of ``Holdout``."""

    tasks: frozenset[str] = frozenset()
    splits: frozenset[str] | None = None
    hidden_splits: frozenset[str] = frozenset()
    near: tuple[str, str] | None = None


NOTHING = Hide()


def _plain(text: str) -> str:
    """Normal form of what these tests write in ASCII."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _is_near(near: tuple[str, str], task: Task) -> bool:
    return (_plain(near[0]), _plain(near[1])) == (_plain(task.room), _plain(task.goal))


def ask(memory: Memory, query: Query, at: int | None = None, hide: Hide = NOTHING) -> list[Hit]:
    """Search."""
    return list(memory.search(query, Holdout(**vars(hide)), at))


def is_hidden(hide: Hide, task: Task) -> bool:
    """Whether a search must not show the episodes of a task; written down a second time."""
    return (
        task.identity in hide.tasks
        or (hide.splits is not None and task.split not in hide.splits)
        or task.split in hide.hidden_splits
        or (hide.near is not None and bool(_plain(hide.near[0])) and _is_near(hide.near, task))
    )
