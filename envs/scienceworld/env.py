"""ScienceWorld as a Gymnasium text environment."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...task import Task
from ..base import Info, TextEnv
from .games import SUITE, check_task, games, task_of
from .simulator import Answer, Simulator

_ASKED = "Your task is to "
_REFUSED = re.compile(
    r"No known action matches|Unknown action|ERROR: (?:Unknown response|Value out of range)"
    r"|It'?s not clear how|I'm not sure|That can't be moved|That object |That is already"
    r"|The door is (?:already|not)|Something can't be connected|You must disconnect entire"
    r"|You can't |You aren't able|There is nothing in|The door doesn't appear"
    r"|The .{1,80} (?:is not|is already|isn't open|can't be|is empty, so|does not contain"
    r"|appears broken|is in is not movable)",
)
"""How answers begin to what is not understood, and to what does not work."""


class ScienceWorldEnv(TextEnv):
    """Plays variations of the thirty tasks, one after the other.

    The opening is what is seen first, with the task behind it. The score is the simulator's own
    divided by 100, and -1 when the wrong thing was focused on, which ends the episode; the reward
    is what an action adds to it. Some games begin with a few points. Nothing truncates an episode:
    the simulator does not count looks and what it does not understand, so whoever runs it counts
    the steps. Each environment has a Java process for itself, which ends with it.
    """

    def __init__(self) -> None:
        self._simulator: Simulator | None = None
        self._task: Task | None = None
        self._score, self._over, self._shown = 0, True, ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``, or a random task of the train split.

        Raises:
            ValueError: the task is not one that this version of the suite has.
            MissingExtraError: the package is not installed.
            JavaError: there is no Java, or it does not start.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None:
            kinds = tuple(games())
            kind = kinds[int(self.np_random.integers(len(kinds)))]
            variations = games()[kind].variations["train"]
            task = task_of(kind, "train", variations[int(self.np_random.integers(len(variations)))])
        check_task(task)
        self._over = True
        if self._simulator is None or not self._simulator.alive:
            self._simulator = Simulator()
        description, seen = self._simulator.load(task.type, task.seed)
        self._task = replace(task, goal=_goal(description))
        self._score, self._over = seen.score, False
        self._shown = f"{_tidy(seen.observation)}\n\nYour task is to: {self._task.goal}."
        return self._shown, self._info(refused=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out a command, or answer the simulator's question with a number.

        Raises:
            RuntimeError: before `reset` and after the end of an episode; and when the simulator
                fails.
        """
        if self._over or self._simulator is None:
            raise RuntimeError("ScienceWorldEnv.step outside an episode: call reset first")
        answer = self._carry_out(_clean(action))
        reward = (answer.score - self._score) / 100
        self._score, self._over = answer.score, answer.over
        self._shown = _tidy(answer.observation)
        refused = bool(_REFUSED.match(self._shown))
        return self._shown, reward, self._over, False, self._info(refused=refused)

    def admissible(self) -> Sequence[str]:
        """Commands that the simulator would understand now, sorted: thousands. Not for policies."""
        if self._simulator is None or self._task is None:
            raise RuntimeError("ScienceWorldEnv.admissible before reset: call reset first")
        return [] if self._over else sorted(set(self._simulator.admissible()))

    def render(self) -> str:
        """The newest observation."""
        return self._shown

    def close(self) -> None:
        """End the Java process."""
        self._over = True
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def _carry_out(self, command: str) -> Answer:
        assert self._simulator is not None
        try:
            return self._simulator.step(command)
        except BaseException:
            self._over = True
            raise

    def _info(self, *, refused: bool) -> Info:
        return {
            "task": self._task,
            "success": self._score == 100,
            "invalid": refused,
            "score": self._score / 100,
        }


def _goal(description: str) -> str:
    """The task as a phrase: "boil lead. First, focus on the substance …"."""
    told = " ".join(description.split())
    if not told.startswith(_ASKED):
        raise ValueError(f"suite {SUITE!r} cannot read the task {told!r}")
    return told.removeprefix(_ASKED).removesuffix(".")


def _tidy(text: str) -> str:
    return re.sub(r"[ \t]+\n", "\n", text).strip()


def _clean(action: str) -> str:
    """One line that Java can be told."""
    return " ".join(action.encode("utf-8", "replace").decode().split())
