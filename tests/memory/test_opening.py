"""What opening a memory does to a folder, and what it leaves alone when it fails."""

import gc
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relive import extras
from relive.memory import HashedEmbedder, IndexSettings, Memory
from relive.memory.maintenance.rebuild import rebuild
from relive.memory.search.embed import Vectors
from tests.memory.conftest import Make, found, goal

pytestmark = pytest.mark.usefixtures("no_sync")


class Failing(HashedEmbedder):
    """Out of order after a while."""

    def __init__(self, texts: int) -> None:
        super().__init__(64)
        self.left = texts

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.left -= len(texts)
        if self.left < 0:
            raise RuntimeError("the device is gone")
        return super().encode(texts)


@pytest.mark.parametrize("texts", [0, 1024])
@pytest.mark.parametrize("rebuilt", [False, True])
def test_an_embedder_that_fails_changes_nothing(
    folder: Path, episode: Make, texts: int, rebuilt: bool
) -> None:
    """What was begun goes on where it stopped."""
    with Memory(folder) as memory:
        memory.add_many([episode(number, goal(number), steps=1) for number in range(1030)])
    before = (folder / "memory.json").read_bytes()
    act = rebuild if rebuilt else Memory
    with pytest.raises(RuntimeError, match="the device is gone"):
        act(folder, embedder=Failing(texts), reembed=True)
    assert (folder / "memory.json").read_bytes() == before
    with Memory(folder) as memory:
        assert memory.embedder.identity == "hashed-1-384"
        assert found(memory, goal(7), k=1) == ["episode-7"]
        assert memory.stats().embedded == 0
    with Memory(folder, embedder=HashedEmbedder(64), reembed=True) as memory:
        assert memory.stats().embedded == 1030 - texts
    with Memory(folder, embedder=HashedEmbedder(64)) as memory:
        assert found(memory, goal(7), k=1) == ["episode-7"]


def test_an_index_whose_package_is_missing_changes_nothing(
    folder: Path, episode: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a memory that is there nor one that is made."""
    monkeypatch.setitem(extras.PACKAGES, "lancedb", ("no_package_of_this_name",))
    for _ in range(2):
        with pytest.raises(ImportError, match=r"pip install 'relive\[lancedb\]'"):
            Memory(folder, index=IndexSettings(engine="lancedb"))
        with Memory(folder) as memory:
            memory.add(episode(len(memory)))
    with pytest.raises(ImportError, match=r"pip install 'relive\[lancedb\]'"):
        rebuild(folder, index=IndexSettings(engine="lancedb"))
    with Memory(folder, "r") as memory:
        assert (len(memory), memory.stats().damage) == (2, ())


FOREIGN = {
    "log/app.tmp": b"mine",
    "log/2024.log": b"mine",
    "index/index.html": b"mine",
    "catalog/x": b"",
    "vectors/logo.vec.tmp": b"mine",
    "index": b"mine",
    "lock": b"my lock file",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_no_memory_is_made_among_files_of_others(folder: Path, name: str) -> None:
    """Whoever names the wrong folder is told so, and loses nothing."""
    file = folder / name
    file.parent.mkdir(parents=True)
    file.write_bytes(FOREIGN[name])
    (folder / "notes.txt").write_text("not in the way")
    before = sorted(folder.rglob("*"))
    with pytest.raises(FileExistsError, match=f"is no memory .* where {name} is: give it a folder"):
        Memory(folder)
    assert sorted(folder.rglob("*")) == before
    assert file.read_bytes() == FOREIGN[name]
    file.unlink()
    Memory(folder).close()
    assert (folder / "notes.txt").read_text() == "not in the way"


def test_a_memory_removes_only_what_it_left_behind(folder: Path, episode: Make) -> None:
    """Files that somebody put into its folders stay, whatever they end in."""
    with Memory(folder) as memory:
        memory.add(episode(1))
    theirs = [folder / name for name in ("log/app.tmp", "index/x.tmp", "vectors/logo.png.tmp")]
    ours = [
        folder / name
        for name in (
            "log/0000000000000001.log.tmp", "log/0000000000000000.0001.log.tmp",
            "catalog/catalog.rows.tmp", "vectors/hashed.vec.tmp", "index/hashed.json.tmp",
            "index/hashed-0000000000000001.hnsw.tmp",
        )
    ]  # fmt: skip
    for file in (*theirs, *ours):
        file.write_bytes(b"x")
    with Memory(folder) as memory:
        assert len(memory) == 1
    assert [file.exists() for file in theirs] == [True] * len(theirs)
    assert [file.exists() for file in ours] == [False] * len(ours)


MADE = ("log", "lock", "label", "catalog", "vectors", "index", "memory.json.tmp")


@pytest.mark.parametrize("steps", range(1, len(MADE) + 1))
def test_a_making_that_was_killed_is_completed(folder: Path, steps: int, episode: Make) -> None:
    """Wherever it stopped."""
    folder.mkdir()
    for step in MADE[:steps]:
        if step == "label":
            (folder / "lock").write_text('{"pid": 4711, "host": "elsew')
        elif "lock" in step or "." in step:
            (folder / step).touch()
        else:
            (folder / step).mkdir()
    with Memory(folder) as memory:
        memory.add(episode(1))
    with Memory(folder, "r") as memory:
        assert (len(memory), memory.verify()) == (1, ())


def test_paths_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is meant by whoever says so."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="the path of a memory is empty"):
        Memory("")
    assert os.listdir(tmp_path) == []
    (tmp_path / "link").symlink_to("nowhere")
    for mode in ("create", "w", "r"):
        with pytest.raises(FileNotFoundError, match="link to nowhere, where nothing is: make that"):
            Memory(tmp_path / "link", mode)
    (tmp_path / "nowhere").mkdir()
    Memory(tmp_path / "link").close()
    assert (tmp_path / "nowhere" / "memory.json").exists()


@pytest.fixture
def _uncollected() -> Iterator[None]:
    """Nothing is collected by chance."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_uncollected")
def test_a_memory_that_was_dropped_gives_its_lock_back(folder: Path, episode: Make) -> None:
    """Who forgot to close it is not told that somebody else has it."""
    memory = Memory(folder)
    memory.add(episode(1))
    with pytest.raises(BlockingIOError, match="another Memory of this very process"):
        Memory(folder)
    assert memory.add(episode(2)) == 2
    del memory
    with Memory(folder) as again:
        assert len(again) == 2


@pytest.mark.usefixtures("_uncollected")
def test_a_memory_that_was_dropped_leaves_no_file_open(folder: Path, episode: Make) -> None:
    """Readers are opened by the thousand in a service that runs for months."""
    with Memory(folder) as memory:
        memory.add(episode(1))
    before = len(os.listdir("/dev/fd"))
    for mode in ("r",) * 10 + ("w",) * 3:
        Memory(folder, mode).get("episode-1")
    gc.collect()
    assert len(os.listdir("/dev/fd")) <= before


class Named(HashedEmbedder):
    """One of somebody's own."""

    def __init__(self, name: str) -> None:
        super().__init__(64)
        self.name = name

    @property
    def identity(self) -> str:
        return self.name


def test_a_hashed_embedder_of_another_dimension_needs_no_naming(
    folder: Path, episode: Make
) -> None:
    """The memory says which it is."""
    with Memory(folder, embedder=HashedEmbedder(64)) as memory:
        memory.add(episode(1, goal(1)))
    for mode in ("r", "w"):
        with Memory(folder, mode) as memory:
            assert memory.embedder.identity == "hashed-1-64"
            assert found(memory, goal(1), k=1) == ["episode-1"]
            assert memory.stats().embedded == 0


@pytest.mark.parametrize("name", ["hashed-bow-2", "tuned-by-me", "hashed-1-64b", "tuned-1-x-y"])
def test_a_name_like_one_of_ours_is_somebodys_own(folder: Path, episode: Make, name: str) -> None:
    """Such a memory can be read without its embedder, as of any other name."""
    with Memory(folder, embedder=Named(name)) as memory:
        memory.add(episode(1))
    with Memory(folder, "r") as memory:
        assert [past.id for past in memory.iterate()] == ["episode-1"]
        with pytest.raises(ValueError, match=f"embedded with {name}, which is not here"):
            memory.search("anything")


def test_vectors_of_another_version_of_ours_are_refused(folder: Path) -> None:
    """They are stale, and nobody but this program could make others."""
    for name in ("hashed-2-64", "tuned-1-0123456789ab-hashed-1-384"):
        Memory(folder, embedder=Named(name), reembed=True).close()
        with pytest.raises(ValueError, match=rf"embedded with {name} \(64 dimensions\), not with"):
            Memory(folder)


@pytest.fixture
def _hangs_not() -> Iterator[None]:
    """Who waits for the other end of a pipe is waked."""

    def wake(*signal_and_frame: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_hangs_not", "small_samples")
@pytest.mark.parametrize("kind", ["pipe", "folder", "unreadable"])
@pytest.mark.parametrize("cache", ["index/*.json", "index/*.hnsw", "catalog/*", "vectors/*"])
def test_a_cache_that_cannot_be_read(folder: Path, episode: Make, cache: str, kind: str) -> None:
    """The memory goes on without it, and says so."""
    few = IndexSettings(exact_limit=2)
    with Memory(folder, index=few) as memory:
        memory.add_many([episode(number, goal(number)) for number in range(9)])
        memory.publish_index()
    (file,) = folder.glob(cache)
    if kind == "unreadable":
        file.chmod(0)
        if os.access(file, os.R_OK):
            pytest.skip("root reads everything")
    else:
        file.unlink()
        os.mkfifo(file) if kind == "pipe" else file.mkdir()
    for mode in ("r", "w"):
        with Memory(folder, mode, index=few) as memory:
            assert found(memory, goal(5), k=1) == ["episode-5"]
            assert "cannot be read" in str(memory.stats().damage)
            memory.refresh()
            if mode == "w":
                memory.add(episode(9, goal(9)))
                assert found(memory, goal(9), k=1) == ["episode-9"]
