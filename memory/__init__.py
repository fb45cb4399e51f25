"""An experience memory: episodes on disk, durable once added, found again by similarity.

from memory import ExperienceMemory, Purpose, Query, Viewer

with ExperienceMemory.open("experience", mode="create") as memory:
    memory.add(episode)
    hits = memory.search(Query("put a hot mug in cabinet", k=2), Viewer.of(task, Purpose.ACT))
    episodes = [memory.get(hit.episode_id) for hit in hits]
"""

from memory.embed import Embedder, HashedEmbedder
from memory.episode import Actor, Episode, Outcome, Retrieved, Step, StopReason, TaskRecord
from memory.log import Damage
from memory.retrieve import EntryMeta, Hit, Purpose, Query, Viewer, Why
from memory.store import ExperienceMemory, MemoryStats

__all__ = [
    "Actor",
    "Damage",
    "Embedder",
    "EntryMeta",
    "Episode",
    "ExperienceMemory",
    "HashedEmbedder",
    "Hit",
    "MemoryStats",
    "Outcome",
    "Purpose",
    "Query",
    "Retrieved",
    "Step",
    "StopReason",
    "TaskRecord",
    "Viewer",
    "Why",
]
