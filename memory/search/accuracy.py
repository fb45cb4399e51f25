"""Whether a graph finds what it should: a sample of its answers, compared with the exact ones.

How many candidates an HNSW search has to keep at hand (``ef``) depends on the vectors: two hundred
do for goals in clusters, not for uniform vectors of a hundred dimensions, and no number does for
thousands of identical ones. So it is measured for each graph, and where no number is enough, all
rows are compared instead.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from .embed import Vectors
from .index import IndexSettings, Lock, Measured, VectorIndex
from .vectors import VectorColumn

SAMPLE = 64
"""Rows that are asked for, and queries close to rows."""
FAR = 32
"""Remote queries of each kind."""
REMOTE = (0.75, 0.5, 0.0)
"""How similar remote queries are to a row, as a share of the similarity of its closest other
row."""
NEIGHBOURS = 10
"""Closest rows that a search of the sample should find."""
WIDTH = 75
"""Candidates that a search of the sample takes from the graph: as many as those of small k do."""
EFFORTS = (1, 1.25, 1.5, 2, 3, 4, 8)
"""Multiples of the least ``ef`` that are tried."""
EQUAL = 1e-5
"""Scores that differ by no more than this are equal."""
_CHUNK = 4096  # rows that are compared while a search in another thread waits


class Sample(NamedTuple):
    """Queries of which the right answer is known."""

    queries: Vectors
    """Unit rows, shape (n, dimension)."""
    least: Vectors
    """Score of the last of the right neighbours of each, shape (n,)."""
    neighbours: int
    """How many are right for each."""
    reach: float
    """The least of the best scores."""

    def allowed(self, recall: float) -> float:
        """How many neighbours may be missed if that share of them is to be found."""
        return (1 - recall) * len(self.queries) * self.neighbours + 1e-9


def measured(
    graph: VectorIndex,
    column: VectorColumn,
    rows: int,
    settings: IndexSettings,
    lock: Lock | None = None,
    seed: int = 0,
) -> Measured:
    """The smallest ``ef`` with which a sample of searches finds `settings.recall` of the right ten.

    Args:
        graph: holds the first `rows` rows of the column.
        column: the vectors.
        rows: how many of its rows count.
        settings: the least ``ef`` and the recall that is wanted.
        lock: guards both; it is held for a few milliseconds at a time.
        seed: of the sample.
    """
    own, near, *remote = draw(column, rows, seed, lock)
    more: list[Sample] = []

    def finds(ef: int) -> bool:
        """Whether both kinds of queries find enough; where one narrowly does not, a second sample
        is asked as well, since chance decides that of a few neighbours."""
        for place, sample in enumerate((own, near)):
            allowed = sample.allowed(settings.recall)
            missed = misses(graph, column, rows, sample, ef, 2 * allowed, lock)
            if allowed < missed <= 2 * allowed:
                more.extend(() if more else draw(column, rows, seed + 1, lock)[:2])
                missed += misses(graph, column, rows, more[place], ef, 2 * allowed, lock)
                allowed *= 2
            if missed > allowed:
                return False
        return True

    for effort in EFFORTS:
        ef = round(effort * settings.ef)
        if finds(ef):
            break
    else:
        return Measured(0, near.reach)
    reach = near.reach
    for sample in remote:
        allowed = sample.allowed(settings.recall)
        if misses(graph, column, rows, sample, ef, allowed, lock) > allowed:
            return Measured(ef, reach)
        reach = min(reach, sample.reach)
    return Measured(ef, -1.0)


def recall(graph: VectorIndex, column: VectorColumn, rows: int, sample: Sample, ef: int) -> float:
    """Share of the right neighbours that the graph finds; arguments as of :func:`measured`."""
    if not sample.neighbours:
        return 1.0
    found = list(_found(graph, column, rows, sample, ef, None))
    return float(np.mean(found)) / sample.neighbours


def misses(
    graph: VectorIndex,
    column: VectorColumn,
    rows: int,
    sample: Sample,
    ef: int,
    most: float,
    lock: Lock | None = None,
) -> int:
    """How many of the right neighbours the graph does not find; counted until there are more than
    `most`, which is soon where `ef` is far too small. Other arguments as of :func:`measured`."""
    missed = 0
    for found in _found(graph, column, rows, sample, ef, lock):
        missed += sample.neighbours - found
        if missed > most:
            break
    return missed


def _found(
    graph: VectorIndex, column: VectorColumn, rows: int, sample: Sample, ef: int, lock: Lock | None
) -> Iterator[int]:
    """How many of the right neighbours the graph finds, for one query after the other."""
    for query, least in zip(sample.queries, sample.least, strict=True):
        with lock or nullcontext():
            answer = graph.search(query, min(WIDTH, rows), ef)
            if answer is None:
                right = 0
            else:
                near = column.take(column.places(answer[0], rows)) @ query
                right = int(np.count_nonzero(near >= least - EQUAL))
        yield min(sample.neighbours, right)


def draw(
    column: VectorColumn, rows: int, seed: int = 0, lock: Lock | None = None
) -> Sequence[Sample]:
    """Rows that are evenly spread; made-up queries, each about as far from one of them as the
    closest other row; and ever more remote ones (:data:`REMOTE`).

    Arguments as of :func:`measured`; another seed takes other rows.
    """
    generator = np.random.default_rng(seed)
    step = max(1, rows // SAMPLE)
    numbers = np.unique(
        np.minimum(np.arange(SAMPLE) * step + generator.integers(step, size=SAMPLE), rows - 1)
    )
    with lock or nullcontext():
        own = column.take(numbers)
    _, nearest = _exact(column, rows, own, lock)
    groups, some = [own], max(1, len(own) // FAR)
    for share in (1.0, *REMOTE):
        if share == REMOTE[0]:
            own, nearest = own[::some], nearest[::some]
        away = generator.standard_normal(own.shape, dtype=np.float32)
        away -= np.einsum("ij,ij->i", away, own)[:, None] * own
        away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), np.float32(1e-12))
        cosine = share * np.clip(nearest, 0, 1)[:, None]
        groups.append((cosine * own + np.sqrt(1 - cosine**2) * away).astype(np.float32))
    best, _ = _exact(column, rows, np.concatenate(groups), lock)
    return [
        Sample(queries, part.min(axis=0), len(part), float(part.max(axis=0).min()))
        for queries, part in zip(
            groups, np.split(best, np.cumsum([len(g) for g in groups[:-1]]), axis=1), strict=True
        )
    ]


def _exact(
    column: VectorColumn, rows: int, queries: Vectors, lock: Lock | None
) -> Sequence[Vectors]:
    """The best scores of each query, shape (neighbours, queries), and of the closest row that is
    not the same, (queries,)."""
    best = np.empty((0, len(queries)), dtype=np.float32)
    nearest = np.zeros(len(queries), dtype=np.float32)
    for low in range(0, rows, _CHUNK):
        with lock or nullcontext():
            scores = column.products(queries, low, min(low + _CHUNK, rows))
        nearest = np.maximum(nearest, np.where(scores < 1 - 10 * EQUAL, scores, 0).max(axis=0))
        best = np.concatenate([best, scores])
        if len(best) > NEIGHBOURS:
            best = np.partition(best, len(best) - NEIGHBOURS, axis=0)[-NEIGHBOURS:]
    return best, nearest
