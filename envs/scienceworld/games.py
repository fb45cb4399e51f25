"""The thirty tasks of ScienceWorld with their variations, from the table beside this file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from ...task import Task, identity_of
from ..listing import check_listed

SUITE = "scienceworld"
SPLITS = ("train", "dev", "test")
"""The package's names. Each has a stretch of the variations, in this order."""


@dataclass(frozen=True, slots=True)
class Game:
    """One of the thirty tasks."""

    kind: str
    group: str
    """``easy`` or ``hard``, as the paper divides them."""
    variations: Mapping[str, range]
    """Of each split."""
    longest: int
    """Actions of the longest solution seen."""
    limit: int
    """Actions that an episode may take."""


@cache
def _table() -> dict[str, object]:
    text = files(__package__).joinpath("tasks.json").read_text("utf-8")
    table: dict[str, object] = json.loads(text)
    return table


@cache
def games() -> Mapping[str, Game]:
    """All tasks by name, in the paper's order."""
    listed = _table()["tasks"]
    assert isinstance(listed, list)
    found = {}
    for row in listed:
        ends = [0]
        for split in SPLITS:
            ends.append(ends[-1] + row[split])
        variations = {
            split: range(*ends[number : number + 2]) for number, split in enumerate(SPLITS)
        }
        found[row["type"]] = Game(
            row["type"], row["group"], variations, row["longest"], row["limit"]
        )
    return MappingProxyType(found)


PACKAGE = str(_table()["package"])
"""Version of the package that the table is of; another one has other games."""
VERSION = f"scienceworld-1 ({PACKAGE})"


def task_of(kind: str, split: str, variation: int) -> Task:
    """The task of a variation; its goal is told at reset."""
    identity = identity_of(SUITE, PACKAGE, kind, str(variation))
    return Task(SUITE, identity, kind, split, "", variation, VERSION, "")


def check_task(task: Task) -> None:
    """Raises a `ValueError` for a task that this suite does not have."""
    game = games().get(task.type)
    numbers = game.variations.get(task.split, ()) if game else ()
    check_listed(task, SUITE, numbers, lambda: task_of(task.type, task.split, task.seed))
