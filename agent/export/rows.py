"""An episode and its steps as flat rows: the columns that data sets and tables share."""

import math
from typing import Literal

from ...memory.episode import Episode
from .report import Report

Cell = str | float | int | bool | None
Kind = Literal["string", "float64", "int64", "bool"]

EPISODE: dict[str, Kind] = {
    "episode": "string",
    "suite": "string",
    "task": "string",
    "type": "string",
    "split": "string",
    "room": "string",
    "goal": "string",
    "success": "bool",
    "score": "float64",
    "best_score": "float64",
    "reason": "string",
    "detail": "string",
    "steps": "int64",
    "policy": "string",
    "model": "string",
    "adapter": "string",
    "started": "float64",
    "seconds": "float64",
    "prompt_tokens": "float64",
    "completion_tokens": "float64",
    "cost": "float64",
    "final_observation": "string",
}
"""Columns of an episode. What nobody counted is empty."""

STEP: dict[str, Kind] = {
    "episode": "string",
    "step": "int64",
    "observation": "string",
    "action": "string",
    "reward": "float64",
    "invalid": "bool",
    "reasoning": "string",
    "said": "string",
    "retrieved": "string",
}
"""Columns of a step. `retrieved` has the ids of what was shown, with spaces between."""


def episode_row(episode: Episode, report: Report) -> dict[str, Cell]:
    """The columns of :data:`EPISODE`."""
    task, outcome, actor, used = episode.task, episode.outcome, episode.actor, episode.usage
    row: dict[str, Cell] = {
        "episode": episode.id, "suite": task.suite, "task": task.identity, "type": task.type,
        "split": task.split, "room": task.room, "goal": task.goal, "success": outcome.success,
        "score": outcome.score, "best_score": outcome.best, "reason": str(outcome.reason),
        "detail": outcome.detail, "steps": len(episode.steps), "policy": actor.policy,
        "model": actor.model, "adapter": actor.adapter, "started": episode.started,
        "seconds": episode.timings.get("total"), "prompt_tokens": used.get("prompt"),
        "completion_tokens": used.get("completion"), "cost": used.get("cost"),
        "final_observation": episode.final_observation,
    }  # fmt: skip
    return _fit(row, report)


def step_rows(episode: Episode, report: Report) -> list[dict[str, Cell]]:
    """The columns of :data:`STEP`, for each step."""
    rows: list[dict[str, Cell]] = [
        {
            "episode": episode.id, "step": number, "observation": step.observation,
            "action": step.action, "reward": step.reward, "invalid": step.invalid,
            "reasoning": step.reasoning, "said": step.said or step.action,
            "retrieved": " ".join(one.episode for one in step.retrieved),
        }
        for number, step in enumerate(episode.steps)
    ]  # fmt: skip
    return [_fit(row, report) for row in rows]


def _fit(row: dict[str, Cell], report: Report) -> dict[str, Cell]:
    return {
        name: report.text(cell) if isinstance(cell, str) else cell for name, cell in row.items()
    }


def finite(cell: Cell) -> Cell:
    """A cell that JSON can hold: a number that is not finite is left empty."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
