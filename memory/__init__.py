"""An experience memory: episodes on disk, durable once added, found again by similarity.

from memory import ExperienceMemory, Query

with ExperienceMemory.open("experience", mode="create") as memory:
    memory.add(episode)
    hits = memory.search(Query("put a hot mug in cabinet", k=2))
    episodes = [memory.get(hit.episode_id) for hit in hits]
"""

from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path

from memory.embed import Embedder, HashedEmbedder
from memory.episode import Actor, Episode, Outcome, Retrieved, Step, StopReason, TaskRecord
from memory.holdout import Holdout, Purpose
from memory.index import IndexSettings
from memory.log import Damage
from memory.query import EntryMeta, Hit, Query, Why
from memory.stats import MemoryStats
from memory.store import ExperienceMemory
from memory.usefulness import Usefulness

# These names collide easily (a user's own memory.py, another package called envs), so: do the siblings come from here?
for _name in ("agent", "envs", "training"):
    _found = _find_spec(_name)
    _origin = _found.origin if _found else None
    if _origin is None or _Path(_origin).resolve().parents[1] != _Path(__file__).resolve().parents[1]:
        raise ImportError(
            f"relive needs its own package {_name!r}, but Python finds {_origin or 'none'}: "
            "rename or move that file, or run from another folder"
        )

__all__ = [
    "Actor",
    "Damage",
    "Embedder",
    "EntryMeta",
    "Episode",
    "ExperienceMemory",
    "HashedEmbedder",
    "Hit",
    "Holdout",
    "IndexSettings",
    "MemoryStats",
    "Outcome",
    "Purpose",
    "Query",
    "Retrieved",
    "Step",
    "StopReason",
    "TaskRecord",
    "Usefulness",
    "Why",
]
