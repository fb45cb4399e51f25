"""The suite `textworld-express`: eight short games with the package's own folds."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version

from ...extras import needs
from ...task import Task
from ..base import ActionTemplate, Suite
from ..jvm import check_java
from ..listing import size_of, spread
from ..names import names_in
from .env import TextWorldExpressEnv
from .games import FOLDS, GROUPS, LIMITS, PACKAGE, SUITE, TEMPLATES, VERSION, task_of
from .java import JavaGames

_QUOTED = re.compile(r"'([^']+)'")
_COUNTED = re.compile(r"\b\d+(?:[a-z]+ of)? [a-z]+\b")


class TextWorldExpressSuite(Suite):
    """The games of TextWorldExpress. See `relive.envs.base.Suite`.

    A few coin games are the same under two seeds: 34 pairs of 3000 seeds, among them 7 of a test
    game and one of train. That is so in the package, and its folds are what others report on.

    Raises:
        MissingExtraError: the package is not installed.
        ImportError: it is of another version, which would make other games of the same seeds.
    """

    name: str = SUITE
    version: str = VERSION
    types: tuple[str, ...] = tuple(LIMITS)
    groups: Mapping[str, tuple[str, ...]] = GROUPS
    splits: tuple[str, ...] = tuple(FOLDS)
    validation_split: str = "dev"
    repeats: tuple[str, ...] = ("coin",)
    templates: tuple[ActionTemplate, ...] = TEMPLATES
    instructions: str = "You play a short text game. Answer with one command at a time."
    goal_form = "instruction"
    max_steps: int = max(LIMITS.values())
    processes: int = 2
    """Environments have a Java process each, so they are better off few, and apart."""
    expert_kind = "scripted"
    preload: tuple[str, ...] = ("py4j.java_gateway",)

    def __init__(self) -> None:
        needs("textworld-express")
        if version("textworld_express") != PACKAGE:
            raise ImportError(
                f"suite {SUITE!r} is made of the games of textworld-express {PACKAGE}, and "
                f"{version('textworld_express')} is installed: pip install "
                f"textworld-express=={PACKAGE}"
            )

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks by their seeds, taking the games in turn; the goal is told at reset.

        Raises:
            ValueError: unknown split or type, a negative number, or more than there are.
        """
        where = f"split {split!r} of suite {SUITE!r}"
        listed = spread(self._pools(split, types), count, start, where=where)
        return [task_of(game, split, seed) for game, seed in listed]

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        """How many there are: 1000 of each game."""
        return size_of(self._pools(split, types), start)

    def check_ready(self) -> None:
        """Raises where there is no Java."""
        check_java("textworld-express")

    def make(self) -> TextWorldExpressEnv:
        """A fresh environment."""
        return TextWorldExpressEnv()

    def limit(self, task: Task) -> int:
        """By game."""
        return LIMITS.get(task.type, self.max_steps)

    def expert(self, task: Task) -> "SolutionExpert":
        """One that follows the package's solution; the game need not run here."""
        return SolutionExpert(task)

    def names(self, observation: str) -> list[str]:
        """Names of things, with counts ("6 pineapples") and what Simon says."""
        quoted = [part for text in _QUOTED.findall(observation) for part in (text.split()[-1],)]
        counted = _COUNTED.findall(observation)
        return sorted({*names_in(observation), *counted, *quoted})

    def _pools(self, split: str, types: Sequence[str]) -> dict[str, range]:
        return dict.fromkeys(self.checked(split, types), FOLDS[split])


class SolutionExpert:
    """Says the commands of a solution, one after the other; `look around` behind its end."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._number = 0

    def act(self, observation: str) -> str:
        """The next command, whatever was read."""
        commands = _solution(self._task.type, self._task.split, self._task.seed)
        self._number += 1
        return commands[self._number - 1] if self._number <= len(commands) else "look around"


@lru_cache(maxsize=10_000)
def _solution(game: str, split: str, seed: int) -> tuple[str, ...]:
    java = _java()
    if not java.alive:  # ended by hand, or this is a fork
        _java.cache_clear()
        java = _java()
    return java.solution(game, split, seed)


@lru_cache(maxsize=1)
def _java() -> JavaGames:
    # Kept until this process ends: starting it takes a second, and experts ask again.
    return JavaGames()
