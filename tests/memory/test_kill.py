"""Real SIGKILLs at random moments of real writers: nothing that was acknowledged is lost, nothing
deleted comes back."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.memory.faults import (
    ROOT,
    Agreement,
    Oracle,
    agreement,
    check,
    delete_caches,
    ids_of,
    make,
    open_memory,
)


def fork_writers() -> None:
    """Body of a process that has imported everything: each line of its input (folder, seed, first
    number) is a writer to fork.

    Writers say on standard output what they are about to do and what was acknowledged.
    """
    for line in sys.stdin:
        folder, seed, first = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                write_until_killed(Path(folder), int(seed), int(first))
            except BaseException as error:
                tell("X", 0, f"{type(error).__name__}: {error}")
            finally:
                os._exit(1)
        os.waitpid(pid, 0)
        tell("G", 0, None)


def tell(what: str, number: int, about: object) -> None:
    """One line; shorter than what a pipe takes in one piece."""
    os.write(1, f"{what} {number} {json.dumps(about)}\n".encode())


def write_until_killed(folder: Path, seed: int, first: int) -> None:
    """Do everything that a writer can do, in random order, for ever."""
    tell("P", os.getpid(), None)
    draw = random.Random(seed)
    memory = open_memory(folder, "create")
    alive = [entry.episode_id for entry in memory.entries()]
    number, operations = first, itertools.count(1)
    tell("O", len(alive), None)

    def doing(name: str, about: Any, action: Callable[[], Any]) -> Any:
        mine = next(operations)
        tell("B", mine, [name, about])
        result = action()
        tell("E", mine, result if name == "evict" else None)
        return result

    def add(numbers: Collection[int]) -> None:
        doing("add", list(numbers), lambda: memory.add_many([make(n) for n in numbers]))

    while True:
        choice = draw.random()
        if choice < 0.35 or len(alive) < 5:
            count = draw.choice([1, 1, 1, 2, 5, 40])
            add(range(number, number + count))
            alive += [f"episode-{n}" for n in range(number, number + count)]
            number += count
        elif choice < 0.5:
            threads = [threading.Thread(target=add, args=([number + i],)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            alive += [f"episode-{number + i}" for i in range(4)]
            number += 4
        elif choice < 0.62:
            gone = alive.pop(draw.randrange(len(alive)))
            doing("delete", gone, lambda gone=gone: memory.delete(gone))
        elif choice < 0.74:
            rated, value = draw.choice(alive), float(draw.randrange(1000))
            doing(
                "rate",
                [rated, value],
                lambda rated=rated, value=value: memory.rate(rated, "worth", value),
            )
        elif choice < 0.82:
            doing("compact", None, memory.compact)
        elif choice < 0.89:
            doing("publish", None, memory.publish_index)
        elif choice < 0.94:

            def rebuild() -> None:
                nonlocal memory
                memory.close()
                delete_caches(folder)
                memory = open_memory(folder, "w")

            doing("rebuild", None, rebuild)
        else:
            capacity = max(20, min(200, len(alive) - draw.randrange(4)))
            by = draw.choice(["age", "usefulness", "random"])
            few = len(alive) - capacity
            evicted = doing(
                "evict",
                max(0, few),
                lambda c=capacity, b=by: memory.evict(capacity=c, by=b, keep_per_type=0),
            )
            alive = [episode_id for episode_id in alive if episode_id not in set(evicted)]


@dataclass
class Kills:
    """What killing writers came to."""

    kills: int = 0
    before_open: int = 0
    """Writers that were killed before they had opened the memory."""
    acknowledged: int = 0
    """Episodes whose addition was acknowledged, and other operations."""
    operations: Counter[str] = field(default_factory=Counter)
    interrupted: Counter[str] = field(default_factory=Counter)
    """Operations that were going on at the moment of a kill."""
    lost: int = 0
    """Acknowledged episodes that are not there."""
    unexpected: int = 0
    """Episodes that are there and should not: deleted, or never added."""
    wrong_ratings: int = 0
    torn: int = 0
    """Kills that left half a record at the end of the log."""
    split_batches: int = 0
    """Kills that left a part of a batch that was not acknowledged."""
    damage: Counter[str] = field(default_factory=Counter)
    """What memories said after kills, caches included."""
    agreement: Agreement = field(default_factory=Agreement)
    problems: list[str] = field(default_factory=list)


class WriterKiller:
    """Kills writers of one memory, and keeps account from outside of what they were told is
    durable."""

    def __init__(self, folder: Path, seed: int, result: Kills) -> None:
        self.folder, self.result = folder, result
        self._draw = random.Random(seed)
        self.there: set[str] = set()
        """Ids of the episodes that were there after the last kill."""
        self._ratings: dict[str, set[float]] = {}  # the values that an episode may have
        self._next = 0
        self._oracle = Oracle()
        self._forker = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from tests.memory.test_kill import fork_writers; fork_writers()",
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End the forking process."""
        assert self._forker.stdin
        assert self._forker.stdout
        self._forker.stdin.close()
        self._forker.wait()
        self._forker.stdout.close()

    def kill(self, longest: float = 0.15) -> None:
        """Let a writer write, kill it at a random moment, and look at what is there."""
        assert self._forker.stdin
        assert self._forker.stdout
        self._forker.stdin.write(
            json.dumps([str(self.folder), self._draw.randrange(2**32), self._next]) + "\n"
        )
        self._forker.stdin.flush()
        lines = [self._forker.stdout.readline().split(" ", 2)]
        assert lines[0][0] == "P", lines
        if self._draw.random() < 0.85:  # else: killed while it opens and recovers
            lines.append(self._forker.stdout.readline().split(" ", 2))
        else:
            longest /= 5
        time.sleep(self._draw.random() * longest)
        with suppress(ProcessLookupError):
            os.kill(int(lines[0][1]), signal.SIGKILL)
        text = ""
        while not text.endswith("G 0 null\n"):
            text += self._forker.stdout.readline()
        # A line may be cut by the kill, and what the forker says follows right behind it.
        lines += [line.split(" ", 2) for line in text.split("\n")]
        self._account([(line[0], int(line[1]), line[2]) for line in lines if len(line) == 3])

    def _account(self, lines: list[tuple[str, int, str]]) -> None:
        result = self.result
        result.kills += 1
        result.before_open += not any(what == "O" for what, _, _ in lines)
        begun: dict[int, tuple[str, Any]] = {}
        must, maybe, evictable, batches = set(self.there), set[str](), 0, list[set[str]]()
        for what, number, text in lines:
            if what == "X":
                result.problems.append(text)
            elif what == "B":
                begun[number] = name, about = tuple(json.loads(text))
                if name == "add":
                    self._next = max(self._next, max(about) + 1)
                elif name == "rate":
                    self._ratings.setdefault(about[0], {float("nan")}).add(about[1])
            elif what == "E":
                name, about = begun.pop(number)
                result.operations[name] += 1
                if name == "add":
                    must |= ids_of(about)
                    result.acknowledged += len(about)
                elif name == "delete":
                    must.discard(about)
                elif name == "rate":
                    self._ratings[about[0]] = {about[1]}
                elif name == "evict":
                    must -= set(json.loads(text))
        for name, about in begun.values():
            result.interrupted[name] += 1
            if name == "add":
                maybe |= ids_of(about)
                batches.append(ids_of(about))
            elif name == "delete":
                must.discard(about)
                maybe.add(about)
            elif name == "evict":
                evictable = about
        self._look(must, maybe, evictable, batches)

    def _look(
        self, must: set[str], maybe: set[str], evictable: int, batches: list[set[str]]
    ) -> None:
        result = self.result
        if not (self.folder / "memory.json").exists():
            assert not must
            return
        with open_memory(self.folder) as memory:
            there = {entry.episode_id for entry in memory.entries()}
            missing, more = must - there, there - must - maybe
            if len(missing) > evictable:
                result.lost += len(missing) - evictable
                result.problems.append(f"lost {sorted(missing)[:5]}")
            if more:
                result.unexpected += len(more)
                result.problems.append(f"not expected {sorted(more)[:5]}")
            result.split_batches += sum(0 < len(batch & there) < len(batch) for batch in batches)
            for episode_id in [i for i in self._ratings if i in there]:
                value = memory.get(episode_id).ratings.get("worth", float("nan"))
                if not any(
                    value == known or value != value != known != known
                    for known in self._ratings[episode_id]
                ):
                    result.wrong_ratings += 1
                    result.problems.append(
                        f"{episode_id} is rated {value}, not {self._ratings[episode_id]}"
                    )
                self._ratings[episode_id] = {value}
            for damage in memory.stats().damage:
                kind = "log: " + damage.detail if damage.file.startswith("log") else damage.detail
                result.damage["".join("#" if c.isdigit() else c for c in kind)] += 1
                result.torn += "not a complete record" in damage.detail
                if damage.file.startswith(
                    "log/"
                ):  # half a record at the end is no damage to any other
                    result.problems.append(str(damage))
            queries = self._draw.sample(range(max(self._next, 3)), 3)
            result.agreement.take(agreement(memory, queries, self._oracle))
        self.there = there
        self._ratings = {i: values for i, values in self._ratings.items() if i in there}


def kill_writers(folder: Path, kills: int, seed: int) -> Kills:
    """Kill writers of one memory, then look at it closely."""
    result = Kills()
    killer = WriterKiller(folder, seed, result)
    try:
        for _ in range(kills):
            killer.kill()
    finally:
        killer.close()
    if killer.there:
        check(folder, killer.there)
    return result


def judge_kills(result: Kills) -> None:
    """Assert that nothing went wrong."""
    assert not result.problems, result.problems
    assert result.lost + result.unexpected + result.wrong_ratings + result.agreement.wrong == 0, (
        result
    )


def test_no_acknowledged_episode_is_lost(tmp_path: Path) -> None:
    """A dozen and a half kills of writers of the same memory, which do everything that a writer can
    do."""
    result = kill_writers(tmp_path / "experience", 18, seed=0)
    judge_kills(result)
    assert result.acknowledged  # how many depends on how busy the machine is
    assert result.agreement.exact + result.agreement.approximate


@pytest.mark.slow
def test_no_acknowledged_episode_is_lost_in_five_hundred_kills(tmp_path: Path) -> None:
    """The same, longer, on ten memories."""
    for seed in range(1, 11):
        judge_kills(kill_writers(tmp_path / f"experience-{seed}", 50, seed=seed))
