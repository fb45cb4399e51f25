"""Copies of a memory's files: the same answers as the original, sent once, never indexed anew."""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from relive.memory import Episode, Memory
from relive.memory.maintenance.replica import Changes, Copied, Copy, changes, remove_unused
from relive.memory.search.index import IndexSettings

SMALL = IndexSettings(exact_limit=20, publish_rows=20)
MakeEpisode = Callable[..., Episode]


class Source:
    """A memory's folder, and how many bytes were asked of it."""

    def __init__(self, folder: Path, most: int = 1 << 20) -> None:
        self.folder, self.most, self.sent = folder, most, 0

    def __call__(self, have: Mapping[str, Copied]) -> Changes:
        found = changes(self.folder, have, self.most)
        self.sent += sum(len(part.data) for part in found.parts)
        return found


def answers(memory: Memory) -> list[tuple[str, float]]:
    return [(hit.episode_id, hit.score) for hit in memory.search("put a hot thing7 in it", k=9)]


@pytest.mark.parametrize("most", [1 << 20, 20_000])
def test_a_copy_answers_as_the_original_and_embeds_nothing(
    tmp_path: Path, episode: MakeEpisode, most: int
) -> None:
    source, copy = Source(tmp_path / "m", most), Copy(tmp_path / "c")
    with Memory(tmp_path / "m", index=SMALL, fields=["goal", "first"]) as memory:
        memory.add_many([episode(n) for n in range(60)])
        memory.publish_index()
        copy.update(source)
        with Memory(copy.path, "r", index=SMALL) as reader:
            for more in (60, 61, 90):
                memory.add_many([episode(n) for n in range(len(memory), more + 1)])
                assert reader.refresh() < memory.position
                copy.update(source)
                assert reader.refresh() == memory.position
                assert answers(reader) == answers(memory)
            spaces = reader._state.spaces
            assert [space.column.embedded for space in spaces.values()] == [0, 0]
            assert all(space.graph is not None and space.covered >= 60 for space in spaces.values())
            assert reader.stats().damage == ()


def test_only_what_was_added_is_sent(tmp_path: Path, episode: MakeEpisode) -> None:
    source, copy = Source(tmp_path / "m"), Copy(tmp_path / "c")
    with Memory(tmp_path / "m") as memory:
        memory.add_many([episode(n) for n in range(50)])
        copy.update(source)
        everything = source.sent
        copy.update(source)
        assert source.sent == everything
        memory.add(episode(50))
        copy.update(source)
        assert everything < source.sent < everything * 1.05


def test_compaction_and_a_rebuilt_catalog_reach_the_copy(
    tmp_path: Path, episode: MakeEpisode
) -> None:
    source, copy = Source(tmp_path / "m"), Copy(tmp_path / "c")
    with Memory(tmp_path / "m") as memory:
        memory.add_many([episode(n) for n in range(50)])
        copy.update(source)
        with Memory(copy.path, "r") as reader:
            for n in range(0, 50, 2):
                memory.delete(f"episode-{n}")
            memory.compact()
            memory.add(episode(50))
            copy.update(source)
            reader.refresh()
            assert len(reader) == len(memory) == 26
            assert answers(reader) == answers(memory)
    files = {path.name for path in (copy.path / "log").iterdir()}
    assert files == {path.name for path in (tmp_path / "m" / "log").iterdir()}


def test_several_processes_may_update_one_copy_and_a_kill_in_between_is_made_good(
    tmp_path: Path, episode: MakeEpisode
) -> None:
    one, other = Copy(tmp_path / "c"), Copy(tmp_path / "c")

    class Killed(BaseException):
        pass

    class Dying(Source):
        def __call__(self, have: Mapping[str, Copied]) -> Changes:
            if self.sent > 5_000:
                raise Killed
            return super().__call__(have)

    with Memory(tmp_path / "m") as memory:
        for round in range(3):
            memory.add_many([episode(n) for n in range(9 * round, 9 * round + 9)])
            with pytest.raises(Killed):
                one.update(Dying(tmp_path / "m", 3_000))
            threads = [
                threading.Thread(target=copy.update, args=(Source(tmp_path / "m", 4_000),))
                for copy in (one, other)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with Memory(other.path, "r") as reader:
                assert answers(reader) == answers(memory)
                assert reader._state.spaces["goal"].column.embedded == 0


def test_the_last_user_removes_a_copy_and_those_of_dead_users_go(tmp_path: Path) -> None:
    one, other = Copy(tmp_path / "copies" / "c"), Copy(tmp_path / "copies" / "c")
    one.close()
    remove_unused(tmp_path / "copies")
    assert other.path.is_dir()
    other.close()
    assert not other.path.exists()
    dead = Copy(tmp_path / "copies" / "d")
    os.close(dead._users)  # as the kernel does when its process is killed
    remove_unused(tmp_path / "copies")
    assert not dead.path.exists()


def test_a_copy_whose_notes_were_lost_is_whole_all_the_same(
    tmp_path: Path, episode: MakeEpisode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file was put in place, and what says so was not written: the disk was full."""
    with Memory(tmp_path / "m") as memory:
        memory.add_many([episode(n) for n in range(60)])
    (segment,) = (tmp_path / "m" / "log").iterdir()
    most = segment.stat().st_size // 3
    saved = Copy._save
    for fatal in range(8):
        copy, calls = Copy(tmp_path / f"c{fatal}"), 0

        def full(self: Copy, have: Mapping[str, Copied], fatal: int = fatal) -> None:
            nonlocal calls
            calls += 1
            if calls - 1 == fatal:
                raise OSError("disk full")
            saved(self, have)

        monkeypatch.setattr(Copy, "_save", full)
        with pytest.raises(OSError, match="disk full"):
            copy.update(Source(tmp_path / "m", most))
        copy.update(Source(tmp_path / "m", most))
        for file in (tmp_path / "m").rglob("*"):
            if file.is_file() and file.parent.name in ("log", "vectors"):
                there = copy.path / file.relative_to(tmp_path / "m")
                assert there.read_bytes() == file.read_bytes(), (fatal, file)
