"""One writer that changes everything all the time, and readers that compare every answer with exact
search of what they read."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from relive.memory import Query
from tests.memory.faults import (
    EMBEDDER,
    ROOT,
    Agreement,
    Oracle,
    agreement,
    check,
    goal_of,
    make,
    open_memory,
)

LIMIT = 60
"""Rows from which on graphs and snapshots are in use."""
READ = """
import sys
from tests.memory.test_stress import read_along
read_along(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
"""
WRITE = """
import sys
from tests.memory.test_stress import write_along
write_along(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
"""


@dataclass
class Stress:
    """What came of it."""

    seconds: float = 0.0
    readers: int = 0
    added: int = 0
    """Episodes whose addition was acknowledged."""
    deleted: int = 0
    compactions: int = 0
    publications: int = 0
    refreshes: int = 0
    """How often readers looked for what is new."""
    moved: int = 0
    """Answers that were not compared: the log was compacted between search and comparison."""
    graphs: int = 0
    """How often a reader had another graph than at its last look."""
    threaded: int = 0
    """Searches by threads of the writer's process while others added."""
    wrong_threaded: int = 0
    damage: list[str] = field(default_factory=list)
    """What readers said about damage, each once."""
    errors: list[str] = field(default_factory=list)
    readers_found: Agreement = field(default_factory=Agreement)

    @property
    def wrong(self) -> int:
        """Answers that nothing excuses."""
        return self.readers_found.wrong + self.wrong_threaded


def write_along(folder: str, seed: int, seconds: float) -> None:
    """Body of the writer's process: add (two threads), search (two threads), and now and then
    everything else."""
    draw, end, result = random.Random(seed), time.monotonic() + seconds, Stress()
    memory = open_memory(Path(folder), "create")
    alive = [entry.episode_id for entry in memory.entries()]
    lock, numbers = threading.Lock(), iter(range(10**9))

    def guarded(action: Callable[[random.Random], None], seed: int) -> threading.Thread:
        def run() -> None:
            own = random.Random(seed)
            while time.monotonic() < end and not result.errors:
                try:
                    action(own)
                except Exception as error:
                    result.errors.append(f"writer: {type(error).__name__}: {error}")

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def add(own: random.Random) -> None:
        with lock:
            batch = [make(next(numbers)) for _ in range(own.choice([1, 1, 2, 8]))]
        memory.add_many(batch)
        with lock:
            alive.extend(episode.id for episode in batch)
            result.added += len(batch)
        time.sleep(own.random() * 0.02)

    def search(own: random.Random) -> None:
        text = goal_of(own.randrange(1000))
        (vector,) = EMBEDDER.encode([text])
        for hit in memory.search(Query(text, k=5)):
            (goal,) = EMBEDDER.encode([goal_of(int(hit.episode_id.split("-")[1]))])
            result.wrong_threaded += abs(float(goal @ vector) - hit.score) > 2e-5
        result.threaded += 1
        time.sleep(0.005)

    threads = [
        guarded(add, seed),
        guarded(add, seed + 1),
        guarded(search, seed + 2),
        guarded(search, seed + 3),
    ]
    while time.monotonic() < end and not result.errors:
        time.sleep(0.05)
        choice = draw.random()
        try:
            if choice < 0.5 and len(alive) > 10:
                with lock:
                    gone = alive.pop(draw.randrange(len(alive)))
                memory.delete(gone)
                result.deleted += 1
            elif choice < 0.6:
                result.deleted += len(memory.evict(capacity=400, by="random", keep_per_type=0))
                with lock:
                    alive[:] = [episode_id for episode_id in alive if episode_id in memory]
            elif choice < 0.7:
                result.compactions += memory.compact().records > 0
            elif choice < 0.8:
                memory.publish_index()
                result.publications += 1
        except Exception as error:
            result.errors.append(f"writer: {type(error).__name__}: {error}")
    for thread in threads:
        thread.join()
    found = agreement(memory)
    result.wrong_threaded += found.wrong
    missing = [episode_id for episode_id in alive if episode_id not in memory]
    if missing:
        result.errors.append(f"writer: {len(missing)} acknowledged episodes are not there")
    memory.close()
    print(json.dumps({**asdict(result), "alive": alive}))


def read_along(folder: str, seed: int, seconds: float) -> None:
    """Body of a reader's process: refresh, search, compare."""
    draw, result, oracle = random.Random(seed), Stress(), Oracle()
    while not (Path(folder) / "memory.json").exists():
        time.sleep(0.01)
    end = time.monotonic() + seconds
    memory = open_memory(Path(folder))
    covered = -1
    while time.monotonic() < end and len(result.errors) < 3:
        try:
            memory.refresh()
            result.refreshes += 1
            for _ in range(draw.randrange(1, 4)):
                text = goal_of(draw.randrange(1000))
                result.moved += not result.readers_found.compare(
                    memory, oracle, text, draw.choice([1, 3, 10])
                )
            stats = memory.stats()
            result.graphs += stats.index_entries != covered
            covered = stats.index_entries
            result.damage += [d for d in map(str, stats.damage) if d not in result.damage][:5]
            if draw.random() < 0.02:
                memory.close()
                memory = open_memory(Path(folder))
        except Exception as error:
            result.errors.append(f"reader: {type(error).__name__}: {error}")
    memory.close()
    print(json.dumps(asdict(result)))


def stress(folder: Path, seconds: float, readers: int, seed: int = 0) -> Stress:
    """Run a writer and readers at the same time, and look at what they say and what is left."""

    def start(body: str, number: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", body, str(folder), str(seed + 10 * number), str(seconds)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    processes = [start(WRITE, 0), *(start(READ, number) for number in range(1, readers + 1))]
    texts = [process.communicate()[0] for process in processes]
    total = Stress(seconds=seconds, readers=readers)
    alive: list[str] = []
    for process, text in zip(processes, texts, strict=True):
        if process.returncode or not text:
            total.errors.append(f"a process ended with {process.returncode}")
            continue
        said = json.loads(text.splitlines()[-1])
        alive += said.pop("alive", [])
        total.readers_found.take(Agreement(**said.pop("readers_found")))
        for name in (
            "added deleted compactions publications refreshes moved graphs threaded wrong_threaded"
        ).split():
            setattr(total, name, getattr(total, name) + said[name])
        total.damage += [damage for damage in said["damage"] if damage not in total.damage]
        total.errors += said["errors"]
    if not total.errors:
        check(folder, alive)
    return total


def judge_stress(result: Stress) -> None:
    """Assert that nothing was wrong."""
    assert not result.errors, result.errors
    assert not result.wrong, (result.readers_found.examples, result.wrong_threaded)
    found = result.readers_found
    assert found.recall > 0.95, result


def test_readers_are_right_while_a_writer_writes(tmp_path: Path) -> None:
    """Four seconds, two readers, four threads in the writer."""
    result = stress(tmp_path / "experience", 4, readers=2)
    judge_stress(result)
    assert result.added  # how many depends on how busy the machine is
    assert result.readers_found.exact + result.readers_found.approximate


@pytest.mark.slow
def test_readers_are_right_for_a_minute(tmp_path: Path) -> None:
    """The same with four readers."""
    result = stress(tmp_path / "experience", 60, readers=4)
    judge_stress(result)
    assert result.compactions
    assert result.graphs
    assert result.readers_found.approximate
