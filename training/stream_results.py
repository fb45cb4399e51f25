"""A stream's tables, recomputed from the records of its episodes: the matrix, the measures with intervals, comparisons.

Intervals are bootstrapped over lives (an order and a seed) and, within each, over its held-out tasks; a task that is drawn counts in
every stage, so the matrix of a draw is one that could have been measured. Comparisons draw the same lives and tasks for both arms.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.records import Record, write
from agent.rundir import write_json
from training.continual import MEASURES, measures

if TYPE_CHECKING:
    from training.stream import Stream  # needs torch, which recomputing does not

Row = dict[str, Any]
Outcomes = dict[str, list[NDArray[np.float64]]]
"""By name of stage: after each stage, whether each task was solved; arrays of shape (tasks,)."""

DRAWS = 2000
COMPARISONS = (
    ("both", "memory"),
    ("both", "adapter"),
    ("both", "frozen-memory"),
    ("memory", "none"),
    ("adapter", "none"),
)
"""Pairs of arms; bounded ones are compared with ``both`` as well."""


def rows_of(records: Iterable[Record]) -> list[Row]:
    """Success of every life after each stage on the tasks of each."""
    cells: dict[tuple[str, int, int, int, str], list[Record]] = {}
    for r in records:
        cells.setdefault((r["arm"], r["order"], r["seed"], r["stage"], r["evaluated"]), []).append(r)
    return [
        {
            "arm": arm, "order": order, "seed": seed, "stage": stage, "learnt": found[0]["learnt"], "evaluated": evaluated,
            "success": round(sum(r["success"] for r in found) / len(found), 4), "n": len(found),
        }
        for (arm, order, seed, stage, evaluated), found in cells.items()
    ]  # fmt: skip


def lives_of(records: Iterable[Record], arm: str) -> dict[tuple[int, int], tuple[list[str], Outcomes]]:
    """By order and seed: the names of an arm's stages in the order in which they were met, and its outcomes."""
    found: dict[tuple[int, int], dict[int, str]] = {}
    solved: dict[tuple[int, int], dict[str, dict[int, dict[str, float]]]] = {}
    for r in records:
        if r["arm"] == arm:
            key = r["order"], r["seed"]
            found.setdefault(key, {})[r["stage"]] = r["learnt"]
            cell = solved.setdefault(key, {}).setdefault(r["evaluated"], {}).setdefault(r["stage"], {})
            cell[r["task"]] = float(r["success"])
    return {
        key: (
            [stages[i] for i in sorted(stages)],
            {
                name: [np.array([by_stage[i][task] for task in sorted(by_stage[i])]) for i in sorted(by_stage)]
                for name, by_stage in solved[key].items()
            },
        )
        for key, stages in found.items()
    }


def _matrix(
    order: Sequence[str], outcomes: Outcomes, weights: dict[str, NDArray[np.float64]] | None
) -> NDArray[np.float64]:
    """Success after each stage on each, stages in the order in which they are met, shape (T, T)."""
    r = np.empty((len(order), len(order)))
    for j, name in enumerate(order):
        for i, solved in enumerate(outcomes[name]):
            r[i, j] = solved.mean() if weights is None else solved @ weights[name] / weights[name].sum()
    return r


def _measured(
    records: Sequence[Record], arms: Sequence[str], draws: int, seed: int = 0
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Every measure of every arm, shape (1 + draws,): as measured, and in each draw of lives and tasks."""
    lives = {arm: lives_of(records, arm) for arm in {*arms, "none"}}
    keys = sorted(set.union(*(set(lives[arm]) for arm in arms if arm != "none")) or set(lives["none"]))
    rng = np.random.default_rng(seed)
    found = {arm: {name: np.zeros(1 + draws) for name in MEASURES} for arm in arms}
    for draw in range(1 + draws):
        drawn = keys if not draw else [keys[i] for i in rng.integers(len(keys), size=len(keys))]
        for order, seed_of in drawn:
            met, solved = next(lives[arm][order, seed_of] for arm in arms if (order, seed_of) in lives[arm])
            weights = None
            if draw:
                sizes = {name: len(outcomes[0]) for name, outcomes in sorted(solved.items())}
                weights = {name: _draw(rng, size) for name, size in sizes.items()}
            # An agent that learns nothing is measured once per seed: it is the same in every order.
            untaught = lives["none"].get((0, seed_of), ([], {}))[1]
            base = {name: _matrix([name], {name: untaught[name][:1]}, weights)[0, 0] for name in untaught}
            for arm in arms:
                if arm == "none":
                    r = np.tile([base[name] for name in met], (len(met), 1))
                else:
                    r = _matrix(*lives[arm][order, seed_of], weights)
                for name, value in measures(r, [base.get(stage, 0.0) for stage in met]).items():
                    found[arm][name][draw] += value / len(drawn)
    return found


def _draw(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """How often each of so many tasks is drawn, with replacement."""
    return rng.multinomial(size, np.full(size, 1 / size)).astype(np.float64)


def is_square(records: Sequence[Record]) -> bool:
    """Whether every stage has a name of its own, so that the measures are defined; rounds of one distribution are not."""
    stages = {(r["arm"], r["order"], r["seed"]): set() for r in records}  # type: ignore[var-annotated]
    names = {key: set() for key in stages}  # type: ignore[var-annotated]
    for r in records:
        stages[r["arm"], r["order"], r["seed"]].add(r["stage"])
        names[r["arm"], r["order"], r["seed"]].add(r["learnt"])
    return all(len(stages[key]) == len(names[key]) for key in stages)


def summaries(records: Sequence[Record], draws: int = DRAWS) -> tuple[list[Row], list[Row]]:
    """Measures of every arm with 95 % intervals, and differences of arms with theirs."""
    arms = list(dict.fromkeys(r["arm"] for r in records))
    if not is_square(records) or arms == ["none"]:
        return [], []
    found = _measured(records, arms, draws)
    rows = [{"arm": arm, "name": name, **_interval(values)} for arm in arms for name, values in found[arm].items()]
    pairs = [*COMPARISONS, *((arm, "both") for arm in arms if arm.startswith("bounded-"))]
    tests = [
        {"a": a, "b": b, "name": name, **_interval(found[a][name] - found[b][name])}
        for a, b in pairs
        if a in found and b in found
        for name in MEASURES
    ]
    return rows, tests


def _interval(values: NDArray[np.float64]) -> Row:
    low, high = np.quantile(values[1:], [0.025, 0.975]) if len(values) > 1 else (values[0], values[0])
    return {"value": round(float(values[0]), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def curves(records: Sequence[Record], draws: int = DRAWS) -> list[Row]:
    """Success after each stage with 95 % intervals: on all stages together, or, of rounds, on each distribution."""
    return [
        {"arm": arm, "evaluated": group, "stage": stage, **_interval(values[:, stage])}
        for (arm, group), values in _drawn_curves(records, draws).items()
        for stage in range(values.shape[1])
    ]


def _drawn_curves(records: Sequence[Record], draws: int, seed: int = 0) -> dict[tuple[str, str], NDArray[np.float64]]:
    """By arm and group of held-out tasks: success after each stage, shape (1 + draws, stages), as :func:`_measured`."""
    lives = {arm: lives_of(records, arm) for arm in dict.fromkeys(r["arm"] for r in records)}
    keys = sorted(set.union(*(set(of) for arm, of in lives.items() if arm != "none" or len(lives) == 1)))
    names = list(dict.fromkeys(r["evaluated"] for r in records))
    groups = {"all stages": names} if is_square(records) else {name: [name] for name in names}
    solved = {
        (arm, key, name): np.array(lives[arm][key if arm != "none" else (0, key[1])][1][name])
        for arm in lives for key in keys for name in names
    }  # fmt: skip
    rng = np.random.default_rng(seed)
    stages = max(len(some) for some in solved.values())
    found = {(arm, group): np.zeros((1 + draws, stages)) for arm in lives for group in groups}
    for draw in range(1 + draws):
        drawn = keys if not draw else [keys[i] for i in rng.integers(len(keys), size=len(keys))]
        for key in drawn:
            sizes = {
                name: next(s.shape[1] for (_, k, n), s in solved.items() if (k, n) == (key, name)) for name in names
            }
            weights = {name: _draw(rng, n) / n if draw else np.full(n, 1 / n) for name, n in sizes.items()}
            for (arm, group), values in found.items():
                values[draw] += np.mean([solved[arm, key, n] @ weights[n] for n in groups[group]], axis=0) / len(drawn)
    return found


def round_summaries(records: Sequence[Record], draws: int = DRAWS) -> tuple[list[Row], list[Row]]:
    """Of rounds: success after the first and the last one and their quotient, and differences of arms after the last one."""
    found = _drawn_curves(records, draws)
    rows = [
        {"arm": arm, "evaluated": group, "name": name, **_interval(values)}
        for (arm, group), r in found.items()
        for name, values in (
            ("first_success", r[:, 0]), ("final_success", r[:, -1]), ("final_over_first", r[:, -1] / np.maximum(r[:, 0], 1e-9)),
        )
    ]  # fmt: skip
    tests = [
        {
            "a": a,
            "b": b,
            "evaluated": group,
            "name": "final_success",
            **_interval(found[a, group][:, -1] - values[:, -1]),
        }
        for a, b in COMPARISONS
        for (arm, group), values in found.items()
        if arm == b and (a, group) in found
    ]
    return rows, tests


def recomputed(records: Sequence[Record], draws: int = DRAWS) -> Row:
    """Everything of a published result that follows from the records."""
    rows, tests = (summaries if is_square(records) else round_summaries)(records, draws)
    return {"rows": rows_of(records), "measures": rows, "tests": tests, "curves": curves(records, draws)}


def publish(file: Path, stream: "Stream", records: Sequence[Record]) -> None:
    """Writes a JSON file, and the records beside it as ``NAME-episodes.jsonl.gz``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    states = [
        {"arm": life.arm, "order": life.order, "seed": life.seed, **{k: getattr(state, k) for k in (
            "stage", "name", "position", "read", "adapter", "memory_size", "tokens", "seconds")}}
        for life in stream.lives() for state in stream.states(life)
    ]  # fmt: skip
    write_json(file, {**stream.summary(), **recomputed(records), "states": states})
    slim = [{k: v for k, v in r.items() if k not in ("goal", "retrieved")} for r in records]
    write(file.with_name(f"{file.stem}-episodes.jsonl.gz"), slim)


def disagreements(published: Row, records: Sequence[Record], shipped: str) -> list[str]:
    """Where a published result is not what its records give, or not of the shipped weights."""
    found = []
    if published["weights_sha256"] != shipped:
        found.append(f"the summary is of weights {published['weights_sha256'][:12]}, shipped are {shipped[:12]}")
    for part, mine in recomputed(records).items():
        if published.get(part) != mine:
            found.append(f"{part}: {len(mine)} recomputed do not equal the {len(published.get(part, []))} published")
    return found


def markdown(records: Sequence[Record], draws: int = DRAWS) -> str:
    """Tables of the measures and of the differences, in points."""
    rows, tests = summaries(records, draws)
    if not rows:
        return _rounds(records, draws)

    titles = [name.replace("_", " ") for name in MEASURES]
    lines = [f"| arm | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        lines.append(f"| {arm} | {' | '.join(_told(row) for row in rows if row['arm'] == arm)} |")
    lines += ["", "| difference | average success | forgetting |", "|---|---|---|"]
    for a, b in dict.fromkeys((row["a"], row["b"]) for row in tests):
        some = {row["name"]: row for row in tests if (row["a"], row["b"]) == (a, b)}
        lines.append(f"| {a} − {b} | {_told(some['average_success'])} | {_told(some['forgetting'])} |")
    return "\n".join(lines)


def _told(row: Row) -> str:
    return f"{100 * row['value']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def _rounds(records: Sequence[Record], draws: int) -> str:
    """Success after each stage, for streams whose stages are rounds of few distributions."""
    rows = rows_of(records)
    names = list(dict.fromkeys(row["evaluated"] for row in rows))
    lines = [f"| arm | after | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        for stage in sorted({row["stage"] for row in rows if row["arm"] == arm}):
            cells = []
            for name in names:
                mine = [row for row in rows if (row["arm"], row["stage"], row["evaluated"]) == (arm, stage, name)]
                total = sum(row["n"] for row in mine)
                cells.append(f"{100 * sum(row['success'] * row['n'] for row in mine) / total:.1f}" if total else "")
            lines.append(f"| {arm} | {stage + 1} | {' | '.join(cells)} |")
    _, tests = round_summaries(records, draws)
    lines += ["", "| difference after the last round | on | success |", "|---|---|---|"]
    lines += [f"| {row['a']} − {row['b']} | {row['evaluated']} | {_told(row)} |" for row in tests]
    return "\n".join(lines)
