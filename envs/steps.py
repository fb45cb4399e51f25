"""What `reset` and `step` return, made so that a wrong step is hard to write.

The four kinds of step are those of dm_env: an episode begins with :func:`restart`, goes on with
:func:`transition`, and ends with :func:`termination` (the task was solved, or failed for good) or
:func:`truncation` (it was broken off, by a limit for example). They return Gymnasium's own tuples,
so an environment that uses them is an ordinary ``gymnasium.Env``.

    def step(self, action):
        if action == "open box":
            return termination("The box is open.", success=True)
        return transition("Nothing happens.", invalid=True)
"""

from numbers import Real
from typing import Any

import numpy as np

from .base import Info

Start = tuple[str, Info]
"""What ``reset`` returns: observation and info."""
StepResult = tuple[str, float, bool, bool, Info]
"""What ``step`` returns: observation, reward, terminated, truncated, info."""


def restart(observation: str, *, goal: str = "", **info: Any) -> Start:
    """The beginning of an episode.

    Args:
        observation: what the agent reads first.
        goal: what is to be done, as one sentence; by default it is what follows "Your task is to:"
            in the observation, or else the whole observation.
        info: whatever else is to be known.

    Raises:
        TypeError: something is not of its type.
    """
    _check_text("observation", observation)
    _check_text("goal", goal)
    return observation, {
        "invalid": False,
        "success": False,
        "score": 0.0,
        **({"goal": goal} if goal else {}),
        **info,
    }


def transition(
    observation: str,
    reward: float = 0.0,
    *,
    invalid: bool = False,
    score: float = 0.0,
    **info: Any,
) -> StepResult:
    """A step after which the episode goes on.

    Args:
        observation: what the agent reads next.
        reward: of this action alone.
        invalid: the action was not understood, or was refused.
        score: progress in [0, 1).
        info: whatever else is to be known.

    Raises:
        TypeError, ValueError: something is not of its type or range.
    """
    return _step(observation, reward, False, False, score, invalid=invalid, success=False, **info)


def termination(
    observation: str,
    reward: float | None = None,
    *,
    success: bool,
    score: float | None = None,
    **info: Any,
) -> StepResult:
    """The last step: the task is done, or can no longer be.

    Args:
        observation: what is seen last.
        reward: of this action alone; by default 1 for success and 0 otherwise.
        success: whether the goal was reached.
        score: progress in [0, 1]; by default 1 for success and 0 otherwise.
        info: whatever else is to be known.

    Raises:
        TypeError, ValueError: something is not of its type or range.
    """
    success = _truth("success", success)
    reward = float(success) if reward is None else reward
    score = float(success) if score is None else score
    if (score == 1) != success:
        raise ValueError(f"score is {score} and success is {success}: 1 is the score of successes")
    return _step(observation, reward, True, False, score, invalid=False, success=success, **info)


def truncation(
    observation: str, reward: float = 0.0, *, score: float = 0.0, **info: Any
) -> StepResult:
    """The last step of an episode that is broken off, so that nobody knows how it would have ended.

    Args:
        observation: what is seen last.
        reward: of this action alone.
        score: progress in [0, 1).
        info: whatever else is to be known.

    Raises:
        TypeError, ValueError: something is not of its type or range.
    """
    return _step(observation, reward, False, True, score, invalid=False, success=False, **info)


def _step(
    observation: str, reward: float, terminated: bool, truncated: bool, score: float, **info: Any
) -> StepResult:
    _check_text("observation", observation)
    for name, value in (("reward", reward), ("score", score)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, not {value!r}")
    if not 0 <= score <= 1 or (score == 1) != info["success"]:
        raise ValueError(f"score is {score}: it lies in [0, 1], and is 1 for successes alone")
    info["invalid"] = _truth("invalid", info["invalid"])
    return observation, float(reward), terminated, truncated, {"score": float(score), **info}


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):  # a comparison of numpy's numbers gives the latter
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"the {name} must be text, not {value!r}")
