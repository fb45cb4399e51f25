"""Who has to go when a memory is bounded, without forgetting a kind of task altogether."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from ..compose import whole_number
from ..state import State
from ..storage.catalog import SUCCESS

POLICIES = ("age", "usefulness", "largest-type", "random")
"""``age``: in the order in which they were added, whenever they started. ``usefulness``: those that
helped least, failures before successes among equals. ``largest-type``: of whichever task type has
most, the one that was added first. ``random``: a pseudo-random order that the seed decides, to
compare with."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry, as far as eviction is concerned."""

    sequence: int
    """Of its record: the order in which they were added."""
    type: int
    """Hash of suite and task type."""
    success: bool
    usefulness: float
    started: float
    """Unix time in seconds."""


def evicted(state: State, **settings: Any) -> tuple[str, ...]:
    """Ids of the episodes to delete, in the order in which they go; arguments and errors as of
    :func:`victims`."""
    while True:
        gone = np.array(victims(evictable(state), **settings), dtype=np.int64)
        named = state.named(np.searchsorted(state.catalog.sequences, gone))
        if len(named) == len(gone):
            return tuple(name for _, name in named)
        # One of them is damaged, which is known from now on: it takes nobody's place.


def evictable(state: State) -> list[Candidate]:
    """All episodes that are neither deleted nor known to be damaged, as far as eviction is
    concerned."""
    ordinals, table = np.arange(len(state.catalog)), state.usefulness()
    alive = ordinals[~state.is_gone(ordinals, state.position)]
    sequences = state.catalog.sequences[alive].tolist()
    columns = [
        state.catalog.column(name)[alive].tolist() for name in ("suite", "type", "flags", "time")
    ]
    useful = table.values(sequences).tolist()
    return [
        Candidate(sequence, hash((suite, kind)), bool(flags & SUCCESS), worth, started)
        for sequence, suite, kind, flags, started, worth in zip(
            sequences, *columns, useful, strict=True
        )
    ]


def victims(
    entries: Sequence[Candidate],
    *,
    capacity: int | None = None,
    before: float | None = None,
    by: str = "age",
    keep_per_type: int = 2,
    seed: int = 0,
) -> list[int]:
    """Sequence numbers of the entries to delete, in the order in which they go.

    Args:
        entries: all that there are.
        capacity: how many may stay; None for any number.
        before: those that started before this time (Unix seconds) go whatever the capacity.
        by: one of :data:`POLICIES`: who goes first when there are too many.
        keep_per_type: so many successes of each task type stay, whatever else; a capacity that is
            too small for that is exceeded.
        seed: of the policy ``random``.

    Raises:
        TypeError: an argument is not of its type.
        ValueError: an unknown policy, nothing to go by, a negative number, or a time that is none.
    """
    if by not in POLICIES:
        raise ValueError(f"unknown eviction policy {by!r}; use one of {', '.join(POLICIES)}")
    if capacity is None and before is None:
        raise ValueError(
            "eviction needs a capacity (how many may stay) or a time before which entries go"
        )
    least = {"keep_per_type": keep_per_type} | ({} if capacity is None else {"capacity": capacity})
    for name, value in least.items():
        if whole_number(name, value) < 0:
            raise ValueError(f"{name} is {value}; it cannot be negative")
    whole_number("seed", seed)
    if before is not None:
        if isinstance(before, bool) or not isinstance(before, Real):
            raise TypeError(f"before must be a time in Unix seconds, not {before!r}")
        if math.isnan(before):
            raise ValueError(f"before is {before}; it must be a time in Unix seconds")
    left = Counter(entry.type for entry in entries if entry.success)
    gone: list[int] = []

    def spared(entry: Candidate) -> bool:
        return entry.success and left[entry.type] <= keep_per_type

    def go(entry: Candidate) -> None:
        gone.append(entry.sequence)
        left[entry.type] -= entry.success

    stay = sorted(entries, key=lambda entry: _order(entry, by, seed))
    if before is not None:
        for entry in [entry for entry in stay if entry.started < before]:
            if not spared(entry):
                go(entry)
        departed = set(gone)
        stay = [entry for entry in stay if entry.sequence not in departed]
    excess = len(stay) - capacity if capacity is not None else 0
    groups: dict[int, list[Candidate]] = {}
    for entry in reversed(stay):
        groups.setdefault(entry.type if by == "largest-type" else 0, []).append(entry)
    sizes = {type: len(group) for type, group in groups.items()}
    while excess > 0 and groups:
        largest = max(groups, key=lambda type: (sizes[type], -groups[type][-1].sequence))
        entry = groups[largest].pop()
        if not groups[largest]:
            del groups[largest]
        if not spared(entry):
            go(entry)
            sizes[largest] -= 1
            excess -= 1
    return gone


def _order(entry: Candidate, by: str, seed: int) -> tuple[float, ...]:
    if by == "usefulness":
        return entry.usefulness, entry.success, entry.sequence
    if by == "random":
        mixed = hashlib.blake2b(b"%d/%d" % (seed, entry.sequence), digest_size=8).digest()
        return (int.from_bytes(mixed, "little"),)
    return (entry.sequence,)
