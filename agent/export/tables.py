"""Two tables: ``episodes.csv`` and ``steps.csv``, joined by the column ``episode``.

Every text stands in quotes, so that line ends, commas and quotes in it survive; numbers do not, and
one that is not finite is ``nan``, ``inf`` or ``-inf``. Texts are written as they are, also those
that a spreadsheet takes for formulas; `spreadsheet` writes an apostrophe before these.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from ...memory.episode import Episode
from ...memory.plain import counted
from .report import Report
from .rows import EPISODE, STEP, Cell, episode_row, step_rows
from .whole import new_folder

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula, or passes over to find one."""


class _Table:
    """A file of rows; texts are guarded where that is asked for, else counted."""

    def __init__(self, file: io.TextIOBase, columns: Iterable[str], spreadsheet: bool) -> None:
        self.formulas, self._spreadsheet = 0, spreadsheet
        self._columns = list(columns)
        self._writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        self._writer.writerow(self._columns)

    def add(self, row: dict[str, Cell]) -> None:
        self._writer.writerow([self._cell(row[name]) for name in self._columns])

    def _cell(self, cell: Cell) -> str | float:
        if cell is None or isinstance(cell, bool):
            return "" if cell is None else str(cell).lower()
        if isinstance(cell, str) and cell.startswith(_FORMULA):
            self.formulas += 1
            return f"'{cell}" if self._spreadsheet else cell
        return cell


def export_tables(episodes: Iterable[Episode], path: Path, spreadsheet: bool = False) -> Report:
    """Write the two tables into a new folder; it is there in full or not at all.

    Args:
        episodes: what is exported; read once, one at a time.
        path: of the folder, which must not exist.
        spreadsheet: write an apostrophe before a text that a spreadsheet takes for a formula.

    Raises:
        FileExistsError: there is something at the path.
        OSError: it could not be written.
    """
    report = Report()
    with (
        new_folder(path) as folder,
        (folder / "episodes.csv").open("w", encoding="utf-8", newline="") as one,
        (folder / "steps.csv").open("w", encoding="utf-8", newline="") as other,
    ):
        by_episode = _Table(one, EPISODE, spreadsheet)
        by_step = _Table(other, STEP, spreadsheet)
        for episode in episodes:
            by_episode.add(episode_row(episode, report))
            for row in step_rows(episode, report):
                by_step.add(row)
            report.episodes += 1
            report.steps += len(episode.steps)
    formulas = by_episode.formulas + by_step.formulas
    if formulas and not spreadsheet:
        report.notes.append(
            f"texts that begin as formulas do: {formulas}; before you open the tables with a "
            "spreadsheet, write them with --spreadsheet, which puts an apostrophe there"
        )
    elif formulas:
        report.notes.append(
            f"{counted(formulas, 'text')} with an apostrophe in front, as --spreadsheet asks"
        )
    return report
