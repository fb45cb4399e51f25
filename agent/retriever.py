"""From a task to the demonstrations in its prompt: the same function for acting, evaluating and
training.

Two ways of asking, as in the paper (Ferraz et al., arXiv:2603.18272, section "Query"). *Static*:
once, at the start, by the text of the goal. *Dynamic*: at every step, by the goal and what was done
and seen last; the prompt changes whenever the answer does, so its encoding cannot be reused from
there on. A third one is *opening*: once, at the start, by the first observation, for suites whose
goals all read alike. What is asked at the start can be asked once more after some steps. The task
type is never part of the query and never a filter; the suite is, unless the settings say otherwise.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ..memory import EntryMeta, Hit, Holdout, Memory, Purpose, Query, Retrieval
from ..memory.episode import Episode, Retrieved, StopReason
from ..memory.search.embed import AbsentEmbedder
from ..memory.search.fields import query_text
from ..task import Task
from .prompt import Demonstration, PromptSpec, demonstration, fit


@dataclass(frozen=True, slots=True)
class RetrievedContext:
    """What the prompt will show, and the record of it."""

    demonstrations: tuple[Demonstration, ...] = ()
    """What is read last comes first: closest first, unless the settings say otherwise."""
    retrieved: tuple[Retrieved, ...] = ()
    """The episodes shown, in the same order."""


History = Sequence[tuple[str, str]]
"""Steps so far: (action, the observation that followed)."""


class Retriever(Protocol):
    """Whatever can say what a task's prompt shows."""

    @property
    def position(self) -> int:
        """Log position of the memory that is read, for the record."""
        ...

    def due(self, step: int) -> bool:
        """Whether to ask before the step with this index; always before the first, 0."""
        ...

    def frozen(self) -> "Retriever":
        """The same, but bound to what the memory holds now, for the length of an episode."""
        ...

    def __call__(self, task: Task, history: History = (), *, opening: str = "") -> RetrievedContext:
        """What is recalled for a task after some steps, which began with `opening`; always the same
        for the same arguments."""
        ...

    def held_back(self, task: Task, opening: str = "") -> int:
        """How many episodes that would be recalled at the start are held out from whoever plays the
        task."""
        ...


def ordered(shown: Sequence[Demonstration], order: str, task: Task) -> tuple[Demonstration, ...]:
    """Demonstrations, closest first, in an order of `relive.memory.query.ORDERS`: the last one that
    is read comes first here, as the prompt has it."""
    if order == "closest-first":
        return tuple(reversed(shown))
    if order in ("shortest-last", "longest-last"):
        return tuple(
            sorted(shown, key=lambda demo: len(demo.text), reverse=order == "longest-last")
        )
    if order == "random":
        drawn = list(shown)
        random.Random(f"order/{task.identity}").shuffle(drawn)
        return tuple(drawn)
    return tuple(shown)


def first_steps(episode: Episode, count: int) -> History:
    """The first steps of an episode; none where it has no step after them."""
    done = episode.steps[:count] if len(episode.steps) > count else ()
    return [(s.action, o) for s, o in zip(done, episode.observations[1:], strict=False)]


def refreshed(episode: Episode, retriever: "Retriever | None") -> int:
    """The step before which an episode's memory block was asked for that stayed: 0, or that of
    ``retrieval.refresh_after``."""
    taken = len(episode.steps)
    # One step beyond the last tells what asks every time from what asks once more.
    if retriever is None or all(map(retriever.due, range(1, taken + 2))):
        return 0
    return next((step for step in range(1, taken) if retriever.due(step)), 0)


_MOST_HITS = 48
"""Hits that are looked at before a memory block stays smaller than asked for: not more than the
first of a longer list are sure to be (:data:`relive.memory.retrieval.SAME_LIST`)."""


class MemoryRetriever:
    """Retrieval bound to a memory, a log position and a purpose.

    Args:
        memory: where to look.
        spec: how episodes are shown.
        count: number of tokens of a text, for the budget.
        settings: how many and how much.
        purpose: what for, which decides what is held out; None holds nothing out.
        at: log position to read at, so that results do not depend on what is added later. None:
            every episode reads what the memory holds when it begins.
        where: keeps only some entries; for experiments (a memory without the type under test).
    """

    def __init__(
        self,
        memory: Memory,
        spec: PromptSpec,
        count: Callable[[str], int],
        settings: Retrieval,
        purpose: Purpose | None,
        at: int | None = None,
        where: Callable[[EntryMeta], bool] | None = None,
    ) -> None:
        if isinstance(memory.embedder, AbsentEmbedder):
            memory.embedder.encode([])  # says so now, and not in every episode
        self.memory, self.spec, self.count = memory, spec, count
        self.settings, self.purpose, self.where = settings, purpose, where
        self.at = at

    @property
    def position(self) -> int:
        """Log position that is read."""
        return self.memory.position if self.at is None else self.at

    def frozen(self) -> "MemoryRetriever":
        """The same, but bound to what the memory holds now."""
        if self.at is not None:
            return self
        return MemoryRetriever(
            self.memory, self.spec, self.count, self.settings, self.purpose, self.memory.position,
            self.where,
        )  # fmt: skip

    def due(self, step: int) -> bool:
        """Whether to ask before the step with this index."""
        s = self.settings
        return s.query == "dynamic" or step in (0, s.refresh_after)

    def __call__(
        self,
        task: Task,
        history: History = (),
        exclude: frozenset[str] = frozenset(),
        *,
        opening: str = "",
    ) -> RetrievedContext:
        """What is recalled for a task after some steps.

        Args:
            task: what is played.
            history: its steps so far.
            exclude: names episodes that must not be shown.
            opening: its first observation, which the query "opening" asks by.
        """
        s = self.settings
        query = self.query(task, self.asked(task, history, opening), exclude)
        scores: dict[str, float] = {}

        def found() -> Iterator[Demonstration]:
            for hit in self._hits(query, self.holdout(task)):
                scores[hit.episode_id] = hit.score
                episode = self.memory.get(hit.episode_id, self.position)
                yield demonstration(self.spec, episode, reword=s.translate)

        latest = " ".join(history[-1]) if history else ""
        shown = fit(
            found(), s.max_tokens, self.count, s.k, shorten=s.long == "shorten", latest=latest
        )
        shown = ordered(shown, s.order, task)
        return RetrievedContext(
            shown, tuple(Retrieved(demo.episode, scores[demo.episode]) for demo in shown)
        )

    def _hits(self, query: Query, holdout: Holdout) -> Iterator[Hit]:
        """Hits beyond the first k as well, for as long as somebody wants another."""
        seen, k = 0, query.k
        while True:
            hits = self.memory.search(replace(query, k=k), holdout, at=self.position)
            yield from hits[seen:]
            if len(hits) < k or k >= _MOST_HITS:
                return
            seen, k = len(hits), min(4 * k, _MOST_HITS)

    def asked(self, task: Task, history: History = (), opening: str = "") -> str:
        """The text that is asked by after some steps; see `__call__`."""
        if self.settings.query == "opening" and not history:
            return opening or task.goal
        return query_text(task.goal, history)

    def held_back(self, task: Task, opening: str = "") -> int:
        """How many of the episodes that would be found at the start, if nothing was held out, the
        policy keeps back."""
        query, at = self.query(task, self.asked(task, (), opening)), self.position
        shown, everything = (
            {hit.episode_id for hit in self.memory.search(query, holdout, at=at)}
            for holdout in (self.holdout(task), None)
        )
        return len(everything - shown)

    def query(self, task: Task, text: str, exclude: frozenset[str] = frozenset()) -> Query:
        """What is asked with a text by whoever plays a task; `exclude` names episodes that must not
        be shown."""
        s = self.settings
        within = self.purpose is not None and not s.across and task.suite
        return Query(
            text=text,
            k=s.k,
            successes_only=s.outcomes == "successes",
            only={"suite": (task.suite,)} if within else {},
            exclude=exclude,
            # An episode that its environment broke off says nothing about what was done in it.
            exclude_reasons=frozenset({StopReason.ENVIRONMENT_ERROR}),
            where=self.where,
            fields=s.fields,
            diversity=s.diversity,
            usefulness=s.usefulness,
            ratings=s.ratings,
            length_penalty=s.length_penalty,
            min_score=s.min_score,
        )

    def holdout(self, task: Task) -> Holdout:
        """What must not be shown to whoever plays a task."""
        if self.purpose is None:
            return Holdout()
        return Holdout.strict(task, self.purpose, self.settings.splits)
