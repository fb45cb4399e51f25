"""Choosing among candidates: similarity, what helped, and not the same thing twice."""

import numpy as np
import pytest

from relive.memory.search.embed import Vectors
from relive.memory.search.rank import choose


def unit(*degrees: float) -> Vectors:
    """Vectors in a plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def similarity(vectors: Vectors) -> Vectors:
    """With the vector at zero degrees."""
    return np.einsum("ij,j->i", vectors, unit(0)[0])


def test_without_diversity_it_is_the_order_by_similarity_and_bonus() -> None:
    """Ties go to the earlier one; no vectors are needed."""
    chosen = choose(
        np.array([0.9, 0.8, 0.8, 0.5]), np.array([0.0, 0.0, 0.0, 0.35]), np.empty((4, 0)), 4, 0.0
    )
    assert [index for index, _, _ in chosen] == [0, 3, 1, 2]
    assert [score for _, score, _ in chosen] == pytest.approx([0.9, 0.85, 0.8, 0.8])
    assert [redundancy for _, _, redundancy in chosen] == [0, 0, 0, 0]


def test_k_and_nothing_to_choose_from() -> None:
    """No more than there are, no more than are wanted."""
    assert choose(np.empty(0), np.empty(0), np.empty((0, 2)), 3, 0.5) == []
    assert choose(np.array([1.0]), np.zeros(1), unit(0), 0, 0.5) == []
    assert len(choose(np.array([1.0]), np.zeros(1), unit(0), 3, 0.5)) == 1


def test_what_says_the_same_comes_later() -> None:
    """Two copies of the best and one that differs: the copy waits, and says why."""
    vectors = unit(10, 10, -40)
    chosen = choose(similarity(vectors), np.zeros(3), vectors, 3, 0.5)
    assert [index for index, _, _ in chosen] == [0, 2, 1]
    assert [redundancy for _, _, redundancy in chosen] == pytest.approx(
        [0, np.cos(np.radians(50)), 1]
    )
    assert chosen[1][1] == pytest.approx(
        0.5 * np.cos(np.radians(40)) - 0.5 * np.cos(np.radians(50))
    )
    assert [
        index for index, _, _ in choose(similarity(vectors), np.zeros(3), vectors, 3, 0.01)
    ] == [0, 1, 2]


def test_redundancy_is_with_the_closest_chosen() -> None:
    """Not with the last one."""
    vectors = unit(0, 80, 1)
    chosen = choose(similarity(vectors), np.array([0.0, 0.9, 0.0]), vectors, 3, 0.3)
    assert [index for index, _, _ in chosen] == [1, 0, 2]
    assert chosen[2][2] == pytest.approx(np.cos(np.radians(1)))


def test_against_the_definition() -> None:
    """Carbonell and Goldstein's formula, written out."""
    generator = np.random.default_rng(0)
    for diversity in (0.0, 0.2, 0.7, 0.99):
        vectors = generator.standard_normal((30, 6))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        close = np.sort(generator.random(30))[::-1]
        bonus = generator.normal(0, 0.2, 30)
        expected: list[int] = []
        while len(expected) < 10:
            worth = {
                i: (1 - diversity) * (close[i] + bonus[i])
                - diversity * max((float(vectors[i] @ vectors[j]) for j in expected), default=0.0)
                for i in range(30)
                if i not in expected
            }
            expected.append(max(worth, key=lambda i: (worth[i], -i)))
        assert [index for index, _, _ in choose(close, bonus, vectors, 10, diversity)] == expected
