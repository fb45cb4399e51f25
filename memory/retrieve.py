"""What is asked, what is kept back, what is shown.

``search`` demands a viewer and fails closed: what may not be shown is decided from whitelists, and a viewer that does
not say who it is gets an error, not results.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from memory.embed import Vectors
from memory.episode import StopReason, TaskRecord
from memory.index import Index

TRAIN = "train"
"""The only split whose episodes are ever shown; every other is held out."""

Ordinals = NDArray[np.int64]


class Purpose(StrEnum):
    """What the viewer will do with what it is shown."""

    ACT = "act"
    """Act, and perhaps remember it."""
    TRAIN = "train"
    """Make a training example: only for tasks of the training split."""
    EVALUATE = "evaluate"
    """Be measured: nothing of the split under evaluation."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: the task at hand, and what for.

    Raises:
        ValueError: a field that the firewall needs is empty or unknown.
    """

    identity: str
    """Identity of the viewer's own task; its episodes are never shown to it."""
    split: str
    """Split of the viewer's task."""
    room: str
    """Room of the viewer's task; empty when the suite has none."""
    goal: str
    """Goal of the viewer's task, as the agent reads it."""
    purpose: Purpose

    def __post_init__(self) -> None:
        for name in ("identity", "split"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"the viewer has no task {name}, so memory cannot tell what to keep from it: pass the {name} of "
                    "the task that is being played (episode.task or the environment's task record)"
                )
        if not isinstance(self.room, str) or not isinstance(self.goal, str):
            raise ValueError("the viewer's room and goal must be text (an empty room if the suite has none)")
        if not isinstance(self.purpose, Purpose):
            known = ", ".join(f"Purpose.{purpose.name}" for purpose in Purpose)
            raise ValueError(f"unknown purpose {self.purpose!r}: use one of {known}")
        if self.purpose is Purpose.TRAIN and self.split != TRAIN:
            raise ValueError(
                f"a task of split {self.split!r} cannot be trained on: use a task of split {TRAIN!r}, or Purpose.ACT "
                "or Purpose.EVALUATE"
            )

    @classmethod
    def of(cls, task: TaskRecord, purpose: Purpose) -> "Viewer":
        """The viewer that plays ``task``."""
        return cls(task.identity, task.split, task.room, task.goal, purpose)


@dataclass(frozen=True, slots=True)
class EntryMeta:
    """What is known of a stored episode without decoding it."""

    episode_id: str
    position: int
    """Sequence number of its record; visible to searches at any later position."""
    task: TaskRecord
    success: bool
    score: float
    reason: StopReason
    policy: str
    adapter: str
    steps: int
    """Number of steps."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, and which of it is wanted.

    Raises:
        ValueError: ``k`` is negative.
    """

    text: str
    k: int = 2
    """How many hits at most; 0 gives none."""
    min_score: float | None = None
    """Leave out what is less similar than this; None keeps everything."""
    successes_only: bool = False
    exclude: frozenset[str] = frozenset()
    """Ids of episodes that are not wanted."""
    where: Callable[[EntryMeta], bool] | None = None
    """Keep only entries for which this is true. For experiments (an index without the type under test), not for
    normal use: it is called in Python for one candidate after the other."""

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError(f"k is {self.k}; ask for 0 hits or more")


@dataclass(frozen=True, slots=True)
class Why:
    """How a hit came about."""

    similarity: float
    """Inner product of the unit vectors of query and key."""
    considered: int
    """Entries that were at least as close, this one included: its rank before anything was removed."""
    firewalled: int
    """How many of those the firewall removed (same task, near-duplicate, held out)."""
    filtered: int
    """How many of those the query did not want (failures, excluded, ``where``)."""
    exact: bool
    """Every entry was compared; false: the candidates came from the approximate index."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One past episode that fits."""

    episode_id: str
    score: float
    """Higher is closer."""
    position: int
    """Sequence number of its record in the log."""
    why: Why


def normalise_goal(goal: str) -> str:
    """Two goals are the same if this is the same: case, spaces, punctuation and width of characters do not count."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", goal).casefold()))


_FIELDS = np.dtype(
    [
        ("position", "<i8"),
        ("tie", "<i8"),
        ("identity", "<i4"),
        ("near", "<i4"),
        ("split", "<i4"),
        ("train", "?"),
        ("success", "?"),
    ]
)


class Catalog:
    """What the firewall and the filters need to know of each entry, in columns; ordinal = order in the log."""

    def __init__(self) -> None:
        self.entries: list[EntryMeta] = []
        self.ordinals: dict[str, int] = {}
        """Ordinal of each episode id."""
        self._rows = np.empty(64, dtype=_FIELDS)
        self._identities: dict[str, int] = {}
        self._nears: dict[tuple[str, str], int] = {}
        self._splits: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, entry: EntryMeta) -> None:
        """Take in the next entry of the log."""
        ordinal = len(self.entries)
        if ordinal == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        task = entry.task
        near = (task.room, normalise_goal(task.goal))
        self._rows[ordinal] = (
            entry.position,
            int.from_bytes(hashlib.blake2b(task.identity.encode(), digest_size=8).digest(), "little", signed=True),
            self._identities.setdefault(task.identity, len(self._identities)),
            self._nears.setdefault(near, len(self._nears)),
            self._splits.setdefault(task.split, len(self._splits)),
            task.split == TRAIN,
            entry.success,
        )
        self.ordinals[entry.episode_id] = ordinal
        self.entries.append(entry)

    def break_ties(self, ordinals: Ordinals, scores: Vectors) -> NDArray[np.int64]:
        """The order in which candidates rank: by score, then by a hash of the task, then oldest first.

        Not by log order alone: that is the order in which episodes ended, which depends on what ran beside them.
        """
        return np.lexsort((ordinals, self._rows["tie"][ordinals], -scores))

    def count_before(self, position: int) -> int:
        """Number of entries before a log position."""
        return int(np.searchsorted(self._rows["position"][: len(self.entries)], position))

    def may_be_shown(self, viewer: Viewer, ordinals: Ordinals) -> NDArray[np.bool_]:
        """The firewall: which of these entries the viewer may see, shape (len(ordinals),)."""
        rows = self._rows[ordinals]
        near = (viewer.room, normalise_goal(viewer.goal))
        shown = (
            rows["train"]
            & (rows["identity"] != self._identities.get(viewer.identity, -1))
            & (rows["near"] != self._nears.get(near, -1))
        )
        if viewer.purpose is Purpose.EVALUATE:
            shown &= rows["split"] != self._splits.get(viewer.split, -1)
        return np.asarray(shown, dtype=np.bool_)

    def wanted(self, query: Query, ordinals: Ordinals) -> NDArray[np.bool_]:
        """Which of these entries the query wants, ``where`` aside, shape (len(ordinals),)."""
        wanted = np.ones(len(ordinals), dtype=np.bool_)
        if query.successes_only:
            wanted &= self._rows["success"][ordinals]
        if query.exclude:
            unwanted = [self.ordinals[episode] for episode in query.exclude if episode in self.ordinals]
            wanted &= ~np.isin(ordinals, np.array(unwanted, dtype=np.int64))
        return wanted


def retrieve(query: Query, vector: Vectors, viewer: Viewer, catalog: Catalog, index: Index, stop: int) -> list[Hit]:
    """The best ``query.k`` of the first ``stop`` entries that the viewer may see and the query wants, best first.

    Candidates are taken from the index, more than needed; if too few of them are left, more still; if that is not
    enough either, every entry is compared. So there are k hits whenever k entries qualify. Ties are broken by task, see
    :meth:`Catalog.break_ties`; they are never cut in half.

    Args:
        vector: of the query, shape (dimension,).
    """
    if not isinstance(viewer, Viewer):
        raise ValueError(f"search needs a Viewer that says who asks, not {viewer!r}: use Viewer.of(task, purpose)")
    if query.k == 0 or stop == 0:
        return []
    count = 32 + 4 * query.k
    for wide in (min(count, stop), min(8 * count, stop), stop):
        ordinals, scores, exact = index.candidates(vector, wide, stop)
        order = catalog.break_ties(ordinals, scores)
        ordinals, scores = ordinals[order], scores[order]
        hits, finished = _select(query, viewer, catalog, ordinals, scores, exact)
        cut = len(hits) == query.k and hits[-1].score == float(scores[-1])  # others may be as close as the last hit
        if (finished and not cut) or len(ordinals) == stop:
            break
    return hits


def _select(
    query: Query, viewer: Viewer, catalog: Catalog, ordinals: Ordinals, scores: Vectors, exact: bool
) -> tuple[list[Hit], bool]:
    """Hits among candidates in descending order, and whether no further candidate could change them."""
    enough = False
    if query.min_score is not None:
        close = int(np.count_nonzero(scores >= query.min_score))
        enough = close < len(ordinals)
        ordinals, scores = ordinals[:close], scores[:close]
    shown = catalog.may_be_shown(viewer, ordinals)
    wanted = catalog.wanted(query, ordinals)
    refused = 0
    hits: list[Hit] = []
    for rank in np.flatnonzero(shown & wanted):
        entry = catalog.entries[ordinals[rank]]
        if query.where is not None and not query.where(entry):
            refused += 1
            continue
        firewalled = int(np.count_nonzero(~shown[:rank]))
        filtered = int(np.count_nonzero(shown[:rank] & ~wanted[:rank])) + refused
        score = float(scores[rank])
        why = Why(score, int(rank) + 1, firewalled, filtered, exact)
        hits.append(Hit(entry.episode_id, score, entry.position, why))
        if len(hits) == query.k:
            return hits, True
    return hits, enough
