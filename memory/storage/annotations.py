"""What is said about episodes after they were recorded, to bytes and back: ratings, notes,
deletions, what takes ratings and deletions back, and how runs ended that had them in context. And
what of it a log holds so far.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from .catalog import LONG, Catalog
from .log import Log
from .payload import (
    MAX_ITEMS,
    VERSION,
    boolean,
    number,
    pack,
    single,
    texts,
)
from .segments import Kind
from .validate import validated

HUMAN = "human"
"""Name of the rating that steers what is shown and learnt from: what a person thinks of an episode,
from -1 (wrong) over 0 to 1 (helpful)."""
UNSAFE = "unsafe"
"""Name of the rating that keeps an episode from being shown and learnt from while it is above 0."""


@dataclass(frozen=True, slots=True)
class Rating:
    """A number that someone gave to an episode afterwards."""

    episode: str
    """Id of the episode."""
    name: str
    """What was rated, for example ``human``."""
    value: float
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Note:
    """A remark about an episode."""

    episode: str
    """Id of the episode."""
    text: str
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """An episode that is not to be found any more."""

    episode: str
    """Id of the episode."""
    reason: str
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """A deletion that is undone."""

    episode: str
    """Id of the episode."""
    reason: str
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class RatingRemoval:
    """A rating that is undone."""

    episode: str
    """Id of the episode."""
    name: str
    """Of the rating."""
    time: float
    """Unix time in seconds."""


@dataclass(frozen=True, slots=True)
class Credit:
    """How a run ended that had episodes in its context, or none: what usefulness is learned
    from."""

    shown: tuple[str, ...]
    """Ids of the episodes that were in context."""
    task: str
    """Identity of the task that was run."""
    type: str
    """Its type."""
    policy: str
    """Who ran it."""
    success: bool
    time: float
    """Unix time in seconds."""


def encode_rating(rating: Rating) -> bytes:
    """The rating as bytes; as all that follow, raises `TypeError` or `ValueError` for what cannot
    be stored."""
    rating = validated(Rating, rating, "a rating")
    fields = {"v": VERSION, "episode": rating.episode, "name": rating.name}
    return pack({**fields, "value": rating.value, "time": rating.time}, "a rating")


def decode_rating(payload: bytes) -> Rating:
    """The rating in ``payload``. Raises :class:`CodecError` as :func:`single`."""
    fields = single(payload, "a rating")
    return Rating(
        fields.text("episode"),
        fields.text("name"),
        fields.get("value", number),
        fields.get("time", number, 0.0),
    )


def encode_note(note: Note) -> bytes:
    """The note as bytes."""
    note = validated(Note, note, "a note")
    return pack(
        {"v": VERSION, "episode": note.episode, "text": note.text, "time": note.time}, "a note"
    )


def decode_note(payload: bytes) -> Note:
    """The note in ``payload``. Raises :class:`CodecError` as :func:`single`."""
    fields = single(payload, "a note")
    return Note(fields.text("episode"), fields.text("text"), fields.get("time", number, 0.0))


def encode_deletion(deletion: Deletion) -> bytes:
    """The deletion as bytes."""
    deletion = validated(Deletion, deletion, "a deletion")
    fields = {
        "v": VERSION,
        "episode": deletion.episode,
        "reason": deletion.reason,
        "time": deletion.time,
    }
    return pack(fields, "a deletion")


def decode_deletion(payload: bytes) -> Deletion:
    """The deletion in ``payload``. Raises :class:`CodecError` as :func:`single`."""
    fields = single(payload, "a deletion")
    return Deletion(
        fields.text("episode"), fields.text("reason", ""), fields.get("time", number, 0.0)
    )


def encode_restoration(restoration: Restoration) -> bytes:
    """The restoration as bytes."""
    restoration = validated(Restoration, restoration, "a restoration")
    fields = {"v": VERSION, "episode": restoration.episode, "reason": restoration.reason}
    return pack({**fields, "time": restoration.time}, "a restoration")


def decode_restoration(payload: bytes) -> Restoration:
    """The restoration in ``payload``. Raises :class:`CodecError` as :func:`single`."""
    fields = single(payload, "a restoration")
    return Restoration(
        fields.text("episode"), fields.text("reason", ""), fields.get("time", number, 0.0)
    )


def encode_removal(removal: RatingRemoval) -> bytes:
    """The removal of a rating as bytes."""
    removal = validated(RatingRemoval, removal, "the removal of a rating")
    fields = {"v": VERSION, "episode": removal.episode, "name": removal.name}
    return pack({**fields, "time": removal.time}, "the removal of a rating")


def decode_removal(payload: bytes) -> RatingRemoval:
    """The removal in ``payload``. Raises :class:`CodecError` as :func:`single`."""
    fields = single(payload, "the removal of a rating")
    return RatingRemoval(
        fields.text("episode"), fields.text("name"), fields.get("time", number, 0.0)
    )


def encode_credit(credit: Credit) -> bytes:
    """The credit as bytes."""
    credit = validated(Credit, credit, "a credit")
    if len(credit.shown) > MAX_ITEMS:
        raise ValueError(
            f"a credit cannot be stored: {len(credit.shown)} items in a list; the limit is "
            f"{MAX_ITEMS}"
        )
    fields: dict[str, object] = {
        "v": VERSION,
        "shown": list(credit.shown),
        "task": credit.task,
        "type": credit.type,
    }
    fields["policy"] = credit.policy
    return pack({**fields, "success": credit.success, "time": credit.time}, "a credit")


def decode_credit(payload: bytes) -> Credit:
    """The credit in ``payload``. Raises :class:`CodecError` as :func:`single`."""
    fields = single(payload, "a credit")
    return Credit(
        fields.get("shown", texts),
        fields.text("task"),
        fields.text("type", ""),
        fields.text("policy", ""),
        fields.get("success", boolean),
        fields.get("time", number, 0.0),
    )


class Annotations:
    """The ratings and notes that a log holds. What was appended since is read when they are asked
    for.

    Args:
        catalog: of the log.
        log: where texts are that do not fit the catalog.
    """

    def __init__(self, catalog: Catalog, log: Log) -> None:
        self._catalog, self._log = catalog, log
        self._ratings: dict[int, list[_Said]] = {}  # by sequence number of the episode
        self._ratings_seen = {Kind.RATING: 0, Kind.UNRATE: 0}
        self._notes: dict[int, list[int]] = {}  # rows by sequence number of the episode
        self._notes_seen = 0
        self._marked: set[int] = set()

    def ratings(self, sequence: int, position: int) -> dict[str, float | None]:
        """What was said before a log position in ratings of the episode with this sequence number,
        the last of each name; None where a rating was removed. One whose name is too long for the
        catalog is left out if its record is damaged."""
        self._catch_up()
        found: dict[str, float | None] = {}
        for said in self._ratings.get(sequence, ()):
            if said.sequence < position:
                with suppress(ValueError):
                    found[self._name(said)] = said.value
        return found

    def last(self, sequence: int, name: str, position: int) -> float | None:
        """The last value of one rating alone, whose name fits the catalog: None where it was
        removed. Nothing is read from the log.

        Raises:
            KeyError: nothing was said before that position.
        """
        self._catch_up()
        for said in reversed(self._ratings.get(sequence, ())):
            if said.name == name and said.sequence < position:
                return said.value
        raise KeyError(name)

    def marked(self) -> set[int]:
        """Sequence numbers of the episodes that anybody ever gave a rating :data:`UNSAFE`, or took
        one away from."""
        self._catch_up()
        return self._marked

    def _catch_up(self) -> None:
        new: list[tuple[int, int]] = []
        for kind, seen in self._ratings_seen.items():
            rows = self._catalog.others(kind)
            if len(rows) > seen:
                new += rows[seen:]
                self._ratings_seen[kind] = len(rows)
        for row_number, target in sorted(new):
            (row,) = self._catalog.rows([row_number])
            # A name that does not fit is looked up when somebody asks: a damaged record must not
            # keep a search from the ratings that steer it, whose names are short.
            long = bool(row["flags"] & LONG)
            name = row_number if long else bytes(row["text"]).decode(errors="surrogatepass")
            value = float(row["value"]) if row["kind"] == Kind.RATING else None
            self._ratings.setdefault(target, []).append(_Said(int(row["sequence"]), name, value))
            if name == UNSAFE:
                self._marked.add(target)

    def _name(self, said: "_Said") -> str:
        if isinstance(said.name, str):
            return said.name
        payload = self._log.read(self._catalog.place_of_row(said.name))
        return decode_removal(payload).name if said.value is None else decode_rating(payload).name

    def notes(self, sequence: int) -> tuple[str, ...]:
        """Remarks about the episode with this sequence number, oldest first; without those that are
        damaged, which ``verify`` names."""
        noted = self._catalog.others(Kind.NOTE)
        for row_number, target in noted[self._notes_seen :]:
            self._notes.setdefault(target, []).append(row_number)
        self._notes_seen = len(noted)
        found = []
        for row_number in self._notes.get(sequence, []):
            with suppress(ValueError):
                payload = self._log.read(self._catalog.place_of_row(row_number))
                found.append(decode_note(payload).text)
        return tuple(found)


class _Said(NamedTuple):
    """A rating, or the removal of one."""

    sequence: int
    """Of its record."""
    name: str | int
    """The number of its row where the name does not fit it."""
    value: float | None
    """None: removed."""
