"""The suite `tales`."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from ...task import Task, identity_of
from ..base import Suite
from ..jvm import check_java
from ..listing import size_of, spread
from .env import TalesEnv
from .games import FAMILIES, REMADE, SPLITS, Game, available, games_of, lists, missing

SUITE = "tales"
_APART = 1_000_000
"""Between the seeds of two families, and ten times that between two splits."""


class TalesSuite(Suite):
    """TALES' games by its rules. See `relive.envs.base.Suite`.

    Types are its families, as far as their games are there when the suite is made; asking for
    another one raises a `MissingGamesError` that says what to do. A split lists the environments of
    a family in turn. ``test`` has the one game of each that TALES reports on, ``train`` all others
    that it has.

    The score that TALES reports is the mean of `relive.memory.Outcome.best` over the games of
    ``test``, first of each family.
    """

    name = SUITE
    splits = SPLITS
    groups: Mapping[str, tuple[str, ...]] = {"remade": (REMADE,)}
    repeats = ("textworld_express",)
    templates = ()
    """None: TALES tells an agent no forms of actions."""
    instructions = (
        "You play a text-based game, to finish it with the highest score. Answer what you read "
        "with one short command, for example: get lamp. Where you are stuck, the command 'help' "
        "may tell what is understood."
    )
    goal_form = "instruction"
    condense_by = "changes"
    processes = 2
    """It holds two Java processes, which need up to 0.7 GiB."""

    def __init__(self) -> None:
        self.types = available()
        self.max_steps: int = lists()["rules"]["steps"]
        packages = ("textworld", "textworld_express", "scienceworld")
        self.version = f"tales-1 ({', '.join(f'{name} {_version(name)}' for name in packages)})"

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """Tasks of a split, the families in turn.

        Raises:
            MissingGamesError: TALES' files of a family are not there.
            ValueError: unknown split or type, a negative number, or more than there are.
        """
        pools = self._pools(split, types)
        where = f"split {split!r} of tales"
        return [task for _, task in spread(pools, count, start, where=where)]

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        """How many games there are. Raises like `tasks`."""
        return size_of(self._pools(split, types), start)

    def check_ready(self) -> None:
        """Raises where there is no Java."""
        check_java("tales")

    def make(self) -> TalesEnv:
        """A fresh environment."""
        return TalesEnv(self.game_of, self._draw)

    def game_of(self, task: Task) -> Game:
        """The game behind a task.

        Raises:
            ValueError: it is of another suite or version.
        """
        if task.suite != self.name or task.version != self.version:
            raise ValueError(
                f"task {task.identity} belongs to {task.suite!r}, version {task.version!r}, and "
                f"this is {self.name!r}, version {self.version!r}: list tasks anew"
            )
        name, _, which = task.payload.partition(" ")
        return Game(task.type, name, which)

    def checked(self, split: str, types: Sequence[str]) -> tuple[str, ...]:
        """As every suite; families whose games are not there are told from unknown ones."""
        for kind in types:
            if kind in FAMILIES and kind not in self.types:
                raise missing(kind)
        return super().checked(split, types)

    def _pools(self, split: str, types: Sequence[str]) -> dict[str, Sequence[Task]]:
        return {kind: _Listed(self, kind, split) for kind in self.checked(split, types)}

    def _draw(self, random: np.random.Generator) -> Task:
        kinds = [kind for kind in self.types if self.size("train", (kind,))]
        kind = kinds[int(random.integers(len(kinds)))]
        pool = self._pools("train", (kind,))[kind]
        return pool[int(random.integers(len(pool)))]


class _Listed(Sequence[Task]):
    """Tasks of one family and split, made as they are asked for."""

    def __init__(self, suite: TalesSuite, family: str, split: str) -> None:
        self._suite, self._family, self._split = suite, family, split
        self._games = games_of(family, split)
        numbers = [*FAMILIES, REMADE]
        self._first = _APART * (10 * SPLITS.index(split) + numbers.index(family))

    def __len__(self) -> int:
        return len(self._games)

    def __getitem__(self, number: int) -> Task:  # type: ignore[override]
        game = self._games[number]
        return Task(
            suite=SUITE,
            identity=identity_of(SUITE, self._suite.version, game.family, game.name, game.which),
            type=game.family,
            split=self._split,
            room="",
            seed=self._first + number,
            version=self._suite.version,
            goal="",
            payload=f"{game.name} {game.which}",
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
