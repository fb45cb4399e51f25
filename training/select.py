"""What to learn from: which of the remembered episodes become training examples."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..memory import ExperienceMemory
from ..memory.episode import Episode
from ..memory.holdout import TRAIN


@dataclass(frozen=True, slots=True)
class SelectSettings:
    """Which episodes are learnt from."""

    policies: tuple[str, ...] = ("local",)
    """Who must have acted: the agent's own successes by default; add ``expert`` to imitate
    demonstrations as well."""
    types: tuple[str, ...] = ()
    """Task types; empty for all."""
    per_task: int = 1
    """Episodes kept of each task, the shortest first."""


def select(
    memory: ExperienceMemory, settings: SelectSettings, position: int | None = None
) -> list[Episode]:
    """Successful episodes of the train split that the memory held at a position, ordered by task.

    Nothing of another split is ever learnt from. Of several successes at one task the shortest are
    kept: they are the ones with the fewest refused actions and detours.
    """
    by_task: dict[str, list[tuple[int, int, str]]] = {}
    for entry in memory.entries(at=position):
        wanted = entry.success and entry.task.split == TRAIN and entry.policy in settings.policies
        if wanted and (not settings.types or entry.task.type in settings.types):
            by_task.setdefault(entry.task.identity, []).append(
                (entry.steps, entry.position, entry.episode_id)
            )
    # By task, not in the order of the log: that depends on which of several episodes ended first.
    kept = [
        shortest
        for _, found in sorted(by_task.items())
        for shortest in sorted(found)[: settings.per_task]
    ]
    return [memory.get(episode, at=position) for _, _, episode in kept]


def tasks_of(episodes: Sequence[Episode]) -> list[str]:
    """Identities of the tasks, without repeats, in order."""
    return list(dict.fromkeys(episode.task.identity for episode in episodes))
