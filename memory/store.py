"""Memory: the one door to the episodes.

A folder holds ``memory.json`` (what this is, its embedder and its fields), ``log/`` (the truth),
``catalog/``, ``vectors/`` and ``index/`` (caches of it) and ``lock``. One process writes, any
number read and follow.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, cast
from weakref import WeakSet

from .compose import from_names
from .description import CACHES, describe, identify, own_embedder, place_of
from .episode import Episode
from .maintenance.compact import Compaction
from .maintenance.duplicates import new_among
from .maintenance.evict import evicted
from .query import EpisodeNotFoundError
from .reader import MemoryReader
from .search.embed import Embedder
from .search.encode import check_embedder
from .search.fields import FIELDS, field_texts
from .search.index import IndexSettings
from .state import State
from .storage import annotations, codec
from .storage.durable import refuse_links, remove_leftovers
from .storage.lock import WriterLock
from .storage.segments import Kind
from .writer import Work, Writer, check_complete

_open: "WeakSet[Memory]" = WeakSet()  # in this process


class Memory(MemoryReader):
    """Episodes on disk, found again by similarity.

        with Memory("experience") as memory:
            memory.add(goal="reset a password", steps=[("locked out", "unlock")], success=True)
            for hit in memory.search("reset the password", k=2):
                print(hit.score, hit.episode.steps)

    Methods may be called from several threads. Threads that add at the same time share one
    synchronisation of the disk.

    Args:
        path: the folder.
        mode: ``create`` to read and to add to it, made if it is not there; ``w`` the same, but it
            must be there; ``r`` to read only, as any number of processes may.
        embedder: Default: the tuned one that it keeps, or the hashed one; where it was made with
            another, all goes on that needs no new vectors. Another than the memory's is refused.
        reembed: Accept another embedder: embed all fields again; a writer makes it the memory's
            embedder from now on (the old vectors are kept beside the new).
        fields: Which texts of an episode it can be found by, some of
            :data:`relive.memory.search.fields.FIELDS`. Default: those that it has, or only the
            goal. A writer adds what is missing; a reader makes it for itself.
        index: When and how an index is used, and which; nothing but speed and recall depends on it.

    Raises:
        FileNotFoundError: there is no memory, and ``mode`` is not ``create``.
        FileExistsError: one would be made among files of somebody else.
        BlockingIOError: someone else is writing it.
        OSError: it cannot be written, or a file or folder in it that is written to is a symbolic
            link.
        TypeError: the embedder is none, or does not say what it is.
        ValueError: another embedder, a format that this program does not read, an unknown mode or
            field, an empty path.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "create",
        *,
        embedder: Embedder | None = None,
        reembed: bool = False,
        fields: Collection[str] | None = None,
        index: IndexSettings | None = None,
    ) -> None:
        self.path = place_of(path, mode)
        unknown = [field for field in fields or () if field not in FIELDS]
        if unknown:
            raise ValueError(f"unknown fields {unknown}: use some of {', '.join(FIELDS)}")
        folder = self.path.absolute()  # the process may change its directory
        embedder = own_embedder(folder, reembed) if embedder is None else embedder
        check_embedder(embedder)
        self._writable = mode != "r"
        self._process = os.getpid()
        self._mutex = threading.RLock()  # state
        self._deduplicating = threading.Lock()  # adding what is to be there once
        self._closed = False
        self._lock: WriterLock | None = None
        if self._writable:
            refuse_links(folder, ("log", *CACHES))
            (folder / "log").mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(folder / "lock")
        index = index or IndexSettings()
        try:
            known = identify(folder, embedder, fields or (), index.engine, reembed)
            if self._writable:
                for name, files in CACHES.items():
                    (folder / name).mkdir(exist_ok=True)
                    remove_leftovers(folder / name, *files)
            self._state = State(
                folder,
                memory=known.memory,
                embedder=embedder,
                fields=known.fields,
                writable=self._writable,
                index=replace(index, engine=known.engine),
            )
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._writer = Writer(self._state, self._mutex, self._require_writable)
        _open.add(self)
        try:
            self._state.damage.extend(known.damage)
            self.refresh()
            if self._writable:
                describe(folder, embedder, known)
        except BaseException:
            self.close()
            raise

    def add(
        self, episode: Episode | None = None, *, deduplicate: bool = False, **known: Any
    ) -> int:
        """Add an episode; durable when this returns. Returns the log position from which it is
        visible.

        Args:
            episode: what happened. Or give what is known of it by name: ``goal``, ``steps`` and
                ``success``, and more (:func:`relive.memory.compose.compose`).
            deduplicate: leave it out, and change nothing, if :meth:`duplicate_of` it is there.

        Raises:
            OSError: it could not be written (disk full, for example) and was not added; the memory
                is unharmed.
            TypeError: a field holds something of another type than it should, or the embedder made
                no array; the message names it.
            ValueError: the memory is open for reading, the id is taken (also by a deleted episode,
                until the memory is compacted), the task lacks identity or split, or something in it
                cannot be stored.
        """
        if known:
            if episode is not None:
                raise TypeError(
                    f"add takes an Episode, or what is known of one by name ({', '.join(known)}), "
                    "and not both"
                )
            episode = from_names(known)
        # Who gives nothing at all is told that None is no Episode.
        return self.add_many([cast(Episode, episode)], deduplicate=deduplicate)

    def add_many(self, episodes: Sequence[Episode], *, deduplicate: bool = False) -> int:
        """Add episodes with one synchronisation of the disk; otherwise as :meth:`add`.

        Refused, none is added. A process that is killed meanwhile may leave the first of them
        behind, unacknowledged.
        """
        if isinstance(episodes, Episode):
            raise TypeError("add_many takes a list of episodes: add(episode) takes one")
        with self._mutex:
            self._require_writable()
        ready = [codec.prepare(episode) for episode in episodes]
        for one in ready:
            check_complete(one.episode)
        episodes = [one.episode for one in ready]
        if not deduplicate:
            return self._add(ready)
        with self._deduplicating:  # nobody adds another of them between the look and the commit
            with self._mutex:
                kept = new_among(self._state, episodes)
            return self._add([ready[place] for place in kept])

    def _add(self, ready: Sequence[codec.Prepared]) -> int:
        if not (episodes := [one.episode for one in ready]):
            return self.position

        def check(brought: set[str]) -> None:
            for episode in episodes:
                known = episode.id not in brought and self._state.find(episode.id) is not None
                if known and self._alive(episode.id) is None:
                    raise ValueError(
                        f"episode {episode.id!r} was deleted from {self.path}, which still holds "
                        "it, and ids are given once: restore it, or compact the memory first"
                    )
                if known or episode.id in brought:
                    raise ValueError(
                        f"there is already an episode {episode.id!r} in {self.path}; ids are given "
                        "once"
                    )
                brought.add(episode.id)

        records = [(Kind.EPISODE, one.payload) for one in ready]
        # Before the log is written: an embedder that fails must not leave half of an entry.
        vectors = {
            field: [self._encode(field_texts(field, episode)) for episode in episodes]
            for field in self.fields
            if field != "goal"
        }
        goals = self._encode([episode.task.goal for episode in episodes])
        return self._writer.append(
            Work(records, check, {**vectors, "goal": [goals]}, [one.head for one in ready])
        )

    def rate(self, episode_id: str, name: str, value: float) -> int:
        """Give an episode a rating (a later one of the same name replaces it; one that is no number
        counts nothing). Durable; returns the log position.

        Raises:
            KeyError: no such episode.
            TypeError: the name is no text, or the value no number.
            ValueError: something cannot be stored.
        """
        rating = annotations.Rating(episode_id, name, value, time.time())
        return self._append_annotation(episode_id, Kind.RATING, annotations.encode_rating(rating))

    def unrate(self, episode_id: str, name: str) -> int:
        """Remove a rating, also one that the episode itself holds. Durable; returns the log
        position. Searches and reads at an earlier position still see it.

        Raises:
            KeyError: no such episode.
            TypeError: the name is no text.
            ValueError: it has no such rating, or the name cannot be stored.
        """
        record = annotations.RatingRemoval(episode_id, name, time.time())

        def require() -> None:
            ratings = self._state.ratings(self._ordinal(episode_id), self._state.position)
            if name not in ratings:
                has = ", ".join(sorted(ratings)) or "none"
                raise ValueError(
                    f"episode {episode_id!r} in {self.path} has no rating {name!r}: it has {has}"
                )

        return self._append_annotation(
            episode_id, Kind.UNRATE, annotations.encode_removal(record), require
        )

    def annotate(self, episode_id: str, text: str) -> int:
        """Attach a remark to an episode. Durable; returns the log position.

        Raises:
            KeyError: no such episode.
            TypeError: it is no text.
            ValueError: it cannot be stored.
        """
        return self._append_annotation(
            episode_id,
            Kind.NOTE,
            annotations.encode_note(annotations.Note(episode_id, text, time.time())),
        )

    def delete(self, episode_id: str, reason: str = "") -> int:
        """Leave an episode out from now on. Durable; returns the log position.

        Searches at an earlier position still see it, and :meth:`restore` brings it back, until
        :meth:`compact` takes its bytes away.

        Raises:
            KeyError: no such episode.
            TypeError: the reason is no text.
            ValueError: it cannot be stored.
        """
        deletion = annotations.Deletion(episode_id, reason, time.time())
        return self._append_annotation(
            episode_id, Kind.DELETE, annotations.encode_deletion(deletion)
        )

    def restore(self, episode_id: str, reason: str = "") -> int:
        """Bring a deleted episode back, with all that was said about it. Durable; returns the log
        position. Searches at a position between deletion and restoration do not see it.

        Raises:
            KeyError: no such episode; once :meth:`compact` has taken its bytes away, there is none.
            TypeError: the reason is no text.
            ValueError: it is not deleted, it is damaged, or the reason cannot be stored.
        """
        record = annotations.Restoration(episode_id, reason, time.time())

        def require() -> None:
            ordinal = self._state.find(episode_id)
            if ordinal is None:
                hint = ", or was compacted away: what is in an export can be imported"
                raise EpisodeNotFoundError(episode_id, str(self.path), False, hint)
            if self._alive(episode_id) is not None:
                raise ValueError(f"episode {episode_id!r} in {self.path} is not deleted")
            if not self._state.is_readable(ordinal):
                raise ValueError(
                    f"episode {episode_id!r} in {self.path} is damaged and cannot be restored "
                    "(relive memory stats names the place)"
                )

        return self._append_annotation(
            episode_id, Kind.RESTORE, annotations.encode_restoration(record), require
        )

    def record_outcome(self, run: Episode) -> int:
        """Learn from how a run ended that is not stored here (an evaluation): it counts for the
        usefulness of what it showed.

        Runs that are added count by themselves. Durable; returns the log position. Raises as
        :meth:`add` for a run that could not be added.
        """
        with self._mutex:
            self._require_writable()
        run = codec.valid_episode(run)
        check_complete(run)
        shown = codec.shown_in(run)
        credit = annotations.Credit(
            shown, run.task.identity, run.task.type, run.actor.policy, run.success, run.started
        )
        return self._writer.append(
            Work([(Kind.USEFULNESS, annotations.encode_credit(credit))], lambda _: None)
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
            ids = evicted(
                self._state,
                capacity=capacity,
                before=before,
                by=by,
                keep_per_type=keep_per_type,
                seed=seed,
            )
        now = time.time()
        deletions = [annotations.Deletion(name, f"evicted by {by}", now) for name in ids]
        records = [(Kind.DELETE, annotations.encode_deletion(one)) for one in deletions]
        if records:
            self._writer.append(Work(records, lambda _: None))
        return ids

    def compact(self) -> Compaction:
        """Take the bytes of deleted episodes away, and of everything said about them; says what it
        did.

        Log positions stay what they were, but what was deleted is gone from earlier positions, too.
        Interrupted at any moment, the memory is as before or as after. Readers go on.

        Raises:
            OSError: it could not be written; nothing is lost.
        """
        return self._writer.compact()

    def publish_index(self) -> int:
        """Build and publish HNSW snapshots of all entries now; returns how many rows those of the
        goals hold.

        Not needed in normal use: the writer does it whenever enough was added (see
        :mod:`relive.memory.search.field_index`).
        """
        return self._writer.publish()

    def close(self) -> None:
        """Close files and give the lock back; may be called twice. Everything added is already
        durable. Raises `RuntimeError` within a search of the same thread."""
        # Not while another thread writes: the number of a file that is closed under it may be that
        # of another file next.
        with self._writer.alone(), self._mutex:
            if not self._closed:
                self._closed = True
                self._state.log.close()
                if self._lock is not None:
                    self._lock.release()

    def __enter__(self) -> "Memory":
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
            self._mutex, self._state.durable = threading.RLock(), False
        self._state.embedding = threading.Lock()
        self._writer = Writer(self._state, self._mutex, self._require_writable)

    def _append_annotation(
        self, episode_id: str, kind: Kind, payload: bytes, require: Callable[[], None] | None = None
    ) -> int:
        """Append a record about an episode, which has to be there, or what `require` demands."""

        def check(brought: set[str]) -> None:
            self._ordinal(episode_id) if require is None else require()

        with self._mutex:
            self._require_writable()
            check(set())
        # Once more when it is written: another thread may have changed it meanwhile.
        return self._writer.append(Work([(kind, payload)], check))

    def _require_writable(self) -> None:
        self._require_open()
        self._writer.require_unbarred()
        if not self._writable:
            raise ValueError(
                f"the memory in {self.path} is open for reading; open it with mode='w' to change it"
            )


def _renew_locks() -> None:
    """In a fork, where threads that hold locks do not exist: nobody else would give them back."""
    for memory in list(_open):
        memory._renew_locks()


os.register_at_fork(after_in_child=_renew_locks)
