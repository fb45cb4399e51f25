"""Any sequence of what can be done to a memory leaves it as a plain list would be.

By default a few sequences are played. ``-m slow`` plays the seeds of ``HOSTILE_SEEDS``
("first:stop", default 1000:3000), a hundred in a test: what was played already can be left out by
giving other seeds, or by choosing tests by their names.
"""

import os
from collections.abc import Callable

import pytest

from tests.memory.hostile.oracle import Answers
from tests.memory.hostile.sequences import judge

LEAST = 0.99
"""Recall of approximate answers, over all sequences of a test."""
CHUNK = 100
FIRST, STOP = map(int, os.environ.get("HOSTILE_SEEDS", "1000:3000").split(":"))


def judge_recall(seeds: range) -> Answers:
    """Play sequences, and demand that what was found approximately is good enough."""
    answers = judge(seeds)
    assert answers.recall >= LEAST, (
        f"recall {answers.recall:.4f}: {answers.imperfect} of {answers.approximate} approximate "
        "answers lack some hits"
    )
    return answers


@pytest.mark.parametrize("first", [0, 9])
def test_sequences(first: int) -> None:
    """A sample, with vectors of all distributions; approximate answers are among those that are
    judged."""
    answers = judge_recall(range(first, first + 9))
    assert answers.exact
    assert answers.approximate


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FIRST, STOP, CHUNK))
def test_many_sequences(
    first: int, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """2,000 of them, unless told otherwise; says how many were played, and of how many searches."""
    seeds = range(first, min(first + CHUNK, STOP))
    answers = judge_recall(seeds)
    played = {"sequences": len(seeds), "exact": answers.exact, "approximate": answers.approximate}
    for name, number in {**played, "recall": answers.recall}.items():
        record_property(name, number)
    with capsys.disabled():
        print(f"\nseeds {seeds.start} to {seeds.stop - 1}: {played}, recall {answers.recall:.4f}")
