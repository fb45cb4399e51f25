"""A game file as a Gymnasium text environment."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...task import Task
from ..base import Info, TextEnv
from .engine import Answer, Engine

ANY_GOAL = "Play this game to its good end, and score as many points as you can"
"""The goal of a game that states none."""
_ALMOST = 0.999
"""Score of who has all points and has not won: 1 is the score of those who have."""
_ROOM = "-= "


class TextWorldEnv(TextEnv):
    """Plays text adventures, one after the other.

    Observations are the game's text without its banner, its prompt and its status line. The score
    is points divided by possible points, where the game tells both, and 1 exactly when it is won;
    the reward is what an action adds to it. Nothing truncates an episode.

    Args:
        locate: where the file of a task is; may make it.
        draw: chooses a task of the train split, for `reset` without one.
    """

    def __init__(
        self, locate: Callable[[Task], Path], draw: Callable[[np.random.Generator], Task]
    ) -> None:
        self._locate, self._draw = locate, draw
        self._engine: Engine | None = None
        self._task: Task | None = None
        self._over, self._won, self._score, self._shown = True, False, 0.0, ""
        self._tracker: Any = None  # TextWorld's own environment, which knows what is admissible
        self._tracked: list[str] = []
        self._told: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``, or a random task of the train split.

        Raises:
            ValueError: the task is not one of this suite, or its file cannot be played.
            FileNotFoundError: its file is gone.
            CompileError: its game cannot be made.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        task = self._draw(self.np_random) if task is None else task
        self._over = True
        path = self._locate(task)
        if self._engine is None or self._engine.path != str(path):
            self._leave()
            self._engine = Engine(path)
        opening = self._engine.reset()
        self._over, self._won, self._score = False, False, 0.0
        self._score = self._normalised(opening)
        stated = opening.text.partition(f"\n{_ROOM}")[0] if _ROOM in opening.text else ""
        stated = "" if stated.startswith(_ROOM) else stated
        goal = task.goal or " ".join(stated.split()).removesuffix(".") or ANY_GOAL
        self._task = replace(task, goal=goal)
        self._shown = opening.text if goal in opening.text else f"{opening.text}\n\nTask: {goal}."
        return self._shown, self._info(refused=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out a command. Raises `RuntimeError` before `reset` and after the end of an
        episode."""
        if self._engine is None or self._over:
            raise RuntimeError("TextWorldEnv.step outside an episode: call reset first")
        answer = self._engine.step(action)
        before = self._score
        self._won, self._over = answer.won, answer.over
        self._score = self._normalised(answer)
        self._shown = answer.text
        reward = self._score - before
        return self._shown, reward, self._over, False, self._info(refused=answer.refused)

    def admissible(self) -> Sequence[str]:
        """Commands that the game would accept now, sorted. Not for policies.

        TextWorld's own environment follows the episode for it, from the first call on: some 20 ms a
        step. Raises `NotImplementedError` for games that TextWorld has no description of.
        """
        if self._engine is None or self._task is None:
            raise RuntimeError("TextWorldEnv.admissible before reset: call reset first")
        if self._over:
            return []
        if not Path(self._engine.path).with_suffix(".json").exists():
            raise NotImplementedError(
                f"nobody knows what is admissible in {self._engine.path}: TextWorld does for its "
                "own games, by the .json beside them"
            )
        return self._followed()

    def render(self) -> str:
        """The newest observation."""
        return self._shown

    def close(self) -> None:
        """Release the interpreter."""
        self._leave()
        self._over = True

    def _followed(self) -> list[str]:
        """What TextWorld's own environment would accept, made to follow the episode."""
        import textworld

        assert self._engine is not None
        played = self._engine.sent
        if self._tracker is None or self._tracked != played[: len(self._tracked)]:
            self._forget_tracker()
            wanted = textworld.EnvInfos(admissible_commands=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that Jericho does not know the game
                self._tracker = textworld.start(self._engine.path, wanted)
            self._told = self._tracker.reset()
        for command in played[len(self._tracked) :]:
            self._told, _, _ = self._tracker.step(command)
            self._tracked.append(command)
        return sorted(set(self._told.admissible_commands))

    def _normalised(self, answer: Answer) -> float:
        if answer.won:
            return 1.0
        assert self._engine is not None
        if answer.score is None or not self._engine.max_score:
            return self._score
        return min(_ALMOST, max(0.0, answer.score / self._engine.max_score))

    def _leave(self) -> None:
        self._forget_tracker()
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _forget_tracker(self) -> None:
        if self._tracker is not None:
            with suppress(Exception):
                self._tracker.close()
        self._tracker, self._tracked = None, []

    def _info(self, *, refused: bool) -> Info:
        return {
            "task": self._task,
            "success": self._won,
            "invalid": refused,
            "score": self._score,
        }
