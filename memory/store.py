"""ExperienceMemory: the one door to everything that was lived through.

A folder holds ``memory.json`` (what this is, its embedder and its keys), ``log/`` (the truth),
``catalog/``, ``vectors/`` and ``index/`` (caches of it) and ``lock``. One process writes, any
number read and follow.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from weakref import WeakSet

import numpy as np

from .description import DESCRIPTION, identify, is_memory
from .episode import Episode
from .holdout import Holdout
from .maintenance.compact import Compaction
from .maintenance.evict import victims
from .maintenance.stats import MemoryStats, count
from .query import EntryMeta, Hit, Query
from .retrieval import draw, retrieve
from .search.embed import Embedder, HashedEmbedder, Vectors
from .search.encode import check_embedder
from .search.index import IndexSettings
from .search.keys import KEYS, key_texts
from .state import CACHES, State
from .storage import codec
from .storage.durable import refuse_links, remove_leftovers
from .storage.lock import WriterLock
from .storage.log import Damage, Kind, TakenBackError
from .usefulness import Usefulness
from .writer import Work, Writer, check_complete

T = TypeVar("T")

_open: "WeakSet[ExperienceMemory]" = WeakSet()  # in this process


class ExperienceMemory:
    """Episodes on disk, found again by similarity. Open with :meth:`open`.

    Methods may be called from several threads. Threads that add at the same time share one
    synchronisation of the disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        writable: bool,
        memory: bytes,
        embedder: Embedder,
        keys: Sequence[str],
        lock: WriterLock | None,
        index: IndexSettings,
    ) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._writable = writable
        self._lock = lock
        self._mutex = threading.RLock()  # state
        self._embedding = threading.Lock()  # the embedder
        self._closed = False
        if writable:
            for folder in CACHES:
                (path / folder).mkdir(exist_ok=True)
                remove_leftovers(path / folder)
        self._state = State(
            path, memory=memory, embedder=embedder, keys=keys, writable=writable, index=index
        )
        self._writer = Writer(self._state, self._mutex, self._require_writable)
        self._process = os.getpid()
        _open.add(self)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: str = "r",
        *,
        embedder: Embedder | None = None,
        reembed: bool = False,
        keys: Collection[str] | None = None,
        index: IndexSettings | None = None,
    ) -> "ExperienceMemory":
        """Open the memory in a folder.

        Args:
            path: the folder.
            mode: ``r`` to read, ``w`` to also add to it, ``create`` as ``w`` but made if it is not
                there.
            embedder: Default: the hashed one. A memory remembers its embedder and refuses another.
            reembed: Accept another embedder: embed all keys again; a writer makes it the memory's
                embedder from now on (the old vectors are kept beside the new).
            keys: Which texts of an episode it can be found by, some of
                :data:`relive.memory.search.keys.KEYS`. Default: those that it has, or only the
                goal. A writer adds what is missing; a reader makes it for itself.
            index: When and how HNSW graphs are used; nothing but speed and recall depends on it.

        Raises:
            FileNotFoundError: there is no memory, and ``mode`` is not ``create``.
            BlockingIOError: someone else is writing it.
            OSError: it cannot be written, or a file or folder in it that is written to is a
                symbolic link.
            TypeError: the embedder does not say what it is.
            ValueError: another embedder, a format that this program does not read, an unknown mode
                or key.
        """
        if mode not in ("r", "w", "create"):
            raise ValueError(
                f"unknown mode {mode!r}: use 'r' to read, 'w' to add, 'create' to add and make it "
                "if need be"
            )
        unknown = [key for key in keys or () if key not in KEYS]
        if unknown:
            raise ValueError(f"unknown keys {unknown}: use some of {', '.join(KEYS)}")
        folder = Path(path)
        embedder = HashedEmbedder() if embedder is None else embedder
        check_embedder(embedder)
        if mode != "create" and not is_memory(folder):
            hint = "create it with mode='create'" if not folder.exists() else "check the path"
            raise FileNotFoundError(f"there is no memory in {folder} (no {DESCRIPTION}): {hint}")
        lock = None
        if mode != "r":
            refuse_links(folder, ("log", *CACHES))
            (folder / "log").mkdir(parents=True, exist_ok=True)
            lock = WriterLock(folder / "lock")
        store = None
        try:
            known = identify(
                folder, embedder, keys or (), writable=lock is not None, reembed=reembed
            )
            store = cls(
                folder,
                writable=lock is not None,
                memory=known.memory,
                embedder=embedder,
                keys=known.keys,
                lock=lock,
                index=index or IndexSettings(),
            )
            store._state.damage.extend(known.damage)
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
        """Log position: everything known to this object lies before it. Pass it as ``at`` to see no
        more than this."""
        with self._mutex:
            self._require_open()
            return self._state.position

    @property
    def embedder(self) -> Embedder:
        """The embedder of keys and queries."""
        return self._state.embedder

    @property
    def keys(self) -> tuple[str, ...]:
        """Which texts of an episode it can be found by."""
        return self._state.keys

    def __len__(self) -> int:
        with self._mutex:
            self._require_open()
            return self._state.catalog.alive - self._state.broken_count

    def __contains__(self, episode_id: object) -> bool:
        with self._mutex:
            self._require_open()
            return (
                isinstance(episode_id, str)
                and self._fresh(lambda: self._alive(episode_id)) is not None
            )

    def add(self, episode: Episode, *, deduplicate: bool = False) -> int:
        """Add an episode; durable when this returns. Returns the log position from which it is
        visible.

        Args:
            episode: what happened.
            deduplicate: leave it out, and change nothing, if :meth:`duplicate_of` it is there.

        Raises:
            OSError: it could not be written (disk full, for example) and was not added; the memory
                is unharmed.
            TypeError: a field holds something of another type than it should, or the embedder made
                no array; the message names it.
            ValueError: the memory is open for reading, the id is taken, the task lacks identity or
                split, or something in it cannot be stored.
        """
        return self.add_many([episode], deduplicate=deduplicate)

    def add_many(self, episodes: Sequence[Episode], *, deduplicate: bool = False) -> int:
        """Add episodes with one synchronisation of the disk; otherwise as :meth:`add`.

        Refused, none is added. A process that is killed meanwhile may leave the first of them
        behind, unacknowledged.
        """
        with self._mutex:
            self._require_writable()
        ready = [codec.prepare(episode) for episode in episodes]
        for one in ready:
            check_complete(one.episode)
        episodes = [one.episode for one in ready]
        if deduplicate:
            with self._mutex:
                episodes = self._state.without_duplicates(episodes)
            kept = set(map(id, episodes))
            ready = [one for one in ready if id(one.episode) in kept]
        if not episodes:
            return self.position

        def check(brought: set[str]) -> None:
            for episode in episodes:
                if episode.id in brought or self._state.find(episode.id) is not None:
                    raise ValueError(
                        f"there is already an episode {episode.id!r} in {self.path}; ids are given "
                        "once"
                    )
                brought.add(episode.id)

        records = [(Kind.EPISODE, one.payload) for one in ready]
        # Before the log is written: an embedder that fails must not leave half of an entry.
        vectors = {
            key: [self._encode(key_texts(key, episode)) for episode in episodes]
            for key in self.keys
            if key != "goal"
        }
        goals = self._encode([episode.task.goal for episode in episodes])
        return self._writer.append(
            Work(records, check, {**vectors, "goal": [goals]}, [one.head for one in ready])
        )

    def duplicate_of(self, episode: Episode) -> str | None:
        """Id of an episode of the same task with the same actions that is there already; None if
        there is none."""
        with self._mutex:
            self._require_open()
            return self._state.duplicate_of(episode)

    def rate(self, episode_id: str, name: str, value: float) -> int:
        """Give an episode a rating (a later one of the same name replaces it). Durable; returns the
        log position.

        Raises:
            KeyError: no such episode.
            TypeError: the name is no text, or the value no number.
            ValueError: something cannot be stored.
        """
        rating = codec.Rating(episode_id, name, value, time.time())
        return self._say(episode_id, Kind.RATING, codec.encode_rating(rating))

    def annotate(self, episode_id: str, text: str) -> int:
        """Attach a remark to an episode. Durable; returns the log position.

        Raises:
            KeyError: no such episode.
            TypeError: it is no text.
            ValueError: it cannot be stored.
        """
        return self._say(
            episode_id, Kind.NOTE, codec.encode_note(codec.Note(episode_id, text, time.time()))
        )

    def delete(self, episode_id: str, reason: str = "") -> int:
        """Leave an episode out from now on. Durable; returns the log position.

        Searches at an earlier position still see it, until :meth:`compact` takes its bytes away.

        Raises:
            KeyError: no such episode.
            TypeError: the reason is no text.
            ValueError: it cannot be stored.
        """
        deletion = codec.Deletion(episode_id, reason, time.time())
        return self._say(episode_id, Kind.DELETE, codec.encode_deletion(deletion))

    def credit(self, run: Episode) -> int:
        """Learn from how a run ended that is not stored here (an evaluation): it counts for the
        usefulness of what it showed.

        Runs that are added count by themselves. Durable; returns the log position. Raises as
        :meth:`add` for a run that could not be added.
        """
        with self._mutex:
            self._require_writable()
        run = codec.valid_episode(run)
        shown = codec.shown_in(run)
        credit = codec.Credit(
            shown, run.task.identity, run.task.type, run.actor.policy, run.success, run.started
        )
        return self._writer.append(
            Work([(Kind.USEFULNESS, codec.encode_credit(credit))], lambda _: None)
        )

    def usefulness(self, episode_id: str) -> Usefulness:
        """What showing an episode did for the runs that were shown it
        (:mod:`relive.memory.usefulness`).

        Raises:
            KeyError: no such episode.
        """
        with self._mutex:
            self._require_open()
            return self._state.usefulness().of(
                int(self._state.catalog.sequences[self._ordinal(episode_id)])
            )

    def evict(
        self,
        *,
        capacity: int | None = None,
        before: float | None = None,
        by: str = "age",
        keep_per_type: int = 2,
        seed: int = 0,
    ) -> tuple[str, ...]:
        """Delete episodes until no more than `capacity` are left, or all that started before a
        time; ids of those deleted.

        Arguments as :func:`relive.memory.maintenance.evict.victims`. Durable; one synchronisation
        of the disk.
        """
        with self._mutex:
            self._require_writable()
            entries = self._state.evictable()
            gone = victims(
                entries,
                capacity=capacity,
                before=before,
                by=by,
                keep_per_type=keep_per_type,
                seed=seed,
            )
            ordinals = np.searchsorted(
                self._state.catalog.sequences, np.array(gone, dtype=np.int64)
            )
            ids = self._state.ids_of(ordinals)
        now = time.time()
        records = [
            (Kind.DELETE, codec.encode_deletion(codec.Deletion(i, f"evicted by {by}", now)))
            for i in ids
        ]
        if records:
            self._writer.append(Work(records, lambda _: None))
        return tuple(ids)

    def compact(self) -> Compaction:
        """Take the bytes of deleted episodes away, and of everything said about them; says what it
        did.

        Log positions stay what they were, but what was deleted is gone from earlier positions, too.
        Interrupted at any moment, the memory is as before or as after. Readers go on.

        Raises:
            OSError: it could not be written; nothing is lost.
        """
        return self._writer.compact()

    def search(
        self, query: Query, holdout: Holdout | None = None, at: int | None = None
    ) -> list[Hit]:
        """Past episodes that are similar to the query, best first.

        Args:
            query: what is looked for.
            holdout: what must not be shown, :meth:`Holdout.strict` in experiments. Default:
                everything may be.
            at: Log position; only what lies before it is seen. Default: everything.

        Raises:
            TypeError: ``query`` or ``holdout`` is something else.
            ValueError: ``at`` lies beyond what was read, or the memory has not all the keys.
        """
        holdout = _checked(query, holdout)
        vector = self._encode([query.text])[0]
        with self._mutex:
            self._require_open()
            return self._fresh(
                lambda: retrieve(query, vector, holdout, self._state.library(self._until(at)))
            )

    def draw(
        self,
        query: Query,
        count: int,
        seed: int,
        holdout: Holdout | None = None,
        at: int | None = None,
    ) -> list[tuple[str, float]]:
        """Episodes drawn evenly from all that :meth:`search` may show for a query, however far they
        are from it.

        Args:
            query: as for :meth:`search`; ``k``, ``min_score`` and what ranks are not looked at.
            count: how many; all of them if there are not more.
            seed: decides which; the same ones for the same arguments and log position.
            holdout: as for :meth:`search`.
            at: as for :meth:`search`.

        Returns:
            Ids and similarities, the most similar first. Only a few times `count` entries are
            looked at, however many there are.

        Raises:
            TypeError, ValueError: as :meth:`search`.
        """
        holdout = _checked(query, holdout)
        vector = self._encode([query.text])[0]
        with self._mutex:
            self._require_open()

            def read() -> list[tuple[str, float]]:
                rng = np.random.default_rng(seed)
                return draw(
                    query, vector, holdout, self._state.library(self._until(at)), count, rng
                )

            return self._fresh(read)

    def get(self, episode_id: str, at: int | None = None) -> Episode:
        """The whole episode, with the ratings given since.

        Args:
            episode_id: its id.
            at: Log position; an episode that was deleted after it is still there, until the memory
                is compacted.

        Raises:
            KeyError: no such episode.
            ValueError: its record was damaged after it was written; it is left out of searches from
                now on.
        """
        with self._mutex:
            self._require_open()
            return self._fresh(lambda: self._state.read(self._ordinal(episode_id, at)))

    def meta(self, episode_id: str, at: int | None = None) -> EntryMeta:
        """What is known of an episode without its steps; arguments and errors as of :meth:`get`."""
        with self._mutex:
            self._require_open()
            return self._fresh(lambda: self._state.meta(self._ordinal(episode_id, at)))

    def notes(self, episode_id: str) -> tuple[str, ...]:
        """Remarks about an episode, oldest first."""
        with self._mutex:
            self._require_open()

            def read() -> tuple[str, ...]:
                ordinal = self._alive(episode_id)
                return () if ordinal is None else self._state.notes(ordinal)

            return self._fresh(read)

    def iterate(self, at: int | None = None) -> Iterator[Episode]:
        """All episodes in the order of the log; with ``at`` only those before that position.
        Damaged ones are left out."""
        with self._mutex:
            self._require_open()
            ids = self._fresh(lambda: [self._state.id_of(ordinal) for ordinal in self._visible(at)])
        for episode_id in ids:
            try:
                yield self.get(episode_id, at)
            except (KeyError, ValueError):
                if self._closed:
                    raise
                continue  # deleted meanwhile, or damaged: named in stats()

    def entries(self, at: int | None = None) -> Sequence[EntryMeta]:
        """What is known of all episodes, in the order of the log; damaged ones are left out."""

        def read() -> tuple[EntryMeta, ...]:
            found = []
            for ordinal in self._visible(at):
                try:
                    found.append(self._state.meta(ordinal))
                except ValueError:
                    continue
            return tuple(found)

        with self._mutex:
            self._require_open()
            return self._fresh(read)

    def refresh(self) -> int:
        """Take in what another process has added since; returns the log position. A writer is
        always up to date.

        Searches in other threads go on while a newer index is loaded.
        """
        with self._mutex:
            self._require_open()
            if not self._writable:
                try:
                    self._state.follow()
                except (TakenBackError, FileNotFoundError):
                    self._state.load()
            spaces, position = list(self._state.spaces.values()), self._state.position
        for space in spaces:
            space.load_graph(self._mutex)
        return position

    def stats(self) -> MemoryStats:
        """What is in the memory, counted."""
        with self._mutex:
            self._require_open()
            return self._fresh(lambda: count(self._state))

    def verify(self) -> tuple[Damage, ...]:
        """Read everything, caches too, and compare all checksums; what is damaged, and what was
        done about it.

        Damaged rows of caches are made again. Damaged episodes are left out of searches from now
        on.
        """
        with self._mutex:
            self._require_open()
            self._fresh(lambda: self._state.verify())
            return self._state.all_damage()

    def publish_index(self) -> int:
        """Build and publish HNSW snapshots of all entries now; returns how many rows those of the
        goals hold.

        Not needed in normal use: the writer does it whenever enough was added (see
        :mod:`relive.memory.search.space`).
        """
        return self._writer.publish()

    def close(self) -> None:
        """Close files and give the lock back; may be called twice. Everything added is already
        durable."""
        # Not while another thread writes: the number of a file that is closed under it may be that
        # of another file next.
        with self._writer.alone(), self._mutex:
            if not self._closed:
                self._closed = True
                self._state.log.close()
                if self._lock is not None:
                    self._lock.release()

    def __enter__(self) -> "ExperienceMemory":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _renew_locks(self) -> None:
        if self._mutex.acquire(blocking=False):
            self._mutex.release()
        else:  # a thread that was left behind was in the middle of something
            self._mutex, self._state.settled = threading.RLock(), False
        self._embedding = threading.Lock()
        self._writer = Writer(self._state, self._mutex, self._require_writable)

    def _say(self, episode_id: str, kind: Kind, payload: bytes) -> int:
        """Append a record about an episode."""
        with self._mutex:
            self._require_writable()
            self._ordinal(episode_id)

        def check(brought: set[str]) -> None:
            self._ordinal(episode_id)

        return self._writer.append(Work([(kind, payload)], check))

    def _encode(self, texts: Sequence[str]) -> Vectors:
        with self._embedding:
            return self._state.encode(texts)

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"the memory in {self.path} was closed; open it again")
        if self._writable and os.getpid() != self._process:
            # It learns nothing of what its original adds, and whatever it wrote would lie on top of
            # that.
            raise RuntimeError(
                f"the memory in {self.path} was opened to write by process {self._process}, of "
                "which this one is a fork: "
                "open it again here, with mode='r' while the other one has it"
            )
        if not self._writer.busy:
            self._state.settle()

    def _fresh(self, read: Callable[[], T]) -> T:
        """Read from the log; again if a writer compacted it since the memory was last read."""
        try:
            return read()
        except FileNotFoundError:
            self._state.load()
            return read()

    def _require_writable(self) -> None:
        self._require_open()
        if not self._writable:
            raise ValueError(
                f"the memory in {self.path} is open for reading; open it with mode='w' to change it"
            )

    def _until(self, at: int | None) -> int:
        position = self._state.position
        if at is None:
            return position
        if not isinstance(at, int | np.integer):
            raise TypeError(
                f"a log position is a whole number, not {at!r}: use one that memory.position gave"
            )
        if not 0 <= at <= position:
            raise ValueError(
                f"log position {at} is not known here (this is at {position}); refresh() to follow "
                "the writer"
            )
        return at

    def _visible(self, at: int | None) -> list[int]:
        """Ordinals of the episodes that are there at a position."""
        until = self._until(at)
        ordinals = np.arange(self._state.catalog.count_before(until))
        return [int(ordinal) for ordinal in ordinals[~self._state.is_gone(ordinals, until)]]

    def _alive(self, episode_id: str, at: int | None = None) -> int | None:
        """Ordinal of an episode that is there at a position."""
        ordinal = self._state.find(episode_id)
        if ordinal is None or self._state.catalog.deleted(np.array([ordinal]), self._until(at))[0]:
            return None
        return ordinal

    def _ordinal(self, episode_id: str, at: int | None = None) -> int:
        ordinal = self._alive(episode_id, at)
        if ordinal is None:
            gone = "was deleted" if self._state.find(episode_id) is not None else "is not there"
            raise KeyError(f"there is no episode {episode_id!r} in {self.path}: it {gone}")
        return ordinal


def _checked(query: Query, holdout: Holdout | None) -> Holdout:
    if not isinstance(query, Query):
        raise TypeError(f"search needs a Query, not {query!r}: use Query({str(query)!r})")
    if holdout is not None and not isinstance(holdout, Holdout):
        raise TypeError(
            f"holdout must be a Holdout, not {holdout!r}: use Holdout.strict(task, purpose), or "
            "Holdout(...)"
        )
    return holdout or Holdout()


def _renew_locks() -> None:
    """In a fork, where threads that hold locks do not exist: nobody else would give them back."""
    for memory in list(_open):
        memory._renew_locks()


os.register_at_fork(after_in_child=_renew_locks)
