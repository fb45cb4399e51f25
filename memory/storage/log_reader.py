"""Reading the log: its segments from the start, then what is appended to them.

What is damaged is skipped, said, and hides nothing else. Reading changes no file; what a writer
does to them is in :mod:`relive.memory.storage.log`.
"""

import os
import weakref
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .durable import Corruption, RolledBackError, open_file
from .segments import (
    COMPACTED,
    FORMAT,
    FRAME_BYTES,
    HEADER_BYTES,
    JUMP,
    LIMIT,
    LONGEST_HEADER,
    Record,
    RecordLocation,
    can_follow,
    parse_frame,
    parse_header,
    resume,
    segment_path,
    segments,
    strays,
    whole_record,
)


class LogReader:
    """The segments in one folder, read from the start and then followed as they grow.

    After opening, exhaust :meth:`refresh` once: it yields all records. Not thread-safe.

    Args:
        folder: of the segments.
        memory: id of the memory.
        writable: whether this program is the writer: nobody else then changes what was read.
    """

    def __init__(self, folder: Path, *, memory: bytes, writable: bool) -> None:
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
        self._readers: dict[tuple[int, int], int] = {}
        weakref.finalize(self, _close_all, self._readers).atexit = False
        self._found: dict[int, int] = {}  # segments and their generations at the last refresh

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
        _close_all(self._readers)

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
                f"the last record read from {self.folder} was rolled back; open it again"
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
        """Nothing readable follows in the last segment: wait for the rest."""
        self.unfinished = length


def _close_all(descriptors: dict[tuple[int, int], int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _read_from(descriptor: int, offset: int) -> bytes:
    """All bytes from ``offset`` on. Read, not mapped: touching a map of a file that was just cut
    kills the process."""
    parts = []
    while part := os.pread(descriptor, 2**24, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
