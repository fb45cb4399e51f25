"""What the page about a memory asks of it, and what it may change: plain values in, plain values
out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ...extras import needs
from ...memory import Memory, Query, Retrieval
from ...memory.episode import Episode
from ...memory.query import EntryMeta, Hit
from ...memory.search.embed import Vectors
from ..policy import words
from ..retriever import MemoryRetriever
from .episodes import Plain, why
from .shown import purpose_of, spec_of_episode

MOST = 50
"""Hits of a search at most."""
MAPPED = 20_000
"""Entries on the map at most; of more, every so many."""


class View:
    """A memory as the page sees it.

    Args:
        memory: open for writing, or for reading, which refuses every change.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._mapped: tuple[tuple[str, ...], dict[str, tuple[float, float]]] = ((), {})

    def overview(self) -> Plain:
        """Counts, and every entry by column: what lists, filters and the map are made of."""
        memory = self.memory
        if not memory.writable:
            memory.refresh()  # another process may have added to it
        entries = memory.entries()
        at = self._map()
        columns: dict[str, list[Any]] = {
            name: []
            for name in (
                "id", "type", "suite", "split", "goal", "success", "steps", "who", "human",
                "unsafe", "useful", "shown", "x", "y",
            )
        }  # fmt: skip
        for entry in entries:
            for name, value in self._row(entry, at).items():
                columns[name].append(value)
        stats = asdict(memory.stats())
        return {
            "path": memory.path.name,
            "writable": memory.writable,
            "stats": {k: v for k, v in stats.items() if isinstance(v, int | float | str)},
            "entries": columns,
            "duplicates": _duplicates(entries),
            "deleted": [
                {"id": e.episode_id, "goal": e.task.goal, "type": e.task.type}
                for e in memory.deleted()
            ],
        }

    def _row(self, entry: EntryMeta, at: Mapping[str, tuple[float, float]]) -> Plain:
        ratings = self.memory.ratings(entry.episode_id)
        useful = self.memory.usefulness(entry.episode_id)
        x, y = at.get(entry.episode_id, (None, None))
        return {
            "id": entry.episode_id,
            "type": entry.task.type,
            "suite": entry.task.suite,
            "split": entry.task.split,
            "goal": entry.task.goal,
            "success": int(entry.success),
            "steps": entry.steps,
            "who": f"{entry.policy} {entry.adapter}".strip(),
            "human": ratings.get("human"),
            "unsafe": ratings.get("unsafe"),
            "useful": round(useful.value, 4),
            "shown": useful.shown,
            "x": x,
            "y": y,
        }

    def _map(self) -> dict[str, tuple[float, float]]:
        """Where each entry lies on a plane: the two directions in which goals differ most."""
        names, vectors = self.memory.vectors()
        if names == self._mapped[0]:  # ratings move nothing
            return self._mapped[1]
        self._mapped = (names, _plane(names, vectors))
        return self._mapped[1]

    def search(self, asked: Mapping[str, Any]) -> Plain:
        """What an agent that asks this would be shown, why, and what would be kept back from it.

        Args:
            asked: ``text``; ``k``, ``all`` (failures, too), ``usefulness``, ``ratings``,
                ``length_penalty``, ``diversity``; ``as``: id of an entry: what is shown to an agent
                that plays its task, and to no other, under its suite and what is held out from it.
                Without a text it asks by the task's goal.

        Raises:
            ValueError: something in it cannot be asked.
            KeyError: no such entry.
        """
        text, k = str(asked.get("text", "")), min(MOST, int(asked.get("k", 10)))

        def weight(name: str) -> float:
            return float(asked.get(name, 0.0))

        s = Retrieval(
            k, outcomes="all" if asked.get("all") else "successes", usefulness=weight("usefulness"),
            ratings=weight("ratings"), length_penalty=weight("length_penalty"),
            diversity=weight("diversity"),
        )  # fmt: skip
        if asked.get("as"):
            episode = self.memory.get(str(asked["as"]))
            task, spec = episode.task, spec_of_episode(episode)
            retriever = MemoryRetriever(self.memory, spec, words, s, purpose_of(task))
            query = retriever.query(task, text or task.goal)
            shown = self.memory.search(query, retriever.holdout(task))
            everything = self.memory.search(query)
        else:
            query = Query(
                text, k=k, successes_only=s.outcomes == "successes", usefulness=s.usefulness,
                ratings=s.ratings, length_penalty=s.length_penalty, diversity=s.diversity,
            )  # fmt: skip
            everything = shown = self.memory.search(query)
        kept = {hit.episode_id for hit in shown}
        return {
            "hits": [self._hit(hit) for hit in shown],
            "held_back": [self._hit(h) for h in everything if h.episode_id not in kept],
        }

    def _hit(self, hit: Hit) -> Plain:
        entry = self.memory.meta(hit.episode_id)
        return {
            "id": hit.episode_id,
            "score": round(hit.score, 4),
            "goal": entry.task.goal,
            "type": entry.task.type,
            "success": entry.success,
            "why": why(hit.explanation),
        }

    def episode(self, name: str) -> Plain:
        """One episode, with everything that was said about it.

        Raises:
            KeyError: no such entry.
        """
        episode: Episode = self.memory.get(name)
        useful = self.memory.usefulness(name)
        return {
            "id": episode.id,
            "goal": episode.task.goal,
            "task": asdict(episode.task),
            "seen": list(episode.observations),
            "done": [step.action for step in episode.steps],
            "reward": [step.reward for step in episode.steps],
            "refused": [n for n, step in enumerate(episode.steps) if step.invalid],
            "reason": str(episode.outcome.reason),
            "detail": episode.outcome.detail,
            "score": episode.outcome.score,
            "success": episode.success,
            "who": f"{episode.actor.policy} {episode.actor.model.rpartition('/')[2]} "
            f"{episode.actor.adapter}".strip(),
            "started": episode.started,
            "ratings": dict(episode.ratings),
            "notes": list(self.memory.notes(name)),
            "usefulness": asdict(useful),
            "retrieved": [one.episode for one in episode.retrieved],
        }

    def change(self, what: str, told: Mapping[str, Any]) -> Plain:
        """Writes to the log what a person said: ``rate`` (a value of null takes it back),
        ``annotate``, ``delete``, ``restore``.

        Returns:
            The entry's row of the overview, where nothing but it has changed.

        Raises:
            ValueError: there is no such change, or the memory is open for reading.
            KeyError: no such entry.
            TypeError: a value is of the wrong kind.
        """
        if not self.memory.writable:
            raise ValueError("the memory is open for reading: browse it without --read-only")
        name, memory = str(told.get("id", "")), self.memory
        if what == "rate" and told.get("value") is None:
            memory.unrate(name, str(told.get("name", "")))
        elif what == "rate":
            rated, value = str(told.get("name", "")), float(told["value"])
            if not rated or not -1 <= value <= 1:  # nor what is no number
                raise ValueError(f"a rating has a name, and a value from -1 to 1, not {value}")
            memory.rate(name, rated, value)
        elif what == "annotate":
            if not str(told.get("text", "")).strip():
                raise ValueError("an empty remark says nothing")
            memory.annotate(name, str(told["text"]))
        elif what == "delete":
            memory.delete(name, str(told.get("reason", "")))
        elif what == "restore":
            memory.restore(name, str(told.get("reason", "")))
        else:
            raise ValueError(f"unknown change {what!r}: rate, annotate, delete or restore")
        if what in ("delete", "restore"):
            return {}
        return {"row": self._row(memory.meta(name), self._map())}


def _duplicates(entries: Any) -> list[list[str]]:
    """Entries of the same task that ended alike, in groups of at least two."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for entry in entries:
        groups.setdefault((entry.task.identity, entry.success), []).append(entry.episode_id)
    return [names for names in groups.values() if len(names) > 1]


def _plane(names: Sequence[str], vectors: Vectors) -> dict[str, tuple[float, float]]:
    with needs("report"):
        from sklearn.decomposition import PCA

    every = -(-len(names) // MAPPED) or 1
    names, points = names[::every], np.asarray(vectors[::every], dtype=np.float64)
    if len(names) < 3:
        return {name: (float(i), 0.0) for i, name in enumerate(names)}
    plane = PCA(n_components=2, random_state=0).fit_transform(points - points.mean(axis=0))
    return {
        name: (round(float(x), 4), round(float(y), 4))
        for name, (x, y) in zip(names, plane, strict=True)
    }
