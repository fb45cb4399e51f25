"""What a memory holds, counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..state import State
from ..storage.catalog import NEVER, SUCCESS, UNREADABLE
from ..storage.durable import Corruption
from ..storage.ingest import CREDIT
from ..storage.rows import Numbers
from ..storage.segments import Kind
from .verify import all_damage

BEST = 5
"""Entries that are named as those that helped most."""


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
    """Ids and values of the entries that helped most, at most :data:`BEST`."""
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
    texts = {field: _texts(state, field, there) for field in ("type", "split", "policy")}
    most_useful = _most_useful(state)
    # Only now: what was found damaged on the way is none of those that can be read.
    alive = there[~state.is_gone(there, state.position)]
    kinds = np.concatenate(
        [part["kind"] for part in catalog.file.parts(0, len(catalog.file))]
        or [np.empty(0, np.uint8)]
    )
    return MemoryStats(
        path=str(state.folder),
        entries=len(alive),
        successes=int(np.count_nonzero(catalog.column("flags")[alive] & SUCCESS)),
        by_type=_tally(catalog.column("type")[alive], texts["type"]),
        by_split=_tally(catalog.column("split")[alive], texts["split"]),
        by_policy=_tally(catalog.column("policy")[alive], texts["policy"]),
        deleted=len(catalog) - len(there),
        ratings=int(np.count_nonzero(kinds == Kind.RATING)),
        notes=int(np.count_nonzero(kinds == Kind.NOTE)),
        credits=sum(target < NEVER for _, target in catalog.others(CREDIT)),
        most_useful=most_useful,
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


def _texts(state: State, field: str, ordinals: Numbers) -> dict[int, str]:
    """By their hashes, the texts that these episodes have in a field; without those that only
    damaged ones have."""
    ordinals = ordinals[~state.is_gone(ordinals, state.position)]
    column = state.catalog.column(field)[ordinals]

    def text_of(ordinal: int) -> str | None:
        try:
            meta = state.meta(ordinal)
        except ValueError:
            return None
        return {"type": meta.task.type, "split": meta.task.split, "policy": meta.policy}[field]

    texts = {}
    hashes, first = np.unique(column, return_index=True)
    for hashed, index in zip(hashes.tolist(), first.tolist(), strict=True):
        text = text_of(int(ordinals[index]))
        if text is None:  # then another one says it
            others = map(text_of, ordinals[column == hashed].tolist())
            text = next((other for other in others if other is not None), None)
        if text is not None:
            texts[hashed] = text
    return texts


def _tally(column: NDArray[np.uint64], texts: Mapping[int, str]) -> dict[str, int]:
    """How many episodes have which text in a field, given their hashes."""
    hashes, counts = np.unique(column, return_counts=True)
    pairs = zip(hashes.tolist(), counts.tolist(), strict=True)
    return {texts[hashed]: number for hashed, number in pairs}


def _most_useful(state: State) -> dict[str, float]:
    """Ids and values of the entries that helped most and can be read, at most :data:`BEST`."""
    credited = [target for _, target in state.catalog.others(CREDIT) if target < NEVER]
    ordinals = np.flatnonzero(np.isin(state.catalog.sequences, credited))
    ordinals = ordinals[~state.is_gone(ordinals, state.position)]
    if not len(ordinals):
        return {}
    values = state.usefulness().values(state.catalog.sequences[ordinals].tolist())
    order = np.argsort(-values, kind="stable")
    best = (
        (name, round(float(values[place]), 4))
        for place in order[values[order] > 0].tolist()
        for _, name in state.named(ordinals[place : place + 1])
    )
    return dict(islice(best, BEST))


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # a snapshot that was replaced meanwhile
    return total
