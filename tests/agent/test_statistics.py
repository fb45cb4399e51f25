"""The study's statistics, against simulations whose truth is known and against worked examples."""

from collections.abc import Callable, Hashable

import numpy as np
import pytest

from relive.agent.evaluation import statistics
from relive.agent.evaluation.statistics import (
    cluster_interval,
    crossed_interval,
    holm,
    paired_difference,
)


def outcomes(
    rng: np.random.Generator, clusters: int, size: int, spread: float, mean: float = 0.5
) -> np.ndarray:
    """0/1 outcomes [clusters * size]; each cluster's rate is off by up to `spread`."""
    rates = mean + rng.uniform(-spread, spread, clusters)
    return (rng.random((clusters, size)) < rates[:, None]).astype(float).ravel()


def labels(clusters: int, size: int) -> list[Hashable]:
    return [(f"room{i // 3}", i % 3) for i in range(clusters) for _ in range(size)]


# --- intervals
# --------------------------------------------------------------------------------------------------


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    repeats, clusters, size = 300, 40, 4
    covered = {"clusters": 0, "tasks": 0, "clusters, 50 %": 0}
    for seed in range(repeats):
        values = outcomes(rng, clusters, size, spread=0.5)
        for name, by, level in (
            ("clusters", labels(clusters, size), 0.95),
            ("tasks", list(range(values.size)), 0.95),
            ("clusters, 50 %", labels(clusters, size), 0.5),
        ):
            low, high = cluster_interval(values, by, draws=300, seed=seed, level=level)
            covered[name] += low <= 0.5 <= high
    assert 0.91 <= covered["clusters"] / repeats <= 0.98
    assert 0.42 <= covered["clusters, 50 %"] / repeats <= 0.58
    assert covered["tasks"] / repeats < 0.85  # what ignoring the clusters would do


def test_what_rooms_and_trainings_share_is_covered_by_drawing_both() -> None:
    rng = np.random.default_rng(7)
    rooms, trainings, repeats = 12, 6, 200
    rows, columns = (grid.ravel().tolist() for grid in np.indices((rooms, trainings)))
    pairs = list(zip(rows, columns, strict=True))
    crossed = pairwise = 0
    for seed in range(repeats):
        effects = rng.normal(0, 1, (rooms, 1)) + rng.normal(0, 1, (1, trainings))
        values = (effects + rng.normal(0, 0.3, (rooms, trainings))).ravel()
        low, high = crossed_interval(values, rows, columns, draws=400, seed=seed)
        crossed += low <= 0 <= high
        low, high = cluster_interval(values, pairs, draws=400, seed=seed)
        pairwise += low <= 0 <= high
    assert crossed / repeats > 0.85  # six trainings are few
    assert pairwise / repeats < 0.65


def test_what_is_missing_in_a_crossed_design_is_left_out() -> None:
    values, rows, columns = [1.0, 1.0, 0.0], ["a", "b", "b"], [0, 0, 1]
    low, high = crossed_interval(values, rows, columns)
    assert (low, high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="2 rows and 1 columns"):
        crossed_interval([1.0, 0.0], ["a", "b"], [0, 0])
    with pytest.raises(ValueError, match="3 values need as many labels"):
        crossed_interval(values, rows[:2], columns[:2])


def test_clusters_without_variation_inside_count_once() -> None:
    won = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    many, by = np.repeat(won, 25), labels(8, 25)
    low, high = cluster_interval(many, by)
    assert (low, high) == cluster_interval(won, labels(8, 1))
    naive_low, naive_high = cluster_interval(many, list(range(many.size)))
    assert high - low > 3 * (naive_high - naive_low)


def test_the_interval_agrees_with_the_normal_one_where_that_holds() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 2000)
    low, high = cluster_interval(values, list(range(2000)), draws=2000)
    error = 1.96 * values.std() / np.sqrt(values.size)
    assert (low, high) == pytest.approx(
        (values.mean() - error, values.mean() + error), abs=0.15 * error
    )


def test_clusters_of_different_sizes_weigh_by_their_tasks() -> None:
    values, by = [1.0] * 90 + [0.0] * 10, ["large"] * 90 + ["small"] * 10
    assert cluster_interval(values, by) == (0.0, 1.0)
    assert cluster_interval(values, by, level=0.4) == pytest.approx(
        (0.9, 0.9)
    )  # half of the samples hold each once


def test_results_depend_on_the_seed_and_not_on_order_or_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(5)
    values, by = outcomes(rng, 20, 5, spread=0.4), labels(20, 5)
    first = cluster_interval(values, by, draws=500)
    assert cluster_interval(values, by, draws=500) == first
    assert cluster_interval(values, by, draws=500, seed=1) != first
    order = rng.permutation(values.size)
    assert cluster_interval(values[order], [by[i] for i in order], draws=500) == first
    other = outcomes(rng, 20, 5, spread=0.4)
    compared = paired_difference(values, other, by, draws=500)
    monkeypatch.setattr(statistics, "BLOCK", 70)
    assert cluster_interval(values, by, draws=500) == first
    assert paired_difference(values, other, by, draws=500) == compared


# --- paired differences
# ----------------------------------------------------------------------------------------------


def test_only_tasks_that_both_have_are_paired() -> None:
    first = {"a": 1, "b": 1, "c": 0, "only first": 1}
    second = {"only second": 0, "c": 0, "b": 0, "a": 1}
    by = {
        "a": ("kitchen", 0),
        "b": ("kitchen", 0),
        "c": ("bath", 0),
        "only first": ("hall", 0),
        "unplayed": ("x", 1),
    }
    result = paired_difference(first, second, by)
    assert (result.n, result.clusters, 3 * result.difference) == (3, 2, 1.0)
    assert result == paired_difference(
        [1, 1, 0], np.array([1, 0, 0]), [("kitchen", 0), ("kitchen", 0), ("bath", 0)]
    )
    assert (result.low, result.high) == (0.0, 0.5)
    assert result.p == 1.0


def test_exact_p_of_a_worked_example() -> None:
    # Sums of the clusters 2, 1, 1, 0: of the 8 ways to flip those that are not 0, two reach a total
    # of 4 or -4. With 2, 1, -1, 0 the total is 2, and six ways reach as far.
    by = list("aabcd")
    assert paired_difference([1, 1, 1, 1, 1], [0, 0, 0, 0, 1], by).p == 2 / 8
    assert paired_difference([1, 1, 1, 0, 1], [0, 0, 0, 1, 1], by).p == 6 / 8
    assert paired_difference([1, 0, 1, 0, 1], [1, 0, 1, 0, 1], by).p == 1.0


def test_a_cluster_is_flipped_as_a_whole() -> None:
    first, second = [1.0] * 40, [0.0] * 40
    assert paired_difference(first, second, ["a"] * 20 + ["b"] * 20).p == 2 / 4
    assert paired_difference(first, second, list(range(40))).p == pytest.approx(1 / 10_001)


def test_exact_and_sampled_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    by = labels(12, 6)
    for mean in (0.5, 0.6, 0.7):
        first, second = outcomes(rng, 12, 6, 0.3, mean), outcomes(rng, 12, 6, 0.3)
        with monkeypatch.context() as patch:
            exact = paired_difference(first, second, by).p
            patch.setattr(statistics, "EXACT", 0)
            sampled = paired_difference(first, second, by, draws=20_000).p
        assert sampled != exact
        assert sampled == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


@pytest.mark.parametrize("clusters", [8, 30])
def test_p_is_the_same_both_ways_round(clusters: int) -> None:
    rng = np.random.default_rng(2)
    first, second = outcomes(rng, clusters, 5, 0.3, 0.6), outcomes(rng, clusters, 5, 0.3)
    there = paired_difference(first, second, labels(clusters, 5), draws=2000)
    back = paired_difference(second, first, labels(clusters, 5), draws=2000)
    assert there.p == back.p < 1
    assert there.difference == -back.difference
    assert there.low < there.difference < there.high
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.05)


def test_p_is_rarely_small_without_a_difference_and_often_with_one() -> None:
    rng = np.random.default_rng(21)
    repeats, clusters, size = 300, 24, 6
    by = labels(clusters, size)
    found = {"none": 0, "none, by task": 0, "some": 0}
    for seed in range(repeats):
        # Each cluster favours one of the two by chance: without a difference on average.
        favour = np.repeat(rng.uniform(-0.5, 0.5, clusters), size)
        first = (rng.random(favour.size) < 0.5 + favour).astype(float)
        second = (rng.random(favour.size) < 0.5 - favour).astype(float)
        better = (rng.random(favour.size) < 0.8).astype(float)
        found["none"] += paired_difference(first, second, by, draws=399, seed=seed).p <= 0.05
        found["none, by task"] += (
            paired_difference(first, second, range(favour.size), draws=399, seed=seed).p <= 0.05
        )
        found["some"] += paired_difference(better, second, by, draws=399, seed=seed).p <= 0.05
    assert 0.02 <= found["none"] / repeats <= 0.08
    assert found["none, by task"] / repeats > 0.12
    assert found["some"] / repeats > 0.9


# --- many of them
# --------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.02, 0.7]) == pytest.approx([1.0, 0.06, 1.0])
    assert holm(np.array([0.04])) == [0.04]
    assert holm([]) == []


def test_holm_never_falls_and_never_helps() -> None:
    p = np.random.default_rng(4).random(50) ** 3
    adjusted = np.array(holm(p))
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1.0, p * 50)).all()  # nor is it worse than Bonferroni's
    assert adjusted.max() == 1.0


# --- refusals
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: paired_difference({"a": 1}, {"b": 1}, {"a": 0, "b": 0}),
            "nothing is paired.*none in common",
        ),
        (lambda: paired_difference([], [], []), "nothing is paired"),
        (
            lambda: paired_difference({"a": 1, "b": 1}, {"a": 1, "b": 0}, {"a": 0}),
            "no cluster, for example 'b'",
        ),
        (lambda: paired_difference({"a": 1}, [1], ["x"]), "not a mix"),
        (lambda: paired_difference([1, 0], [1], ["x", "y"]), "first has 2 outcomes and second 1"),
        (lambda: paired_difference([1, 0], [1, 1], ["x"]), "as many cluster labels, got 1"),
        (lambda: cluster_interval([1.0, 0.0], ["x", "x"]), "at least two clusters"),
        (lambda: cluster_interval([], []), "at least two clusters"),
        (lambda: cluster_interval([1.0, float("nan")], ["x", "y"]), "finite"),
        (lambda: cluster_interval([1.0, 0.0], ["x", "y"], draws=0), "draws"),
        (lambda: cluster_interval([1.0, 0.0], ["x", "y"], level=95), "level"),
        (lambda: holm([0.5, 1.5]), r"in \[0, 1\]"),
        (lambda: holm([float("nan")]), r"in \[0, 1\]"),
    ],
)
def test_what_cannot_be_computed_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
