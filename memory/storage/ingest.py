"""From records of the log to rows of the catalog."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from ..normal import normal_goal, normal_text
from . import annotations, codec
from .catalog import (
    DUPLICATE_ID,
    GAP,
    LONG,
    MARKED,
    NO_TARGET,
    RATED,
    REASONS,
    ROW,
    SUCCESS,
    UNREADABLE,
)
from .codec import digest
from .durable import Corruption
from .payload import CodecError
from .rows import Rows
from .segments import Kind, Record, RecordLocation

CREDIT = Kind.USEFULNESS
TEXT_BYTES = ROW["text"].itemsize

_Row = tuple[int | float | bytes, ...]
_EMPTY: dict[str, int | float | bytes] = {
    name: b""
    if name == "text"
    else b"\0\0\0"
    if name == "unused"
    else NO_TARGET
    if name == "target"
    else 0
    for name in ROW.names or ()
}
_label = lru_cache(maxsize=1024)(digest)  # of texts that many episodes share


@lru_cache(
    maxsize=1024
)  # an agent asks at every step, and every episode of a task is stored under it
def task_digest(identity: str) -> int:
    """64-bit hash of a task's identity in its normal form."""
    return digest(normal_text(identity))


@lru_cache(maxsize=1024)  # an agent asks at every step of an episode
def near_digest(room: str, goal: str) -> int:
    """64-bit hash of a room and a goal in their normal forms."""
    return digest(f"{normal_text(room)}\n{normal_goal(goal)}")


def _row(place: RecordLocation, kind: int, **fields: int | float | bytes) -> _Row:
    sequence, segment, offset, length, checksum, generation = place
    at = {
        "sequence": sequence,
        "segment": segment,
        "offset": offset,
        "length": length,
        "checksum": checksum,
    }
    return tuple({**_EMPTY, **at, "generation": generation, "kind": int(kind), **fields}.values())


def rows_of(
    records: Sequence[Record],
    sequence_of: Callable[[str], int | None],
    heads: Sequence[codec.Head] | None = None,
) -> tuple[Rows, list[Corruption]]:
    """Rows of these records, and which of them are intact but mean nothing to this program.

    Args:
        records: in the order of the log.
        sequence_of: sequence number of the episode with an id; None if there is none.
        heads: of the episodes among the records, where they are known already.
    """
    made: list[_Row] = []
    damage: list[Corruption] = []
    new: dict[str, int] = {}
    known = iter(heads) if heads is not None else None

    def target(episode: str) -> int:
        found = new.get(episode)
        found = sequence_of(episode) if found is None else found
        return NO_TARGET if found is None else found

    for record in records:
        try:
            if record.kind == Kind.EPISODE:
                head = next(known) if known is not None else codec.check_episode(record.payload)
                # What was checked before it was written need not be looked up again.
                taken = known is None and (head.id in new or sequence_of(head.id) is not None)
                if taken:
                    damage.append(_damage(record.place, f"a second episode {head.id!r}, left out"))
                else:
                    new[head.id] = record.place.sequence
                made.append(_episode(record.place, head, second=taken))
                made += [
                    _credit(record.place, head, target(shown)) for shown in head.shown if not taken
                ]
            else:
                made += _others(record, target)
        except CodecError as error:
            # Intact on disk but not for this program: named, and no reason to refuse all the
            # others.
            damage.append(_damage(record.place, str(error)))
            made.append(_row(record.place, UNREADABLE, text=_cut(damage[-1].detail)))
    return np.array(made, dtype=ROW), damage


def gap_row(damage: Corruption) -> Rows:
    """A row that remembers damage to bytes that are no record, shape (1,)."""
    segment = int(damage.file.removeprefix("log/").split(".")[0])
    place = RecordLocation(0, segment, damage.offset, damage.length, 0)
    return np.array([_row(place, GAP, text=_cut(damage.detail))], dtype=ROW)


def _cut(detail: str) -> bytes:
    return detail.encode(errors="backslashreplace")[:TEXT_BYTES]


def _text(text: str) -> tuple[bytes, int]:
    """A text as it is kept in a row, and the flag that says that it does not fit."""
    name = text.encode(errors="surrogatepass")
    return (name, 0) if len(name) <= TEXT_BYTES and not name.endswith(b"\0") else (b"", LONG)


def _episode(place: RecordLocation, head: codec.Head, *, second: bool = False) -> _Row:
    task, (name, long) = head.task, _text(head.id)
    return _row(
        place,
        Kind.EPISODE,
        flags=SUCCESS * head.outcome.success | DUPLICATE_ID * second | long | _rated(head),
        id=digest(head.id),
        text=name,
        task=task_digest(task.identity),
        near=near_digest(task.room, task.goal),
        actions=head.actions,
        suite=_label(task.suite),
        type=_label(task.type),
        split=_label(task.split),
        policy=_label(head.actor.policy),
        adapter=_label(head.actor.adapter),
        value=head.outcome.score,
        time=head.started,
        steps=head.step_count,
        reason=REASONS.index(head.outcome.reason),
    )


def _credit(place: RecordLocation, head: codec.Head, target: int) -> _Row:
    """That an episode had another one in context."""
    return _row(
        place,
        CREDIT,
        target=target,
        flags=SUCCESS * head.outcome.success,
        task=task_digest(head.task.identity),
        type=_label(head.task.type),
        policy=_label(head.actor.policy),
    )


def _rated(head: codec.Head) -> int:
    """The flags that say what the ratings are that an episode holds itself."""
    if not head.ratings:
        return 0
    return RATED | MARKED * (head.ratings.get(annotations.UNSAFE, 0.0) > 0)


def _others(record: Record, target: Callable[[str], int]) -> list[_Row]:
    place, kind = record.place, record.kind
    if kind == Kind.RATING:
        rating = annotations.decode_rating(record.payload)
        name, long = _text(rating.name)
        about = target(rating.episode)
        return [
            _row(
                place,
                kind,
                target=about,
                value=rating.value,
                time=rating.time,
                text=name,
                flags=long,
            )
        ]
    if kind == Kind.NOTE:
        note = annotations.decode_note(record.payload)
        return [_row(place, kind, target=target(note.episode), time=note.time)]
    if kind == Kind.DELETE:
        deletion = annotations.decode_deletion(record.payload)
        return [_row(place, kind, target=target(deletion.episode), time=deletion.time)]
    if kind == Kind.RESTORE:
        restoration = annotations.decode_restoration(record.payload)
        return [_row(place, kind, target=target(restoration.episode), time=restoration.time)]
    if kind == Kind.UNRATE:
        removal = annotations.decode_removal(record.payload)
        name, long = _text(removal.name)
        about = target(removal.episode)
        return [_row(place, kind, target=about, time=removal.time, text=name, flags=long)]
    if kind == CREDIT:
        credit = annotations.decode_credit(record.payload)
        return [
            _row(
                place,
                kind,
                target=about,
                flags=SUCCESS * credit.success,
                time=credit.time,
                task=task_digest(credit.task),
                type=_label(credit.type),
                policy=_label(credit.policy),
            )
            for about in ([target(shown) for shown in credit.shown] or [NO_TARGET])
        ]
    if kind >= UNREADABLE:
        raise CodecError(f"of kind {kind}, which no record has")
    return [_row(place, kind)]


def _damage(place: RecordLocation, detail: str) -> Corruption:
    return Corruption(
        f"log/{place.segment:016d}.log",
        place.offset,
        place.length,
        f"record {place.sequence}: {detail}",
    )
