"""Pictures of studies: success per training and memory, the claim over several, learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....agent.evaluation.records import Record
from ....agent.evaluation.report import pyplot
from .arms import HARD
from .results import RAG, in_group, summaries

Row = dict[str, Any]


def picture(file: Path, records: Sequence[Record]) -> None:
    """Success per training and memory, easy against both hard tiers, as a PNG."""
    plt = pyplot()
    arms = [
        a
        for a in ("none", "lora", "lora-rehearsal", *reversed(RAG))
        if in_group(records, f"{a}/matching", "easy")
    ]
    rows = {(row["condition"], row["tier"]): row for row in summaries(records)}
    there = {r["tier"] for r in records}
    tiers = [tier for tier in ("easy", "hard", *HARD) if tier in there]
    width = 11 / 3 * len(tiers)
    figure, axes = plt.subplots(1, len(tiers), figsize=(width, 3.6), sharey=True, squeeze=False)
    colours = {"matching": "#2a5580", "other": "#9db8d3", "empty": "#bbbbbb"}
    for axis, group in zip(axes[0], tiers, strict=True):
        for shift, (memory, colour) in enumerate(colours.items()):
            found = [
                (i, rows[c]) for i, a in enumerate(arms) if (c := (f"{a}/{memory}", group)) in rows
            ]
            places = [i + 0.27 * (shift - 1) for i, _ in found]
            _bars(axis, places, [row for _, row in found], color=colour, label=f"{memory} memory")
        axis.set_xticks(range(len(arms)), [a.replace("-", "-\n", 2) for a in arms], fontsize=7)
        titles = {"easy": "easy", "hard": "hard: only in memory"}
        axis.set(title=titles.get(group, f"hard: unseen {group}"), ylim=(0, 104))
    axes[0, 0].set_ylabel("success %, unseen tasks")
    axes[0, 0].legend(fontsize=7, loc="lower left")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


CLAIM = {
    "lora/empty": ("plain LoRA, no memory", "#bbbbbb"),
    "none/matching": ("frozen model, memory", "#9db8d3"),
    "lora/matching": ("plain LoRA, memory when acting only", "#d8a26b"),
    "rag-lora/matching": ("memory when training and acting", "#2a5580"),
}
"""The four conditions that the claim is about."""


def picture_of_claim(file: Path, studies: Mapping[str, Sequence[Record]]) -> None:
    """Success of the four conditions that the claim is about, easy and hard tasks, as a PNG.

    Args:
        file: where to.
        studies: records by what stands above them: model and world.
    """
    plt = pyplot()
    wide = 3.4 * len(studies)
    figure, axes = plt.subplots(1, len(studies), figsize=(wide, 3.4), sharey=True, squeeze=False)
    for axis, (title, records) in zip(axes[0], studies.items(), strict=True):
        for shift, (condition, (label, colour)) in enumerate(CLAIM.items()):
            mine = [r for r in records if r["condition"] == condition]
            rows = {row["tier"]: row for row in summaries(mine)}
            found = [(i, rows[tier]) for i, tier in enumerate(("easy", "hard")) if tier in rows]
            places = [i + 0.21 * (shift - 1.5) for i, _ in found]
            _bars(axis, places, [row for _, row in found], width=0.19, color=colour, label=label)
        axis.set_xticks(range(2), ["easy", "hard: only\nin memory"])
        axis.set_title(title, fontsize=9)
        axis.set_ylim(0, 104)
    axes[0, 0].set_ylabel("success %, unseen tasks")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, ncols=2, loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _bars(
    axis: Any, places: Sequence[float], rows: Sequence[Row], width: float = 0.25, **how: Any
) -> None:
    """Success of rows as bars with their intervals."""
    tops = [100 * row["success"] for row in rows]
    errors = [
        [max(0.0, top - 100 * row["low"]) for top, row in zip(tops, rows, strict=True)],
        [max(0.0, 100 * row["high"] - top) for top, row in zip(tops, rows, strict=True)],
    ]
    axis.bar(places, tops, width, yerr=errors, capsize=2, **how)


def picture_of_curves(file: Path, curves: Sequence[Row]) -> None:
    """Success, reading and validation loss over fine-tuning steps, as a PNG."""
    plt = pyplot()
    arms = list(dict.fromkeys(row["arm"] for row in curves))
    figure, axes = plt.subplots(1, len(arms), figsize=(5.5 * len(arms), 3.6), squeeze=False)
    for axis, arm in zip(axes[0], arms, strict=True):
        rows = [row for row in curves if row["arm"] == arm]
        steps = [row["step"] for row in rows]
        for key, style in (
            ("easy", "o:"),
            ("binding", "s-"),
            ("structure", "^-"),
            ("reading", "x--"),
        ):
            axis.plot(steps, [100 * row[key] for row in rows], style, label=key, markersize=4)
        axis.set(title=arm, xlabel="optimiser steps", ylabel="%", ylim=(0, 104), xscale="symlog")
        axis.set_xticks(steps, [str(s) for s in steps])
        loss = axis.twinx()
        loss.plot(
            steps, [row["loss_easy"] for row in rows], color="grey", label="validation loss (easy)"
        )
        loss.set(ylabel="nats per token", ylim=(0, None))
        axis.legend(fontsize=7, loc="lower left")
        loss.legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
