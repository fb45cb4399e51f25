"""Exact search over a plain list, and how far the answers of a memory are from it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from relive.memory import Embedder, Memory, Query
from tests.memory.hostile.ask import ask

NEAR = 2e-5
"""Scores that differ by less are equal: they are rounded to five decimals, and sums have rounding
errors."""


@dataclass
class Answers:
    """How the answers of searches compare with the exact ones."""

    exact: int = 0
    """Searches that said that every entry was compared."""
    approximate: int = 0
    wrong: list[str] = field(default_factory=list)
    """What no approximation excuses."""
    right: int = 0
    """Hits of exact answers."""
    wanted: int = 0
    """Hits that approximate answers should have, and how many are as close as those."""
    found: int = 0
    imperfect: int = 0
    """Approximate answers that lack any."""

    @property
    def recall(self) -> float:
        """Share of the right hits that approximate answers had."""
        return self.found / self.wanted if self.wanted else 1.0

    @property
    def recall_of_all(self) -> float:
        """The same of all answers; exact ones lack nothing."""
        total = self.right + self.wanted
        return (self.right + self.found) / total if total else 1.0

    def take(self, other: "Answers") -> None:
        """Add up."""
        for name in ("exact", "approximate", "right", "wanted", "found", "imperfect"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong += other.wrong

    def compare(
        self,
        given: list[tuple[str, float]],
        right: Mapping[str, float],
        k: int,
        *,
        exact: bool,
        complete: bool = True,
    ) -> None:
        """Judge one answer.

        Args:
            given: ids and scores of the hits.
            right: scores of all that might be shown, by id.
            k: how many hits were asked for.
            exact: whether the answer claims to be the exact one.
            complete: whether there must be as many hits as the exact answer has, even if it is not
                exact; otherwise one that is not there is one that was not found.
        """
        best = sorted(right.values(), reverse=True)[:k]
        least = best[-1] if best else 0.0
        scores = [score for _, score in given]
        self.exact, self.approximate = self.exact + exact, self.approximate + (not exact)
        strange = [name for name, score in given if abs(right.get(name, np.inf) - score) > NEAR]
        if strange:
            self.wrong.append(
                f"hits that may not be shown, or with another score than theirs: {strange}"
            )
        if len({name for name, _ in given}) != len(given) or scores != sorted(scores, reverse=True):
            self.wrong.append(f"hits twice, or not in order: {given}")
        if len(given) > len(best) or (complete and len(given) < len(best)):
            self.wrong.append(f"{len(given)} hits, not {len(best)}")
        good = sum(score >= least - NEAR for score in scores)
        if exact and any(abs(a - b) > NEAR for a, b in zip(scores, best, strict=False)):
            self.wrong.append(f"exact, and not the best: {scores} instead of {best}")
        if exact:
            self.right += len(best)
        else:
            self.wanted, self.found = self.wanted + len(best), self.found + good
            self.imperfect += good < len(best)


def compare_all(
    memory: Memory, goals: Mapping[str, str], texts: Iterable[str], k: int = 10
) -> Answers:
    """Search for some texts and compare with the exact answers.

    Args:
        memory: what is searched.
        goals: of all episodes that are there, by id.
        texts: what is looked for.
        k: hits of each search.
    """
    embedder: Embedder = memory.embedder
    names, rows = list(goals), embedder.encode(list(goals.values()))
    answers = Answers()
    for text in texts:
        scores = np.einsum("ij,j->i", rows, embedder.encode([text])[0])
        hits = ask(memory, Query(text, k=k))
        given = [(hit.episode_id, hit.score) for hit in hits]
        right = dict(zip(names, scores.tolist(), strict=True))
        answers.compare(given, right, k, exact=not hits or hits[0].explanation.exact)
    return answers
