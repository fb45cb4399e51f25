"""One kind of field and everything that finds by it: the vectors of all episodes' texts of that
kind, and a graph of them.

Small spaces are searched by comparing everything, which is right by definition. From `exact_limit`
rows on a graph proposes candidates where it was measured to find them
(:mod:`relive.memory.search.accuracy`); the rows that came after it are compared one by one, so
nothing that was added is ever missed. The writer's graph grows with every addition, a few rows at a
time, and is published now and then; readers load what was published and add nothing.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..storage.catalog import Filter
from ..storage.rows import Numbers
from .accuracy import EQUAL, draw, measured, recall
from .embed import Vectors
from .index import IndexSettings, Lock, Measured, VectorIndex
from .snapshots import SnapshotFolder
from .vectors import WINDOW_BITS, Embed, VectorColumn, column_name

WIDEST = 2048
"""More candidates than this are taken by exact search: a graph is slow at that and no longer
complete."""
SPREAD = 16
"""Rows that go into the graph at once: what a search in another thread has to wait for at most."""
CATCHES_UP = 16_384
"""The same, at most, for an index that takes many at once and was left behind."""
DECIMALS = 5
"""Scores are rounded to so many decimals before they are compared: what lies beyond is rounding
error, which differs between processors, and must not decide which of two equally close episodes is
shown."""
MEASURE_AGAIN = 2.0
"""A graph that has grown by this factor is measured again before it is published."""
MANY = 4
"""Where more than one row in so many is to be compared, all of them are."""
POOR = 0.9
"""A published graph that finds less than this share of a sample is reported by `verify`."""
_TAKEN = (
    256  # rows whose vectors are copied at once: what is multiplied stays in the processor's cache
)


class Found(NamedTuple):
    """Candidates for an answer."""

    ordinals: Numbers
    """Episodes, ascending."""
    scores: Vectors
    """Of each episode's closest row."""
    exact: bool
    """Whether every row was compared."""
    floor: float
    """No episode that is not among these has a higher score."""


class Wanted(NamedTuple):
    """Which episodes a search wants, in both ways of saying it."""

    filter: Filter
    mask: NDArray[np.bool_]
    """Of the episodes that may be found, by ordinal."""


class FieldIndex:
    """The rows of one field. Not thread-safe.

    Args:
        folder: of the memory.
        field: name of the field.
        identity: of the embedder.
        dimension: of its vectors.
        memory: id of the memory.
        embed: embeds the texts of rows.
        able: whether it can; see :class:`VectorColumn`.
        writable: whether anything is written.
        settings: of the graph.
        columns: what filters look at, by sequence numbers; for indexes that filter.
    """

    def __init__(
        self,
        folder: Path,
        *,
        field: str,
        identity: str,
        dimension: int,
        memory: bytes,
        embed: Embed,
        writable: bool,
        settings: IndexSettings,
        able: bool = True,
        columns: Callable[[Numbers], Mapping[str, NDArray[Any]]] | None = None,
    ) -> None:
        self.field, self.dimension, self._writable, self._settings = (
            field,
            dimension,
            writable,
            settings,
        )
        self.column = VectorColumn(
            folder / "vectors" / f"{column_name(identity, field)}.vec",
            identity=identity,
            dimension=dimension,
            memory=memory,
            embed=embed,
            writable=writable,
            able=able,
        )
        told: dict[str, Any] = {
            "memory": memory, "identity": identity, "key": field, "dimension": dimension,
            "settings": settings,
        }  # fmt: skip
        if settings.engine == "lancedb" and columns is not None:
            from .lance import LanceFolder

            self.snapshots: SnapshotFolder = LanceFolder(folder / "index", columns=columns, **told)
        else:
            self.snapshots = SnapshotFolder(folder / "index", **told)
        self.graph: VectorIndex | None = None
        self.covered = 0
        """Leading rows that the graph holds."""
        self.published = 0
        """Leading rows that the published snapshot holds."""
        self.ef = 0
        """Candidates that a search has to keep at hand; 0: the graph does not find what it should,
        or was not measured."""
        self.reach = -1.0
        """Queries that are less similar to everything than this are compared with all rows."""
        self._measured = 0  # rows that the graph held when that was found out
        self._position = -1  # log position of the snapshot that was loaded or published

    @property
    def exact_limit(self) -> int:
        """Rows up to which all are compared."""
        return self._settings.exact_limit

    def load_graph(self, lock: Lock | None = None) -> None:
        """Take the published graph if there is a newer one than the one at hand; a writer does so
        once.

        `lock` guards the space; it is held only while nothing is read from the disk.
        """
        lock = lock or nullcontext()
        if self._writable and self.graph is not None:
            return
        found = self.snapshots.load(self.column, self._position, lock)
        if found is None:
            return
        graph, manifest = found
        ef, reach = manifest.ef, manifest.reach
        if ef < 0:  # published before that was measured
            with lock:
                known = self.column.sure(0, manifest.rows) == manifest.rows
            if not known:
                return
            ef, reach = measured(graph, self.column, manifest.rows, self._settings, lock)
        with lock:
            self.graph, self.ef, self.reach = graph, ef, reach
            self._position = manifest.position
            self.covered = self.published = self._measured = manifest.rows

    def drop_graph(self) -> None:
        """Forget the graph; searches compare everything until there is another."""
        self.graph, self.ef, self._position = None, 0, -1
        self.covered = self.published = self._measured = 0

    def grow(self, rows: int, small: bool = False) -> bool:
        """Add up to `rows` rows to the graph; whether there are more. `small`: even where all can
        be compared as well."""
        total = len(self.column)
        if (
            not self._writable
            or not total
            or (self.graph is None and total <= self._settings.exact_limit and not small)
        ):
            return False
        if self.column.sure(self.covered, min(total, self.covered + 1)) == self.covered:
            return False
        if self.graph is None:
            self.graph = self.snapshots.fresh(max(1024, total * 3 // 2))
            self.covered = 0
        waiting = total - self.covered
        if waiting < self.graph.least and not small:
            return False
        if self.graph.least > 1:  # every addition costs as much as many rows
            rows = max(rows, self.graph.least, min(CATCHES_UP, waiting // 16))
        stop = self.column.sure(self.covered, min(total, self.covered + rows))
        numbers = np.arange(self.covered, stop)
        self.graph.add(self.column.take(numbers), self.column.labels[numbers])
        self.covered = stop
        return stop < total

    @property
    def publishing_is_due(self) -> bool:
        """Whether the rows that are in the graph and not in the published one are worth a new
        snapshot."""
        least = max(self._settings.publish_rows, self._settings.publish_growth * self.published)
        return self.covered - self.published > least

    @property
    def stale(self) -> bool:
        """Whether so much of the graph was compacted away that it should be built anew."""
        return (
            self.graph is not None and self.covered < (1 - self._settings.stale) * self.graph.nodes
        )

    def proposes(self, rows: int) -> bool:
        """Whether the graph proposes candidates where so many rows may be seen; if not, all are
        compared."""
        # A graph that knows more than may be seen is not used: the answer must not depend on when
        # it was made.
        used = self.graph is not None and self.ef > 0 and rows >= self.covered
        return used and rows > self._settings.exact_limit and not self.stale

    def publish(self, position: int, lock: Lock | None = None) -> None:
        """Publish the graph as it is, measured; `lock` as in :meth:`load_graph`.

        Raises:
            OSError: it cannot be written; the old snapshot remains.
        """
        if self.graph is None:
            return
        lock = lock or nullcontext()
        if self.covered >= MEASURE_AGAIN * self._measured:
            self.measure(lock)
        self.published = self.snapshots.publish(
            self.graph, self.column, position, Measured(self.ef, self.reach), lock
        )
        self._position = position

    def measure(self, lock: Lock) -> None:
        """Find out what it takes for the graph to find what it should; `lock` as in
        :meth:`load_graph`."""
        if self.graph is not None:
            with lock:
                rows = self.covered
            found = measured(self.graph, self.column, rows, self._settings, lock)
            with lock:
                self.ef, self.reach = found
                self._measured = rows

    def verify(self) -> None:
        """Look at every row, and compare other answers of the graph than it was measured with to
        the exact ones."""
        self.column.check_all()
        if self.graph is None or not self.ef or self.covered <= self._settings.exact_limit:
            return
        if self.column.sure(0, self.covered) < self.covered:
            return  # what the exact answers are is not known
        of = self.graph, self.column, self.covered
        own, near, *_ = draw(self.column, self.covered, seed=1)
        share = min(recall(*of, sample, self.ef) for sample in (own, near))
        if share >= self._settings.recall:
            return
        needed = measured(*of, self._settings, seed=1).ef
        self.ef = max(self.ef, needed) if needed else 0
        if share < POOR:
            self.snapshots.report(f"finds {share:.2f} of what it should (rebuild it)")

    def drop(self, kept: NDArray[np.bool_], position: int) -> None:
        """Leave out rows, shape (rows,); the graph keeps their labels until it is built anew."""
        self.column.drop(kept)
        self.covered = int(np.count_nonzero(kept[: self.covered]))
        self.published = int(np.count_nonzero(kept[: self.published]))
        self.snapshots.renumber(self.column, position)

    @property
    def filters(self) -> bool:
        """Whether its candidates can be only those that a search wants."""
        return self.graph is not None and self.graph.filters

    def candidates(
        self,
        vector: Vectors,
        count: int,
        sequences: Numbers,
        among: Numbers | None = None,
        wanted: Wanted | None = None,
    ) -> Found:
        """About the `count` closest episodes, with the score of each's closest row.

        Args:
            vector: of the query, shape (dimension,).
            count: how many are wanted; all of them if there are not more.
            sequences: of the episodes that may be found, ascending; an ordinal is a place in it.
            among: only these ordinals are compared, all of them.
            wanted: only these are proposed, where `filters`; the floor is that of the others.
        """
        if len(sequences) == 0:
            return Found(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), True, -np.inf)
        labels, stop = self.column.labels, self._visible(sequences)
        if among is not None:
            rows = _rows_of(labels[:stop], sequences[among])
            if MANY * len(rows) < stop:
                scores = self._scored(vector, rows)
            else:  # reading one row after the other is faster than picking rows
                scores = self.column.scores(vector, 0, stop)[rows]
            return self._best(rows, scores, sequences, count, exact=True)
        found = None
        if self.graph is not None and self.proposes(stop) and count < min(len(sequences), WIDEST):
            # What was compacted away is found as well, and passed over.
            asked = -(-count * self.graph.nodes // self.covered)
            found = self.graph.search(vector, asked, self.ef, wanted.filter if wanted else None)
        rows, scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        if found is not None:
            rows = self.column.places(found[0], self.covered)
            scores = self._scored(vector, rows)
        if found is None or scores.max(initial=-np.inf) < self.reach - EQUAL:
            if wanted is not None:
                return self.candidates(vector, count, sequences, np.flatnonzero(wanted.mask))
            rows = np.arange(stop)
            return self._best(
                rows, self.column.scores(vector, 0, stop), sequences, count, exact=True
            )
        if stop > self.covered:
            late = np.arange(self.covered, stop)
            more = self.column.scores(vector, self.covered, stop)
            if wanted is not None:
                kept = wanted.mask[np.searchsorted(sequences, labels[late] >> WINDOW_BITS)]
                late, more = late[kept], more[kept]
            rows = np.concatenate([rows, late])
            scores = np.concatenate([scores, more])
        best = self._best(rows, scores, sequences, count, exact=False)
        return best._replace(floor=max(best.floor, round(found[1], DECIMALS)))

    def _visible(self, sequences: Numbers) -> int:
        """How many leading rows are of these episodes or of ones before them."""
        labels, last = self.column.labels, (int(sequences[-1]) + 1) << WINDOW_BITS
        if len(labels) and labels[-1] >= last:
            return int(np.searchsorted(labels, last))
        return len(labels)

    def approximate(self, sequences: Numbers) -> bool:
        """Whether candidates among these episodes, ascending, are proposed by the graph."""
        return len(sequences) > 0 and self.proposes(self._visible(sequences))

    def vectors_of(self, sequences: Numbers) -> Vectors:
        """The vector of each of these episodes' first text, shape (len(sequences), dimension)."""
        return self.column.take(np.searchsorted(self.column.labels, sequences << WINDOW_BITS))

    def _scored(self, vector: Vectors, rows: Numbers) -> Vectors:
        # By the same sum as exact search, so that equal vectors get equal scores.
        parts = [
            np.einsum("ij,j->i", self.column.take(rows[low : low + _TAKEN]), vector)
            for low in range(0, len(rows), _TAKEN)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def _best(
        self, rows: Numbers, scores: Vectors, sequences: Numbers, count: int, *, exact: bool
    ) -> Found:
        """The `count` best episodes among scored rows (ascending), everything equal to the last of
        them included."""
        scores = np.round(scores, DECIMALS)
        if self.field == "goal" and len(self.column) == len(sequences):
            ordinals = rows  # one row for every episode
        else:
            ordinals = np.searchsorted(sequences, self.column.labels[rows] >> WINDOW_BITS)
            if self.field == "window":  # several rows of one episode
                begins = np.flatnonzero(np.diff(ordinals, prepend=-1))
                ordinals, scores = ordinals[begins], np.maximum.reduceat(scores, begins)
        floor = -np.inf
        if count < len(scores):
            floor = float(np.partition(scores, len(scores) - count)[len(scores) - count])
            kept = np.flatnonzero(scores >= floor)
            ordinals, scores = ordinals[kept], scores[kept]
        return Found(ordinals, scores, exact, floor)


def _rows_of(labels: Numbers, sequences: Numbers) -> Numbers:
    """All rows of these episodes, ascending."""
    low = np.searchsorted(labels, np.sort(sequences) << WINDOW_BITS)
    high = np.searchsorted(labels, (np.sort(sequences) + 1) << WINDOW_BITS)
    if len(low) and (high - low == 1).all():
        return low
    return np.concatenate(
        [np.arange(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)] or [low]
    )
