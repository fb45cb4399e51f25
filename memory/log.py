"""The log: append-only segments of framed records. It is the truth; everything else can be rebuilt from it.

A record is acknowledged (``append`` returns) when it is durable. A *position* is a number that says "everything before
this": the sequence number of the next record. Every record carries its own, so positions survive damage, and gaps show
what was lost. The bytes are described in ``docs/file-format.md``.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from memory.durable import TEMPORARY, replace_file, write_all

MAGIC = b"RELIVELG"
FORMAT, COMPACTED = 1, 2
"""Format numbers of segments: as they are written, and of those from which records were left out on purpose."""
MARK = b"\xc1RL\xc1"
"""Starts each record. 0xC1 occurs in no UTF-8 text and as no msgpack type, so it is rare inside payloads."""
SEGMENT_BYTES = 64 * 2**20
"""A new segment is begun once the current one is at least this long."""
MAX_PAYLOAD = 64 * 2**20
"""Longest payload; a frame that claims more is damaged."""

_HEADER = struct.Struct("<8sIIQ16s")  # magic, format, reserved, first sequence number, memory id; then crc32 of these
_UNTIL = struct.Struct("<8sIIQ16sQ")  # of a compacted segment: the same, and the number after its last original record
_FRAME = struct.Struct("<4sBBHIQI")  # mark, kind, flags, reserved, payload length, sequence, payload crc; then crc32
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
FRAME_BYTES = _FRAME.size + _CRC.size
_SUFFIX = ".log"


class Kind(IntEnum):
    """What a record is. Readers skip kinds that they do not know."""

    EPISODE = 1
    RATING = 2
    NOTE = 3
    DELETE = 4
    USEFULNESS = 5


@dataclass(frozen=True, slots=True)
class Damage:
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


class Place(NamedTuple):
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

    place: Place
    kind: int
    """A :class:`Kind`, or a number that a later version gave a meaning."""
    payload: bytes


class TakenBackError(RuntimeError):
    """What had been read is no longer there: it never was durable and its writer took it back, or it was compacted."""


class Log:
    """The segments in one folder, read from the start and then followed as they grow.

    After opening, exhaust :meth:`refresh` once: it yields all records; a writer's also cuts a torn tail, and only then
    may :meth:`append` be called. Not thread-safe. One writer at a time (see :mod:`memory.lock`).
    """

    def __init__(self, folder: Path, *, memory: bytes, writable: bool, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self.position = 0
        """Sequence number of the next record: everything read or written so far lies before it."""
        self.unfinished = 0
        """Bytes at the end that a reader cannot make sense of yet: a write in progress, or a torn one."""
        self._damage: list[Damage] = []
        self._memory = memory
        self._writable = writable
        self._segment_bytes = segment_bytes
        self._segment = -1  # the segment that is being read or written, and the end of its last good record
        self._generation = 0
        self._end = 0
        self._checked = -1  # the last segment whose header was looked at
        self._sparse = False  # whether records of it were left out on purpose, and the number after its last one
        self._until = 0
        self._last: Place | None = None
        self._dirty = False
        self._writer = -1
        self._readers: dict[tuple[int, int], int] = {}
        self._found: dict[int, int] = {}  # segments and their generations at the last refresh
        if writable:
            for leftover in (*folder.glob("*" + TEMPORARY), *_superseded(folder)):
                leftover.unlink()

    @property
    def damage(self) -> tuple[Damage, ...]:
        """Everything found damaged so far."""
        return tuple(self._damage)

    @property
    def size(self) -> int:
        """Bytes of all segments on disk."""
        total = 0
        for segment, generation in segments(self.folder).items():
            with suppress(FileNotFoundError):  # compacted meanwhile
                total += segment_path(self.folder, segment, generation).stat().st_size
        return total

    def start_after(self, last: Place) -> bool:
        """Begin reading behind a record that is known already; False, and nothing happens, if it is not there.

        To be called before the first :meth:`refresh`.
        """
        try:
            self.read(last)
        except (ValueError, OSError):
            return False
        self._segment, self._generation, self._checked = last.segment, last.generation, last.segment
        self._end, self.position, self._last = last.offset + FRAME_BYTES + last.length, last.sequence + 1, last
        header = os.pread(self._reader(last.segment, last.generation), _UNTIL.size + _CRC.size, 0)
        self._look_at_header(last.segment, header)
        return True

    def refresh(self) -> Iterator[Record]:
        """Yield the records that came after the last one read; to be exhausted.

        Raises:
            ValueError: a segment has a format number that this program does not read, or belongs to another memory.
            TakenBackError: the last record read is gone, or the log was compacted; read everything again.
        """
        self._check_last()
        found = segments(self.folder)
        if not self._writable and any(found.get(segment) != known for segment, known in self._found.items()):
            # The files that are open still hold what was read, but nothing else that was made from the log fits it any more.
            raise TakenBackError(f"{self.folder} was compacted; open it again")
        self._found = found
        for segment, generation in found.items():
            if segment < self._segment:
                continue
            if segment != self._segment:
                self._segment, self._generation, self._end = segment, generation, 0
            try:
                yield from self._read_segment(segment, last=segment == max(found))
            except FileNotFoundError:
                raise TakenBackError(f"{self._name(segment)} was compacted while it was read; open it again") from None

    def append(self, records: Sequence[tuple[Kind, bytes]]) -> list[Place]:
        """Write records and return when all of them are durable.

        Raises:
            OSError: none of them was written; the log ends where it did before, and a later append may succeed.
            ValueError: a payload is too long.
        """
        if not self._writable:
            raise ValueError(f"{self.folder} is open for reading; open the memory with mode='w' to add to it")
        for _, payload in records:
            if len(payload) > MAX_PAYLOAD:
                raise ValueError(f"a record of {len(payload)} bytes; the limit is {MAX_PAYLOAD}")
        if not records:
            return []
        segment, end, sequence = self._segment, self._end, self.position
        try:
            self._repair()
            if segment < 0 or end >= self._segment_bytes:
                self.begin_segment()
                segment, end = self._segment, self._end
            places, parts, offset, generation = [], [], end, self._generation
            for kind, payload in records:
                checksum, length = zlib.crc32(payload), len(payload)
                places.append(Place(sequence, segment, offset, length, checksum, generation))
                parts += [_frame(kind, sequence, length, checksum), payload]
                offset += FRAME_BYTES + length
                sequence += 1
            buffer = b"".join(parts)
            self._dirty = True
            write_all(self._writer, buffer)
            os.fsync(self._writer)
        except OSError as error:
            with suppress(OSError):  # tried again before the next append
                self._repair()
            raise OSError(
                error.errno,
                f"cannot write to {self._path(max(segment, 0))}: {os.strerror(error.errno or 0)}; nothing was added "
                "and nothing is lost: make room (or repair the disk) and add again",
            ) from error
        self._dirty = False
        self._end = end + len(buffer)
        self.position = sequence
        self._last = places[-1]
        return places

    def read(self, place: Place) -> bytes:
        """The payload of the record at ``place``.

        Raises:
            ValueError: it was damaged since it was first read.
        """
        data = os.pread(self._reader(place.segment, place.generation), FRAME_BYTES + place.length, place.offset)
        frame = _parse(data, 0)
        payload = data[FRAME_BYTES:]
        if frame is None or frame.sequence != place.sequence or zlib.crc32(payload) != place.checksum:
            path = segment_path(self.folder, place.segment, place.generation)
            raise ValueError(
                f"{path}, byte {place.offset}: record {place.sequence} was damaged after it was written; the others are not "
                "affected"
            )
        return payload

    def check_headers(self) -> None:
        """Look at the headers of all segments: whoever reads on behind the last known record passes the earlier ones by."""
        for segment, generation in segments(self.folder).items():
            path = segment_path(self.folder, segment, generation)
            name = f"{self.folder.name}/{path.name}"
            with suppress(FileNotFoundError):  # compacted meanwhile
                header = os.pread(self._reader(segment, generation), _UNTIL.size + _CRC.size, 0)
                if _parse_header(header) is None and not any(d.file == name and d.offset == 0 for d in self._damage):
                    self._damage.append(
                        Damage(
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
        return segment_path(self.folder, segment, self._generation if segment == self._segment else 0)

    def _name(self, segment: int) -> str:
        return f"{self.folder.name}/{self._path(segment).name}"

    def _reader(self, segment: int, generation: int) -> int:
        key = segment, generation
        if key not in self._readers:
            self._readers[key] = os.open(segment_path(self.folder, *key), os.O_RDONLY | os.O_CLOEXEC)
        return self._readers[key]

    def _check_last(self) -> None:
        """A reader may have seen a record whose fsync then failed, and which the writer took back."""
        if self._writable or self._last is None:
            return
        try:
            self.read(self._last)
        except (ValueError, FileNotFoundError):
            raise TakenBackError(f"the last record read from {self.folder} was taken back; open it again") from None

    def _read_segment(self, segment: int, *, last: bool) -> Iterator[Record]:
        data = _read_from(self._reader(segment, self._generation), self._end)
        base = self._end
        if segment != self._checked:
            self._end, self._checked = self._check_header(segment, data), segment
        while self._end - base < len(data):
            start = self._end - base
            frame = _good_record(data, start, self.position)
            if frame is not None:
                stop = start + FRAME_BYTES + frame.length
                if frame.sequence > self.position and not self._sparse:
                    lost = f"records {self.position} to {frame.sequence - 1} are missing"
                    self._note(segment, self._end, 0, lost)
                place = Place(frame.sequence, segment, self._end, frame.length, frame.checksum, self._generation)
                self._end, self.position, self._last = base + stop, frame.sequence + 1, place
                yield Record(place, frame.kind, data[start + FRAME_BYTES : stop])
                continue
            resume = _resume(data, start, self.position)
            if resume == len(data) and last:
                self._leave_tail(segment, len(data) - start)
                return
            following = _parse(data, resume)
            gap = following.sequence if following else self.position
            lost = f" (records {self.position} to {gap - 1} are lost)" if gap > self.position else ""
            self._note(segment, self._end, resume - start, f"damaged, skipped{lost}")
            self.position = max(self.position, gap)
            self._end = base + resume
        self.unfinished = 0
        self.position = max(self.position, self._until)

    def _check_header(self, segment: int, header: bytes) -> int:
        """Offset at which the records of ``segment`` begin."""
        if segment > self.position:
            self._note(segment, 0, 0, f"records {self.position} to {segment - 1} are missing before this segment")
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
        fields = _parse_header(header)
        if fields is None:
            return None
        number, first, memory, self._until, size = fields
        if number not in (FORMAT, COMPACTED):
            raise ValueError(
                f"{self._path(segment)} is of format {number}; this program reads {FORMAT} and {COMPACTED}: use the "
                "version that wrote it"
            )
        if memory != self._memory:
            raise ValueError(
                f"{self._path(segment)} belongs to another memory ({memory.hex()}, not {self._memory.hex()}): "
                "move it back to where it came from"
            )
        self._sparse = number == COMPACTED
        return size, first

    def _note(self, segment: int, offset: int, length: int, detail: str) -> None:
        self._damage.append(Damage(self._name(segment), offset, length, detail))

    def _leave_tail(self, segment: int, length: int) -> None:
        """Nothing readable follows: a writer cuts it, a reader waits for the rest."""
        self.unfinished = length
        if self._writable:
            self._open_writer(segment)
            os.ftruncate(self._writer, self._end)
            os.fsync(self._writer)
            self._note(segment, self._end, length, "a torn record at the end of the log, cut off")
            self.unfinished = 0

    def _open_writer(self, segment: int) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
        self._writer = os.open(self._path(segment), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def begin_segment(self) -> None:
        """Begin a new segment at the current position; what came before it is complete from now on.

        Raises:
            OSError: it could not be made; the old one goes on.
        """
        first = self.position
        if first == self._segment and self._end <= HEADER_BYTES:
            return
        header = _HEADER.pack(MAGIC, FORMAT, 0, first, self._memory)
        replace_file(segment_path(self.folder, first), header + _CRC.pack(zlib.crc32(header)))
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


def segment_path(folder: Path, segment: int, generation: int = 0) -> Path:
    """File of a segment."""
    return folder / (f"{segment:016d}" + (f".{generation:04d}" if generation else "") + _SUFFIX)


def _all_files(folder: Path) -> list[tuple[int, int]]:
    """(first sequence number, generation) of every segment file in `folder`, ascending."""
    found = []
    for path in folder.glob("*" + _SUFFIX):
        first, _, generation = path.stem.partition(".")
        if first.isdigit() and (generation.isdigit() or not generation):
            found.append((int(first), int(generation or 0)))
    return sorted(found)


def segments(folder: Path) -> dict[int, int]:
    """The segments in `folder`, ascending by first sequence number, and the latest generation of each."""
    return dict(_all_files(folder))


def _superseded(folder: Path) -> list[Path]:
    """Files of generations that a later one replaces: a compaction was killed before it could delete them."""
    latest = segments(folder)
    return [segment_path(folder, s, g) for s, g in _all_files(folder) if g != latest[s]]


def memory_id(folder: Path) -> bytes | None:
    """Id of the memory that the segments in ``folder`` belong to, from the first intact header; None without one."""
    for segment, generation in segments(folder).items():
        fields = _parse_header(segment_path(folder, segment, generation).open("rb").read(_UNTIL.size + _CRC.size))
        if fields is not None:
            return fields[2]
    return None


def frame_of(kind: int, sequence: int, payload: bytes, checksum: int) -> bytes:
    """A whole record: its frame, and the payload."""
    return _frame(kind, sequence, len(payload), checksum) + payload


def _frame(kind: int, sequence: int, length: int, checksum: int) -> bytes:
    frame = _FRAME.pack(MARK, kind, 0, 0, length, sequence, checksum)
    return frame + _CRC.pack(zlib.crc32(frame))


def compacted_header(first: int, until: int, memory: bytes) -> bytes:
    """Header of a segment from which records were left out."""
    header = _UNTIL.pack(MAGIC, COMPACTED, 0, first, memory, until)
    return header + _CRC.pack(zlib.crc32(header))


def _parse_header(data: bytes) -> tuple[int, int, bytes, int, int] | None:
    """Format, first sequence number, memory, number after the last record (0: as found) and length; None if damaged."""
    for form in (_HEADER, _UNTIL):
        size = form.size + _CRC.size
        if len(data) >= size and _CRC.unpack_from(data, form.size)[0] == zlib.crc32(data[: form.size]):
            magic, number, _, first, memory, *until = form.unpack(data[: form.size])
            if magic == MAGIC:
                return number, first, memory, until[0] if until else 0, size
    return None


@dataclass(frozen=True, slots=True)
class _Frame:
    kind: int
    length: int
    sequence: int
    checksum: int


def _parse(data: bytes, offset: int) -> _Frame | None:
    """The frame at ``offset`` if its own checksum holds; its payload is not looked at."""
    if offset + FRAME_BYTES > len(data) or data[offset : offset + len(MARK)] != MARK:
        return None
    if _CRC.unpack_from(data, offset + _FRAME.size)[0] != zlib.crc32(data[offset : offset + _FRAME.size]):
        return None
    _, kind, _, _, length, sequence, checksum = _FRAME.unpack_from(data, offset)
    return _Frame(kind, length, sequence, checksum) if length <= MAX_PAYLOAD else None


def _good_record(data: bytes, offset: int, position: int) -> _Frame | None:
    """The frame at ``offset`` if the whole record is intact and comes after what was read before."""
    frame = _parse(data, offset)
    if frame is None or frame.sequence < position:
        return None
    stop = offset + FRAME_BYTES + frame.length
    if stop > len(data) or zlib.crc32(memoryview(data)[offset + FRAME_BYTES : stop]) != frame.checksum:
        return None
    return frame


def _resume(data: bytes, offset: int, position: int) -> int:
    """Where reading can go on after damage at ``offset``; ``len(data)`` if nowhere."""
    frame = _parse(data, offset)
    if frame is not None:
        # Only the payload is bad. Its length can be trusted if it leads to another frame.
        boundary = offset + FRAME_BYTES + frame.length
        if _parse(data, boundary) is not None:
            return boundary
    start = offset + 1
    while (start := data.find(MARK, start)) >= 0:
        if _good_record(data, start, position) is not None:
            return start
        start += 1
    return len(data)


def _read_from(descriptor: int, offset: int) -> bytes:
    """All bytes from ``offset`` on. Read, not mapped: touching a map of a file that was just cut kills the process."""
    parts = []
    while part := os.pread(descriptor, 2**24, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
