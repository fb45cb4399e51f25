"""What a person is shown of results: tables, and a picture of success over rounds."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from ...extras import needs
from .metrics import Row, wilson
from .terminal import silence, visible


class _Console(Console):
    """A console that shows as text what would command a terminal; its own colours it keeps."""

    def render_str(self, text: str, **style: Any) -> Text:
        """A text as it is measured and shown."""
        return super().render_str(visible(text, lines=True), **style)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The pieces of whatever is shown; control codes are pieces of their own kind."""
        for piece in super().render(renderable, options):
            text = piece.text if piece.control else visible(piece.text, lines=True)
            yield Segment(text, piece.style, piece.control)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as always, but results, which are never cut."""
        whole = any(isinstance(one, _Results) for one in objects)
        super().print(*objects, **{"crop": not whole} | how)

    def on_broken_pipe(self) -> None:
        """Nobody reads any more: progress goes on unseen, what was asked for ends as any error
        does."""
        if not self.stderr:
            raise BrokenPipeError("nobody reads standard output any more")
        self.quiet = True
        silence(sys.stderr)


def console(*, error: bool = False) -> Console:
    """Where tables go, on standard output; or where progress is shown, on standard error."""
    # Markup and emoji are off: actions and observations are other people's text, brackets and
    # colons included.
    if error:
        return _Console(stderr=True, highlight=False, markup=False, emoji=False)
    # Not a terminal: wide enough for a table, whatever the width of the terminal that is not there.
    width = None if sys.stdout.isatty() else 120
    return _Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)


def percent(value: float | None) -> str:
    """A rate as a person reads it."""
    return "–" if value is None else f"{100 * value:.1f}"


class _Results(Table):
    """A table whose numbers are whole however little room there is: first its headings break, then
    it has no space around its cells, then names are folded; a table that is wider still is printed
    at its width."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name, *numbers = self.columns
        wanted = _width(name, str(name.header))
        for breaks, space in ((False, 1), (True, 1), (True, 0)):
            for column in numbers:
                heading = str(column.header)
                words = heading.split() if breaks else [heading]
                column.width = _width(column, *words)
            around = (2 * space + 1) * len(self.columns) + 1
            left = options.max_width - around - sum(column.width or 0 for column in numbers)
            self.padding = (0, space)
            if left >= wanted:
                break
        name.width = min(wanted, max(left, _LEAST))
        yield from super().__rich_console__(
            console, options.update_width(options.max_width + max(0, name.width - left))
        )


_LEAST = 8
"""Columns in which a name can be read."""


def _width(column: Column, *words: str) -> int:
    """Of the widest of a column's cells and some words."""
    return max(map(cell_len, (*map(str, column.cells), *words)))


def results_table(rows: Sequence[Row], title: str = "") -> Table:
    """Success per type with its interval, and what else says how it came about: scores where they
    are not success itself, what the memory showed, and what it cost."""
    table = _Results(title=visible(title) or None, title_justify="left")
    table.add_column("task type", overflow="fold")
    columns = [(name, cell) for name, cell, there in _COLUMNS if any(map(there, rows))]
    for name, _ in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(visible(row.name), *(cell(row) for _, cell in columns))
    return table


def _played(row: Row) -> str:
    lost = f" (+{row.errors} lost)" if row.errors else ""
    return f"{row.n}{lost}" + (f" ({row.policy_errors} raised)" if row.policy_errors else "")


def _always(row: Row) -> bool:
    return True


_COLUMNS: tuple[tuple[str, Callable[[Row], str], Callable[[Row], bool]], ...] = (
    ("n", _played, _always),
    ("success %", lambda row: percent(row.success), _always),
    ("95 %", lambda row: f"{percent(row.low)}–{percent(row.high)}", _always),
    ("score %", lambda row: percent(row.score), lambda row: abs(row.score - row.success) > 1e-9),
    ("best %", lambda row: percent(row.best), lambda row: row.best - row.score > 1e-9),
    ("steps", lambda row: f"{row.steps:.1f}", _always),
    ("invalid %", lambda row: percent(row.invalid), _always),
    (
        "shown",
        lambda row: "–" if row.shown is None else f"{row.shown:.1f}",
        lambda row: row.shown is not None,
    ),
    ("precision@k %", lambda row: percent(row.right_type), _always),
    (
        "tokens",
        lambda row: "–" if row.tokens is None else f"{row.tokens:,.0f}",
        lambda row: row.tokens is not None,
    ),
    (
        "cost",
        lambda row: "–" if row.cost is None else f"{row.cost:.4f}",
        lambda row: row.cost is not None,
    ),
)
"""Name, cell, and whether any row has something to say in it."""


def picture_of_rounds(
    file: Path, rounds: Sequence[dict[str, Any]], held_out: dict[str, dict[str, float]]
) -> None:
    """Success of the training rollouts over rounds, and the held-out comparison, as a PNG.

    Args:
        file: where to.
        rounds: with keys round, episodes, success (of the training tasks), adapter (in force after
            the round), validation.
        held_out: by condition: success, n, low, high.
    """
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), width_ratios=(3, 2))
    xs, ys = [r["round"] for r in rounds], [100 * r["success"] for r in rounds]
    spans = [wilson(round(r["success"] * r["episodes"]), r["episodes"]) for r in rounds]
    spread = [
        [max(0.0, y - 100 * low) for y, (low, _) in zip(ys, spans, strict=True)],
        [max(0.0, 100 * high - y) for y, (_, high) in zip(ys, spans, strict=True)],
    ]
    left.errorbar(
        xs, ys, yerr=spread, marker="o", capsize=3, label="training tasks, while exploring"
    )
    played_by = ["", *(r["adapter"] for r in rounds[:-1])]
    for r, y, adapter in zip(rounds, ys, played_by, strict=True):
        left.annotate(
            adapter or "base",
            (r["round"], y),
            textcoords="offset points",
            xytext=(5, -11),
            fontsize=8,
        )
    checked = [
        (r["round"], 100 * r["validation"]) for r in rounds if r.get("validation") is not None
    ]
    left.plot(
        [number for number, _ in checked],
        [rate for _, rate in checked],
        marker="s",
        linestyle="--",
        label="validation, policy after the round",
    )
    left.set(xlabel="round", ylabel="success %", ylim=(0, 103), title="success over rounds")
    left.set_xticks(xs)
    left.legend(loc="lower left", fontsize=8)
    names = list(held_out)
    tops = [100 * held_out[n]["success"] for n in names]
    errors = [
        [max(0.0, t - 100 * held_out[n]["low"]) for t, n in zip(tops, names, strict=True)],
        [max(0.0, 100 * held_out[n]["high"] - t) for t, n in zip(tops, names, strict=True)],
    ]
    right.bar(
        [n.replace("_", "\n") for n in names],
        tops,
        yerr=errors,
        capsize=3,
        color=["#999999", "#4878a8", "#2a5580"][: len(names)],
    )
    right.set(ylim=(0, 103), title="unseen rooms, held-out types")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def pyplot() -> Any:
    """matplotlib's pyplot, drawing into files: no display is needed, and none may be there."""
    needs("plots")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
