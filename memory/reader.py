"""What is read of a memory: searches, episodes, counts. The other half, which adds, is in
:mod:`relive.memory.store`."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .compose import refuse_unknown, whole_number
from .episode import Episode
from .holdout import Holdout
from .maintenance.duplicates import duplicate_of
from .maintenance.stats import MemoryStats, count
from .maintenance.verify import all_damage, catalog_is_whole, verify
from .query import EntryMeta, EpisodeNotFoundError, Hit, Query
from .retrieval import draw, retrieve
from .search.embed import Embedder, Vectors
from .search.usefulness import Usefulness
from .state import State
from .storage.durable import Corruption, RolledBackError
from .writer import Writer

T = TypeVar("T")


class MemoryReader:
    """The reading half of :class:`relive.memory.Memory`, which sets up everything used here."""

    path: Path
    """The folder."""
    _state: State
    _writer: Writer
    _writable: bool
    _closed: bool
    _process: int
    _mutex: "threading.RLock"

    @property
    def position(self) -> int:
        """Log position: everything known to this object lies before it. Pass it as ``at`` to see no
        more than this."""
        with self._mutex:
            self._require_open()
            return self._state.position

    @property
    def identity(self) -> str:
        """Names this memory, wherever its folder lies: 32 hexadecimal digits, given when it was
        made."""
        return self._state.memory.hex()

    @property
    def writable(self) -> bool:
        """Whether it can be added to."""
        return self._writable

    @property
    def embedder(self) -> Embedder:
        """The embedder of fields and queries."""
        return self._state.embedder

    @property
    def fields(self) -> tuple[str, ...]:
        """Which texts of an episode it can be found by."""
        return self._state.fields

    def __len__(self) -> int:
        with self._mutex:
            self._require_open()
            return self._state.catalog.alive - self._state.broken_count

    def __bool__(self) -> bool:
        # One that is empty is a memory, too: `if memory` asks whether there is one.
        return True

    def __contains__(self, episode_id: object) -> bool:
        with self._mutex:
            self._require_open()
            return (
                isinstance(episode_id, str)
                and self._fresh(lambda: self._alive(episode_id)) is not None
            )

    def duplicate_of(self, episode: Episode) -> str | None:
        """Id of an episode of the same task with the same actions that is there already and can be
        read; None if there is none."""
        with self._mutex:
            self._require_open()
            return self._fresh(lambda: duplicate_of(self._state, episode))

    def usefulness(self, episode_id: str) -> Usefulness:
        """What showing an episode did for the runs that were shown it
        (:mod:`relive.memory.search.usefulness`).

        Raises:
            EpisodeNotFoundError: no such episode.
        """
        with self._mutex:
            self._require_open()
            return self._state.usefulness().of(
                int(self._state.catalog.sequences[self._ordinal(episode_id)])
            )

    def search(
        self,
        query: Query | str,
        holdout: Holdout | None = None,
        at: int | None = None,
        **settings: Any,
    ) -> list[Hit]:
        """Past episodes that are similar to the query, best first.

        Args:
            query: what is looked for; a text, or a :class:`Query`.
            holdout: what must not be shown, :meth:`Holdout.strict` in experiments. Default:
                everything may be.
            at: Log position; only what lies before it is seen. Default: everything.
            settings: where the query is a text, the other fields of the :class:`Query`: ``k``,
                ``successes_only``, ``min_score`` and so on.

        Raises:
            TypeError: an argument is something else, or unknown.
            ValueError: ``at`` lies beyond what was read, or the memory has not all the fields.
        """
        if isinstance(query, str):
            refuse_unknown("search", settings, [one.name for one in fields(Query)][1:])
            query = Query(query, **settings)
        elif settings:
            raise TypeError(f"a Query says everything by itself: put {', '.join(settings)} into it")
        asked, holdout = query, _checked(query, holdout)
        vector = self._encode([asked.text])[0]
        with self._mutex:
            self._require_open()
            until = self._until(at)
            return self._fresh(
                lambda: retrieve(asked, vector, holdout, self._state.library(until), self._reading)
            )

    def _reading(self, episode_id: str, at: int) -> Callable[[], Episode]:
        """What reads an episode later, as it is at a position."""
        return partial(self.get, episode_id, at)

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
            TypeError, ValueError: as :meth:`search`; also for a `count` that is no whole number, or
                negative.
        """
        if (count := whole_number("count", count)) < 0:
            raise ValueError(f"count is {count}; draw 0 episodes or more")
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
            at: Log position; an episode that was added after it is not there yet, one that was
                deleted after it still is, until the memory is compacted, and ratings that were
                given after it are not.

        Raises:
            EpisodeNotFoundError: no such episode.
            ValueError: its record was damaged after it was written; it is left out of searches from
                now on.
        """
        with self._mutex:
            self._require_open()
            return self._fresh(
                lambda: self._state.read(self._ordinal(episode_id, at), self._until(at))
            )

    def meta(self, episode_id: str, at: int | None = None) -> EntryMeta:
        """What is known of an episode without its steps; arguments and errors as of :meth:`get`."""
        with self._mutex:
            self._require_open()
            return self._fresh(lambda: self._state.meta(self._ordinal(episode_id, at)))

    def ratings(self, episode_id: str, at: int | None = None) -> dict[str, float]:
        """The ratings of an episode, its own and those given since, without reading its steps;
        arguments and errors as of :meth:`get`."""
        with self._mutex:
            self._require_open()
            return self._fresh(
                lambda: self._state.ratings(self._ordinal(episode_id, at), self._until(at))
            )

    def removed_ratings(self, episode_id: str) -> frozenset[str]:
        """Names of the ratings that were removed from an episode and not given again; errors as of
        :meth:`get`."""
        with self._mutex:
            self._require_open()
            given = self._fresh(lambda: self._state.given_ratings(self._ordinal(episode_id)))
            return frozenset(name for name, value in given.items() if value is None)

    def deleted(self) -> Sequence[EntryMeta]:
        """What is known of the episodes that were deleted and can be restored, in the order of the
        log; damaged ones are left out."""
        return self._metas_of(self._deleted)

    def notes(self, episode_id: str) -> tuple[str, ...]:
        """Remarks about an episode, oldest first.

        Raises:
            EpisodeNotFoundError: no such episode.
        """
        with self._mutex:
            self._require_open()
            return self._fresh(lambda: self._state.notes(self._ordinal(episode_id)))

    def iterate(self, at: int | None = None) -> Iterator[Episode]:
        """All episodes in the order of the log; with ``at`` only those before that position.
        Damaged ones are left out."""
        with self._mutex:
            self._require_open()
            named = self._fresh(lambda: self._state.named(np.array(self._visible(at), np.int64)))
        for _, episode_id in named:
            try:
                yield self.get(episode_id, at)
            except (KeyError, ValueError):
                if self._closed:
                    raise
                continue  # deleted meanwhile, or damaged: named in stats()

    def entries(self, at: int | None = None, since: int = 0) -> Sequence[EntryMeta]:
        """What is known of all episodes, in the order of the log; damaged ones are left out. With
        `at` only those before that position, with `since` only those from that one on.

        Raises:
            TypeError: a log position is a whole number.
            ValueError: ``at`` lies beyond what was read.
        """
        since = _log_position("since", since)
        return self._metas_of(lambda: self._visible(at, since))

    def vectors(self, field: str = "goal") -> tuple[tuple[str, ...], Vectors]:
        """Ids of all entries in the order of the log, and the vector of each one's first text of a
        field, shape (number of entries, dimension). One whose id cannot be read is left out.

        Raises:
            ValueError: the memory has no such field.
        """

        def read() -> tuple[tuple[str, ...], Vectors]:
            state = self._state
            if field not in state.spaces:
                raise ValueError(
                    f"the memory in {self.path} has no field {field!r}: it has "
                    f"{', '.join(state.spaces)}"
                )
            named = state.named(np.array(self._visible(None), dtype=np.int64))
            ordinals = np.array([ordinal for ordinal, _ in named], dtype=np.int64)
            taken = state.spaces[field].vectors_of(state.catalog.sequences[ordinals])
            return tuple(name for _, name in named), taken

        with self._mutex:
            self._require_open()
            return self._fresh(read)

    def _metas_of(self, ordinals: Callable[[], list[int]]) -> Sequence[EntryMeta]:
        def read() -> tuple[EntryMeta, ...]:
            found = []
            for ordinal in ordinals():
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

        Raises:
            FileNotFoundError: the memory's folder was deleted.
        """
        with self._mutex:
            self._require_open()
            if not self._writable:
                try:
                    self._state.follow()
                except (RolledBackError, FileNotFoundError):
                    self._state.load()
            spaces, position = list(self._state.spaces.values()), self._state.position
        for space in spaces:
            space.load_graph(self._mutex)
        return position

    def stats(self) -> MemoryStats:
        """What is in the memory, counted."""
        with self._mutex:
            self._require_open()
            return replace(self._fresh(lambda: count(self._state)), path=str(self.path))

    def verify(self) -> tuple[Corruption, ...]:
        """Read everything, caches too, and compare all checksums; what is damaged, and what was
        done about it.

        Damaged rows of caches are made again. Damaged episodes are left out of searches from now
        on.
        """
        with self._mutex:
            self._require_open()
            whole = catalog_is_whole(self._state)
        if not whole:
            # Not while another thread writes: the log is opened anew.
            with self._writer.alone(), self._mutex:
                self._require_open()
                self._state.load()
        with self._mutex:
            self._require_open()
            self._fresh(lambda: verify(self._state))
            return all_damage(self._state)

    def _encode(self, texts: Sequence[str]) -> Vectors:
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
        with self._writer.barred():
            try:
                return read()
            except FileNotFoundError:
                self._state.load()
                return read()

    def _until(self, at: int | None) -> int:
        position = self._state.position
        if at is None:
            return position
        at = _log_position("at", at)
        if not 0 <= at <= position:
            raise ValueError(
                f"log position {at} is not known here (this is at {position}); refresh() to follow "
                "the writer"
            )
        return at

    def _visible(self, at: int | None, since: int = 0) -> list[int]:
        """Ordinals of the episodes that are there at a position, from another one on."""
        until, catalog = self._until(at), self._state.catalog
        ordinals = np.arange(catalog.count_before(since), catalog.count_before(until))
        return [int(ordinal) for ordinal in ordinals[~self._state.is_gone(ordinals, until)]]

    def _deleted(self) -> list[int]:
        """Ordinals of the episodes that are deleted now."""
        ordinals = np.arange(len(self._state.catalog))
        gone = self._state.catalog.deleted(ordinals, self._state.position)
        return [int(ordinal) for ordinal in ordinals[gone]]

    def _alive(self, episode_id: str, at: int | None = None) -> int | None:
        """Ordinal of an episode that is there at a position."""
        ordinal, until = self._state.find(episode_id), self._until(at)
        if ordinal is None or self._state.catalog.sequences[ordinal] >= until:
            return None
        return None if self._state.catalog.deleted(np.array([ordinal]), until)[0] else ordinal

    def _ordinal(self, episode_id: str, at: int | None = None) -> int:
        ordinal = self._alive(episode_id, at)
        if ordinal is None:
            there = self._state.find(episode_id)
            early = there is not None and self._state.catalog.sequences[there] >= self._until(at)
            hint = f" yet at log position {at}" if early else ""
            deleted = there is not None and not early
            raise EpisodeNotFoundError(episode_id, str(self.path), deleted, hint)
        return ordinal


def _log_position(name: str, value: object) -> int:
    return whole_number(name, value, ": use a log position that memory.position gave")


def _checked(query: object, holdout: Holdout | None) -> Holdout:
    if not isinstance(query, Query):
        raise TypeError(f"search needs a Query, not {query!r}: use Query({str(query)!r})")
    if holdout is not None and not isinstance(holdout, Holdout):
        raise TypeError(
            f"holdout must be a Holdout, not {holdout!r}: use Holdout.strict(task, purpose), or "
            "Holdout(...)"
        )
    return holdout or Holdout()
