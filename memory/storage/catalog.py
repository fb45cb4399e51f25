"""What is known of every record of the log without reading it: one fixed row per record, in a file
that is mapped.

Texts that are only compared (task, room and goal, type, …) are kept as 64-bit hashes, so rows have
one size, the holdout and the filters are arithmetic on columns, and opening a memory of a hundred
thousand episodes takes milliseconds. The file is a cache of the log; what it says of the log's end
is checked against the log when a memory is opened.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..episode import StopReason
from .codec import digest
from .durable import Corruption
from .rows import Numbers, RowFile, Rows
from .segments import LIMIT, Kind, RecordLocation

MAGIC = b"RELIVECT"
FORMAT = 3
"""Format number of catalogs, written and read; one of format 1 (other normal forms of room, goal
and identity) or 2 (nothing of restored episodes and removed ratings) is made again."""
NEVER = np.iinfo(np.int64).max
"""Log position at which what is alive is deleted."""
NO_TARGET = 2**64 - 1
"""Target of a row that is about no episode."""

SUCCESS, DUPLICATE_ID, LONG, RATED, MARKED = 1, 4, 8, 16, 32
"""Flags: the goal was reached; a second episode of the same id, left out; the text did not fit; the
episode itself holds ratings; one of these is that it is unsafe."""
UNREADABLE, GAP = 254, 255
"""Kinds of rows that remember damage, so that later openings say so, too: a record that is intact
and means nothing to this program; bytes of a segment that are no record (such a row has no sequence
number)."""

ROW = np.dtype(
    [
        ("sum", "<u8"),
        ("sequence", "<u8"),
        ("segment", "<u8"),
        ("offset", "<u4"),
        ("length", "<u4"),
        ("checksum", "<u4"),
        ("generation", "<u2"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("id", "<u8"),
        ("target", "<u8"),
        ("task", "<u8"),
        ("near", "<u8"),
        ("actions", "<u8"),
        ("suite", "<u8"),
        ("type", "<u8"),
        ("split", "<u8"),
        ("policy", "<u8"),
        ("adapter", "<u8"),
        ("value", "<f8"),
        ("time", "<f8"),
        ("steps", "<u4"),
        ("reason", "u1"),
        ("unused", "V3"),
        ("text", "S48"),
    ]
)
"""A row. `id`, `task`, `near`, `actions` and the five after them are hashes. `target` is the
sequence number of the episode that a rating, a note, a deletion, what takes these back, or a credit
is about. `value` is an episode's score or a rating's number, `text` an episode's id or a rating's
name, where it fits."""
FIELDS = ("suite", "type", "split", "policy", "adapter")
"""What entries can be filtered by."""
REASONS = tuple(StopReason)
"""What the number in the field `reason` means."""
_EPISODE = int(Kind.EPISODE)  # numpy compares with a member of an enumeration five times as slowly
_HOT = {
    "sequence": np.int64,
    "task": np.uint64,
    "near": np.uint64,
    "split": np.uint64,
    "flags": np.uint8,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted, as far as columns can tell."""

    successes_only: bool = False
    only: tuple[tuple[str, frozenset[str]], ...] = ()
    """Pairs of a field of :data:`FIELDS` and the values it may have."""
    not_reasons: frozenset[StopReason] = frozenset()

    @classmethod
    def of(
        cls,
        successes_only: bool,
        only: Mapping[str, Collection[str]],
        not_reasons: Collection[StopReason] = (),
    ) -> "Filter":
        """From a mapping of field to values; raises ``ValueError`` for a field that there is
        not."""
        for name, values in only.items():
            if name not in FIELDS:
                raise ValueError(
                    f"entries cannot be filtered by {name!r}; use one of {', '.join(FIELDS)}, or "
                    "where="
                )
            if isinstance(values, str):
                raise ValueError(
                    f"the values of {name!r} must be a collection of texts, not the text {values!r}"
                )
        pairs = tuple((name, frozenset(only[name])) for name in sorted(only))
        return cls(successes_only, pairs, frozenset(not_reasons))

    def within(self, splits: frozenset[str] | None) -> "Filter":
        """The same, and only of these splits (None: of any)."""
        return self if splits is None else replace(self, only=(*self.only, ("split", splits)))


class Catalog:
    """Rows of all records, and the episodes among them by ordinal: their order in the log, deleted
    ones included.

    Not thread-safe.
    """

    def __init__(self, path: Path, *, memory: bytes, writable: bool) -> None:
        self.file = RowFile(
            path, magic=MAGIC, number=FORMAT, dtype=ROW, memory=memory, tag="", writable=writable
        )  # fmt: skip
        self._clear()

    def _clear(self) -> None:
        self._numbers: Numbers = np.empty(0, dtype=np.int64)  # row of each episode
        self._columns: dict[str, NDArray[Any]] = {}
        self._deleted: Numbers = np.empty(0, dtype=np.int64)
        # Ordinals that were restored, with the log positions of deletion and restoration.
        self._restored: list[tuple[int, int, int]] = []
        self.marked: set[int] = set()
        """Sequence numbers of the episodes that hold a rating :data:`MARKED` of their own."""
        self._count = 0
        self._order: Numbers | None = None  # ordinals by hash of id, of the first so many episodes
        self._recent: dict[int, list[int]] = {}
        self._masks: dict[Filter, tuple[NDArray[np.bool_], int]] = {}
        self._by_task: Numbers = np.empty(0, dtype=np.int64)
        self._others: dict[
            int, list[tuple[int, int]]
        ] = {}  # by kind, row and target: ratings, notes, credits
        self.alive = 0
        """Episodes that were not deleted."""

    def __len__(self) -> int:
        return self._count

    def load(self) -> RecordLocation | None:
        """Take in the file as far as its rows are valid; the place of the last record in it."""
        count = self.file.load()
        valid = self.file.valid(0, count)
        valid &= np.concatenate(
            [part["sequence"] < LIMIT for part in self.file.parts(0, count)] or [valid]
        )
        good = count if valid.all() else int(np.argmin(valid))
        if good < count:
            lost = (
                f"rows from {good} on do not agree with their checksums; they are made again "
                "from the log"
            )
            self.file.note(self.file.offset(good), (count - good) * ROW.itemsize, lost)
        good = self._complete(good)
        self.file.keep(good)
        self._clear()
        last = None
        for part in self.file.parts(0, good):
            self._take(part, 0)
            records = np.flatnonzero(part["kind"] != GAP)
            last = self.place_of_row(int(records[-1])) if len(records) else None
        return last

    def _complete(self, count: int) -> int:
        """Without the rows of the last record: it may have more of them than were written, and is
        taken in again."""
        ends = self.file.take(np.arange(max(0, count - 1), count))
        while count and ends[0]["kind"] != GAP:
            (row,) = self.file.take(np.arange(count - 1, count))
            if row["kind"] == GAP or row["sequence"] != ends[0]["sequence"]:
                break
            count -= 1
        return count

    def fits(self, generations: Mapping[int, int]) -> bool:
        """Whether the rows were made from these generations of the log's segments."""
        return all(generations.get(first) == number for first, number in self._generations())

    def is_behind(self, generations: Mapping[int, int]) -> bool:
        """Whether some were made from earlier generations: a compaction came after them."""
        return any(generations.get(first, -1) > number for first, number in self._generations())

    def _generations(self) -> Iterator[tuple[int, int]]:
        """The segments of the rows and their generations, each pair at least once."""
        for part in self.file.parts(0, len(self.file)):
            records = part["kind"] != GAP
            segment, generation = part["segment"][records], part["generation"][records]
            begins = np.flatnonzero(np.diff(segment, prepend=segment[:1] + np.uint64(1)))
            yield from zip(segment[begins].tolist(), generation[begins].tolist(), strict=True)

    def forget(self) -> None:
        """Start again with nothing."""
        self.file.keep(0)
        self._clear()

    def place_of_row(self, number: int) -> RecordLocation:
        """Where the record of a row lies."""
        return self.place_of(self.file.take(np.array([number]))[0])

    def place_of(self, row: np.void) -> RecordLocation:
        """The same, of a row at hand."""
        return RecordLocation(
            *(
                int(row[n])
                for n in ("sequence", "segment", "offset", "length", "checksum", "generation")
            )
        )

    def place(self, ordinal: int) -> RecordLocation:
        """Where an episode lies."""
        return self.place_of_row(int(self._numbers[ordinal]))

    def append(self, rows: Rows) -> None:
        """Take in rows and write them."""
        start = len(self.file)
        self.file.append(rows)
        self._take(rows, start)

    def _take(self, rows: Rows, start: int) -> None:
        """Keep what is needed at hand of rows that begin at number `start`."""
        kinds, flags = rows["kind"], rows["flags"]
        episodes = kinds == _EPISODE
        (here,) = (episodes & (flags & DUPLICATE_ID == 0)).nonzero()
        old, count = self._count, self._count + len(here)
        self._numbers = _grown(self._numbers, old, start + here)
        self._deleted = _grown(self._deleted, old, np.full(len(here), NEVER))
        for name in {*_HOT, *self._columns}:
            if name not in self._columns:
                self._columns[name] = np.empty(0, dtype=_HOT[name])
            self._columns[name] = _grown(self._columns[name], old, rows[name][here])
        if self._order is not None:
            for ordinal, hashed in enumerate(rows["id"][here].tolist(), start=old):
                self._recent.setdefault(hashed, []).append(ordinal)
        self._count, self.alive = count, self.alive + len(here)
        marked = here[(flags[here] & MARKED).nonzero()]
        if len(marked):
            self.marked.update(rows["sequence"][marked].tolist())
        for number in (~episodes & (kinds != GAP)).nonzero()[0].tolist():
            kind, target = int(kinds[number]), int(rows["target"][number])
            if kind == Kind.DELETE:
                self._delete(target, int(rows["sequence"][number]))
            elif kind == Kind.RESTORE:
                self._restore(target, int(rows["sequence"][number]))
            self._others.setdefault(kind, []).append((start + number, target))

    def _delete(self, target: int, position: int) -> None:
        ordinal = self.ordinal_at(target)
        if ordinal is not None and self._deleted[ordinal] == NEVER:
            self._deleted[ordinal] = position
            self.alive -= 1

    def _restore(self, target: int, position: int) -> None:
        ordinal = self.ordinal_at(target)
        if ordinal is not None and self._deleted[ordinal] != NEVER:
            self._restored.append((ordinal, int(self._deleted[ordinal]), position))
            self._deleted[ordinal] = NEVER
            self.alive += 1

    def column(self, name: str) -> NDArray[Any]:
        """A field of all episodes, shape (len(self),)."""
        if name not in self._columns:
            parts = [part[name] for part in self.file.parts(0, len(self.file))]
            everything = np.concatenate(parts) if parts else np.empty(0, dtype=ROW[name])
            self._columns[name] = everything[self._numbers[: self._count]]
        return self._columns[name][: self._count]

    @property
    def sequences(self) -> Numbers:
        """Sequence number of each episode, ascending."""
        return self.column("sequence")

    def ordinal_at(self, sequence: int) -> int | None:
        """The episode with that sequence number."""
        ordinal = (
            int(np.searchsorted(self.sequences, sequence)) if sequence < NEVER else self._count
        )
        return ordinal if ordinal < self._count and self.sequences[ordinal] == sequence else None

    def ordinals_with(self, hashed: int) -> list[int]:
        """Episodes whose id has that hash, deleted ones included; nearly always none or one."""
        if self._order is None:
            self._order = np.argsort(self.column("id"), kind="stable")
        ids = self.column("id")
        low = int(np.searchsorted(ids[: len(self._order)], np.uint64(hashed), sorter=self._order))
        found = []
        while low < len(self._order) and ids[self._order[low]] == hashed:
            found.append(int(self._order[low]))
            low += 1
        return found + self._recent.get(hashed, [])

    def ids_of(self, ordinals: Numbers) -> list[str | None]:
        """Ids of episodes; None where one is too long for its row and has to be read from the
        log."""
        rows = self.file.take(self._numbers[ordinals])
        return [
            None if flags & LONG else text.decode(errors="surrogatepass")
            for text, flags in zip(rows["text"].tolist(), rows["flags"].tolist(), strict=True)
        ]

    def deleted(self, ordinals: Numbers, position: int) -> NDArray[np.bool_]:
        """Which of these episodes were deleted before a log position, and not restored by then."""
        gone = np.asarray(self._deleted[: self._count][ordinals] < position)
        between = [one for one, since, until in self._restored if since < position <= until]
        return gone | np.isin(ordinals, between) if between else gone

    def delete_positions(self) -> Numbers:
        """Log position at which each episode was deleted, :data:`NEVER` if it was not or was
        restored; shape (len(self),)."""
        return self._deleted[: self._count]

    def others(self, kind: int) -> Sequence[tuple[int, int]]:
        """Rows of a kind other than episodes: (row number, target), in the order of the log."""
        return self._others.get(kind, [])

    def rows(self, numbers: Sequence[int]) -> Rows:
        """Rows, copied."""
        return self.file.take(np.array(numbers, dtype=np.int64))

    def gaps(self) -> list[Corruption]:
        """What could not be read of the log when its records were taken in."""
        found = []
        for part in self.file.parts(0, len(self.file)):
            for row in part[part["kind"] >= UNREADABLE]:
                name = f"log/{int(row['segment']):016d}.log"
                detail = bytes(row["text"]).decode(errors="replace")
                found.append(Corruption(name, int(row["offset"]), int(row["length"]), detail))
        return found

    def count_before(self, position: int) -> int:
        """Number of episodes before a log position."""
        return int(np.searchsorted(self.sequences, position))

    def break_ties(self, ordinals: Numbers, scores: NDArray[np.float32], same: int) -> Numbers:
        """The order in which candidates rank: by score, then those that `same` is the hash of, then
        by a hash of the task, then oldest first.

        Not by log order alone: that is the order in which episodes ended, which depends on what ran
        beside them.

        Args:
            ordinals: the candidates, shape (n,).
            scores: theirs, shape (n,).
            same: hash of a room and a goal. An embedder may not tell two goals apart (by the
                numbers in them, for example), and the one that was asked for is to come first.
        """
        other = self.column("near")[ordinals] != np.uint64(same)
        task = self.column("task")[ordinals].view(np.int64)
        return np.lexsort((ordinals, task, other, -scores))

    def by_task(self, stop: int) -> Numbers:
        """The first `stop` ordinals in an order that does not depend on which episode ended first:
        by a hash of the task, then oldest first."""
        found = self._by_task
        if len(found) != stop:
            task = self.column("task")[:stop].view(np.int64)
            found = self._by_task = np.lexsort((np.arange(stop), task))
        return found

    def matching(self, wanted: Filter, stop: int) -> tuple[NDArray[np.bool_], int]:
        """Which of the first `stop` episodes a filter keeps, and how many of all they are.

        Deleted ones are not told apart: when they were deleted matters to who asks at an older
        position.
        """
        mask, count = self._masks.get(wanted, (np.empty(0, dtype=np.bool_), 0))
        if len(mask) < self._count:
            more = self.wanted(wanted, np.arange(len(mask), self._count))
            mask, count = np.concatenate([mask, more]), count + int(np.count_nonzero(more))
            if len(self._masks) > 64:
                self._masks.clear()
            self._masks[wanted] = (mask, count)
        return mask[:stop], count

    def filtered_by(self, sequences: Numbers) -> dict[str, NDArray[Any]]:
        """What filters look at, of episodes by their sequence numbers: :data:`FIELDS`, ``reason``
        and ``success``, each of shape (len(sequences),)."""
        ordinals = np.searchsorted(self.sequences, sequences)
        told = {name: self.column(name)[ordinals] for name in (*FIELDS, "reason")}
        return told | {"success": self._columns["flags"][ordinals] & SUCCESS > 0}

    def wanted(self, filter: Filter, ordinals: Numbers) -> NDArray[np.bool_]:
        """Which of these episodes a filter keeps, shape (len(ordinals),)."""
        kept = np.ones(len(ordinals), dtype=np.bool_)
        if filter.successes_only:
            kept &= self._columns["flags"][ordinals] & SUCCESS > 0
        for name, values in filter.only:
            hashes = np.array([digest(value) for value in values], dtype=np.uint64)
            kept &= np.isin(self.column(name)[ordinals], hashes)
        for reason in filter.not_reasons:
            kept &= self.column("reason")[ordinals] != REASONS.index(reason)
        return kept


def _grown(array: NDArray[Any], used: int, more: NDArray[Any]) -> NDArray[Any]:
    """The array with `more` behind its first `used` items; grown by doubling."""
    if used + len(more) > len(array):
        grown = np.empty(max(64, used + len(more), 2 * used if used else 0), dtype=array.dtype)
        grown[:used] = array[:used]
        array = grown
    array[used : used + len(more)] = more
    return array
