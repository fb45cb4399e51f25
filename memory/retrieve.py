"""What is asked, what is kept back, what is shown.

``search`` demands a viewer and fails closed: what may not be shown is decided from whitelists, and a viewer that does
not say who it is gets an error, not results.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memory import space
from memory.catalog import IN_TRAIN, TRAIN, Catalog, Filter
from memory.codec import digest
from memory.embed import Vectors
from memory.episode import StopReason, TaskRecord
from memory.keys import KEYS
from memory.rank import choose
from memory.rows import Numbers
from memory.space import WIDEST, KeySpace

POOL = 8
"""Candidates per hit that are ranked when more than similarity counts, and :data:`LEAST_POOL` at least."""
LEAST_POOL = 32


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
    only: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Keep only entries whose suite, type, split, policy or adapter is one of these: fast at any selectivity."""
    keys: tuple[str, ...] = ("goal",)
    """Which texts of an episode are compared with the query; the closest counts. The memory must have them (see ``open``)."""
    diversity: float = 0.0
    """In [0, 1): how much being unlike the other hits counts against similarity (:func:`memory.rank.choose`)."""
    usefulness: float = 0.0
    """Weight of what an entry's usefulness, in [-1, 1], adds to its similarity (:mod:`memory.usefulness`)."""
    brevity: float = 0.0
    """What each doubling of an entry's number of steps takes from its similarity: of those that fit alike, direct ones first."""

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError(f"k is {self.k}; ask for 0 hits or more")
        if not 0 <= self.diversity < 1:
            raise ValueError(f"diversity is {self.diversity}; it must be at least 0 and less than 1")
        if self.brevity < 0:
            raise ValueError(f"brevity is {self.brevity}; it must not be negative")
        unknown = [key for key in self.keys if key not in KEYS]
        if unknown or not self.keys:
            raise ValueError(f"unknown keys {unknown}: use some of {', '.join(KEYS)}")

    @property
    def ranked(self) -> bool:
        """Whether more than similarity decides which hits come first."""
        return self.diversity > 0 or self.usefulness != 0 or self.brevity > 0


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
    key: str = "goal"
    """Which of the episode's texts was closest."""
    usefulness: float = 0.0
    """What its usefulness added to the score."""
    length: float = 0.0
    """What the number of its steps took from the score; 0 where brevity was not asked for."""
    redundancy: float = 0.0
    """Similarity with the closest of the hits before it; 0 where diversity was not asked for."""


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


@lru_cache(maxsize=1024)  # an agent asks at every step of an episode
def near_digest(room: str, goal: str) -> int:
    """64-bit hash of a room and a goal in its normal form."""
    return digest(f"{room}\n{normalise_goal(goal)}")


def may_be_shown(catalog: Catalog, viewer: Viewer, ordinals: Numbers) -> NDArray[np.bool_]:
    """The firewall: which of these entries the viewer may see, shape (len(ordinals),)."""
    shown = catalog.column("flags")[ordinals] & IN_TRAIN > 0
    shown &= catalog.column("task")[ordinals] != np.uint64(digest(viewer.identity))
    shown &= catalog.column("near")[ordinals] != np.uint64(near_digest(viewer.room, viewer.goal))
    if viewer.purpose is Purpose.EVALUATE:
        shown &= catalog.column("split")[ordinals] != np.uint64(digest(viewer.split))
    return np.asarray(shown, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Library:
    """What is searched, as of a log position."""

    catalog: Catalog
    spaces: Mapping[str, KeySpace]
    position: int
    meta: Callable[[int], EntryMeta]
    """What is known of the entry with an ordinal."""
    identify: Callable[[Numbers], list[str]]
    """Ids of entries."""
    find: Callable[[str], int | None]
    """Ordinal of an id."""
    useful: Callable[[Numbers], NDArray[np.float64]]
    """Usefulness of entries."""
    readable: Callable[[int], bool]
    """Whether the record of an entry is intact; looked at once."""
    gone: Callable[[Numbers], NDArray[np.bool_]]
    """Which entries were deleted by then, or are known to be damaged."""


def retrieve(query: Query, vector: Vectors, viewer: Viewer, library: Library) -> list[Hit]:
    """The best ``query.k`` entries that the viewer may see and the query wants, best first.

    Candidates are taken from the index, as many more than needed as the filters make necessary; if too few of them are left,
    more still; if that is not enough either, every entry that passes the filters is compared. So there are k hits whenever k
    entries qualify. Ties are broken by task, see :meth:`Catalog.break_ties`; they are never cut in half.

    Args:
        query: what is looked for.
        vector: of the query, shape (dimension,).
        viewer: who asks.
        library: what is searched.
    """
    if not isinstance(viewer, Viewer):
        raise ValueError(f"search needs a Viewer that says who asks, not {viewer!r}: use Viewer.of(task, purpose)")
    missing = [key for key in query.keys if key not in library.spaces]
    if missing:
        raise ValueError(
            f"this memory has no key {', '.join(missing)}: open it once with mode='w' and keys=(..., {missing[0]!r})"
        )
    wanted = Filter.of(query.successes_only, query.only)
    stop = library.catalog.count_before(library.position)
    if query.k == 0 or stop == 0:
        return []
    mask, matching = library.catalog.matching(wanted, stop)
    pool = max(LEAST_POOL, POOL * query.k) if query.ranked else query.k
    least = 32 + 4 * pool
    count = max(least, round(1.5 * pool * stop / max(1, matching)))
    widths = [min(count, stop), min(8 * count, stop), stop]
    if stop > space.EXACT_LIMIT and (count > WIDEST or matching <= 2 * count):
        widths = [stop]  # comparing all that match costs less than a graph that mostly proposes others
    for wide in widths:
        among = np.flatnonzero(mask) if wide == stop > space.EXACT_LIMIT and 2 * matching < stop else None
        ordinals, scores, keys, exact, floor = _candidates(query, vector, library, wide, stop, among)
        order = library.catalog.break_ties(ordinals, scores)
        ordinals, scores, keys = ordinals[order], scores[order], keys[order]
        found, finished = _qualify(query, wanted, viewer, library, ordinals, scores, pool)
        # Others may be as close as the last one, unless all of them were looked at.
        least_found = float(scores[found[-1].rank]) if len(found) == pool else query.min_score
        if (finished and least_found is not None and least_found > floor) or wide == stop:
            break
    hits = _hits(query, library, found, ordinals, scores, keys, exact)
    # What cannot be read is no hit. It is known as broken from now on.
    return retrieve(query, vector, viewer, library) if hits is None else hits


def _candidates(
    query: Query, vector: Vectors, library: Library, count: int, stop: int, among: Numbers | None
) -> tuple[Numbers, Vectors, NDArray[np.int8], bool, float]:
    """Candidates of all keys that are asked: ordinals, the best score of each, by which key, whether all were compared, and a
    score that none of the others exceeds by any key."""
    sequences = library.catalog.sequences[:stop]
    parts = [library.spaces[key].candidates(vector, count, sequences, among) for key in query.keys]
    floor = max((float(part[1].min()) for part in parts if len(part[1])), default=-np.inf)
    if len(parts) == 1:
        ordinals, scores, exact = parts[0]
        return ordinals, scores, np.zeros(len(ordinals), dtype=np.int8), exact, floor
    ordinals = np.concatenate([part[0] for part in parts])
    scores = np.concatenate([part[1] for part in parts])
    keys = np.concatenate([np.full(len(part[0]), i, dtype=np.int8) for i, part in enumerate(parts)])
    order = np.lexsort((keys, -scores, ordinals))
    first = order[np.flatnonzero(np.diff(ordinals[order], prepend=-1))]
    return ordinals[first], scores[first], keys[first], all(part[2] for part in parts), floor


class _Qualified(NamedTuple):
    """A candidate that may be shown and is wanted."""

    rank: int
    firewalled: int
    filtered: int


def _qualify(
    query: Query, filter: Filter, viewer: Viewer, library: Library, ordinals: Numbers, scores: Vectors, count: int
) -> tuple[list[_Qualified], bool]:
    """The first `count` that qualify among candidates in descending order, and whether no further one could change them."""
    enough = False
    if query.min_score is not None:
        close = int(np.count_nonzero(scores >= query.min_score))
        enough = close < len(ordinals)
        ordinals, scores = ordinals[:close], scores[:close]
    shown = may_be_shown(library.catalog, viewer, ordinals)
    wanted = library.catalog.wanted(filter, ordinals) & ~library.gone(ordinals)
    if query.exclude:
        unwanted = [ordinal for ordinal in map(library.find, query.exclude) if ordinal is not None]
        wanted &= ~np.isin(ordinals, np.array(unwanted, dtype=np.int64))
    kept_back, unwanted_there = np.cumsum(~shown), np.cumsum(shown & ~wanted)
    refused = 0
    found: list[_Qualified] = []
    for rank in np.flatnonzero(shown & wanted).tolist():
        if query.where is not None and not query.where(library.meta(int(ordinals[rank]))):
            refused += 1
            continue
        found.append(_Qualified(rank, int(kept_back[rank]), int(unwanted_there[rank]) + refused))
        if len(found) == count:
            return found, True
    return found, enough


def _hits(
    query: Query,
    library: Library,
    found: list[_Qualified],
    ordinals: Numbers,
    scores: Vectors,
    keys: NDArray[np.int8],
    exact: bool,
) -> list[Hit] | None:
    """Hits from those that qualify, best first: by similarity, or by all that the query weighs. None if one is damaged."""
    if not found:
        return []
    ranks = np.array([one.rank for one in found], dtype=np.int64)
    useful = length = np.zeros(len(found))
    vectors: Vectors = np.empty((len(found), 0), dtype=np.float32)
    if query.usefulness:
        useful = query.usefulness * library.useful(ordinals[ranks])
    if query.brevity:
        length = query.brevity * np.log2(np.maximum(1, library.catalog.column("steps")[ordinals[ranks]]))
    if query.diversity:
        vectors = library.spaces[query.keys[0]].vectors_of(library.catalog.sequences[ordinals[ranks]])
    chosen = (
        choose(scores[ranks], useful - length, vectors, query.k, query.diversity)
        if query.ranked
        else [(i, float(scores[one.rank]), 0.0) for i, one in enumerate(found)]
    )
    hits = []
    picked = ordinals[[found[i].rank for i, _, _ in chosen]]
    if not all(map(library.readable, picked.tolist())):
        return None
    positions = library.catalog.sequences[picked].tolist()
    for (i, score, redundancy), name, position in zip(chosen, library.identify(picked), positions, strict=True):
        one = found[i]
        why = Why(
            similarity=float(scores[one.rank]),
            considered=one.rank + 1,
            firewalled=one.firewalled,
            filtered=one.filtered,
            exact=exact,
            key=query.keys[int(keys[one.rank])],
            usefulness=float(useful[i]),
            length=float(length[i]),
            redundancy=redundancy,
        )
        hits.append(Hit(name, score, position, why))
    return hits
