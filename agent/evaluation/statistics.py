"""The study's statistics: intervals and tests for outcomes that come in clusters, and correction
for many of them.

Tasks of one room played by one trained model are not independent, so (room, seed) and not the task
is what gets resampled. With few clusters (say below 30) percentile intervals of a cluster bootstrap
are somewhat too narrow (Cameron, Gelbach & Miller 2008); the permutation test is exact at any
number of them.

Sources: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), ch. 8 and 13; A. C.
Cameron, J. B. Gelbach and D. L. Miller, Review of Economics and Statistics 90 (2008), on resampling
clusters; A. B. Owen, Annals of Applied Statistics 1 (2007), on crossed ones; B. Phipson and G. K.
Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010), on p-values of sampled
permutations; S. Holm, Scandinavian Journal of Statistics 6 (1979).
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Outcomes = Mapping[Any, float] | Sequence[float] | NDArray[Any]
"""By task, or in the order of the tasks."""

EXACT = 14
"""Clusters up to which all sign flips are enumerated (16,384)."""
BLOCK = 2_000_000
"""Numbers drawn at once: 16 MB. The results do not depend on it."""
_RELATIVE = 1e-9  # sums that differ by less are ties


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Two conditions on the same tasks."""

    n: int
    """Tasks."""
    clusters: int
    difference: float
    """Mean of the first minus mean of the second."""
    low: float
    """Lower end of the interval of the difference."""
    high: float
    p: float
    """Two-sided, of no difference in any cluster."""


def cluster_interval(
    values: Sequence[float] | NDArray[Any],
    clusters: Sequence[Hashable],
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bootstrap percentile interval of a mean, resampling whole clusters with replacement.

    The result does not depend on the order of the values.

    Args:
        values: [n], any finite numbers.
        clusters: [n], the cluster of each value.
        draws: bootstrap samples.
        seed: of the draws.
        level: coverage asked for, in (0, 1).

    Raises:
        ValueError: no values, a value that is not finite, lengths that differ, fewer than two
            clusters (their spread is then unknown), or settings out of range.
    """
    sums, counts = _per_cluster(_checked(values, "values"), clusters)
    return _interval(sums, counts, draws, level, np.random.default_rng([seed, 0]))


def crossed_interval(
    values: Sequence[float] | NDArray[Any],
    rows: Sequence[Hashable],
    columns: Sequence[Hashable],
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bootstrap percentile interval of a mean where two things vary that are crossed, as rooms and
    trainings are: both are drawn with replacement, apart from each other. Conservative (Owen 2007).

    Args:
        values: [n], any finite numbers.
        rows: [n], the first label of each value.
        columns: [n], the second one.
        draws: bootstrap samples; those that meet no value are left out.
        seed: of the draws.
        level: coverage asked for, in (0, 1).

    Raises:
        ValueError: what `cluster_interval` raises, for rows and columns alike.
    """
    array = _checked(values, "values")
    both = list(zip(rows, columns, strict=True))
    if array.size != len(both):
        raise ValueError(f"{array.size} values need as many labels, got {len(both)}")
    first, second = ({label: i for i, label in enumerate(dict.fromkeys(some))}
                     for some in (rows, columns))  # fmt: skip
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"{len(first)} rows and {len(second)} columns: at least two of each are needed to see "
            "how much they differ"
        )
    sums, counts = np.zeros((2, len(first), len(second)))
    for value, (row, column) in zip(array, both, strict=True):
        sums[first[row], second[column]] += value
        counts[first[row], second[column]] += 1
    rng = np.random.default_rng([seed, 2])
    by_row, by_column = (
        rng.multinomial(size, np.full(size, 1 / size), size=draws).astype(np.float64)
        for size in sums.shape
    )  # [draws, rows], [draws, columns]
    met = np.einsum("dr,rc,dc->d", by_row, counts, by_column, optimize=True)
    total = np.einsum("dr,rc,dc->d", by_row, sums, by_column, optimize=True)
    low, high = np.quantile(total[met > 0] / met[met > 0], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    first: Outcomes,
    second: Outcomes,
    clusters: Mapping[Any, Hashable] | Sequence[Hashable],
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Difference of two conditions on the same tasks, its interval, and a test of there being none.

    The interval is that of `cluster_interval` for the differences. The test flips the sign of all
    differences of a cluster together: without a difference between the conditions, each cluster's
    could as well have come out the other way round. All flips are counted where at most `EXACT`
    clusters have a sum other than zero (flipping the others changes nothing); else `draws` random
    ones, with the +1 correction.

    Args:
        first: outcomes, usually 0 or 1, by task or as [n].
        second: the same; of mappings, only the tasks that both have count.
        clusters: the cluster of each task, by task or as [n]; a mapping may hold more tasks.
        draws: bootstrap samples, and sampled flips.
        seed: of both.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: nothing is paired, a paired task has no cluster, mappings and arrays are mixed,
            or what `cluster_interval` raises.
    """
    a, b, labels = _paired(first, second, clusters)
    sums, counts = _per_cluster(a - b, labels)
    low, high = _interval(sums, counts, draws, level, np.random.default_rng([seed, 0]))
    p = _sign_flip(sums, draws, np.random.default_rng([seed, 1]))
    return PairedDifference(a.size, sums.size, float((a - b).mean()), low, high, p)


def holm(p_values: Sequence[float] | NDArray[Any]) -> list[float]:
    """Holm's step-down adjustment: reject where the result is at most the error rate wanted for the
    whole family.

    Args:
        p_values: [m], in [0, 1], in any order.

    Returns:
        [m], in the order given; in the order of the p-values they never fall, and none exceeds 1.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p-values must be a list of numbers in [0, 1], got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _checked(values: Sequence[float] | NDArray[Any], what: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.all(np.isfinite(array)):
        raise ValueError(
            f"{what} must be a flat list of finite numbers, got shape {array.shape} of "
            f"{array.tolist()!r:.80}"
        )
    return array


def _paired(
    first: Outcomes, second: Outcomes, clusters: Mapping[Any, Hashable] | Sequence[Hashable]
) -> tuple[Floats, Floats, Sequence[Hashable]]:
    """Outcomes and clusters of the paired tasks, side by side."""
    if isinstance(first, Mapping) and isinstance(second, Mapping) and isinstance(clusters, Mapping):
        tasks = [task for task in first if task in second]
        if not tasks:
            raise ValueError(
                f"nothing is paired: the first has {len(first)} tasks, the second {len(second)}, "
                "and none in common; "
                "compare conditions played on one task list"
            )
        lost = [task for task in tasks if task not in clusters]
        if lost:
            raise ValueError(
                f"{len(lost)} paired tasks have no cluster, for example {lost[0]!r}: give each "
                "task its own"
            )
        a, b = [first[task] for task in tasks], [second[task] for task in tasks]
        return _checked(a, "first"), _checked(b, "second"), [clusters[task] for task in tasks]
    if isinstance(first, Mapping) or isinstance(second, Mapping) or isinstance(clusters, Mapping):
        raise ValueError(
            "first, second and clusters must be three mappings by task or three lists in one "
            "order, not a mix"
        )
    x, y = _checked(first, "first"), _checked(second, "second")
    if x.size != y.size:
        raise ValueError(
            f"lists are paired by position, but first has {x.size} outcomes and second {y.size}"
        )
    if not x.size:
        raise ValueError("nothing is paired: both lists are empty")
    return x, y, clusters


def _per_cluster(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum and number of the values of each cluster, both [clusters]."""
    if values.size != len(clusters):
        raise ValueError(f"{values.size} values need as many cluster labels, got {len(clusters)}")
    number: dict[Hashable, int] = {}
    codes = [number.setdefault(label, len(number)) for label in clusters]
    if len(number) < 2:
        raise ValueError(
            f"{values.size} values in {len(number)} clusters: at least two clusters are needed to "
            "see how much they differ"
        )
    sums, counts = (
        np.bincount(codes, weights=values).astype(np.float64),
        np.bincount(codes).astype(np.float64),
    )
    order = np.lexsort(
        (counts, sums)
    )  # draws then do not depend on the order in which clusters are met
    return sums[order], counts[order]


def _interval(
    sums: Floats, counts: Floats, draws: int, level: float, rng: np.random.Generator
) -> tuple[float, float]:
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws must be at least 1 and level in (0, 1), got {draws} and {level}")
    shares = np.full(sums.size, 1 / sums.size)
    means = [
        (times @ sums) / (times @ counts)
        for size in _blocks(draws, sums.size)
        for times in [rng.multinomial(sums.size, shares, size=size)]  # [size, clusters]
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sign_flip(sums: Floats, draws: int, rng: np.random.Generator) -> float:
    """Two-sided p-value of the total under sign flips of its parts."""
    parts = np.sort(
        np.abs(sums[sums != 0])
    )  # a part and its negative flip alike, so p is the same both ways round
    reached = abs(float(sums.sum())) - _RELATIVE * float(parts.sum())
    if parts.size <= EXACT:
        flips = (np.arange(2**parts.size)[:, None] >> np.arange(parts.size)) & 1  # [2^parts, parts]
        return float(np.mean(np.abs(2 * (flips @ parts) - parts.sum()) >= reached))
    extreme = 0
    for size in _blocks(draws, parts.size):
        flips = rng.integers(0, 2, size=(size, parts.size), dtype=np.int8)
        extreme += int(np.sum(np.abs(2 * (flips @ parts) - parts.sum()) >= reached))
    return (extreme + 1) / (draws + 1)


def _blocks(draws: int, width: int) -> Iterator[int]:
    """Sizes of the parts into which draws of so many numbers each are cut."""
    most = max(1, BLOCK // width)
    for start in range(0, draws, most):
        yield min(most, draws - start)
