"""The writing half of a memory: what is appended, how the graphs grow with it, and compaction.

Threads that append at the same time share one synchronisation of the disk. The order of locks is
always: the turn to write, then the state. Searches in other threads go on while the disk works, and
wait for a few insertions at most.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from .episode import Episode
from .maintenance.compact import Compaction, compact
from .normal import normal_text
from .search.embed import Vectors
from .search.field_index import SPREAD, FieldIndex
from .state import State
from .storage.codec import Head
from .storage.commit import GroupCommit
from .storage.durable import Corruption
from .storage.ingest import rows_of
from .storage.segments import Kind, Record

EAGER = 8
"""Rows that go into the graph with every addition, beyond twice those added: it catches up after it
was left behind."""


@dataclass(frozen=True, slots=True)
class Work:
    """Records to append together."""

    records: list[tuple[Kind, bytes]]
    check: Callable[[set[str]], None]
    """Raises if they must not be appended, `KeyError` or `ValueError` as a rule; told the ids of
    the episodes that those before them in the group bring, and adds its own."""
    vectors: Mapping[str, Sequence[Vectors]] = field(default_factory=dict)
    """By field, of the episodes among the records."""
    heads: Sequence[Head] = ()
    """Of the episodes among the records."""


class Writer:
    """Changes a state and its log, for one memory.

    Args:
        state: what is changed.
        mutex: guards the state.
        require: raises unless the memory is open for writing.
    """

    def __init__(self, state: State, mutex: threading.RLock, require: Callable[[], None]) -> None:
        self._state, self._mutex, self._require = state, mutex, require
        self._group: GroupCommit[Work, int] = GroupCommit(self._commit)
        self._publishing: threading.Thread | None = None
        self._reading = 0  # the thread that reads the state now

    @contextmanager
    def barred(self) -> Iterator[None]:
        """While this thread reads, holding the mutex: it must not write meanwhile."""
        before, self._reading = self._reading, threading.get_ident()
        try:
            yield
        finally:
            self._reading = before

    def require_unbarred(self) -> None:
        """Raises `RuntimeError` in a thread that reads: it would wait for its turn to write, and
        who has that waits for the state."""
        if self._reading == threading.get_ident():
            raise RuntimeError(
                "a memory is not changed or closed while the same thread searches it: collect in "
                "the function that a Query calls (where=...) what is to be written, and write it "
                "after the search"
            )

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._group.busy

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nothing is written. Raises as :meth:`require_unbarred`."""
        self.require_unbarred()
        with self._group.alone():
            if self._publishing is not None:
                self._publishing.join()
            yield

    def append(self, work: Work) -> int:
        """Append records; durable when this returns. Returns the log position after them.

        Raises:
            OSError: none of them was written; the memory is unharmed.
            KeyError: what `work.check` raises; ValueError too.
        """
        return self._group(work)

    def compact(self) -> Compaction:
        """Leave out what was deleted (:mod:`relive.memory.maintenance.compact`)."""
        with self.alone(), self._mutex:
            self._require()
            self._state.settle()
            self._state.durable = False
            try:
                return compact(self._state)
            finally:
                self._state.load()

    def publish(self) -> int:
        """Put all rows into the graphs and publish them; number of rows in that of the goals."""
        with self.alone():
            with self._mutex:
                self._require()
                self._state.settle()
                spaces = list(self._state.spaces.values())
            for space in spaces:
                if space.stale:
                    space.drop_graph()
                while self._grown(space, SPREAD, small=True):
                    pass
                space.publish(self._state.position, self._mutex)
            return self._state.spaces["goal"].covered

    def _commit(self, works: Sequence[Work]) -> list[int | Exception]:
        """Append the records of several works with one synchronisation; the position after each, or
        why it was refused."""
        results: list[int | Exception] = []
        brought: set[str] = set()
        with self._mutex:
            self._require()
            self._state.settle()
            for work in works:
                before = set(brought)
                try:
                    work.check(brought)
                    results.append(0)
                except Exception as error:  # of this one: the others do not suffer for it
                    brought = before
                    results.append(error)
            good = [i for i, result in enumerate(results) if not isinstance(result, Exception)]
            if not good:
                return results
            # All that can fail is done before anything is written: who is refused finds nothing
            # changed.
            records = [record for i in good for record in works[i].records]
            heads = [head for i in good for head in works[i].heads]
            places = self._state.log.plan(records)
            taken = [
                Record(place, kind, payload)
                for place, (kind, payload) in zip(places, records, strict=True)
            ]
            rows, damage = rows_of(taken, self._state.sequence_of, heads)
            parts = {
                field: [v for i in good for v in works[i].vectors.get(field, ())]
                for field in self._state.fields
            }
            vectors = {field: np.concatenate(some) for field, some in parts.items() if some}
        stop = 0
        for i in good:
            stop += len(works[i].records)
            results[i] = places[stop - 1].sequence + 1
        # Not under the mutex: searches go on while the disk works.
        self._state.durable = False
        try:
            self._state.log.append(records, places)
        except OSError:
            self._state.durable = True  # nothing was added
            raise
        with self._mutex:
            try:
                self._state.take_rows(rows, damage, vectors)
                self._state.durable = True
            except Exception as error:
                # What is durable must not be called refused. It is read again from the log before
                # anything else is asked.
                self._note("catalog", f"could not be brought up to date ({error!r}); read again")
        if heads and self._state.durable:
            self._grow_all(2 * len(heads) + EAGER)
        return results

    def _grow_all(self, rows: int) -> None:
        """Let the graphs grow. They are caches: what goes wrong with one is noted, and no reason to
        refuse what is durable."""
        try:
            for space in self._state.spaces.values():
                self._grow(space, rows)
        except Exception as error:
            with self._mutex:
                self._note(
                    "index", f"cannot be brought up to date ({error!r}); searches go on without it"
                )
                for space in self._state.spaces.values():
                    space.drop_graph()

    def _note(self, file: str, detail: str) -> None:
        damage = Corruption(file, 0, 0, detail)
        self._state.damage += [damage] if damage not in self._state.damage else []

    def _grown(self, space: FieldIndex, rows: int, small: bool = False) -> bool:
        with self._mutex:
            return space.grow(rows, small)

    def _grow(self, space: FieldIndex, rows: int) -> None:
        """Let a graph grow, a little at a time so that searches in other threads get their turn,
        and publish what is due."""
        if space.stale:
            with self._mutex:
                space.drop_graph()
        for left in range(rows, 0, -SPREAD):
            if not self._grown(space, min(SPREAD, left)):
                break
        if not space.publishing_is_due:
            return
        if self._publishing is None or not self._publishing.is_alive():
            # In a thread: the disk takes its time for a snapshot, which is a copy, while the graph
            # goes on growing.
            self._publishing = threading.Thread(
                target=self._publish, args=(space, self._state.position)
            )
            self._publishing.start()

    def _publish(self, space: FieldIndex, position: int) -> None:
        try:
            space.publish(position, self._mutex)
        except OSError as error:
            # A cache that cannot be written costs time, not episodes; not worth failing an add that
            # is durable.
            with self._mutex:
                self._note(
                    "index", f"the index cannot be written ({error}); searches go on without it"
                )


def check_complete(episode: Episode) -> None:
    """Raises `ValueError` for a valid episode that could not be told apart, or kept from
    anybody."""
    if not episode.id:
        raise ValueError(
            "an episode without an id cannot be added; give it one that is unique in this memory"
        )
    for name in ("identity", "split"):
        if not normal_text(getattr(episode.task, name)):  # as the holdout looks at it
            raise ValueError(
                f"episode {episode.id!r} has no task {name}, so nobody could be kept from it: fill "
                "it in"
            )
