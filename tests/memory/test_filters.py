"""Found by any key, whatever is wanted of it: answers are those of an oracle that compares
everything."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relive.memory import Episode, HashedEmbedder, Hit, IndexSettings, Memory, Query
from relive.memory.search.fields import field_texts, query_text
from relive.memory.storage.catalog import FIELDS
from tests.memory.conftest import HOLDOUT, Make, found, goal, indexes

pytestmark = pytest.mark.usefixtures("no_sync")


STEPS = [
    ("go to fridge", "The fridge is closed."),
    ("open fridge", "You see a melon."),
    ("take melon", "You take it."),
]


def told(make: Make, number: int, text: str, first: str, steps: list[tuple[str, str]]) -> Episode:
    """An episode of which one knows what was seen when."""
    seen = [first, *(observation for _, observation in steps)]
    made = make(number, text, steps=len(steps))
    acted = tuple(
        replace(step, observation=seen[i], action=steps[i][0]) for i, step in enumerate(made.steps)
    )
    return replace(made, steps=acted, final_observation=seen[-1])


def test_found_by_more_than_the_goal(folder: Path, episode: Make) -> None:
    """By what was seen first and by what a dynamic query would have said; a hit says by which."""
    with Memory(folder, fields=["window", "first"]) as memory:
        assert memory.fields == ("goal", "first", "window")
        memory.add(told(episode, 0, "cool a melon", "You are in a kitchen with a window.", STEPS))
        memory.add(
            told(episode, 1, "water the plant", "You stand in a garden, at night.", STEPS[:1])
        )
        memory.add(episode(2, "look at the clock", steps=0))

        def best(text: str, *fields: str) -> Hit:
            return memory.search(Query(text, k=1, fields=fields), HOLDOUT)[0]

        assert best("water the plant", "goal").explanation.field == "goal"
        hit = best("You stand in a garden, at night.", "goal", "first")
        assert (hit.episode_id, hit.explanation.field, hit.score) == (
            "episode-1",
            "first",
            pytest.approx(1),
        )
        for end in range(3):
            hit = best(query_text("cool a melon", STEPS[:end]), "window")
            assert (hit.episode_id, hit.explanation.field, hit.score) == (
                "episode-0",
                "window",
                pytest.approx(1),
            )
        # Without steps, an episode's only window is its goal.
        assert best("look at the clock", "window").score == pytest.approx(1)
        assert best("look at the clock", "goal", "window").explanation.field == "goal"
        assert len(found(memory, "cool a melon", fields=("window",))) == 3
    with pytest.raises(ValueError, match=r"unknown fields \['last'\]"):
        Memory(folder, "r", fields=["last"])
    with pytest.raises(ValueError, match="unknown fields"):
        Query("x", fields=("last",))


def test_an_old_memory_gets_more_keys(folder: Path, episode: Make) -> None:
    """A writer adds them for good, a reader for itself; without them, asking says what to do."""
    with Memory(folder) as memory:
        memory.add_many(
            [told(episode, n, goal(n), f"You see place{n} there.", STEPS) for n in range(20)]
        )
        memory.delete("episode-3")
        with pytest.raises(
            ValueError,
            match=r"no field first: open it once with mode='w' and fields=\(\.\.\., 'first'\)",
        ):
            found(memory, "x", fields=("goal", "first"))
    described = (folder / "memory.json").read_bytes()
    with Memory(folder, "r", fields=["first"]) as reader:
        assert found(reader, "You see place7 there.", fields=("first",), k=1) == ["episode-7"]
        assert reader.stats().embedded == 20
    assert (folder / "memory.json").read_bytes() == described
    with Memory(folder, "w", fields=["first", "window"]) as memory:
        assert memory.fields == ("goal", "first", "window")
        assert memory.stats().embedded == 20 + 3 * 20
        memory.add(told(episode, 20, goal(20), "You see place20 there.", STEPS))
    for mode in ("r", "w"):
        with Memory(folder, mode) as memory:
            assert memory.fields == ("goal", "first", "window")
            assert (memory.stats().embedded, memory.stats().damage) == (0, ())
            for number in (7, 20):
                assert found(memory, f"You see place{number} there.", fields=("first",), k=1) == [
                    f"episode-{number}"
                ]
                text = query_text(goal(number), STEPS[:2])
                assert found(memory, text, fields=("window",), k=1) == [f"episode-{number}"]
            assert "episode-3" not in found(
                memory, "You see place3 there.", fields=("first", "window")
            )


class Oracle:
    """What is to be found, in the plainest words. Episodes are at the positions that are their
    numbers."""

    def __init__(self, made: list[Episode]) -> None:
        self.made = made
        self.deleted: dict[int, int] = {}
        """Number of an episode, and position of its deletion."""
        embed = HashedEmbedder().encode
        self.vectors = {
            key: [embed(field_texts(key, one)) for one in made] for key in ("goal", "first")
        }

    def wanted(self, query: Query, number: int, at: int) -> bool:
        """Whether an episode may be shown, and is wanted."""
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
            there
            and kept
            and success
            and task.split == "train"
            and all(fields[n] in v for n, v in query.only.items())
        )

    def scores(self, query: Query, at: int) -> list[float]:
        """Scores of the best."""
        vector = HashedEmbedder().encode([query.text])[0]
        scores = [
            max(
                float(np.round(self.vectors[key][number] @ vector, 5).max()) for key in query.fields
            )
            for number in range(len(self.made))
            if self.wanted(query, number, at)
        ]
        return sorted(
            (s for s in scores if query.min_score is None or s >= query.min_score), reverse=True
        )[: query.k]


@pytest.mark.parametrize("engine", ["", *indexes()])
def test_filters_at_any_selectivity_against_the_oracle(
    folder: Path, episode: Make, engine: str, request: pytest.FixtureRequest
) -> None:
    """`only` that keeps nearly all, a half, a handful or nobody; with deletions, old positions,
    several fields, and a graph."""
    approximate = bool(engine)
    if engine == "lancedb":
        request.getfixturevalue("small_samples")
    index = IndexSettings()
    if approximate:
        index = IndexSettings(engine=engine, exact_limit=60, publish_rows=40)
    draw = random.Random(4)
    made = []
    for number in range(300):
        kind = (
            "common" if number % 2 else draw.choice(["half", "half", "tenth", f"rare{number % 50}"])
        )
        text = (
            f"{draw.choice(['put a hot', 'put a clean', 'find two', 'look at'])} "
            f"thing{draw.randrange(60)} in box"
        )
        one = episode(
            number,
            text,
            split=draw.choice(["train"] * 9 + ["test"]),
            success=draw.random() < 0.7,
            task_type=kind,
        )
        one = replace(
            one,
            actor=replace(one.actor, policy=draw.choice(["a", "b"]), adapter=f"v{number // 100}"),
        )
        seen = f"You see {draw.choice(['a mug', 'two pens', 'it'])} near{number % 90} the box."
        made.append(replace(one, steps=(replace(one.steps[0], observation=seen), *one.steps[1:])))
    with Memory(folder, fields=["goal", "first"], index=index) as memory:
        memory.add_many(made[:150])
        memory.add_many(made[150:])
        if approximate:
            memory.publish_index()
            assert memory.stats().index_entries == 300
        oracle = Oracle(made)
        for number in draw.sample(range(300), 60):
            oracle.deleted[number] = memory.delete(f"episode-{number}") - 1
        filters: list[dict[str, list[str]]] = [
            {}, {"type": ["common"]}, {"type": ["half", "tenth"]}, {"type": ["tenth"]},
            {"type": ["rare7", "rare8", "rare9"]}, {"type": ["nobody"]},
            {"policy": ["a"], "adapter": ["v0", "v2"]}, {"split": ["test"]},
            {"suite": ["household"]},
            {"suite": ["household"], "split": ["train"], "type": ["common", "half"],
             "policy": ["b"], "adapter": ["v1"]},
        ]  # fmt: skip
        assert {name for one in filters for name in one} == set(FIELDS)
        exact = Counter[bool]()
        for number in range(120):
            query = Query(
                draw.choice(
                    [draw.choice(made).task.goal, made[draw.randrange(300)].steps[0].observation]
                ),
                k=draw.choice([1, 3, 20]),
                min_score=draw.choice([None, None, 0.4]),
                successes_only=draw.random() < 0.3,
                only=filters[number % len(filters)],
                fields=draw.choice([("goal",), ("first",), ("goal", "first")]),
                where=draw.choice([None, None, lambda entry: entry.task.seed % 7 == 0]),
            )
            at = draw.choice([memory.position, memory.position, 330, 300, 120, 40])
            hits = memory.search(query, HOLDOUT, at)
            assert [hit.score for hit in hits] == pytest.approx(oracle.scores(query, at), abs=2e-5)
            assert len({hit.episode_id for hit in hits}) == len(hits)
            assert all(oracle.wanted(query, hit.position, at) for hit in hits)
            exact.update(hit.explanation.exact for hit in hits)
        assert exact[True] > 100
        assert (exact[False] > 50) == approximate


def test_the_closest_by_any_key_although_many_closer_ones_are_refused(
    folder: Path, episode: Make
) -> None:
    """All that one key proposes first is unwanted: what it would have proposed next counts before
    what another key has."""
    with Memory(folder, fields=["goal", "first"]) as memory:
        for number in range(120):
            seen = "put a hot mug in cabinet" if number < 60 else f"walk a{number} b"
            seen = "put a hot cup in the cabinet" if number == 90 else seen
            memory.add(told(episode, number, f"zebra{number} q{number % 7}", seen, STEPS[:1]))
        query = Query(
            "put a hot mug in cabinet",
            k=1,
            fields=("goal", "first"),
            where=lambda entry: entry.task.seed >= 60,
        )
        (hit,) = memory.search(query, HOLDOUT)
        assert (hit.episode_id, hit.explanation.field) == ("episode-90", "first")
        closer = replace(query, min_score=0.5, k=9)
        assert [hit.episode_id for hit in memory.search(closer, HOLDOUT)] == ["episode-90"]
