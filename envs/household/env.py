"""The household as a Gymnasium text environment."""

from collections.abc import Sequence
from typing import Any

from ...task import Task
from ..base import Info, TextEnv
from . import generator
from .engine import REFUSED, Engine
from .generator import Game
from .rooms import TASK_TYPES
from .tasks import solvable_from, world_of

BANNER = "-= Welcome to TextWorld, ALFRED! =-"
"""The line that opens every game; observations are without it."""
_RANDOM_TASKS = 1_000_000  # games per type among which reset(seed=...) chooses


class HouseholdEnv(TextEnv):
    """Plays household tasks, one after the other.

    Observations are the engine's text, stripped, without its banner. The reward is 1 on the step
    that wins and 0 otherwise; nothing truncates an episode, whoever runs it counts the steps.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._task: Task | None = None
        self._over = True
        self._shown = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``, or a random task of the train split.

        Raises:
            ValueError: the task is not one that this version of the suite can make.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None:
            task_type = TASK_TYPES[int(self.np_random.integers(len(TASK_TYPES)))]
            task = next(
                solvable_from("train", task_type, int(self.np_random.integers(_RANDOM_TASKS)))
            )
        self._over = True  # whatever becomes of the new one
        return self._start(task, generator.game(world_of(task)))

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out a command. Raises `RuntimeError` before `reset` and after the end of an
        episode."""
        if self._engine is None or self._over:
            raise RuntimeError(f"{type(self).__name__}.step outside an episode: call reset first")
        self._shown = self._engine.step(action).strip()
        self._over = self._engine.won()
        info = self._info(invalid=self._shown == REFUSED)
        return self._shown, float(self._over), self._over, False, info

    def admissible(self) -> Sequence[str]:
        """Commands that the engine would accept now, sorted. Not for policies."""
        if self._engine is None or self._task is None:
            raise RuntimeError(f"{type(self).__name__}.admissible before reset: call reset first")
        return self._engine.admissible()

    def render(self) -> str:
        """The newest observation."""
        return self._shown

    def close(self) -> None:
        """Release the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self._over = True

    def _start(self, task: Task, game: Game) -> tuple[str, Info]:
        """Begin an episode of a task in its game."""
        if self._engine is None:
            self._engine = Engine()
        self._engine.load(game)
        self._task = task
        self._shown = self._engine.reset().replace(BANNER, "", 1).strip()
        self._over = self._engine.won()
        return self._shown, self._info(invalid=False)

    def _info(self, *, invalid: bool) -> Info:
        return {
            "task": self._task,
            "success": self._over,
            "invalid": invalid,
            "score": float(self._over),
        }
