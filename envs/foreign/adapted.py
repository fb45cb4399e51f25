"""One environment that knows nothing of this project, read as if it did.

What is not known of such an environment is read off its answers:

* The goal is ``info["goal"]`` after ``reset``, or what follows "Your task is to:" in the first
  observation, or else that whole observation. A goal that the first observation does not state is
  added to it, since an agent reads nothing else.
* Whether it was reached is ``info["success"]``, ``info["won"]`` or ``info["is_success"]``.
* The score is ``info["score"]``, as a share of ``info["max_score"]`` where that is stated.

Answers of another form (Gym before 0.26 had four values) are errors that say what to do.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from ...task import Task, goal_line
from ..base import Info, TextEnv

_SUCCESS = ("success", "won", "is_success")
_COMMANDS = ("admissible_commands", "valid_actions", "validActions")
"""Where environments list what they would accept. No policy may see it (`TextEnv.admissible`)."""
_OLD = (
    "; that is the API of Gym before 0.26. See gymnasium.farama.org, 'migration guide'; old "
    "environments can be wrapped with the package shimmy"
)


class AdaptedEnv(TextEnv):
    """A text environment whose answers have the form that this project asks for.

    Args:
        inner: the environment.
        owned: close it, too, when this is closed.
        draw: the task of a seed, for a reset without one.
    """

    def __init__(
        self, inner: Any, *, owned: bool, draw: Callable[[int], Task] | None = None
    ) -> None:
        self._inner, self._owned, self._draw = inner, owned, draw
        self._task: Task | None = None
        self._commands: tuple[str, ...] = ()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``; the task in the answer's info has the goal that was read.

        Raises:
            TypeError: the answer is no (observation, info), or observation or goal is no text.
            ValueError: no task was given, or nothing says what is to be done.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None and self._draw is not None:
            task = self._draw(int(self.np_random.integers(10_000)))
        if not isinstance(task, Task):
            raise ValueError("reset needs the task to play: options={'task': task}")
        self._task = None
        # Somebody asked for a goal that stands in the payload; any other was only read here before.
        wanted = {"options": {"goal": task.goal}} if task.payload else {}
        if wanted and not _takes(self._inner, "options"):
            raise TypeError(
                f"{type(_innermost(self._inner)).__name__}.reset takes no options, so it "
                "cannot be given a goal: play seeds"
            )
        with _unpacked("reset"):
            answer = self._inner.reset(seed=task.seed, **wanted)
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)):
            hint = _OLD if isinstance(answer, str) else ""
            raise TypeError(f"reset must return (observation, info), not {answer!r:.80}{hint}")
        observation = _text(answer[0], "reset")
        goal = _goal(answer[1], task, observation)
        if goal not in observation:
            observation = f"{observation}\n\n{_stated(goal)}".strip()
        self._task = replace(task, goal=goal)
        return observation, self._info(answer[1])

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out an action.

        Raises:
            TypeError, ValueError: the answer is not what ``gymnasium.Env.step`` returns.
        """
        with _unpacked("step"):
            answer = self._inner.step(action)
        if not (isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[4], Mapping)):
            old = isinstance(answer, tuple) and len(answer) == 4
            raise TypeError(
                "step must return (observation, reward, terminated, truncated, info), not "
                f"{answer!r:.80}{_OLD if old else ''}"
            )
        observation, reward, terminated, truncated, info = answer
        if not _is_number(reward) or not math.isfinite(float(reward)):
            raise TypeError(f"the reward of step must be a number, not {reward!r:.80}")
        return (
            _text(observation, "step"),
            float(reward),
            _truth("terminated", terminated),
            _truth("truncated", truncated),
            self._info(info),
        )

    def admissible(self) -> Sequence[str]:
        """What the environment would accept now, where it says so: in its info, as
        ``admissible_commands``, or with a method ``admissible``."""
        method = getattr(_innermost(self._inner), "admissible", None)
        if not self._commands and callable(method):
            return sorted(method())
        return self._commands if self._commands else super().admissible()

    def close(self) -> None:
        """Close the environment, unless it belongs to somebody else."""
        if self._owned and hasattr(self._inner, "close"):
            self._inner.close()

    def _info(self, given: Mapping[str, Any]) -> Info:
        """What the environment says, in Python's own numbers, and without its commands."""
        info: Info = {str(k): _plain(v) for k, v in given.items() if k not in _COMMANDS}
        listed = next((given[key] for key in _COMMANDS if key in given), ())
        listed = listed if isinstance(listed, list | tuple | set) else ()
        self._commands = tuple(sorted(c for c in listed if isinstance(c, str)))
        stated = next((info[key] for key in _SUCCESS if info.get(key) is not None), None)
        if _is_number(stated) and stated in (0, 1):
            info["success"] = bool(stated)
        info["invalid"] = bool(info.get("invalid", False))
        info["task"] = self._task
        return info


def check_can_be_adapted(environment: Any) -> None:
    """Raise a `TypeError` for an environment whose texts or whose `reset` cannot be used."""
    name = type(_innermost(environment)).__name__
    for what in ("action", "observation"):
        space = getattr(environment, f"{what}_space", None)
        if space is not None and not isinstance(space, spaces.Text):
            raise TypeError(
                f"the {what}s of {name} are {space}, not text: wrap it, for example in "
                f"gymnasium.wrappers.Transform{what.capitalize()}"
            )
    if not _takes(environment, "seed"):
        raise TypeError(
            f"{name}.reset takes no seed, and a task is one seed: write it as "
            "def reset(self, *, seed=None, options=None), as gymnasium.Env has it"
        )


def _takes(environment: Any, parameter: str) -> bool:
    """Whether `reset` of an environment, inside all wrappers too, takes a parameter."""
    for part in (environment, _innermost(environment)):
        try:
            given = inspect.signature(part.reset).parameters
        except (TypeError, ValueError):  # written in C: nobody can know
            continue
        if parameter not in given and not any(p.kind is p.VAR_KEYWORD for p in given.values()):
            return False
    return True


def is_environment(value: object) -> bool:
    """Whether something can be reset and stepped; a class cannot."""
    return not isinstance(value, type) and all(
        callable(getattr(value, name, None)) for name in ("reset", "step")
    )


def limit_of(environment: Any) -> int:
    """Actions per episode that an environment, or a wrapper of it, allows; 0 for any number."""
    stated = getattr(getattr(environment, "spec", None), "max_episode_steps", None)
    while not stated and isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, TimeLimit):
            stated = environment._max_episode_steps
        environment = environment.env
    return int(stated or 0)


def name_of(environment: Any) -> str:
    """Its id, or the name of its class."""
    identifier = getattr(getattr(environment, "spec", None), "id", "")
    return str(identifier or type(_innermost(environment)).__name__)


def _innermost(environment: Any) -> Any:
    return environment.unwrapped if isinstance(environment, gymnasium.Env) else environment


def _goal(info: Mapping[str, Any], task: Task, observation: str) -> str:
    stated = info.get("goal")
    if stated is not None and not isinstance(stated, str):
        raise TypeError(
            f"info['goal'] of reset must be text, not {stated!r:.80}: say in words what is to be "
            "done, or leave it out"
        )
    inner = info.get("task")  # of a suite of this project, made by its id
    for found in (stated, inner.goal if isinstance(inner, Task) else "", task.goal):
        if found and found.strip():
            return found.strip().removesuffix(".").rstrip()
    goal = goal_line(observation) or observation
    if not goal:
        raise ValueError(
            "nothing says what is to be done: state it in the first observation, or in "
            "info['goal'] of reset"
        )
    return goal


def _stated(goal: str) -> str:
    """The line that tells a goal: "put it there" is a phrase, "Put it there" a sentence."""
    return f"Task: {goal}" if goal[0].isupper() else f"Your task is to: {goal}."


def _text(observation: object, where: str) -> str:
    if not isinstance(observation, str):
        raise TypeError(
            f"the observation of {where} must be text, not {type(observation).__name__}: wrap "
            "the environment, for example in gymnasium.wrappers.TransformObservation"
        )
    return str(observation).strip()


def _is_number(value: object) -> bool:
    return isinstance(value, Real | np.bool_ | np.number) and not isinstance(value, complex)


def _truth(name: str, value: object) -> bool:
    if not _is_number(value):
        raise TypeError(f"{name} of step must be True or False, not {value!r:.80}")
    return bool(value)


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's own: they are compared, stored and sent to other processes."""
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def _unpacked(where: str) -> Iterator[None]:
    """Says what is wrong when a wrapper meets an answer of the old form before we do."""
    try:
        yield
    except ValueError as error:
        if "values to unpack" not in str(error):
            raise
        raise TypeError(
            f"the answer of {where} has another number of values than gymnasium.Env's "
            f"({error}){_OLD}"
        ) from error
