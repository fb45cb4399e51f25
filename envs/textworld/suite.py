"""The suite `textworld`: cooking, coin collector, treasure hunter and simple games, made by
TextWorld's own generators."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...caches import made_cache_folder
from ...extras import needs
from ...task import Task
from ..base import ActionTemplate, Suite
from ..listing import spread
from . import library
from .env import TextWorldEnv
from .recipes import (
    FIRST_SEED,
    GROUPS,
    KINDS,
    SEEDS,
    SKILLS,
    SUITE,
    TEXTWORLD,
    VERSION,
    recipe_of,
    task_of,
)
from .walkthrough import WalkthroughExpert

TEMPLATES = (
    ActionTemplate("look", "look"),
    ActionTemplate("inventory", "look"),
    ActionTemplate("examine {object}", "look"),
    ActionTemplate("go north", "move"),
    ActionTemplate("go south", "move"),
    ActionTemplate("go east", "move"),
    ActionTemplate("go west", "move"),
    ActionTemplate("open {object}", "look"),
    ActionTemplate("close {object}", "look"),
    ActionTemplate("take {object}", "act"),
    ActionTemplate("take {object} from {object}", "act"),
    ActionTemplate("put {object} on {object}", "act"),
    ActionTemplate("insert {object} into {object}", "act"),
    ActionTemplate("drop {object}", "act"),
    ActionTemplate("unlock {object} with {object}", "act"),
    ActionTemplate("lock {object} with {object}", "act"),
    ActionTemplate("cook {object} with {object}", "act"),
    ActionTemplate("slice {object} with {object}", "act"),
    ActionTemplate("dice {object} with {object}", "act"),
    ActionTemplate("chop {object} with {object}", "act"),
    ActionTemplate("prepare meal", "act"),
    ActionTemplate("eat {object}", "act"),
)
"""What TextWorld's games understand; the last six in cooking games alone, but for `eat`."""
INSTRUCTIONS = "You play a text adventure. Answer with one command at a time."


class TextWorldSuite(Suite):
    """Games of TextWorld's generators. See `relive.envs.base.Suite`.

    A game is made at its first reset, which takes some seconds, and kept; `prepare` makes many at
    once. Held out from training as TextWorld holds it out: foods, and ways to prepare others, in
    cooking games (valid and test), and the dishes of simple games (test). Otherwise splits differ
    by seed.

    Raises:
        MissingExtraError: TextWorld is not installed.
        ImportError: it is of another version, which would make other games of the same seeds.
    """

    name: str = SUITE
    version: str = VERSION
    types: tuple[str, ...] = tuple(kind for kind in KINDS if kind not in SKILLS)
    groups: Mapping[str, tuple[str, ...]] = GROUPS
    templates: tuple[ActionTemplate, ...] = TEMPLATES
    instructions: str = INSTRUCTIONS
    goal_form = "instruction"
    max_steps: int = max(kind.limit for kind in KINDS.values())
    expert_kind = "scripted"
    preload: tuple[str, ...] = ("jericho",)
    """Modules worth importing before a worker is forked."""

    def __init__(self) -> None:
        needs("textworld")
        if version("textworld") != TEXTWORLD:
            raise ImportError(
                f"suite 'textworld' is made of the games of textworld {TEXTWORLD}, and "
                f"{version('textworld')} is installed: pip install textworld=={TEXTWORLD}"
            )

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks, taking the types in turn. None is made for it; the goal is told at reset.

        Raises:
            ValueError: unknown split or type, or a negative number.
        """
        pools = {kind: range(SEEDS) for kind in self.checked(split, types)}
        listed = spread(pools, count, start, where=f"split {split!r} of suite 'textworld'")
        return [task_of(kind, split, index) for kind, index in listed]

    def prepare(
        self,
        tasks: Sequence[Task],
        processes: int = 1,
        tell: Callable[[int, int], object] | None = None,
    ) -> int:
        """Make the games of tasks that are not there yet, and say how far it is; returns how many.
        See `relive.envs.textworld.library.compile_games`."""
        return library.compile_games(map(_recipe, tasks), processes, tell)

    def check_ready(self) -> None:
        """Raises where games cannot be kept."""
        made_cache_folder("textworld")

    def make(self) -> TextWorldEnv:
        """A fresh environment."""
        return TextWorldEnv(_locate, _draw)

    def limit(self, task: Task) -> int:
        """By type: at least twice the longest walk-through seen."""
        return KINDS[task.type].limit if task.type in KINDS else self.max_steps

    def expert(self, task: Task) -> WalkthroughExpert:
        """One that follows the game's walk-through; the game need not run here."""
        return WalkthroughExpert(lambda: _locate(task))


def _recipe(task: Task) -> dict[str, object]:
    if task.suite != SUITE or task.type not in KINDS or task.split not in FIRST_SEED:
        raise ValueError(
            f"task {task.identity} of suite {task.suite!r}, type {task.type!r} and split "
            f"{task.split!r} is none of suite {SUITE!r}"
        )
    recipe = recipe_of(task.type, task.split, task.seed)
    if recipe["name"] != task.identity:
        raise ValueError(
            f"task {task.identity} is of version {task.version!r}, and this is {VERSION!r}, whose "
            "games are others: list the tasks anew"
        )
    return recipe


def _locate(task: Task) -> Path:
    return library.game_file(_recipe(task))


def _draw(rng: np.random.Generator) -> Task:
    kind = tuple(KINDS)[int(rng.integers(len(KINDS)))]
    return task_of(kind, "train", int(rng.integers(SEEDS)))
