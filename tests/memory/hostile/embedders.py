"""Embedders that a user may bring: of any dimension, with vectors that are spread, clustered, or
many times the same."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from relive.memory.search.embed import Vectors

DISTRIBUTIONS = ("clustered", "uniform", "identical")
NOISE = 0.15
"""Length of what is added to the centre of a cluster, whose length is 1."""
DISTINCT = 3
"""So many different vectors have nine of ten texts of the distribution ``identical``."""


class MadeEmbedder:
    """Vectors that follow from the text alone.

    Args:
        distribution: ``uniform``: any direction. ``clustered``: close to those of texts that begin
            with the same word. ``identical``: nine of ten texts have one of :data:`DISTINCT`
            vectors, the others any direction.
        dimension: of the vectors.
    """

    def __init__(self, distribution: str, dimension: int) -> None:
        assert distribution in DISTRIBUTIONS
        self.distribution, self.dimension = distribution, dimension

    @property
    def identity(self) -> str:
        """What the vectors depend on."""
        return f"made-{self.distribution}-{self.dimension}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 rows of unit length."""
        rows = [_vector(self.distribution, self.dimension, text) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), self.dimension)


def _seed(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little"
    )


@lru_cache(maxsize=2**14)
def _vector(distribution: str, dimension: int, text: str) -> NDArray[np.float64]:
    seed = _seed(text)
    vector = np.random.default_rng(seed).standard_normal(dimension)
    if distribution == "clustered" and " " in text:
        vector = _vector("uniform", dimension, text.split()[0]) + NOISE * vector / np.sqrt(
            dimension
        )
    elif distribution == "identical" and seed % 10:
        return _vector("uniform", dimension, f"vector {seed // 10 % DISTINCT}")
    return vector / np.linalg.norm(vector)


def clustered_goal(number: int, kind: int) -> str:
    """A goal whose vector is close to those of its kind, if the embedder clusters."""
    return f"kind{kind} thing {number}"
