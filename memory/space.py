"""One kind of key and everything that finds by it: the vectors of all episodes' texts of that kind, and a graph of them.

Small spaces are searched by comparing everything, which is right by definition. From :data:`EXACT_LIMIT` rows on a graph proposes
candidates; the rows that came after it are compared one by one, so nothing that was added is ever missed. The writer's graph
grows with every addition, a few rows at a time, and is published now and then; readers load what was published and add nothing.
"""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memory.embed import Vectors
from memory.index import DEAD, Graph, Lock, SnapshotFolder
from memory.rows import Numbers
from memory.vectors import WINDOW_BITS, Embed, VectorColumn, column_name

EXACT_LIMIT = 10_000
"""Up to this many rows every search compares all of them. At 384 dimensions that takes 0.4 ms, is right by
definition, and does not suffer from what graphs are bad at: hundreds of goals that are nearly equally close."""
LEAST_TAIL = 2000
GROWTH = 0.15
"""A snapshot is due once more than LEAST_TAIL rows, and more than this share of the last one, came after it."""
WIDEST = 2048
"""More candidates than this are taken by exact search: a graph is slow at that and no longer complete."""
SPREAD = 16
"""Rows that go into the graph at once: what a search in another thread has to wait for at most."""
DECIMALS = 5
"""Scores are rounded to so many decimals before they are compared: what lies beyond is rounding error, which differs
between processors, and must not decide which of two equally close episodes is shown."""

Found = tuple[Numbers, Vectors, bool]
"""Ordinals of episodes, ascending, the score of each, and whether every row was compared."""


class KeySpace:
    """The rows of one key. Not thread-safe.

    Args:
        folder: of the memory.
        key: name of the key.
        identity: of the embedder.
        dimension: of its vectors.
        memory: id of the memory.
        embed: embeds the texts of rows.
        writable: whether anything is written.
    """

    def __init__(
        self, folder: Path, *, key: str, identity: str, dimension: int, memory: bytes, embed: Embed, writable: bool
    ) -> None:
        self.key, self.dimension, self._writable = key, dimension, writable
        self.column = VectorColumn(
            folder / "vectors" / f"{column_name(identity, key)}.vec",
            identity=identity,
            dimension=dimension,
            memory=memory,
            embed=embed,
            writable=writable,
        )
        self.snapshots = SnapshotFolder(
            folder / "index", memory=memory, identity=identity, key=key, dimension=dimension
        )
        self.graph: Graph | None = None
        self.covered = 0
        """Leading rows that the graph holds."""
        self.published = 0
        """Leading rows that the published snapshot holds."""
        self._position = -1  # log position of the snapshot that was loaded or published

    def load_graph(self, lock: Lock | None = None) -> None:
        """Take the published graph if there is a newer one than the one at hand; a writer does so once.

        `lock` guards the space; it is held only while nothing is read from the disk.
        """
        lock = lock or nullcontext()
        if self._writable and self.graph is not None:
            return
        found = self.snapshots.load(self.column, self._position, lock)
        if found is not None:
            with lock:
                self.graph, self.covered, self._position = found
                self.published = self.covered

    def drop_graph(self) -> None:
        """Forget the graph; searches compare everything until there is another."""
        self.graph, self.covered, self.published, self._position = None, 0, 0, -1

    def grow(self, rows: int, small: bool = False) -> bool:
        """Add up to `rows` rows to the graph; whether there are more. `small`: even where all can be compared as well."""
        total = len(self.column)
        if not self._writable or not total or (self.graph is None and total <= EXACT_LIMIT and not small):
            return False
        if self.graph is None:
            self.graph, self.covered = Graph(self.dimension, max(1024, total * 3 // 2)), 0
        stop = min(total, self.covered + rows)
        if stop > self.covered:
            numbers = np.arange(self.covered, stop)
            self.graph.add(self.column.take(numbers), self.column.labels[numbers])
            self.covered = stop
        return stop < total

    @property
    def publishing_is_due(self) -> bool:
        """Whether the rows that are in the graph and not in the published one are worth a new snapshot."""
        return self.covered - self.published > max(LEAST_TAIL, GROWTH * self.published)

    @property
    def outlived(self) -> bool:
        """Whether so much of the graph is gone that it should be built anew."""
        return self.graph is not None and self.covered < (1 - DEAD) * self.graph.nodes

    def publish(self, position: int, lock: Lock | None = None) -> None:
        """Publish the graph as it is; `lock` as in :meth:`load_graph`.

        Raises:
            OSError: it cannot be written; the old snapshot remains.
        """
        if self.graph is not None:
            self.published = self.snapshots.publish(self.graph, self.column, position, lock or nullcontext())
            self._position = position

    def drop(self, kept: NDArray[np.bool_], position: int) -> None:
        """Leave out rows, shape (rows,); the graph keeps their labels until it is built anew."""
        self.column.drop(kept)
        self.covered = int(np.count_nonzero(kept[: self.covered]))
        self.published = int(np.count_nonzero(kept[: self.published]))
        self.snapshots.renumber(self.column, position)

    def candidates(self, vector: Vectors, count: int, sequences: Numbers, among: Numbers | None = None) -> Found:
        """About the `count` closest episodes, with the score of each's closest row.

        Args:
            vector: of the query, shape (dimension,).
            count: how many are wanted; all of them if there are not more.
            sequences: of the episodes that may be found, ascending; an ordinal is a place in it.
            among: only these ordinals, all of them compared.
        """
        labels = self.column.labels
        stop = len(labels)
        if len(sequences) == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), True
        last = (int(sequences[-1]) + 1) << WINDOW_BITS
        if stop and labels[-1] >= last:
            stop = int(np.searchsorted(labels, last))
        if among is not None:
            rows = _rows_of(labels[:stop], sequences[among])
            return self._best(rows, self._scored(vector, rows), sequences, len(among), exact=True)
        # A graph that knows more than may be seen: exact, so that the answer does not depend on when it was made.
        found = None
        if self.graph is not None and stop >= self.covered and count < min(len(sequences), WIDEST):
            found = self.graph.search(vector, count)
        if found is None:
            rows = np.arange(stop)
            return self._best(rows, self.column.scores(vector, 0, stop), sequences, count, exact=True)
        rows = _places(labels[: self.covered], found)
        scores = self._scored(vector, rows)
        if stop > self.covered:
            rows = np.concatenate([rows, np.arange(self.covered, stop)])
            scores = np.concatenate([scores, self.column.scores(vector, self.covered, stop)])
        return self._best(rows, scores, sequences, count, exact=False)

    def vectors_of(self, sequences: Numbers) -> Vectors:
        """The vector of each of these episodes' first text, shape (len(sequences), dimension)."""
        return self.column.take(np.searchsorted(self.column.labels, sequences << WINDOW_BITS))

    def _scored(self, vector: Vectors, rows: Numbers) -> Vectors:
        # By the same sum as exact search, so that equal vectors get equal scores.
        scores: Vectors = np.einsum("ij,j->i", self.column.take(rows), vector)
        return scores

    def _best(self, rows: Numbers, scores: Vectors, sequences: Numbers, count: int, *, exact: bool) -> Found:
        """The `count` best episodes among scored rows (ascending), everything equal to the last of them included."""
        scores = np.round(scores, DECIMALS)
        if self.key == "goal" and len(self.column) == len(sequences):
            ordinals = rows  # one row for every episode
        else:
            ordinals = np.searchsorted(sequences, self.column.labels[rows] >> WINDOW_BITS)
            if self.key == "window":  # several rows of one episode
                begins = np.flatnonzero(np.diff(ordinals, prepend=-1))
                ordinals, scores = ordinals[begins], np.maximum.reduceat(scores, begins)
        if count < len(scores):
            least = np.partition(scores, len(scores) - count)[len(scores) - count]
            kept = np.flatnonzero(scores >= least)
            ordinals, scores = ordinals[kept], scores[kept]
        return ordinals, scores, exact


def _rows_of(labels: Numbers, sequences: Numbers) -> Numbers:
    """All rows of these episodes, ascending."""
    low = np.searchsorted(labels, np.sort(sequences) << WINDOW_BITS)
    high = np.searchsorted(labels, (np.sort(sequences) + 1) << WINDOW_BITS)
    if len(low) and (high - low == 1).all():
        return low
    return np.concatenate([np.arange(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)] or [low])


def _places(ascending: Numbers, wanted: Numbers) -> Numbers:
    """Where some labels are among all that a graph was made of; labels of what is gone are passed over."""
    last = len(ascending) - 1
    if last < 0:
        return np.empty(0, dtype=np.int64)
    # Where nothing but episodes was ever recorded, the label says so; searching a large array misses the processor's cache.
    places = np.clip((wanted - ascending[0]) >> WINDOW_BITS, 0, last)
    right = ascending[places] == wanted
    if not right.all():
        places = np.minimum(np.searchsorted(ascending, wanted), last)
        right = ascending[places] == wanted
    found: Numbers = places[right]
    return found
