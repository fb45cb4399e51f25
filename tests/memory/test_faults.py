"""Damaged, cut, missing, exchanged files and failing disks: the memory opens, says so, finds what
is there, loses nothing else."""

import errno
import os
import random
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from relive.memory import Memory
from relive.memory.storage.catalog import ROW
from relive.memory.storage.rows import HEADER_BYTES
from tests.memory.faults import (
    CACHES,
    EMBEDDER,
    FailingDisk,
    build,
    build_for_failures,
    check,
    delete_caches,
    flip,
    ids_of,
    judge,
    make,
    only,
    open_memory,
    records_of,
    segment_of,
    spoil,
    told,
)

pytestmark = pytest.mark.usefixtures("no_sync")

SMALL = range(8)
"""Episodes of the memory whose log is damaged byte by byte; the third is deleted, the second
rated."""
DELETED = "episode-3"
MEDIUM = range(60)
"""Episodes of the memory whose caches are damaged; enough for the graph to be asked."""
PARTS = ("catalog/*.rows", "vectors/*.vec", "index/*.json", "index/*.hnsw", "memory.json")
"""Every kind of file but the log."""


def build_small(folder: Path) -> None:
    """A memory with every kind of record, small."""
    build(folder, SMALL)
    with open_memory(folder, "w") as memory:
        memory.rate("episode-2", "worth", 3.0)
        memory.delete(DELETED)
        memory.annotate("episode-4", "a remark")
        memory.add(make(20))


def build_medium(folder: Path) -> None:
    """A memory with a graph."""
    build(folder, MEDIUM, publish=True)


def flips_in_log(folder: Path, every: int, *, caches: bool) -> Counter[str]:
    """A bit of every `every`-th byte of the log is turned over: at most its record is lost, and it
    is named."""
    template, result = folder / "template", Counter[str]()
    build_small(template)
    present = ids_of(SMALL) - {DELETED} | ids_of([20])
    records = records_of(segment_of(template))
    episodes = [*(f"episode-{number}" for number in SMALL), "", "", "", "episode-20"]
    for byte in range(0, segment_of(template).stat().st_size, every):
        copy = folder / "copy"
        shutil.copytree(template, copy)
        if not caches:
            delete_caches(copy)
        flip(segment_of(copy), byte, byte // every % 8)
        hit = [i for i, (start, stop, _) in enumerate(records) if start <= byte < stop]
        lost = {episodes[i] for i in hit}
        # Without the record of its deletion, or with another one of its id gone, an episode may be
        # there again.
        said = check(copy, present - lost, {DELETED})
        assert any(damage.file.startswith("log") for damage in said), (byte, said)
        result["flips"] += 1
        result["episodes that were damaged themselves"] += len(lost & present)
        shutil.rmtree(copy)
    return result


def cuts_of_last_record(folder: Path, every: int, *, caches: bool) -> Counter[str]:
    """The log is cut at every `every`-th byte of its last record: only that one is gone."""
    template, result = folder / "template", Counter[str]()
    build_small(template)
    start, stop, _ = records_of(segment_of(template))[-1]
    for length in sorted({*range(start, stop, every), start, start + 1, stop - 1}):
        copy = folder / "copy"
        shutil.copytree(template, copy)
        if not caches:
            delete_caches(copy)
        os.truncate(segment_of(copy), length)
        said = check(copy, ids_of(SMALL) - {DELETED})
        assert length == start or any(damage.file.startswith("log") for damage in said), (
            length,
            said,
        )
        result["cuts"] += 1
        shutil.rmtree(copy)
    return result


def flips_in_caches(folder: Path, pattern: str, every: int, seed: int = 0) -> Counter[str]:
    """A bit of about every `every`-th byte of a cache is turned over: nothing is lost, and it is
    named."""
    template, result, draw = folder / "template", Counter[str](), random.Random(seed)
    build_medium(template)
    with open_memory(template) as memory:
        before = told(memory)
    size = only(template, pattern).stat().st_size
    for low in range(0, size, every):
        copy = folder / "copy"
        shutil.copytree(template, copy)
        byte = draw.randrange(low, min(low + every, size))
        flip(only(copy, pattern), byte, draw.randrange(8))
        with open_memory(copy) as memory:
            assert told(memory) == before, (pattern, byte)
        said = check(copy, ids_of(MEDIUM), searches=2)
        assert said, (pattern, byte)
        result["flips"] += 1
        shutil.rmtree(copy)
    return result


def test_flipped_bit_in_the_log(tmp_path: Path) -> None:
    """With caches and without."""
    for caches in (True, False):
        assert flips_in_log(tmp_path / str(caches), 331, caches=caches)["flips"] > 10


def test_log_cut_within_its_last_record(tmp_path: Path) -> None:
    """With caches and without."""
    for caches in (True, False):
        assert cuts_of_last_record(tmp_path / str(caches), 90, caches=caches)["cuts"] > 5


@pytest.mark.parametrize("pattern", PARTS)
def test_flipped_bit_in_a_cache(tmp_path: Path, pattern: str) -> None:
    """Some places of each."""
    build_medium(tmp_path / "one")
    size = only(tmp_path / "one", pattern).stat().st_size
    flips_in_caches(tmp_path, pattern, max(1, size // 5))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["memory.json", "index/*.json"])
def test_flipped_bit_in_every_byte_of_a_description(tmp_path: Path, pattern: str) -> None:
    """All eight of some; in the long script, all bytes of all files."""
    for seed in range(3):
        flips_in_caches(tmp_path / str(seed), pattern, 1, seed)


def test_catalog_cut_after_every_row(tmp_path: Path) -> None:
    """Also between the rows of one record, as a writer leaves it that dies while it writes: no
    credit is lost."""
    template = tmp_path / "template"
    build_small(template)
    with open_memory(template) as memory:
        before = told(memory)
    path = only(template, "catalog/*.rows")
    (row,) = struct.unpack_from("<12xI", path.read_bytes())
    header = path.stat().st_size % row
    for length in range(header, path.stat().st_size, row):
        for more in (0, 50):
            copy = tmp_path / "copy"
            shutil.copytree(template, copy)
            os.truncate(only(copy, "catalog/*.rows"), length + more)
            for mode in "rwr":
                with open_memory(copy, mode) as memory:
                    assert told(memory) == before, (length, mode)
            shutil.rmtree(copy)


def exchange_caches(folder: Path, what: str) -> Counter[str]:
    """Caches are deleted, then replaced with those of another memory: they are made again."""
    ours, theirs = folder / "ours", folder / "theirs"
    names = CACHES if what == "all" else (what,)
    build_medium(theirs)
    build(ours, range(100, 160), publish=True)
    for name in names:
        shutil.rmtree(ours / name)
    check(ours, ids_of(range(100, 160)))
    shutil.rmtree(ours)
    build(ours, range(100, 160), publish=True)
    for name in names:
        shutil.rmtree(ours / name)
        shutil.copytree(theirs / name, ours / name)
    assert check(ours, ids_of(range(100, 160)))
    return Counter({"caches deleted": 1, "caches of another memory": 1})


def _nothing(memory: Memory) -> set[str]:
    return set()


def _compacted(memory: Memory) -> set[str]:
    for number in (2, 30, 41):
        memory.delete(f"episode-{number}")
    memory.compact()
    return ids_of((2, 30, 41))


def _deleted(memory: Memory) -> set[str]:
    memory.delete("episode-5")
    memory.publish_index()
    return {"episode-5"}


CHANGES: tuple[Callable[[Memory], set[str]], ...] = (_nothing, _deleted, _compacted)
"""Each changes a memory and says which episodes are gone."""


def mix_caches(folder: Path, what: str, change: Callable[[Memory], set[str]]) -> Counter[str]:
    """A memory is copied and both copies go their own ways; then one gets caches of the other, or
    of the time before."""
    old, left, right = folder / "old", folder / "left", folder / "right"
    build_medium(old)
    shutil.copytree(old, left)
    shutil.copytree(old, right)
    with open_memory(left, "w") as memory:
        memory.add_many([make(number) for number in range(100, 150)])
        memory.publish_index()
        gone = change(memory)
    with open_memory(right, "w") as memory:
        memory.add_many([make(number) for number in range(200, 250)])
    present = {
        old: ids_of(MEDIUM),
        left: ids_of([*MEDIUM, *range(100, 150)]) - gone,
        right: ids_of([*MEDIUM, *range(200, 250)]),
    }
    for log, caches in ((old, left), (left, old), (left, right), (right, left)):
        mixed = folder / "mixed"
        shutil.copytree(log, mixed)
        for name in CACHES if what == "all" else (what,):
            shutil.rmtree(mixed / name)
            shutil.copytree(caches / name, mixed / name)
        check(mixed, present[log])
        shutil.rmtree(mixed)
    return Counter(
        {"caches older than the log": 1, "newer": 1, "of a copy that went its own way": 2}
    )


SOME = [pytest.param(name, marks=pytest.mark.slow) for name in CACHES]


@pytest.mark.parametrize("what", ["all", *SOME])
def test_caches_deleted_or_of_another_memory(tmp_path: Path, what: str) -> None:
    """One kind of them, or all."""
    exchange_caches(tmp_path, what)


@pytest.mark.parametrize("what", ["all", *SOME])
@pytest.mark.parametrize("change", CHANGES)
def test_caches_older_or_newer_than_the_log(
    tmp_path: Path, what: str, change: Callable[[Memory], set[str]]
) -> None:
    """One kind of them, or all."""
    mix_caches(tmp_path, what, change)


# Disks that fail. Each operation is done again and again; another one of its calls to the system
# fails each time, until none does.


def _open(memory: Memory) -> None:
    memory.close()
    Memory(memory.path, "w", embedder=EMBEDDER).close()


def _add(memory: Memory) -> None:
    memory.add_many([make(200), make(203)])


def _add_to_new_segment(memory: Memory) -> None:
    memory._state.log._segment_bytes = 100
    memory.add_many([make(200), make(203)])


OPERATIONS: dict[str, Callable[[Memory], object]] = {
    "open": _open,
    "add": _add,
    "add in a new segment": _add_to_new_segment,
    "delete": lambda memory: memory.delete("episode-7"),
    "compact": lambda memory: memory.compact(),
    "publish_index": lambda memory: memory.publish_index(),
}
"""What is done while the disk fails."""
MODES: dict[str, dict[str, object]] = {
    "ENOSPC once": {"code": errno.ENOSPC},
    "ENOSPC, half written": {"code": errno.ENOSPC, "partial": True},
    "ENOSPC from then on": {"code": errno.ENOSPC, "lasting": True},
    "EIO once": {"code": errno.EIO},
    "EIO from then on": {"code": errno.EIO, "lasting": True},
}
"""How it fails."""


def fail_everywhere(folder: Path, operation: str, mode: str) -> Counter[str]:
    """Let the first, the second, … call fail; what was refused is not there, what was acknowledged
    is."""
    template, result = folder / "template", Counter[str]()
    build_for_failures(template)
    before = ids_of(range(20)) - {"episode-9"}
    with open_memory(template) as memory:
        known = told(memory)
    if operation == "open":
        spoil(template)
    for nth in range(1, 1000):
        copy = folder / "copy"
        shutil.copytree(template, copy)
        memory = open_memory(copy, "r" if operation == "open" else "w")
        refused = False
        with FailingDisk(nth, **MODES[mode]) as disk:  # type: ignore[arg-type]
            try:
                OPERATIONS[operation](memory)
            except OSError as error:
                refused = True
                if error.errno != MODES[mode]["code"]:
                    raise
        present = set(before)
        if not refused and operation.startswith("add"):
            present |= ids_of((200, 203))
        if not refused and operation == "delete":
            present -= {"episode-7"}
        if operation == "open":
            memory = open_memory(copy, "w")  # the lock was given back
        else:
            # The same object goes on once the disk is well again.
            judge(memory, present, numbers=[nth])
            if operation in ("compact", "publish_index"):
                # Ratings, notes, credits. Not what is useful: it rests on all runs, also on those
                # that are taken away.
                assert told(memory)[1:4] == known[1:4], (nth, disk.failed)
            if refused:
                OPERATIONS[operation](memory)
                present |= ids_of((200, 203)) if operation.startswith("add") else set()
                present -= {"episode-7"} if operation == "delete" else set()
        memory.close()
        check(copy, present, searches=1)
        shutil.rmtree(copy)
        if not disk.reached:
            result["calls"] = nth - 1
            return result
        result["refused" if refused else "went through without it"] += 1
    raise AssertionError("it fails for ever")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_failing_disk(tmp_path: Path, operation: str) -> None:
    """Every single call fails once; writes after half of what they should write."""
    assert fail_everywhere(tmp_path, operation, "ENOSPC, half written")["calls"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_failing_disk_in_all_ways(tmp_path: Path, operation: str, mode: str) -> None:
    """With every error, once and for good."""
    fail_everywhere(tmp_path, operation, mode)


# One thing each.


def test_clock_that_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on it: order, ratings and deletions follow the log."""
    now = iter([1e9, 5.0, 1e12, -1e6, 0.0] * 100)
    monkeypatch.setattr(time, "time", lambda: next(now))
    folder = tmp_path / "experience"
    for mode, numbers in (("create", range(45)), ("w", range(45, 60))):
        with open_memory(folder, mode) as memory:
            for number in numbers:
                memory.add(make(number))
            for value in (1.0, 2.0, 3.0):
                memory.rate("episode-4", "worth", value)
                memory.annotate("episode-5", str(value))
            memory.delete(f"episode-{numbers[7]}")
            memory.publish_index()
            assert memory.evict(capacity=len(memory) - 1, by="age", keep_per_type=0) == (
                f"episode-{int(mode == 'w')}",
            )
    gone = ids_of((0, 1, 7, 52))
    with open_memory(folder) as memory:
        assert [entry.episode_id for entry in memory.entries()] == [
            f"episode-{number}" for number in range(60) if f"episode-{number}" not in gone
        ]
        assert memory.get("episode-4").ratings["worth"] == 3.0
        assert memory.notes("episode-5") == ("1.0", "2.0", "3.0") * 2
        assert not memory.stats().damage
    check(folder, ids_of(range(60)) - gone)


@pytest.mark.parametrize("mode", ["r", "w"])
def test_catalog_that_is_damaged_while_it_is_open(tmp_path: Path, mode: str) -> None:
    """Its rows are mapped: verify looks at them once more, and makes what is damaged again."""
    folder = tmp_path / "experience"
    build(folder, range(12))
    catalog = only(folder, "catalog/*.rows")
    whole = catalog.read_bytes()
    for byte in range(HEADER_BYTES + 3 * ROW.itemsize, HEADER_BYTES + 4 * ROW.itemsize, 5):
        with open_memory(folder, mode) as memory:
            assert memory.verify() == ()
            with catalog.open("r+b") as file:
                file.seek(byte)
                file.write(bytes([whole[byte] ^ 4]))
            (said,) = memory.verify()
            assert (said.file, said.offset) == (
                "catalog/catalog.rows",
                HEADER_BYTES + 3 * ROW.itemsize,
            )
            judge(memory, ids_of(range(12)), numbers=range(1))
        assert (catalog.read_bytes() == whole) == (mode == "w")
        catalog.write_bytes(whole)
