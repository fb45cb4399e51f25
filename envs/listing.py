"""Lists of tasks that are spread over types, whatever the types have to offer, and what is on
them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count as numbers
from typing import TypeVar

from ..task import Task

T = TypeVar("T")


def spread(
    pools: Mapping[str, Sequence[T]], count: int, start: int = 0, *, where: str = "the suite"
) -> list[tuple[str, T]]:
    """`count` items, the types in turn; a type that has no more is passed over.

    Args:
        pools: what each type has, for example a range of seeds; nothing but its length and single
            items is asked for.
        count: how many.
        start: so many of each type are skipped.
        where: suite and split, for the message.

    Returns:
        (type, item) pairs. A longer list begins with the shorter one.

    Raises:
        ValueError: a number is negative, or there are fewer.
    """
    if count < 0 or start < 0:
        raise ValueError(f"{where}: count ({count}) and start ({start}) must not be negative")
    there = size_of(pools, start)
    if count > there:
        behind = f" behind the first {start} of each type" if start else ""
        raise ValueError(
            f"{where} has {there} tasks of {_named(list(pools))}{behind}, and {count} were asked "
            "for: ask for fewer, or for all"
        )
    chosen: list[tuple[str, T]] = []
    for number in numbers(start):
        if len(chosen) >= count:
            break
        chosen += [(kind, pool[number]) for kind, pool in pools.items() if number < len(pool)]
    return chosen[:count]


def check_listed(
    task: Task, suite: str, numbers: Sequence[int], listed: Callable[[], Task]
) -> None:
    """Whether a task is one that its suite lists by type, split and number.

    Args:
        task: what is to be played.
        suite: name of the suite.
        numbers: seeds that there are of its type and split.
        listed: the task as the suite lists it.

    Raises:
        ValueError: it is of another suite, unknown, or of another version.
    """
    if task.suite != suite or task.seed not in numbers:
        raise ValueError(
            f"task {task.identity} of suite {task.suite!r}, type {task.type!r}, split "
            f"{task.split!r} and seed {task.seed} is none of suite {suite!r}"
        )
    now = listed()
    if task.identity != now.identity:
        raise ValueError(
            f"task {task.identity} is of version {task.version!r}, and this is {now.version!r}, "
            "whose games are others: list the tasks anew"
        )


def size_of(pools: Mapping[str, Sequence[T]], start: int = 0) -> int:
    """How many items there are behind the first `start` of each type."""
    return sum(max(0, len(pool) - start) for pool in pools.values())


def _named(types: Sequence[str]) -> str:
    return ", ".join(types) if len(types) <= 4 else f"{len(types)} types"
