"""What the fault, kill and stress tests share: episodes known by their numbers, an exact oracle, a
disk that fails, writers to kill.

Used by test_faults.py, test_kill.py, test_stress.py and scripts/fault_memory.py. An episode follows
from its number, so whoever knows which numbers were acknowledged knows byte for byte what has to be
there.
"""

import errno
import io
import os
import random
import shutil
import struct
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from relive.memory import (
    Actor,
    Corruption,
    Episode,
    HashedEmbedder,
    IndexSettings,
    Memory,
    Outcome,
    Query,
    Retrieved,
    Step,
    StopReason,
    Task,
)
from relive.memory.search.field_index import DECIMALS
from relive.memory.storage.codec import digest
from relive.memory.storage.segments import FRAME_BYTES, HEADER_BYTES, MARK

ROOT = Path(__file__).resolve().parents[2]
CACHES = ("catalog", "vectors", "index")
"""Folders that may be deleted at any time."""
EMBEDDER = HashedEmbedder(32)
"""Small, so that files are, too: every byte of them is damaged in turn."""
SMALL = IndexSettings(
    engine=os.environ.get("RELIVE_TEST_INDEX", ""), exact_limit=40, publish_rows=40
)  # an environment variable, since other processes open memories, too
"""Graphs and snapshots come into use from few rows on."""
_VERBS = "put heat cool clean slice examine move fetch".split()
_KINDS = "hot cold small large red green wooden metal empty full".split()
_THINGS = "mug plate apple knife book lamp towel bottle pan potato key".split()
_PLACES = "cabinet drawer fridge shelf sofa table sink safe bed".split()


def goal_of(number: int) -> str:
    """Goal of an episode: some are alike, some are the same."""
    draw = random.Random(number)
    return " ".join(
        [
            draw.choice(_VERBS),
            "a",
            draw.choice(_KINDS),
            draw.choice(_THINGS),
            "in",
            "the",
            draw.choice(_PLACES),
        ]
    )


def make(number: int) -> Episode:
    """Episode `number`; every fourth one had others in context."""
    shown = (
        (Retrieved(f"episode-{number - 1}", 0.5), Retrieved(f"episode-{number - 3}", 0.4))
        if number % 4 == 3
        else ()
    )
    steps = tuple(
        Step(
            "You see nothing. " * (number % 5),
            f"go {number} {step}",
            retrieved=shown if step == 0 else (),
        )
        for step in range(1 + number % 3)
    )
    task = Task(
        "suite",
        f"game {number}",
        f"type-{number % 3}",
        "train",
        f"room-{number}",
        number,
        "1",
        goal_of(number),
    )
    success = number % 5 > 0
    outcome = Outcome(
        success, float(success), StopReason.SOLVED if success else StopReason.STEP_LIMIT
    )
    return Episode(f"episode-{number}", task, steps, "", outcome, Actor("expert"))


def open_memory(folder: Path, mode: str = "r") -> Memory:
    """Open a memory of these tests, with graphs from few rows on."""
    return Memory(folder, mode, embedder=EMBEDDER, index=SMALL)


def build(folder: Path, numbers: Iterable[int], *, publish: bool = False) -> None:
    """A memory of these episodes, with a graph if wanted."""
    with open_memory(folder, "create") as memory:
        memory.add_many([make(number) for number in numbers])
        if publish:
            memory.publish_index()


def segment_of(folder: Path) -> Path:
    """The last segment of a memory's log."""
    return max((folder / "log").glob("*.log"))


def delete_caches(folder: Path) -> None:
    """Everything but the log and memory.json."""
    for name in CACHES:
        shutil.rmtree(folder / name, ignore_errors=True)


class Oracle:
    """Exact search, written down a second time: everything that is there at a log position is
    compared."""

    def __init__(self) -> None:
        self._vectors: dict[str, Any] = {}
        self._ties: dict[str, int] = {}

    def best(self, memory: Memory, text: str, at: int) -> list[tuple[str, float]]:
        """All episodes, best first: id and score."""
        there = [entry for entry in memory.entries(at=at) if entry.task.split == "train"]
        if not there:
            return []
        for entry in there:
            if entry.episode_id not in self._vectors:
                self._vectors[entry.episode_id] = EMBEDDER.encode([entry.task.goal])[0]
                self._ties[entry.episode_id] = int(
                    np.uint64(digest(entry.task.identity)).view(np.int64)
                )
        rows = np.stack([self._vectors[entry.episode_id] for entry in there])
        scores = np.round(np.einsum("ij,j->i", rows, EMBEDDER.encode([text])[0]), DECIMALS)
        ties = np.array([self._ties[entry.episode_id] for entry in there])
        order = np.lexsort((np.arange(len(there)), ties, -scores))
        return [(there[i].episode_id, float(scores[i])) for i in order.tolist()]


@dataclass
class Agreement:
    """How the answers of searches compare with the oracle's."""

    exact: int = 0
    """Searches that compared everything."""
    wrong_exact: int = 0
    """Those of them that did not give the very same ids and scores in the same order."""
    approximate: int = 0
    """Searches that asked a graph."""
    wrong_scores: int = 0
    """Those of them with a hit that is not there, or with another score than it has."""
    hits_wanted: int = 0
    """Hits that approximate searches should have given, and how many of those they gave (as close
    as the right ones)."""
    hits_found: int = 0
    examples: list[str] = field(default_factory=list)
    """The first few disagreements, in words."""

    @property
    def wrong(self) -> int:
        """Answers that no approximation excuses."""
        return self.wrong_exact + self.wrong_scores

    @property
    def recall(self) -> float:
        """Share of the right hits that approximate searches gave."""
        return self.hits_found / self.hits_wanted if self.hits_wanted else 1.0

    def take(self, other: "Agreement") -> None:
        """Add up."""
        for name in (
            "exact",
            "wrong_exact",
            "approximate",
            "wrong_scores",
            "hits_wanted",
            "hits_found",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.examples = (self.examples + other.examples)[:5]

    def compare(self, memory: Memory, oracle: Oracle, text: str, k: int) -> bool:
        """Search at the current position and judge the answer; False if the memory moved on
        meanwhile."""
        position = memory.position
        hits = memory.search(Query(text, k=k), at=position)
        right = oracle.best(memory, text, position)
        if memory.position != position:
            # compacted meanwhile and read anew: the two answers are about different things
            return False
        given = [(hit.episode_id, hit.score) for hit in hits]
        if not hits or hits[0].explanation.exact:
            self.exact += 1
            if given != right[:k]:
                self.wrong_exact += 1
                self.examples.append(f"exact at {position}: {given} is not {right[:k]}")
        else:
            self.approximate += 1
            scores = dict(right)
            if len(set(given)) != len(given) or any(scores.get(i) != score for i, score in given):
                self.wrong_scores += 1
                self.examples.append(f"approximate at {position}: {given}, of {right[:k]}")
            self.hits_wanted += len(right[:k])
            least = right[:k][-1][1] if right else 0.0
            self.hits_found += sum(score >= least for _, score in given)
        return True


def agreement(
    memory: Memory, numbers: Iterable[int] = range(6), oracle: Oracle | None = None
) -> Agreement:
    """Of some searches, with few and many hits."""
    found, oracle = Agreement(), oracle or Oracle()
    for number in numbers:
        found.compare(memory, oracle, goal_of(number), k=(1, 3, 10)[number % 3])
    return found


def ids_of(numbers: Iterable[int]) -> set[str]:
    """Ids of episodes."""
    return {f"episode-{number}" for number in numbers}


def check(
    folder: Path, present: Collection[str], maybe: Collection[str] = (), *, searches: int = 3
) -> tuple[Corruption, ...]:
    """That a memory opens and holds what it has to; what it said about damage.

    Read, then written (which repairs), then read again: all of `present` is there in full, nothing
    else but some of `maybe`, searches agree with the oracle, and one more episode can be added,
    found, and is there in the end.
    """
    said: dict[Corruption, None] = {}
    numbers = range(searches)
    with open_memory(folder) as memory:
        judge(memory, present, maybe, numbers)
        said.update(dict.fromkeys((*memory.stats().damage, *memory.verify())))
    with open_memory(folder, "w") as memory:
        said.update(dict.fromkeys(memory.stats().damage))
        judge(memory, present, maybe, numbers)
        said.update(dict.fromkeys(memory.verify()))
        new = make(10**6 + memory.position)
        memory.add(new)
        judge(memory, {*present, new.id}, maybe, numbers)
    with open_memory(folder) as memory:
        judge(memory, {*present, new.id}, maybe, numbers)
        # What a writer mends is mended. Not what the log has lost; and a graph is only published
        # when enough is new.
        lasting = [
            damage
            for damage in memory.stats().damage
            if not damage.file.startswith(("log", "index"))
        ]
        assert not lasting, lasting
    return tuple(said)


def judge(
    memory: Memory,
    present: Collection[str],
    maybe: Collection[str] = (),
    numbers: Iterable[int] = range(3),
) -> None:
    """Assert that an open memory holds what it has to, and finds it."""
    for (
        number
    ) in numbers:  # first: what is damaged must not spoil an answer even if nobody read it before
        found = agreement(memory, [number])
        assert not found.wrong, found.examples
    there = {entry.episode_id for entry in memory.entries()}
    assert set(present) <= there, f"lost: {sorted(set(present) - there)}; {memory.stats().damage}"
    assert there <= {*present, *maybe}, f"not expected: {sorted(there - {*present, *maybe})}"
    for episode in memory.iterate():
        expected = make(int(episode.id.split("-")[1]))
        assert (episode.task, episode.steps, episode.outcome) == (
            expected.task,
            expected.steps,
            expected.outcome,
        )
    assert len(memory) == len(there)


def flip(path: Path, byte: int, bit: int) -> None:
    """Turn one bit of a file over, in a new file: what is mapped somewhere stays as it is."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.unlink()
    path.write_bytes(data)


def records_of(segment: Path) -> list[tuple[int, int, int]]:
    """(first byte, byte after the last, kind) of every record in an intact segment."""
    data, at, found = segment.read_bytes(), HEADER_BYTES, []
    while at < len(data):
        assert data[at : at + 4] == MARK
        kind, length = struct.unpack_from("<4xBBHI", data, at)[::3]
        found.append((at, at + FRAME_BYTES + length, kind))
        at = found[-1][1]
    return found


def only(folder: Path, pattern: str) -> Path:
    """The one file that matches."""
    (path,) = folder.glob(pattern)
    return path


def told(memory: Memory) -> tuple[object, ...]:
    """What a memory says about its contents beside the episodes: all of it has to survive the loss
    of any cache."""
    stats = memory.stats()
    useful = tuple(memory.usefulness(entry.episode_id) for entry in memory.entries())
    ratings = tuple(memory.get(entry.episode_id).ratings.get("worth") for entry in memory.entries())
    return (
        stats.deleted,
        stats.ratings,
        stats.notes,
        stats.credits,
        stats.most_useful,
        useful,
        ratings,
    )


def build_for_failures(folder: Path) -> None:
    """A memory in which there is something to compact, to publish, and (before an opening) to
    repair."""
    build(folder, range(16), publish=True)
    with open_memory(folder, "w") as memory:
        memory.add_many([make(number) for number in range(16, 20)])
        memory.delete("episode-5")
        memory.delete("episode-9")
        memory.rate("episode-1", "worth", 2.0)
        memory.restore("episode-5")


def spoil(folder: Path) -> None:
    """What an opening has to repair: a torn tail, a leftover, no catalog, half a column."""
    with segment_of(folder).open("ab") as file:
        file.write(MARK + b"torn")
    (folder / "log" / "0000000000000009.log.tmp").write_bytes(b"left over")
    only(folder, "catalog/*.rows").unlink()
    column = only(folder, "vectors/*.vec")
    os.truncate(column, column.stat().st_size // 2)


class _CountedFile:
    """A file opened by :func:`io.open` whose writes count."""

    def __init__(self, file: Any, disk: "FailingDisk") -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_CountedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self._disk.count("write to file")
        return int(self._file.write(data))


class FailingDisk:
    """While entered, the `nth` operation on files of this process fails (one thread only).

    Args:
        nth: from 1 on; operations are os.open, write, pwrite, fsync, replace, ftruncate, unlink,
            mkdir, lseek, and opening and writing Python's own files.
        code: the error.
        lasting: whether all later ones fail, too.
        partial: the nth operation, if it writes, writes half; the next write fails.
    """

    OPERATIONS = (
        "open",
        "write",
        "pwrite",
        "fsync",
        "replace",
        "ftruncate",
        "unlink",
        "mkdir",
        "lseek",
    )

    def __init__(
        self, nth: int, code: int = errno.ENOSPC, *, lasting: bool = False, partial: bool = False
    ) -> None:
        self.nth, self.code, self.lasting, self.partial = nth, code, lasting, partial
        self.counted = 0
        self.failed = ""
        """Which operation failed; empty if none did."""
        self._short = False
        self._real: dict[str, Callable[..., Any]] = {}

    def count(self, name: str) -> None:
        """Count an operation; raises if it is the one."""
        self.counted += 1
        due = self.counted == self.nth or (self.lasting and self.counted > self.nth)
        if due or (self._short and "write" in name):
            self.failed, self._short = self.failed or name, False
            raise OSError(self.code, os.strerror(self.code))

    def __enter__(self) -> "FailingDisk":
        def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if (
                    self.partial
                    and name == "write"
                    and self.counted + 1 == self.nth
                    and len(arguments[1]) > 1
                ):
                    self.counted += 1
                    self._short = True
                    return real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                self.count(name)
                return real(*arguments, **options)

            return call

        for name in self.OPERATIONS:
            self._real[name] = getattr(os, name)
            setattr(os, name, wrapped(name, self._real[name]))
        self._open = io.open

        def open_file(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            self.count("open file")
            opened = self._open(file, mode, *arguments, **options)
            return _CountedFile(opened, self) if "w" in mode else opened

        setattr(io, "open", open_file)  # noqa: B010
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        setattr(io, "open", self._open)  # noqa: B010

    @property
    def reached(self) -> bool:
        """Whether anything failed."""
        return bool(self.failed) or self._short
