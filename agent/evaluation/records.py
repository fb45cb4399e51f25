"""Compact records of episodes, from which committed results are recomputed and replayed.

A record is plain JSON: which task, under which condition, what was retrieved, what was done, how it
ended, by which weights.
"""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...memory import Memory
from ...memory.episode import Episode
from ...memory.storage.durable import replace_file
from ..retriever import Retriever, first_steps, refreshed
from .audit import audit_of

Record = dict[str, Any]

REPLAYED = ("retrieved", "memory_tokens", "actions", "success", "weights_sha256")
"""Fields that must come out the same when an episode is played again."""


def record(
    episode: Episode,
    condition: Mapping[str, Any],
    store: Memory | None = None,
    retriever: Retriever | None = None,
    count: Any = None,
) -> Record:
    """What is kept of an episode.

    Args:
        episode: played under the condition.
        condition: fields that say under which; they come first.
        store: memory that was read; None when there was none.
        retriever: what was retrieved with; with `count` it gives the length of the memory block at
            the start. Where it asked once more after some steps, the record is of what was shown
            from then on.
        count: number of tokens of a text.
    """
    first, again = episode.observations[0], refreshed(episode, retriever)
    history = first_steps(episode, again)
    shown = (
        retriever(episode.task, history, opening=first).demonstrations
        if retriever and count
        else ()
    )
    # As of then: what was shown may have been evicted since.
    at = episode.memory_position if episode.memory_position >= 0 else None
    found = (
        [store.meta(r.episode, at).task for s in episode.steps[again:] for r in s.retrieved]
        if store
        else []
    )
    return {
        **condition,
        "task": episode.task.identity,
        "task_type": episode.task.type,
        "room": episode.task.room,
        "goal": episode.task.goal,
        "retrieved": [[t.identity, t.type] for t in found],
        "actions": [s.action for s in episode.steps],
        "success": episode.success,
        "reason": str(episode.outcome.reason),
        "weights_sha256": episode.actor.weights,
        "invalid": sum(s.invalid for s in episode.steps),
        "memory_tokens": sum(count(demo.text) for demo in shown),
        "score": round(max(0.0, episode.outcome.score), 4),
        "best_score": round(max(0.0, episode.outcome.score, episode.outcome.best), 4),
        "tokens": round(episode.usage.get("prompt", 0) + episode.usage.get("completion", 0)),
        "seconds": round(episode.timings.get("total", 0.0), 2),
        "audit": audit_of(episode, store, retriever).plain,
    }


def right_type_share(records: Iterable[Record]) -> float | None:
    """Share of the retrieved episodes that had the type of the task at hand; None when nothing was
    retrieved."""
    right = [kind == r["task_type"] for r in records for _, kind in r["retrieved"]]
    return round(sum(right) / len(right), 4) if right else None


def write(file: Path, records: Iterable[Record]) -> None:
    """Writes records as compressed JSON lines, all or nothing; the same records give the same
    bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(
        file, gzip.compress("".join(json.dumps(one) + "\n" for one in records).encode(), mtime=0)
    )


def read(file: Path) -> list[Record]:
    """Reads what `write` wrote."""
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]
