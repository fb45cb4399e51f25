"""A file of any known format into a memory, and a report of what was taken."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from ..plain import described
from ..store import Memory
from ..transfer import (
    FORMAT,
    DamagedFileError,
    Importer,
    check_header,
    import_lines,
    json_of,
)
from . import alfworld_logs, messages
from .parsed import Labels, Parsed
from .report import ImportReport, Tally
from .source import (
    Item,
    first_line,
    line_items,
    list_items,
    plain_file,
)


@dataclass(frozen=True, slots=True)
class _Reader:
    """How a format is read."""

    fits: Callable[[object], bool]
    """Whether a value looks like one of this format."""
    parts: Callable[[object], Sequence[object]]
    """The objects in a value that each become one episode."""
    parse: Callable[[object, Labels], Parsed]
    """The episode of such an object; raises `ValueError`."""


EPISODES = "episodes"
"""The project's own export (:mod:`relive.memory.transfer`)."""
_READERS = {
    "messages": _Reader(messages.fits, lambda value: (value,), messages.parse),
    "alfworld-logs": _Reader(alfworld_logs.fits, alfworld_logs.parts, alfworld_logs.parse),
}
FORMATS = (EPISODES, *_READERS)
"""What can be imported."""
_SHAPE = (
    '{"messages": [{"role": "user", "content": "Your task is to: …"}, '
    '{"role": "assistant", "content": "what was done"}], "success": true}'
)
"""What a line of conversations looks like."""
_KEYS = 8
"""Keys of an object that are named at most where it is not known."""
_UNLABELLED = Labels()


def import_file(
    memory: Memory,
    file: BinaryIO,
    name: str,
    *,
    format: str | None = None,
    labels: Labels = _UNLABELLED,
    on_progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Add the episodes in a file to a memory.

    Repeated, the same import adds nothing; interrupted, it goes on where it stopped.

    Args:
        memory: open for writing.
        file: JSON, one object per line or all in one list; it may be compressed with gzip.
        name: of the file, for messages.
        format: one of :data:`FORMATS`. Default: recognised by the first object.
        labels: suite and split of what is imported, where they are not to be the file's.
        on_progress: told after each object on which line it was.

    Raises:
        ValueError: the format is unknown or not recognised, the file cannot be unpacked, an export
            is to be labelled, or the memory is open for reading or without its own embedder.
        OSError: the disk is full, for example; what was added so far is there.
    """
    memory.add_many([])  # says so if nothing can be added, before any line is blamed
    return recognise(file, name, format=format, labels=labels).into(memory, on_progress)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file of which it is known what it holds. It can be taken into a memory once."""

    name: str
    """For messages."""
    format: str
    """One of :data:`FORMATS`."""
    labels: Labels
    _opened: BinaryIO
    _found: Iterable[Item] = ()

    def into(
        self, memory: Memory, on_progress: Callable[[int], None] | None = None
    ) -> ImportReport:
        """Add its episodes to a memory, see `import_file`."""
        if self.format == EPISODES:
            done = import_lines(memory, self._opened, self.name, on_progress)
            return ImportReport(EPISODES, done)
        importer, tally = Importer(memory, self.name), Tally()
        for item in self._found:
            _take(item, _READERS[self.format], self.labels, importer, tally)
            if on_progress is not None:
                on_progress(item.line)
        return tally.report(self.format, importer.finish())


def recognise(
    file: BinaryIO, name: str, *, format: str | None = None, labels: Labels = _UNLABELLED
) -> Recognised:
    """What a file holds, by its beginning, before there is a memory; see `import_file`.

    Raises:
        ValueError: the format is unknown or not recognised, the file cannot be unpacked, or an
            export is to be labelled.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: use one of {', '.join(FORMATS)}")
    try:
        start, opened = first_line(plain_file(file))
    except DamagedFileError as error:
        raise ValueError(f"{name}: {error}") from None
    if format == EPISODES or (format is None and _is_export(start)):
        check_header(start, name)
        if labels != _UNLABELLED:
            raise ValueError(f"the episodes in {name} have their suite and split: give no labels")
        return Recognised(name, EPISODES, labels, opened)
    found = list_items(opened) if start.lstrip().startswith(b"[") else line_items(opened)
    first = next(found, None)
    format = format or _recognised(first, name)
    return Recognised(name, format, labels, opened, chain([first] if first else [], found))


def _take(item: Item, reader: _Reader, labels: Labels, importer: Importer, tally: Tally) -> None:
    if item.error:
        importer.refuse(item.line, item.error)
        return
    for part in reader.parts(item.value):
        try:
            parsed = reader.parse(part, labels)
        except ValueError as error:
            importer.refuse(item.line, str(error))
        else:
            tally.add(item.line, parsed)
            importer.take(item.line, parsed.episode, list(parsed.notes), item.size, parsed.twins)


def _is_export(line: bytes) -> bool:
    try:
        value = json_of(line)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("format") == FORMAT


def _recognised(first: Item | None, name: str) -> str:
    """The format of a file, after its first value."""
    formats = ", ".join(FORMATS)
    if first is None:
        raise ValueError(f"{name} holds nothing that could be imported: check the path")
    if first.error:
        raise ValueError(
            f"cannot tell what {name} holds, because of its line {first.line}: {first.error}. "
            "What is imported is JSON, one object per line (jq -c . FILE writes it so) or all in "
            f"one list: repair that line, or name the format ({formats})"
        )
    for format, reader in _READERS.items():
        if reader.fits(first.value):
            return format
    keys = list(first.value) if isinstance(first.value, dict) else []
    shown = ", ".join(map(described, keys[:_KEYS])) + (", …" if len(keys) > _KEYS else "")
    raise ValueError(
        f"cannot tell what {name} holds: its first value is {described(first.value)}"
        + (f" with the keys {shown}, and" if keys else "")
        + " without messages (a conversation), traj (an ALFWorld log) or format (an export): write "
        f"each line as {_SHAPE}, or name the format ({formats})"
    )
