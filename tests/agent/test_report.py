import io
from pathlib import Path

import pytest

from relive.agent.evaluation.metrics import Row
from relive.agent.evaluation.report import console, picture_of_rounds, results_table


def test_a_picture_is_drawn_with_and_without_adapters_and_validation(tmp_path: Path) -> None:
    rounds = [
        {"round": 1, "episodes": 10, "success": 0.5, "adapter": "", "validation": None},
        {"round": 2, "episodes": 10, "success": 0.7, "adapter": "v2", "validation": 0.6},
    ]
    held_out = {
        name: {"success": 0.5, "n": 64, "low": 0.4, "high": 0.6}
        for name in ("base", "memory_and_adapter")
    }
    picture_of_rounds(tmp_path / "p.png", rounds, held_out)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_shows_what_was_lost_and_what_raised() -> None:
    table = results_table(
        [Row("all", 8, 4, 0.2, 0.8, 9.5, 0.25, None, errors=2, policy_errors=1)], "title"
    )
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells == [
        "all", "8 (+2 lost) (1 raised)", "50.0", "20.0–80.0", "0.0", "9.5", "25.0", "–",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [120, 84, 80, 60, 20])
@pytest.mark.parametrize("name", ["all", "pick_heat_then_place_in_recep"])
def test_numbers_are_whole_on_any_terminal(width: int, name: str) -> None:
    """However narrow: headings break, names are folded, and what is wider still is not cut."""
    told = {"score": 0.5, "best": 0.5, "tokens": 12_345.0, "shown": 2.0}
    rows = [Row(name, 150, 75, 0.207, 1.0, 9.5, 0.25, 0.5, 0, **told)]  # type: ignore[arg-type]
    out = console()
    out.width, out.file = width, io.StringIO()
    out.print(results_table(rows, "title"))
    shown = out.file.getvalue().splitlines()
    numbers = next(line for line in shown if "20.7" in line)
    cells = [cell.strip() for cell in numbers.split("│")[2:-1]]
    assert cells == ["150", "50.0", "20.7–100.0", "9.5", "25.0", "2.0", "50.0", "12,345"]
    most = max(map(len, shown))
    assert most <= max(width, 75)
    if width == 120:
        assert "│ 20.7–100.0 │" in numbers
        assert any("┃ precision@k % ┃" in line for line in shown)


def test_scores_are_shown_where_they_are_not_success_itself() -> None:
    same = Row("all", 8, 4, 0.2, 0.8, 9.5, 0.25, None, 0, score=0.5, best=0.5)
    names = [str(column.header) for column in results_table([same]).columns]
    assert "score %" not in names
    assert "shown" not in names
    points = Row("all", 8, 4, 0.2, 0.8, 9.5, 0.25, None, 0, score=0.6, best=0.7, shown=1.5)
    table = results_table([same, points])
    shown = {str(c.header): list(c.cells) for c in table.columns}
    assert shown["score %"] == ["50.0", "60.0"]
    assert shown["best %"] == ["50.0", "70.0"]
    assert shown["shown"] == ["–", "1.5"]
