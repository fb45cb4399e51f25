"""The table of docs/environments.md, from docs/results/worlds.json.

python scripts/worlds_table.py
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as a table of Markdown."""

    def games(row: dict[str, Any]) -> str:
        return " / ".join("∞" if n is None else f"{n:,}" for n in row["games"].values())

    def number(row: dict[str, Any], *names: str) -> str:
        found = [row.get(name) for name in names]
        return " / ".join("–" if n is None else f"{n:,.4g}" for n in found)

    def right(row: dict[str, Any]) -> str:
        by = [row.get("precision_at_2") or {}, row.get("by_opening_at_2") or {}]
        cells = [
            " / ".join(f"{100 * v:.0f}" if (v := some.get(n)) is not None else "–"
                       for n in ("hashed", "minilm"))
            for some in by
        ]  # fmt: skip
        return f"{cells[0]} ({cells[1]})" if by[0] else "–"

    def demos(row: dict[str, Any]) -> str:
        found = row.get("demonstrations") or {}
        if "shown_of_2" not in found:
            return "–"
        return f"{found['whole_of_2']:.2g}, {found['shown_of_2']:.2g}"

    def expert_of(row: dict[str, Any]) -> str:
        rate = row.get("expert_success")
        return "–" if rate is None else f"{100 * rate:.1f} of {row['n']}"

    lines = [
        "| suite | games by split | load, reset, step ms | steps/s, 1 / 2 workers | MiB "
        "| expert % | retrieval precision@2 %, hashed / MiniLM | shown of 2 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| `{row['suite']}` | {games(row)} | "
            f"{number(row, 'load_ms', 'reset_ms', 'step_ms')} | "
            f"{number(row, 'steps_per_s_1', 'steps_per_s_2')} | {number(row, 'memory_mib')} | "
            f"{expert_of(row)} | {right(row)} | {demos(row)} |"
        )
    return "\n".join(lines)


def write_table(rows: Sequence[dict[str, Any]]) -> None:
    """Puts the table where docs/environments.md has a place for it."""
    file = ROOT / "docs" / "environments.md"
    before, _, rest = file.read_text().partition("<!-- table: scripts/check_worlds.py -->")
    _, _, after = rest.partition("<!-- /table -->")
    file.write_text(
        f"{before}<!-- table: scripts/check_worlds.py -->\n{table(rows)}\n<!-- /table -->{after}"
    )


if __name__ == "__main__":
    write_table(json.loads((ROOT / "docs" / "results" / "worlds.json").read_text())["suites"])
