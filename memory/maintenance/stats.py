"""What a memory holds, counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..state import State
from ..storage.catalog import NEVER, SUCCESS, UNREADABLE
from ..storage.durable import Corruption
from ..storage.ingest import CREDIT
from ..storage.rows import Numbers
from ..storage.segments import Kind
from .verify import all_damage


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """What a memory holds."""

    path: str
    entries: int
    """Episodes that can be read."""
    successes: int
    by_type: Mapping[str, int]
    by_split: Mapping[str, int]
    by_policy: Mapping[str, int]
    deleted: int
    """Episodes that were deleted and whose bytes are still there."""
    ratings: int
    """Records of ratings; those that were replaced or removed count until they are compacted
    away."""
    notes: int
    credits: int
    """Times that an episode was shown to a run whose end is known."""
    most_useful: Mapping[str, float]
    """Ids and values of the entries that helped most, at most five."""
    other_records: int
    """Records of kinds that this program does not know."""
    position: int
    """Log position up to which was read."""
    log_bytes: int
    total_bytes: int
    """Everything in the folder."""
    embedder: str
    """Identity of the embedder."""
    fields: tuple[str, ...]
    """What episodes can be found by."""
    embedded: int
    """Vectors that had to be computed because none were stored."""
    index_entries: int
    """Rows in the HNSW graph of goals that is in use; 0: every search is exact."""
    damage: tuple[Corruption, ...]
    """What was found damaged, and what was done about it."""


def count(state: State) -> MemoryStats:
    """Count what is known of a memory."""
    catalog = state.catalog
    there = np.flatnonzero(catalog.delete_positions() == NEVER)
    alive = there[~state.is_gone(there, state.position)]
    kinds = np.concatenate(
        [part["kind"] for part in catalog.file.parts(0, len(catalog.file))]
        or [np.empty(0, np.uint8)]
    )
    credited = sorted({target for _, target in catalog.others(CREDIT) if target < NEVER})
    values = state.usefulness().values(credited) if credited else np.empty(0)
    best = [i for i in np.argsort(-values, kind="stable")[:5].tolist() if values[i] > 0]
    known = {sequence: catalog.ordinal_at(sequence) for sequence in (credited[i] for i in best)}
    return MemoryStats(
        path=str(state.folder),
        entries=len(alive),
        successes=int(np.count_nonzero(catalog.column("flags")[alive] & SUCCESS)),
        by_type=_tally(state, "type", alive),
        by_split=_tally(state, "split", alive),
        by_policy=_tally(state, "policy", alive),
        deleted=len(catalog) - len(there),
        ratings=int(np.count_nonzero(kinds == Kind.RATING)),
        notes=int(np.count_nonzero(kinds == Kind.NOTE)),
        credits=sum(target < NEVER for _, target in catalog.others(CREDIT)),
        most_useful={
            state.id_of(ordinal): round(float(values[credited.index(sequence)]), 4)
            for sequence, ordinal in known.items()
            if ordinal is not None
        },
        other_records=int(np.count_nonzero((kinds > max(Kind)) & (kinds < UNREADABLE))),
        position=state.position,
        log_bytes=state.log.size,
        total_bytes=_folder_bytes(state.folder),
        embedder=state.embedder.identity,
        fields=state.fields,
        embedded=sum(space.column.embedded for space in state.spaces.values()),
        index_entries=state.spaces["goal"].covered,
        damage=all_damage(state),
    )


def _tally(state: State, field: str, ordinals: Numbers) -> dict[str, int]:
    """How many episodes have which text in a field; the texts are those of the first of each."""
    hashes, first, counts = np.unique(
        state.catalog.column(field)[ordinals], return_index=True, return_counts=True
    )
    tally = {}
    for hashed, index, number in zip(hashes.tolist(), first.tolist(), counts.tolist(), strict=True):
        try:
            meta = state.meta(int(ordinals[index]))
            text = {"type": meta.task.type, "split": meta.task.split, "policy": meta.policy}[field]
        except ValueError:
            text = f"(damaged, {hashed:016x})"
        tally[text] = number
    return tally


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # a snapshot that was replaced meanwhile
    return total
