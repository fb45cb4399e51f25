"""Methods side by side: what a study's settings compare, as one table with paired tests.

Each method has a baseline and variants of it, named by their conditions. All cells of a seed share
tasks, memory and episodes to learn from, so every variant is compared with its baseline task by
task; p-values of the whole table are corrected together (Holm).
"""

from collections.abc import Sequence
from typing import Any

from ....agent.evaluation.records import Record
from ....agent.evaluation.statistics import holm
from .arms import SEALED, Cell
from .results import Row, difference, in_group, interval
from .settings import MethodSettings

TIERS = ("easy", "binding", "structure", "hard", SEALED)
"""Groups of tasks that the table has rows for, where there are such."""
TESTED = ("easy", "hard", SEALED)
"""Groups in which variants are tested against their baseline."""


def table(methods: Sequence[MethodSettings], records: Sequence[Record]) -> dict[str, Any]:
    """Rows and tests of all methods; what is not measured yet is left out.

    Returns:
        ``rows``: success of each variant, and of the baseline, per group of tasks, with its 95 %
        cluster interval, and what a task cost. ``tests``: paired differences from the baseline.
    """
    rows: list[Row] = []
    tests: list[Row] = []
    for method in methods:
        for condition in method.conditions:
            found = [_row(method, condition, tier, in_group(records, condition, tier))
                     for tier in TIERS]  # fmt: skip
            rows += [row for row in found if row]
        for condition in method.variants:
            for tier in TESTED:
                one, other = (in_group(records, c, tier) for c in (condition, method.baseline))
                if test := _test(method, condition, tier, one, other):
                    tests.append(test)
    for test, p in zip(tests, holm([test.pop("p_raw") for test in tests]), strict=True):
        test["p"] = round(float(p), 5)
    return {"rows": rows, "tests": tests}


def _row(method: MethodSettings, condition: str, tier: str, mine: Sequence[Record]) -> Row | None:
    if not mine:
        return None
    low, high = interval(mine)
    count = len(mine)
    return {
        "method": method.name,
        "variant": "baseline" if condition == method.baseline else condition,
        "condition": condition,
        "tier": tier,
        "memory": Cell.of(condition).memory,
        "split": mine[0]["rooms"],
        "success": round(sum(r["success"] for r in mine) / count, 4),
        "n": count,
        "low": round(low, 4),
        "high": round(high, 4),
        "tokens_per_task": round(sum(r["tokens"] for r in mine) / count, 1),
        "seconds_per_task": round(sum(r["seconds"] for r in mine) / count, 3),
        **_agreement(mine),
    }


def _agreement(mine: Sequence[Record]) -> Row:
    """How well a council's agreement says whether it is right: success of the tasks in which its
    members always agreed, and of the others."""
    known = [r for r in mine if "agreement" in r]
    if not known:
        return {}
    found: Row = {"agreement": round(sum(r["agreement"] for r in known) / len(known), 4)}
    for name, some in (
        ("always_agreed", [r for r in known if r["agreement"] == 1]),
        ("not_always", [r for r in known if r["agreement"] < 1]),
    ):
        found[f"n_{name}"] = len(some)
        found[f"success_{name}"] = (
            round(sum(r["success"] for r in some) / len(some), 4) if some else None
        )
    return found


def _test(
    method: MethodSettings,
    condition: str,
    tier: str,
    one: Sequence[Record],
    other: Sequence[Record],
) -> Row | None:
    found = difference(one, other, "success")
    if found is None:
        return None
    return {"method": method.name, "a": condition, "b": method.baseline, "tier": tier, **found}


def markdown(methods: Sequence[MethodSettings], records: Sequence[Record]) -> str:
    """The table as text."""
    made = table(methods, records)
    head = ("method", "variant", "memory", *TESTED, "tokens", "seconds")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    cells: dict[tuple[str, str], dict[str, Row]] = {}
    for row in made["rows"]:
        cells.setdefault((row["method"], row["condition"]), {})[row["tier"]] = row
    for (method, condition), tiers in cells.items():
        said = [
            f"{100 * r['success']:.1f} ({100 * r['low']:.0f}–{100 * r['high']:.0f})" if r else "–"
            for r in map(tiers.get, TESTED)
        ]
        whole = [tiers[tier] for tier in TESTED if tier in tiers] or list(tiers.values())
        cost = [
            sum(r["n"] * r[name] for r in whole) / sum(r["n"] for r in whole)
            for name in ("tokens_per_task", "seconds_per_task")
        ]
        lines.append(
            f"| {method} | {condition} | {whole[0]['memory']} | {' | '.join(said)} | "
            f"{cost[0]:,.0f} | {cost[1]:.2f} |"
        )
    lines += ["", "| a | b | tier | n | a − b, points (95 %) | p (Holm) |", "|" + "---|" * 6]
    lines += [
        f"| {t['a']} | {t['b']} | {t['tier']} | {t['n']} | {100 * t['difference']:+.1f} "
        f"({100 * t['low']:+.1f} to {100 * t['high']:+.1f}) | {t['p']:.4f} |"
        for t in made["tests"]
    ]
    return "\n".join(lines)
