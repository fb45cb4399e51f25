"""Memory as its users meet it."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from relive.memory import Episode, HashedEmbedder, IndexSettings, Memory, Query
from relive.memory.search.embed import Vectors
from relive.memory.search.vectors import VectorColumn
from relive.memory.storage.catalog import Catalog
from tests.memory.conftest import HOLDOUT, make_episode

ROOT = Path(__file__).parents[2]
Make = Callable[..., Episode]


class CountingEmbedder(HashedEmbedder):
    """Counts the texts it is given."""

    def __init__(self, dimension: int = 384) -> None:
        super().__init__(dimension)
        self.count = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        """As the hashed embedder."""
        self.count += len(texts)
        return super().encode(texts)


def test_what_is_added_comes_back(folder: Path, episode: Make) -> None:
    """In this process and in the next, by id, in order, and by search."""
    episodes = [episode(number, success=number % 2 == 0) for number in range(5)]
    with Memory(folder) as memory:
        assert memory.add(episodes[0]) == 1
        assert memory.add_many(episodes[1:]) == memory.position == 5
        assert "episode-3" in memory
        assert "episode-9" not in memory
        assert len(memory) == 5
    with Memory(folder, "r") as memory:
        assert list(memory.iterate()) == episodes
        assert list(memory.iterate(at=2)) == episodes[:2]
        assert memory.get("episode-3") == episodes[3]
        assert memory.meta("episode-3").task == episodes[3].task
        assert [entry.episode_id for entry in memory.entries(at=2)] == ["episode-0", "episode-1"]
        assert (
            memory.search(Query("put a hot thing4 in cabinet", k=1), HOLDOUT)[0].episode_id
            == "episode-4"
        )
        with pytest.raises(KeyError, match="no episode 'episode-9'"):
            memory.get("episode-9")


def test_stats(store: Memory, episode: Make) -> None:
    """Counted by type, split and policy, with bytes and position."""
    store.add_many(
        [
            episode(n, split="test" if n == 2 else "train", success=n > 0, task_type="heat")
            for n in range(3)
        ]
    )
    store.rate("episode-0", "human", 1)
    stats = store.stats()
    assert (stats.entries, stats.successes, stats.position, stats.ratings, stats.notes) == (
        3,
        2,
        4,
        1,
        0,
    )
    assert (stats.by_type, stats.by_split, stats.by_policy) == (
        {"heat": 3},
        {"train": 2, "test": 1},
        {"expert": 3},
    )
    assert 0 < stats.log_bytes < stats.total_bytes
    assert stats.embedder == "hashed-1-384"
    assert stats.index_entries == 0
    assert stats.damage == ()


def test_an_empty_memory_is_a_memory(store: Memory) -> None:
    """Where a memory may be None, ``if memory`` asks whether there is one."""
    assert (bool(store), len(store)) == (True, 0)


def test_ratings_and_notes(folder: Path, episode: Make) -> None:
    """Given afterwards, durable, the last of a name counts, and they appear with the episode."""
    with Memory(folder) as memory:
        memory.add(episode(1))
        memory.rate("episode-1", "human", 0.25)
        memory.rate("episode-1", "human", 0.75)
        memory.annotate("episode-1", "took a detour")
        with pytest.raises(KeyError):
            memory.rate("episode-2", "human", 1.0)
        with pytest.raises(KeyError):
            memory.annotate("episode-2", "?")
    with Memory(folder, "r") as memory:
        assert memory.get("episode-1").ratings == {"human": 0.75}
        assert memory.notes("episode-1") == ("took a detour",)
        with pytest.raises(KeyError, match="there is no episode 'episode-2'"):
            memory.notes("episode-2")
        assert memory.position == 4


def test_refusals_say_what_to_do(folder: Path, episode: Make) -> None:
    """The mistakes that a newcomer makes."""
    with pytest.raises(FileNotFoundError, match="mode='create'"):
        Memory(folder, "r")
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="check the path"):
        Memory(folder, "w")
    with pytest.raises(ValueError, match="unknown mode 'a'"):
        Memory(folder, "a")
    memory = Memory(folder)
    memory.add(episode(1))
    with pytest.raises(ValueError, match="already an episode 'episode-1'"):
        memory.add(episode(1))
    with pytest.raises(ValueError, match="already an episode 'episode-2'"):
        memory.add_many([episode(2), episode(2)])
    with pytest.raises(ValueError, match="no task split"):
        memory.add(episode(2, split=" "))
    with pytest.raises(
        BlockingIOError, match="being written by another Memory of this very process"
    ):
        Memory(folder, "w")
    reader = Memory(folder, "r")
    for change in (
        lambda: reader.add(episode(2)),
        lambda: reader.rate("episode-1", "human", 1),
        lambda: reader.annotate("episode-1", "x"),
        reader.publish_index,
    ):
        with pytest.raises(ValueError, match="mode='w'"):
            change()
    memory.close()
    memory.close()
    with pytest.raises(ValueError, match="was closed"):
        memory.add(episode(2))
    with pytest.raises(ValueError, match="was closed"):
        memory.search(Query("x"), HOLDOUT)
    Memory(folder, "w").close()
    assert len(reader) == 1
    reader.close()


def test_another_embedder_is_refused_unless_asked_for(folder: Path, episode: Make) -> None:
    """One clear error; reembed=True builds a second column, and from then on that one counts."""
    with Memory(folder) as memory:
        memory.add_many([episode(number) for number in range(3)])
    for mode in ("r", "w"):
        with pytest.raises(
            ValueError, match=r"hashed-1-384 \(384 dimensions\), not with hashed-1-64.*reembed=True"
        ):
            Memory(folder, mode, embedder=HashedEmbedder(64))
    with Memory(folder, "r", embedder=HashedEmbedder(64), reembed=True) as memory:
        assert memory.stats().embedded == 3
        assert (
            memory.search(Query("put a hot thing2 in cabinet", k=1), HOLDOUT)[0].episode_id
            == "episode-2"
        )
    Memory(folder, "r").close()
    Memory(folder, "w", embedder=HashedEmbedder(64), reembed=True).close()
    with Memory(folder, "r", embedder=HashedEmbedder(64)) as memory:
        assert memory.stats().embedded == 0
    with pytest.raises(ValueError, match="not with hashed-1-384"):
        Memory(folder, "r", embedder=HashedEmbedder())


def test_nothing_is_embedded_twice(folder: Path, episode: Make) -> None:
    """Opening reads the column; an index is built from it too."""
    embedder = CountingEmbedder()
    with Memory(folder, embedder=embedder) as memory:
        memory.add_many([episode(number) for number in range(20)])
        memory.publish_index()
    assert embedder.count == 20
    for path in (folder / "index").iterdir():
        path.unlink()
    with Memory(folder, "w", embedder=embedder) as memory:
        assert memory.publish_index() == 20
        assert memory.stats().embedded == 0
    assert embedder.count == 20


def test_index_comes_by_itself_and_is_rebuilt(folder: Path, episode: Make) -> None:
    """Published once it pays, used by readers, and made again by the next writer when it is
    damaged."""
    index = IndexSettings(exact_limit=30, publish_rows=30)
    with Memory(folder, index=index) as memory:
        memory.add_many([episode(number) for number in range(30)])
        assert memory.stats().index_entries == 0
        memory.add(episode(30))
        assert 0 < memory.stats().index_entries < 31  # it grows with what is added
        memory.add_many([episode(number) for number in range(31, 60)])
        with memory._writer.alone():
            pass  # what is published beside the additions is there now
        with Memory(folder, "r", index=index) as reader:
            assert 31 < reader.stats().index_entries <= 60
            memory.add_many([episode(number) for number in range(60, 80)])
            memory.publish_index()
            reader.refresh()
            assert reader.stats().index_entries == 80 == memory.stats().index_entries
            hit = reader.search(Query("put a hot thing77 in cabinet", k=1), HOLDOUT)[0]
            assert hit.episode_id == "episode-77"
            # Seen from the past the graph knows too much: exact, whenever it was built.
            assert reader.search(Query("put a hot thing7 in cabinet", k=1), HOLDOUT, at=40)[
                0
            ].explanation.exact
    (graph,) = (folder / "index").glob("*.hnsw")
    graph.write_bytes(graph.read_bytes()[:100])
    with Memory(folder, "r") as reader:
        stats = reader.stats()
        assert stats.index_entries == 0
        assert "damaged index" in str(stats.damage[0])
        assert (
            reader.search(Query("put a hot thing7 in cabinet", k=1), HOLDOUT)[0].episode_id
            == "episode-7"
        )
    with Memory(folder, "w") as memory:
        memory.publish_index()
    with Memory(folder, "r") as reader:
        assert reader.stats().index_entries == 80
        assert not reader.stats().damage


def test_damage_costs_one_episode_and_is_named(folder: Path, episode: Make) -> None:
    """A flipped bit in the middle of the log: everything else is there and is found with the right
    vectors."""
    with Memory(folder) as memory:
        memory.add_many(
            [episode(number, f"put a hot thing in place{number}") for number in range(9)]
        )
    (segment,) = (folder / "log").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 16
    segment.write_bytes(data)
    for mode, cached in (("r", True), ("r", False), ("w", True), ("w", False), ("r", True)):
        if not cached:
            (folder / "catalog" / "catalog.rows").unlink()
        with Memory(folder, mode) as memory:
            if cached:  # nothing was read: what is damaged is found when it is, or when one asks
                assert memory.verify()
            stats = memory.stats()
            assert stats.entries == 8
            assert stats.position == 9
            assert any("log/0000000000000000.log, byte" in str(damage) for damage in stats.damage)
            assert all(
                memory.get(entry.episode_id).id == entry.episode_id for entry in memory.entries()
            )
            for entry in memory.entries():
                hit = memory.search(Query(entry.task.goal, k=1), HOLDOUT)[0]
                assert hit.episode_id == entry.episode_id
                assert hit.score == pytest.approx(1.0)


def test_description_can_be_lost(folder: Path, episode: Make) -> None:
    """memory.json only says what can be found out again."""
    with Memory(folder) as memory:
        memory.add(episode(1))
    before = json.loads((folder / "memory.json").read_text())
    for text in (None, "", "{", '{"format": 1}'):
        if text is None:
            (folder / "memory.json").unlink()
        else:
            (folder / "memory.json").write_text(text)
        with Memory(folder, "r") as memory:
            assert len(memory) == 1
            assert "memory.json" in str(memory.stats().damage[0])
        Memory(folder, "w").close()
        assert json.loads((folder / "memory.json").read_text()) == before
    del before["checksum"]  # else it would be damaged, not of the past or the future
    for number in (1, 9):
        (folder / "memory.json").write_text(json.dumps({**before, "format": number}))
        with pytest.raises(ValueError, match=f"format {number}; this program reads 2: use the"):
            Memory(folder, "w")


def test_full_disk(store: Memory, episode: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding fails with one sentence, everything else goes on, and adding the same again works once
    there is room."""
    store.add(episode(1))
    real = os.fsync

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left.*nothing was added.*make room"):
        store.add(episode(2))
    assert len(store) == 1
    assert "episode-2" not in store
    assert store.position == 1
    assert store.search(Query("x", k=9), HOLDOUT)[0].episode_id == "episode-1"
    monkeypatch.setattr(os, "fsync", real)
    assert store.add(episode(2)) == 2
    assert store.get("episode-2") == episode(2)


def test_failing_embedder_leaves_nothing_behind(folder: Path, episode: Make) -> None:
    """The episode can be added again afterwards."""

    class Failing(HashedEmbedder):
        fail = True

        def encode(self, texts: Sequence[str]) -> Vectors:
            if self.fail:
                raise RuntimeError("out of memory")
            return super().encode(texts)

    embedder = Failing()
    with Memory(folder, embedder=embedder) as memory:
        with pytest.raises(RuntimeError):
            memory.add(episode(1))
        embedder.fail = False
        assert memory.add(episode(1)) == 1


@pytest.mark.parametrize("moment", ["take", "vectors"])
def test_interrupted_in_the_middle(
    store: Memory, episode: Make, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Ctrl-C after the log was written: the memory agrees with its log again at the next use."""
    store.add_many([episode(number) for number in range(3)])

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            *((Catalog, "append") if moment == "take" else (VectorColumn, "append")), interrupt
        )
        with pytest.raises(KeyboardInterrupt):
            store.add_many([episode(3), episode(4)])
    assert "episode-4" in store
    assert [found.id for found in store.iterate()] == [f"episode-{number}" for number in range(5)]
    store.add(episode(5))
    for number in range(6):
        assert (
            store.search(Query(f"put a hot thing{number} in cabinet", k=1), HOLDOUT)[0].episode_id
            == f"episode-{number}"
        )
    assert store.position == 6
    assert not store.stats().damage


def test_reader_survives_what_was_taken_back(folder: Path, episode: Make) -> None:
    """The writer's disk failed after a reader had seen the record: the reader forgets it."""
    with Memory(folder) as memory:
        memory.add_many([episode(number) for number in range(3)])
        with Memory(folder, "r") as reader:
            (segment,) = (folder / "log").glob("*.log")
            os.truncate(segment, segment.stat().st_size - 1)
            assert reader.refresh() == 2
            assert len(reader) == 2


def test_embedder_that_breaks_its_promise(folder: Path, episode: Make) -> None:
    """Not a number is not a vector."""

    class Broken(HashedEmbedder):
        def encode(self, texts: Sequence[str]) -> Vectors:
            return super().encode(texts) * np.float32("nan")

    with (
        Memory(folder, embedder=Broken()) as memory,
        pytest.raises(ValueError, match=r"not finite .* each row of unit length"),
    ):
        memory.add(episode(1))


def test_reader_in_another_process_follows(folder: Path, episode: Make) -> None:
    """It sees nothing new until it refreshes, and then everything."""
    code = """
import sys
from relive.memory import *
memory = Memory(sys.argv[1], "r")
print("open", flush=True)
for line in sys.stdin:
    before = len(memory)
    position = memory.refresh()
    hits = memory.search(Query(line.strip(), k=1))
    found = hits[0].episode_id if hits else "-"
    print(before, position, found, memory.stats().embedded, flush=True)
"""
    with (
        Memory(folder) as memory,
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as reader,
    ):
        assert reader.stdin
        assert reader.stdout
        assert reader.stdout.readline() == "open\n"
        for number in range(5):
            memory.add(episode(number))
            reader.stdin.write(f"put a hot thing{number} in cabinet\n")
            reader.stdin.flush()
            assert reader.stdout.readline().split() == [
                str(number),
                str(number + 1),
                f"episode-{number}",
                "0",
            ]


def test_threads_take_turns(store: Memory, episode: Make) -> None:
    """Adding and searching at once from several threads: nothing breaks, nothing is lost."""
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(15):
                store.add(episode(100 * thread + number))
                assert store.search(Query(f"put a hot thing{number} in cabinet"), HOLDOUT)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(store) == 60 == len(list(store.iterate()))


def test_import_is_light() -> None:
    """No torch, no hnswlib, no textworld, and less than a fifth of a second on top of numpy."""
    code = (
        "import sys, time, numpy; start = time.perf_counter(); import relive.memory; took = "
        "time.perf_counter() - start;"
        "print(took, [name for name in ('torch', 'hnswlib', 'textworld', 'relive.envs', "
        "'relive.agent') if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    took, loaded = out.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(took) < 0.2


def test_wrong_names_get_the_right_one(tmp_path: Path) -> None:
    with Memory(tmp_path) as memory:
        with pytest.raises(TypeError, match=r"add knows no 'sucess'\. Did you mean 'success'"):
            memory.add(goal="x", steps=[], sucess=True)
        with pytest.raises(TypeError, match="success is missing"):
            memory.add(goal="x", steps=[])
        with pytest.raises(TypeError, match=r"search knows no 'succeses_only'\. Did you mean"):
            memory.search("x", succeses_only=True)
        memory.add(goal="x", steps=[("", "y")], success=np.float32(2) == 2)
        assert memory.search("x")[0].episode.success is True
    file = tmp_path / "a-file"
    file.write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, and a memory is a folder"):
        Memory(file)


def test_the_process_may_change_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with Memory("relative") as memory, Memory("relative", "r") as reader:
        memory.add(goal="open the safe", steps=[("", "open")], success=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        memory.add(goal="shut the safe", steps=[("", "shut")], success=True)
        assert len(memory.search("open the safe")) == len(memory.entries()) == 2
        memory.delete(memory.search("shut the safe", k=1)[0].episode_id)
        memory.compact()
        reader.refresh()
        assert reader.search("open the safe", k=1)[0].episode.task.goal == "open the safe"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_progress_is_from_0_to_1(tmp_path: Path) -> None:
    with Memory(tmp_path) as memory:
        for score in (2, -0.1, float("nan"), "1"):
            with pytest.raises(ValueError, match="progress from 0 to 1"):
                memory.add(goal="x", steps=[], success=False, score=score)
        assert len(memory) == 0


def test_of_the_same_added_by_many_at_once_one_is_kept(store: Memory) -> None:
    """With ``deduplicate``; each of them is told that it is there."""
    barrier = threading.Barrier(6)

    def add(_: int) -> int:
        barrier.wait()
        return store.add(goal="a", steps=[("x", "y")], success=True, task_id="T", deduplicate=True)

    with ThreadPoolExecutor(6) as pool:
        positions = list(pool.map(add, range(6)))
    assert len(store) == 1
    assert set(positions) == {store.position}


CHANGES: dict[str, Callable[[Memory], object]] = {
    "add": lambda memory: memory.add(make_episode(9)),
    "add once": lambda memory: memory.add(make_episode(9), deduplicate=True),
    "annotate": lambda memory: memory.annotate("episode-1", "seen"),
    "record": lambda memory: memory.record_outcome(make_episode(9)),
    "evict": lambda memory: memory.evict(capacity=0, keep_per_type=0),
    "compact": lambda memory: memory.compact(),
    "publish": lambda memory: memory.publish_index(),
    "close": lambda memory: memory.close(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_search_does_not_change_its_memory(store: Memory, change: str) -> None:
    """It would wait for a thread that writes, which waits for the search."""
    store.add_many([make_episode(number) for number in range(3)])
    query = Query("anything", where=lambda entry: CHANGES[change](store) is not None)
    for look in (lambda: store.search(query), lambda: store.draw(query, 1, 0)):
        with pytest.raises(RuntimeError, match="not changed or closed while the same thread sear"):
            look()
    assert store.position == 3
    read = Query("anything", k=9, where=lambda entry: store.get(entry.episode_id).success)
    assert len(store.search(read)) == 3
    assert store.annotate("episode-1", "seen") == 4


def test_a_search_that_would_change_its_memory_beside_a_writer(store: Memory) -> None:
    """It is told so, and nobody waits for ever."""
    store.add_many([make_episode(number) for number in range(3)])
    searching = threading.Event()
    said: list[str] = []

    def change(entry: object) -> bool:
        searching.set()
        while not store._writer.busy:
            time.sleep(0.001)
        return store.annotate("episode-1", "seen") > 0

    def search() -> None:
        try:
            store.search(Query("anything", where=change))
        except RuntimeError as error:
            said.append(str(error))

    def write() -> None:
        searching.wait(20)
        with store._writer.alone(), store._mutex:
            said.append("written")

    threads = [threading.Thread(target=act, daemon=True) for act in (search, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [one.split()[0] for one in said] == ["a", "written"]
