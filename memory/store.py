"""ExperienceMemory: the one door to everything that was lived through.

A folder holds ``memory.json`` (what this is, and its embedder), ``log/`` (the truth), ``vectors/`` and ``index/``
(caches of it) and ``lock``. One process writes, any number read and follow.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from memory import codec
from memory.description import DESCRIPTION, identify, is_memory
from memory.embed import Embedder, HashedEmbedder, Vectors
from memory.episode import Episode
from memory.index import ExactIndex, HnswIndex, Index, SnapshotFolder, publishing_is_due
from memory.lock import WriterLock
from memory.log import Damage, Kind, Log, Place, Record, TakenBackError
from memory.retrieve import Catalog, EntryMeta, Hit, Query, Viewer, retrieve
from memory.vectors import Source, VectorColumn, column_name


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """What a memory holds."""

    path: str
    entries: int
    """Episodes that can be read."""
    successes: int
    by_type: Mapping[str, int]
    by_split: Mapping[str, int]
    by_policy: Mapping[str, int]
    ratings: int
    notes: int
    other_records: int
    """Records of kinds that this program does not know."""
    position: int
    """Log position up to which was read."""
    log_bytes: int
    total_bytes: int
    """Everything in the folder."""
    embedder: str
    """Identity of the embedder."""
    embedded: int
    """Entries whose vectors had to be computed because none were stored."""
    index_entries: int
    """Entries in the HNSW snapshot in use; 0: every search is exact."""
    damage: tuple[Damage, ...]
    """What was found damaged, and what was done about it."""


class ExperienceMemory:
    """Episodes on disk, found again by similarity. Open with :meth:`open`.

    Methods may be called from several threads; they take turns.
    """

    def __init__(
        self, path: Path, *, writable: bool, memory: bytes, embedder: Embedder, lock: WriterLock | None
    ) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._writable = writable
        self._memory = memory
        self._embedder = embedder
        self._lock = lock
        self._mutex = threading.RLock()
        self._closed = False
        self._damage: list[Damage] = []
        if writable:
            for folder in ("vectors", "index"):
                (path / folder).mkdir(exist_ok=True)
        self._log = self._open_log()
        self._start_over()

    def _open_log(self) -> Log:
        return Log(self.path / "log", memory=self._memory, writable=self._writable)

    def _start_over(self) -> None:
        """Forget everything that was read; the next refresh reads it again."""
        self._log.close()
        self._log = self._open_log()
        identity, dimension = self._embedder.identity, self._embedder.dimension
        self._vectors = VectorColumn(
            self.path / "vectors" / f"{column_name(identity)}.vec",
            identity=identity,
            dimension=dimension,
            memory=self._memory,
            writable=self._writable,
        )
        self._snapshots = SnapshotFolder(
            self.path / "index", memory=self._memory, identity=identity, dimension=dimension
        )
        self._exact = ExactIndex(self._vectors)
        self._graph: HnswIndex | None = None
        self._catalog = Catalog()
        self._places: list[Place] = []
        self._ratings: dict[str, dict[str, float]] = {}
        self._notes: dict[str, list[str]] = {}
        self._rating_count = 0
        self._other_records = 0
        self._settled = True

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], mode: str = "r", *, embedder: Embedder | None = None, reembed: bool = False
    ) -> "ExperienceMemory":
        """Open the memory in a folder.

        Args:
            mode: ``r`` to read, ``w`` to also add to it, ``create`` as ``w`` but made if it is not there.
            embedder: Default: the hashed one. A memory remembers its embedder and refuses another.
            reembed: Accept another embedder: embed all goals again; a writer makes it the memory's embedder from now
                on (the old vectors are kept beside the new).

        Raises:
            FileNotFoundError: there is no memory, and ``mode`` is not ``create``.
            BlockingIOError: someone else is writing it.
            ValueError: another embedder, a format that this program does not read, or an unknown mode.
        """
        if mode not in ("r", "w", "create"):
            raise ValueError(
                f"unknown mode {mode!r}: use 'r' to read, 'w' to add, 'create' to add and make it if need be"
            )
        folder = Path(path)
        embedder = embedder or HashedEmbedder()
        if mode != "create" and not is_memory(folder):
            hint = "create it with mode='create'" if not folder.exists() else "check the path"
            raise FileNotFoundError(f"there is no memory in {folder} (no {DESCRIPTION}): {hint}")
        lock = None
        if mode != "r":
            (folder / "log").mkdir(parents=True, exist_ok=True)
            lock = WriterLock(folder / "lock")
        store = None
        try:
            memory, damage = identify(folder, embedder, writable=lock is not None, reembed=reembed)
            store = cls(folder, writable=lock is not None, memory=memory, embedder=embedder, lock=lock)
            store._damage.extend(damage)
            store.refresh()
        except BaseException:
            if store is not None:
                store.close()
            elif lock is not None:
                lock.release()
            raise
        return store

    @property
    def position(self) -> int:
        """Log position: everything known to this object lies before it. Pass it as ``at`` to see no more than this."""
        with self._mutex:
            self._settle()
            return self._log.position

    @property
    def embedder(self) -> Embedder:
        """The embedder of keys and queries."""
        return self._embedder

    def __len__(self) -> int:
        with self._mutex:
            self._settle()
            return len(self._catalog)

    def __contains__(self, episode_id: object) -> bool:
        with self._mutex:
            self._settle()
            return episode_id in self._catalog.ordinals

    def add(self, episode: Episode) -> int:
        """Add an episode; durable when this returns. Returns the log position from which it is visible.

        Raises:
            OSError: it could not be written (disk full, for example) and was not added; the memory is unharmed.
            ValueError: the memory is open for reading, the id is taken, or the task lacks identity or split.
        """
        return self.add_many([episode])

    def add_many(self, episodes: Sequence[Episode]) -> int:
        """Add episodes with one synchronisation of the disk, all or none; otherwise as :meth:`add`."""
        with self._mutex:
            self._require_writable()
            taken: set[str] = set()
            for episode in episodes:
                self._check_new(episode, taken)
                taken.add(episode.id)
            records = [(Kind.EPISODE, codec.encode_episode(episode)) for episode in episodes]
            # Before the log is written: an embedder that fails must not leave half of an entry.
            vectors = self._embed([episode.task.goal for episode in episodes])
            for place, (_, payload) in zip(self._append(records), records, strict=True):
                self._take_episode(place, codec.decode_head(payload))
            self._vectors.append(self._new_sources(), vectors)
            self._settled = True
            self._publish_if_due()
            return self._log.position

    def rate(self, episode_id: str, name: str, value: float) -> int:
        """Give an episode a rating (a later one of the same name replaces it). Durable; returns the log position.

        Raises:
            KeyError: no such episode.
        """
        with self._mutex:
            self._require_writable()
            self._ordinal(episode_id)
            rating = codec.Rating(episode_id, name, float(value), time.time())
            self._append([(Kind.RATING, codec.encode_rating(rating))])
            self._take_rating(rating)
            self._settled = True
            return self._log.position

    def annotate(self, episode_id: str, text: str) -> int:
        """Attach a remark to an episode. Durable; returns the log position.

        Raises:
            KeyError: no such episode.
        """
        with self._mutex:
            self._require_writable()
            self._ordinal(episode_id)
            note = codec.Note(episode_id, text, time.time())
            self._append([(Kind.NOTE, codec.encode_note(note))])
            self._notes.setdefault(episode_id, []).append(text)
            self._settled = True
            return self._log.position

    def search(self, query: Query, viewer: Viewer, at: int | None = None) -> list[Hit]:
        """Past episodes that are similar to the query and that the viewer may see, best first.

        Args:
            at: Log position; only what lies before it is seen. Default: everything.

        Raises:
            ValueError: ``viewer`` is no :class:`Viewer`, or ``at`` lies beyond what was read.
        """
        with self._mutex:
            self._require_open()
            stop = self._stop(at)
            vector = self._embed([query.text])[0]
            index: Index = self._graph or self._exact
            return retrieve(query, vector, viewer, self._catalog, index, stop)

    def get(self, episode_id: str) -> Episode:
        """The whole episode, with the ratings given since.

        Raises:
            KeyError: no such episode.
            ValueError: its record was damaged after the memory was opened.
        """
        with self._mutex:
            self._require_open()
            return self._read(self._ordinal(episode_id))

    def meta(self, episode_id: str) -> EntryMeta:
        """What is known of an episode without reading it; raises ``KeyError`` as :meth:`get`."""
        with self._mutex:
            self._require_open()
            return self._catalog.entries[self._ordinal(episode_id)]

    def notes(self, episode_id: str) -> tuple[str, ...]:
        """Remarks about an episode, oldest first."""
        with self._mutex:
            self._require_open()
            return tuple(self._notes.get(episode_id, ()))

    def iterate(self, at: int | None = None) -> Iterator[Episode]:
        """All episodes in the order of the log; with ``at`` only those before that position."""
        with self._mutex:
            self._require_open()
            stop = self._stop(at)
        for ordinal in range(stop):
            with self._mutex:
                self._require_open()
                episode = self._read(ordinal)
            yield episode

    def entries(self, at: int | None = None) -> Sequence[EntryMeta]:
        """What is known of all episodes, in the order of the log; nothing is read from disk."""
        with self._mutex:
            self._require_open()
            return tuple(self._catalog.entries[: self._stop(at)])

    def refresh(self) -> int:
        """Take in what another process has added since; returns the log position. A writer is always up to date."""
        with self._mutex:
            self._require_open()
            self._settled = False
            try:
                self._read_new()
            except TakenBackError:
                self._start_over()
                self._read_new()
            self._settled = True
            snapshot = self._snapshots.load(self._vectors, newer_than=self._graph.entries if self._graph else 0)
            self._graph = snapshot or self._graph
            self._publish_if_due()
            return self._log.position

    def stats(self) -> MemoryStats:
        """What is in the memory, counted."""
        with self._mutex:
            self._require_open()
            entries = self._catalog.entries
            damage = [*self._damage, *self._log.damage, *self._vectors.damage, *self._snapshots.damage]
            if self._log.unfinished:
                detail = "not a complete record: being written right now, or torn (opening with mode='w' cuts it off)"
                damage.append(Damage("log", self._log.size - self._log.unfinished, self._log.unfinished, detail))
            return MemoryStats(
                path=str(self.path),
                entries=len(entries),
                successes=sum(entry.success for entry in entries),
                by_type=Counter(entry.task.type for entry in entries),
                by_split=Counter(entry.task.split for entry in entries),
                by_policy=Counter(entry.policy for entry in entries),
                ratings=self._rating_count,
                notes=sum(len(notes) for notes in self._notes.values()),
                other_records=self._other_records,
                position=self._log.position,
                log_bytes=self._log.size,
                total_bytes=_folder_bytes(self.path),
                embedder=self._embedder.identity,
                embedded=self._vectors.embedded,
                index_entries=self._graph.entries if self._graph else 0,
                damage=tuple(damage),
            )

    def publish_index(self) -> int:
        """Build and publish an HNSW snapshot of all entries now; returns how many it holds.

        Not needed in normal use: the writer does it whenever enough was added (see :mod:`memory.index`).
        """
        with self._mutex:
            self._require_writable()
            if len(self._catalog):
                self._graph = self._snapshots.publish(self._vectors, self._log.position, self._graph)
            return self._graph.entries if self._graph else 0

    def close(self) -> None:
        """Close files and give the lock back; may be called twice. Everything added is already durable."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._log.close()
                if self._lock is not None:
                    self._lock.release()

    def __enter__(self) -> "ExperienceMemory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"the memory in {self.path} was closed; open it again")
        self._settle()

    def _settle(self) -> None:
        """After a change that was interrupted half-way (Ctrl-C), read again what is there: the log knows."""
        if not self._settled and not self._closed:
            self._start_over()
            self._read_new()

    def _append(self, records: Sequence[tuple[Kind, bytes]]) -> list[Place]:
        """Append to the log. The caller takes the records in and then says that all is settled."""
        self._settled = False
        try:
            return self._log.append(records)
        except (OSError, ValueError):
            self._settled = True  # nothing was added
            raise

    def _read_new(self) -> None:
        for record in self._log.refresh():
            self._take_record(record)
        self._vectors.extend(self._new_sources(), self._embed_entries)

    def _new_sources(self) -> list[Source]:
        """Where the entries that have no vectors yet came from."""
        return [(place.sequence, place.checksum) for place in self._places[len(self._vectors) :]]

    def _require_writable(self) -> None:
        self._require_open()
        if not self._writable:
            raise ValueError(f"the memory in {self.path} is open for reading; open it with mode='w' to change it")

    def _check_new(self, episode: Episode, taken: set[str]) -> None:
        if not episode.id:
            raise ValueError("an episode without an id cannot be added; give it one that is unique in this memory")
        if episode.id in self or episode.id in taken:
            raise ValueError(f"there is already an episode {episode.id!r} in {self.path}; ids are given once")
        for name in ("identity", "split"):
            if not getattr(episode.task, name).strip():
                raise ValueError(
                    f"episode {episode.id!r} has no task {name}, so nobody could be kept from it: fill it in"
                )

    def _stop(self, at: int | None) -> int:
        """Number of entries visible at a log position."""
        if at is None:
            return len(self._catalog)
        if not 0 <= at <= self._log.position:
            raise ValueError(
                f"log position {at} is not known here (this is at {self._log.position}); refresh() to follow the writer"
            )
        return self._catalog.count_before(at)

    def _ordinal(self, episode_id: str) -> int:
        try:
            return self._catalog.ordinals[episode_id]
        except KeyError:
            raise KeyError(f"there is no episode {episode_id!r} in {self.path}") from None

    def _read(self, ordinal: int) -> Episode:
        episode = codec.decode_episode(self._log.read(self._places[ordinal]))
        given = self._ratings.get(episode.id)
        return replace(episode, ratings={**episode.ratings, **given}) if given else episode

    def _embed(self, texts: Sequence[str]) -> Vectors:
        vectors = self._embedder.encode(texts)
        if vectors.shape != (len(texts), self._embedder.dimension) or not np.isfinite(vectors).all():
            raise ValueError(
                f"the embedder {self._embedder.identity} made {vectors.shape} of {len(texts)} texts, or numbers that "
                f"are not finite; it must make unit rows of {self._embedder.dimension}"
            )
        return vectors

    def _embed_entries(self, ordinals: Sequence[int]) -> Vectors:
        return self._embed([self._catalog.entries[ordinal].task.goal for ordinal in ordinals])

    def _take_record(self, record: Record) -> None:
        try:
            if record.kind == Kind.EPISODE:
                self._take_episode(record.place, codec.decode_head(record.payload))
            elif record.kind == Kind.RATING:
                self._take_rating(codec.decode_rating(record.payload))
            elif record.kind == Kind.NOTE:
                note = codec.decode_note(record.payload)
                self._notes.setdefault(note.episode, []).append(note.text)
            else:
                self._other_records += 1
        except codec.CodecError as error:
            # Intact on disk but not for this program: named, and no reason to refuse all the others.
            place = record.place
            file = f"log/{place.segment:016d}.log"
            self._damage.append(Damage(file, place.offset, place.length, f"record {place.sequence}: {error}"))

    def _take_episode(self, place: Place, head: codec.Head) -> None:
        if head.id in self._catalog.ordinals:
            detail = f"record {place.sequence}: a second episode {head.id!r}, left out"
            self._damage.append(Damage(f"log/{place.segment:016d}.log", place.offset, place.length, detail))
            return
        entry = EntryMeta(
            episode_id=head.id,
            position=place.sequence,
            task=head.task,
            success=head.outcome.success,
            score=head.outcome.score,
            reason=head.outcome.reason,
            policy=head.actor.policy,
            adapter=head.actor.adapter,
            steps=head.step_count,
        )
        self._catalog.add(entry)
        self._places.append(place)

    def _take_rating(self, rating: codec.Rating) -> None:
        self._ratings.setdefault(rating.episode, {})[rating.name] = rating.value
        self._rating_count += 1

    def _publish_if_due(self) -> None:
        published = self._graph.entries if self._graph else 0
        if not self._writable or not publishing_is_due(len(self._catalog), published):
            return
        try:
            self.publish_index()
        except OSError as error:
            # A cache that cannot be written costs time, not episodes; not worth failing an add that is durable.
            detail = f"the index cannot be written ({error}); searches go on without it"
            self._damage.append(Damage("index", 0, 0, detail))


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # a snapshot that was replaced meanwhile
    return total
