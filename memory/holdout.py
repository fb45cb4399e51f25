"""Who may see what: a policy that a search is given, not a property of the store.

Alone, a memory shows everything: the best memory of a task is often one of that very task. Whoever
measures something passes a :class:`Holdout`, and :meth:`Holdout.strict` is the one that experiments
use. Texts are compared in their normal form (:mod:`relive.memory.normal`), so that spelling gets
nothing past it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ..task import Task
from .normal import normal_text
from .storage.catalog import Catalog
from .storage.codec import digest
from .storage.ingest import near_digest, task_digest
from .storage.rows import Numbers

TRAIN = "train"
"""The split whose episodes the strict policy shows unless it is told otherwise."""


class Purpose(StrEnum):
    """What a requester will do with what it is shown."""

    ACT = "act"
    """Act, and perhaps remember it."""
    TRAIN = "train"
    """Make a training example: only for tasks of the splits that may be shown."""
    EVALUATE = "evaluate"
    """Be measured: nothing of the split under evaluation."""


@dataclass(frozen=True, slots=True)
class Holdout:
    """Which episodes a search must not show; by default it may show all of them.

    Raises:
        TypeError: a field is not of its type (a text in place of a set of texts, for example).
        ValueError: a task identity is blank, so nothing could be told apart by it.
    """

    tasks: frozenset[str] = frozenset()
    """Identities of tasks whose episodes are not shown."""
    splits: frozenset[str] | None = None
    """Only episodes of these splits are shown; None: of any."""
    hidden_splits: frozenset[str] = frozenset()
    """Episodes of these splits are not shown, whatever else."""
    near: tuple[str, str] | None = None
    """Room and goal: an episode that has both is a near-duplicate and not shown. Where the room is
    blank (the suite has none) nothing is: every task with a goal of the same words would be one."""

    def __post_init__(self) -> None:
        for name in ("tasks", "splits", "hidden_splits"):
            value = getattr(self, name)
            if value is None and name == "splits":
                continue
            object.__setattr__(self, name, _texts(name, value))
        if not all(map(normal_text, self.tasks)):
            raise ValueError(
                "a task identity of a holdout is blank: nothing could be told apart by it"
            )
        if self.near is not None and not (
            isinstance(self.near, tuple)
            and len(self.near) == 2
            and all(isinstance(text, str) for text in self.near)
        ):
            raise TypeError(
                f"near of a holdout must be a pair of texts, room and goal, not {self.near!r}"
            )

    @classmethod
    def strict(cls, task: Task, purpose: Purpose, splits: Collection[str] = (TRAIN,)) -> "Holdout":
        """What experiments hold out from whoever plays `task`: that task, its near-duplicates and
        every split but `splits`.

        It fails closed: a split that nobody named is held out, and a task that does not say what it
        is gets an error.

        Args:
            task: what is played.
            purpose: what for. Evaluation holds out the task's own split, too.
            splits: whose episodes may be shown at all.

        Raises:
            TypeError: the splits are no set of texts, one text for example.
            ValueError: the task has no identity or split, the purpose is unknown, or the task is to
                be trained on and is not of `splits`.
        """
        splits = _texts("splits", splits)
        for name in ("identity", "split"):
            value = getattr(task, name, None)
            if not isinstance(value, str) or not normal_text(value):
                raise ValueError(
                    f"the task has no {name}, so memory cannot tell what to keep from whoever "
                    "plays it: pass the "
                    f"{name} of the task that is being played (episode.task or the environment's "
                    "task record)"
                )
        if not isinstance(task.room, str) or not isinstance(task.goal, str):
            raise ValueError(
                "the task's room and goal must be text (an empty room if the suite has none)"
            )
        if purpose not in list(Purpose):
            known = ", ".join(f"Purpose.{purpose.name}" for purpose in Purpose)
            raise ValueError(f"unknown purpose {purpose!r}: use one of {known}")
        purpose = Purpose(purpose)
        if purpose is Purpose.TRAIN and task.split not in splits:
            raise ValueError(
                f"a task of split {task.split!r} cannot be trained on: use a task of split "
                f"{' or '.join(map(repr, sorted(splits)))}, or Purpose.ACT or Purpose.EVALUATE"
            )
        hidden = frozenset({task.split}) if purpose is Purpose.EVALUATE else frozenset[str]()
        near = (task.room, task.goal)
        return cls(frozenset({task.identity}), splits=splits, hidden_splits=hidden, near=near)

    def visible(self, catalog: Catalog, ordinals: Numbers) -> NDArray[np.bool_]:
        """Which of these entries may be shown, shape (len(ordinals),)."""
        shown = np.ones(len(ordinals), dtype=np.bool_)
        if self.splits is not None:
            shown &= _one_of(catalog.column("split")[ordinals], self.splits)
        if self.hidden_splits:
            shown &= ~_one_of(catalog.column("split")[ordinals], self.hidden_splits)
        if self.tasks:
            column = catalog.column("task")[ordinals]
            if len(self.tasks) == 1:  # nearly always, and numpy.isin takes its time
                shown &= column != np.uint64(task_digest(next(iter(self.tasks))))
            else:
                hashes = np.array([task_digest(task) for task in self.tasks], dtype=np.uint64)
                shown &= ~np.isin(column, hashes)
        if self.near is not None and normal_text(self.near[0]):
            shown &= catalog.column("near")[ordinals] != np.uint64(near_digest(*self.near))
        return shown


def _texts(name: str, value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Collection):
        raise TypeError(f"{name} of a holdout must be a set of texts, not {value!r}")
    if not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} of a holdout must be texts, not {list(value)!r}")
    return frozenset(value)


def _one_of(column: NDArray[np.uint64], texts: Collection[str]) -> NDArray[np.bool_]:
    # Not numpy.isin, which takes longer than the comparison of a few texts.
    found = np.zeros(len(column), dtype=np.bool_)
    for text in texts:
        found |= column == np.uint64(digest(text))
    return found
