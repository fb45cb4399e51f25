"""Household tasks by split, type and number: only games that the expert solves; what is left out is
counted."""

from collections.abc import Iterator
from functools import lru_cache

from ...task import Task
from ..base import SPLITS
from . import generator
from .rooms import ALL_TYPES, seeds_of, task_seed
from .simulate import steps_to_solve

SUITE = "household"
VERSION = f"household-{generator.VERSION}"
MAX_STEPS = 50
"""Step limit of an episode, and the limit within which the expert must solve a listed game."""


def task_of(world: generator.World, split: str, seed: int) -> Task:
    """The `Task` that stands for a generated game."""
    return Task(
        suite=SUITE,
        identity=generator.identity(generator.problem_text(world)),
        type=world.task_type,
        split=split,
        room=f"FloorPlan{world.room}",
        seed=seed,
        version=VERSION,
        goal=world.goal,
    )


def world_of(task: Task) -> generator.World:
    """Make a task's game again.

    Raises:
        ValueError: the task is not of this suite, or this version of it makes another game from the
            task's seed.
    """
    if task.suite != SUITE:
        raise ValueError(
            f"task {task.identity} belongs to suite {task.suite!r}, not {SUITE!r}: play it there"
        )
    world = generator.generate(task.type, task.seed, task.split)
    found = generator.identity(generator.problem_text(world))
    if found != task.identity:
        raise ValueError(
            f"task {task.identity} (type {task.type}, seed {task.seed}, version {task.version}) "
            "cannot be made again: "
            f"version {VERSION} makes game {found} from that seed; list tasks anew with "
            "suite.tasks()"
        )
    return world


class TaskList:
    """The solvable games of one split and type, in the order of their seeds; grows as it is
    read."""

    def __init__(self, split: str, task_type: str) -> None:
        self._split, self._type = split, task_type
        self._tasks: list[Task] = []
        self._identities: set[str] = set()
        self._tried = 0

    def first(self, count: int) -> list[Task]:
        """The first `count` tasks. Raises `ValueError` where there are fewer seeds: looking through
        all of them would take days."""
        seeds = len(seeds_of(self._split, self._type))
        if count > seeds:
            raise ValueError(
                f"{SUITE} has fewer than {seeds:,} tasks of {self._type} in split {self._split!r}: "
                "ask for fewer"
            )
        while len(self._tasks) < count:
            task = attempt(self._split, self._type, self._tried)
            self._tried += 1
            if task is not None and task.identity not in self._identities:
                self._identities.add(task.identity)
                self._tasks.append(task)
        return self._tasks[:count]

    def share_left_out(self, tried: int) -> float:
        """Share, in [0, 1], of the first `tried` games that the expert does not solve in time."""
        return sum(attempt(self._split, self._type, i) is None for i in range(tried)) / tried


def attempt(split: str, task_type: str, index: int) -> Task | None:
    """The game with a number; None when the expert does not solve it within `MAX_STEPS`."""
    seed = task_seed(split, task_type, index)
    world = generator.generate(task_type, seed, split)
    return task_of(world, split, seed) if steps_to_solve(world, MAX_STEPS) is not None else None


@lru_cache(maxsize=len(SPLITS) * len(ALL_TYPES))
def listing(split: str, task_type: str) -> TaskList:
    """The list of a split and type, shared by everyone in this process."""
    return TaskList(split, task_type)


def solvable_from(split: str, task_type: str, index: int) -> Iterator[Task]:
    """Solvable games from a number on."""
    for number in range(index, len(seeds_of(split, task_type))):
        task = attempt(split, task_type, number)
        if task is not None:
            yield task
