"""TextWorldExpress with the parameters that TALES sets, which make most of its games smaller."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...task import Task
from ..base import Info, TextEnv
from ..textworld_express.java import JavaGames
from .games import lists

_REFUSED = re.compile(
    "Unknown action|That is not a command|That is already|You can't move there|You are unable to"
)
"""How answers begin to what is not understood, and to what does not work."""
_ALMOST = 0.999
"""Score of who has all points and has not won."""


class ExpressEnv(TextEnv):
    """Plays one game of TextWorldExpress after the other, in a Java process of its own.

    A task's payload is the name of TALES' environment and a seed of the package, for example
    ``TWXSorting 20000``.
    """

    def __init__(self) -> None:
        self._java: _Games | None = None
        self._task: Task | None = None
        self._name, self._told = "", ""
        self._last: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``. Raises `JavaError` without Java."""
        super().reset(seed=seed)
        task: Task = (options or {})["task"]
        self._name, number = task.payload.split(" ")
        if self._java is None or not self._java.alive:
            self._java = _Games()
        # TALES names the fold "test" for the seeds of all folds.
        self._last = self._java.start(self._name, "test", int(number))
        self._told = str(self._last["taskDescription"]).strip()
        self._task = replace(task, goal=self._told.removesuffix("."))
        return f"{self._told}\n\n{self._last['observation'].strip()}", self._info(refused=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out a command."""
        assert self._java is not None
        if action == "help":  # the package's Python part answers it, and it is no move
            return self._told, 0.0, False, False, self._info(refused=False)
        before = self._score()
        self._last = self._java.step(self._name, action)
        said = str(self._last["observation"]).strip()
        over = bool(self._last["tasksuccess"] or self._last["taskfailure"])
        info = self._info(refused=not over and bool(_REFUSED.match(said)))
        return said, self._score() - before, over, False, info

    def admissible(self) -> Sequence[str]:
        """Commands that the game would accept now, sorted. Not for policies."""
        return sorted(set(self._last["validActions"]))

    def close(self) -> None:
        """End the Java process."""
        if self._java is not None:
            self._java.close()
            self._java = None

    def _score(self) -> float:
        if self._last["tasksuccess"]:
            return 1.0
        # TALES counts whole hundredths, cut off.
        return min(_ALMOST, max(0.0, int(self._last["score"] * 100) / 100))

    def _info(self, *, refused: bool) -> Info:
        return {
            "task": self._task,
            "success": bool(self._last["tasksuccess"]),
            "invalid": refused,
            "score": self._score(),
        }


class _Games(JavaGames):
    """Knows games by the names of TALES."""

    def _player(self, game: str) -> Any:
        if game not in self._players:
            known = next(g for g in lists()["textworld_express"] if f"TWX{g['name']}" == game)
            player = self._call(self._jvm.view.textworldexpress.runtime.PythonInterface)
            told = self._call(player.load, known["game"], known["parameters"])
            if told:
                raise ValueError(f"TextWorldExpress cannot make {game!r}: {told}")
            self._players[game] = player
        return self._players[game]
