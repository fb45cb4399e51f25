"""Which tasks a study's seeds have: its tiers, and portions of a split that no two seeds share."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from ....envs import Suite, Task
from ....envs.base import types_of
from .arms import EASY, SEALED, tiers_of
from .settings import StudySettings


class Tiers:
    """The tiers of a study: which task types are trained on, and which are not.

    Args:
        settings: of the study.
        suite: whose types they are.

    Raises:
        ValueError: the suite has no such types, or no tiers and the settings name none.
    """

    def __init__(self, settings: StudySettings, suite: Suite) -> None:
        self.suite = suite
        self.types: Mapping[str, tuple[str, ...]] = tiers_of(suite)
        if settings.easy:
            self.types = {
                tier: suite.checked("train", types_of(suite, names))
                for tier, names in ((EASY, settings.easy), ("hard", settings.hard))
            }

    @property
    def all(self) -> tuple[str, ...]:
        """All types, in the suite's order."""
        mine = [kind for types in self.types.values() for kind in types]
        return tuple(sorted(mine, key=(*self.suite.types, *mine).index))

    def of(self, kind: str) -> str:
        """The tier of a task type; of the sealed ones ``composed``.

        Raises:
            ValueError: it belongs to none.
        """
        for tier, types in {**self.types, SEALED: self.suite.groups.get(SEALED, ())}.items():
            if kind in types:
                return tier
        raise ValueError(f"task type {kind!r} belongs to no tier of suite {self.suite.name!r}")


def portion(suite: Suite, split: str, count: int, types: Sequence[str], seed: int) -> list[Task]:
    """`count` tasks of a split for a seed, spread over types; or as many as there are. No two seeds
    share one."""
    per_type = -(-count // len(types))
    if all(suite.size(split, [kind]) is None for kind in types):
        return suite.tasks(split, count, types, start=seed * per_type)
    # A type that is used up must not be made good for by tasks of others: they are the next seed's.
    each = [suite.up_to(split, per_type, [kind], start=seed * per_type) for kind in types]
    return [task for row in zip_longest(*each) for task in row if task][:count]


def tasks_for(settings: StudySettings, suite: Suite, seed: int, sealed: bool = False) -> list[Task]:
    """Test tasks of a seed; no task belongs to two seeds.

    Raises:
        ValueError: the suite has no sealed tier, or too few tasks for so many seeds.
    """
    if sealed and SEALED not in suite.groups:
        raise ValueError(f"suite {suite.name!r} has no sealed tier: it lists no group {SEALED!r}")
    tiers = {SEALED: suite.groups[SEALED]} if sealed else Tiers(settings, suite).types
    found: list[Task] = []
    for tier, types in tiers.items():
        whole = -(-settings.per_tier // len(types)) * len(types)
        tasks = portion(suite, suite.split_of(settings.split), whole, types, seed)
        if not tasks:
            raise ValueError(
                f"suite {suite.name!r} has no {tier} tasks left for seed {seed} in split "
                f"{settings.split!r}: use fewer seeds, or a smaller per_tier"
            )
        found += tasks
    return found


def demonstration_tasks(settings: StudySettings, suite: Suite, seed: int) -> list[Task]:
    """Train tasks whose expert episodes are the memory of a seed."""
    types = Tiers(settings, suite).all
    return portion(suite, "train", settings.demonstrations, types, seed)
