"""The numbers of a report: success per condition and type, and paired differences."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...memory.episode import Episode
from ..evaluation.metrics import Row, paired, summarise
from ..evaluation.statistics import holm

Plain = dict[str, Any]

MOST_PAIRS = 60
"""Pairs of conditions that are tested; of more, each condition is compared with the first alone."""


class Tally:
    """Counts the episodes of a report as they come; what is kept of each is small."""

    def __init__(self) -> None:
        self._episodes: dict[str, list[Episode]] = {}

    def add(self, condition: str, episode: Episode) -> None:
        """Counts an episode."""
        self._episodes.setdefault(condition, []).append(episode)

    def rows(self) -> list[Plain]:
        """A row per condition, split and type, and one for all of a condition (type ``all``)."""
        found = []
        for condition, episodes in self._episodes.items():
            splits = dict.fromkeys(e.task.split for e in episodes)
            for split in splits:
                mine = [e for e in episodes if e.task.split == split]
                types = dict.fromkeys(e.task.type for e in mine)
                for kind in types if len(types) > 1 else ():
                    some = [e for e in mine if e.task.type == kind]
                    found.append(_plain(condition, split, kind, summarise(kind, some, {})))
                found.append(_plain(condition, split, "all", summarise("all", mine, {})))
        return found

    def tests(self) -> list[Plain]:
        """Paired differences of conditions that played the same tasks; p after Holm's method."""
        names = list(self._episodes)
        pairs = [(a, b) for i, b in enumerate(names) for a in names[i + 1 :]]
        if len(pairs) > MOST_PAIRS:
            pairs = [(a, names[0]) for a in names[1:]]
        found: list[Plain] = []
        for a, b in pairs:
            first, second = self._episodes[a], self._episodes[b]
            common = {e.task.identity for e in first} & {e.task.identity for e in second}
            if len(common) < 2:
                continue
            test = paired(first, second)
            found.append({"a": a, "b": b, **asdict(test)})
        for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
            row["p"] = float(p)
        return found


def _plain(condition: str, split: str, kind: str, row: Row) -> Plain:
    values = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(row).items()}
    return {
        **values,
        "condition": condition,
        "split": split,
        "type": kind,
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
