import math

import pytest

from relive.agent.evaluation.metrics import paired, summarise, table, wilson
from relive.memory.episode import Actor, Episode, Outcome, Retrieved, Step, StopReason
from relive.task import Task


def episode(
    n: int, kind: str = "a", reason: StopReason = StopReason.SOLVED, shown: tuple[str, ...] = ()
) -> Episode:
    task = Task("toy", f"task{n}", kind, "test", "room", n, "1", "goal")
    hits = tuple(Retrieved(name, 1.0) for name in shown)
    steps = (Step("o", "x", invalid=True, retrieved=hits), Step("o", "y"))
    return Episode(
        f"e{n}{reason}",
        task,
        steps,
        "end",
        Outcome(reason is StopReason.SOLVED, 0.0, reason),
        Actor("random"),
    )


def test_wilson_agrees_with_its_equation() -> None:
    # The interval's ends are where the normal test of the proportion is exactly at z.
    for won, n in ((3, 10), (0, 7), (50, 60)):
        for end in wilson(won, n):
            if 0 < end < 1:
                assert abs(won / n - end) == pytest.approx(
                    1.96 * math.sqrt(end * (1 - end) / n), abs=1e-9
                )
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_environment_errors_are_counted_apart() -> None:
    row = summarise("all", [episode(1), episode(2, reason=StopReason.ENVIRONMENT_ERROR)], {})
    assert (row.n, row.errors, row.success) == (1, 1, 1.0)


def test_rates_of_invalid_actions_and_right_procedures() -> None:
    row = summarise(
        "all",
        [episode(1, "a", shown=("m1", "m2")), episode(2, "b", shown=("m1",))],
        {"m1": "a", "m2": "b"},
    )
    assert row.invalid == 0.5
    assert row.right_type == pytest.approx(1 / 3)
    assert summarise("all", [episode(1)], {}).right_type is None


def test_table_has_types_groups_and_all() -> None:
    rows = table([episode(1, "a"), episode(2, "b"), episode(3, "c")], {"easy": ("a", "b")}, {})
    assert [row.name for row in rows] == ["a", "b", "c", "easy", "all"]
    assert [row.n for row in rows] == [1, 1, 1, 2, 3]


def test_paired_difference_uses_common_tasks_only() -> None:
    lost = StopReason.STEP_LIMIT
    first = [episode(n) for n in range(30)]
    second = [episode(n, reason=lost if n % 2 else StopReason.SOLVED) for n in range(20)]
    result = paired(first, second)
    assert (result.n, result.difference) == (20, 0.5)
    assert result.low < 0.5 < result.high
    one = paired(first, [episode(3, reason=lost)])
    assert (one.n, one.difference, one.low, one.high) == (1, 1.0, -1.0, 1.0)
    with pytest.raises(ValueError, match="none in common"):
        paired(first, [episode(99)])


@pytest.mark.parametrize("n", [1, 7, 48, 60, 64, 102, 360])
def test_the_rate_itself_lies_in_its_interval(n: int) -> None:
    """Also at 0 and 100 %, where rounding once put it outside and the picture of the rounds
    failed."""
    for successes in {0, 1, n // 2, n - 1, n}:
        low, high = wilson(successes, n)
        assert 0.0 <= low <= successes / n <= high <= 1.0
