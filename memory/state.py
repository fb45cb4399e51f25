"""Everything that is known of a memory's log: catalog, vectors, graphs, and what was said about
episodes since.

A writer brings it up to date with what it appends, a reader with what it finds appended. Not
thread-safe; :mod:`relive.memory.store` lets one thread in at a time.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .description import is_memory
from .episode import Episode
from .query import EntryMeta, meta_of
from .retrieval import Library
from .search.embed import AbsentEmbedder, Embedder, Vectors
from .search.encode import unit_vectors
from .search.field_index import FieldIndex
from .search.fields import field_texts, labels_from
from .search.index import IndexSettings
from .search.ratings import RatingHistory
from .search.usefulness import UsefulnessHistory, UsefulnessTable
from .search.vectors import WINDOW_BITS
from .storage import codec
from .storage.annotations import Annotations
from .storage.catalog import NEVER, RATED, Catalog
from .storage.codec import digest
from .storage.durable import Corruption, RolledBackError, gone
from .storage.ingest import gap_row, rows_of
from .storage.log import Log
from .storage.payload import CodecError
from .storage.rows import Numbers, Rows
from .storage.segments import Record, RecordLocation, segments, superseded

_ATTEMPTS = 5  # readings of a log that a writer compacts meanwhile
_BATCH = 1024  # records that are taken in together


class State:
    """A memory's contents, read.

    Args:
        folder: of the memory.
        memory: its id.
        embedder: of fields.
        fields: names of the fields it has.
        writable: whether caches are written and torn tails cut.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory: bytes,
        embedder: Embedder,
        fields: Sequence[str],
        writable: bool,
        index: IndexSettings,
    ) -> None:
        self.folder, self.memory, self.embedder, self.writable = folder, memory, embedder, writable
        self.fields, self.dimension, self.index = tuple(fields), embedder.dimension, index
        self.damage: list[Corruption] = []
        self.durable = False
        """Whether what is known agrees with the log; not before it was read, nor while or after a
        change that was interrupted."""
        self.embedding = threading.Lock()
        """Lets one thread into the embedder."""
        self._loaded = False
        self.log = self._open_log()
        self._begin()

    def _open_log(self) -> Log:
        return Log(self.folder / "log", memory=self.memory, writable=self.writable)

    def _begin(self) -> None:
        name = self.folder / "catalog" / "catalog.rows"
        self.catalog = Catalog(name, memory=self.memory, writable=self.writable)
        self.position = 0
        """Log position: everything before it was taken in."""
        self._metas: dict[int, EntryMeta] = {}
        self.annotations = Annotations(self.catalog, self.log)
        self._usefulness = UsefulnessHistory(self.catalog)
        self._own_ratings: dict[int, Mapping[str, float]] = {}
        self._ratings = RatingHistory(self.catalog, self.annotations, self.own_ratings)
        self._broken: set[int] = set()
        self._readable: set[int] = set()
        self.spaces: dict[str, FieldIndex] = {}

    def settle(self) -> None:
        """After a change that was interrupted half-way (Ctrl-C), read again what is there: the log
        knows."""
        if not self.durable:
            self.load()

    def load(self) -> None:
        """Read what there is, from the catalog and behind it from the log. Forgets what was read
        before.

        Raises:
            FileNotFoundError: the memory is not there any more.
        """
        self._require_folder()
        self.durable = False
        for attempt in range(_ATTEMPTS):
            self.log.close()
            self.log = self._open_log()
            self._begin()
            try:
                unfinished = self._read_log(self.catalog.load())
                for field in self.fields:
                    self.spaces[field] = self._space(field)
                    self.spaces[field].column.open(*labels_from(self.catalog, field, 0))
                    self.spaces[field].load_graph()
                self._excuse(unfinished)
                break
            except (RolledBackError, FileNotFoundError):
                # Compacted meanwhile; also while what the columns lack was read from the log.
                if attempt == _ATTEMPTS - 1:
                    raise
        self.durable = self._loaded = True

    def _require_folder(self) -> None:
        if self._loaded and not is_memory(self.folder):
            raise gone(self.folder)

    def follow(self) -> None:
        """Take in what was appended to the log since; raises `RolledBackError` if it has to be
        loaded anew."""
        # What stops half-way (the embedder may fail) is read again: records without vectors would
        # never be found.
        self.durable = False
        known = len(self.catalog)
        self._take_all()
        if not self.position:  # there is no file whose absence would tell
            self._require_folder()
        for field, space in self.spaces.items():
            if len(self.catalog) > known:
                space.column.follow(*labels_from(self.catalog, field, known))
        self.durable = True

    def _excuse(self, unfinished: bool) -> None:
        """Finish a compaction that was interrupted: caches that do not fit are what it left behind,
        and no damage."""
        if not (unfinished or self._compacted()):
            return
        for found in [
            d
            for space in self.spaces.values()
            for d in (space.column.file.damage, space.snapshots.damage)
        ]:
            found[:] = [
                damage for damage in found if damage.offset or damage.length
            ]  # of rows, not of the whole file
        if self.writable:
            try:
                self.log.finish_compaction()
            except OSError as error:
                detail = (
                    f"what a compaction left out cannot be removed ({error.strerror}); it is "
                    "tried again"
                )
                self.damage.append(Corruption("log", 0, 0, detail))

    def _compacted(self) -> bool:
        """Whether the log is, or was since the catalog was opened, in the middle of a
        compaction."""
        folder = self.log.folder
        return bool(superseded(folder)) or self.catalog.is_behind(segments(folder))

    def _read_log(self, last: RecordLocation | None) -> bool:
        """Continue behind the last record that the catalog knows, or from the start if the log has
        another one there.

        Returns whether it has because the log was compacted, and not to the end.
        """
        unfinished = False
        if last is not None and not (
            self.catalog.fits(segments(self.log.folder)) and self.log.start_after(last)
        ):
            unfinished = self._compacted()
            if not unfinished:
                self.catalog.file.note(0, 0, "does not fit the log; it is made again")
            self.catalog.forget()
        self.damage += [d for d in self.catalog.gaps() if d not in self.damage]
        self._take_all()
        return unfinished

    def _take_all(self) -> None:
        waiting: list[Record] = []
        noted = len(self.log.lost)
        for record in self.log.refresh():
            waiting.append(record)
            if len(waiting) == _BATCH:
                self.take_rows(*rows_of(waiting, self.sequence_of))
                waiting = []
        self.take_rows(*rows_of(waiting, self.sequence_of))
        self._remember(self.log.lost[noted:])
        self.position = self.log.position

    def _remember(self, lost: Sequence[Corruption]) -> None:
        """Let later openings know of bytes that are no record; once, though what lies behind the
        last record is read each time."""
        if not lost:
            return
        again = {damage.place for damage in lost}
        known = {damage.place for damage in self.catalog.gaps()}
        # Those are said in full by the log.
        self.damage = [damage for damage in self.damage if damage.place not in again]
        for damage in lost:
            if damage.place not in known:
                self.catalog.append(gap_row(damage))

    def take_rows(
        self, rows: Rows, damage: Sequence[Corruption], vectors: Mapping[str, Vectors] | None = None
    ) -> None:
        """Take in what :func:`relive.memory.storage.ingest.rows_of` made of records that are
        durable.

        Args:
            rows: of the catalog.
            damage: which of the records mean nothing to this program.
            vectors: by field, of the episodes among them; a writer has them at hand.
        """
        known = len(self.catalog)
        self.damage += [d for d in damage if d not in self.damage]
        if len(rows):
            self.catalog.append(rows)
            self.position = max(self.position, int(rows["sequence"][-1]) + 1)
        for field, made in (vectors or {}).items():
            self.spaces[field].column.append(*labels_from(self.catalog, field, known), made)

    def _space(self, field: str) -> FieldIndex:
        able = not isinstance(self.embedder, AbsentEmbedder)

        def embed(numbers: Numbers) -> Vectors:
            if not able:
                return self.encode([])  # which says so, before any text is read
            labels = self.spaces[field].column.labels[numbers].tolist()
            return self.encode([self._text(field, label) for label in labels])

        return FieldIndex(
            self.folder,
            field=field,
            identity=self.embedder.identity,
            dimension=self.dimension,
            memory=self.memory,
            embed=embed,
            writable=self.writable,
            able=able,
            settings=self.index,
            columns=self.catalog.filtered_by,
        )

    def _text(self, field: str, label: int) -> str:
        ordinal = self.catalog.ordinal_at(label >> WINDOW_BITS)
        assert ordinal is not None
        try:
            if field == "goal":
                return self.head(ordinal).task.goal
            return field_texts(field, self.read(ordinal))[label & (1 << WINDOW_BITS) - 1]
        except ValueError:
            return ""  # the record is damaged; its row has to hold something, and get() will say so

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts; raises `TypeError` or `ValueError` for an embedder that does not do
        what it says."""
        with self.embedding:
            return unit_vectors(self.embedder, texts, self.dimension)

    def find(self, episode_id: str) -> int | None:
        """Ordinal of an episode, deleted or not; None if there is none of that id."""
        if not isinstance(episode_id, str):
            return None
        for ordinal in self.catalog.ordinals_with(digest(episode_id)):
            try:
                if self.id_of(ordinal) == episode_id:
                    return ordinal
            except ValueError:
                # its id is too long for the catalog, and its record is damaged: 64 bits of hash
                # must do
                return ordinal
        return None

    def sequence_of(self, episode_id: str) -> int | None:
        """Sequence number of an episode."""
        ordinal = self.find(episode_id)
        return None if ordinal is None else int(self.catalog.sequences[ordinal])

    def id_of(self, ordinal: int) -> str:
        """Id of an episode."""
        return self.ids_of(np.array([ordinal]))[0]

    def ids_of(self, ordinals: Numbers) -> list[str]:
        """Ids of episodes."""
        short = self.catalog.ids_of(ordinals)
        return [
            self.meta(int(o)).episode_id if name is None else name
            for o, name in zip(ordinals, short, strict=True)
        ]

    def named(self, ordinals: Numbers) -> list[tuple[int, str]]:
        """Ordinals and ids of episodes; without those whose id is too long for the catalog and
        whose record is damaged."""
        found = []
        for ordinal, name in zip(ordinals.tolist(), self.catalog.ids_of(ordinals), strict=True):
            try:
                found.append((ordinal, self.meta(ordinal).episode_id if name is None else name))
            except ValueError:
                continue  # noted
        return found

    def payload(self, ordinal: int) -> bytes:
        """The record of an episode.

        Raises:
            ValueError: it was damaged since it was written; it is left out of searches from now on.
        """
        place = self.catalog.place(ordinal)
        with self._naming(ordinal, place):
            return self.log.read(place)

    @contextmanager
    def _naming(self, ordinal: int, place: RecordLocation) -> Iterator[None]:
        """While the record of an episode is read: it is broken if that fails."""
        try:
            yield
        except ValueError as error:
            if ordinal not in self._broken:
                self._broken.add(ordinal)
                detail = (
                    f"record {place.sequence}: {error}"
                    if isinstance(error, CodecError)
                    else str(error)
                )
                self.damage.append(
                    Corruption(f"log/{place.segment:016d}.log", place.offset, place.length, detail)
                )
            raise

    def head(self, ordinal: int) -> codec.Head:
        """What an episode is about; raises as :meth:`payload`, also if its record is intact and
        means nothing to this program."""
        with self._naming(ordinal, self.catalog.place(ordinal)):
            return codec.decode_head(self.payload(ordinal))

    def meta(self, ordinal: int) -> EntryMeta:
        """What is known of an episode; read once."""
        if ordinal not in self._metas:
            sequence = int(self.catalog.sequences[ordinal])
            self._metas[ordinal] = meta_of(self.head(ordinal), sequence)
        return self._metas[ordinal]

    def read(self, ordinal: int, position: int | None = None) -> Episode:
        """A whole episode, with the ratings given since, or before a log position; raises as
        :meth:`head`."""
        episode = self._decoded(ordinal)
        given = self.given_ratings(ordinal, position)
        return replace(episode, ratings=_with(episode.ratings, given)) if given else episode

    def given_ratings(self, ordinal: int, position: int | None = None) -> dict[str, float | None]:
        """Ratings of an episode since it was recorded, or of those the ones before a log position;
        None where one was removed."""
        sequence = int(self.catalog.sequences[ordinal])
        return self.annotations.ratings(sequence, self.position if position is None else position)

    def ratings(self, ordinal: int, position: int) -> dict[str, float]:
        """All ratings of an episode at a log position; its steps are not read."""
        return _with(self.own_ratings(ordinal), self.given_ratings(ordinal, position))

    def own_ratings(self, ordinal: int) -> Mapping[str, float]:
        """The ratings that an episode itself holds; read once. None where it cannot be read."""
        if not self.catalog.column("flags")[ordinal] & RATED:
            return {}
        if ordinal not in self._own_ratings:
            try:
                self._own_ratings[ordinal] = self.head(ordinal).ratings
            except ValueError:
                return {}  # damaged: noted, and nobody is shown it
        return self._own_ratings[ordinal]

    def _decoded(self, ordinal: int) -> Episode:
        with self._naming(ordinal, self.catalog.place(ordinal)):
            return codec.decode_episode(self.payload(ordinal))

    def notes(self, ordinal: int) -> tuple[str, ...]:
        """Remarks about an episode, oldest first."""
        return self.annotations.notes(int(self.catalog.sequences[ordinal]))

    def usefulness(self, position: int | None = None) -> UsefulnessTable:
        """What is known of the worth of all entries, or was at a log position."""
        return self._usefulness.at(self.position if position is None else position)

    @property
    def broken_count(self) -> int:
        """Number of episodes that were found damaged and are not deleted."""
        positions = self.catalog.delete_positions()
        return sum(positions[ordinal] == NEVER for ordinal in self._broken)

    def is_readable(self, ordinal: int) -> bool:
        """Whether the record of an episode can be read, all of it; looked at once, and again when
        it is read."""
        if ordinal not in self._readable:
            try:
                self._decoded(ordinal)
            except ValueError:
                return False
            self.id_of(ordinal)  # is kept, whatever becomes of the record
            self._readable.add(ordinal)
        return True

    def is_gone(self, ordinals: Numbers, position: int) -> NDArray[np.bool_]:
        """Which of these episodes were deleted before a log position, or were found damaged."""
        gone = self.catalog.deleted(ordinals, position)
        return gone | np.isin(ordinals, list(self._broken)) if self._broken else gone

    def is_hidden(self, ordinals: Numbers, position: int) -> NDArray[np.bool_]:
        """Which of these episodes nobody is shown at a log position: those that are gone, and those
        that were rated unsafe by then."""
        gone, unsafe = self.is_gone(ordinals, position), self._ratings.unsafe(position)
        return gone | np.isin(ordinals, unsafe) if len(unsafe) else gone

    def library(self, position: int) -> Library:
        """What searches look at, as of a log position."""
        return Library(
            catalog=self.catalog,
            spaces=self.spaces,
            position=position,
            meta=self.meta,
            identify=self.ids_of,
            find=self.find,
            useful=lambda ordinals: self.usefulness(position).values(
                self.catalog.sequences[ordinals].tolist()
            ),
            readable=self.is_readable,
            hidden=lambda ordinals: self.is_hidden(ordinals, position),
            rated=lambda ordinals: self._ratings.values(ordinals, position),
        )


def _with(own: Mapping[str, float], given: Mapping[str, float | None]) -> dict[str, float]:
    """Ratings that an episode holds, and what was said about it since."""
    return {name: value for name, value in {**own, **given}.items() if value is not None}
