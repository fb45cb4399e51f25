"""What a stream looks like: success after each stage on each, and averages over the stages with
their intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....agent.evaluation.records import Record
from ....agent.evaluation.report import pyplot
from .results import curves, is_square, rows_of

COLOURS = {
    "none": "#999999",
    "memory": "#9db8d3",
    "adapter": "#c98b3c",
    "both": "#2a5580",
    "frozen-memory": "#7d5ba6",
}
"""Of arms; bounded ones are drawn thin and green."""
SHOWN = ("memory", "adapter", "both")
"""Arms whose matrix is drawn."""


def picture(file: Path, records: Sequence[Record]) -> None:
    """Writes a PNG: matrices where every stage has a name of its own, and curves of average success
    in any case."""
    arms = (
        [arm for arm in SHOWN if any(r["arm"] == arm for r in records)]
        if is_square(records)
        else []
    )
    found = curves(records)
    names = list(dict.fromkeys(row["evaluated"] for row in found))
    panels = len(arms) + len(names)
    plt = pyplot()
    figure, axes = plt.subplots(1, panels, figsize=(3.4 * panels + 0.8, 3.7), squeeze=False)
    for axis, arm in zip(axes[0], arms, strict=False):
        _matrix(axis, arm, records)
    for axis, name in zip(axes[0][len(arms) :], names, strict=True):
        _curves(axis, name, [row for row in found if row["evaluated"] == name])
    axes[0][-1].legend(fontsize=6, loc="lower right")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _matrix(axis: Any, arm: str, records: Sequence[Record]) -> None:
    """Success of the first order, mean over seeds."""
    rows = [row for row in rows_of(r for r in records if r["arm"] == arm) if row["order"] == 0]
    names = list(dict.fromkeys(row["learnt"] for row in sorted(rows, key=lambda row: row["stage"])))
    r = np.array(
        [
            [
                np.mean(
                    [
                        row["success"]
                        for row in rows
                        if (row["stage"], row["evaluated"]) == (i, name)
                    ]
                )
                for name in names
            ]
            for i in range(len(names))
        ]
    )
    axis.imshow(100 * r, vmin=0, vmax=100, cmap="Blues")
    for (i, j), value in np.ndenumerate(r):
        axis.text(
            j,
            i,
            f"{100 * value:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color="w" if value > 0.6 else "k",
        )
    axis.set_xticks(range(len(names)), names, fontsize=7, rotation=40, ha="right")
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_title(f"{arm}: after (row), on (column), %", fontsize=8)


def _curves(axis: Any, name: str, rows: Sequence[dict[str, Any]]) -> None:
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        x = [row["stage"] + 1 for row in mine]
        low, middle, high = ([100 * row[key] for row in mine] for key in ("low", "value", "high"))
        bounded = arm not in COLOURS
        axis.plot(
            x, middle, color=COLOURS.get(arm, "#4f9a62"), lw=0.8 if bounded else 1.6, label=arm
        )
        if not bounded:
            axis.fill_between(x, low, high, color=COLOURS[arm], alpha=0.15, lw=0)
    axis.set(title=f"success on {name}", xlabel="stages played", ylabel="%", ylim=(0, 102))
    axis.title.set_fontsize(8)
