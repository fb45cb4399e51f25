"""What an entry is worth: compared with runs that did not have it, and nothing believed of two
lucky ones."""

import random

import pytest

from relive.memory.search.usefulness import PRIOR, Run, UsefulnessTable

ENTRY, OTHER = 1000, 1001


class History:
    """Runs, told to a table one after the other."""

    def __init__(self) -> None:
        self.table = UsefulnessTable()
        self.count = 0

    def run(
        self,
        success: bool,
        *shown: int,
        task: int = 1,
        kind: int = 1,
        policy: int = 1,
        times: int = 1,
    ) -> None:
        """So many runs that ended alike."""
        for _ in range(times):
            self.count += 1
            for entry in (None, *shown):
                self.table.take(Run(self.count, task, kind, policy, success), entry)


def test_nothing_is_known_of_what_was_never_shown() -> None:
    """Zero, not a guess."""
    history = History()
    assert not history.table
    history.run(True, times=5)
    assert not history.table
    found = history.table.of(ENTRY)
    assert (found.value, found.shown, found.solved, found.expected) == (0, 0, 0, 0)
    assert history.table.values([ENTRY, OTHER]).tolist() == [0, 0]
    assert history.table.values([]).shape == (0,)


def test_nobody_to_compare_with_means_no_difference() -> None:
    """Whether all runs succeed or fail: without others, the entry made no difference as far as
    anyone can tell."""
    for success in (True, False):
        history = History()
        history.run(success, ENTRY, times=20)
        assert history.table
        found = history.table.of(ENTRY)
        assert (found.value, found.shown, found.solved) == (0, 20, 20 * success)


def test_one_task_by_hand() -> None:
    """Ten runs without it, four solved; six with it, all solved."""
    history = History()
    history.run(True, times=4)
    history.run(False, times=6)
    history.run(True, ENTRY, times=6)
    # The type's other runs are the task's: rate 0.4, and drawing 0.4 towards 0.4 changes nothing.
    found = history.table.of(ENTRY)
    assert found.expected == pytest.approx(6 * 0.4)
    assert found.value == pytest.approx((6 - 2.4) / (6 + PRIOR))
    assert (found.shown, found.solved) == (6, 6)


def test_the_task_counts_more_than_its_type() -> None:
    """An entry that is shown on easy tasks only gets no credit for their being easy."""
    history = History()
    history.run(True, task=1, times=50)
    history.run(False, task=2, times=50)
    history.run(True, ENTRY, task=1, times=10)
    history.run(True, OTHER, task=2, times=10)
    # Task 1 without the entry: 50 of 50; its type without it: 60 of 110 (those that showed OTHER
    # count).
    assert history.table.of(ENTRY).expected == pytest.approx(
        10 * (50 + PRIOR * 60 / 110) / (50 + PRIOR)
    )
    assert history.table.of(ENTRY).value < 0.05
    assert history.table.of(OTHER).value > 0.6
    assert history.table.values([OTHER, 5, ENTRY])[1] == 0
    assert history.table.values([OTHER, ENTRY])[0] == history.table.of(OTHER).value


def test_of_a_new_task_its_type_is_all_there_is() -> None:
    """Other policies and other types are not compared with."""
    history = History()
    history.run(True, task=1, times=3)
    history.run(False, task=1, times=1)
    history.run(False, task=7, policy=2, times=40)
    history.run(False, task=8, kind=2, times=40)
    history.run(False, ENTRY, task=7)
    found = history.table.of(ENTRY)
    assert found.expected == pytest.approx(0.75)
    assert found.value == pytest.approx(-0.75 / (1 + PRIOR))


def test_two_lucky_runs_are_not_believed() -> None:
    """The same share of successes is worth more the more often it was seen, and never more than
    one."""
    values = []
    for times in (1, 2, 10, 100, 1000):
        history = History()
        history.run(False, times=100)
        history.run(True, ENTRY, times=times)
        values.append(history.table.of(ENTRY).value)
    assert values == sorted(values)
    assert values[1] < 0.4
    assert 0.9 < values[-1] < 1


def test_a_run_that_showed_several_counts_once() -> None:
    """For each of them, and once among the runs of its task."""
    history = History()
    history.run(True, ENTRY, OTHER, times=3)
    history.run(False, OTHER)
    # Without ENTRY there is one run, without OTHER none.
    assert history.table.of(ENTRY).expected == pytest.approx(3 * (0 + PRIOR * 0) / (1 + PRIOR))
    assert history.table.of(ENTRY).shown == 3
    assert (history.table.of(OTHER).shown, history.table.of(OTHER).solved) == (4, 3)
    assert history.table.of(OTHER).value == pytest.approx(
        (3 - 4 * (0 + PRIOR * 0.75) / PRIOR) / (4 + PRIOR)
    )


def test_it_finds_what_helps() -> None:
    """Simulated: tasks of all degrees of difficulty, one entry that adds 0.3, one that takes 0.3,
    one that does nothing."""
    draw = random.Random(0)
    history = History()
    effects = {1: 0.3, 2: -0.3, 3: 0.0}
    for _ in range(4000):
        task = draw.randrange(20)
        entry = draw.choice([*[None] * 9, 1, 2, 3])
        chance = 0.35 + 0.3 * task / 20 + effects.get(entry or 0, 0.0)
        history.run(draw.random() < chance, *([entry] if entry else []), task=task, kind=task % 2)
    values = history.table.values([1, 2, 3])
    assert values == pytest.approx([0.3, -0.3, 0.0], abs=0.1)
