"""An experience memory: episodes on disk, durable once added, found again by similarity.

from relive.memory import Memory, Query

with Memory("experience") as memory:
    memory.add(episode)
    hits = memory.search(Query("put a hot mug in cabinet", k=2))
    episodes = [memory.get(hit.episode_id) for hit in hits]
"""

from ..task import Task
from .episode import Actor, Episode, Outcome, Retrieved, Step, StopReason
from .holdout import Holdout, Purpose
from .maintenance.stats import MemoryStats
from .query import EntryMeta, EpisodeNotFoundError, Explanation, Hit, Query, Retrieval
from .search.embed import Embedder, HashedEmbedder
from .search.index import IndexSettings
from .search.usefulness import Usefulness
from .storage.durable import Corruption
from .store import Memory

__all__ = [
    "Actor",
    "Corruption",
    "Embedder",
    "EntryMeta",
    "Episode",
    "EpisodeNotFoundError",
    "Explanation",
    "HashedEmbedder",
    "Hit",
    "Holdout",
    "IndexSettings",
    "Memory",
    "MemoryStats",
    "Outcome",
    "Purpose",
    "Query",
    "Retrieval",
    "Retrieved",
    "Step",
    "StopReason",
    "Task",
    "Usefulness",
]
