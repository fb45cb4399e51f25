"""The numbers of a report: success per condition and type, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...memory.episode import Episode, StopReason
from ..evaluation.metrics import Row, mean, summarise
from ..evaluation.statistics import holm, paired_difference

Plain = dict[str, Any]

MOST_PAIRS = 60
"""Pairs of conditions that are tested; of more, each condition is compared with the first alone."""


class Tally:
    """Counts the episodes of a report as they come."""

    def __init__(self) -> None:
        self._episodes: dict[str, list[Episode]] = {}

    def add(self, condition: str, episode: Episode) -> None:
        """Counts an episode."""
        self._episodes.setdefault(condition, []).append(episode)

    def rows(self) -> list[Plain]:
        """A row per condition, split and type, and one for the whole of a condition and split
        (``"whole": True``)."""
        found = []
        for condition, episodes in self._episodes.items():
            for split in dict.fromkeys(e.task.split for e in episodes):
                mine = [e for e in episodes if e.task.split == split]
                types = dict.fromkeys(e.task.type for e in mine)
                for kind in types if len(types) > 1 else ():
                    some = [e for e in mine if e.task.type == kind]
                    found.append(_plain(condition, split, kind, summarise(kind, some, {}), False))
                found.append(_plain(condition, split, "all", summarise("all", mine, {}), True))
        return found

    def tests(self) -> list[Plain]:
        """Paired differences of conditions that played the same tasks; p after Holm's method.

        A task that a condition played several times (under several seeds) counts by its mean.
        Environment errors say nothing about a policy and are left out.
        """
        names = list(self._episodes)
        pairs = [(a, b) for i, b in enumerate(names) for a in names[i + 1 :]]
        if len(pairs) > MOST_PAIRS:
            pairs = [(a, names[0]) for a in names[1:]]
        rates = {name: _by_task(episodes) for name, episodes in self._episodes.items()}
        rooms = {e.task.identity: e.task.room for some in self._episodes.values() for e in some}
        found: list[Plain] = []
        for a, b in pairs:
            common = rates[a].keys() & rates[b].keys()
            if len(common) < 2:
                continue
            # Tasks of one room are alike; where there is but one, they are taken as they are.
            by_room = len({rooms[task] for task in common}) > 1
            labels = {task: rooms[task] if by_room else task for task in common}
            test = paired_difference(rates[a], rates[b], labels)
            found.append({"a": a, "b": b, **asdict(test)})
        for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
            row["p"] = float(p)
        return found


def _by_task(episodes: Sequence[Episode]) -> Mapping[str, float]:
    """Each task's mean success."""
    found: dict[str, list[float]] = {}
    for episode in episodes:
        if episode.outcome.reason is not StopReason.ENVIRONMENT_ERROR:
            found.setdefault(episode.task.identity, []).append(float(episode.success))
    return {task: mean(values) for task, values in found.items()}


def _plain(condition: str, split: str, kind: str, row: Row, whole: bool) -> Plain:
    values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(row).items()}
    return {
        **values,
        "condition": condition,
        "split": split,
        "type": kind,
        "whole": whole,
        "success": round(row.success, 4),
    }


def of_rounds(rounds: Sequence[Plain]) -> list[Plain]:
    """The rounds of a learning run, as its table shows them."""
    return [
        {
            "round": one["round"],
            "episodes": one["episodes"],
            "success": one["success"],
            "memory": one["memory_size"],
            "candidate": one["candidate"],
            "adopted": one["adopted"],
            "adapter": one["adapter"],
            "validation": one["validation"],
            **{f"gate_{name}": value for name, value in one.get("gate", {}).items()},
        }
        for one in rounds
    ]
