"""Leakage audit: was anything shown that whoever is measured must not see?

The holdout policy decides by hashes in the catalog before anything is shown. This looks at what was
shown in the end, by the texts of the task records, and counts what the policy kept back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...memory import Memory
from ...memory.episode import Episode
from ...memory.normal import normal_goal, normal_text
from ...task import Task
from ..retriever import Retriever


@dataclass(frozen=True, slots=True)
class Audit:
    """What evaluation episodes were shown of a memory."""

    shown: int
    """Past episodes that were in context, counted at every step that retrieved."""
    held_back: int
    """Past episodes that would have been shown at the start if nothing were held out."""
    leaks: tuple[str, ...] = ()
    """Identities of tasks that were shown and must not be: one's own, a near-duplicate, or of the
    split under evaluation."""

    def __add__(self, other: "Audit") -> "Audit":
        return Audit(
            self.shown + other.shown, self.held_back + other.held_back, self.leaks + other.leaks
        )

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "leaks": list(self.leaks)}

    def __str__(self) -> str:
        found = (
            f"{len(self.leaks)} LEAKED: {', '.join(self.leaks[:3])}"
            if self.leaks
            else "none leaked"
        )
        return f"audit: {self.shown} past episodes shown, {self.held_back} held back, {found}"


def is_leak(task: Task, shown: Task) -> bool:
    """Whether an episode of `shown` must not be seen by whoever is evaluated on `task`."""
    same = normal_text(task.identity) == normal_text(shown.identity) or task.split == shown.split
    room = normal_text(task.room)
    near = room != "" and (room, normal_goal(task.goal)) == (
        normal_text(shown.room),
        normal_goal(shown.goal),
    )
    return same or near


def audit_of(episode: Episode, memory: Memory | None, retriever: Retriever | None) -> Audit:
    """The audit of one evaluation episode.

    Args:
        episode: what was played.
        memory: what was read; None where there was none.
        retriever: how it was read.
    """
    if memory is None or retriever is None:
        return Audit(0, 0)
    # As of then: what was shown may have been deleted since.
    at = episode.memory_position if episode.memory_position >= 0 else None
    shown = [memory.meta(r.episode, at).task for step in episode.steps for r in step.retrieved]
    leaks = tuple(task.identity for task in shown if is_leak(episode.task, task))
    return Audit(len(shown), retriever.held_back(episode.task, episode.observations[0]), leaks)


def audit_all(
    episodes: Sequence[Episode], memory: Memory | None, retriever: Retriever | None
) -> Audit:
    """The audit of several evaluation episodes together; arguments as of :func:`audit_of`."""
    return sum((audit_of(episode, memory, retriever) for episode in episodes), Audit(0, 0))


def summed(records: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The audits of records together; None if some have none (they were written before there were
    audits)."""
    total = Audit(0, 0)
    for record in records:
        if "audit" not in record:
            return None
        found = record["audit"]
        total += Audit(found["shown"], found["held_back"], tuple(found["leaks"]))
    return total.plain
