"""A memory that is used: deleted from, rated, filtered, ranked by what helped, bounded, and older than its program."""

import hashlib
import json
import os
import random
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from memory import Episode, ExperienceMemory, HashedEmbedder, Hit, Purpose, Query, Retrieved, Viewer, codec
from memory import space as space_module
from memory.catalog import FIELDS
from memory.evict import POLICIES
from memory.keys import key_texts, query_text
from memory.segments import FRAME_BYTES, segments
from memory.usefulness import PRIOR
from memory.vectors import column_name

VIEWER = Viewer("my game", "test", "my room", "my goal", Purpose.EVALUATE)
Make = Callable[..., Episode]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def goal(number: int) -> str:
    """The goal of an episode, unlike all others."""
    return f"make{number} the thing{number}"


def shown(run: Episode, *ids: str) -> Episode:
    """The run, with these in the context of its first step."""
    hits = tuple(Retrieved(name, 0.5) for name in ids)
    return replace(run, steps=(replace(run.steps[0], retrieved=hits), *run.steps[1:]))


def found(memory: ExperienceMemory, text: str, at: int | None = None, **options: Any) -> list[str]:
    """Ids of what a viewer is shown."""
    return [hit.episode_id for hit in memory.search(Query(text, **{"k": 99, **options}), VIEWER, at)]


def test_deleted_from_now_on(folder: Path, episode: Make) -> None:
    """Nobody finds it any more, in this process or another; who looks back sees what was there then."""
    with ExperienceMemory.open(folder, "create") as memory, ExperienceMemory.open(folder) as reader:
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
            for ask in (one.get, one.meta, one.usefulness):
                with pytest.raises(KeyError, match="it was deleted"):
                    ask("episode-2")
            assert one.notes("episode-2") == ()
            assert (one.stats().entries, one.stats().deleted) == (3, 1)
        for change in (
            memory.delete,
            lambda name: memory.rate(name, "human", 1),
            lambda name: memory.annotate(name, "x"),
        ):
            with pytest.raises(KeyError, match="it was deleted"):
                change("episode-2")
        with pytest.raises(KeyError, match="it is not there"):
            memory.delete("episode-7")
        with pytest.raises(ValueError, match="ids are given once"):
            memory.add(episode(2))
        with pytest.raises(ValueError, match="mode='w'"):
            reader.delete("episode-1")
        assert memory.position == 5
    with ExperienceMemory.open(folder) as reader:
        assert sorted(found(reader, goal(2))) == ["episode-0", "episode-1", "episode-3"]
        assert found(reader, goal(2), at=4)[0] == "episode-2"


def test_who_looks_back_sees_the_same_whatever_happens_later(folder: Path, episode: Make) -> None:
    """An evaluation at a position can be repeated: additions, ratings and deletions since then make no difference."""
    draw = random.Random(0)
    with ExperienceMemory.open(folder, "create") as memory:
        memory.add_many([episode(number, goal(number)) for number in range(40)])
        for number in (3, 4):
            memory.delete(f"episode-{number}")
        at = memory.position
        queries = [Query(goal(number), k=draw.choice([1, 5, 30])) for number in range(0, 40, 3)]
        before = [memory.search(query, VIEWER, at) for query in queries]
        memory.add_many([episode(number, goal(number % 40), identity=f"again {number}") for number in range(40, 80)])
        for number in range(0, 40, 2):
            if number != 4:
                memory.delete(f"episode-{number}")
        assert [memory.search(query, VIEWER, at) for query in queries] == before
        memory.publish_index()
        assert [memory.search(query, VIEWER, at) for query in queries] == before
    with ExperienceMemory.open(folder) as memory:
        assert [memory.search(query, VIEWER, at) for query in queries] == before


def test_ratings_and_notes_of_all_sorts(folder: Path, episode: Make) -> None:
    """The last of each name counts, names may be long, a reader sees them, and the episode's own are kept beside them."""
    long = "a rather long name of what was judged by whom and when and why"
    with ExperienceMemory.open(folder, "create") as memory, ExperienceMemory.open(folder) as reader:
        memory.add(replace(episode(0), ratings={"own": 1.0, "human": 0.5}))
        memory.add(episode(1))
        for name, value in (("human", 0.1), (long, 0.2), ("human", 0.3), (long + "!", 0.4), (long, 0.6)):
            memory.rate("episode-0", name, value)
        for text in ("first", "second", "half \ud800"):
            memory.annotate("episode-0", text)
        memory.annotate("episode-1", "other")
        reader.refresh()
        for one in (memory, reader):
            assert one.get("episode-0").ratings == {"own": 1.0, "human": 0.3, long: 0.6, long + "!": 0.4}
            assert (one.get("episode-1").ratings, one.notes("episode-1")) == ({}, ("other",))
            assert one.notes("episode-0") == ("first", "second", "half \ud800")
        memory.rate("episode-0", "human", 0.9)
        memory.annotate("episode-0", "fourth")
        assert memory.get("episode-0").ratings["human"] == 0.9
        reader.refresh()
        assert reader.get("episode-0").ratings["human"] == 0.9
        assert len(reader.notes("episode-0")) == 4


def test_duplicates_are_left_out_if_asked_for(folder: Path, episode: Make) -> None:
    """The same actions at the same task, whatever was seen; other actions or another task are something else."""
    with ExperienceMemory.open(folder, "create") as memory:
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
        assert [entry.episode_id for entry in memory.entries()] == ["episode-0", "episode-1", "episode-2", "twin"]
        memory.delete("episode-0")
        assert memory.duplicate_of(copy) is None
        memory.add(copy, deduplicate=True)
        assert "copy" in memory
        memory.add(replace(copy, id="on purpose"))
        assert "on purpose" in memory
    with ExperienceMemory.open(folder) as memory:
        assert memory.duplicate_of(first) == "copy"


def test_what_helped_is_learned(folder: Path, episode: Make) -> None:
    """From runs that are stored and from others; the same numbers after the memory was opened again, and in a reader."""
    with ExperienceMemory.open(folder, "create") as memory, ExperienceMemory.open(folder) as reader:
        memory.add_many([episode(number, goal(number)) for number in range(3)])
        assert memory.usefulness("episode-0").value == 0
        run = episode(50, "test goal", identity="t", split="test")
        for number in range(6):
            memory.credit(shown(replace(run, id=f"run {number}"), "episode-0"))
            failed = episode(60 + number, "test goal", identity="t", split="test", success=False)
            memory.add(shown(failed, "episode-1", "nobody"))
        useful = memory.usefulness("episode-0")
        # Six runs of this task did not show it and failed; of this type, so did they; the three others solved theirs.
        rate = 3 / 9
        expected = 6 * (0 + PRIOR * rate) / (6 + PRIOR)
        assert (useful.shown, useful.solved, useful.expected) == (6, 6, pytest.approx(expected))
        assert useful.value == pytest.approx((6 - expected) / (6 + PRIOR))
        worse = memory.usefulness("episode-1")
        assert (worse.shown, worse.solved) == (6, 0)
        assert worse.value < -0.3
        reader.refresh()
        assert (reader.usefulness("episode-0"), reader.usefulness("episode-1")) == (useful, worse)
        memory.credit(run)
        assert memory.usefulness("episode-0").expected > expected  # one more run that did without it and ended well
        memory.credit(shown(run, "episode-2"))
        stats = memory.stats()
        assert (stats.credits, next(iter(stats.most_useful))) == (13, "episode-0")
        again = [memory.usefulness(f"episode-{number}") for number in range(3)]
        with pytest.raises(ValueError, match="mode='w'"):
            reader.credit(run)
    with ExperienceMemory.open(folder) as reader:
        assert [reader.usefulness(f"episode-{number}") for number in range(3)] == again


def test_ranked_by_what_helped(folder: Path, episode: Make) -> None:
    """With a weight of 0 nothing changes; with a larger one what helped comes first, and a hit says why."""
    with ExperienceMemory.open(folder, "create") as memory:
        goals = ["put a hot mug in the cabinet", "put a hot cup in the cabinet", "put a clean fork in the drawer"]
        memory.add_many([episode(number, text) for number, text in enumerate(goals)])
        for number in range(20):
            run = episode(50 + number, "other words", success=number % 2 == 0, identity="t")
            memory.credit(shown(run, "episode-1" if number % 2 == 0 else "episode-0"))
        plain = memory.search(Query(goals[0]), VIEWER)
        assert [hit.episode_id for hit in plain] == ["episode-0", "episode-1"]
        assert plain == memory.search(Query(goals[0], usefulness=0), VIEWER)
        hits = memory.search(Query(goals[0], usefulness=0.5, k=3), VIEWER)
        assert [hit.episode_id for hit in hits] == ["episode-1", "episode-0", "episode-2"]
        for hit in hits:
            worth = 0.5 * memory.usefulness(hit.episode_id).value
            assert hit.why.usefulness == pytest.approx(worth)
            assert hit.score == pytest.approx(hit.why.similarity + worth)
        assert (hits[0].why.considered, hits[1].why.considered) == (2, 1)
        against = memory.search(Query(goals[0], usefulness=-0.5), VIEWER)
        assert [hit.episode_id for hit in against] == ["episode-0", "episode-1"]


def test_not_the_same_thing_twice(folder: Path, episode: Make) -> None:
    """Three copies of the closest goal and one that is a little further: with diversity that one is the second hit."""
    near, other = "put a hot mug in the cabinet", "put a hot mug on two shelves and look at it"
    with ExperienceMemory.open(folder, "create") as memory:
        memory.add_many([episode(number, near) for number in range(3)])
        memory.add_many([episode(3, other), episode(4, "water the plant")])
        assert [hit.score for hit in memory.search(Query(near, k=3), VIEWER)] == pytest.approx([1.0] * 3, abs=1e-5)
        first, second = memory.search(Query(near, diversity=0.6), VIEWER)
        assert first.episode_id == found(memory, near, k=1)[0]
        assert second.episode_id in ("episode-3", "episode-4")
        assert (first.why.redundancy, second.why.redundancy < 0.9) == (0, True)
        assert second.score == pytest.approx(0.4 * second.why.similarity - 0.6 * second.why.redundancy)
        assert len(found(memory, near, diversity=0.6)) == 5
        assert found(memory, near, diversity=1e-9) == found(memory, near)
        for wrong in (1.0, -0.1):
            with pytest.raises(ValueError, match="at least 0 and less than 1"):
                Query(near, diversity=wrong)


@pytest.mark.parametrize("by", POLICIES)
def test_bounded(folder: Path, episode: Make, by: str) -> None:
    """Evicted until the capacity is met, one synchronisation, nobody's type forgotten; those who went are really gone."""
    with ExperienceMemory.open(folder, "create") as memory:
        kinds = ["heat"] * 14 + ["cool"] * 6 + ["look"] * 2
        memory.add_many(
            [episode(n, goal(n), task_type=kind, success=n % 3 > 0 or n > 19) for n, kind in enumerate(kinds)]
        )
        for number in range(22, 30):
            memory.credit(shown(episode(number, identity="t", success=True), "episode-3"))
            memory.credit(shown(episode(number, identity="t", success=False), "episode-4"))
        position = memory.position
        gone = memory.evict(capacity=10, by=by)
        assert (len(gone), len(memory), memory.position) == (12, 10, position + 12)
        assert not [name for name in gone if name in memory]
        left = Counter(entry.task.type for entry in memory.entries() if entry.success)
        assert all(left[kind] >= 2 for kind in ("heat", "cool", "look"))
        expected = {
            "age": "episode-0", "usefulness": "episode-4", "largest-type": "episode-0", "random": gone[0],
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
    with ExperienceMemory.open(folder) as reader:
        assert len(reader) == 10
        with pytest.raises(ValueError, match="mode='w'"):
            reader.evict(capacity=1)


def test_bounded_by_time(folder: Path, episode: Make) -> None:
    """Those that started before go, as far as their type is not forgotten."""
    with ExperienceMemory.open(folder, "create") as memory:
        memory.add_many([replace(episode(n, task_type="heat" if n else "cool"), started=100.0 - n) for n in range(6)])
        assert memory.evict(before=98.0, keep_per_type=1) == ("episode-3", "episode-4", "episode-5")
        with pytest.raises(ValueError, match="needs a capacity"):
            memory.evict()


STEPS = [("go to fridge", "The fridge is closed."), ("open fridge", "You see a melon."), ("take melon", "You take it.")]


def told(make: Make, number: int, text: str, first: str, steps: list[tuple[str, str]]) -> Episode:
    """An episode of which one knows what was seen when."""
    seen = [first, *(observation for _, observation in steps)]
    made = make(number, text, steps=len(steps))
    acted = tuple(replace(step, observation=seen[i], action=steps[i][0]) for i, step in enumerate(made.steps))
    return replace(made, steps=acted, final_observation=seen[-1])


def test_found_by_more_than_the_goal(folder: Path, episode: Make) -> None:
    """By what was seen first and by what a dynamic query would have said; a hit says by which."""
    with ExperienceMemory.open(folder, "create", keys=["window", "first"]) as memory:
        assert memory.keys == ("goal", "first", "window")
        memory.add(told(episode, 0, "cool a melon", "You are in a kitchen with a window.", STEPS))
        memory.add(told(episode, 1, "water the plant", "You stand in a garden, at night.", STEPS[:1]))
        memory.add(episode(2, "look at the clock", steps=0))

        def best(text: str, *keys: str) -> Hit:
            return memory.search(Query(text, k=1, keys=keys), VIEWER)[0]

        assert best("water the plant", "goal").why.key == "goal"
        hit = best("You stand in a garden, at night.", "goal", "first")
        assert (hit.episode_id, hit.why.key, hit.score) == ("episode-1", "first", pytest.approx(1))
        for end in range(3):
            hit = best(query_text("cool a melon", STEPS[:end]), "window")
            assert (hit.episode_id, hit.why.key, hit.score) == ("episode-0", "window", pytest.approx(1))
        # Without steps, an episode's only window is its goal.
        assert best("look at the clock", "window").score == pytest.approx(1)
        assert best("look at the clock", "goal", "window").why.key == "goal"
        assert len(found(memory, "cool a melon", keys=("window",))) == 3
    with pytest.raises(ValueError, match=r"unknown keys \['last'\]"):
        ExperienceMemory.open(folder, keys=["last"])
    with pytest.raises(ValueError, match="unknown keys"):
        Query("x", keys=("last",))


def test_an_old_memory_gets_more_keys(folder: Path, episode: Make) -> None:
    """A writer adds them for good, a reader for itself; without them, asking says what to do."""
    with ExperienceMemory.open(folder, "create") as memory:
        memory.add_many([told(episode, n, goal(n), f"You see place{n} there.", STEPS) for n in range(20)])
        memory.delete("episode-3")
        with pytest.raises(ValueError, match=r"no key first: open it once with mode='w' and keys=\(\.\.\., 'first'\)"):
            found(memory, "x", keys=("goal", "first"))
    described = (folder / "memory.json").read_bytes()
    with ExperienceMemory.open(folder, keys=["first"]) as reader:
        assert found(reader, "You see place7 there.", keys=("first",), k=1) == ["episode-7"]
        assert reader.stats().embedded == 20
    assert (folder / "memory.json").read_bytes() == described
    with ExperienceMemory.open(folder, "w", keys=["first", "window"]) as memory:
        assert memory.keys == ("goal", "first", "window")
        assert memory.stats().embedded == 20 + 3 * 20
        memory.add(told(episode, 20, goal(20), "You see place20 there.", STEPS))
    for mode in ("r", "w"):
        with ExperienceMemory.open(folder, mode) as memory:
            assert memory.keys == ("goal", "first", "window")
            assert (memory.stats().embedded, memory.stats().damage) == (0, ())
            for number in (7, 20):
                assert found(memory, f"You see place{number} there.", keys=("first",), k=1) == [f"episode-{number}"]
                text = query_text(goal(number), STEPS[:2])
                assert found(memory, text, keys=("window",), k=1) == [f"episode-{number}"]
            assert "episode-3" not in found(memory, "You see place3 there.", keys=("first", "window"))


class Oracle:
    """What is to be found, in the plainest words. Episodes are at the positions that are their numbers."""

    def __init__(self, made: list[Episode]) -> None:
        self.made = made
        self.deleted: dict[int, int] = {}
        """Number of an episode, and position of its deletion."""
        embed = HashedEmbedder().encode
        self.vectors = {key: [embed(key_texts(key, one)) for one in made] for key in ("goal", "first")}

    def wanted(self, query: Query, number: int, at: int) -> bool:
        """Whether an episode may be shown to the test's viewer, and is wanted."""
        one = self.made[number]
        task = one.task
        fields = {
            "suite": task.suite, "type": task.type, "split": task.split,
            "policy": one.actor.policy, "adapter": one.actor.adapter,
        }  # fmt: skip
        there = number < at and self.deleted.get(number, at) >= at
        kept = task.seed % 7 == 0 or query.where is None
        success = one.success or not query.successes_only
        return (
            there and kept and success and task.split == "train" and all(fields[n] in v for n, v in query.only.items())
        )

    def scores(self, query: Query, at: int) -> list[float]:
        """Scores of the best."""
        vector = HashedEmbedder().encode([query.text])[0]
        scores = [
            max(float(np.round(self.vectors[key][number] @ vector, 5).max()) for key in query.keys)
            for number in range(len(self.made))
            if self.wanted(query, number, at)
        ]
        return sorted((s for s in scores if query.min_score is None or s >= query.min_score), reverse=True)[: query.k]


@pytest.mark.parametrize("approximate", [False, True])
def test_filters_at_any_selectivity_against_the_oracle(
    folder: Path, episode: Make, monkeypatch: pytest.MonkeyPatch, approximate: bool
) -> None:
    """`only` that keeps nearly all, a half, a handful or nobody; with deletions, old positions, several keys, and a graph."""
    if approximate:
        monkeypatch.setattr(space_module, "EXACT_LIMIT", 60)
        monkeypatch.setattr(space_module, "LEAST_TAIL", 40)
    draw = random.Random(4)
    made = []
    for number in range(300):
        kind = "common" if number % 2 else draw.choice(["half", "half", "tenth", f"rare{number % 50}"])
        text = f"{draw.choice(['put a hot', 'put a clean', 'find two', 'look at'])} thing{draw.randrange(60)} in box"
        one = episode(
            number, text, split=draw.choice(["train"] * 9 + ["test"]), success=draw.random() < 0.7, task_type=kind
        )
        one = replace(one, actor=replace(one.actor, policy=draw.choice(["a", "b"]), adapter=f"v{number // 100}"))
        seen = f"You see {draw.choice(['a mug', 'two pens', 'it'])} near{number % 90} the box."
        made.append(replace(one, steps=(replace(one.steps[0], observation=seen), *one.steps[1:])))
    with ExperienceMemory.open(folder, "create", keys=["goal", "first"]) as memory:
        memory.add_many(made[:150])
        memory.add_many(made[150:])
        if approximate:
            memory.publish_index()
            assert memory.stats().index_entries == 300
        oracle = Oracle(made)
        for number in draw.sample(range(300), 60):
            oracle.deleted[number] = memory.delete(f"episode-{number}") - 1
        filters: list[dict[str, list[str]]] = [
            {}, {"type": ["common"]}, {"type": ["half", "tenth"]}, {"type": ["tenth"]}, {"type": ["rare7", "rare8", "rare9"]},
            {"type": ["nobody"]}, {"policy": ["a"], "adapter": ["v0", "v2"]}, {"split": ["test"]}, {"suite": ["household"]},
            {"suite": ["household"], "split": ["train"], "type": ["common", "half"], "policy": ["b"], "adapter": ["v1"]},
        ]  # fmt: skip
        assert {name for one in filters for name in one} == set(FIELDS)
        exact = Counter[bool]()
        for number in range(120):
            query = Query(
                draw.choice([draw.choice(made).task.goal, made[draw.randrange(300)].steps[0].observation]),
                k=draw.choice([1, 3, 20]),
                min_score=draw.choice([None, None, 0.4]),
                successes_only=draw.random() < 0.3,
                only=filters[number % len(filters)],
                keys=draw.choice([("goal",), ("first",), ("goal", "first")]),
                where=draw.choice([None, None, lambda entry: entry.task.seed % 7 == 0]),
            )
            at = draw.choice([memory.position, memory.position, 330, 300, 120, 40])
            hits = memory.search(query, VIEWER, at)
            assert [hit.score for hit in hits] == pytest.approx(oracle.scores(query, at), abs=2e-5)
            assert len({hit.episode_id for hit in hits}) == len(hits)
            assert all(oracle.wanted(query, hit.position, at) for hit in hits)
            exact.update(hit.why.exact for hit in hits)
        assert exact[True] > 100
        assert (exact[False] > 50) == approximate


def test_the_closest_by_any_key_although_many_closer_ones_are_refused(folder: Path, episode: Make) -> None:
    """All that one key proposes first is unwanted: what it would have proposed next counts before what another key has."""
    with ExperienceMemory.open(folder, "create", keys=["goal", "first"]) as memory:
        for number in range(120):
            seen = "put a hot mug in cabinet" if number < 60 else f"walk a{number} b"
            seen = "put a hot cup in the cabinet" if number == 90 else seen
            memory.add(told(episode, number, f"zebra{number} q{number % 7}", seen, STEPS[:1]))
        query = Query(
            "put a hot mug in cabinet", k=1, keys=("goal", "first"), where=lambda entry: entry.task.seed >= 60
        )
        (hit,) = memory.search(query, VIEWER)
        assert (hit.episode_id, hit.why.key) == ("episode-90", "first")
        closer = replace(query, min_score=0.5, k=9)
        assert [hit.episode_id for hit in memory.search(closer, VIEWER)] == ["episode-90"]


def test_a_catalog_that_lost_its_end(folder: Path, episode: Make) -> None:
    """At any byte of the last records' rows: what a run was shown is taken in again, all of it."""
    with ExperienceMemory.open(folder, "create") as memory:
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
        with ExperienceMemory.open(folder, "w") as memory:
            assert [memory.usefulness(f"episode-{number}") for number in (0, 1, 3)] == expected
            assert replace(memory.stats(), damage=(), total_bytes=0) == replace(stats, total_bytes=0)
        assert path.read_bytes() == whole


def test_many_threads_share_synchronisations(folder: Path, episode: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Additions, ratings and deletions at once: everyone gets their own answer, and the disk is asked less often."""
    synced = []

    def slow(descriptor: int) -> None:
        synced.append(descriptor)
        threading.Event().wait(0.002)

    answers: list[tuple[int, int]] = []
    refused: list[str] = []
    with ExperienceMemory.open(folder, "create") as memory:
        monkeypatch.setattr(os, "fsync", slow)

        def work(thread: int) -> None:
            for number in range(8):
                name = f"episode-{100 * thread + number}"
                answers.append((memory.add(episode(100 * thread + number)), memory.meta(name).position))
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
    with ExperienceMemory.open(folder) as memory:
        assert len(memory) == 25
        assert all(
            entry.ratings == {"human": entry.task.seed // 100} for entry in memory.iterate() if entry.task.seed < 9999
        )
        assert memory.stats().damage == ()


def old_payload(made: Episode) -> bytes:
    """An episode as the first programs wrote it: nothing in its head that follows from its steps."""
    unpacker = msgpack.Unpacker(strict_map_key=True)
    unpacker.feed(codec.encode_episode(made))
    head, steps = unpacker.unpack(), unpacker.unpack()
    assert {"actions", "shown"} <= set(head)
    return bytes(msgpack.packb({n: v for n, v in head.items() if n not in ("actions", "shown")}) + msgpack.packb(steps))


def make_format_1(folder: Path, episodes: list[Episode], *, column: bool = True) -> None:
    """A memory as it was before there were catalogs, byte by byte as docs/file-format.md had it."""
    memory = bytes(range(16))
    for name in ("log", "vectors", "index"):
        (folder / name).mkdir(parents=True)
    embedder = HashedEmbedder()
    identity = embedder.identity
    described = {"format": 1, "id": memory.hex(), "embedder": identity, "dimension": 384}
    (folder / "memory.json").write_text(json.dumps(described))
    header = b"RELIVELG" + struct.pack("<IIQ", 1, 0, 0) + memory
    log = header + struct.pack("<I", zlib.crc32(header))
    header = b"RELIVEVC" + struct.pack("<II", 1, 384) + memory + hashlib.sha256(identity.encode()).digest()
    rows = header + struct.pack("<I", zlib.crc32(header))
    for sequence, made in enumerate(episodes):
        payload = old_payload(made)
        frame = b"\xc1RL\xc1" + struct.pack("<BBHIQI", 1, 0, 0, len(payload), sequence, zlib.crc32(payload))
        log += frame + struct.pack("<I", zlib.crc32(frame)) + payload
        key = struct.pack("<QII", sequence, zlib.crc32(payload), 0)
        body = embedder.encode([made.task.goal])[0].astype("<f4").tobytes()
        rows += key + struct.pack("<I", zlib.crc32(key + body)) + body
    (folder / "log" / "0000000000000000.log").write_bytes(log)
    if column:
        (folder / "vectors" / f"{column_name(identity)}.vec").write_bytes(rows)
    manifest: dict[str, object] = {"format": 1, "memory": memory.hex(), "entries": 1, "file": "x.hnsw"}
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    manifest["checksum"] = zlib.crc32(canonical)
    (folder / "index" / f"{column_name(identity)}.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("column", [True, False])
def test_a_memory_of_format_1(folder: Path, episode: Make, column: bool) -> None:
    """Nothing of it is lost: a reader leaves it as it is, a writer makes it a new one, and nothing is embedded twice."""
    made = [shown(episode(n, goal(n), success=n % 3 > 0), "episode-0", f"episode-{n - 1}") for n in range(1, 30)]
    made.insert(0, episode(0, goal(0)))
    make_format_1(folder, made, column=column)

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = files()
    for turn, mode in enumerate(["r", "w", "r", "w"]):
        with ExperienceMemory.open(folder, mode) as memory:
            assert (len(memory), memory.position, memory.keys) == (30, 30, ("goal",))
            assert list(memory.iterate()) == made
            assert found(memory, goal(17), k=1) == ["episode-17"]
            assert memory.usefulness("episode-0").shown == 29
            assert memory.duplicate_of(replace(made[3], id="other")) == "episode-3"
            assert memory.stats().embedded == (0 if column or turn > 1 else 30)
            assert all("of format 1; built anew" in str(damage) for damage in memory.stats().damage)
        assert (files() == before) == (turn == 0)
    assert json.loads((folder / "memory.json").read_text())["format"] == 2
    with ExperienceMemory.open(folder, "w") as memory:
        memory.publish_index()
        memory.delete("episode-5")
        memory.add(episode(40, goal(40)))
        memory.compact()
    with ExperienceMemory.open(folder) as memory:
        assert memory.stats().damage == ()
        assert [entry.episode_id for entry in memory.entries()] == [
            f"episode-{n}" for n in (*range(5), *range(6, 30), 40)
        ]
        assert list(segments(folder / "log")) == [0, 32]
        assert (folder / "log" / "0000000000000000.0001.log").stat().st_size > FRAME_BYTES
