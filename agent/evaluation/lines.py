"""Progress where no terminal is: plain lines, few enough for a log file and often enough to see
that something moves."""

import time
from collections.abc import Callable

from .terminal import complain


class PlainProgress:
    """Prints a line for every phase, and how far it is every few seconds.

    Lines are printed when something has happened, so a long silence is one of the work itself.

    Args:
        every: seconds between two lines about the same phase, at least.
        clock: seconds that only ever grow.
        write: takes a line, and writes it at once; standard error by default.
    """

    def __init__(
        self,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], object] = complain,
    ) -> None:
        self._every, self._clock, self._write = every, clock, write
        self._began = self._told = clock()
        self._title, self._total, self._done = "", 0, 0
        self._note: str | Callable[[], str] = ""
        self._untold = False

    def phase(self, title: str) -> None:
        """Something else begins; how far the last phase came is told first."""
        self.finish()
        self._title, self._total, self._done, self._note = title, 0, 0, ""
        self._line(title)

    def expect(self, total: int) -> None:
        """The phase has so many more things to do; counting starts again, and how far it came is
        told first. 0: not known."""
        self.finish()
        self._total, self._done, self._note = total, 0, ""

    def count(self, done: int, note: str | Callable[[], str] = "") -> None:
        """So many are done; `note` says how they went, asked for when a line is printed if it is a
        function."""
        self._done, self._note, self._untold = done, note, True
        if self._clock() - self._told >= self._every:
            self.finish()

    def tell(self, what: str, done: int, total: int) -> None:
        """The same of work that has no phases of its own: the last of it is not told, for whoever
        does the work says how it ended."""
        self._title, self._total = what, total
        self.count(done)

    def say(self, line: str) -> None:
        """A line of its own, at once."""
        self._line(line)

    def finish(self) -> None:
        """Tells how far it is, unless that has been told."""
        if self._untold:
            of = f"/{self._total}" if self._total else ""
            said = self._note if isinstance(self._note, str) else self._note()
            note = f", {said}" if said else ""
            self._line(f"{self._title}: {self._done}{of}{note}")

    def _line(self, text: str) -> None:
        self._told = self._clock()
        self._untold = False
        minutes, seconds = divmod(int(self._told - self._began), 60)
        self._write(f"[{minutes // 60}:{minutes % 60:02}:{seconds:02}] {text}")
