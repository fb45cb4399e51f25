"""What a person is shown: texts that cannot command a terminal, and streams that may be gone.

Goals, observations, ids and file names come from elsewhere, and a terminal takes some characters as
commands: it clears the screen, renames its window, moves back over what it has shown, or turns the
order of letters round. Everything that is printed goes through `say` and `complain`, or through the
console of :mod:`relive.agent.evaluation.report`; they show such characters as escapes.

Nobody may read standard output any more (``relive … | head``), which is a quiet end. Or it is
closed from the start: the command does its work, and then says in one line that its output is lost.
"""

import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_CLOSED = "standard output is closed"

_JOINERS = "\u200c\u200d"
"""They show nothing and command nothing, and Persian and many emoji need them."""


def visible(text: str, *, lines: bool = False) -> str:
    r"""The text with everything that is no character to look at as an escape such as ``\x1b``.

    Args:
        text: any text, lone surrogates included.
        lines: leave line ends and tabs as they are. Without it a text stays on one line, and cannot
            pass for a line of the program's own.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        c if _is_seen(c) or c in kept else c.encode("unicode_escape").decode() for c in text
    )


def _is_seen(character: str) -> bool:
    return (
        character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
    )


def say(text: str = "", *, lines: bool = False) -> None:
    """Print a line on standard output, or several; see `visible`."""
    print(visible(text, lines=lines))


def complain(text: str, *, lines: bool = False) -> None:
    """The same on standard error. If that cannot be written, there is nobody to tell."""
    try:
        print(visible(text, lines=lines), file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def byte_writer() -> Callable[[bytes], object]:
    """What writes bytes to standard output, as they are; on a terminal they are shown as text.

    Raises:
        OSError: it is closed, and what was asked for would be lost.
    """
    if isinstance(sys.stdout, _Closed):
        raise OSError(f"{_CLOSED}: give the name of a file")
    if not sys.stdout.isatty():
        return sys.stdout.buffer.write
    return lambda data: sys.stdout.write(visible(data.decode(errors="replace"), lines=True))


def flush_output() -> None:
    """Write out what standard output holds.

    Raises:
        OSError: it cannot be written; or it was closed, and something was printed.
    """
    sys.stdout.flush()
    if isinstance(sys.stdout, _Closed) and sys.stdout.lost:
        raise OSError(f"{_CLOSED}, what was printed is lost: send it to a file, or to {os.devnull}")


class _Closed(io.TextIOWrapper):
    """A standard stream that is closed: it takes what is written, and knows whether there was
    any."""

    lost = False

    def write(self, text: str, /) -> int:
        """Swallow a text."""
        self.lost = self.lost or bool(text)
        return super().write(text)


@contextmanager
def standard_streams() -> Iterator[None]:
    """For a command as a whole: streams that are closed can be used, and all ends quietly."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _replace(number, name)
    if isinstance(sys.stdout, io.TextIOWrapper):  # half a character that a model sampled, say
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                silence(stream)


def silence(stream: TextIO) -> None:
    """Let a stream swallow what it holds and all that follows: Python writes it out once more at
    its end."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _replace(number: int, name: str) -> None:
    """Give a standard stream that is closed something to be."""
    try:
        os.fstat(number)
    except OSError:
        # Or the next file to be opened gets its number, and with it all that anyone prints.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    null = open(os.devnull, "rb" if name == "stdin" else "wb")  # noqa: SIM115
    setattr(sys, name, _Closed(null, encoding="utf-8"))
