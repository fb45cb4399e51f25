"""A memory that is used: deleted from, rated, ranked by what helped, bounded, and added to by
many."""

import os
import random
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from relive.memory import Memory, Query, Step
from relive.memory.maintenance.evict import POLICIES
from relive.memory.search.usefulness import PRIOR
from tests.memory.conftest import HOLDOUT, Make, found, goal, shown

pytestmark = pytest.mark.usefixtures("no_sync")


def test_deleted_from_now_on(folder: Path, episode: Make) -> None:
    """Nobody finds it any more, in this process or another; who looks back sees what was there
    then."""
    with Memory(folder) as memory, Memory(folder, "r") as reader:
        memory.add_many([episode(number, goal(number)) for number in range(4)])
        reader.refresh()
        assert memory.delete("episode-2", "wrong") == memory.position == 5
        assert (reader.refresh(), "episode-2" in reader) == (5, False)
        for one in (memory, reader):
            assert found(one, goal(2), k=1) != ["episode-2"]
            assert sorted(found(one, goal(2))) == ["episode-0", "episode-1", "episode-3"]
            assert (len(one), [entry.episode_id for entry in one.entries()]) == (
                3,
                ["episode-0", "episode-1", "episode-3"],
            )
            assert [past.id for past in one.iterate()] == ["episode-0", "episode-1", "episode-3"]
            assert found(one, goal(2), at=4)[0] == "episode-2"
            assert [len(one.entries(at)) for at in range(6)] == [0, 1, 2, 3, 4, 3]
            assert [len(one.entries(since=at)) for at in range(6)] == [3, 2, 1, 1, 0, 0]
            assert [entry.position for entry in one.entries(3, 1)] == [1, 2]
            for ask in (one.get, one.meta, one.usefulness, one.notes):
                with pytest.raises(KeyError, match="it was deleted"):
                    ask("episode-2")
            assert (one.stats().entries, one.stats().deleted) == (3, 1)
        for change in (
            memory.delete,
            lambda name: memory.rate(name, "human", 1),
            lambda name: memory.annotate(name, "x"),
        ):
            with pytest.raises(KeyError, match="it was deleted"):
                change("episode-2")
        with pytest.raises(KeyError, match=r"there is no episode '[^']*' in [^:]*$"):
            memory.delete("episode-7")
        with pytest.raises(ValueError, match=r"was deleted .* ids are given once: restore it, or"):
            memory.add(episode(2))
        with pytest.raises(ValueError, match="mode='w'"):
            reader.delete("episode-1")
        assert memory.position == 5
    with Memory(folder, "r") as reader:
        assert sorted(found(reader, goal(2))) == ["episode-0", "episode-1", "episode-3"]
        assert found(reader, goal(2), at=4)[0] == "episode-2"


def test_who_looks_back_sees_the_same_whatever_happens_later(folder: Path, episode: Make) -> None:
    """An evaluation at a position can be repeated: additions, ratings and deletions since then make
    no difference."""
    draw = random.Random(0)
    with Memory(folder) as memory:
        memory.add_many([episode(number, goal(number)) for number in range(40)])
        for number in (3, 4):
            memory.delete(f"episode-{number}")
        at = memory.position
        queries = [Query(goal(number), k=draw.choice([1, 5, 30])) for number in range(0, 40, 3)]
        before = [memory.search(query, HOLDOUT, at) for query in queries]
        memory.add_many(
            [
                episode(number, goal(number % 40), identity=f"again {number}")
                for number in range(40, 80)
            ]
        )
        for number in range(0, 40, 2):
            if number != 4:
                memory.delete(f"episode-{number}")
        assert [memory.search(query, HOLDOUT, at) for query in queries] == before
        memory.publish_index()
        assert [memory.search(query, HOLDOUT, at) for query in queries] == before
    with Memory(folder, "r") as memory:
        assert [memory.search(query, HOLDOUT, at) for query in queries] == before


def test_ratings_and_notes_of_all_sorts(folder: Path, episode: Make) -> None:
    """The last of each name counts, names may be long, a reader sees them, and the episode's own
    are kept beside them."""
    long = "a rather long name of what was judged by whom and when and why"
    with Memory(folder) as memory, Memory(folder, "r") as reader:
        memory.add(replace(episode(0), ratings={"own": 1.0, "human": 0.5}))
        memory.add(episode(1))
        for name, value in (
            ("human", 0.1),
            (long, 0.2),
            ("human", 0.3),
            (long + "!", 0.4),
            (long, 0.6),
        ):
            memory.rate("episode-0", name, value)
        for text in ("first", "second", "half \ud800"):
            memory.annotate("episode-0", text)
        memory.annotate("episode-1", "other")
        reader.refresh()
        for one in (memory, reader):
            assert one.get("episode-0").ratings == {
                "own": 1.0,
                "human": 0.3,
                long: 0.6,
                long + "!": 0.4,
            }
            assert (one.get("episode-1").ratings, one.notes("episode-1")) == ({}, ("other",))
            assert one.notes("episode-0") == ("first", "second", "half \ud800")
        memory.rate("episode-0", "human", 0.9)
        memory.annotate("episode-0", "fourth")
        assert memory.get("episode-0").ratings["human"] == 0.9
        reader.refresh()
        assert reader.get("episode-0").ratings["human"] == 0.9
        assert len(reader.notes("episode-0")) == 4


def test_duplicates_are_left_out_if_asked_for(folder: Path, episode: Make) -> None:
    """The same actions at the same task, whatever was seen; other actions or another task are
    something else."""
    with Memory(folder) as memory:
        first = episode(0, goal(0), identity="game")
        assert memory.duplicate_of(first) is None
        memory.add(first, deduplicate=True)
        copy = replace(first, id="copy", final_observation="Bye.", memory_position=7)
        assert memory.duplicate_of(copy) == "episode-0"
        assert memory.add(copy, deduplicate=True) == memory.position == 1
        others = [
            episode(1, goal(0), identity="other game"),
            episode(2, goal(0), identity="game", steps=4),
            replace(copy, id="twin", steps=first.steps[:2]),
            replace(copy, id="twin of the twin", steps=first.steps[:2]),
        ]
        assert memory.add_many([*others, copy], deduplicate=True) == 4
        assert [entry.episode_id for entry in memory.entries()] == [
            "episode-0",
            "episode-1",
            "episode-2",
            "twin",
        ]
        memory.delete("episode-0")
        assert memory.duplicate_of(copy) is None
        memory.add(copy, deduplicate=True)
        assert "copy" in memory
        memory.add(replace(copy, id="on purpose"))
        assert "on purpose" in memory
        assert memory.add_many([other := episode(5, goal(5)), other], deduplicate=True)
        assert "episode-5" in memory
    with Memory(folder, "r") as memory:
        assert memory.duplicate_of(first) == "copy"


def test_where_one_action_ends_and_the_next_begins_matters(folder: Path, episode: Make) -> None:
    """One of two lines is not two, and none is not an empty one, though their hashes are equal."""
    with Memory(folder) as memory:
        for number, actions in enumerate((["x\ny"], ["x", "y"], [], [""])):
            steps = tuple(Step("o", action) for action in actions)
            made = replace(episode(number, goal(0), identity="game"), steps=steps)
            assert memory.add_many([made, replace(made, id="twin")], deduplicate=True) == number + 1
            assert memory.duplicate_of(replace(made, id="twin")) == made.id


def test_what_helped_is_learned(folder: Path, episode: Make) -> None:
    """From runs that are stored and from others; the same numbers after the memory was opened
    again, and in a reader."""
    with Memory(folder) as memory, Memory(folder, "r") as reader:
        memory.add_many([episode(number, goal(number)) for number in range(3)])
        assert memory.usefulness("episode-0").value == 0
        run = episode(50, "test goal", identity="t", split="test")
        for number in range(6):
            memory.record_outcome(shown(replace(run, id=f"run {number}"), "episode-0"))
            failed = episode(60 + number, "test goal", identity="t", split="test", success=False)
            memory.add(shown(failed, "episode-1", "nobody"))
        useful = memory.usefulness("episode-0")
        # Six runs of this task did not show it and failed; of this type, so did they; the three
        # others solved theirs.
        rate = 3 / 9
        expected = 6 * (0 + PRIOR * rate) / (6 + PRIOR)
        assert (useful.shown, useful.solved, useful.expected) == (6, 6, pytest.approx(expected))
        assert useful.value == pytest.approx((6 - expected) / (6 + PRIOR))
        worse = memory.usefulness("episode-1")
        assert (worse.shown, worse.solved) == (6, 0)
        assert worse.value < -0.3
        reader.refresh()
        assert (reader.usefulness("episode-0"), reader.usefulness("episode-1")) == (useful, worse)
        memory.record_outcome(run)
        assert (
            memory.usefulness("episode-0").expected > expected
        )  # one more run that did without it and ended well
        memory.record_outcome(shown(run, "episode-2"))
        stats = memory.stats()
        assert (stats.credits, next(iter(stats.most_useful))) == (13, "episode-0")
        again = [memory.usefulness(f"episode-{number}") for number in range(3)]
        with pytest.raises(ValueError, match="mode='w'"):
            reader.record_outcome(run)
    with Memory(folder, "r") as reader:
        assert [reader.usefulness(f"episode-{number}") for number in range(3)] == again


def test_ranked_by_what_helped(folder: Path, episode: Make) -> None:
    """With a weight of 0 nothing changes; with a larger one what helped comes first, and a hit says
    why."""
    with Memory(folder) as memory:
        goals = [
            "put a hot mug in the cabinet",
            "put a hot cup in the cabinet",
            "put a clean fork in the drawer",
        ]
        memory.add_many([episode(number, text) for number, text in enumerate(goals)])
        for number in range(20):
            run = episode(50 + number, "other words", success=number % 2 == 0, identity="t")
            memory.record_outcome(shown(run, "episode-1" if number % 2 == 0 else "episode-0"))
        plain = memory.search(Query(goals[0]), HOLDOUT)
        assert [hit.episode_id for hit in plain] == ["episode-0", "episode-1"]
        assert plain == memory.search(Query(goals[0], usefulness=0), HOLDOUT)
        hits = memory.search(Query(goals[0], usefulness=0.5, k=3), HOLDOUT)
        assert [hit.episode_id for hit in hits] == ["episode-1", "episode-0", "episode-2"]
        for hit in hits:
            worth = 0.5 * memory.usefulness(hit.episode_id).value
            assert hit.explanation.usefulness == pytest.approx(worth)
            assert hit.score == pytest.approx(hit.explanation.similarity + worth)
        assert (hits[0].explanation.considered, hits[1].explanation.considered) == (2, 1)
        against = memory.search(Query(goals[0], usefulness=-0.5), HOLDOUT)
        assert [hit.episode_id for hit in against] == ["episode-0", "episode-1"]


def test_not_the_same_thing_twice(folder: Path, episode: Make) -> None:
    """Three copies of the closest goal and one that is a little further: with diversity that one is
    the second hit."""
    near, other = "put a hot mug in the cabinet", "put a hot mug on two shelves and look at it"
    with Memory(folder) as memory:
        memory.add_many([episode(number, near) for number in range(3)])
        memory.add_many([episode(3, other), episode(4, "water the plant")])
        assert [hit.score for hit in memory.search(Query(near, k=3), HOLDOUT)] == pytest.approx(
            [1.0] * 3, abs=1e-5
        )
        first, second = memory.search(Query(near, diversity=0.6), HOLDOUT)
        assert first.episode_id == found(memory, near, k=1)[0]
        assert second.episode_id in ("episode-3", "episode-4")
        assert (first.explanation.redundancy, second.explanation.redundancy < 0.9) == (0, True)
        assert second.score == pytest.approx(
            0.4 * second.explanation.similarity - 0.6 * second.explanation.redundancy
        )
        assert len(found(memory, near, diversity=0.6)) == 5
        assert found(memory, near, diversity=1e-9) == found(memory, near)
        for wrong in (1.0, -0.1):
            with pytest.raises(ValueError, match="at least 0 and less than 1"):
                Query(near, diversity=wrong)


def test_direct_ones_first(folder: Path, episode: Make) -> None:
    """Of episodes that fit alike the short ones; a long one that fits comes before a short one that
    does not."""
    near = "put a hot mug in the cabinet"
    with Memory(folder) as memory:
        memory.add_many(
            [episode(number, near, steps=steps) for number, steps in enumerate((32, 8, 16, 0))]
        )
        memory.add(episode(4, "water the plant", steps=1))
        hits = memory.search(Query(near, k=5, length_penalty=0.05), HOLDOUT)
        assert [hit.episode_id for hit in hits] == [
            f"episode-{number}" for number in (3, 1, 2, 0, 4)
        ]
        assert [hit.explanation.length for hit in hits] == pytest.approx([0, 0.15, 0.2, 0.25, 0])
        assert [hit.score for hit in hits] == pytest.approx(
            [hit.explanation.similarity - hit.explanation.length for hit in hits]
        )
        by_length, as_ever = [hit.episode_id for hit in hits], found(memory, near, k=5)
        assert (
            found(memory, near, k=5, length_penalty=1e-4)
            == by_length
            != as_ever
            == found(memory, near, k=5, length_penalty=0.0)
        )
        with pytest.raises(ValueError, match="must not be negative"):
            Query(near, length_penalty=-0.1)


@pytest.mark.parametrize("by", POLICIES)
def test_bounded(folder: Path, episode: Make, by: str) -> None:
    """Evicted until the capacity is met, one synchronisation, nobody's type forgotten; those who
    went are really gone."""
    with Memory(folder) as memory:
        kinds = ["heat"] * 14 + ["cool"] * 6 + ["look"] * 2
        memory.add_many(
            [
                episode(n, goal(n), task_type=kind, success=n % 3 > 0 or n > 19)
                for n, kind in enumerate(kinds)
            ]
        )
        for number in range(22, 30):
            memory.record_outcome(shown(episode(number, identity="t", success=True), "episode-3"))
            memory.record_outcome(shown(episode(number, identity="t", success=False), "episode-4"))
        position = memory.position
        gone = memory.evict(capacity=10, by=by)
        assert (len(gone), len(memory), memory.position) == (12, 10, position + 12)
        assert not [name for name in gone if name in memory]
        left = Counter(entry.task.type for entry in memory.entries() if entry.success)
        assert all(left[kind] >= 2 for kind in ("heat", "cool", "look"))
        expected = {
            "age": "episode-0", "usefulness": "episode-4", "largest-type": "episode-0",
            "random": gone[0],
        }  # fmt: skip
        assert gone[0] == expected[by]
        if by == "usefulness":
            assert "episode-3" in memory
        if by == "largest-type":
            assert set(gone[:8]) == {f"episode-{number}" for number in range(8)}
        assert memory.evict(capacity=10, by=by) == ()
        assert memory.position == position + 12
        assert memory.compact().episodes == 12
        assert len(memory) == 10
    with Memory(folder, "r") as reader:
        assert len(reader) == 10
        with pytest.raises(ValueError, match="mode='w'"):
            reader.evict(capacity=1)


def test_bounded_by_time(folder: Path, episode: Make) -> None:
    """Those that started before go, as far as their type is not forgotten."""
    with Memory(folder) as memory:
        memory.add_many(
            [
                replace(episode(n, task_type="heat" if n else "cool"), started=100.0 - n)
                for n in range(6)
            ]
        )
        assert memory.evict(before=98.0, keep_per_type=1) == ("episode-3", "episode-4", "episode-5")
        with pytest.raises(ValueError, match="needs a capacity"):
            memory.evict()


def test_a_catalog_that_lost_its_end(folder: Path, episode: Make) -> None:
    """At any byte of the last records' rows: what a run was shown is taken in again, all of it."""
    with Memory(folder) as memory:
        memory.add_many([episode(number, goal(number)) for number in range(3)])
        memory.add(shown(episode(3, goal(3)), "episode-0", "episode-1", "episode-2"))
        memory.rate("episode-3", "human", 1)
        memory.delete("episode-2")
        expected = [memory.usefulness(f"episode-{number}") for number in (0, 1, 3)]
        stats = memory.stats()
    path = folder / "catalog" / "catalog.rows"
    whole = path.read_bytes()
    for length in range(len(whole) - 9 * 192, len(whole), 64):
        path.write_bytes(whole[:length])
        with Memory(folder, "w") as memory:
            assert [memory.usefulness(f"episode-{number}") for number in (0, 1, 3)] == expected
            assert replace(memory.stats(), damage=(), total_bytes=0) == replace(
                stats, total_bytes=0
            )
        assert path.read_bytes() == whole


def test_many_threads_share_synchronisations(
    folder: Path, episode: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Additions, ratings and deletions at once: everyone gets their own answer, and the disk is
    asked less often."""
    synced = []

    def slow(descriptor: int) -> None:
        synced.append(descriptor)
        threading.Event().wait(0.002)

    answers: list[tuple[int, int]] = []
    refused: list[str] = []
    with Memory(folder) as memory:
        monkeypatch.setattr(os, "fsync", slow)

        def work(thread: int) -> None:
            for number in range(8):
                name = f"episode-{100 * thread + number}"
                answers.append(
                    (memory.add(episode(100 * thread + number)), memory.meta(name).position)
                )
                try:
                    memory.add(episode(9999))
                except ValueError as error:
                    refused.append(str(error))
                memory.rate(name, "human", thread)
                if number % 2:
                    memory.delete(name)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert all(visible == position + 1 for visible, position in answers)
        assert len(set(answers)) == 48
        assert len(refused) == 47
        assert (len(memory), memory.position) == (25, 48 + 48 + 24 + 1)
        assert len(synced) < memory.position
    with Memory(folder, "r") as memory:
        assert len(memory) == 25
        assert all(
            entry.ratings == {"human": entry.task.seed // 100}
            for entry in memory.iterate()
            if entry.task.seed < 9999
        )
        assert memory.stats().damage == ()
