"""A stream's results, recomputed from the records of its episodes: the matrix, the measures with
intervals, comparisons.

Intervals are bootstrapped over orders, over seeds and over the held-out tasks of each seed. Orders
and seeds are crossed, so they are drawn apart (Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 2007: never too narrow by much, often too wide), and the lives of a seed have their tasks
in common, so a draw of these counts in all its orders, stages and arms: the matrix of a draw is one
that could have been measured. An arm may have been run with more seeds than another; differences
are those of the lives of both.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....agent.evaluation.audit import summed
from ....agent.evaluation.records import Record
from ....agent.events import ResultsKnown
from .continual import MEASURES, measures

Row = dict[str, Any]
Outcomes = dict[str, list[NDArray[np.float64]]]
"""By name of stage: after each stage, whether each task was solved; arrays of shape (tasks,)."""
Lives = dict[tuple[int, int], tuple[list[str], Outcomes]]
"""By order and seed: the names of the stages in the order in which they were met, and the
outcomes."""

DRAWS = 2000
COMPARISONS = (
    ("both", "memory"),
    ("both", "adapter"),
    ("both", "frozen-memory"),
    ("both-exploring", "both"),
    ("both-exploring", "memory"),
    ("memory", "none"),
    ("adapter", "none"),
)
"""Pairs of arms; bounded ones are compared with ``both`` as well."""


def rows_of(records: Iterable[Record]) -> list[Row]:
    """Success of every life after each stage on the tasks of each."""
    cells: dict[tuple[str, int, int, int, str], list[Record]] = {}
    for r in records:
        cells.setdefault((r["arm"], r["order"], r["seed"], r["stage"], r["evaluated"]), []).append(
            r
        )
    return [
        {
            "arm": arm, "order": order, "seed": seed, "stage": stage, "learnt": found[0]["learnt"],
            "evaluated": evaluated,
            "success": round(sum(r["success"] for r in found) / len(found), 4), "n": len(found),
        }
        for (arm, order, seed, stage, evaluated), found in cells.items()
    ]  # fmt: skip


def known(records: Iterable[Record]) -> list[ResultsKnown]:
    """Mean success of every arm on what was evaluated after each stage, for who keeps curves."""
    found: dict[int, dict[str, list[float]]] = {}
    for row in rows_of(records):
        values = found.setdefault(row["stage"], {})
        values.setdefault(f"{row['arm']}/{row['evaluated']}", []).append(row["success"])
    return [
        ResultsKnown(stage + 1, {name: sum(v) / len(v) for name, v in values.items()})
        for stage, values in sorted(found.items())
    ]


def lives_of(records: Iterable[Record], arm: str) -> Lives:
    """The lives of an arm."""
    found: dict[tuple[int, int], dict[int, str]] = {}
    solved: dict[tuple[int, int], dict[str, dict[int, dict[str, float]]]] = {}
    for r in records:
        if r["arm"] == arm:
            key = r["order"], r["seed"]
            found.setdefault(key, {})[r["stage"]] = r["learnt"]
            cell = (
                solved.setdefault(key, {}).setdefault(r["evaluated"], {}).setdefault(r["stage"], {})
            )
            cell[r["task"]] = float(r["success"])
    return {
        key: (
            [stages[i] for i in sorted(stages)],
            {
                name: [
                    np.array([by_stage[i][task] for task in sorted(by_stage[i])])
                    for i in sorted(by_stage)
                ]
                for name, by_stage in solved[key].items()
            },
        )
        for key, stages in found.items()
    }


Key = tuple[int, int]
"""An order and a seed."""
Weights = dict[str, NDArray[np.float64]]
"""By name of stage: how often each of its held-out tasks is drawn."""


def _draws(
    keys: Sequence[Key], sizes: dict[int, dict[str, int]], draws: int
) -> Iterator[list[tuple[Key, Weights]]]:
    """First what was measured, then so many draws of it.

    Args:
        keys: orders and seeds of the lives.
        sizes: by seed and name of stage, how many held-out tasks there are.
        draws: how many.
    """
    yield [(key, {name: np.ones(n) for name, n in sizes[key[1]].items()}) for key in keys]
    rng, lived = np.random.default_rng(0), set(keys)
    orders, seeds = (sorted({key[part] for key in keys}) for part in (0, 1))
    while draws:
        drawn = rng.integers(len(orders), size=len(orders))
        copies = [
            (seed, {name: _draw(rng, n) for name, n in sizes[seed].items()})
            for seed in (seeds[i] for i in rng.integers(len(seeds), size=len(seeds)))
        ]
        found = [
            ((orders[i], seed), weights)
            for i in drawn
            for seed, weights in copies
            if (orders[i], seed) in lived
        ]
        if found:  # a stream that is not finished may lack what was drawn
            yield found
            draws -= 1


def _paired(
    records: Sequence[Record], arms: Sequence[str]
) -> tuple[dict[str, Lives], list[Key], dict[int, dict[str, int]]]:
    """Runs of each arm, the orders and seeds that all have run, and how many tasks a
    seed has of each stage.

    An agent that learns nothing is measured once per seed, since it is the same in every order.
    """
    lives = {arm: lives_of(records, arm) for arm in arms}
    learning = [arm for arm in arms if arm != "none"] or ["none"]
    keys = sorted(set.intersection(*(set(lives[arm]) for arm in learning)))
    if not keys:
        raise ValueError(
            f"no order and seed has been run by all of {', '.join(learning)}: go on with the stream"
        )
    sizes = {
        seed: {n: len(o[0]) for n, o in sorted(lives[learning[0]][order, seed][1].items())}
        for order, seed in keys
    }
    return lives, keys, sizes


def _measured(
    records: Sequence[Record], arms: Sequence[str], draws: int
) -> tuple[dict[str, dict[str, NDArray[np.float64]]], int]:
    """Every measure of every arm, shape (1 + draws,): as measured, and in each draw; and of how
    many lives."""
    lives, keys, sizes = _paired(records, arms)
    learning = [arm for arm in arms if arm != "none"]
    names = [name for name in MEASURES if "none" in arms or name != "forward_transfer"]
    found = {arm: {name: np.zeros(1 + draws) for name in names} for arm in arms}
    for draw, drawn in enumerate(_draws(keys, sizes, draws)):
        for (order, seed), weights in drawn:
            met = lives[learning[0]][order, seed][0]
            untaught = None
            if "none" in arms:
                base = lives["none"][0, seed][1]
                untaught = [_rate(base[name][0], weights[name]) for name in met]
            for arm in arms:
                if arm == "none":
                    r = np.tile(untaught or [], (len(met), 1))
                else:
                    outcomes = lives[arm][order, seed][1]
                    r = np.array(
                        [
                            [_rate(outcomes[name][i], weights[name]) for name in met]
                            for i in range(len(met))
                        ]
                    )
                for name, value in measures(r, untaught).items():
                    found[arm][name][draw] += value / len(drawn)
    return found, len(keys)


def _rate(solved: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float(solved @ weights / weights.sum())


def _draw(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """How often each of so many tasks is drawn, with replacement."""
    return rng.multinomial(size, np.full(size, 1 / size)).astype(np.float64)


def is_square(records: Sequence[Record]) -> bool:
    """Whether every stage has a name of its own, so that the measures are defined; rounds of one
    distribution are not."""
    stages = {(r["arm"], r["order"], r["seed"]): set() for r in records}  # type: ignore[var-annotated]
    names = {key: set() for key in stages}  # type: ignore[var-annotated]
    for r in records:
        stages[r["arm"], r["order"], r["seed"]].add(r["stage"])
        names[r["arm"], r["order"], r["seed"]].add(r["learnt"])
    return all(len(stages[key]) == len(names[key]) for key in stages)


def summaries(records: Sequence[Record], draws: int = DRAWS) -> tuple[list[Row], list[Row]]:
    """Measures of every arm with 95 % intervals, and differences of arms with theirs."""
    arms = _arms(records)
    if not is_square(records) or arms == ["none"]:
        return [], []
    untaught = ["none"] if "none" in arms else []
    # What has learnt nothing is put into the orders of the arm with most lives.
    widest = max(
        (arm for arm in arms if arm != "none"), key=lambda arm: len(lives_of(records, arm))
    )
    rows, tests = [], []
    for arm in arms:
        beside = widest if arm == "none" else arm
        found, lives = _measured(records, [*untaught, beside], draws)
        rows += [
            {"arm": arm, "name": name, **_interval(values), "lives": lives}
            for name, values in found[arm].items()
        ]
    for a, b in _pairs(arms):
        found, lives = _measured(records, list(dict.fromkeys([*untaught, a, b])), draws)
        tests += [
            {"a": a, "b": b, "name": name, **_interval(values - found[b][name]), "lives": lives}
            for name, values in found[a].items()
        ]
    return rows, tests


def _arms(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(r["arm"] for r in records))


def _pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of arms to compare, of those that there are."""
    pairs = [*COMPARISONS, *((arm, "both") for arm in arms if arm.startswith("bounded-"))]
    return [(a, b) for a, b in pairs if a in arms and b in arms]


def _interval(values: NDArray[np.float64]) -> Row:
    low, high = (
        np.quantile(values[1:], [0.025, 0.975]) if len(values) > 1 else (values[0], values[0])
    )
    return {
        "value": round(float(values[0]), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def curves(records: Sequence[Record], draws: int = DRAWS) -> list[Row]:
    """Success after each stage with 95 % intervals: on all stages together, or, of rounds, on each
    distribution."""
    return [
        {"arm": arm, "evaluated": group, "stage": stage, **_interval(values[:, stage])}
        for arm in _arms(records)
        for (_, group), values in _drawn_curves(records, [arm], draws).items()
        for stage in range(values.shape[1])
    ]


def _drawn_curves(
    records: Sequence[Record], arms: Sequence[str], draws: int
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """By arm and group of held-out tasks: success after each stage, shape (1 + draws, stages), as
    :func:`_measured`."""
    lives, keys, sizes = _paired(records, arms)
    names = list(dict.fromkeys(r["evaluated"] for r in records))
    groups = {"all stages": names} if is_square(records) else {name: [name] for name in names}
    solved = {
        (arm, key, name): np.array(lives[arm][key if arm != "none" else (0, key[1])][1][name])
        for arm in arms for key in keys for name in names
    }  # fmt: skip
    stages = max(len(some) for some in solved.values())
    found = {(arm, group): np.zeros((1 + draws, stages)) for arm in arms for group in groups}
    for draw, drawn in enumerate(_draws(keys, sizes, draws)):
        for key, weights in drawn:
            for (arm, group), values in found.items():
                rates = [solved[arm, key, n] @ weights[n] / weights[n].sum() for n in groups[group]]
                values[draw] += np.mean(rates, axis=0) / len(drawn)
    return found


def round_summaries(records: Sequence[Record], draws: int = DRAWS) -> tuple[list[Row], list[Row]]:
    """Of rounds: success after the first and the last one and their quotient, and differences of
    arms after the last one."""
    rows, tests, arms = [], [], _arms(records)
    for arm in arms:
        for (_, group), r in _drawn_curves(records, [arm], draws).items():
            first, final = r[:, 0], r[:, -1]
            found = {"first_success": first, "final_success": final}
            if first.all():  # else there is no quotient
                found["final_over_first"] = final / first
            rows += [
                {"arm": arm, "evaluated": group, "name": name, **_interval(of)}
                for name, of in found.items()
            ]
    for a, b in _pairs(arms):
        drawn = _drawn_curves(records, [a, b], draws)
        tests += [
            {
                "a": a,
                "b": b,
                "evaluated": group,
                "name": "final_success",
                **_interval(of[:, -1] - drawn[b, group][:, -1]),
            }
            for (arm, group), of in drawn.items()
            if arm == a
        ]
    return rows, tests


def recomputed(records: Sequence[Record], draws: int = DRAWS) -> Row:
    """Everything of a published result that follows from the records."""
    rows, tests = (summaries if is_square(records) else round_summaries)(records, draws)
    found = {
        "rows": rows_of(records),
        "measures": rows,
        "tests": tests,
        "curves": curves(records, draws),
    }
    audit = summed(records)
    return found if audit is None else {**found, "audit": audit}
