"""From records of the log to rows of the catalog."""

from collections.abc import Callable, Sequence

import numpy as np

from memory import codec
from memory.catalog import GAP, IN_TRAIN, LONG, NOBODY, ROW, SECOND, SUCCESS, TRAIN, UNREADABLE
from memory.codec import digest
from memory.episode import StopReason
from memory.fields import CodecError
from memory.log import Damage, Kind, Place, Record
from memory.retrieve import near_digest
from memory.rows import Rows

CREDIT = Kind.USEFULNESS
TEXT_BYTES = ROW["text"].itemsize
REASONS = tuple(StopReason)


class Ingest:
    """Makes rows.

    Args:
        sequence_of: sequence number of the episode with an id; None if there is none.
    """

    def __init__(self, sequence_of: Callable[[str], int | None]) -> None:
        self._sequence_of = sequence_of

    def rows(self, records: Sequence[Record]) -> tuple[Rows, list[Damage]]:
        """Rows of these records, and which of them are intact but mean nothing to this program."""
        made: list[Rows] = []
        damage: list[Damage] = []
        new: dict[str, int] = {}

        def target(episode: str) -> int:
            found = new.get(episode)
            found = self._sequence_of(episode) if found is None else found
            return NOBODY if found is None else found

        for record in records:
            try:
                if record.kind == Kind.EPISODE:
                    head = codec.decode_head(record.payload)
                    taken = head.id in new or self._sequence_of(head.id) is not None
                    if taken:
                        damage.append(_damage(record.place, f"a second episode {head.id!r}, left out"))
                    else:
                        new[head.id] = record.place.sequence
                    made += [episode_row(record.place, head, second=taken)]
                    made += [_credit(record.place, head, target(shown)) for shown in head.shown if not taken]
                else:
                    made += _others(record, target)
            except CodecError as error:
                # Intact on disk but not for this program: named, and no reason to refuse all the others.
                damage.append(_damage(record.place, str(error)))
                made.append(gap_row(damage[-1], record.place))
        return np.concatenate(made) if made else np.empty(0, dtype=ROW), damage


def episode_row(place: Place, head: codec.Head, *, second: bool = False) -> Rows:
    """The row of an episode, shape (1,)."""
    row = _at(place, Kind.EPISODE)
    task, name = head.task, head.id.encode(errors="surrogatepass")
    fits = len(name) <= TEXT_BYTES and not name.endswith(b"\0")
    row["flags"] = (
        SUCCESS * head.outcome.success | IN_TRAIN * (task.split == TRAIN) | SECOND * second | LONG * (not fits)
    )
    row["id"], row["text"] = digest(head.id), name if fits else b""
    row["task"], row["near"], row["actions"] = digest(task.identity), near_digest(task.room, task.goal), head.actions
    row["suite"], row["type"], row["split"] = digest(task.suite), digest(task.type), digest(task.split)
    row["policy"], row["adapter"] = digest(head.actor.policy), digest(head.actor.adapter)
    row["value"], row["time"], row["steps"] = head.outcome.score, head.started, head.step_count
    row["reason"] = REASONS.index(head.outcome.reason)
    return row


def gap_row(damage: Damage, place: Place | None = None) -> Rows:
    """A row that remembers damage, shape (1,): of bytes that are no record, or of the record at `place`."""
    segment = int(damage.file.removeprefix("log/").split(".")[0])
    row = _at(place or Place(0, segment, damage.offset, damage.length, 0), UNREADABLE if place else GAP)
    row["text"] = damage.detail.encode()[:TEXT_BYTES]
    return row


def _at(place: Place, kind: int) -> Rows:
    row = np.zeros(1, dtype=ROW)
    row["sequence"], row["segment"], row["offset"], row["length"] = (
        place.sequence, place.segment, place.offset, place.length,
    )  # fmt: skip
    row["checksum"], row["generation"], row["kind"], row["target"] = place.checksum, place.generation, kind, NOBODY
    return row


def _credit(place: Place, head: codec.Head, target: int) -> Rows:
    """That an episode had another one in context."""
    row = _at(place, CREDIT)
    row["target"], row["flags"] = target, SUCCESS * head.outcome.success
    row["task"], row["type"], row["policy"] = (
        digest(head.task.identity),
        digest(head.task.type),
        digest(head.actor.policy),
    )
    return row


def _others(record: Record, target: Callable[[str], int]) -> list[Rows]:
    row = _at(record.place, record.kind)
    if record.kind == Kind.RATING:
        rating = codec.decode_rating(record.payload)
        name = rating.name.encode(errors="surrogatepass")
        fits = len(name) <= TEXT_BYTES and not name.endswith(b"\0")
        row["target"], row["value"], row["time"] = target(rating.episode), rating.value, rating.time
        row["text"], row["flags"] = (name, 0) if fits else (b"", LONG)
    elif record.kind == Kind.NOTE:
        note = codec.decode_note(record.payload)
        row["target"], row["time"] = target(note.episode), note.time
    elif record.kind == Kind.DELETE:
        deletion = codec.decode_deletion(record.payload)
        row["target"], row["time"] = target(deletion.episode), deletion.time
    elif record.kind == CREDIT:
        credit = codec.decode_credit(record.payload)
        row["flags"], row["time"] = SUCCESS * credit.success, credit.time
        row["task"], row["type"], row["policy"] = digest(credit.task), digest(credit.type), digest(credit.policy)
        rows = [row.copy() for _ in credit.shown] or [row]
        for one, shown in zip(rows, credit.shown, strict=False):
            one["target"] = target(shown)
        return rows
    return [row]


def _damage(place: Place, detail: str) -> Damage:
    return Damage(f"log/{place.segment:016d}.log", place.offset, place.length, f"record {place.sequence}: {detail}")
