"""Readers beside a writer that compacts, takes back, fails or is damaged: they miss nothing and
find nothing that is gone."""

import os
import shutil
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from relive.memory import HashedEmbedder, Memory
from relive.memory.search.embed import Vectors
from relive.memory.state import State
from relive.memory.storage.catalog import Catalog
from relive.memory.storage.durable import RolledBackError
from relive.memory.storage.log_reader import LogReader
from relive.memory.storage.segments import FRAME_BYTES
from tests.memory.faults import (
    EMBEDDER,
    FailingDisk,
    Query,
    agreement,
    build,
    check,
    flip,
    goal_of,
    ids_of,
    judge,
    make,
    only,
    open_memory,
    records_of,
    segment_of,
    spoil,
)

pytestmark = pytest.mark.usefixtures("no_sync")


@pytest.mark.parametrize("publish", [True, False])
def test_reader_goes_on_through_compactions(tmp_path: Path, publish: bool) -> None:
    """The column that it has mapped is another file afterwards, with fewer rows: no vector may be
    taken for another's."""
    folder = tmp_path / "experience"
    build(folder, range(80), publish=publish)
    with open_memory(folder) as reader, open_memory(folder, "w") as writer:
        judge(reader, ids_of(range(80)))
        present, number = ids_of(range(80)), 100
        for turn in range(4):
            for gone in sorted(present)[turn::7]:
                writer.delete(gone)
                present.discard(gone)
            if turn % 2:
                reader.refresh()
                judge(reader, present)
            writer.compact()
            assert not agreement(reader).wrong  # before it knows, too
            for _ in range(40):
                writer.add(make(number))
                present.add(f"episode-{number}")
                number += 1
            reader.refresh()
            judge(reader, present)
            judge(writer, present)
        assert not reader.stats().damage


def test_reader_that_has_not_read_the_records_yet_meets_a_compaction(tmp_path: Path) -> None:
    """It knows them from the catalog only, and their file is gone when a search wants to look at
    them."""
    folder = tmp_path / "experience"
    for low in (0, 20, 40):
        with open_memory(folder, "create") as memory:
            memory._state.log.begin_segment()
            memory.add_many([make(number) for number in range(low, low + 20)])
    for ask in ("search", "stats", "verify", "entries", "get", "iterate", "refresh"):
        with open_memory(folder) as reader, open_memory(folder, "w") as writer:
            gone = sorted(entry.episode_id for entry in writer.entries())[0]
            left = ids_of(range(60)) & {entry.episode_id for entry in writer.entries()} - {gone}
            number = max(int(i.split("-")[1]) for i in left)
            writer.delete(gone)
            writer.compact()
            if ask == "search":
                reader.search(Query(goal_of(number), k=10))
            elif ask == "get":
                assert reader.get(f"episode-{number}").id == f"episode-{number}"
            elif ask == "iterate":
                assert left <= {episode.id for episode in reader.iterate()}
            elif ask == "entries":
                assert left <= {entry.episode_id for entry in reader.entries()}
            else:
                getattr(reader, ask)()
            reader.refresh()
            judge(reader, left)


def test_compaction_names_the_damaged_record_that_it_leaves_out(tmp_path: Path) -> None:
    """Nobody may have looked at it before; afterwards nobody can."""
    folder = tmp_path / "experience"
    build(folder, range(10))
    start, _, _ = records_of(segment_of(folder))[4]
    flip(segment_of(folder), start + FRAME_BYTES + 30, 3)
    with open_memory(folder, "w") as memory:
        memory.delete("episode-8")
        memory.compact()
        assert any("record 4" in damage.detail for damage in memory.stats().damage), (
            memory.stats().damage
        )
        judge(memory, ids_of(range(10)) - {"episode-4", "episode-8"})
    check(folder, ids_of(range(10)) - {"episode-4", "episode-8"})


def test_closing_waits_for_what_is_being_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file must not be closed under it: the number of a closed file is the next file's."""
    folder = tmp_path / "experience"
    build(folder, range(3))
    memory = open_memory(folder, "w")
    started, refused = threading.Event(), []

    def slow(descriptor: int) -> None:
        started.set()
        time.sleep(0.2)
        os.fstat(descriptor)  # fails if it was closed

    def add() -> None:
        try:
            memory.add(make(3))
        except (OSError, ValueError) as error:
            refused.append(error)

    monkeypatch.setattr(os, "fsync", slow)
    thread = threading.Thread(target=add)
    thread.start()
    started.wait()
    memory.close()
    thread.join()
    assert not refused
    check(folder, ids_of(range(4)))


def test_reader_whose_embedder_fails_while_it_follows_misses_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had taken in the records and not their vectors: after the error it reads again."""
    folder = tmp_path / "experience"
    build(folder, range(10))
    with open_memory(folder) as reader:
        with open_memory(folder, "w") as writer:
            writer.add_many([make(number) for number in range(10, 20)])
        only(folder, "vectors/*.vec").unlink()

        def fail(texts: object) -> None:
            raise RuntimeError("the embedder is out of order")

        with monkeypatch.context() as patch:
            patch.setattr(EMBEDDER, "encode", fail)
            with pytest.raises(RuntimeError):
                reader.refresh()
        judge(reader, ids_of(range(20)))


def test_lock_of_a_writer_that_failed_to_open(tmp_path: Path) -> None:
    """An opening that fails gives it back, and a second writer is told who has it."""
    folder = tmp_path / "experience"
    build(folder, range(3))
    spoil(folder)
    with FailingDisk(6, lasting=True), pytest.raises(OSError, match="No space"):
        open_memory(folder, "w")
    with open_memory(folder, "w"), pytest.raises(BlockingIOError, match=f"pid {os.getpid()}"):
        open_memory(folder, "w")


def test_reader_of_a_log_that_was_taken_back(tmp_path: Path) -> None:
    """A reader saw a record that never became durable; another one is in its place now."""
    folder = tmp_path / "experience"
    build(folder, range(5))
    with open_memory(folder) as reader:
        end = segment_of(folder).stat().st_size
        with open_memory(folder, "w") as writer:
            writer.add(make(5))
        reader.refresh()
        judge(reader, ids_of(range(6)))
        os.truncate(segment_of(folder), end)
        with open_memory(folder, "w") as writer:
            writer.add(make(17))
        try:
            reader.refresh()
        except RolledBackError:
            reader.refresh()
        judge(reader, ids_of((0, 1, 2, 3, 4, 17)))


def test_reader_follows_a_column_that_was_exchanged_or_is_damaged(tmp_path: Path) -> None:
    """What it knew of the rows holds neither for another file nor for rows that it mended only in
    its own memory."""
    folder = tmp_path / "experience"
    build(folder, range(30))
    with open_memory(folder) as reader:
        judge(reader, ids_of(range(30)))
        # As in the middle of a compaction: the column is that of fewer episodes already, and the
        # log grew.
        with open_memory(folder, "w") as writer:
            writer.add_many([make(number) for number in range(30, 40)])
        other = tmp_path / "other"
        shutil.copytree(folder, other)
        with open_memory(other, "w") as writer:
            for number in range(0, 30, 2):
                writer.delete(f"episode-{number}")
            writer.compact()
        os.replace(only(other, "vectors/*.vec"), only(folder, "vectors/*.vec"))
        reader.refresh()
        judge(reader, ids_of(range(40)))
    build(tmp_path / "second", range(30))
    folder = tmp_path / "second"
    row = struct.unpack_from("<12xI", only(folder, "vectors/*.vec").read_bytes())[0]
    for number in (3, 17):
        flip(
            only(folder, "vectors/*.vec"),
            only(folder, "vectors/*.vec").stat().st_size - number * row + 60,
            6,
        )
    with open_memory(folder) as reader:
        judge(reader, ids_of(range(30)))
        shutil.copytree(folder, tmp_path / "third")
        with open_memory(tmp_path / "third", "w") as writer:
            writer.add(make(30))
        shutil.copy(segment_of(tmp_path / "third"), segment_of(folder))
        reader.refresh()
        judge(reader, ids_of(range(31)))


def test_reader_that_opens_while_a_writer_compacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the catalog and wants to embed what the column lacks; the file with the texts is
    gone."""
    folder = tmp_path / "experience"
    for low in (0, 20):
        with open_memory(folder, "create") as memory:
            memory._state.log.begin_segment()
            memory.add_many([make(number) for number in range(low, low + 20)])
    only(folder, "vectors/*.vec").unlink()
    real = State._text

    def compact_first(state: State, key: str, label: int) -> str:
        monkeypatch.setattr(State, "_text", real)
        with open_memory(folder, "w") as writer:
            writer.delete("episode-5")
            writer.compact()
        return real(state, key, label)

    monkeypatch.setattr(State, "_text", compact_first)
    with open_memory(folder) as reader:
        judge(reader, ids_of(range(40)) - {"episode-5"})


@pytest.mark.parametrize("after", [Catalog.load, LogReader.start_after])
def test_reader_that_opens_beside_a_compaction_is_told_of_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: Callable[..., object]
) -> None:
    """It may come between any two of its looks at catalog, log and columns."""
    folder = tmp_path / "experience"
    build(folder, range(20))

    def compact_after(self: object, *arguments: object) -> object:
        monkeypatch.undo()
        done = after(self, *arguments)
        with open_memory(folder, "w") as writer:
            writer.delete("episode-5")
            assert writer.compact().episodes == 1
        return done

    owner = Catalog if after is Catalog.load else LogReader
    monkeypatch.setattr(owner, after.__name__, compact_after)
    with open_memory(folder) as reader:
        assert reader.stats().damage == ()
        reader.refresh()
        judge(reader, ids_of(range(20)) - {"episode-5"})
        assert reader.stats().damage == ()


@pytest.mark.parametrize("count", [0, 5])
def test_a_memory_that_was_deleted_while_it_was_open(tmp_path: Path, count: int) -> None:
    """Nothing is called added that nobody can find, and no reader takes nothing for what is
    there."""
    folder = tmp_path / "experience"
    build(folder, range(count))
    with open_memory(folder, "w") as writer, open_memory(folder) as reader:
        reader.refresh()
        shutil.rmtree(folder)
        acts: list[Callable[[], object]] = [
            lambda: writer.add(make(100)), lambda: writer.add_many([make(101), make(102)]),
            reader.refresh, reader.refresh,
        ]  # fmt: skip
        if count:
            acts += [lambda: writer.rate("episode-1", "human", 1), writer.compact]
        for act in acts:
            with pytest.raises(FileNotFoundError, match=f"the memory in {folder} is gone"):
                act()


class OneByOne(HashedEmbedder):
    """Says how many threads were in it at once."""

    inside = most = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.1)
        self.inside -= 1
        return super().encode(texts)


def test_one_thread_at_a_time_is_in_the_embedder(tmp_path: Path) -> None:
    """Also where one thread searches and another embeds what was added."""
    folder, embedder = tmp_path / "experience", OneByOne(64)
    with (
        Memory(folder, embedder=HashedEmbedder(64)) as writer,
        Memory(folder, "r", embedder=embedder, fields=["goal", "first"]) as reader,
    ):
        writer.add(make(1))
        thread = threading.Thread(target=reader.refresh)
        thread.start()
        while not embedder.inside and thread.is_alive():
            time.sleep(0.001)
        hits = reader.search(goal_of(1))
        thread.join()
        assert [hit.episode_id for hit in hits] == ["episode-1"]
    assert embedder.most == 1
