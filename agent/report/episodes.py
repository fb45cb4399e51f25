"""Episodes as the page reads them: rows of a table for all of them, and the whole of each one.

Rows are kept by column, and texts that many episodes have in common (what they were shown) once:
ten thousand episodes fit into a file that can be mailed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from ...memory.episode import Episode, Retrieved
from ...memory.query import Explanation
from ..evaluation.stored import stored_suite
from .shown import Prompts, Shown, Unknown

Plain = dict[str, Any]

COLUMNS = (
    "id", "run", "condition", "type", "split", "goal", "success", "score", "best", "reason",
    "steps", "invalid", "tokens", "cost", "seconds", "started", "actor", "copied",
)  # fmt: skip
"""What the page knows of every episode without reading it."""


class Copy(NamedTuple):
    """What an action repeats."""

    asked: int
    """Step at which the memory was asked."""
    which: int
    """Of the past episodes that were shown from there on."""
    step: int
    """Of that episode."""
    same: bool
    """Word for word; else about other things."""


@dataclass(slots=True)
class Collected:
    """All episodes of a report."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    bodies: list[Plain] = field(default_factory=list)
    """The whole of each, in the order of the columns."""
    texts: list[Plain] = field(default_factory=list)
    """Past episodes as they were shown, each once."""
    heads: list[str] = field(default_factory=list)
    """Beginnings of system turns, each once."""
    _known: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, run: str, condition: str, episode: Episode, prompts: Prompts) -> None:
        """Takes an episode in."""
        shown = {
            number: prompts.shown(episode, number)
            for number, step in enumerate(episode.steps)
            if step.retrieved
        }
        copies = copied(episode, shown)
        body = self._body(episode, shown, copies, prompts)
        self.bodies.append(body)
        for name, value in _row(run, condition, episode, copies).items():
            self.columns[name].append(value)

    def _body(
        self,
        episode: Episode,
        shown: dict[int, list[Shown] | Unknown],
        copies: Sequence[Copy | None],
        prompts: Prompts,
    ) -> Plain:
        body: Plain = {
            "task": episode.task.identity,
            "room": episode.task.room,
            "seen": list(episode.observations),
            "done": [step.action for step in episode.steps],
            "reward": [step.reward for step in episode.steps],
            "refused": [n for n, step in enumerate(episode.steps) if step.invalid],
            "detail": episode.outcome.detail,
            "adapter": episode.actor.adapter,
            "model": episode.actor.model.rpartition("/")[2],
            "position": episode.memory_position,
            "timings": {name: round(value, 3) for name, value in episode.timings.items()},
            "usage": dict(episode.usage),
            "ratings": dict(episode.ratings),
            "thoughts": {n: s.reasoning for n, s in enumerate(episode.steps) if s.reasoning},
            "said": {n: s.said for n, s in enumerate(episode.steps) if s.said},
            "copies": [list(one) if one else None for one in copies],
            "head": self._head(prompts.head(episode)),
            "remarks": prompts.remarks(episode),
        }
        body["shown"] = {
            number: [
                self._entry(one, some if isinstance(some, Unknown) else some[which])
                for which, one in enumerate(episode.steps[number].retrieved)
            ]
            for number, some in shown.items()
        }
        return body

    def _head(self, text: str) -> int:
        if text not in self.heads:
            self.heads.append(text)
        return self.heads.index(text)

    def _entry(self, recorded: Retrieved, shown: Shown | Unknown) -> Plain:
        entry: Plain = {"id": recorded.episode, "score": round(recorded.score, 4)}
        if isinstance(shown, Unknown):
            return entry | {"unknown": str(shown)}
        key = (shown.episode, shown.text)
        if key not in self._known:
            self._known[key] = len(self.texts)
            self.texts.append({"text": shown.text, "steps": [list(s) for s in shown.steps]})
        entry |= {"text": self._known[key], "tokens": shown.tokens}
        if shown.explanation is not None:
            entry["why"] = why(shown.explanation)
        return entry


def why(explanation: Explanation) -> Plain:
    """A hit's score taken apart, as the page shows it."""
    e = explanation
    found: Plain = {
        "similarity": round(e.similarity, 4), "by": e.field, "rank": e.considered,
        "held_out": e.held_out, "filtered": e.filtered, "exact": e.exact,
    }  # fmt: skip
    for name in ("usefulness", "rating", "length", "redundancy"):
        value = getattr(e, name)
        if value:
            found[name] = round(value, 4)
    return found


def _row(run: str, condition: str, episode: Episode, copies: Sequence[Copy | None]) -> Plain:
    outcome, usage, actor = episode.outcome, episode.usage, episode.actor
    counted = {"prompt", "completion"} <= set(usage)
    score = max(0.0, outcome.score)
    return {
        "id": episode.id,
        "run": run,
        "condition": condition,
        "type": episode.task.type,
        "split": episode.task.split,
        "goal": episode.task.goal,
        "success": int(episode.success),
        "score": round(score, 4),
        "best": round(max(score, outcome.best), 4),
        "reason": str(outcome.reason),
        "steps": len(episode.steps),
        "invalid": sum(step.invalid for step in episode.steps),
        "tokens": round(usage["prompt"] + usage["completion"]) if counted else None,
        "cost": usage.get("cost"),
        "seconds": round(episode.timings.get("total", 0.0), 2),
        "started": round(episode.started, 1),
        "actor": f"{actor.policy} {actor.adapter}".strip(),
        "copied": sum(one is not None for one in copies),
    }


def copied(episode: Episode, shown: dict[int, list[Shown] | Unknown]) -> list[Copy | None]:
    """Which part of what was shown each action repeats.

    Returns:
        For each step, or None. Of
        several, one that follows on what was repeated before is taken: an agent that copies goes
        on in the order of what it copies.
    """
    found: list[Copy | None] = []
    now: list[Shown] = []
    asked = 0
    last = (-1, -1)
    for number, step in enumerate(episode.steps):
        if number in shown:
            some = shown[number]
            asked, now, last = number, [] if isinstance(some, Unknown) else some, (-1, -1)
        candidates = [
            (not (same := action == step.action), not (which == last[0] and at > last[1]),
             abs(at - last[1]), which, at, same)
            for which, past in enumerate(now)
            for at, (action, _) in enumerate(past.steps)
            if action and (action == step.action or _form(episode.task.suite, action)
                           == _form(episode.task.suite, step.action) != "")
        ]  # fmt: skip
        if not candidates or not step.action:
            found.append(None)
            continue
        *_, which, at, same = min(candidates)
        found.append(Copy(asked, which, at, same))
        last = (which, at)
    return found


@lru_cache(maxsize=100_000)
def _form(suite: str, action: str) -> str:
    """What kind of action it is, whatever it is about: the suite's template that it fits; empty
    where none does."""
    return next((text for text, form in _forms(suite) if form.fullmatch(action)), "")


@lru_cache
def _forms(suite: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    known, _ = stored_suite(suite)
    templates = known.templates if known else ()
    texts = sorted((t.text for t in templates if "{" in t.text), key=len, reverse=True)
    return tuple(
        (text, re.compile(".+?".join(map(re.escape, re.split(r"\{\w+\}", text))))) for text in texts
    )
