"""A memory that is open while its process forks: writers refuse in the child, readers go on."""

import gc
import json
import os
import signal
import threading
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from relive.memory import Memory
from tests.memory.conftest import Make, found, make_episode


def in_child(act: Callable[[], Any]) -> Any:
    """What a function gives in a fork, or the text of its error; nothing if it hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(10)
            try:
                said = act()
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writing, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


ACTS: dict[str, Callable[[Memory], object]] = {
    "add": lambda memory: memory.add(make_episode(9)),
    "add nothing": lambda memory: memory.add_many([]),
    "rate": lambda memory: memory.rate("episode-1", "worth", 1.0),
    "delete": lambda memory: memory.delete("episode-1"),
    "evict": lambda memory: memory.evict(capacity=0, keep_per_type=0),
    "compact": lambda memory: memory.compact(),
    "publish": lambda memory: memory.publish_index(),
    "refresh": lambda memory: memory.refresh(),
    "read": lambda memory: memory.get("episode-1"),
    "search": lambda memory: found(memory, "anything"),
}


@pytest.mark.parametrize("what", ACTS)
def test_the_copy_of_a_writer_refuses(
    store: Memory, folder: Path, episode: Make, what: str
) -> None:
    """It would write on top of its original, and learns nothing of what that adds; its original
    goes on."""
    store.add(episode(1))
    store._state.durable = False  # as if the fork came in the middle of an addition
    said = in_child(lambda: ACTS[what](store))
    assert said.startswith(
        f"RuntimeError: the memory in {folder} was opened to write by process {os.getpid()}, of "
        "which"
    )
    assert store.add(episode(2)) == 2
    store.close()
    with Memory(folder, "r") as memory:
        assert [entry.episode_id for entry in memory.entries()] == ["episode-1", "episode-2"]
        assert memory.verify() == ()


def test_the_lock_stays_with_the_parent(folder: Path, episode: Make) -> None:
    """The child may close its copy; it may write once the parent has closed; nobody is told a wrong
    holder."""
    store = Memory(folder)
    store.add(episode(1))

    def close_and_open() -> None:
        store.close()
        Memory(folder, "w")

    assert f"is being written by process {os.getpid()} on" in in_child(close_and_open)
    assert store.add(episode(2)) == 2
    forked, ready = os.pipe()
    wait, go = os.pipe()

    def wait_and_add() -> int:
        os.write(ready, b".")
        os.read(wait, 1)
        with Memory(folder, "w") as memory:
            return memory.add(episode(3))

    said: list[Any] = []
    thread = threading.Thread(target=lambda: said.append(in_child(wait_and_add)))
    thread.start()
    os.read(forked, 1)
    store.close()
    os.write(go, b".")
    thread.join()
    for descriptor in (forked, ready, wait, go):
        os.close(descriptor)
    assert said == [3]


def test_readers_go_on(folder: Path, episode: Make) -> None:
    """Both copies follow the writer, each for itself."""
    with Memory(folder) as writer:
        writer.add_many([episode(number) for number in range(3)])
        with Memory(folder, "r") as reader:
            writer.add(episode(3))

            def follow() -> list[str]:
                reader.refresh()
                return found(reader, episode(3).task.goal, k=1)

            assert in_child(follow) == ["episode-3"]
            assert len(reader) == 3
            assert follow() == ["episode-3"]


@pytest.mark.parametrize("lock", ["_mutex", "_state.embedding"])
def test_locks_of_threads_that_are_left_behind(folder: Path, episode: Make, lock: str) -> None:
    """A thread held one when the process forked: the child does not wait for it."""
    with Memory(folder) as writer:
        writer.add(episode(1))
    with Memory(folder, "r") as reader:
        held, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with attrgetter(lock)(reader):
                held.set()
                leave.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(20)
        said = in_child(lambda: found(reader, "anything"))
        leave.set()
        thread.join()
        assert said == ["episode-1"]


def test_a_fork_that_drops_its_copy_leaves_the_lock(folder: Path, episode: Make) -> None:
    """And the files that its original writes."""
    memories = [Memory(folder)]
    memories[0].add(episode(1))

    def drop() -> int:
        memories.clear()
        return gc.collect()

    assert in_child(drop) > 0
    with pytest.raises(BlockingIOError, match="another Memory of this very process"):
        Memory(folder)
    assert memories[0].add(episode(2)) == 2
    memories[0].close()
