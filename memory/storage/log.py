"""The log: append-only segments of framed records. It is the truth; everything else can be rebuilt
from it.

A record is acknowledged (``append`` returns) when it is durable. A *position* is a number that says
"everything before this": the sequence number of the next record. Every record carries its own, so
positions survive damage, and gaps show what was lost. The bytes are described in
``docs/file-format.md``.
"""

import errno
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from .durable import Corruption, closing, gone, open_file, remove_leftovers, replace_file, write_all
from .log_reader import LogReader
from .segments import (
    FRAME_BYTES,
    HEADER_BYTES,
    LIMIT,
    MAX_PAYLOAD,
    MOST_BYTES,
    Kind,
    RecordLocation,
    frame_head,
    plain_header,
    segment_path,
    superseded,
)

SEGMENT_BYTES = 64 * 2**20
"""A new segment is begun once the current one is at least this long."""


class Log(LogReader):
    """The segments in one folder, read, followed and, by their writer, appended to.

    After opening, exhaust :meth:`refresh` once: it yields all records; a writer's also cuts a torn
    tail, and only then may :meth:`append` be called. Not thread-safe. One writer at a time (see
    :mod:`relive.memory.storage.lock`).
    """

    def __init__(
        self, folder: Path, *, memory: bytes, writable: bool, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        super().__init__(folder, memory=memory, writable=writable)
        self._segment_bytes = segment_bytes
        self._dirty = False
        self._writer = -1
        self._close_writer: Callable[[], object] = lambda: None
        if writable:
            remove_leftovers(folder, "[0-9]*.log")

    def plan(self, records: Sequence[tuple[Kind, bytes]]) -> list[RecordLocation]:
        """Where :meth:`append` will put these records.

        Raises:
            ValueError: they cannot be appended.
        """
        if not self._writable:
            raise ValueError(
                f"{self.folder} is open for reading; open the memory with mode='w' to add to it"
            )
        if self.position + len(records) > LIMIT:
            raise ValueError(
                f"{self.folder} is full: there are no numbers for records after {self.position}"
            )
        segment, offset, generation = self._segment, self._end, self._generation
        if segment < 0 or offset >= self._segment_bytes:
            segment, offset, generation = self.position, HEADER_BYTES, 0
        places = []
        for sequence, (_, payload) in enumerate(records, start=self.position):
            length = len(payload)
            if length > MAX_PAYLOAD:
                raise ValueError(f"a record of {length} bytes; the limit is {MAX_PAYLOAD}")
            places.append(
                RecordLocation(sequence, segment, offset, length, zlib.crc32(payload), generation)
            )
            offset += FRAME_BYTES + length
        if offset > MOST_BYTES:
            raise ValueError(
                f"{len(records)} records of so many bytes cannot be added at once: add fewer at a "
                "time"
            )
        return places

    def append(
        self, records: Sequence[tuple[Kind, bytes]], planned: Sequence[RecordLocation] | None = None
    ) -> list[RecordLocation]:
        """Write records and return when all of them are durable.

        Args:
            records: kinds and payloads.
            planned: what :meth:`plan` said of them, if it was asked.

        Raises:
            FileNotFoundError: none of them was written, or only to a file that was deleted.
            OSError: none of them was written; the log ends where it did before, and a later append
                may succeed.
            ValueError: as :meth:`plan`.
        """
        places = list(self.plan(records) if planned is None else planned)
        if not places:
            return []
        parts: list[bytes] = []
        for place, (kind, payload) in zip(places, records, strict=True):
            parts += [frame_head(kind, place.sequence, place.length, place.checksum), payload]
        buffer = b"".join(parts)
        before = self._segment
        try:
            self._repair()
            if places[0].segment != before:
                self.begin_segment()
            self._dirty = True
            write_all(self._writer, buffer)
            os.fsync(self._writer)
            if not os.fstat(self._writer).st_nlink:  # what nobody can open is not durable
                raise FileNotFoundError(errno.ENOENT, "deleted")
        except OSError as error:
            with suppress(OSError):  # tried again before the next append
                self._repair()
            if error.errno == errno.ENOENT:
                raise gone(self.folder.parent) from error
            raise OSError(
                error.errno,
                f"cannot write to {self._path(max(before, 0))}: {error.strerror}; nothing was "
                "added and nothing is lost: "
                "make room (or repair the disk) and add again",
            ) from error
        self._dirty = False
        self._end = places[0].offset + len(buffer)
        self.position = places[-1].sequence + 1
        self._last = places[-1]
        return places

    def begin_segment(self) -> None:
        """Begin a new segment at the current position; what came before it is complete from now on.

        Raises:
            OSError: it could not be made; the old one goes on.
        """
        first = self.position
        if first == self._segment and self._end <= HEADER_BYTES:
            return
        replace_file(segment_path(self.folder, first), plain_header(first, self._memory))
        self._segment, self._generation, self._end = first, 0, HEADER_BYTES
        self._checked, self._sparse, self._until = first, False, 0
        self._open_writer(first)

    def finish_compaction(self) -> None:
        """Remove what later generations replace, once everything that was made from the log fits
        those.

        Raises:
            OSError: something is left.
        """
        for path in superseded(self.folder):
            path.unlink()

    def close(self) -> None:
        """Close all files."""
        super().close()
        self._close_writer()
        self._writer = -1

    def _leave_tail(self, segment: int, length: int) -> None:
        """Nothing readable follows: a writer cuts it, a reader waits for the rest."""
        super()._leave_tail(segment, length)
        if self._writable:
            self._open_writer(segment)
            os.ftruncate(self._writer, self._end)
            os.fsync(self._writer)
            torn = "a torn record at the end of the log, cut off"
            self._cut.append(Corruption(self._name(segment), self._end, length, torn))
            self.unfinished = 0

    def _open_writer(self, segment: int) -> None:
        self._close_writer()
        self._writer = -1
        self._writer = open_file(self._path(segment), os.O_WRONLY | os.O_APPEND)
        self._close_writer = closing(self, self._writer)

    def _repair(self) -> None:
        """Bring the file back to the end of its last good record after a write that failed."""
        if self._writer < 0 and self._segment >= 0:
            self._open_writer(self._segment)
        if self._dirty:
            os.ftruncate(self._writer, self._end)
            os.fsync(self._writer)
            self._dirty = False
