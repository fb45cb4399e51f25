"""One table of all methods beyond the paper, from the results that are published.

    python scripts/methods_table.py            # writes docs/results/methods.json, prints the table

Rows of `relive study --config scripts/recipes/methods/settings.toml`, of its cross-validation (the
same with other easy and hard types), of the stream that explores, and of the experiments that have
scripts of their own (ratings, tuned retriever). `scripts/check_results.py` makes it again and
compares.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from relive.agent.evaluation.metrics import wilson
from relive.agent.evaluation.records import read
from relive.agent.evaluation.terminal import say
from relive.agent.rundir import write_json
from relive.agent.settings import build
from relive.training.experiments.study.methods import markdown, table
from relive.training.experiments.study.results import interval
from relive.training.experiments.study.settings import MethodSettings

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
Row = dict[str, Any]


def gathered(folder: Path = RESULTS) -> dict[str, Any]:
    """Rows and tests of everything that is there."""
    rows: list[Row] = []
    tests: list[Row] = []
    for file in sorted(folder.glob("study-methods*.json")):
        summary = json.loads(file.read_text())
        records = read(folder / f"{file.stem}-episodes.jsonl.gz")
        made = table(methods_of(summary), records)
        told = {"from": file.name}
        if summary["settings"]["easy"]:  # other types are learnt than usual
            told["learnt"] = ", ".join(summary["settings"]["easy"])
        rows += [row | told for row in made["rows"]]
        tests += [test | told for test in made["tests"]]
    exploring = folder / "stream-self-exploring.json"
    if exploring.exists():
        rows += _exploring(exploring)
        tests += [
            {"method": "own exploration", "from": exploring.name,
             "tier": test["evaluated"], **{k: v for k, v in test.items() if k != "evaluated"}}
            for test in json.loads(exploring.read_text())["tests"]
            if test["name"] == "final_success" and "both-exploring" in (test["a"], test["b"])
        ]  # fmt: skip
    rows += _ratings(folder / "ratings.json") + _retriever(folder / "retriever.json")
    return {"rows": rows, "tests": tests}


def methods_of(summary: Row) -> tuple[MethodSettings, ...]:
    """What a published study compares."""
    return tuple(build(MethodSettings, one) for one in summary["settings"]["methods"])


def _row(
    method: str, variant: str, tier: str, memory: str, won: float, n: int,
    ends: tuple[float, float] | None = None, split: str = "valid", **more: Any,
) -> Row:  # fmt: skip
    low, high = ends or wilson(round(won * n), n)
    return {
        "method": method, "variant": variant, "tier": tier, "memory": memory, "split": split,
        "success": round(won, 4), "n": n, "low": round(low, 4), "high": round(high, 4),
        "tokens_per_task": None, "seconds_per_task": None, **more,
    }  # fmt: skip


def _exploring(file: Path) -> list[Row]:
    """Success of each arm after the last stage, on each distribution."""
    records = read(file.with_name(f"{file.stem}-episodes.jsonl.gz"))
    last = max(r["stage"] for r in records)
    found = []
    for arm in dict.fromkeys(r["arm"] for r in records):
        for tier in dict.fromkeys(r["evaluated"] for r in records):
            mine = [r for r in records
                    if (r["arm"], r["evaluated"], r["stage"]) == (arm, tier, last)]  # fmt: skip
            n = len(mine)
            won = sum(r["success"] for r in mine) / n
            cost = {
                "tokens_per_task": round(sum(r["tokens"] for r in mine) / n, 1),
                "seconds_per_task": round(sum(r["seconds"] for r in mine) / n, 3),
            }
            told: Row = {"from": file.name, "split": "test", **cost}
            found.append(_row("own exploration", arm, tier, "own", won, n, interval(mine), **told))
    return found


def _ratings(file: Path) -> list[Row]:
    told = json.loads(file.read_text())
    return [
        _row("human feedback", row["condition"], "clean, heat, cool", "matching", row["success"],
             row["n"], **{"from": file.name})
        for row in told["rows"]
    ]  # fmt: skip


def _retriever(file: Path) -> list[Row]:
    told = json.loads(file.read_text())
    return [
        _row("tuned retriever", row["embedder"], "hard, wordings never stored", "matching",
             row["success"], row["n"], **{"from": file.name})
        for row in told["played"]
    ]  # fmt: skip


def main() -> None:
    """Writes and prints."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    made = gathered()
    write_json(RESULTS / "methods.json", made)
    for file in sorted(RESULTS.glob("study-methods*.json")):
        summary = json.loads(file.read_text())
        records = read(RESULTS / f"{file.stem}-episodes.jsonl.gz")
        say(f"\n{file.stem}", lines=True)
        say(markdown(methods_of(summary), records), lines=True)
    say(f"{len(made['rows'])} rows, {len(made['tests'])} tests")


if __name__ == "__main__":
    main()
