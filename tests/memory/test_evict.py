"""Who has to go, and who stays whatever happens."""

import random
from collections import Counter

import pytest

from relive.memory.maintenance.evict import POLICIES, Candidate, victims


def entries(*kinds: int, failures: set[int] | None = None) -> list[Candidate]:
    """One entry per type given, in the order of the log; some of them failures."""
    failed = failures or set()
    return [Candidate(n, kind, n not in failed, 0.0, float(n)) for n, kind in enumerate(kinds)]


def test_the_oldest_go_first() -> None:
    """In the order in which they came, however they are listed, and no more than necessary."""
    listed = entries(1, 1, 1, 1, 1)
    assert victims(listed, capacity=3) == victims(listed[::-1], capacity=3) == [0, 1]
    assert victims(listed, capacity=5) == victims(listed, capacity=9) == []
    assert victims([], capacity=0) == []


def test_no_type_is_forgotten() -> None:
    """So many successes of each type stay, even if that is more than there is room for."""
    listed = entries(1, 2, 1, 2, 1, 2, 1, 1, 3)
    assert victims(listed, capacity=0, keep_per_type=2) == [0, 1, 2, 4]
    assert victims(listed, capacity=0, keep_per_type=0) == list(range(9))
    assert victims(listed, capacity=8, keep_per_type=4) == [0]
    assert victims(listed, capacity=8, keep_per_type=5) == []


def test_failures_are_not_spared() -> None:
    """They are not what a type is remembered by."""
    listed = entries(1, 1, 1, 2, failures={1, 2, 3})
    assert victims(listed, capacity=0) == [1, 2, 3]


def test_the_least_useful_go_first() -> None:
    """Among equals failures, then the oldest."""
    listed = [
        Candidate(0, 1, True, 0.2, 0.0),
        Candidate(1, 1, True, 0.0, 1.0),
        Candidate(2, 1, False, 0.0, 2.0),
        Candidate(3, 1, False, -0.1, 3.0),
        Candidate(4, 1, True, 0.0, 4.0),
    ]
    assert victims(listed, capacity=0, by="usefulness", keep_per_type=0) == [3, 2, 1, 4, 0]
    assert victims(listed, capacity=2, by="usefulness", keep_per_type=2) == [3, 2, 1]


def test_the_largest_type_gives() -> None:
    """Its oldest, until another is larger; of equally large ones the one with the oldest entry."""
    listed = entries(1, 2, 2, 2, 1, 2, 3)
    assert victims(listed, capacity=3, by="largest-type", keep_per_type=1) == [1, 2, 0, 3]


def test_what_is_spared_still_counts_for_its_type() -> None:
    """A type whose oldest entries stay is as large as before."""
    # Type 1: two successes, which stay, and three failures; type 2: four failures, one of them
    # older than those.
    listed = entries(1, 1, 2, 1, 1, 1, 2, 2, 2, failures=set(range(2, 9)))
    assert victims(listed, capacity=8, by="largest-type") == [3]
    assert victims(listed, capacity=6, by="largest-type") == [3, 2, 4]


def test_before_a_time() -> None:
    """By when they started, not when they were added; with a capacity, both."""
    listed = [
        Candidate(0, 1, True, 0.0, 30.0),
        Candidate(1, 1, True, 0.0, 10.0),
        Candidate(2, 1, False, 0.0, 19.0),
        Candidate(3, 1, True, 0.0, 20.0),
    ]
    assert victims(listed, before=20.0) == [1, 2]
    assert victims(listed, before=99.0, keep_per_type=1) == [0, 1, 2]
    assert victims(listed, before=20.0, capacity=1, keep_per_type=0) == [1, 2, 0]
    assert victims(listed, before=5.0) == []


def test_random_is_fixed_and_not_the_order_of_the_log() -> None:
    """The same every time, whoever else is there."""
    listed = entries(*[1] * 50)
    gone = victims(listed, capacity=10, by="random")
    assert gone == victims(listed[::-1], capacity=10, by="random")
    assert sorted(gone) != gone
    assert (
        victims(listed[:49], capacity=10, by="random")
        == [sequence for sequence in gone if sequence != 49][:39]
    )


@pytest.mark.parametrize("by", POLICIES)
def test_promises_of_every_policy(by: str) -> None:
    """Random memories: the capacity is met unless successes that must stay forbid it; nobody goes
    twice."""
    draw = random.Random(1)
    for _ in range(60):
        listed = [
            Candidate(
                3 * n,
                draw.randrange(4),
                draw.random() < 0.6,
                draw.choice([-0.1, 0.0, 0.2]),
                draw.random(),
            )
            for n in range(draw.randrange(40))
        ]
        capacity, keep = draw.randrange(40), draw.randrange(4)
        gone = victims(listed, capacity=capacity, by=by, keep_per_type=keep)
        assert len(set(gone)) == len(gone)
        left = [entry for entry in listed if entry.sequence not in gone]
        had = Counter(entry.type for entry in listed if entry.success)
        has = Counter(entry.type for entry in left if entry.success)
        assert all(has[kind] >= min(keep, had[kind]) for kind in had)
        if len(left) > capacity:
            assert all(entry.success and has[entry.type] <= keep for entry in left)
        else:
            assert not gone or len(left) == capacity


def test_refusals() -> None:
    """Each says what would do."""
    with pytest.raises(
        ValueError, match=r"unknown eviction policy 'size'; use one of age, usefulness"
    ):
        victims([], capacity=1, by="size")
    with pytest.raises(ValueError, match="needs a capacity"):
        victims([])
    with pytest.raises(ValueError, match="cannot be negative"):
        victims([], capacity=-1)
