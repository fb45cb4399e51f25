"""Row 7b: a memory that is open while its process forks."""

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from relive.memory import HashedEmbedder, Memory, Query
from relive.memory.search.embed import Vectors
from tests.memory.conftest import make_episode
from tests.memory.faults import open_memory
from tests.memory.hostile.ask import ask
from tests.memory.hostile.contents import GOOD, folder_bytes

PATIENCE = 5
"""Seconds after which a child is taken for hanging."""
CHANGES: dict[str, Callable[[Memory], object]] = {
    "add": lambda memory: memory.add(make_episode(100)),
    "add_many": lambda memory: memory.add_many([make_episode(100), make_episode(101)]),
    "rate": lambda memory: memory.rate("episode-0", "worth", 1.0),
    "annotate": lambda memory: memory.annotate("episode-0", "remark"),
    "delete": lambda memory: memory.delete("episode-0"),
    "credit": lambda memory: memory.record_outcome(GOOD),
    "evict": lambda memory: memory.evict(capacity=1, keep_per_type=0),
    "compact": lambda memory: memory.compact(),
    "publish_index": lambda memory: memory.publish_index(),
}


def in_child(act: Callable[[], Any]) -> Any:
    """What a function gives in a forked process; the text of its error, if it raises one; "hangs"
    if it does not end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of the tests may go on here, whatever happens
        try:
            signal.alarm(PATIENCE)
            try:
                result = {"result": act()}
            except Exception as error:
                result = {"result": f"{type(error).__name__}: {error}"}
            os.write(writing, json.dumps(result).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)["result"] if text else "hangs"


def attempt(memory: Memory, change: str) -> str:
    """Do something that changes a memory; what came of it."""
    CHANGES[change](memory)
    return "accepted"


def is_refusal(said: object) -> bool:
    """Whether a child was told why it may not write."""
    return (
        isinstance(said, str)
        and said.split(":")[0] in ("ValueError", "RuntimeError")
        and ("fork" in said or "process" in said)
    )


@pytest.mark.parametrize("change", CHANGES)
def test_a_forked_memory_refuses_to_write(folder: Path, change: str) -> None:
    """The child is refused, the parent goes on, and what it was acknowledged is there."""
    with open_memory(folder, "create") as memory:
        memory.add_many([make_episode(number) for number in range(4)])
        memory.delete("episode-3")
        before = folder_bytes(folder)
        said = in_child(lambda: attempt(memory, change))
        assert is_refusal(said), said
        assert folder_bytes(folder) == before
        memory.add(make_episode(50))
        assert CHANGES[change](memory) is not None
    with open_memory(folder) as memory:
        assert not memory.stats().damage
        assert "episode-50" in memory
        assert ("episode-100" in memory) == change.startswith("add")


def test_parent_and_child_add_in_turn(folder: Path) -> None:
    """As it was found: both were acknowledged, and the parent's episode was gone."""
    with open_memory(folder, "create") as memory:
        memory.add(make_episode(0))
        acknowledged = {"episode-0"}
        for number in range(1, 4):
            said = in_child(lambda number=number: memory.add(make_episode(100 + number)))  # type: ignore[misc]
            acknowledged |= {f"episode-{100 + number}"} if isinstance(said, int) else set()
            memory.add(make_episode(number))
            acknowledged.add(f"episode-{number}")
    with open_memory(folder) as memory:
        assert {entry.episode_id for entry in memory.entries()} == acknowledged
        assert not memory.stats().damage


@pytest.mark.parametrize("closes", [True, False])
def test_the_lock_outlives_a_child(folder: Path, closes: bool) -> None:
    """Whatever a child does with its copy, the parent's right to write stays, and who wants it is
    told who has it."""
    memory = open_memory(folder, "create")
    memory.add(make_episode(0))
    in_child(memory.close if closes else lambda: None)
    with pytest.raises(BlockingIOError, match=f"{os.getpid()}"):
        open_memory(folder, "w")
    memory.add(make_episode(1))
    memory.close()
    with open_memory(folder, "w") as memory:
        assert len(memory) == 2


def test_a_child_that_lives_on_does_not_keep_the_lock(folder: Path) -> None:
    """The parent closed; whoever opens next may write, or is told rightly who keeps it from doing
    so."""
    memory = open_memory(folder, "create")
    memory.add(make_episode(0))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE)
            os.close(writing)
            os.read(reading, 1)  # until the parent is done
        finally:
            os._exit(0)
    os.close(reading)
    try:
        memory.close()
        try:
            with open_memory(folder, "w") as again:
                again.add(make_episode(1))
                assert len(again) == 2
                said = "a child"
        except BlockingIOError as error:
            said = str(error)
        assert "this very process" not in said
        assert str(child) in said or "child" in said
    finally:
        os.close(writing)
        os.waitpid(child, 0)


@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_forked_memory_is_read_rightly_or_not_at_all(folder: Path, mode: str) -> None:
    """Searching, reading and following, while the parent goes on adding and compacting."""
    with open_memory(folder, "create") as memory:
        memory.add_many([make_episode(number) for number in range(30)])

    def answers(memory: Memory) -> list[Any]:
        hits = [
            [hit.episode_id, hit.score]
            for hit in ask(memory, Query("put a hot thing7 in cabinet", k=5))
        ]
        return [
            len(memory),
            hits,
            memory.get("episode-7").task.goal,
            [e.episode_id for e in memory.entries()],
        ]

    with open_memory(folder, mode) as memory:
        said = in_child(lambda: answers(memory))
        assert is_refusal(said) or said == answers(memory), said
        writer = memory if mode == "w" else open_memory(folder, "w")
        writer.delete("episode-5")
        writer.compact()
        writer.add(make_episode(77, "put a hot thing7 in cabinet"))
        memory.refresh()

        def follow() -> list[Any]:
            memory.refresh()
            return answers(memory)

        said = in_child(follow)
        assert is_refusal(said) or said == answers(memory), said
        assert answers(memory)[0] == 30
        writer.close()


class WaitingEmbedder(HashedEmbedder):
    """One that calls back before it embeds."""

    def __init__(self) -> None:
        super().__init__(32)
        self.before: Callable[[], object] = lambda: None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """As without it."""
        self.before()
        return super().encode(texts)


@pytest.mark.parametrize("held", ["embedder", "state"])
def test_a_child_that_is_forked_while_a_thread_is_inside_is_refused(
    folder: Path, held: str
) -> None:
    """A lock that a thread held when the process forked is held for ever in the child, where there
    is no such thread."""
    inside, leave, embedder = threading.Event(), threading.Event(), WaitingEmbedder()

    def wait() -> bool:
        inside.set()
        return leave.wait(2 * PATIENCE)

    query = Query("anything", where=lambda entry: wait()) if held == "state" else Query("anything")
    with Memory(folder, embedder=embedder) as memory:
        memory.add(make_episode(0))
        embedder.before = wait if held == "embedder" else embedder.before
        thread = threading.Thread(target=ask, args=(memory, query))
        thread.start()
        try:
            assert inside.wait(PATIENCE)
            said = in_child(lambda: attempt(memory, "add"))
        finally:
            leave.set()
            thread.join()
        assert is_refusal(said), said
        memory.add(make_episode(1))
        assert len(memory) == 2
