"""The eight games of TextWorldExpress, its folds, and its tasks."""

from collections.abc import Mapping
from types import MappingProxyType

from ...task import Task, identity_of
from ..base import ActionTemplate

SUITE = "textworld-express"
PACKAGE = "1.1.0"
"""Version of the package whose generators make the games; another one makes others."""
VERSION = f"textworld-express-1 ({PACKAGE})"

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "cookingworld": 200,
        "twc": 60,
        "coin": 80,
        "mapreader": 40,
        "arithmetic": 20,
        "sorting": 30,
        "simonsays": 20,
        "peckingorder": 30,
    }
)
"""Actions that an episode of a game may take, with room for the longest solution there is."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "houses": ("cookingworld", "twc", "coin", "mapreader"),
        "puzzles": ("arithmetic", "sorting", "simonsays", "peckingorder"),
    }
)
"""Games in several rooms, and in one."""

FOLDS: Mapping[str, range] = MappingProxyType(
    {
        "train": range(1000),
        "dev": range(10_000, 11_000),
        "test": range(20_000, 21_000),
    }
)
"""The package's splits: its seeds of every game."""

TEMPLATES = (
    ActionTemplate("look around", "look"),
    ActionTemplate("inventory", "look"),
    ActionTemplate("task", "look"),
    ActionTemplate("read {object}", "look"),
    ActionTemplate("examine {object}", "look"),
    ActionTemplate("move north", "move"),
    ActionTemplate("move south", "move"),
    ActionTemplate("move east", "move"),
    ActionTemplate("move west", "move"),
    ActionTemplate("open door to north", "look"),
    ActionTemplate("open door to south", "look"),
    ActionTemplate("open door to east", "look"),
    ActionTemplate("open door to west", "look"),
    ActionTemplate("open {object}", "look"),
    ActionTemplate("close {object}", "look"),
    ActionTemplate("take {object}", "act"),
    ActionTemplate("put {object} in {object}", "act"),
    ActionTemplate("cook {object} in {object}", "act"),
    ActionTemplate("slice {object}", "act"),
    ActionTemplate("dice {object}", "act"),
    ActionTemplate("chop {object}", "act"),
    ActionTemplate("prepare meal", "act"),
    ActionTemplate("eat {object}", "act"),
    ActionTemplate("touch {object}", "act"),
    ActionTemplate("smell {object}", "act"),
)
"""What one game or another understands. Simon says some things beside these."""


def task_of(game: str, split: str, seed: int) -> Task:
    """The task of a seed; its goal is told at reset."""
    name = identity_of(VERSION, game, split, str(seed))
    return Task(SUITE, name, game, split, "", seed, VERSION, "")
