"""ALFWorld's game files as a Gymnasium text environment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...extras import needs
from ...task import Task
from ..base import Info, TextEnv
from ..household.engine import read_game
from ..household.env import HouseholdEnv
from ..household.generator import Game, identity

SUITE = "alfworld"


class AlfworldEnv(HouseholdEnv):
    """Plays game files, one after the other; what it answers is the household's.

    Args:
        folder: the data folder, to which the tasks' paths are relative.
        draw: chooses a task of the train split by random numbers.
    """

    def __init__(self, folder: Path, draw: Callable[[np.random.Generator], Task]) -> None:
        super().__init__()
        self._folder, self._draw = folder, draw

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``, or a random task of the train split.

        Raises:
            ValueError: the task is of another suite, or its file is not there, damaged or another
                game by now.
        """
        TextEnv.reset(self, seed=seed)
        self._over = True  # whatever becomes of the new one
        with needs("household"):
            task = (options or {}).get("task")
            task = self._draw(self.np_random) if task is None else task
            return self._start(task, game_of(task, self._folder))


def game_of(task: Task, folder: Path) -> Game:
    """Read a task's game. Raises like `AlfworldEnv.reset`."""
    if task.suite != SUITE:
        raise ValueError(
            f"task {task.identity} belongs to suite {task.suite!r}, not {SUITE!r}: play it there"
        )
    path = folder / task.payload
    try:
        game = read_game(path)
    except OSError as error:
        raise ValueError(
            f"task {task.identity} is the game in {path}, which cannot be read ({error}): list "
            "tasks anew with suite.tasks(), or set ALFWORLD_DATA to the folder it was listed from"
        ) from error
    found = identity(game.problem)
    if found != task.identity:
        raise ValueError(
            f"{path} holds game {found}, not task {task.identity} (version {task.version}): the "
            "file has changed; list tasks anew with suite.tasks()"
        )
    return game
