"""A memory with damaged records, known or not yet: they are never told of as if they were there,
and nothing else is lost over them."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from relive.memory import IndexSettings, Memory, Query
from relive.memory.storage.segments import FRAME_BYTES
from tests.memory.conftest import make_episode
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
        memory.add_many([make_episode(number, GOAL, **about) for number in range(count)])
        others = range(count, count + 3)
        memory.add_many([make_episode(number, "water plants", **about) for number in others])
    damage(folder, damaged)


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
