"""What an entry is worth: how runs ended that had it in context, against runs of the same tasks
that did not.

Every run is one line: which entries were shown, which task, by which policy, and whether it was
solved. For an entry, each run that showed it is compared with what was to be expected without it:
the success rate of the same policy on the same task when the entry was not shown, drawn towards
that of the task's type while such runs are few. The mean difference is drawn towards zero while the
entry was shown rarely, so nothing is believed of two lucky runs.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..storage.catalog import GAP, NEVER, SUCCESS, Catalog
from ..storage.ingest import CREDIT
from ..storage.segments import Kind

PRIOR = 4.0
"""Runs that the prior counts as."""


@dataclass(frozen=True, slots=True)
class Usefulness:
    """What is known of an entry's worth."""

    value: float
    """Estimated difference in success rate that showing it makes, in [-1, 1]; 0 where nothing is
    known."""
    shown: int
    """Runs that had it in context."""
    solved: int
    """How many of them reached the goal."""
    expected: float
    """How many of them would have without it, as far as other runs tell."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as the log has it."""

    number: int
    """Sequence number of its record."""
    task: int
    """Hashes of what was run and by whom."""
    type: int
    policy: int
    success: bool


class _Tally:
    """Runs and successes."""

    __slots__ = ("runs", "solved")

    def __init__(self) -> None:
        self.runs = self.solved = 0

    def add(self, success: bool) -> None:
        self.runs += 1
        self.solved += success


class UsefulnessTable:
    """Runs so far, and who was shown in them. Entries are named by the sequence numbers of their
    records."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[int, int], _Tally] = defaultdict(_Tally)
        self._types: dict[tuple[int, int], _Tally] = defaultdict(_Tally)
        self._shown: dict[int, list[Run]] = defaultdict(list)
        self._last = -1

    def __bool__(self) -> bool:
        return bool(self._shown)

    def take(self, run: Run, entry: int | None) -> None:
        """Take in that a run showed an entry, or none; a run that showed several is told several
        times in a row."""
        if run.number != self._last:
            self._last = run.number
            self._tasks[run.policy, run.task].add(run.success)
            self._types[run.policy, run.type].add(run.success)
        if entry is not None:
            self._shown[entry].append(run)

    def of(self, entry: int) -> Usefulness:
        """What is known of an entry."""
        runs = self._shown.get(entry, [])
        on_task: dict[tuple[int, int], _Tally] = defaultdict(_Tally)
        on_type: dict[tuple[int, int], _Tally] = defaultdict(_Tally)
        for run in runs:
            on_task[run.policy, run.task].add(run.success)
            on_type[run.policy, run.type].add(run.success)
        expected = 0.0
        for run in runs:
            kind, task = (run.policy, run.type), (run.policy, run.task)
            others = self._types[kind].runs - on_type[kind].runs
            solved = self._types[kind].solved - on_type[kind].solved
            # Nobody else to compare with: no difference is assumed.
            rate = solved / others if others else on_type[kind].solved / on_type[kind].runs
            without = self._tasks[task].runs - on_task[task].runs
            solved = self._tasks[task].solved - on_task[task].solved
            expected += (solved + PRIOR * rate) / (without + PRIOR)
        solved = sum(run.success for run in runs)
        return Usefulness((solved - expected) / (len(runs) + PRIOR), len(runs), solved, expected)

    def values(self, entries: Iterable[int]) -> NDArray[np.float64]:
        """Their values, shape (number of entries,)."""
        return np.array(
            [self.of(entry).value if entry in self._shown else 0.0 for entry in entries],
            dtype=np.float64,
        )


class UsefulnessHistory:
    """What was known of the worth of all entries at any log position, from a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._table: UsefulnessTable | None = None
        self._rows = self._position = 0

    def at(self, position: int) -> UsefulnessTable:
        """What was known at a log position. The table grows when a later one is asked for."""
        if position < self._position:
            # what was learnt since must not count; experiments read at one position for long
            self._table = None
        if self._table is None:
            self._table, self._rows, self._position = UsefulnessTable(), 0, 0
        while self._rows < len(self._catalog.file):
            rows = self._catalog.rows(
                range(self._rows, min(self._rows + 8192, len(self._catalog.file)))
            )
            later = (rows["sequence"] >= position) & (rows["kind"] != GAP)
            rows = rows[: int(np.argmax(later))] if later.any() else rows
            for row in rows[(rows["kind"] == Kind.EPISODE) | (rows["kind"] == CREDIT)]:
                number, task, kind, policy = (
                    int(row[name]) for name in ("sequence", "task", "type", "policy")
                )
                run = Run(number, task, kind, policy, bool(row["flags"] & SUCCESS))
                target = int(row["target"])
                self._table.take(run, target if target < NEVER else None)
            self._rows += len(rows)
            if later.any():
                break
        self._position = position
        return self._table
