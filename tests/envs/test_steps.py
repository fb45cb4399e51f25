"""Constructors of what `reset` and `step` return."""

from typing import Any

import numpy as np
import pytest

from relive.envs.steps import restart, termination, transition, truncation


def test_they_are_gymnasiums_tuples() -> None:
    assert restart("A box.", goal="open it") == (
        "A box.", {"invalid": False, "success": False, "score": 0.0, "goal": "open it"},
    )  # fmt: skip
    assert transition("Nothing happens.", invalid=True, hint=3) == (
        "Nothing happens.", 0.0, False, False,
        {"score": 0.0, "invalid": True, "success": False, "hint": 3},
    )  # fmt: skip
    assert termination("Open.", success=True) == (
        "Open.", 1.0, True, False, {"score": 1.0, "invalid": False, "success": True},
    )  # fmt: skip
    assert termination("Open.", np.float32(1), success=np.True_)[1:] == (  # type: ignore[arg-type]
        1.0, True, False, {"score": 1.0, "invalid": False, "success": True},
    )  # fmt: skip
    assert termination("Broken.", success=False, score=0.5, reward=-1)[1:3] == (-1.0, True)
    assert truncation("Night falls.", score=0.2)[2:4] == (False, True)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: restart(None), "observation must be text"),  # type: ignore[arg-type]
        (lambda: restart("x", goal=3), "goal must be text"),  # type: ignore[arg-type]
        (lambda: transition("x", score=1.0), "is 1 for successes alone"),
        (lambda: transition("x", score=float("nan")), "it lies in"),
        (lambda: transition("x", reward="1"), "reward must be a number"),  # type: ignore[arg-type]
        (lambda: transition("x", invalid=1), "invalid must be True or False"),  # type: ignore[arg-type]
        (lambda: termination("x", success=1), "success must be True or False"),  # type: ignore[arg-type]
        (lambda: termination("x", success=False, score=1.0), "1 is the score of successes"),
        (lambda: termination("x", success=True, score=0.5), "1 is the score of successes"),
        (lambda: truncation("x", score=2.0), "is 1 for successes alone"),
    ],
)
def test_a_wrong_step_is_refused(call: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        call()
