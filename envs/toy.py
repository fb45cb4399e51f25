"""The smallest complete suite: fetch a thing in a tiny house. For tests, and as a pattern for your
own environment.

Everything that `relive` needs of an environment is here: tasks that can be made again from their
seed, an environment on the Gymnasium API, action templates, and (optionally) an expert. Copy it,
change it, register it, and run `relive.envs.check_env` over it.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..task import Task
from .base import SPLITS, ActionTemplate, Info, Suite, TextEnv

_HOUSES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "train": {
        "cottage": ("kitchen", "hall", "cellar", "garden"),
        "farm": ("barn", "stable", "kitchen", "yard"),
    },
    "valid": {"cabin": ("porch", "kitchen", "shed", "loft")},
    "test": {"villa": ("terrace", "library", "kitchen", "studio", "garage")},
}
_THINGS = ("cup", "key", "book", "lamp", "coin", "rope", "bell", "shoe")
_TYPES = ("fetch", "wash")
_VERSION = "toy-1"
_SEEDS_PER_SPLIT = 1_000_000


def _game(split: str, task_type: str, seed: int) -> tuple[str, dict[str, str], str, str, str]:
    """House, where each thing is, the thing asked for, where it has to go, and the goal. All from
    the seed."""
    rng = random.Random(f"{_VERSION}/{split}/{task_type}/{seed}")
    house = rng.choice(sorted(_HOUSES[split]))
    places = _HOUSES[split][house]
    thing, destination = rng.choice(_THINGS), rng.choice(places)
    where = {name: rng.choice(places) for name in rng.sample(_THINGS, 4)}
    where[thing] = rng.choice([place for place in places if place != destination])
    return (
        house,
        where,
        thing,
        destination,
        f"put a {'clean ' if task_type == 'wash' else ''}{thing} in {destination}",
    )


def _task(split: str, task_type: str, index: int) -> Task:
    seed = SPLITS.index(split) * _SEEDS_PER_SPLIT + index * len(_TYPES) + _TYPES.index(task_type)
    house, where, _, _, goal = _game(split, task_type, seed)
    content = repr((house, sorted(where.items()), goal))
    identity = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Task("toy", identity, task_type, split, house, seed, _VERSION, goal)


class ToyEnv(TextEnv):
    """A house of a few places, a thing in one of them, a tap in the kitchen."""

    _task: Task | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Start ``options["task"]``, or a random task of the train split."""
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None:
            task = _task(
                "train", _TYPES[int(self.np_random.integers(2))], int(self.np_random.integers(1000))
            )
        if task.suite != "toy":
            raise ValueError(
                f"task {task.identity} belongs to suite {task.suite!r}, not 'toy': play it there"
            )
        self._task = task
        house, self._where, self._thing, self._destination, goal = _game(
            task.split, task.type, task.seed
        )
        self._places = _HOUSES[task.split][house]
        self._here, self._held, self._clean, self._won = "", "", False, False
        return (
            f"You are in a {house}. It has: {', '.join(self._places)}.\n\nYour task is to: {goal}.",
            self._info(False),
        )

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out a command."""
        if self._task is None or self._won:
            raise RuntimeError("ToyEnv.step outside an episode: call reset first")
        answer = self._answer(action.strip()) if action.strip() in self.admissible() else ""
        at_goal = self._held == "" and self._where[self._thing] == self._destination
        self._won = at_goal and (self._clean or self._task.type != "wash")
        return (
            answer or "Nothing happens.",
            float(self._won),
            self._won,
            False,
            self._info(not answer),
        )

    def admissible(self) -> Sequence[str]:
        """Commands that would be carried out now, sorted."""
        commands = ["look", *(f"go to {place}" for place in self._places)]
        if self._held:
            commands += [f"put down {self._held}"] if self._here else []
            commands += [f"wash {self._held}"] if self._here == "kitchen" else []
        else:
            commands += [
                f"take {thing}" for thing, place in self._where.items() if place == self._here
            ]
        return sorted(commands)

    def _answer(self, action: str) -> str:
        verb, _, rest = action.rpartition(" ")
        if verb == "go to":
            self._here = rest
        elif verb == "take":
            self._held, self._where[rest] = rest, ""
            return f"You take the {rest}."
        elif verb == "wash":
            self._clean = self._clean or rest == self._thing
            return f"You wash the {rest} under the tap."
        elif verb == "put down":
            self._held, self._where[rest] = "", self._here
            return f"You put the {rest} down in the {self._here}."
        seen = sorted(thing for thing, place in self._where.items() if place == self._here)
        return f"You are in the {self._here or 'house'}. You see: {', '.join(seen) or 'nothing'}."

    def _info(self, invalid: bool) -> Info:
        return {
            "task": self._task,
            "success": self._won,
            "invalid": invalid,
            "score": float(self._won),
        }


class ToyExpert:
    """Walks through the places in their order until it sees the thing."""

    def __init__(self) -> None:
        self._plan: list[str] = []
        self._route: list[str] = []
        self._thing = ""

    def act(self, observation: str) -> str:
        """The next action, from the newest observation alone and what was read before."""
        if stated := re.search(
            r"It has: (.*)\.\n\n.*: put a (clean )?(\w+) in (\w+)\.", observation
        ):
            self._route, self._thing = stated.group(1).split(", "), stated.group(3)
            wash = ["go to kitchen", f"wash {self._thing}"] if stated.group(2) else []
            self._plan = [
                f"take {self._thing}",
                *wash,
                f"go to {stated.group(4)}",
                f"put down {self._thing}",
            ]
        if self._plan[0].startswith("take") and not re.search(
            rf"see: .*\b{self._thing}\b", observation
        ):
            return f"go to {self._route.pop(0)}"
        return self._plan.pop(0)


class ToySuite(Suite):
    """The suite `toy`. See `relive.envs.base.Suite`."""

    name: str = "toy"
    version: str = _VERSION
    types: tuple[str, ...] = _TYPES
    groups: Mapping[str, tuple[str, ...]] = {"easy": ("fetch",), "hard": ("wash",)}
    templates: tuple[ActionTemplate, ...] = (
        ActionTemplate("go to {place}", "move"),
        ActionTemplate("take {object}", "act"),
        ActionTemplate("wash {object}", "act"),
        ActionTemplate("put down {object}", "act"),
        ActionTemplate("look", "look"),
    )
    instructions: str = (
        "You are in a small house and carry out a task, one short command at a time."
    )
    max_steps: int = 15
    expert_kind = "reads text"

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks, taking the types in turn, no game twice. Raises `ValueError` on a split or
        type it lacks."""
        chosen = self.checked(split, types)
        if count < 0 or start < 0:
            raise ValueError(f"count ({count}) and start ({start}) must not be negative")
        seeds = _SEEDS_PER_SPLIT // len(_TYPES)
        if start + -(-count // len(chosen)) > seeds:  # known without making all of them
            raise ValueError(
                f"toy has fewer than {seeds:,} tasks of a type in split {split!r}: ask for fewer"
            )
        found: dict[str, dict[str, Task]] = {task_type: {} for task_type in chosen}
        for task_type, tasks in found.items():
            for index in range(seeds):
                if len(tasks) == start + -(-count // len(chosen)):
                    break
                task = _task(split, task_type, index)
                tasks.setdefault(task.identity, task)
            if len(tasks) < start + -(-count // len(chosen)):
                raise ValueError(
                    f"toy has {len(tasks)} tasks of {task_type} in split {split!r}: ask for fewer"
                )
        listed = [list(found[task_type].values()) for task_type in chosen]
        return [listed[i % len(chosen)][start + i // len(chosen)] for i in range(count)]

    def make(self) -> ToyEnv:
        """A fresh environment."""
        return ToyEnv()

    def expert(self, task: Task) -> ToyExpert:
        """A fresh expert for one episode; it needs nothing but the text."""
        return ToyExpert()
