"""What an episode is found by: texts of it that are embedded.

``goal``: what was to be done; one text. ``first``: the first observation; one text. ``window``:
what a dynamic query would have said before each step, the goal and the latest steps; as many texts
as there are steps.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..episode import Episode
from ..storage.catalog import Catalog
from ..storage.rows import Numbers
from .vectors import WINDOW_BITS

FIELDS = ("goal", "first", "window")
"""All kinds of fields. A memory always has the first; the others where it was opened with them."""
WINDOW = 3
"""Steps of the history that a dynamic query holds: with more of them the goal is drowned."""
MOST = 255
"""Texts of one episode at most; of more steps, evenly spread ones."""


def query_text(goal: str, history: Sequence[tuple[str, str]]) -> str:
    """What is embedded to ask: the goal, and the latest steps (action, the observation that
    followed) where there are any."""
    return " ".join([goal, *(f". {action}. {seen}" for action, seen in history[-WINDOW:])])


def field_count(field: str, steps: int) -> int:
    """How many texts an episode of so many steps has."""
    return min(max(steps, 1), MOST) if field == "window" else 1


def field_texts(field: str, episode: Episode) -> list[str]:
    """The texts of an episode; :func:`field_count` of them."""
    if field == "goal":
        return [episode.task.goal]
    if field == "first":
        return [episode.observations[0]]
    steps = [
        (step.action, seen)
        for step, seen in zip(episode.steps, episode.observations[1:], strict=True)
    ]
    count = field_count(field, len(steps))
    ends = [number * max(len(steps), 1) // count for number in range(count)]
    return [query_text(episode.task.goal, steps[:end]) for end in ends]


def labels_from(catalog: Catalog, field: str, start: int) -> tuple[Numbers, NDArray[np.uint32]]:
    """Labels of the texts of all episodes from ordinal `start` on, and the checksums of their
    records."""
    sequences = catalog.sequences[start:]
    checksums = catalog.column("checksum")[start:].astype(np.uint32)
    if field != "window":
        return sequences << WINDOW_BITS, checksums
    counts = np.array(
        [field_count(field, steps) for steps in catalog.column("steps")[start:].tolist()],
        dtype=np.int64,
    )
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return (np.repeat(sequences, counts) << WINDOW_BITS) + within, np.repeat(checksums, counts)
