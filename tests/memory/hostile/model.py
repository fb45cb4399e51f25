"""A memory as a plain list: what has to be there, and what a search has to find, at every log
position."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from relive.memory import Embedder, Episode, Query
from relive.memory.search.fields import field_texts
from tests.memory.hostile.ask import Hide, is_hidden


@dataclass(eq=False)
class Entry:
    """One episode."""

    episode: Episode
    sequence: int
    """Of its record."""
    vectors: dict[str, NDArray[np.float64]]
    """By key; one row for each text."""
    deleted: int | None = None
    """Sequence number of its deletion, while it is deleted."""
    restored: list[tuple[int, int]] = field(default_factory=list)
    """Sequence numbers of earlier deletions, and of what took them back."""
    said: list[tuple[int, str, float | None]] = field(default_factory=list)
    """Ratings given and removed (None): sequence number, name and value."""
    notes: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Of the episode."""
        return self.episode.id

    def is_there(self, at: int) -> bool:
        """Whether it is seen at a log position."""
        between = any(since < at <= until for since, until in self.restored)
        gone = self.deleted is not None and self.deleted < at
        return self.sequence < at and not gone and not between

    def ratings(self, at: int) -> dict[str, float]:
        """All that are in force at a log position."""
        held = dict(self.episode.ratings)
        for sequence, name, value in self.said:
            if sequence < at:
                held.pop(name, None)
                held |= {} if value is None else {name: value}
        return held

    def now(self, at: int) -> Episode:
        """The episode with what was said before a log position."""
        return replace(self.episode, ratings=self.ratings(at))

    def similarity(self, vector: NDArray[np.float64], fields: Sequence[str]) -> float:
        """Of the closest of its texts."""
        return max(float((self.vectors[key] @ vector).max()) for key in fields)


class Model:
    """What a memory has to hold, written down a second time.

    Args:
        embedder: of the memory.
        fields: of the memory.
    """

    def __init__(self, embedder: Embedder, fields: Sequence[str]) -> None:
        self.embedder, self.fields = embedder, tuple(fields)
        self.entries: list[Entry] = []
        """In the order of the log; those that were compacted away are not here."""
        self.position = 0

    @property
    def alive(self) -> list[Entry]:
        """Those that were not deleted."""
        return [entry for entry in self.entries if entry.deleted is None]

    def visible(self, at: int | None = None) -> list[Entry]:
        """Those that are there at a log position."""
        position = self.position if at is None else at
        return [entry for entry in self.entries if entry.is_there(position)]

    def find(self, name: str) -> Entry | None:
        """The entry of an id, deleted or not."""
        return next((entry for entry in self.entries if entry.id == name), None)

    def add(self, episodes: Sequence[Episode]) -> None:
        """Add some."""
        for episode in episodes:
            vectors = {key: self._encode(field_texts(key, episode)) for key in self.fields}
            self.entries.append(Entry(episode, self.position, vectors))
            self.position += 1

    def delete(self, entry: Entry) -> None:
        """Delete one."""
        entry.deleted = self.position
        self.position += 1

    def restore(self, entry: Entry) -> None:
        """Take a deletion back."""
        assert entry.deleted is not None
        entry.restored.append((entry.deleted, self.position))
        entry.deleted = None
        self.position += 1

    def say(self, entry: Entry, name: str, value: float | None) -> None:
        """Give a rating, or remove it."""
        entry.said.append((self.position, name, value))
        self.position += 1

    def compact(self) -> int:
        """Forget what was deleted; how many these are."""
        before = len(self.entries)
        self.entries = self.alive
        return before - len(self.entries)

    def victims(
        self, capacity: int | None, before: float | None, keep_per_type: int
    ) -> list[Entry]:
        """Who has to go: those that began before a time, then the oldest until no more than the
        capacity are left."""
        gone: list[Entry] = []
        left = Counter(entry.episode.task.type for entry in self.alive if entry.episode.success)

        def go(entry: Entry) -> None:
            kind, success = entry.episode.task.type, entry.episode.success
            if not (success and left[kind] <= keep_per_type):
                gone.append(entry)
                left[kind] -= success

        for entry in self.alive:
            if before is not None and entry.episode.started < before:
                go(entry)
        for entry in (
            [entry for entry in self.alive if entry not in gone] if capacity is not None else []
        ):
            if len(self.alive) - len(gone) > (capacity or 0):
                go(entry)
        return gone

    def scores(self, query: Query, hide: Hide, at: int | None = None) -> dict[str, float]:
        """Similarity of all that a search might show, by id."""
        vector, position = self._encode([query.text])[0], self.position if at is None else at
        return {
            entry.id: score
            for entry in self.visible(at)
            if not entry.ratings(position).get("unsafe", 0) > 0
            if self._is_wanted(query, entry) and not is_hidden(hide, entry.episode.task)
            for score in [entry.similarity(vector, query.fields)]
            if query.min_score is None or score >= query.min_score
        }

    def _is_wanted(self, query: Query, entry: Entry) -> bool:
        task, actor = entry.episode.task, entry.episode.actor
        has = {"suite": task.suite, "type": task.type, "split": task.split}
        has |= {"policy": actor.policy, "adapter": actor.adapter}
        if query.successes_only and not entry.episode.success:
            return False
        return entry.id not in query.exclude and all(
            has[name] in values for name, values in query.only.items()
        )

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.asarray(self.embedder.encode(texts), dtype=np.float64)


def greedy(
    scores: dict[str, float],
    vectors: dict[str, NDArray[np.float64]],
    diversity: float,
    names: Sequence[str],
    begins: dict[str, int],
) -> Iterator[tuple[float, float]]:
    """For a list that was chosen one after the other: the score of each in its turn, and the best
    that was left then. `begins`: the turn from which some of them are looked at, where not from the
    first."""
    redundancy = dict.fromkeys(scores, -np.inf)
    left = set(scores)
    for turn, name in enumerate(names):
        worth = {
            other: (1 - diversity) * scores[other]
            - (diversity * redundancy[other] if turn else 0.0)
            for other in left
        }
        there = [value for other, value in worth.items() if begins.get(other, 0) <= turn]
        yield worth[name], max(there)
        left.discard(name)
        for other in left:
            redundancy[other] = max(redundancy[other], float(vectors[other] @ vectors[name]))
