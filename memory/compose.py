"""An episode from what somebody who comes with a few texts knows of it."""

import difflib
import inspect
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..task import Task, identity_of
from .episode import Actor, Episode, Outcome, Step, StopReason
from .normal import normal_text

POLICY = "external"
"""Kind of policy where nobody says who acted."""


def refuse_unknown(call: str, given: Collection[str], known: Collection[str]) -> None:
    """Raises a `TypeError` that names the closest known name if a call was given another one."""
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{call} knows no {name!r}.{hint} It takes {', '.join(known)}")


def whole_number(name: str, value: object, hint: str = "") -> int:
    """The value of an argument that is a whole number; a truth value is none.

    Raises:
        TypeError: it is something else; the message names the argument.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}{hint}")
    return int(value)


def from_names(known: Mapping[str, Any]) -> Episode:
    """:func:`compose`, with complaints about names in the words of `Memory.add`."""
    names = inspect.signature(compose).parameters
    refuse_unknown("add", known, names)
    missing = [name for name in ("goal", "steps", "success") if name not in known]
    if missing:
        raise TypeError(f"add needs goal, steps and success: {' and '.join(missing)} is missing")
    return compose(**known)


def compose(
    *,
    goal: str,
    steps: Sequence[tuple[str, str] | Step],
    success: bool,
    id: str = "",
    final_observation: str = "",
    score: float | None = None,
    suite: str = "",
    task_id: str = "",
    type: str = "",
    split: str = "train",
    room: str = "",
    seed: int = 0,
    version: str = "",
    policy: str = POLICY,
    model: str = "",
    started: float | None = None,
    ratings: Mapping[str, float] | None = None,
) -> Episode:
    """An episode of which not everything is known.

    Args:
        goal: what was to be done.
        steps: what was seen and what was done about it, in order: pairs (observation, action), or
            :class:`relive.memory.Step`.
        success: whether the goal was reached.
        id: unique within a memory; made up if none is given.
        final_observation: what was seen after the last action.
        score: progress in [0, 1]; 1 for success and 0 otherwise by default.
        task_id: what tells the task apart from others; by default a hash of the suite, the goal and
            the first observation.
        suite, type, split, room, seed, version: of the task, see :class:`relive.task.Task`.
        policy, model: who acted.
        started: Unix time in seconds; now by default.
        ratings: given afterwards, by name.

    Raises:
        TypeError: a field is missing, unknown, or not of its type; the memory that stores the
            episode looks at the rest.
        ValueError: the goal is blank.
    """
    if not isinstance(goal, str):
        raise TypeError(f"goal must be text, not {goal!r}")
    if not normal_text(goal):
        raise ValueError("the goal is blank: say what was to be done, episodes are found by it")
    if not isinstance(success, bool | np.bool_):  # a comparison of numpy's numbers gives the latter
        raise TypeError(f"success must be True or False, not {success!r}")
    success = bool(success)
    if score is not None and not (isinstance(score, Real) and 0 <= score <= 1):
        raise ValueError(f"score must be progress from 0 to 1, not {score!r}")
    if isinstance(steps, str | bytes | Mapping) or not hasattr(steps, "__iter__"):
        raise TypeError(f"steps must be a list of (observation, action), not {steps!r:.80}")
    taken = tuple(_step(i, step) for i, step in enumerate(steps))
    first = taken[0].observation if taken else final_observation
    identity = task_id or identity_of(suite, goal, first)
    return Episode(
        id=id or uuid.uuid4().hex[:16],
        task=Task(suite, identity, type, split, room, seed, version, goal),
        steps=taken,
        final_observation=final_observation,
        outcome=Outcome(
            success,
            float(success) if score is None else score,
            StopReason.SOLVED if success else StopReason.FAILED,
        ),
        actor=Actor(policy, model=model),
        started=time.time() if started is None else started,
        ratings=dict(ratings or {}),
    )


def _step(index: int, step: Any) -> Step:
    if isinstance(step, Step):
        return step
    if isinstance(step, tuple | list) and len(step) == 2 and all(isinstance(t, str) for t in step):
        return Step(step[0], step[1])
    raise TypeError(
        f"steps[{index}] must be a pair of texts, (observation, action), or a relive.Step, not "
        f"{step!r:.80}"
    )
