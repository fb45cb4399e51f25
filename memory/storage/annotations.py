"""What is said about episodes after they were recorded, to bytes and back: ratings, notes,
deletions, and how runs ended that had them in context. And what of it a log holds so far.
"""

from dataclasses import dataclass

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
        self._ratings: dict[int, dict[str, float]] = {}  # by sequence number of the episode
        self._ratings_seen = 0
        self._notes: dict[int, list[int]] = {}  # rows by sequence number of the episode
        self._notes_seen = 0

    def ratings(self, sequence: int) -> dict[str, float]:
        """Ratings of the episode with this sequence number, the last of each name."""
        rated = self._catalog.others(Kind.RATING)
        for row_number, target in rated[self._ratings_seen :]:
            (row,) = self._catalog.rows([row_number])
            name = bytes(row["text"]).decode(errors="surrogatepass")
            if row["flags"] & LONG:
                name = decode_rating(self._log.read(self._catalog.place_of_row(row_number))).name
            self._ratings.setdefault(target, {})[name] = float(row["value"])
        self._ratings_seen = len(rated)
        return self._ratings.get(sequence, {})

    def notes(self, sequence: int) -> tuple[str, ...]:
        """Remarks about the episode with this sequence number, oldest first."""
        noted = self._catalog.others(Kind.NOTE)
        for row_number, target in noted[self._notes_seen :]:
            self._notes.setdefault(target, []).append(row_number)
        self._notes_seen = len(noted)
        numbers = self._notes.get(sequence, [])
        return tuple(
            decode_note(self._log.read(self._catalog.place_of_row(n))).text for n in numbers
        )
