"""Which tasks a round of learning plays: none twice, nor one that was demonstrated."""

from collections.abc import Sequence

from ..envs import Suite
from ..task import Task


def training_tasks(
    suite: Suite, types: Sequence[str], demonstrated: int, most: int, number: int
) -> list[Task]:
    """The train tasks of a round, behind those of the demonstrations and of earlier rounds.

    Args:
        suite: whose tasks.
        types: which are played; at least one.
        demonstrated: demonstrations at the start, spread over all types of the suite.
        most: tasks of a round at most; fewer, or none, where a suite has no more.
        number: of the round, from 1.
    """
    if suite.size("train") is None:
        start = _per_type(demonstrated, suite.types) + (number - 1) * _per_type(most, types)
        return suite.tasks("train", most, types, start=start)
    # Types have more or less to offer, so that lists are not cut at the same place in each.
    used = {task.identity for task in suite.up_to("train", demonstrated)}
    everything = suite.tasks("train", suite.count("train", types), types)
    left = [task for task in everything if task.identity not in used]
    return left[(number - 1) * most : number * most]


def _per_type(count: int, types: Sequence[str]) -> int:
    """How many tasks of each type a list of `count` takes at most."""
    return -(-count // len(types))
