"""The rules of TALES, around the environments of its families.

They are those of its ``benchmark.py`` (see ``games.json``):

* A game that ends is begun again, and the steps go on counting, unless it was won with all its
  points. The agent reads the last answer, ``-= Restarting =-`` and the opening.
* An action of several lines is not carried out, and counts as a step.
* What can be done is not listed, and what to do is said at the beginning of a game alone.

Its score is the highest at any point: the record of an episode has it as
:attr:`relive.memory.Outcome.best`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...task import Task
from ..base import Info, TextEnv
from .games import Game
from .inner import INNER

RESTARTING = "-= Restarting =-"
ONE_ACTION = "The game only allows one action per step."


class TalesEnv(TextEnv):
    """Plays games of all families, one after the other; each family's environment is kept, since
    Java takes seconds to start.

    Args:
        game_of: what a task stands for.
        draw: chooses a task of the train split, for `reset` without one.
    """

    def __init__(
        self, game_of: Callable[[Task], Game], draw: Callable[[np.random.Generator], Task]
    ) -> None:
        self._game_of, self._draw = game_of, draw
        self._kept: dict[str, TextEnv] = {}
        self._playing: TextEnv | None = None
        self._inner: Task | None = None
        self._task: Task | None = None
        self._score, self._restarts = 0.0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``, or a random task of the train split.

        Raises:
            ValueError: the task is not one of this suite.
            MissingGamesError: its files are gone.
            ImportError: a package is not installed.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        task = self._draw(self.np_random) if task is None else task
        self._playing = None
        game = self._game_of(task)
        make, told = INNER[game.family]
        self._inner = told(game)
        if game.family not in self._kept:
            self._kept[game.family] = make()
        env = self._kept[game.family]
        observation, info = env.reset(options={"task": self._inner})
        self._playing = env
        self._task = replace(task, goal=info["task"].goal)
        self._score, self._restarts = max(0.0, info["score"]), 0
        return observation, self._info(invalid=False, success=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out a command. Raises `RuntimeError` before `reset` and after the end."""
        if self._playing is None:
            raise RuntimeError("TalesEnv.step outside an episode: call reset first")
        action = action.strip()
        if "\n" in action:
            return ONE_ACTION, 0.0, False, False, self._info(invalid=True, success=False)
        observation, _, over, _, info = self._playing.step(action)
        before, self._score = self._score, max(0.0, float(info["score"]))
        won = bool(info["success"]) and self._score == 1.0
        if over and not won:
            opening, _ = self._playing.reset(options={"task": self._inner})
            observation = f"{observation}\n\n{RESTARTING}\n{opening}"
            self._restarts += 1
        if won:
            self._playing = None
        reward = self._score - before
        told = self._info(invalid=bool(info["invalid"]), success=won)
        return observation, reward, won, False, told

    def admissible(self) -> Sequence[str]:
        """Commands that the game would accept now, sorted. Not for policies."""
        if self._playing is None:
            raise RuntimeError("TalesEnv.admissible outside an episode: call reset first")
        return self._playing.admissible()

    def close(self) -> None:
        """Close the environments of all families."""
        while self._kept:
            _, env = self._kept.popitem()
            env.close()
        self._playing = None

    def _info(self, *, invalid: bool, success: bool) -> Info:
        return {
            "task": self._task,
            "success": success,
            "invalid": invalid,
            "score": self._score,
            "restarts": self._restarts,
        }
