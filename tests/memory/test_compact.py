"""Compaction: what was deleted is gone, everything else is as it was, whenever it is
interrupted."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relive.memory import IndexSettings, Memory, Query
from relive.memory.maintenance import compact as compact_module
from relive.memory.search.field_index import FieldIndex
from relive.memory.storage.log import Log
from relive.memory.storage.rows import RowFile
from relive.memory.storage.segments import Kind, segment_path, segments, superseded
from tests.memory.conftest import HOLDOUT, Make, goal, indexes, shown

pytestmark = pytest.mark.usefixtures("no_sync")

ROOT = Path(__file__).parents[2]


def ids(memory: Memory, at: int | None = None) -> list[str]:
    """Ids of all that is there."""
    return [entry.episode_id for entry in memory.entries(at)]


def check(memory: Memory, numbers: list[int]) -> None:
    """These episodes are there, whole, in order, and found; and nothing is wrong."""
    assert ids(memory) == [f"episode-{number}" for number in numbers]
    assert [found.id for found in memory.iterate()] == ids(memory)
    assert len(memory) == len(numbers)
    for number in numbers:
        hits = memory.search(Query(goal(number), k=1), HOLDOUT)
        assert [hit.episode_id for hit in hits] == [f"episode-{number}"]
        assert hits[0].score == pytest.approx(1, abs=1e-4)
        assert memory.get(f"episode-{number}").task.goal == goal(number)


def grep(folder: Path, text: str) -> list[str]:
    """Names of the files that hold a text."""
    return sorted(
        path.name
        for path in folder.rglob("*")
        if path.is_file() and text.encode() in path.read_bytes()
    )


@pytest.fixture
def memory(folder: Path, episode: Make) -> Iterator[Memory]:
    """Twelve episodes with ratings, notes and credits, three of them deleted."""
    with Memory(folder) as made:
        made.add_many([episode(number, goal(number)) for number in range(10)])
        made.add(shown(episode(10, goal(10)), "episode-1", "episode-2"))
        made.add(shown(episode(11, goal(11), success=False), "episode-0", "episode-3"))
        for number in (1, 3):
            made.rate(f"episode-{number}", "worth", 0.1)
            made.rate(f"episode-{number}", "worth", number / 10)
            made.annotate(f"episode-{number}", f"remark about {number}")
        made.record_outcome(shown(episode(99, goal(99)), "episode-4", "episode-1"))
        for number in (1, 5, 10):
            made.delete(f"episode-{number}", "test")
        yield made


LEFT = [0, 2, 3, 4, 6, 7, 8, 9, 11]


def test_what_was_deleted_is_gone(memory: Memory, folder: Path) -> None:
    """From the log and from the caches, with what was said about it; nothing else is. Positions
    stay."""
    entries, position = memory.entries(), memory.position
    assert grep(folder, goal(1)) == ["0000000000000000.log"]
    assert grep(folder, "remark about 1") == ["0000000000000000.log"]
    before = memory.stats()
    done = memory.compact()
    assert (done.episodes, done.before > done.after, done.after) == (
        3,
        True,
        memory.stats().log_bytes,
    )
    # Three episodes, three deletions, two ratings and a note of one of them, and a rating that
    # another replaced.
    assert done.records == 10
    for gone in ("goal", "remark"):
        assert grep(folder, goal(1) if gone == "goal" else "remark about 1") == []
    assert (memory.position, memory.entries()) == (position, entries)
    check(memory, LEFT)
    assert memory.get("episode-3").ratings == {"worth": 0.3}
    assert memory.notes("episode-3") == ("remark about 3",)
    after = memory.stats()
    assert (before.deleted, after.deleted, after.ratings, after.notes, after.embedded) == (
        3,
        0,
        1,
        1,
        0,
    )
    assert after.damage == ()
    assert (memory.compact().records, memory.verify()) == (0, ())
    with pytest.raises(KeyError, match="there is no episode"):
        memory.get("episode-1")


@pytest.mark.parametrize("mode", ["r", "w"])
@pytest.mark.parametrize("catalog", [True, False])
def test_the_next_one_who_opens_it(memory: Memory, folder: Path, mode: str, catalog: bool) -> None:
    """With or without the catalog there is the same to be seen, at every position."""
    old = {
        at: [one for one in ids(memory, at) if one not in ("episode-1", "episode-5", "episode-10")]
        for at in range(12)
    }
    memory.compact()
    position = memory.position
    memory.close()
    if not catalog:
        (folder / "catalog" / "catalog.rows").unlink()
    with Memory(folder, mode) as again:
        check(again, LEFT)
        assert again.position == position
        assert (again.stats().embedded, again.stats().damage, again.verify()) == (0, (), ())
        assert {at: ids(again, at) for at in old} == old


def test_an_id_can_be_given_again(memory: Memory, episode: Make) -> None:
    """Nothing that was said about the old one is said about the new one, and who looks back does
    not find the new one in its place."""
    with pytest.raises(ValueError, match="ids are given once"):
        memory.add(episode(1, goal(1)))
    memory.compact()
    before = memory.position
    memory.add(episode(1, goal(1)))
    check(memory, [*LEFT, 1])
    assert memory.get("episode-1").ratings == {}
    assert memory.notes("episode-1") == ()
    assert memory.usefulness("episode-1").shown == 0
    with pytest.raises(KeyError, match="it is not there yet"):
        memory.get("episode-1", at=before)


def test_what_was_learnt_survives(folder: Path, episode: Make) -> None:
    """Runs leave behind how they ended and what they were shown; also those of runs that were never
    stored."""
    with Memory(folder) as memory:
        memory.add_many([episode(number, goal(number), identity="t") for number in range(3)])
        for number in range(3, 23):
            helped = number % 2 == 0
            run = episode(number, goal(number), identity="t", success=helped)
            memory.add(shown(run, "episode-0", "episode-2") if helped else shown(run, "episode-1"))
        memory.record_outcome(shown(episode(99, identity="t"), "episode-0"))
        before = [memory.usefulness(f"episode-{number}") for number in range(3)]
        assert (before[0].shown, before[1].shown) == (11, 10)
        assert before[0].value > 0.3
        for number in range(3, 23):
            memory.delete(f"episode-{number}")
        assert [memory.usefulness(f"episode-{number}") for number in range(3)] == before
        assert memory.compact().episodes == 20
        assert [memory.usefulness(f"episode-{number}") for number in range(3)] == before
        assert memory.stats().credits == 31
        memory.delete("episode-1")
        memory.compact()
        assert memory.usefulness("episode-0").shown == 11
    with Memory(folder, "r") as memory:
        assert memory.usefulness("episode-0").shown == 11
        check(memory, [0, 2])


def test_an_empty_memory_and_one_of_which_nothing_is_left(folder: Path, episode: Make) -> None:
    """Neither is a special case."""
    with Memory(folder) as memory:
        assert memory.compact().records == 0
        memory.add_many([episode(number, goal(number)) for number in range(4)])
        for number in range(4):
            memory.delete(f"episode-{number}")
        assert memory.compact().episodes == 4
        check(memory, [])
        assert memory.search(Query(goal(1)), HOLDOUT) == []
        assert memory.position == 8
        memory.add(episode(5, goal(5)))
        check(memory, [5])
    with Memory(folder, "r") as memory:
        assert memory.position == 9
        check(memory, [5])
        assert memory.stats().damage == ()


def test_again_and_again(folder: Path, episode: Make) -> None:
    """Every compaction takes only what is new; segments that lost nothing are left alone."""
    with Memory(folder) as memory:
        left: list[int] = []
        for turn in range(4):
            memory.add_many(
                [episode(number, goal(number)) for number in range(5 * turn, 5 * turn + 5)]
            )
            left += [5 * turn, 5 * turn + 1, 5 * turn + 3, 5 * turn + 4]
            memory.delete(f"episode-{5 * turn + 2}")
            assert memory.compact().episodes == 1
            check(memory, left)
        assert list(segments(folder / "log").values()) == [1, 1, 1, 1, 0]
        memory.delete("episode-6")
        memory.compact()
        check(memory, [number for number in left if number != 6])
        assert list(segments(folder / "log").values()) == [1, 2, 1, 1, 1, 0]
    with Memory(folder, "w") as memory:
        check(memory, [number for number in left if number != 6])
        assert memory.verify() == ()


@pytest.mark.parametrize("engine", indexes(pytest.mark.slow))
def test_the_index_stays(folder: Path, episode: Make, engine: str) -> None:
    """It is not built anew for a few that are gone, in this process or the next."""
    index = IndexSettings(engine=engine, exact_limit=20)
    with Memory(folder, index=index) as memory:
        memory.add_many([episode(number, goal(number)) for number in range(100)])
        memory.publish_index()
        for number in (0, 7, 99):
            memory.delete(f"episode-{number}")
        memory.compact()
        left = [number for number in range(100) if number not in (0, 7, 99)]
        assert memory.stats().index_entries == 97
        check(memory, left)
        assert not memory.search(Query(goal(3), k=1), HOLDOUT)[0].explanation.exact
    for mode in ("r", "w"):
        with Memory(folder, mode, index=index) as memory:
            assert (memory.stats().index_entries, memory.stats().damage) == (97, ())
            check(memory, left)
    with Memory(folder, "w", index=index) as memory:
        for number in range(20, 60):
            memory.delete(f"episode-{number}")
        memory.compact()
        assert memory.publish_index() == 57
        check(memory, [number for number in left if not 20 <= number < 60])
        assert memory._state.spaces["goal"].graph is not None
        assert memory._state.spaces["goal"].graph.nodes == 57


class Killed(BaseException):
    """Stands for the end of the process."""


def after(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """A function that does its work so many times, and then never again."""
    left = [calls]

    def call(*arguments: Any, **options: Any) -> Any:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return real(*arguments, **options)

    return call


STEPS: list[tuple[object, str, int]] = [
    (Log, "begin_segment", 0),
    (compact_module, "replace_file", 0),
    (compact_module, "replace_file", 1),
    (compact_module, "replace_file", 2),
    (FieldIndex, "drop", 0),
    (RowFile, "replace", 0),
    (FieldIndex, "drop", 1),
    (os, "unlink", 0),
    (Path, "unlink", 0),
    (Path, "unlink", 1),
    (Path, "unlink", 2),
    (Path, "unlink", 3),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[1]}-{step[2]}")
def test_killed_between_the_steps(
    folder: Path, episode: Make, monkeypatch: pytest.MonkeyPatch, step: tuple[object, str, int]
) -> None:
    """The next one finds everything that was not deleted, nothing that was, the old positions, and
    goes on."""
    memory = Memory(folder, fields=["goal", "first"])
    memory.add_many([episode(number, goal(number)) for number in range(4)])
    memory.delete("episode-1")
    memory._state.log.begin_segment()
    memory.add_many([episode(number, goal(number)) for number in range(4, 8)])
    memory.rate("episode-2", "human", 1)
    memory._state.log.begin_segment()
    memory.add(shown(episode(8, goal(8)), "episode-4", "episode-5"))
    for number in (0, 4, 8):
        memory.delete(f"episode-{number}")
    position = memory.position
    left = [2, 3, 5, 6, 7]
    owner, name, calls = step
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, after(calls, getattr(owner, name)))
        patch.setattr(
            type(memory._state), "load", lambda self: None
        )  # a dead process reads nothing again
        try:
            memory.compact()
        except Killed:
            pass
        else:
            assert name == "unlink"  # there are only so many files to remove
    memory.close()
    with Memory(folder, "r") as reader:
        check(reader, left)
        assert reader.position == position
        assert reader.usefulness("episode-5").shown == 1
        assert reader.verify() == ()
        with Memory(folder, "w") as writer:
            check(writer, left)
            assert writer.verify() == ()
            assert (writer.position, writer.get("episode-2").ratings) == (position, {"human": 1})
            assert writer.usefulness("episode-5").shown == 1
            writer.add(episode(20, goal(20)))
            writer.compact()
            check(writer, [*left, 20])
            assert writer.verify() == ()
            assert grep(folder, goal(0)) == grep(folder, goal(4)) == grep(folder, goal(8)) == []
        reader.refresh()
        check(reader, [*left, 20])
    with Memory(folder, "w") as writer:
        check(writer, [*left, 20])
        assert (writer.stats().damage, writer.stats().embedded) == ((), 0)


def test_full_disk(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails with nothing lost, and works once there is room."""

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in (
        (compact_module, "replace_file"),
        (RowFile, "replace"),
        (Log, "begin_segment"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(OSError, match="No space left"):
                memory.compact()
        check(memory, LEFT)
        assert "episode-1" not in memory
    memory.compact()
    check(memory, LEFT)


def test_only_writers_compact(memory: Memory, folder: Path) -> None:
    """A reader is told what to do instead."""
    with Memory(folder, "r") as reader, pytest.raises(ValueError, match="mode='w'"):
        reader.compact()


ASK: dict[str, Callable[[Memory], object]] = {
    "search": lambda m: [hit.episode_id for hit in m.search(Query(goal(7), k=1), HOLDOUT)],
    "where": lambda m: [
        hit.episode_id for hit in m.search(Query(goal(7), k=1, where=lambda e: e.success), HOLDOUT)
    ],
    "get": lambda m: m.get("episode-7").task.goal,
    "meta": lambda m: m.meta("episode-7").task.goal,
    "notes": lambda m: m.notes("episode-3"),
    "entries": lambda m: [
        number for number in map(int, (i.removeprefix("episode-") for i in ids(m))) if number < 12
    ],
    "iterate": lambda m: [found.id for found in m.iterate()][:3],
    "stats": lambda m: (m.stats().by_type, m.stats().damage),
    "verify": lambda m: m.verify(),
}
ANSWERS: dict[str, object] = {
    "search": ["episode-7"],
    "where": ["episode-7"],
    "get": goal(7),
    "meta": goal(7),
    "notes": ("remark about 3",),
    "entries": [0, 2, 3, 4, 7, 8, 9, 11],
    "iterate": ["episode-0", "episode-2", "episode-3"],
    "stats": ({"heat": 12}, ()),
    "verify": (),
}


@pytest.mark.parametrize("ask", ASK)
def test_a_reader_goes_on(memory: Memory, folder: Path, episode: Make, ask: str) -> None:
    """Files that it has not read yet are gone: it looks again at what there is now, whatever it is
    asked."""
    memory.compact()
    memory.add_many([episode(number, goal(number)) for number in range(20, 24)])
    with Memory(folder, "r") as reader:
        memory.delete("episode-6")
        memory.compact()
        assert ASK[ask](reader) == ANSWERS[ask]
        check(reader, [0, 2, 3, 4, 7, 8, 9, 11, 20, 21, 22, 23])


@pytest.mark.parametrize("warm", [True, False])
def test_a_reader_follows(memory: Memory, folder: Path, episode: Make, warm: bool) -> None:
    """What was compacted and added since: rows that moved are not taken for what they were."""
    with Memory(folder, "r") as reader:
        if warm:
            check(reader, LEFT)
        memory.compact()
        if warm:
            check(reader, LEFT)  # without a refresh, what it has open is enough
        memory.add_many([episode(number, goal(number)) for number in range(20, 24)])
        assert reader.refresh() == memory.position
        check(reader, [*LEFT, 20, 21, 22, 23])
        memory.delete("episode-0")
        memory.compact()
        memory.add(episode(24, goal(24)))
        assert reader.refresh() == memory.position
        check(reader, [*LEFT[1:], 20, 21, 22, 23, 24])
        assert (reader.stats().embedded, reader.stats().damage) == (0, ())


def test_a_reader_in_another_process_follows(memory: Memory, folder: Path, episode: Make) -> None:
    """It answers every question rightly before, between and after compactions."""
    code = """
import sys
from relive.memory import *
memory = Memory(sys.argv[1], "r")
print("open", flush=True)
for line in sys.stdin:
    number, refresh = line.split()
    if refresh == "yes":
        memory.refresh()
    hits = memory.search(Query(f"make{number} the thing{number}", k=1))
    found = memory.get(hits[0].episode_id) if hits and hits[0].score > 0.999 else None
    print(len(memory), found.id if found else "-", flush=True)
"""
    command = [sys.executable, "-c", code, str(folder)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as reader:
        assert reader.stdin
        assert reader.stdout
        assert reader.stdout.readline() == "open\n"

        def ask(number: int, refresh: str) -> list[str]:
            assert reader.stdin
            assert reader.stdout
            reader.stdin.write(f"{number} {refresh}\n")
            reader.stdin.flush()
            return reader.stdout.readline().split()

        assert ask(7, "no") == ["9", "episode-7"]
        memory.compact()
        assert ask(8, "no") == ["9", "episode-8"]
        memory.add(episode(20, goal(20)))
        assert ask(20, "no") == ["9", "-"]
        assert ask(20, "yes") == ["10", "episode-20"]
        for number in (0, 4):
            memory.delete(f"episode-{number}")
        memory.compact()
        memory.add(episode(21, goal(21)))
        assert ask(21, "yes") == ["9", "episode-21"]
        assert ask(4, "yes") == ["9", "-"]
        assert [ask(number, "no")[1] for number in (2, 3, 11, 20)] == [
            f"episode-{n}" for n in (2, 3, 11, 20)
        ]


def test_records_that_mean_nothing_to_this_program_stay(folder: Path, episode: Make) -> None:
    """A later version wrote them, and will want to read them."""
    with Memory(folder) as memory:
        memory.add_many([episode(number, goal(number)) for number in range(3)])
        memory._state.log.append([(Kind.EPISODE, b"\x81\xa1v\x09"), (77, b"of the future")])  # type: ignore[list-item]
    with Memory(folder, "w") as memory:
        assert "format version 9" in str(memory.stats().damage[0])
        memory.delete("episode-1")
        memory.compact()
        check(memory, [0, 2])
        assert memory.stats().other_records == 1
        assert grep(folder / "log", "of the future") == ["0000000000000000.0001.log"]
        assert "format version 9" in str(memory.stats().damage[0])
        reread = Log(folder / "log", memory=memory._state.memory, writable=False)
        kept = {record.place.sequence: record.kind for record in reread.refresh()}
        assert kept == {0: Kind.EPISODE, 2: Kind.EPISODE, 3: Kind.EPISODE, 4: 77}


def test_files_that_vanish_while_they_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer compacts while a reader looks at the folder: what was seen once need not be there a
    moment later."""
    for generation in (0, 1):
        segment_path(tmp_path, 0, generation).write_bytes(b"x")
    glob = Path.glob

    def once(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        monkeypatch.setattr(
            Path, "glob", lambda folder, pattern: []
        )  # gone, for whoever asks again
        return found

    monkeypatch.setattr(Path, "glob", once)
    assert superseded(tmp_path) == [segment_path(tmp_path, 0, 0)]


def test_a_folder_that_changes_while_it_is_listed_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file is gone, and the new one came after the list was made: neither was seen."""
    old, new = (segment_path(tmp_path, 0, generation) for generation in (0, 1))
    old.write_bytes(b"x")
    glob = Path.glob

    def compacted(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        if old.exists():
            old.rename(new)
        return found

    monkeypatch.setattr(Path, "glob", compacted)
    assert segments(tmp_path) == {0: 1}
