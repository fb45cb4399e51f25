"""An experience memory: episodes on disk, durable once added, found again by similarity.

from relive.memory import ExperienceMemory, Query

with ExperienceMemory("experience") as memory:
    memory.add(episode)
    hits = memory.search(Query("put a hot mug in cabinet", k=2))
    episodes = [memory.get(hit.episode_id) for hit in hits]
"""

from ..task import Task
from .episode import Actor, Episode, Outcome, Retrieved, Step, StopReason
from .holdout import Holdout, Purpose
from .maintenance.stats import MemoryStats
from .query import EntryMeta, Hit, Query, Why
from .search.embed import Embedder, HashedEmbedder
from .search.index import IndexSettings
from .storage.log import Damage
from .store import ExperienceMemory
from .usefulness import Usefulness

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
    "Task",
    "Usefulness",
    "Why",
]
