"""TextWorldExpress as a Gymnasium text environment."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...task import Task
from ..base import Info, TextEnv
from ..listing import check_listed
from .games import FOLDS, LIMITS, SUITE, task_of
from .java import JavaGames

_REFUSED = re.compile(
    r"Unknown action|That is not a command|That is already (?:open|closed)|You can't move there"
    r"|Your inventory currently has .* is full|You are unable to prepare",
    re.DOTALL,
)
"""How answers begin to what is not understood, and to what does not work."""
_HELP = "help"
_ALMOST = 0.999
"""Score of who has all points and has not won: 1 is the score of those who have."""


class TextWorldExpressEnv(TextEnv):
    """Plays games of TextWorldExpress, one after the other.

    The opening ends with the task, which the games tell beside it. The score is the game's own,
    from 0 to 1, and -1 for who has lost; the reward is what an action adds to it. Nothing truncates
    an episode. Each environment has a Java process for itself, which ends with it.
    """

    def __init__(self) -> None:
        self._java: JavaGames | None = None
        self._task: Task | None = None
        self._last: dict[str, Any] = {}
        self._over, self._shown = True, ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``, or a random task of the train split.

        Raises:
            ValueError: the task is not one that this version of the suite can make.
            JavaError: there is no Java, or it does not start.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None:
            game = tuple(LIMITS)[int(self.np_random.integers(len(LIMITS)))]
            seeds = FOLDS["train"]
            task = task_of(game, "train", seeds[int(self.np_random.integers(len(seeds)))])
        _check(task)
        self._over = True
        if self._java is None or not self._java.alive:
            self._java = JavaGames()
        self._last = self._java.start(task.type, task.split, task.seed)
        stated = " ".join(self._last["taskDescription"].split())
        self._task = replace(task, goal=stated.removesuffix("."))
        self._over = False
        self._shown = f"{self._said()}\n\nTask: {stated}"
        return self._shown, self._info(refused=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out a command; ``help`` tells the task once more. Raises `RuntimeError` before
        `reset`, after the end of an episode, and when the Java process has ended."""
        if self._over or self._java is None:
            raise RuntimeError("TextWorldExpressEnv.step outside an episode: call reset first")
        if not self._java.alive:
            raise RuntimeError(
                "the Java process of TextWorldExpress has ended: call reset, which starts another"
            )
        assert self._task is not None
        command = _clean(action)
        if command == _HELP:
            self._shown = f"{self._task.goal}."
            return self._shown, 0.0, False, False, self._info(refused=False)
        before = self._score()
        self._last = self._java.step(self._task.type, command)
        self._over = bool(self._last["tasksuccess"] or self._last["taskfailure"])
        self._shown = self._said()
        refused = not self._over and bool(_REFUSED.match(self._shown))
        reward = self._score() - before
        return self._shown, reward, self._over, False, self._info(refused=refused)

    def admissible(self) -> Sequence[str]:
        """Commands that the game would accept now, sorted. Not for policies."""
        if self._task is None:
            raise RuntimeError("TextWorldExpressEnv.admissible before reset: call reset first")
        return [] if self._over else sorted(set(self._last["validActions"]))

    def render(self) -> str:
        """The newest observation."""
        return self._shown

    def close(self) -> None:
        """End the Java process."""
        self._over = True
        if self._java is not None:
            self._java.close()
            self._java = None

    def _said(self) -> str:
        return re.sub(r"[ \t]+\n", "\n", str(self._last["observation"])).strip()

    def _score(self) -> float:
        if self._last["tasksuccess"]:
            return 1.0
        lowest = -1.0 if self._last["taskfailure"] else 0.0
        return min(_ALMOST, max(lowest, float(self._last["score"])))

    def _info(self, *, refused: bool) -> Info:
        return {
            "task": self._task,
            "success": bool(self._last["tasksuccess"]),
            "invalid": refused,
            "score": self._score(),
        }


def _clean(action: str) -> str:
    """One line that Java can be told. Blanks within are kept: some names have two."""
    text = action.encode("utf-8", "replace").decode()
    return re.sub(r"[\x00-\x1f]", " ", text).strip()


def _check(task: Task) -> None:
    numbers = FOLDS.get(task.split, ()) if task.type in LIMITS else ()
    check_listed(task, SUITE, numbers, lambda: task_of(task.type, task.split, task.seed))
