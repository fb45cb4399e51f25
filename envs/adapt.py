"""Environments that nobody registered: any text environment on the Gymnasium API becomes a suite.

How the answers of such an environment are read is in :mod:`relive.envs.foreign.adapted`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, cast

from ..task import Task, identity_of
from .base import INSTRUCTIONS, MAX_STEPS, SPLITS, ActionTemplate, Suite, TextEnv
from .foreign.adapted import AdaptedEnv, check_can_be_adapted, is_environment, limit_of, name_of
from .foreign.by_id import MadeById
from .registry import get_suite

_SEEDS_PER_SPLIT = 1_000_000


class GymnasiumSuite(Suite):
    """The tasks of one environment: its seeds, cut into splits that share none.

    Args:
        environment: makes an environment; picklable where processes are to play it. Or an
            environment, which then plays alone.
        name: what to call the suite; by default the environment's id or class.
        instructions: opens the prompt.
        max_steps: actions per episode; 0 for the environment's own limit, or `MAX_STEPS`.
        templates: forms of actions, listed once in the prompt.
        goal_form: whether goals are phrases ("put a mug in the sink") or whole sentences.

    Raises:
        TypeError: it is no environment, its actions or observations are no text, or its `reset`
            takes no seed.
    """

    condense_by = "changes"  # nobody says which actions move and which only look

    def __init__(
        self,
        environment: Callable[[], Any] | Any,
        *,
        name: str = "",
        instructions: str = INSTRUCTIONS,
        max_steps: int = 0,
        templates: Sequence[ActionTemplate] = (),
        goal_form: Literal["phrase", "instruction"] = "phrase",
    ) -> None:
        if is_environment(environment):
            self._only, self._factory = environment, None
            first = environment
        elif callable(environment):
            self._only, self._factory = None, environment
            first = environment()
            if not is_environment(first):
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
            check_can_be_adapted(first)
            self.name = name or name_of(first)
            self.max_steps = max_steps or limit_of(first) or MAX_STEPS
        finally:
            if self._factory is not None and hasattr(first, "close"):
                first.close()
        self.version = f"{self.name}-1"
        self.types: tuple[str, ...] = (self.name,)
        self.templates: tuple[ActionTemplate, ...] = tuple(templates)
        self.instructions, self.goal_form = instructions, goal_form
        self.copies = 1 if self._factory is None else 0

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks: one for each seed, beginning with the split's first.

        Raises:
            ValueError: unknown split or type, or a negative number.
        """
        self.checked(split, types)
        if count < 0 or start < 0 or start + count > _SEEDS_PER_SPLIT:
            raise ValueError(
                f"{self.name}: count ({count}) and start ({start}) must not be negative, and a "
                f"split has {_SEEDS_PER_SPLIT} seeds"
            )
        first = SPLITS.index(split) * _SEEDS_PER_SPLIT + start
        return [self.task(seed, split=split) for seed in range(first, first + count)]

    def task(self, seed: int, goal: str = "", split: str = "train") -> Task:
        """The task of a seed, and of a goal where the environment takes one (as
        ``options["goal"]``)."""
        identity = identity_of(self.name, self.version, str(seed), goal)
        return Task(self.name, identity, self.name, split, "", seed, self.version, goal, goal)

    def make(self) -> TextEnv:
        """The environment, as this project plays it."""
        if self._factory is not None:
            return AdaptedEnv(self._factory(), owned=True, draw=self.task)
        return AdaptedEnv(self._only, owned=False, draw=self.task)


def gymnasium_suite(identifier: str) -> Suite:
    """The suite of an environment that Gymnasium knows by an id, named ``gymnasium:ID``. The ids of
    suites (``relive/NAME-v0``) stand for these.

    Args:
        identifier: ``name-v0``, ``namespace/name-v0``, or ``module:name-v0``, for which the module
            is imported first.

    Raises:
        UnknownSuiteError: Gymnasium knows no such id; the message names the closest ones.
        ImportError: there is no such module.
        TypeError: its actions or observations are no text.
    """
    own = _OWN.fullmatch(identifier)
    if own:
        return get_suite(own[1])
    return GymnasiumSuite(MadeById.of(identifier), name=f"gymnasium:{identifier}")


_OWN = re.compile(r"relive/(.+)-v0")


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
    elif isinstance(environment, Suite):
        suite = environment
    elif isinstance(environment, type) and issubclass(environment, Suite):
        suite = environment()
    elif all(hasattr(environment, name) for name in ("tasks", "make")):
        raise TypeError(
            f"{_name_of(environment)} lists tasks, but is no relive.envs.Suite: inherit from it, "
            "which also gives everything that has a default"
        )
    else:
        return GymnasiumSuite(environment, **settings)
    if settings:
        raise TypeError(f"suite {suite.name!r} has its own {' and '.join(settings)}: leave it out")
    return suite


def as_tasks(
    suite: Suite, tasks: int | str | Sequence[Any], split: str = "train", types: Sequence[str] = ()
) -> list[Task]:
    """Tasks of a suite from whatever says which.

    Args:
        suite: whose tasks.
        tasks: how many, or ``"all"``; or `Task`s; or seeds or goals, which only environments that
            are no suite by themselves take.
        split, types: which tasks, where `tasks` is a number.

    Raises:
        TypeError: it is nothing of the kind.
        ValueError: a negative number, or seeds or goals for a suite that lists its own tasks.
    """
    if tasks == "all":
        split = suite.split_of(split)
        return suite.tasks(split, suite.count(split, types), types)
    if isinstance(tasks, Integral) and not isinstance(tasks, bool):
        if tasks < 0:
            raise ValueError(f"tasks is {tasks}: ask for 0 or more")
        return suite.tasks(suite.split_of(split), int(tasks), types)
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


def _name_of(value: object) -> str:
    return str(getattr(value, "__qualname__", None) or repr(value))
