"""What the memory holds at test time: the matching experience, only that of other tasks, or
nothing.

For experiments. *matching* is the memory as it is. *other* leaves out the task type under test and
is cut to the token length of what *matching* would have shown, so that the two differ in what they
say and not in how much. *empty* shows nothing: its prompt is that of an agent without memory, byte
for byte. Retrieval itself reads text only and never knows a task's type.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...agent.prompt import Demonstration
from ...agent.retriever import History, MemoryRetriever, RetrievedContext, Retriever, ordered
from ...task import Task

MEMORIES = ("matching", "other", "empty")


def under(memory: str, retriever: MemoryRetriever) -> Retriever | None:
    """How a condition recalls, given retrieval from the whole memory; None for *empty*.

    Raises:
        ValueError: no such condition.
    """
    if memory not in MEMORIES:
        raise ValueError(f"unknown memory condition {memory!r}: use one of {', '.join(MEMORIES)}")
    if memory == "empty":
        return None
    return OtherTypes(retriever) if memory == "other" else retriever


class OtherTypes:
    """Recalls only what is of other task types, cut to the token length of what would have been
    recalled."""

    def __init__(self, matching: MemoryRetriever) -> None:
        self.matching = matching
        self.due, self.settings = matching.due, matching.settings

    @property
    def position(self) -> int:
        """As of what would have been recalled."""
        return self.matching.position

    def frozen(self) -> "OtherTypes":
        """The same, but bound to what the memory holds now."""
        return OtherTypes(self.matching.frozen())

    def held_back(self, task: Task, opening: str = "") -> int:
        """As of what would have been recalled."""
        return self.matching.held_back(task, opening)

    def __call__(self, task: Task, history: History = (), *, opening: str = "") -> RetrievedContext:
        """The closest of other types, of at most equal token length."""
        m = self.matching
        tokens = sum(
            m.count(demo.text) for demo in m(task, history, opening=opening).demonstrations
        )
        # The closest are kept, whatever order they are shown in.
        more = replace(m.settings, k=m.settings.k + 3, order="closest-last")
        other = MemoryRetriever(
            m.memory,
            m.spec,
            m.count,
            more,
            m.purpose,
            m.position,
            lambda e: e.task.type != task.type,
        )
        found = other(task, history, opening=opening)
        shown = ordered(cut(found.demonstrations, tokens, m), m.settings.order, task)
        scored = {r.episode: r for r in found.retrieved}
        return RetrievedContext(shown, tuple(scored[demo.episode] for demo in shown))


def cut(
    demos: Sequence[Demonstration], tokens: int, retriever: MemoryRetriever
) -> tuple[Demonstration, ...]:
    """Demonstrations of at most so many tokens together; the last one loses its last steps."""
    shown: list[Demonstration] = []
    for demo in demos:
        left = tokens - sum(retriever.count(d.text) for d in shown)
        while demo.steps and retriever.count(demo.text) > left:
            demo = replace(demo, steps=demo.steps[:-1])
        if not demo.steps:
            break
        shown.append(demo)
    return tuple(shown)
