"""Distributions that drift: the same household with other names for its things.

A suite by itself, so that everything that takes a suite takes it. Names are exchanged in every text
that is shown and back in every action, so the engine never knows; nothing else changes. The new
names are nobody's: no real layout has them.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..task import Task
from .base import ActionTemplate, Expert, Info, Suite, TextEnv
from .registry import get_suite

NAMES: Mapping[str, str] = {
    "mug": "lantern", "cup": "marble", "plate": "mirror", "bowl": "compass", "apple": "lemon",
    "tomato": "onion", "potato": "carrot", "egg": "coin", "bread": "scarf", "lettuce": "ribbon",
    "pan": "hammer", "pot": "teapot", "fork": "whistle", "knife": "brush", "spoon": "glove",
    "book": "sponge",
}  # fmt: skip
"""The household's name of a thing -> the name it has in ``household-renamed``."""


class Renaming:
    """Exchanges names of things, both ways, in texts and in tasks.

    Args:
        names: name -> the new one; no new name may be an old one.
        inner: name and version of the suite whose names they are.
    """

    def __init__(self, names: Mapping[str, str], inner: Suite) -> None:
        if len({*names, *names.values()}) < 2 * len(names):
            raise ValueError(
                "names cannot be exchanged: a new name is given twice, or is the old name of "
                "something"
            )
        self.suite, self.version = f"{inner.name}-renamed", inner.version
        told = hashlib.sha256(repr(sorted(names.items())).encode()).hexdigest()
        self.renamed_version = f"{inner.version}+{told[:8]}"
        self._inner, self._key = inner.name, int(told[:16], 16)
        self._there, self._back = dict(names), {new: old for old, new in names.items()}
        self._old, self._new = (
            re.compile(rf"\b({'|'.join(map(re.escape, some))})\b")
            for some in (self._there, self._back)
        )

    def there(self, text: str) -> str:
        """A text in the new names."""
        return self._old.sub(lambda found: self._there[found[0]], text)

    def back(self, text: str) -> str:
        """A text in the old names."""
        return self._new.sub(lambda found: self._back[found[0]], text)

    def task(self, task: Task) -> Task:
        """A task of the suite as one of the renamed suite: another task, whose identity tells which
        it came from."""
        goal, identity = self.there(task.goal), self._other(task.identity)
        return replace(
            task, suite=self.suite, identity=identity, version=self.renamed_version, goal=goal
        )

    def original(self, task: Task) -> Task:
        """The task that a renamed one came from."""
        goal, identity = self.back(task.goal), self._other(task.identity)
        return replace(task, suite=self._inner, identity=identity, version=self.version, goal=goal)

    def _other(self, identity: str) -> str:
        return f"{int(identity, 16) ^ self._key:016x}"


class RenamedEnv(TextEnv):
    """An environment whose things have other names.

    Args:
        inner: the environment.
        names: how they are exchanged.
    """

    def __init__(self, inner: TextEnv, names: Renaming) -> None:
        self._inner, self._names = inner, names

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """As the environment's, with a task of the renamed suite."""
        task = (options or {}).get("task")
        options = (
            {**(options or {}), "task": self._names.original(task)} if task is not None else options
        )
        observation, info = self._inner.reset(seed=seed, options=options)
        return self._names.there(observation), self._told(info)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """As the environment's. An old name means nothing here, so an action that holds one is
        refused."""
        known = self._names.there(action) == action
        answer = self._inner.step(self._names.back(action) if known else "examine nothing")
        observation, reward, terminated, truncated, info = answer
        return (
            self._names.there(str(observation)),
            float(reward),
            terminated,
            truncated,
            self._told(info),
        )

    def admissible(self) -> Sequence[str]:
        """Commands that the engine would accept now, sorted, in the new names."""
        return sorted(self._names.there(command) for command in self._inner.admissible())

    def render(self) -> str:
        """The newest observation."""
        return self._names.there(str(self._inner.render()))

    def close(self) -> None:
        """Close the environment."""
        self._inner.close()

    def _told(self, info: Info) -> Info:
        return {**info, "task": self._names.task(info["task"])}


class _RenamedExpert:
    def __init__(self, inner: Expert, names: Renaming) -> None:
        self._inner, self._names = inner, names

    def act(self, observation: str) -> str:
        return self._names.there(self._inner.act(self._names.back(observation)))


class RenamedSuite(Suite):
    """A suite whose things have other names. See `relive.envs.base.Suite`.

    Args:
        inner: the suite.
        names: its name of a thing -> the new one.
    """

    def __init__(self, inner: Suite, names: Mapping[str, str]) -> None:
        self._inner, self._names = inner, Renaming(names, inner)
        self.name, self.version = self._names.suite, self._names.renamed_version
        self.types, self.groups = inner.types, inner.groups
        self.templates: tuple[ActionTemplate, ...] = inner.templates
        self.instructions, self.max_steps = inner.instructions, inner.max_steps
        self.splits, self.expert_kind = inner.splits, inner.expert_kind
        self.validation_split, self.test_split = inner.validation_split, inner.test_split
        self.goal_form, self.condense_by = inner.goal_form, inner.condense_by
        self.repeats = inner.repeats
        self.rooms_shared, self.processes = inner.rooms_shared, inner.processes
        self.preload, self.copies = inner.preload, inner.copies

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """Those of the suite, renamed; they are tasks of their own."""
        return [self._names.task(task) for task in self._inner.tasks(split, count, types, start)]

    def make(self) -> RenamedEnv:
        """A fresh environment."""
        return RenamedEnv(self._inner.make(), self._names)

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int | None:
        """As the suite's."""
        return self._inner.size(split, types, start)

    def check_ready(self) -> None:
        """As the suite's."""
        self._inner.check_ready()

    def prepare(self, tasks: Sequence[Task], processes: int = 1) -> int:
        """As the suite's."""
        return self._inner.prepare([self._names.original(task) for task in tasks], processes)

    def limit(self, task: Task) -> int:
        """As the suite's."""
        return self._inner.limit(self._names.original(task))

    def expert(self, task: Task) -> Expert:
        """A fresh expert for one episode."""
        return _RenamedExpert(self._inner.expert(self._names.original(task)), self._names)


def household_renamed() -> RenamedSuite:
    """The household with other names for sixteen of its things."""
    return RenamedSuite(get_suite("household"), NAMES)
