"""TextWorldExpress with the parameters that TALES sets, which make most of its games smaller."""

import json
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...extras import needs
from ...task import Task
from ..base import Info, TextEnv
from ..jvm import Jvm
from .games import lists

_UNKNOWN = "Unknown action"
_ALMOST = 0.999
"""Score of who has all points and has not won."""


class ExpressEnv(TextEnv):
    """Plays one game of TextWorldExpress after the other, in a Java process of its own.

    A task's payload is the name of TALES' environment and a seed of the package, for example
    ``TWXSorting 20000``.
    """

    def __init__(self) -> None:
        self._jvm: Jvm | None = None
        self._server: Any = None
        self._task: Task | None = None
        self._last: dict[str, Any] = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``. Raises `JavaError` without Java."""
        super().reset(seed=seed)
        task: Task = (options or {})["task"]
        name, number = task.payload.split(" ")
        game = next(g for g in lists()["textworld_express"] if f"TWX{g['name']}" == name)
        server = self._started()
        told = server.load(game["game"], game["parameters"])
        if told:
            raise ValueError(f"TextWorldExpress refuses {game['game']} with its parameters: {told}")
        # TALES names the fold "test" for all seeds, and asks for the solution, too.
        self._last = json.loads(server.generateNewGameJSON(int(number), "test", True))
        goal = str(server.getTaskDescription()).strip()
        self._task = replace(task, goal=goal.removesuffix("."))
        return f"{goal}\n\n{self._last['observation'].strip()}", self._info(refused=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out a command."""
        before = self._score()
        if action == "help":  # answered by the package's Python part, and no move
            said = str(self._server.getTaskDescription()).strip()
        else:
            self._last = json.loads(self._server.stepJSON(action))
            said = str(self._last["observation"]).strip()
        over = bool(self._last["tasksuccess"] or self._last["taskfailure"])
        info = self._info(refused=said.startswith(_UNKNOWN))
        return said, self._score() - before, over, False, info

    def admissible(self) -> Sequence[str]:
        """Commands that the game would accept now, sorted. Not for policies."""
        return sorted(set(self._last["validActions"]))

    def close(self) -> None:
        """End the Java process."""
        if self._jvm is not None:
            self._jvm.close()
            self._jvm = self._server = None

    def _started(self) -> Any:
        if self._jvm is None or not self._jvm.alive:
            with needs("textworld-express"):
                found = find_spec("textworld_express")
            assert found is not None
            assert found.origin is not None
            folder = Path(found.origin).parent
            with chdir(folder):  # the program looks for its data where it is started
                self._jvm = Jvm([folder / "textworld-express.jar"], game="TextWorldExpress")
            self._server = self._jvm.view.textworldexpress.runtime.PythonInterface()
        return self._server

    def _score(self) -> float:
        if self._last["tasksuccess"]:
            return 1.0
        # TALES counts whole hundredths.
        return min(_ALMOST, max(0.0, int(self._last["score"] * 100) / 100))

    def _info(self, *, refused: bool) -> Info:
        return {
            "task": self._task,
            "success": bool(self._last["tasksuccess"]),
            "invalid": refused,
            "score": self._score(),
        }
