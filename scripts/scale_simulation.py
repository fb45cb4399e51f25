"""A million episodes through the real code, with a policy that costs nothing; called again, it goes
on where it was.

    nice -n 10 python scripts/scale_simulation.py FOLDER --episodes 1000000

Episodes are played 64 at a time by the real runner, and stored. In every fourth batch (or another,
``--retrieve``) each asks the real memory, under the strict holdout, for two past successes of its
suite and is shown them in the real prompt; the others run without memory, which only saves time
here, since the policy does not look. One synchronisation of the disk serves the 64 (they end
together; `bench_scale.py` measures what one for each costs). ``FOLDER/progress.jsonl`` gets a line
every so many episodes: milliseconds of an episode by part, and what searches of each kind took.
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scale_world import SUITES, ScaleSuite, SeededPolicy, task_of

from relive.agent.policy import words
from relive.agent.retriever import MemoryRetriever, RetrievedContext
from relive.agent.runner import Clock, Runner, RunSettings, spec_of
from relive.memory import Hit, Holdout, Memory, Purpose, Query, Retrieval

BATCH = 64
QUERIES = 50
"""Searches of each kind at a checkpoint."""


@dataclass
class Timed:
    """A retriever, and the seconds that it took."""

    inner: MemoryRetriever
    seconds: float = 0.0
    settings: Retrieval = field(default_factory=Retrieval)

    def due(self, step: int) -> bool:
        """As the retriever."""
        return self.inner.due(step)

    @property
    def position(self) -> int:
        """As of the retriever."""
        return self.inner.position

    def __call__(self, *arguments: Any, **more: Any) -> RetrievedContext:
        """As the retriever."""
        began = time.perf_counter()
        try:
            return self.inner(*arguments, **more)
        finally:
            self.seconds += time.perf_counter() - began

    def frozen(self) -> "Timed":
        """It is bound to a position already."""
        return self

    def held_back(self, *arguments: Any) -> int:
        """As the retriever."""
        return self.inner.held_back(*arguments)


def resident() -> float:
    """Gigabytes of this process that are in memory now, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def bytes_of(folder: Path) -> dict[str, int]:
    """Bytes on disk by part of a memory."""
    return {
        part: sum(file.stat().st_size for file in (folder / part).rglob("*") if file.is_file())
        for part in ("log", "catalog", "vectors", "index")
    }


def searches(kinds: Mapping[str, Callable[[int], object]]) -> dict[str, list[float]]:
    """Milliseconds of searches by kind: the median and the 99th percentile."""
    found = {}
    for kind, search in kinds.items():
        times = []
        for number in range(QUERIES):
            began = time.perf_counter()
            search(number)
            times.append(1e3 * (time.perf_counter() - began))
        found[kind] = [round(float(np.percentile(times, q)), 3) for q in (50, 99)]
    return found


def kinds_of(memory: Memory) -> dict[str, Callable[[int], list[Hit]]]:
    """Searches, each under a filter that keeps another share of the memory."""

    def ask(number: int, split: str, **query: Any) -> list[Hit]:
        task = task_of(number, split)
        holdout = Holdout.strict(task, Purpose.EVALUATE)
        return memory.search(Query(task.goal, k=2, **query), holdout)

    rare = {"suite": (SUITES[1],), "type": ("heat",)}
    return {
        "all": lambda n: ask(n, "test"),
        "successes (60 %)": lambda n: ask(n, "test", successes_only=True),
        "suite b (20 %)": lambda n: ask(n, "test", only={"suite": (SUITES[1],)}),
        "suite b, one type (5 %)": lambda n: ask(n, "test", only=rare),
    }


def simulate(folder: Path, episodes: int, every: int, retrieve: int) -> None:
    """Plays until the memory holds so many; one batch in `retrieve` is shown past episodes."""
    suites = {name: ScaleSuite(name) for name in SUITES}
    policy, progress = SeededPolicy(), folder / "progress.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with Memory(folder / "memory") as memory:
        parts: dict[str, list[float]] = {}
        due = (len(memory) // every + 1) * every
        began, cpu, at_start = time.perf_counter(), time.process_time(), len(memory)
        while len(memory) < episodes:
            number = memory.position
            tasks = [task_of(i) for i in range(number, number + BATCH)]
            for name, suite in suites.items():
                mine = [task for task in tasks if task.suite == name]
                inner = MemoryRetriever(
                    memory, spec_of(suite, policy), words, Retrieval(), Purpose.ACT,
                    memory.position,
                )  # fmt: skip
                timed, clock = Timed(inner), Clock()
                shown = timed if number // BATCH % retrieve == 0 else None
                runner = Runner(suite, policy, RunSettings(batch=BATCH), shown, clock=clock)
                played = list(runner.run(mine))
                now = time.perf_counter()
                memory.add_many(played)
                stored = time.perf_counter() - now
                environment = sum(episode.timings["environment"] for episode in played)
                loop = clock.total - timed.seconds - clock.policy - environment
                for part, seconds in {
                    "environment": environment, "policy": clock.policy, "loop": loop,
                    "retrieval": timed.seconds if shown else None, "storing": stored,
                }.items():  # fmt: skip
                    if seconds is None:
                        continue
                    parts.setdefault(part, []).append(1e3 * seconds / max(1, len(mine)))
            if len(memory) >= due:
                row = {
                    "episodes": len(memory),
                    "ms": {part: round(statistics.mean(some), 4) for part, some in parts.items()},
                    "ms_median": {
                        part: round(statistics.median(some), 4) for part, some in parts.items()
                    },
                    "wall_s": round(time.perf_counter() - began, 1),
                    "cpu_s": round(time.process_time() - cpu, 1),
                    "played": len(memory) - at_start,
                    "resident_gb": round(resident(), 3),
                    "peak_gb": round(
                        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3
                    ),
                    "bytes": bytes_of(folder / "memory"),
                    "search_ms": searches(kinds_of(memory)),
                }
                with progress.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
                parts, due = {}, due + every
                began, cpu, at_start = time.perf_counter(), time.process_time(), len(memory)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=25_000, help="episodes between two lines")
    parser.add_argument("--retrieve", type=int, default=4, help="one batch in so many retrieves")
    arguments = parser.parse_args()
    simulate(arguments.folder, arguments.episodes, arguments.every, arguments.retrieve)


if __name__ == "__main__":
    main()
