"""What an import took and what it did not."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..plain import counted
from ..transfer import LISTED, Imported
from .parsed import Parsed


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sort of part that was not taken from lines whose episodes were."""

    what: str
    """For example ``field 'foo'``."""
    why: str
    count: int
    line: int
    """The first line with it, counted from 1."""

    def __str__(self) -> str:
        return f"{self.what}: {self.why} ({counted(self.count, 'time')}, first in line {self.line})"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a file."""

    format: str
    """As what it was read."""
    imported: Imported
    """What became of its lines; those that are bad are named there, with the reason."""
    read: int = 0
    """Episodes that were made of lines, those that were there included; the rest counts these."""
    successes: int = 0
    unknown: int = 0
    """Episodes of which the file does not say how they ended; they are stored as failures."""
    kept: Mapping[str, int] = field(default_factory=dict)
    """How many of what was told apart, by what it is and where it went."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """How many episodes are of which suite and split."""
    left_out: tuple[LeftOut, ...] = ()
    """What was not taken from these lines, in the order in which it was met."""

    def summary(self) -> list[str]:
        """Lines for people about what was taken and what not; bad lines are in :attr:`imported`."""
        if not self.read:
            return []
        failures = self.read - self.successes
        lines = [
            f"{counted(self.read, 'episode')} read: {counted(self.successes, 'success')}, "
            f"{counted(failures, 'failure')}"
        ]
        lines += [f"{count} of {label}" for label, count in self.labels.items()]
        if self.unknown:
            field = "'result'" if self.format == "alfworld-logs" else "'success'"
            lines.append(
                f"of {self.unknown} the file does not say whether they succeeded: they count as "
                f"failures (unknown is not success) and stay so; give each line the field {field}, "
                "delete what is here of them (relive memory delete) and import the file again"
            )
        lines += [f"told apart: {what}: {count}" for what, count in self.kept.items() if count]
        return lines + [f"not taken: {part}" for part in self.left_out]


class Tally:
    """A report in the making."""

    def __init__(self) -> None:
        self._read = self._successes = self._unknown = 0
        self._kept: Counter[str] = Counter()
        self._labels: Counter[str] = Counter()
        self._parts: dict[tuple[str, str], tuple[int, int]] = {}  # (what, why): (count, first line)

    def add(self, line: int, parsed: Parsed) -> None:
        """Count what was made of a line."""
        self._read += 1
        self._successes += parsed.episode.success
        self._unknown += not parsed.success_known
        self._kept.update(parsed.kept)
        task = parsed.episode.task
        label = f"suite {task.suite}, split {task.split}"
        # Whatever a file holds, what is counted by name must not fill the machine's memory.
        self._labels[
            label
            if label in self._labels or len(self._labels) < LISTED
            else "further suites and splits"
        ] += 1
        for part in parsed.left_out:
            if part not in self._parts and len(self._parts) >= LISTED:
                part = ("further parts", "too many kinds of them to list")
            count, first = self._parts.get(part, (0, line))
            self._parts[part] = count + 1, first

    def report(self, format: str, imported: Imported) -> ImportReport:
        """The report on a file of this format."""
        left_out = tuple(LeftOut(*part, *seen) for part, seen in self._parts.items())
        return ImportReport(
            format,
            imported,
            self._read,
            self._successes,
            self._unknown,
            kept=dict(self._kept),
            labels=dict(self._labels),
            left_out=left_out,
        )
