"""Vectors for the benchmarks of the memory: seeded, of unit length, in the shapes that real
embeddings have.

Every distribution is a function of how many, of which dimension, and a seed. The same arguments
always give the same vectors; entries and queries are cut from one array, so that queries are
distributed as what they ask for.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def clustered(count: int, dimension: int, seed: int) -> Vectors:
    """Unit vectors in 2,000 clusters, as goals of the same kind are, shape (count, dimension).

    The centres are the same for all seeds.
    """
    centres = np.random.default_rng(0).standard_normal((2000, dimension), dtype=np.float32)
    generator = np.random.default_rng(seed)
    points = centres[generator.integers(0, len(centres), count)]
    points += 0.6 * generator.standard_normal((count, dimension), dtype=np.float32)
    return _unit(points)


def uniform(count: int, dimension: int, seed: int) -> Vectors:
    """Unit vectors in all directions alike, shape (count, dimension): the hardest case for a
    graph."""
    return _unit(np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32))


def identical(count: int, dimension: int, seed: int) -> Vectors:
    """Clustered vectors, each of them many times, shape (count, dimension): goals that are repeated
    to the letter.

    On average twenty are equal: a handful of a rare one, some per cent of all of the most frequent
    one.
    """
    distinct = clustered(max(1, count // 20), dimension, seed)
    popularity = np.random.default_rng(seed + 1).random(count) ** 3
    return distinct[(len(distinct) * popularity).astype(np.int64)]


DISTRIBUTIONS: Mapping[str, Callable[[int, int, int], Vectors]] = {
    "clustered": clustered,
    "uniform": uniform,
    "identical": identical,
}


class Given:
    """An embedder that knows the vectors beforehand: embedding is not what is measured. A text is
    the number of a vector."""

    identity = "given"

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.dimension = vectors.shape[1]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Rows by number."""
        return np.ascontiguousarray(self._vectors[[int(text) for text in texts]])


def _unit(points: Vectors) -> Vectors:
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points
