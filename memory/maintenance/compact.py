"""Compaction: a log without what was deleted.

Segment by segment, oldest first, a new generation is written beside the old file, synced and named;
then the columns lose their rows, the catalog is made again, and the old files go last. Killed in
between, the next writer finds the newest generation of each segment and a catalog that does not
fit, and reads the log. While it finds old files, too, that is no damage, and it deletes them once
its caches fit. Sequence numbers stay, so log positions stay. An episode's record always lies before
its deletion, so what is half done never brings anything back.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from ..search.vectors import WINDOW_BITS
from ..state import State
from ..storage import annotations, codec
from ..storage.catalog import DUPLICATE_ID, GAP, LONG, NEVER, NO_TARGET
from ..storage.durable import Corruption, replace_file
from ..storage.payload import CodecError
from ..storage.rows import Rows
from ..storage.segments import (
    FRAME_BYTES,
    MOST_GENERATIONS,
    Kind,
    compacted_header,
    frame_of,
    segment_path,
    segments,
)

_ABOUT = (Kind.RATING, Kind.UNRATE, Kind.NOTE, Kind.DELETE, Kind.RESTORE)
"""Records that mean nothing without the episode that they are about."""
_STEERING = (annotations.HUMAN.encode(), annotations.UNSAFE.encode())
"""Ratings that decide what searches find: at earlier positions the earlier ones do."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did."""

    episodes: int
    """Episodes whose bytes are gone."""
    records: int
    """Records that are gone, those episodes included."""
    before: int
    """Bytes of the log."""
    after: int


def compact(state: State) -> Compaction:
    """Leave everything out of a writer's log that concerns deleted episodes. The state has to be
    loaded again afterwards.

    A run that had a memory leaves a credit behind in its place: what it taught about the usefulness
    of what it was shown, or of what it was not shown, is kept.

    Raises:
        OSError: it could not be written; nothing is lost.
        ValueError: a segment was compacted as often as can be counted; nothing was done.
    """
    before, folder = state.log.size, state.folder / "log"
    state.log.begin_segment()
    rows = _records(state)
    gone, dead = _gone(state, rows)
    if not gone:
        return Compaction(0, 0, before, before)
    generations = segments(folder)
    firsts = list(generations)
    if max(generations.values()) >= MOST_GENERATIONS:
        raise ValueError(
            f"a segment in {folder} was compacted {MOST_GENERATIONS} times, the most that its name "
            "can say: export the "
            "memory and import it into a new one"
        )
    for first, until in zip(firsts, [*firsts[1:], state.log.position], strict=True):
        here = rows[rows["segment"] == first]
        if not gone.intersection(here["sequence"].tolist()):
            continue
        data = bytearray(compacted_header(first, until, state.memory))
        for row in here:
            data += _kept(state, row, gone, dead)
        replace_file(segment_path(folder, first, generations[first] + 1), bytes(data))
    for space in state.spaces.values():
        alive = ~np.isin(space.column.labels >> WINDOW_BITS, np.array(sorted(dead), dtype=np.int64))
        space.drop(alive, state.position)
    state.catalog.file.path.unlink(missing_ok=True)
    state.log.finish_compaction()
    return Compaction(len(dead), len(gone), before, state.log.size)


def _records(state: State) -> Rows:
    """One catalog row per record: a run that was shown several episodes has several."""
    rows = np.concatenate(
        [state.catalog.rows([]), *state.catalog.file.parts(0, len(state.catalog.file))]
    )
    rows = rows[rows["kind"] != GAP]
    return np.asarray(
        rows[np.diff(rows["sequence"], prepend=rows["sequence"][:1] + np.uint64(1)) != 0]
    )


def _gone(state: State, rows: Rows) -> tuple[set[int], set[int]]:
    """Sequence numbers of the records to leave out, and of the episodes among them."""
    catalog = state.catalog
    dead = set(catalog.sequences[catalog.delete_positions() < NEVER].tolist())
    gone = set(dead)
    rated: dict[tuple[int, bytes], int] = {}
    for row in rows[(rows["kind"] != Kind.EPISODE) | (rows["flags"] & DUPLICATE_ID > 0)]:
        sequence, target, kind = int(row["sequence"]), int(row["target"]), int(row["kind"])
        about_nothing = target in dead or target == NO_TARGET
        if kind == Kind.EPISODE or (kind in _ABOUT and about_nothing):
            gone.add(sequence)
        elif kind in (Kind.RATING, Kind.UNRATE) and not row["flags"] & LONG:
            name = bytes(row["text"])
            if name in _STEERING:
                continue
            superseded = rated.get((target, name))
            if superseded is not None:
                gone.add(superseded)
            rated[target, name] = sequence
    return gone, dead


def _kept(state: State, row: np.void, gone: set[int], dead: set[int]) -> bytes:
    """What stays of a record: all of it, nothing, or of a run the credit for what it showed."""
    sequence = int(row["sequence"])
    if sequence in gone and sequence not in dead:
        return b""
    place = state.catalog.place_of(row)
    try:
        record = state.log.read_whole(place)
    except ValueError as error:
        # The last chance to name it: afterwards nothing tells that it was ever there.
        state.damage.append(
            Corruption(
                f"log/{place.segment:016d}.log", place.offset, place.length, f"{error}; left out"
            )
        )
        return b""
    if sequence not in dead:
        return record  # byte for byte, also if only a later version knows what it is
    try:
        run = codec.decode_head(record[FRAME_BYTES:])
    except CodecError:
        return b""  # it was deleted, and nobody can tell what it was shown
    if run.memory_position < 0 and not run.shown:
        return b""  # it had no memory to be shown anything of
    shown = tuple(i for i in run.shown if (s := state.sequence_of(i)) is not None and s not in dead)
    task, success = run.task, run.outcome.success
    credit = annotations.Credit(
        shown, task.identity, task.type, run.actor.policy, success, run.started
    )
    payload = annotations.encode_credit(credit)
    return frame_of(int(Kind.USEFULNESS), sequence, payload, zlib.crc32(payload))
