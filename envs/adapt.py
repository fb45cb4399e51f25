"""Environments that nobody registered: any text environment on the Gymnasium API becomes a suite.

What is not known of such an environment is read off its answers. The goal is ``info["goal"]`` after
``reset``, or what follows "Your task is to:" in the first observation, or else that whole
observation. Whether it was reached is ``info["success"]`` or ``info["won"]`` of the last step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from types import MappingProxyType
from typing import Any, cast

import gymnasium
from gymnasium import spaces

from ..task import Task, goal_line, identity_of
from .base import (
    INSTRUCTIONS,
    MAX_STEPS,
    SPLITS,
    ActionTemplate,
    Expert,
    Info,
    Suite,
    TextEnv,
    checked_types,
)
from .registry import get_suite

_SEEDS_PER_SPLIT = 1_000_000


class GymnasiumSuite:
    """The tasks of one environment: its seeds, cut into splits that share none.

    Args:
        environment: makes an environment; picklable where processes are to play it. Or an
            environment, which then plays alone.
        name: what to call the suite; by default the environment's id or class.
        instructions: opens the prompt.
        max_steps: actions per episode; 0 for the environment's own limit, or `MAX_STEPS`.
        templates: forms of actions, listed once in the prompt.

    Raises:
        TypeError: it is no environment, or its actions or observations are no text.
    """

    groups: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def __init__(
        self,
        environment: Callable[[], Any] | Any,
        *,
        name: str = "",
        instructions: str = INSTRUCTIONS,
        max_steps: int = 0,
        templates: Sequence[ActionTemplate] = (),
    ) -> None:
        if _is_environment(environment):
            self._only, self._factory = environment, None
            first = environment
        elif callable(environment):
            self._only, self._factory = None, environment
            first = environment()
            if not _is_environment(first):
                raise TypeError(
                    f"{_name_of(environment)} makes {first!r}, which is no environment: it needs "
                    "reset(seed=…, options=…) and step(action), as gymnasium.Env has them"
                )
        else:
            raise TypeError(
                f"{environment!r} is no environment: give the name of a suite, a Suite, a "
                "gymnasium.Env, or a function that makes one"
            )
        try:
            _check_spaces(first)
            spec = getattr(first, "spec", None)
            self.name = name or getattr(spec, "id", "") or type(_innermost(first)).__name__
            self.max_steps = max_steps or getattr(spec, "max_episode_steps", None) or MAX_STEPS
        finally:
            if self._factory is not None and hasattr(first, "close"):
                first.close()
        self.version = f"{self.name}-1"
        self.types: tuple[str, ...] = (self.name,)
        self.templates: tuple[ActionTemplate, ...] = tuple(templates)
        self.instructions = instructions
        self.copies = 1 if self._factory is None else 0
        """How many environments there can be at once; 0 for any number."""

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks: one for each seed, beginning with the split's first."""
        checked_types(self.name, self.types, split, types)
        first = SPLITS.index(split) * _SEEDS_PER_SPLIT + start
        return [self.task(seed, split=split) for seed in range(first, first + count)]

    def task(self, seed: int, goal: str = "", split: str = "train") -> Task:
        """The task of a seed, and of a goal where the environment takes one (as
        ``options["goal"]``)."""
        identity = identity_of(self.name, self.version, str(seed), goal)
        return Task(self.name, identity, self.name, split, "", seed, self.version, goal)

    def make(self) -> TextEnv:
        """The environment, as this project plays it."""
        if self._factory is not None:
            return AdaptedEnv(self._factory(), owned=True)
        return AdaptedEnv(self._only, owned=False)

    def expert(self) -> Expert:
        """Nobody knows how to play it."""
        raise NotImplementedError(f"{self.name} has no expert")


class AdaptedEnv(TextEnv):
    """A text environment whose info says everything that this project asks.

    Args:
        inner: the environment.
        owned: close it, too, when this is closed.
    """

    def __init__(self, inner: Any, *, owned: bool) -> None:
        self._inner, self._owned = inner, owned
        self._task: Task | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``; the task in the answer's info has the goal that was read."""
        task = (options or {}).get("task")
        if not isinstance(task, Task):
            raise ValueError("reset needs the task to play: options={'task': task}")
        goal = {"goal": task.goal} if task.goal else None
        answer = self._inner.reset(seed=task.seed, options=goal)
        if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], Mapping)):
            raise TypeError(f"reset must return (observation, info), not {answer!r:.80}")
        observation, info = self._text(answer[0], "reset"), dict(answer[1])
        stated = info.get("goal")
        self._task = replace(
            task,
            goal=stated.strip()
            if isinstance(stated, str) and stated.strip()
            else task.goal or goal_line(observation) or observation.strip(),
        )
        return observation, {**info, "task": self._task}

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out an action."""
        answer = self._inner.step(action)
        if not (isinstance(answer, tuple) and len(answer) == 5 and isinstance(answer[4], Mapping)):
            raise TypeError(
                "step must return (observation, reward, terminated, truncated, info), not "
                f"{answer!r:.80}"
            )
        observation, reward, terminated, truncated, info = answer
        return (
            self._text(observation, "step"),
            float(reward),
            bool(terminated),
            bool(truncated),
            {**info, "task": self._task},
        )

    def close(self) -> None:
        """Close the environment, unless it belongs to somebody else."""
        if self._owned and hasattr(self._inner, "close"):
            self._inner.close()

    @staticmethod
    def _text(observation: object, where: str) -> str:
        if not isinstance(observation, str):
            raise TypeError(
                f"the observation of {where} must be text, not {type(observation).__name__}: wrap "
                "the environment, for example in gymnasium.wrappers.TransformObservation"
            )
        return str(observation)


def as_suite(environment: object, **settings: Any) -> Suite:
    """A suite from whatever a visitor has: the name of one, a `Suite`, a ``gymnasium.Env`` of
    texts, or a function (a class, too) that makes such an environment.

    Args:
        environment: see above.
        settings: of :class:`GymnasiumSuite`, for what is no suite yet.

    Raises:
        UnknownSuiteError: no suite of that name.
        TypeError: it is nothing of the kind, or a suite has what the settings say.
    """
    if isinstance(environment, str):
        suite = get_suite(environment)
    elif all(hasattr(environment, name) for name in ("tasks", "make")):
        suite = cast(Suite, environment() if isinstance(environment, type) else environment)
    else:
        return GymnasiumSuite(environment, **settings)
    if settings:
        raise TypeError(f"suite {suite.name!r} has its own {' and '.join(settings)}: leave it out")
    return suite


def as_tasks(
    suite: Suite, tasks: int | Sequence[Any], split: str = "train", types: Sequence[str] = ()
) -> list[Task]:
    """Tasks of a suite from whatever says which.

    Args:
        suite: whose tasks.
        tasks: how many; or `Task`s; or seeds or goals, which only environments that are no suite
            by themselves take.
        split, types: which tasks, where `tasks` is a number.

    Raises:
        TypeError: it is nothing of the kind.
        ValueError: a negative number, or seeds or goals for a suite that lists its own tasks.
    """
    if isinstance(tasks, Integral) and not isinstance(tasks, bool):
        if tasks < 0:
            raise ValueError(f"tasks is {tasks}: ask for 0 or more")
        return suite.tasks(split, int(tasks), types)
    if isinstance(tasks, str | bytes | Mapping) or not hasattr(tasks, "__iter__"):
        raise TypeError(
            f"tasks must be a number, or a list of seeds, of goals or of Tasks, not {tasks!r}"
        )
    return [_as_task(suite, i, task, split) for i, task in enumerate(cast(Sequence[Any], tasks))]


def _as_task(suite: Suite, index: int, task: object, split: str) -> Task:
    if isinstance(task, Task):
        return task
    seed = isinstance(task, Integral) and not isinstance(task, bool)
    if not seed and not (isinstance(task, str) and task.strip()):
        raise TypeError(f"tasks[{index}] must be a seed, a goal or a Task, not {task!r}")
    if not isinstance(suite, GymnasiumSuite):
        raise ValueError(
            f"suite {suite.name!r} lists its own tasks: give a number, or Tasks of "
            f"suite.tasks(split, count), not {task!r}"
        )
    if isinstance(task, str):
        return suite.task(index, task.strip(), split)
    return suite.task(int(cast(int, task)), split=split)


def _is_environment(value: object) -> bool:
    return not isinstance(value, type) and all(
        callable(getattr(value, name, None)) for name in ("reset", "step")
    )


def _innermost(environment: Any) -> Any:
    return environment.unwrapped if isinstance(environment, gymnasium.Env) else environment


def _name_of(value: object) -> str:
    return str(getattr(value, "__qualname__", None) or repr(value))


def _check_spaces(environment: Any) -> None:
    for what in ("action", "observation"):
        space = getattr(environment, f"{what}_space", None)
        if space is not None and not isinstance(space, spaces.Text):
            raise TypeError(
                f"the {what}s of {type(_innermost(environment)).__name__} are {space}, not text: "
                f"wrap it, for example in gymnasium.wrappers.Transform{what.capitalize()}"
            )
