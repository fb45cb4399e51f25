"""A memory with damaged records, known or not yet: they are never told of as if they were there,
and nothing else is lost over them."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relive.memory import Episode, IndexSettings, Memory, Query
from relive.memory.storage.segments import FRAME_BYTES
from relive.memory.transfer import export_file
from tests.memory.conftest import make_episode, shown
from tests.memory.faults import only, records_of

pytestmark = pytest.mark.usefixtures("no_sync")
LONG = "long " * 12
"""An id that does not fit the catalog."""
GOAL = "put a hot mug in cabinet"


def damage(folder: Path, numbers: Collection[int]) -> None:
    """Turn a bit over in the payload of the records with these numbers."""
    segment = only(folder, "log/*.log")
    data = bytearray(segment.read_bytes())
    for number, (first, _, _) in enumerate(records_of(segment)):
        if number in numbers:
            data[first + FRAME_BYTES + 5] ^= 16
    segment.write_bytes(data)


def build(folder: Path, count: int, damaged: Collection[int], **about: Any) -> None:
    """Episodes with the same goal, some of them damaged, and three others behind them."""
    with Memory(folder) as memory:
        goals = range(len(memory), count)
        memory.add_many([make_episode(number, GOAL, **about) for number in goals])
        others = range(count, count + 3)
        memory.add_many([make_episode(number, "water plants", **about) for number in others])
    damage(folder, damaged)


def twin(number: int) -> Episode:
    """Another episode of the same task with the same actions."""
    return replace(make_episode(number, GOAL), id="twin")


@pytest.fixture
def unnamed(folder: Path) -> Path:
    """Five episodes; the second is damaged, and its id cannot be read."""
    with Memory(folder) as memory:
        made = [make_episode(number, GOAL) for number in range(5)]
        memory.add_many([made[0], replace(made[1], id=LONG), *made[2:]])
    damage(folder, {1})
    return folder


LEFT = ["episode-0", "episode-2", "episode-3", "episode-4"]


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (lambda m: [episode.id for episode in m.iterate()], LEFT),
        (lambda m: [entry.episode_id for entry in m.entries()], LEFT),
        (lambda m: list(m.vectors()[0]), LEFT),
        (lambda m: m.vectors()[1].shape[0], 4),
        (lambda m: list(m.evict(capacity=0, keep_per_type=0)), LEFT),
        (lambda m: sorted(dict(m.draw(Query(GOAL), 5, seed=1))), LEFT),
        (lambda m: sorted(hit.episode_id for hit in m.search(GOAL, k=5)), LEFT),
        (lambda m: m.duplicate_of(twin(1)), None),
        (lambda m: (m.add(twin(1), deduplicate=True), "twin" in m), (6, True)),
        (lambda m: export_file(m, m.path / "all.jsonl"), 4),
    ],
)  # fmt: skip
def test_an_id_that_cannot_be_read(
    unnamed: Path, ask: Callable[[Memory], object], answer: object
) -> None:
    with Memory(unnamed) as memory:
        assert ask(memory) == answer


def test_of_several_duplicates_one_that_can_be_read_counts(folder: Path) -> None:
    """What is damaged is no reason to leave the same thing out."""
    with Memory(folder) as memory:
        memory.add_many([twin(0), replace(twin(0), id="another"), make_episode(1, GOAL)])
    damage(folder, {0})
    for known in (True, False):
        with Memory(folder, "r") as memory:
            if known:
                memory.verify()
            assert memory.duplicate_of(make_episode(0, GOAL)) == "another"
    damage(folder, {1})
    for number, known in enumerate((True, False)):
        with Memory(folder) as memory:
            if known:
                memory.verify()
            assert memory.duplicate_of(make_episode(0, GOAL)) is None
            again = replace(twin(0), id=f"again {number}")
            assert memory.add(again, deduplicate=True) == memory.position
            assert again.id in memory
            memory.delete(again.id)


@pytest.mark.parametrize("exact", [True, False])
def test_a_search_passes_over_any_number_of_them(folder: Path, exact: bool) -> None:
    """In a few turns, each of which looks at twice as many."""
    build(folder, 1200, range(1200), steps=1)
    left = {f"episode-{number}" for number in range(1200, 1203)}
    with Memory(folder, "r", index=IndexSettings(exact_limit=10_000 if exact else 10)) as memory:
        assert len(memory) == 1203
        assert {hit.episode_id for hit in memory.search(GOAL, k=3)} == left
        assert len(memory) == 3


def test_what_a_query_wants_of_them_cannot_be_told(folder: Path) -> None:
    """So they are not wanted, the first time too; what the caller's own function raises is his."""
    build(folder, 6, {1, 4})
    left = {f"episode-{number}" for number in (0, 2, 3, 5)}

    def wants(entry: object) -> bool:
        return True

    for _ in range(2):
        with Memory(folder, "r") as memory:
            for _ in range(2):
                hits = memory.search(GOAL, k=4, where=wants)
                assert {hit.episode_id for hit in hits} == left
        with Memory(folder, "r") as memory:
            assert len(memory.draw(Query(GOAL, where=wants), 99, seed=0)) == 7

    def fails(entry: object) -> bool:
        raise ValueError("of my own")

    with Memory(folder, "r") as memory, pytest.raises(ValueError, match="of my own"):
        memory.search(GOAL, where=fails)


def test_they_are_not_drawn(folder: Path) -> None:
    """Others are drawn in their place, the same whether the damage was known; where nothing is
    damaged, what was always drawn."""
    build(folder, 60, ())
    with Memory(folder, "r") as memory:
        whole = [memory.draw(Query(GOAL), 3, seed) for seed in range(30)]
    assert [name for name, _ in whole[0]] == ["episode-22", "episode-11", "episode-55"]
    gone = {f"episode-{number}" for number in range(0, 60, 3)}
    damage(folder, range(0, 60, 3))
    for known in (False, True):
        with Memory(folder, "r") as memory:
            if known:
                memory.verify()
            drawn = [memory.draw(Query(GOAL), 3, seed) for seed in range(30)]
            assert [len(one) for one in drawn] == [3] * 30
            assert not gone & {name for one in drawn for name, _ in one}
            for one, before in zip(drawn, whole, strict=True):
                assert set(one) >= {hit for hit in before if hit[0] not in gone}
            assert len(memory.draw(Query(GOAL), 99, 0)) == 43


def test_they_take_nobodys_place_when_a_memory_is_bounded(folder: Path) -> None:
    """Neither do they count for the capacity nor as the successes that stay of a type."""
    build(folder, 4, {2, 3})
    with Memory(folder) as memory:
        memory.verify()
        assert memory.evict(capacity=5, keep_per_type=0) == ()
        assert memory.evict(capacity=1, keep_per_type=4) == ("episode-0",)
        assert len(memory) == 4


def test_a_kind_is_counted_whichever_of_its_episodes_are_damaged(folder: Path) -> None:
    """Its name is read from one of the others; one of which nothing can be read is not counted."""
    with Memory(folder) as memory:
        memory.add(make_episode(0, GOAL, task_type="cool"))
    build(folder, 5, {0, 1, 2}, task_type="look")
    with Memory(folder, "r") as memory:
        stats = memory.stats()
        assert (stats.by_type, stats.by_split) == ({"look": 5}, {"train": 5})
        assert (stats.entries, stats.successes, len(memory)) == (5, 5, 5)


def test_what_helped_and_is_gone_is_not_listed(folder: Path) -> None:
    """Others are in its place."""
    with Memory(folder) as memory:
        memory.add_many([make_episode(number, GOAL) for number in range(9)])
        for number in range(9):
            run = make_episode(100 + number, identity="t")
            memory.record_outcome(shown(run, f"episode-{number}"))
            memory.record_outcome(make_episode(200 + number, identity="t", success=False))
        assert list(memory.stats().most_useful) == [f"episode-{number}" for number in range(5)]
        memory.delete("episode-1")
        assert list(memory.stats().most_useful) == [
            f"episode-{number}" for number in (0, 2, 3, 4, 5)
        ]
    damage(folder, {3})
    with Memory(folder, "r") as memory:
        memory.verify()
        assert list(memory.stats().most_useful) == [
            f"episode-{number}" for number in (0, 2, 4, 5, 6)
        ]
