"""What people say of episodes, and what they take back: it steers searches from then on, and none
that looks back."""

import math
import os
import pickle
import random
import struct
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from relive.memory import EpisodeNotFoundError, Memory, Query, Retrieval
from relive.memory.storage.catalog import FORMAT
from relive.memory.storage.rows import HEADER_BYTES
from relive.memory.transfer import export_file, import_lines
from tests.memory.conftest import HOLDOUT, Make, found, goal
from tests.memory.faults import delete_caches, flip

pytestmark = pytest.mark.usefixtures("no_sync")

GOALS = [
    "put a hot mug in the cabinet",
    "put a hot cup in the cabinet",
    "put a clean fork in the drawer",
]


def filled(memory: Memory, episode: Make) -> None:
    """Three episodes; the first is the closest to the first goal, the last far from it."""
    memory.add_many([episode(number, text) for number, text in enumerate(GOALS)])


def test_ratings_are_weighed_and_the_hit_says_so(store: Memory, episode: Make) -> None:
    """Without a weight nothing changes, to the last bit; a rating counts by its last value, and no
    more than 1."""
    filled(store, episode)
    plain = store.search(Query(GOALS[0], k=3), HOLDOUT)
    store.rate("episode-0", "human", -0.5)
    store.rate("episode-1", "human", 7.0)
    store.rate("episode-2", "human", math.nan)
    store.rate("episode-2", "worth", 1.0)
    for unweighed in (Query(GOALS[0], k=3), Query(GOALS[0], k=3, ratings=0.0)):
        assert store.search(unweighed, HOLDOUT) == plain
    assert [hit.explanation.rating for hit in plain] == [0.0] * 3
    weighed = store.search(Query(GOALS[0], k=3, ratings=0.4), HOLDOUT)
    assert [hit.episode_id for hit in weighed] == ["episode-1", "episode-0", "episode-2"]
    assert [hit.explanation.rating for hit in weighed] == [0.4, -0.2, 0.0]
    for hit in weighed:
        assert hit.score == pytest.approx(hit.explanation.similarity + hit.explanation.rating)
    store.rate("episode-0", "human", 1.0)
    store.unrate("episode-1", "human")
    again = store.search(Query(GOALS[0], k=3, ratings=0.4), HOLDOUT)
    assert [hit.explanation.rating for hit in again] == [0.4, 0.0, 0.0]
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"ratings is .* finite"):
            Query("x", ratings=wrong)
        with pytest.raises(ValueError, match=r"ratings is .* finite"):
            Retrieval(ratings=wrong)
    with pytest.raises(TypeError, match="ratings must be a number"):
        Query("x", ratings=True)


def test_what_an_episode_brings_with_it_counts_until_something_else_is_said(
    folder: Path, episode: Make
) -> None:
    with Memory(folder) as memory:
        for number, ratings in enumerate(({"human": -1.0}, {"unsafe": 0.5}, {"unsafe": -1.0})):
            memory.add(replace(episode(number, GOALS[0]), ratings=ratings))
    with Memory(folder, "w") as memory:
        hits = memory.search(Query(GOALS[0], k=3, ratings=0.5), HOLDOUT)
        assert [(hit.episode_id, hit.explanation.rating) for hit in hits] == [
            ("episode-2", 0.0),
            ("episode-0", -0.5),
        ]
        at = memory.position
        memory.unrate("episode-1", "unsafe")
        memory.unrate("episode-0", "human")
        memory.rate("episode-2", "unsafe", 1)
        assert memory.get("episode-1").ratings == memory.ratings("episode-0") == {}
        assert (memory.removed_ratings("episode-1"), memory.removed_ratings("episode-2")) == (
            {"unsafe"},
            set(),
        )
        assert set(found(memory, GOALS[0])) == {"episode-0", "episode-1"}
        assert memory.search(Query(GOALS[0], k=3, ratings=0.5), HOLDOUT, at) == hits
        assert memory.get("episode-1", at).ratings == {"unsafe": 0.5}
        with pytest.raises(ValueError, match=r"no rating 'human': it has none"):
            memory.unrate("episode-0", "human")
        with pytest.raises(ValueError, match=r"no rating 'human': it has unsafe"):
            memory.unrate("episode-2", "human")
        with pytest.raises(KeyError, match="there is no episode"):
            memory.unrate("episode-7", "human")
        with pytest.raises(TypeError, match="removal of a rating"):
            memory.unrate("episode-2", 5)  # type: ignore[arg-type]
        assert memory.position == at + 3


def test_unsafe_is_never_shown_whatever_is_asked(folder: Path, episode: Make) -> None:
    """Not by searches, nor by draws, whatever else speaks for it; a hit says that it was passed
    over. It can be read, and is not deleted."""
    with Memory(folder) as memory, Memory(folder, "r") as reader:
        filled(memory, episode)
        memory.rate("episode-0", "human", 1.0)
        memory.rate("episode-0", "unsafe", 0.1)
        reader.refresh()
        for one in (memory, reader):
            for options in ({}, {"ratings": 5.0}, {"usefulness": 1.0}, {"diversity": 0.5}):
                assert "episode-0" not in found(one, GOALS[0], **options)
            (hit,) = one.search(Query(GOALS[0], k=1), HOLDOUT)
            assert (hit.explanation.considered, hit.explanation.filtered) == (2, 1)
            drawn = one.draw(Query(GOALS[0]), 9, seed=0)
            assert {name for name, _ in drawn} == {"episode-1", "episode-2"}
            assert (one.get("episode-0").ratings["unsafe"], len(one)) == (0.1, 3)
            assert "episode-0" in found(one, GOALS[0], at=4)
            assert "episode-0" not in found(one, GOALS[0], at=5)
        memory.rate("episode-0", "unsafe", 0)
        assert found(memory, GOALS[0])[0] == "episode-0"
        assert "episode-0" not in found(reader, GOALS[0])
        reader.refresh()
        assert found(reader, GOALS[0])[0] == "episode-0"


@pytest.mark.parametrize("compacted", [False, True])
def test_a_later_rating_changes_no_search_before_it(
    folder: Path, episode: Make, compacted: bool
) -> None:
    """Nor its removal, nor a deletion and restoration; not after a compaction either, whatever
    caches there are."""
    draw = random.Random(1)
    queries = [Query(goal(n % 9), k=k, ratings=0.3) for n, k in ((0, 3), (4, 8), (8, 40))]
    with Memory(folder) as memory:
        memory.add_many([episode(n, goal(n % 9)) for n in range(30)])
        kept: dict[int, list[object]] = {}

        def look(one: Memory, at: int) -> list[object]:
            return [
                *(one.search(query, HOLDOUT, at) for query in queries),
                *({n: r[n] for n in ("human", "unsafe") if n in r}
                  for entry in one.entries(at) for r in [one.ratings(entry.episode_id, at)]),
            ]  # fmt: skip

        for _ in range(60):
            name = f"episode-{draw.randrange(29)}"  # the last one is deleted for good
            kind = draw.choice(["human", "human", "unsafe", "worth"])
            if draw.random() < 0.3 and kind in memory.ratings(name):
                memory.unrate(name, kind)
            else:
                memory.rate(name, kind, draw.choice([-1.0, -0.2, 0.0, 0.6]))
            if draw.random() < 0.2:
                memory.delete(name)
                memory.restore(name)
            kept[memory.position] = look(memory, memory.position)
        memory.delete("episode-29")
        if compacted:
            memory.compact()
            gone = [look(memory, at) for at in kept]
            assert memory.stats().damage == ()
        else:
            gone = list(kept.values())
            assert [look(memory, at) for at in kept] == gone
    for caches in (True, False):
        if not caches:
            delete_caches(folder)
        with Memory(folder, "r") as memory:
            assert [look(memory, at) for at in kept] == gone
    if compacted:  # all but what is said of the one that is gone for good
        for at, before in kept.items():
            now = gone[list(kept).index(at)]
            assert before[len(queries) : len(queries) + 29] == now[len(queries) :]


def test_restored_is_there_again_and_was_gone_between(folder: Path, episode: Make) -> None:
    """With all that was said about it; in this process, another, and after all caches were lost."""
    with Memory(folder) as memory, Memory(folder, "r") as reader:
        filled(memory, episode)
        memory.rate("episode-1", "human", 0.5)
        memory.annotate("episode-1", "a remark")
        assert memory.delete("episode-1", "wrong") == 6
        assert [entry.episode_id for entry in memory.deleted()] == ["episode-1"]
        reader.refresh()
        assert "episode-1" not in reader
        assert memory.restore("episode-1", "it was right") == memory.position == 7
        assert memory.deleted() == ()
        assert memory.delete("episode-1") == 8
        assert memory.restore("episode-1") == 9
        with pytest.raises(ValueError, match="is not deleted"):
            memory.restore("episode-1")
        with pytest.raises(ValueError, match="ids are given once"):
            memory.add(episode(1))
        with pytest.raises(ValueError, match="mode='w'"):
            reader.restore("episode-1")
        with pytest.raises(TypeError, match="restoration"):
            memory.restore("episode-1", None)  # type: ignore[arg-type]
        reader.refresh()

        def check(one: Memory) -> None:
            there = [bool(set(found(one, GOALS[1], at=at)) & {"episode-1"}) for at in range(10)]
            assert there == [False, False, True, True, True, True, False, True, False, True]
            assert [len(one.entries(at)) for at in range(10)] == [0, 1, 2, 3, 3, 3, 2, 3, 2, 3]
            assert (len(one), one.get("episode-1").ratings) == (3, {"human": 0.5})
            assert (one.notes("episode-1"), one.stats().deleted) == (("a remark",), 0)
            assert found(one, GOALS[1])[0] == "episode-1"
            with pytest.raises(EpisodeNotFoundError, match="was deleted"):
                one.get("episode-1", at=8)

        check(memory)
        check(reader)
        memory.publish_index()
        memory.compact()
        check(memory)
    for lost in (False, True):
        if lost:
            delete_caches(folder)
        for mode in ("r", "w"):
            with Memory(folder, mode) as memory:
                check(memory)


def test_what_was_compacted_away_cannot_be_restored(folder: Path, episode: Make) -> None:
    """The error says so, and what can be done; a new episode of the id has no past."""
    with Memory(folder) as memory:
        filled(memory, episode)
        for name in ("episode-0", "episode-1"):
            memory.delete(name)
        memory.restore("episode-1")
        memory.delete("episode-1")
        memory.rate("episode-2", "human", 1.0)
        assert [entry.episode_id for entry in memory.deleted()] == ["episode-0", "episode-1"]
        # Two episodes, three deletions and a restoration.
        assert (memory.compact().records, memory.deleted()) == (6, ())
        with pytest.raises(EpisodeNotFoundError, match="compacted away") as refused:
            memory.restore("episode-1")
        assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
        memory.add(episode(1, GOALS[1]))
        memory.delete("episode-1")
        memory.restore("episode-1")
        assert len(memory) == 2
    delete_caches(folder)
    with Memory(folder, "r") as memory:
        assert [entry.episode_id for entry in memory.entries()] == ["episode-2", "episode-1"]


def test_what_is_damaged_is_not_restored(folder: Path, episode: Make) -> None:
    with Memory(folder) as memory:
        filled(memory, episode)
        memory.delete("episode-1")
    (segment,) = (folder / "log").glob("*.log")
    flip(segment, segment.read_bytes().index(b"hot cup"), 0)
    with Memory(folder, "w") as memory:
        with pytest.raises(ValueError, match="damaged and cannot be restored"):
            memory.restore("episode-1")
        assert (len(memory), memory.deleted()) == (2, ())


def test_a_torn_restoration_restores_nothing(folder: Path, episode: Make) -> None:
    """Acknowledged or not at all: what is cut off was never said."""
    with Memory(folder) as memory:
        filled(memory, episode)
        memory.delete("episode-1")
        (segment,) = (folder / "log").glob("*.log")
        before = segment.stat().st_size
        memory.restore("episode-1")
        after = segment.stat().st_size
    for size in range(after - 1, before, -7):
        os.truncate(segment, size)
        with Memory(folder, "r") as memory:
            assert ("episode-1" in memory, len(memory)) == (False, 2)
    with Memory(folder, "w") as memory:
        assert memory.restore("episode-1") == 5


def test_a_damaged_rating_of_a_long_name_costs_no_other(folder: Path, episode: Make) -> None:
    """Names that do not fit the catalog are read from the log, where a record may be damaged."""
    long = "a rather long name of what was judged by whom and when and why"
    with Memory(folder) as memory:
        filled(memory, episode)
        memory.rate("episode-0", long, 1.0)
        memory.rate("episode-0", "human", -1.0)
        memory.rate("episode-1", long, 1.0)
        memory.unrate("episode-1", long)
        assert memory.ratings("episode-1") == {}
    (segment,) = (folder / "log").glob("*.log")
    flip(segment, segment.read_bytes().index(long.encode()), 0)
    with Memory(folder, "r") as memory:
        assert memory.get("episode-0").ratings == memory.ratings("episode-0") == {"human": -1.0}
        assert found(memory, GOALS[0], ratings=0.5)[0] == "episode-1"


def test_many_threads_restore_at_once(folder: Path, episode: Make) -> None:
    """It is there once, whoever came first; who came too late is told."""
    with Memory(folder) as memory:
        filled(memory, episode)
        for _ in range(5):
            memory.delete("episode-1")
            told: list[Exception] = []

            def restore(told: list[Exception] = told) -> None:
                try:
                    memory.restore("episode-1")
                except ValueError as error:
                    told.append(error)

            threads = [threading.Thread(target=restore) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(told) < 8
            assert (len(memory), len(memory.entries()), len(memory.deleted())) == (3, 3, 0)
    with Memory(folder, "r") as memory:
        assert len(memory) == 3


def test_exports_hold_what_is_in_force(folder: Path, tmp_path: Path, episode: Make) -> None:
    """What was restored is exported, what was removed is not, and an import brings neither a
    deletion nor a removal back."""
    early, late = tmp_path / "early.jsonl", tmp_path / "late.jsonl"
    with Memory(folder) as memory:
        filled(memory, episode)
        memory.rate("episode-0", "human", -1.0)
        memory.rate("episode-1", "human", 1.0)
        export_file(memory, early)
        memory.unrate("episode-0", "human")
        memory.delete("episode-1")
        memory.restore("episode-1")
        memory.delete("episode-2")
        assert export_file(memory, late) == 2
        with early.open("rb") as file:
            done = import_lines(memory, file, "early")
        assert (done.there, done.deleted) == (2, 1)
        assert (memory.ratings("episode-0"), "episode-2" in memory) == ({}, False)
        memory.rate("episode-0", "human", 0.5)
        assert memory.removed_ratings("episode-0") == set()
    with Memory(tmp_path / "other") as other, late.open("rb") as file:
        import_lines(other, file, "late")
        assert other.ratings("episode-0") == {}
        assert other.ratings("episode-1") == {"human": 1.0}


@pytest.mark.parametrize("mode", ["r", "w"])
def test_a_catalog_that_knew_nothing_of_it_is_made_again(
    folder: Path, episode: Make, mode: str
) -> None:
    """A program of before counts such records and skips them; what it wrote of them is not
    believed, and that is no damage."""
    with Memory(folder) as memory:
        filled(memory, episode)
        memory.rate("episode-0", "unsafe", 1.0)
        memory.delete("episode-1")
        memory.restore("episode-1")
        memory.unrate("episode-0", "unsafe")
    file = folder / "catalog" / "catalog.rows"
    data = bytearray(file.read_bytes())
    struct.pack_into("<I", data, 8, 2)  # which knew kinds up to 5
    struct.pack_into("<I", data, HEADER_BYTES - 8, zlib.crc32(data[: HEADER_BYTES - 8]))
    file.write_bytes(data)
    with Memory(folder, mode) as memory:
        assert (len(memory), memory.stats().damage) == (3, ())
        assert found(memory, GOALS[0])[0] == "episode-0"
    if mode == "w":
        assert struct.unpack_from("<I", file.read_bytes(), 8) == (FORMAT,)
