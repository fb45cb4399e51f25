"""Choosing among candidates that all qualify: by similarity, by what else speaks for them, not the
same thing twice."""

import numpy as np
from numpy.typing import NDArray

from .embed import Vectors

DIGITS = 6
"""Decimal places of a score that are compared; what differs by less is a tie."""
POOL = 8
"""Candidates per hit that are ranked when more than similarity counts, and :data:`LEAST_POOL` at
least."""
LEAST_POOL = 32


def pool_of(k: int) -> int:
    """How many of the most similar candidates the k-th hit is chosen from.

    It does not depend on how many hits follow, so the hits of a smaller k are the first of those of
    a larger one.
    """
    return max(LEAST_POOL, POOL * k)


def choose(
    similarity: NDArray[np.floating],
    bonus: NDArray[np.floating],
    vectors: Vectors,
    k: int,
    diversity: float,
) -> list[tuple[int, float, float]]:
    """The best `k` candidates, best first: (index, score, redundancy).

    Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): one after the other, the
    candidate with the highest ``(1 - diversity) * (similarity + bonus) - diversity * redundancy``,
    where redundancy is its similarity with the closest of those already chosen. With diversity 0
    that is the order by similarity and bonus. Ties go to the earlier candidate. Each is chosen from
    the :func:`pool_of` its place.

    Args:
        similarity: of each candidate with the query, shape (n,), descending.
        bonus: what is added to it, shape (n,).
        vectors: of the candidates, unit length, shape (n, dimension); not looked at without
            diversity.
        k: how many, at most.
        diversity: in [0, 1).
    """
    relevance = np.asarray(similarity, dtype=np.float64) + np.asarray(bonus, dtype=np.float64)
    redundancy = np.zeros(len(relevance))
    left = np.ones(len(relevance), dtype=np.bool_)
    chosen: list[tuple[int, float, float]] = []
    while left.any() and len(chosen) < k:
        pool = pool_of(len(chosen) + 1)
        scores = np.where(left, (1 - diversity) * relevance - diversity * redundancy, -np.inf)[
            :pool
        ]
        # Rounded: the last bits of such a sum are noise, and would decide between candidates that
        # are equally good.
        best = int(np.argmax(np.round(scores, DIGITS)))
        chosen.append((best, float(scores[best]), float(redundancy[best])))
        left[best] = False
        if diversity:
            near = np.einsum("ij,j->i", vectors, vectors[best])
            redundancy = near if len(chosen) == 1 else np.maximum(redundancy, near)
    return chosen
