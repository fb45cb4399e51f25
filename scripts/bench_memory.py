"""The memory in numbers: durable adds, searches, embedding, and whether the right procedure is found.

python scripts/bench_memory.py        # a table; last line JSON; seconds
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent.loop import task_record
from envs import get_suite
from memory import Actor, Episode, ExperienceMemory, HashedEmbedder, Outcome, Purpose, Query, Step, StopReason, Viewer


def milliseconds(action: Callable[[int], object], repeats: int) -> float:
    """Median wall time of `action(0)`, `action(1)`, …"""
    times = []
    for i in range(repeats):
        began = time.perf_counter()
        action(i)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def main() -> None:
    """Stores train tasks of the household as episodes, asks with test tasks."""
    suite = get_suite("household")
    steps = tuple(
        Step(f"You arrive at shelf {i}. On the shelf {i}, you see a book 1.", f"go to shelf {i}") for i in range(16)
    )
    outcome, actor = Outcome(True, 1.0, StopReason.SOLVED), Actor("expert")
    stored = [task_record(task) for task in suite.tasks("train", 2000)]
    episodes = [Episode(f"e{i}", task, steps, "Done.", outcome, actor) for i, task in enumerate(stored)]
    asked = [task_record(task) for task in suite.tasks("test", 240)]
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (60, 300, 2000):
            with ExperienceMemory.open(Path(folder) / str(size), mode="create") as memory:
                memory.add_many(episodes[:size])
                hits = [memory.search(Query(t.goal, k=2), Viewer.of(t, Purpose.EVALUATE)) for t in asked]
                right = [
                    memory.meta(h.episode_id).task.type == t.type
                    for t, found in zip(asked, hits, strict=True)
                    for h in found
                ]
                result[f"right_procedure_{size}"] = sum(right) / len(right)
                if size == 2000:
                    queries = [(Query(t.goal, k=2), Viewer.of(t, Purpose.EVALUATE)) for t in asked]
                    result["search_ms"] = milliseconds(lambda i, m=memory, q=queries: m.search(*q[i]), 200)
                    result["add_ms"] = milliseconds(lambda i, m=memory: m.add(replace(episodes[i], id=f"n{i}")), 100)
        with (Path(folder) / "plain").open("wb", buffering=0) as file:

            def write(_: int) -> None:
                file.write(bytes(2000))
                os.fsync(file.fileno())

            result["bare_fsync_ms"] = milliseconds(write, 100)
    embedder = HashedEmbedder()
    result["embed_ms"] = milliseconds(lambda i: embedder.encode([stored[i].goal]), 500)
    for name, value in result.items():
        print(f"{name:24s} {value:8.4f}")
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
