"""Episodes of the same task with the same actions, of which one is enough."""

from collections.abc import Sequence

import numpy as np

from ..episode import Episode
from ..state import State
from ..storage.codec import actions_digest
from ..storage.ingest import task_digest


def duplicate_of(state: State, episode: Episode) -> str | None:
    """Id of an episode of the same task with the same actions; None if there is none that can be
    read."""
    catalog = state.catalog
    same = catalog.column("task") == np.uint64(task_digest(episode.task.identity))
    same &= catalog.column("actions") == np.uint64(actions_digest(episode))
    ordinals = np.flatnonzero(same)
    for ordinal in ordinals[~state.is_gone(ordinals, state.position)].tolist():
        try:
            there = state.read(ordinal)
        except ValueError:
            continue  # damaged, and noted: what is lost is no reason to leave another one out
        # Other actions may have the same hash: it does not tell where one ends and the next begins.
        if _actions(there) == _actions(episode):
            return there.id
    return None


def new_among(state: State, episodes: Sequence[Episode]) -> list[int]:
    """Places of those of which nothing is there yet, the first of each, ascending."""
    first: dict[tuple[int, tuple[str, ...]], int] = {}
    for place, episode in enumerate(episodes):
        first.setdefault((task_digest(episode.task.identity), _actions(episode)), place)
    return [place for place in first.values() if duplicate_of(state, episodes[place]) is None]


def _actions(episode: Episode) -> tuple[str, ...]:
    return tuple(step.action for step in episode.steps)
