"""Pictures of a study: success per training and memory, and its learning curves."""

from collections.abc import Sequence
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
            tops = [100 * row["success"] for _, row in found]
            errors = [
                [
                    max(0.0, top - 100 * row["low"])
                    for top, (_, row) in zip(tops, found, strict=True)
                ],
                [
                    max(0.0, 100 * row["high"] - top)
                    for top, (_, row) in zip(tops, found, strict=True)
                ],
            ]
            places = [i + 0.27 * (shift - 1) for i, _ in found]
            axis.bar(
                places, tops, 0.25, yerr=errors, capsize=2, color=colour, label=f"{memory} memory"
            )
        axis.set_xticks(range(len(arms)), [a.replace("-", "-\n", 2) for a in arms], fontsize=7)
        titles = {"easy": "easy", "hard": "hard: only in memory"}
        axis.set(title=titles.get(group, f"hard: unseen {group}"), ylim=(0, 104))
    axes[0, 0].set_ylabel("success %, unseen tasks")
    axes[0, 0].legend(fontsize=7, loc="lower left")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


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
