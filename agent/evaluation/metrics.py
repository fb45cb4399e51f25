"""From episodes to a table that cannot be misread: success per type with intervals, steps, invalid
actions, retrieval."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...memory.episode import Episode, StopReason
from .statistics import PairedDifference, paired_difference


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 % by default; (0, 1) when nothing was tried.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927).
    """
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Rounding must not leave the rate itself outside: at 100 % the upper end would come out as
    # 0.9999….
    return max(0.0, min(p, (centre - spread) / (1 + z * z / n))), min(
        1.0, max(p, (centre + spread) / (1 + z * z / n))
    )


@dataclass(frozen=True, slots=True)
class Row:
    """Results of one group of episodes. Rates are in [0, 1]."""

    name: str
    n: int
    """Episodes, environment errors left out."""
    successes: int
    low: float
    """Lower end of the 95 % Wilson interval of the success rate."""
    high: float
    steps: float
    """Mean number of actions."""
    invalid: float
    """Share of actions that the environment refused."""
    right_type: float | None
    """Share of retrieved episodes whose procedure (task type) was the right one; None when nothing
    was retrieved."""
    errors: int
    """Episodes lost to environment errors."""
    policy_errors: int = 0
    """Of the n, those that the policy broke off by raising; they count as failures."""
    tokens: float | None = None
    """Mean number of tokens that an episode's actions took, read and written; None where nobody
    counted."""
    cost: float | None = None
    """What all of them cost; None where there are no prices."""
    score: float = 0.0
    """Mean score at the end, in [0, 1]; scores below 0 count as 0, as in papers."""
    best: float = 0.0
    """Mean of the highest score at any point, in [0, 1]."""
    shown: float | None = None
    """Mean number of past episodes that an episode was shown; None where no memory was read."""

    @property
    def success(self) -> float:
        """Success rate."""
        return self.successes / self.n if self.n else 0.0


def summarise(
    name: str, episodes: Sequence[Episode], type_of: Mapping[str, str] | Callable[[str], str | None]
) -> Row:
    """One row from episodes.

    Args:
        name: of the row.
        episodes: any number.
        type_of: task type of a retrieved episode, by its id; for reporting only.
    """
    look = type_of.get if isinstance(type_of, Mapping) else type_of
    played = [e for e in episodes if e.outcome.reason is not StopReason.ENVIRONMENT_ERROR]
    won = sum(e.success for e in played)
    actions = sum(len(e.steps) for e in played)
    right = [look(r.episode) == e.task.type for e in played for s in e.steps for r in s.retrieved]
    low, high = wilson(won, len(played))
    reading = [e for e in played if e.memory_position >= 0]
    counted = [e for e in played if {"prompt", "completion"} <= set(e.usage)]
    cost = sum(e.usage.get("cost", 0.0) for e in episodes)
    return Row(
        name,
        len(played),
        won,
        low,
        high,
        actions / len(played) if played else 0.0,
        sum(s.invalid for e in played for s in e.steps) / actions if actions else 0.0,
        sum(right) / len(right) if right else None,
        len(episodes) - len(played),
        sum(e.outcome.reason is StopReason.POLICY_ERROR for e in played),
        sum(e.usage["prompt"] + e.usage["completion"] for e in counted) / len(counted)
        if counted
        else None,
        cost or None,
        mean([max(0.0, e.outcome.score) for e in played]),
        mean([max(0.0, e.outcome.score, e.outcome.best) for e in played]),
        mean([len(e.retrieved) for e in reading]) if reading else None,
    )


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def table(
    episodes: Sequence[Episode],
    groups: Mapping[str, Sequence[str]],
    type_of: Mapping[str, str] | Callable[[str], str | None],
) -> list[Row]:
    """A row per task type, then one per group, then one for all."""
    by_type: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_type.setdefault(episode.task.type, []).append(episode)
    known = [t for types in groups.values() for t in types]
    rows = [
        summarise(t, by_type[t], type_of)
        for t in [*known, *(t for t in by_type if t not in known)]
        if t in by_type
    ]
    for group, types in groups.items():
        members = [e for t in types for e in by_type.get(t, [])]
        if members and len(by_type) > 1:
            rows.append(summarise(group, members, type_of))
    return [*rows, summarise("all", episodes, type_of)]


def paired(first: Sequence[Episode], second: Sequence[Episode]) -> PairedDifference:
    """Difference in success on the tasks that both played, environment errors left out; clustered
    by room.

    Raises:
        ValueError: they have no task in common.
    """
    a, b = (
        {
            e.task.identity: float(e.success)
            for e in episodes
            if e.outcome.reason is not StopReason.ENVIRONMENT_ERROR
        }
        for episodes in (first, second)
    )
    rooms = {e.task.identity: e.task.room for e in first}
    common = [task for task in a if task in b]
    if len(common) == 1:
        return PairedDifference(1, 1, a[common[0]] - b[common[0]], -1.0, 1.0, 1.0)
    # Tasks of one room are alike; where a suite has but one room, they are taken as they are.
    by_room = len({rooms[task] for task in common}) > 1
    return paired_difference(a, b, rooms if by_room else {task: task for task in rooms})
