"""The log: append-only segments of framed records. It is the truth; everything else can be rebuilt
from it.

A record is acknowledged (``append`` returns) when it is durable. A *position* is a number that says
"everything before this": the sequence number of the next record. Every record carries its own, so
positions survive damage, and gaps show what was lost. The bytes are described in
``docs/file-format.md``.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from .durable import open_file, remove_leftovers, replace_file, write_all
from .segments import (
    COMPACTED,
    FORMAT,
    FRAME_BYTES,
    HEADER_BYTES,
    JUMP,
    LIMIT,
    LONGEST_HEADER,
    MAX_PAYLOAD,
    MOST_BYTES,
    can_follow,
    frame_head,
    parse_frame,
    parse_header,
    plain_header,
    resume,
    segment_path,
    segments,
    strays,
    superseded,
    whole_record,
)

SEGMENT_BYTES = 64 * 2**20
"""A new segment is begun once the current one is at least this long."""


class Kind(IntEnum):
    """What a record is. Readers skip kinds that they do not know."""

    EPISODE = 1
    RATING = 2
    NOTE = 3
    DELETE = 4
    USEFULNESS = 5


@dataclass(frozen=True, slots=True)
class Corruption:
    """Something that could not be read, or was cut off."""

    file: str
    """Name of the file inside the memory's folder."""
    offset: int
    """First byte of it."""
    length: int
    """Bytes skipped or cut."""
    detail: str
    """What was found and what was done about it."""

    def __str__(self) -> str:
        return f"{self.file}, byte {self.offset}, {self.length} bytes: {self.detail}"


class RecordLocation(NamedTuple):
    """Where a record lies, enough to read it again."""

    sequence: int
    segment: int
    """First sequence number of its segment, which is the segment's name."""
    offset: int
    """Of the frame, in bytes from the start of the segment."""
    length: int
    """Of the payload, in bytes."""
    checksum: int
    """CRC-32 of the payload."""
    generation: int = 0
    """How often its segment was compacted."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log."""

    place: RecordLocation
    kind: int
    """A :class:`Kind`, or a number that a later version gave a meaning."""
    payload: bytes


class RolledBackError(RuntimeError):
    """What had been read is no longer there: it never was durable and its writer took it back, or
    it was compacted."""


class Log:
    """The segments in one folder, read from the start and then followed as they grow.

    After opening, exhaust :meth:`refresh` once: it yields all records; a writer's also cuts a torn
    tail, and only then may :meth:`append` be called. Not thread-safe. One writer at a time (see
    :mod:`relive.memory.storage.lock`).
    """

    def __init__(
        self, folder: Path, *, memory: bytes, writable: bool, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.folder = folder
        self.position = 0
        """Sequence number of the next record: everything read or written so far lies before it."""
        self.unfinished = 0
        """Bytes at the end that a reader cannot make sense of yet: a write in progress, or a torn
        one."""
        self.lost: list[Corruption] = []
        """What was found damaged inside segments, and lies there still."""
        self._cut: list[Corruption] = []  # torn tails
        self._memory = memory
        self._writable = writable
        self._segment_bytes = segment_bytes
        self._segment = (
            -1
        )  # the segment that is being read or written, and the end of its last good record
        self._generation = 0
        self._end = 0
        self._checked = -1  # the last segment whose header was looked at
        # whether records of it were left out on purpose, and the number after its last one
        self._sparse = False
        self._until = 0
        self._last: RecordLocation | None = None
        self._dirty = False
        self._writer = -1
        self._readers: dict[tuple[int, int], int] = {}
        self._found: dict[int, int] = {}  # segments and their generations at the last refresh
        if writable:
            remove_leftovers(folder)

    @property
    def damage(self) -> tuple[Corruption, ...]:
        """Everything found damaged so far."""
        none = [
            Corruption(
                f"{self.folder.name}/{path.name}", 0, 0, f"{wrong}; it is not read, and left alone"
            )
            for path, wrong in strays(self.folder)
        ]
        return (*self.lost, *self._cut, *none)

    @property
    def size(self) -> int:
        """Bytes of all segments on disk."""
        total = 0
        for segment, generation in segments(self.folder).items():
            with suppress(FileNotFoundError):  # compacted meanwhile
                total += segment_path(self.folder, segment, generation).stat().st_size
        return total

    def start_after(self, last: RecordLocation) -> bool:
        """Begin reading behind a record that is known already; False, and nothing happens, if it is
        not there.

        To be called before the first :meth:`refresh`.
        """
        if last.sequence >= LIMIT:
            return False
        try:
            self.read(last)
        except (ValueError, OSError):
            return False
        self._segment, self._generation, self._checked = last.segment, last.generation, last.segment
        self._end, self.position, self._last = (
            last.offset + FRAME_BYTES + last.length,
            last.sequence + 1,
            last,
        )
        header = os.pread(self._reader(last.segment, last.generation), LONGEST_HEADER, 0)
        self._look_at_header(last.segment, header)
        return True

    def refresh(self) -> Iterator[Record]:
        """Yield the records that came after the last one read; to be exhausted.

        Raises:
            ValueError: a segment has a format number that this program does not read, or belongs to
                another memory.
            RolledBackError: the last record read is gone, or the log was compacted; read everything
                again.
        """
        self._check_last()
        found = segments(self.folder)
        if not self._writable and any(
            found.get(segment) != known for segment, known in self._found.items()
        ):
            # The files that are open still hold what was read, but nothing else that was made from
            # the log fits it any more.
            raise RolledBackError(f"{self.folder} was compacted; open it again")
        self._found = found
        for (segment, generation), following in zip(found.items(), [*found, None][1:], strict=True):
            if segment < self._segment:
                continue
            if segment != self._segment:
                self._segment, self._generation, self._end = segment, generation, 0
            try:
                yield from self._read_segment(segment, following)
            except FileNotFoundError:
                raise RolledBackError(
                    f"{self._name(segment)} was compacted while it was read; open it again"
                ) from None

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
        except OSError as error:
            with suppress(OSError):  # tried again before the next append
                self._repair()
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

    def read(self, place: RecordLocation) -> bytes:
        """The payload of the record at ``place``; raises as :meth:`read_whole`."""
        return self.read_whole(place)[FRAME_BYTES:]

    def read_whole(self, place: RecordLocation) -> bytes:
        """The record at ``place``: its frame, then its payload.

        Raises:
            ValueError: it was damaged since it was first read.
        """
        data = os.pread(
            self._reader(place.segment, place.generation), FRAME_BYTES + place.length, place.offset
        )
        frame = parse_frame(data, 0)
        if (
            frame is None
            or frame.sequence != place.sequence
            or zlib.crc32(data[FRAME_BYTES:]) != place.checksum
        ):
            path = segment_path(self.folder, place.segment, place.generation)
            raise ValueError(
                f"{path}, byte {place.offset}: record {place.sequence} was damaged after it was "
                "written; the others are not "
                "affected"
            )
        return data

    def finish_compaction(self) -> None:
        """Remove what later generations replace, once everything that was made from the log fits
        those.

        Raises:
            OSError: something is left.
        """
        for path in superseded(self.folder):
            path.unlink()

    def check_headers(self) -> None:
        """Look at the headers of all segments: whoever reads on behind the last known record passes
        the earlier ones by."""
        for segment, generation in segments(self.folder).items():
            path = segment_path(self.folder, segment, generation)
            name = f"{self.folder.name}/{path.name}"
            with suppress(FileNotFoundError):  # compacted meanwhile
                header = os.pread(self._reader(segment, generation), LONGEST_HEADER, 0)
                if parse_header(header) is None and not any(
                    d.file == name and d.offset == 0 for d in self.lost
                ):
                    self.lost.append(
                        Corruption(
                            name,
                            0,
                            min(len(header), HEADER_BYTES),
                            "damaged header; its records are found all the same",
                        )
                    )

    def close(self) -> None:
        """Close all files."""
        for descriptor in (*self._readers.values(), self._writer):
            if descriptor >= 0:
                os.close(descriptor)
        self._readers.clear()
        self._writer = -1

    def _path(self, segment: int) -> Path:
        return segment_path(
            self.folder, segment, self._generation if segment == self._segment else 0
        )

    def _name(self, segment: int) -> str:
        return f"{self.folder.name}/{self._path(segment).name}"

    def _reader(self, segment: int, generation: int) -> int:
        key = segment, generation
        if key not in self._readers:
            self._readers[key] = open_file(segment_path(self.folder, *key), os.O_RDONLY)
        return self._readers[key]

    def _check_last(self) -> None:
        """A reader may have seen a record whose fsync then failed, and which the writer took
        back."""
        if self._writable or self._last is None:
            return
        try:
            self.read(self._last)
        except (ValueError, FileNotFoundError):
            raise RolledBackError(
                f"the last record read from {self.folder} was taken back; open it again"
            ) from None

    def _read_segment(self, segment: int, following: int | None) -> Iterator[Record]:
        """The rest of a segment; `following` is the first number of the next one, None if this is
        the last."""
        data = _read_from(self._reader(segment, self._generation), self._end)
        base = self._end
        if segment != self._checked:
            self._end, self._checked = self._check_header(segment, data), segment
        while self._end - base < len(data):
            start = self._end - base
            frame = whole_record(data, start)
            if frame is not None:
                stop = start + FRAME_BYTES + frame.length
                if self._is_misplaced(frame.sequence, data, stop, following):
                    detail = (
                        f"numbered {frame.sequence}, which cannot be where {self.position} is "
                        "expected; skipped"
                    )
                    self._note(segment, self._end, stop - start, f"a record {detail}")
                    self._end = base + stop
                    continue
                if frame.sequence > self.position and not self._sparse:
                    lost = f"records {self.position} to {frame.sequence - 1} are missing"
                    self._note(segment, self._end, 0, lost)
                place = RecordLocation(
                    frame.sequence,
                    segment,
                    self._end,
                    frame.length,
                    frame.checksum,
                    self._generation,
                )
                self._end, self.position, self._last = base + stop, frame.sequence + 1, place
                yield Record(place, frame.kind, data[start + FRAME_BYTES : stop])
                continue
            further = resume(data, start, self.position)
            if further == len(data) and following is None:
                self._leave_tail(segment, len(data) - start)
                return
            after, gap = parse_frame(data, further), self.position
            if after and not self._is_misplaced(
                after.sequence, data, further + FRAME_BYTES + after.length, following
            ):
                gap = after.sequence
            lost = (
                f" (records {self.position} to {gap - 1} are lost)" if gap > self.position else ""
            )
            self._note(segment, self._end, further - start, f"damaged, skipped{lost}")
            self.position = gap
            self._end = base + further
        self.unfinished = 0
        if self._until > (self.position + JUMP if following is None else following):
            self._note(
                segment,
                0,
                0,
                f"the header says that record {self._until} comes next, which cannot be",
            )
            self._until = 0
        self.position = max(self.position, self._until)

    def _is_misplaced(self, sequence: int, data: bytes, stop: int, following: int | None) -> bool:
        """Whether a record that is intact has a number that it cannot have, so that it is the one
        that is wrong.

        One that jumps ahead is believed, since records may be lost, unless what comes right behind
        it goes on where it jumped from: believed, it would cost all those. `stop` is where it ends,
        `following` as in :meth:`_read_segment`.
        """
        if not can_follow(sequence, self.position):
            return True
        if sequence == self.position:
            return False
        behind = parse_frame(data, stop)
        after = behind.sequence if behind is not None else following if stop == len(data) else None
        return after is not None and self.position <= after <= sequence

    def _check_header(self, segment: int, header: bytes) -> int:
        """Offset at which the records of ``segment`` begin."""
        if segment > self.position:
            self._note(
                segment,
                0,
                0,
                f"records {self.position} to {segment - 1} are missing before this segment",
            )
            self.position = segment
        found = self._look_at_header(segment, header)
        if found is None:
            # The file's name says all that the header does; its records are found by their marks.
            return 0
        size, first = found
        if first != segment:
            self._note(segment, 0, size, f"the file was renamed: it begins at record {first}")
        return size

    def _look_at_header(self, segment: int, header: bytes) -> tuple[int, int] | None:
        """Length of a header and the first sequence number that it names; None if it is damaged."""
        self._sparse, self._until = False, 0
        fields = parse_header(header)
        if fields is None:
            return None
        number, first, memory, self._until, size = fields
        if number not in (FORMAT, COMPACTED):
            raise ValueError(
                f"{self._path(segment)} is of format {number}; this program reads {FORMAT} and "
                f"{COMPACTED}: use the "
                "version that wrote it"
            )
        if memory != self._memory:
            raise ValueError(
                f"{self._path(segment)} belongs to another memory ({memory.hex()}, not "
                f"{self._memory.hex()}): "
                "move it back to where it came from"
            )
        self._sparse = number == COMPACTED
        return size, first

    def _note(self, segment: int, offset: int, length: int, detail: str) -> None:
        self.lost.append(Corruption(self._name(segment), offset, length, detail))

    def _leave_tail(self, segment: int, length: int) -> None:
        """Nothing readable follows: a writer cuts it, a reader waits for the rest."""
        self.unfinished = length
        if self._writable:
            self._open_writer(segment)
            os.ftruncate(self._writer, self._end)
            os.fsync(self._writer)
            torn = "a torn record at the end of the log, cut off"
            self._cut.append(Corruption(self._name(segment), self._end, length, torn))
            self.unfinished = 0

    def _open_writer(self, segment: int) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
        self._writer = open_file(self._path(segment), os.O_WRONLY | os.O_APPEND)

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

    def _repair(self) -> None:
        """Bring the file back to the end of its last good record after a write that failed."""
        if self._writer < 0 and self._segment >= 0:
            self._open_writer(self._segment)
        if self._dirty:
            os.ftruncate(self._writer, self._end)
            os.fsync(self._writer)
            self._dirty = False


def _read_from(descriptor: int, offset: int) -> bytes:
    """All bytes from ``offset`` on. Read, not mapped: touching a map of a file that was just cut
    kills the process."""
    parts = []
    while part := os.pread(descriptor, 2**24, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
