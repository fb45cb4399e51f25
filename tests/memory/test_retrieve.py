"""The holdout, rule by rule, and retrieval against a plain oracle."""

import hashlib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.memory import (
    EntryMeta,
    Episode,
    HashedEmbedder,
    Hit,
    Holdout,
    IndexSettings,
    Memory,
    Purpose,
    Query,
    Retrieval,
    Task,
)
from relive.memory.normal import normal_goal, normal_text
from tests.memory.conftest import indexes, make_episode, strict

GOAL = "put a hot mug in cabinet"
TESTER = strict("my game", "test", "my room", "my goal", Purpose.EVALUATE)
LEARNER = strict("my game", "train", "my room", "my goal", Purpose.TRAIN)
ACTOR = strict("my game", "train", "my room", "my goal", Purpose.ACT)
Make = Callable[..., Episode]


def found(
    memory: Memory, holdout: Holdout | None, at: int | None = None, **options: object
) -> list[str]:
    """Ids of all that is shown."""
    return [hit.episode_id for hit in memory.search(Query(GOAL, k=99, **options), holdout, at)]  # type: ignore[arg-type]


@pytest.mark.parametrize("holdout", [TESTER, LEARNER, ACTOR])
def test_never_the_same_task(store: Memory, episode: Make, holdout: Holdout) -> None:
    """Whatever the purpose."""
    store.add(episode(1, identity="my game"))
    store.add(episode(2))
    assert found(store, holdout) == ["episode-2"]


@pytest.mark.parametrize("holdout", [TESTER, LEARNER, ACTOR])
def test_never_a_near_duplicate(store: Memory, episode: Make, holdout: Holdout) -> None:
    """Same room and same goal but for case, spaces and punctuation; one of both is fine."""
    store.add(episode(1, "My  GOAL.", room="my room"))
    store.add(episode(2, "my goal", room="another room"))
    store.add(episode(3, "another goal", room="my room"))
    assert sorted(found(store, holdout)) == ["episode-2", "episode-3"]


@pytest.mark.parametrize("holdout", [TESTER, LEARNER, ACTOR])
def test_only_the_training_split_is_shown(store: Memory, episode: Make, holdout: Holdout) -> None:
    """Held-out experience never leaks, and a split that nobody heard of is held out."""
    for number, split in enumerate(["train", "valid", "test", "Train", "train ", "seen"]):
        store.add(episode(number, split=split))
    assert found(store, holdout) == ["episode-0"]


def test_never_the_split_under_evaluation(store: Memory, episode: Make) -> None:
    """Evaluating on training tasks shows nothing at all; acting on them does."""
    store.add(episode(1))
    assert found(store, strict("g", "train", "r", "g", Purpose.EVALUATE)) == []
    assert found(store, strict("g", "train", "r", "g", Purpose.ACT)) == ["episode-1"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("", "train", "r", "g", Purpose.ACT), "has no identity.*pass the identity"),
        (("  ", "train", "r", "g", Purpose.ACT), "has no identity"),
        ((None, "train", "r", "g", Purpose.ACT), "has no identity"),
        (("i", "", "r", "g", Purpose.EVALUATE), "has no split"),
        (("i", "test", "r", "g", "measure"), "unknown purpose 'measure': use one of Purpose.ACT"),
        (("i", "test", "r", "g", None), "unknown purpose"),
        (("i", "test", None, "g", Purpose.ACT), "must be text"),
        (("i", "test", "r", "g", Purpose.TRAIN), "cannot be trained on"),
        (("i", "valid", "r", "g", Purpose.TRAIN), "cannot be trained on"),
    ],
)
def test_a_task_must_say_what_it_is(
    fields: tuple[str, str, str, str, Purpose], message: str
) -> None:
    """It fails closed, with what to do."""
    with pytest.raises(ValueError, match=message):
        Holdout.strict(
            Task("s", fields[0], "t", fields[1], fields[2], 0, "1", fields[3]), fields[4]
        )


@pytest.mark.parametrize("holdout", ["me", {"identity": "i"}, 3, False])
def test_what_is_no_holdout_is_refused(store: Memory, holdout: Holdout) -> None:
    """Also by an empty memory: it must not be taken for none at all."""
    with pytest.raises(TypeError, match=r"Holdout\.strict"):
        store.search(Query(GOAL), holdout)


def test_alone_a_memory_shows_everything(store: Memory, episode: Make) -> None:
    """Row 8 and before: the best memory of a task is often one of that very task."""
    for number, split in enumerate(["train", "valid", "my own"]):
        store.add(episode(number, GOAL, split=split, room=" "))
    assert sorted(found(store, None)) == ["episode-0", "episode-1", "episode-2"]
    task = store.get("episode-0").task
    # No rooms, no near-duplicates: every goal of the same words would be one.
    holdout = Holdout(tasks=frozenset({task.identity}), near=(task.room, task.goal))
    assert sorted(found(store, holdout)) == ["episode-1", "episode-2"]


def test_filters(store: Memory, episode: Make) -> None:
    """Successes only, exclusions, a predicate, a least score; in any combination."""
    for number in range(6):
        store.add(
            episode(number, success=number % 2 == 0, task_type="heat" if number < 4 else "cool")
        )
    assert sorted(found(store, TESTER, successes_only=True)) == [
        "episode-0",
        "episode-2",
        "episode-4",
    ]
    assert len(found(store, TESTER, exclude=frozenset({"episode-0", "unknown"}))) == 5
    assert sorted(found(store, TESTER, where=lambda entry: entry.task.type == "cool")) == [
        "episode-4",
        "episode-5",
    ]
    assert found(store, TESTER, min_score=0.999) == []
    assert len(found(store, TESTER, min_score=0.5)) == 6
    only = found(
        store,
        TESTER,
        successes_only=True,
        exclude=frozenset({"episode-4"}),
        where=lambda e: e.task.seed > 1,
    )
    assert only == ["episode-2"]
    assert store.search(Query(GOAL, k=0), TESTER) == []
    with pytest.raises(ValueError, match="k is -1"):
        Query(GOAL, k=-1)


def test_a_hit_says_why(store: Memory, episode: Make) -> None:
    """What was closer and was removed, and by whom."""
    store.add(episode(0, GOAL, split="test"))
    store.add(episode(1, GOAL, success=False))
    store.add(episode(2, GOAL, task_type="cool"))
    store.add(episode(3, "put a hot thing in cabinet"))
    store.add(episode(4, "water the plant"))
    (hit,) = store.search(
        Query(GOAL, k=1, successes_only=True, where=lambda e: e.task.type == "heat"), TESTER
    )
    assert (hit.episode_id, hit.position) == ("episode-3", 3)
    why = hit.explanation
    assert (why.considered, why.held_out, why.filtered, why.exact) == (4, 1, 2, True)
    assert why.similarity == hit.score < 1


def test_ties_are_broken_by_task_not_by_what_ended_first(tmp_path: Path, episode: Make) -> None:
    """Equal goals, so equal scores: the order is the same however the log came to be, and no k cuts
    it differently."""
    orders = []
    for name, numbers in (("up", range(60)), ("down", range(59, -1, -1))):
        with Memory(tmp_path / name) as store:
            store.add_many([episode(number, GOAL) for number in numbers])
            everything = [hit.episode_id for hit in store.search(Query(GOAL, k=60), TESTER)]
            assert len(set(everything)) == 60
            for k in (1, 2, 39, 59):
                assert [h.episode_id for h in store.search(Query(GOAL, k=k), TESTER)] == everything[
                    :k
                ]
        orders.append(everything)
    assert orders[0] == orders[1]


def test_at_a_position(store: Memory, episode: Make) -> None:
    """What came after the position does not exist: neither as a hit nor in the counts."""
    positions = [store.add(episode(number, GOAL)) for number in range(5)]
    for count, position in enumerate([0, *positions]):
        assert set(found(store, TESTER, at=position)) == {
            f"episode-{number}" for number in range(count)
        }
    for read in (store.get, store.meta, store.ratings):
        read("episode-2", at=3)  # type: ignore[operator]
        with pytest.raises(KeyError, match="is not there yet at log position 2"):
            read("episode-2", at=2)  # type: ignore[operator]
    store.rate("episode-0", "human", 1.0)
    store.add(episode(5, GOAL))
    assert set(found(store, TESTER, at=positions[-1])) == {
        f"episode-{number}" for number in range(5)
    }
    with pytest.raises(ValueError, match="refresh"):
        found(store, TESTER, at=store.position + 1)
    with pytest.raises(ValueError, match="not known here"):
        found(store, TESTER, at=-1)


def oracle(memory: Memory, query: Query, task: Task, purpose: Purpose, at: int) -> list[str]:
    """The rules once more, in the plainest words."""
    embedder = HashedEmbedder()
    vector = embedder.encode([query.text])[0]
    scored = []
    for entry in memory.entries():
        seen = entry.task
        if entry.position >= at or seen.split != "train" or seen.identity == task.identity:
            continue
        if (seen.room, normal_goal(seen.goal)) == (task.room, normal_goal(task.goal)):
            continue
        if purpose is Purpose.EVALUATE and seen.split == task.split:
            continue
        if (query.successes_only and not entry.success) or entry.episode_id in query.exclude:
            continue
        if query.where is not None and not query.where(entry):
            continue
        score = float(np.round(np.einsum("ij,j->i", embedder.encode([seen.goal]), vector), 5)[0])
        if query.min_score is None or score >= query.min_score:
            digest = hashlib.blake2b(normal_text(seen.identity).encode(), digest_size=8).digest()
            tie = int.from_bytes(digest, "little", signed=True)
            scored.append((-score, tie, entry.position, entry.episode_id))
    return [episode_id for *_, episode_id in sorted(scored)[: query.k]]


@pytest.mark.parametrize("engine", ["", *indexes(pytest.mark.slow)])
def test_against_the_oracle(folder: Path, episode: Make, engine: str) -> None:
    """Random memories, tasks and filters, most of them so narrow that nearly everything is removed:
    k hits whenever k entries qualify, and the right ones. With a graph under it too."""
    approximate = bool(engine)
    index = IndexSettings()
    if approximate:
        index = IndexSettings(engine=engine, exact_limit=50, publish_rows=50)
    draw = random.Random(3)
    with Memory(folder, index=index) as memory:
        for number in range(400):
            goal = (
                f"{draw.choice(['put a hot', 'put a clean', 'find two', 'look at'])} "
                f"thing{draw.randrange(40)} in box"
            )
            memory.add(
                episode(
                    number,
                    goal,
                    split=draw.choice(["train", "train", "valid", "test"]),
                    room=f"room {draw.randrange(5)}",
                    identity=f"game {draw.randrange(100)}",
                    success=draw.random() < 0.5,
                )
            )
        if engine == "lancedb":  # it is measured when it is published
            memory.publish_index()
        assert (memory.stats().index_entries > 0) == approximate
        for _ in range(150):
            purpose = draw.choice(list(Purpose))
            split = "train" if purpose is Purpose.TRAIN else draw.choice(["train", "valid", "test"])
            goal = draw.choice(memory.entries()).task.goal
            identity, room = f"game {draw.randrange(100)}", f"room {draw.randrange(5)}"
            task = Task("household", identity, "", split, room, 0, "1", goal)
            wanted: Callable[[EntryMeta], bool] | None = draw.choice(
                [None, lambda e: e.task.seed % 23 == 0]
            )
            query = Query(
                draw.choice([goal, "put a hot thing7 in box"]),
                k=draw.choice([1, 2, 10]),
                min_score=draw.choice([None, 0.5]),
                successes_only=draw.random() < 0.5,
                exclude=frozenset(f"episode-{draw.randrange(400)}" for _ in range(5)),
                where=wanted,
            )
            at = draw.choice([memory.position, 100, 10])
            hits: list[Hit] = memory.search(query, Holdout.strict(task, purpose), at)
            expected = oracle(memory, query, task, purpose, at)
            if not approximate:
                assert [hit.episode_id for hit in hits] == expected
            else:
                # Ties at the edge of the candidates may fall otherwise; number and scores may not.
                assert len(hits) == len(expected)
                best = HashedEmbedder().encode([memory.meta(name).task.goal for name in expected])
                scores = best @ HashedEmbedder().encode([query.text])[0]
                assert [hit.score for hit in hits] == pytest.approx(scores, abs=2e-5)


@pytest.mark.parametrize("count", [30, 3000])
def test_the_goal_that_was_stored_is_the_first_hit(tmp_path: Path, count: int) -> None:
    """Also where the embedder cannot tell it from others: the hashed one drops numbers."""
    index = IndexSettings(exact_limit=256)
    with Memory(tmp_path, index=index) as memory:
        for number in range(count):
            memory.add(goal=f"count the day {number}", steps=[("", "count")], success=True)
        for number in (0, 1, count // 2, count - 1):
            (first, *_) = memory.search(f"Count the day {number}", k=2)
            assert first.episode.task.goal == f"count the day {number}"


@pytest.mark.parametrize(
    "wrong", [{"splits": "train"}, {"k": 1.5}, {"k": "1"}, {"max_tokens": True}]
)
def test_retrieval_settings_of_wrong_types_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Retrieval(**wrong)


@pytest.mark.parametrize("wrong", [{"min_score": math.nan}, {"usefulness": math.inf}])
def test_retrieval_settings_without_a_value_are_refused(wrong: dict[str, float]) -> None:
    """Before a run, not in each of its episodes."""
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .* finite"):
        Retrieval(**wrong)  # type: ignore[arg-type]


def test_what_is_drawn_does_not_depend_on_which_episode_ended_first(
    tmp_path: Path, episode: Make
) -> None:
    made = [episode(number, f"goal {number}") for number in range(60)]
    drawn = []
    for name, order in (("as played", made), ("otherwise", random.Random(1).sample(made, 60))):
        with Memory(tmp_path / name) as memory:
            memory.add_many(order)
            drawn.append([dict(memory.draw(Query(GOAL), 5, seed=seed)) for seed in range(20)])
            early = {
                one
                for seed in range(20)
                for one in dict(memory.draw(Query(GOAL), 5, seed=seed, at=30))
            }
            assert early <= {one.id for one in order[:30]}
    assert drawn[0] == drawn[1]
    assert len(set().union(*drawn[0])) > 30


@pytest.mark.parametrize("k", [np.int8(100), np.uint8(100), np.int16(100), 10**30])
def test_how_many_hits_in_numbers_of_any_size(store: Memory, no_sync: None, k: int) -> None:
    """Numpy's small numbers do not run over, and nobody has more than a memory holds."""
    store.add_many([make_episode(number, steps=1) for number in range(110)])
    count = min(k, 110)
    for settings in ({}, {"diversity": 0.1}, {"where": lambda entry: True}, {"usefulness": 1.0}):
        assert len(store.search(Query("put a hot thing in cabinet", k=k, **settings))) == count
    assert type(Query("x", k=k).k) is int


def test_queries_are_hashed_and_compared() -> None:
    """By all that they say, whatever kind of collection it was said with."""
    asked = Query("x", exclude=["a"], fields=["goal"], only={"type": {"heat"}})  # type: ignore[arg-type]
    same = Query("x", exclude=frozenset({"a"}), only={"type": {"heat"}})
    assert asked == same
    assert hash(asked) == hash(same)
    assert len({asked, same, Query("x"), Query("x"), Query("x", k=3)}) == 3
    for wrong in ("no", 1, None):
        with pytest.raises(TypeError, match="successes_only must be True or False, not"):
            Query("x", successes_only=wrong)  # type: ignore[arg-type]
    assert Query("x", successes_only=np.bool_(True)).successes_only is True  # type: ignore[arg-type]


@pytest.mark.parametrize("splits", ["train", b"train", 5, ["train", 5]])
def test_one_split_as_a_text_is_no_set_of_splits(splits: Any) -> None:
    """Its letters would be taken for splits, and nothing would be shown."""
    for act in (
        lambda: Holdout(splits=splits),
        lambda: Holdout.strict(Task.of("g", split="train"), Purpose.ACT, splits),
    ):
        with pytest.raises(TypeError, match="splits of a holdout must be"):
            act()
