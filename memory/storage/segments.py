"""Segments of the log on disk: their names, their headers, and records with their frames. See
``docs/file-format.md``."""

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from .durable import open_to_read

MAGIC = b"RELIVELG"
FORMAT, COMPACTED = 1, 2
"""Format numbers of segments: as they are written, and of those from which records were left out on
purpose."""
MARK = b"\xc1RL\xc1"
"""Starts each record. 0xC1 occurs in no UTF-8 text and as no msgpack type, so it is rare inside
payloads."""
MAX_PAYLOAD = 64 * 2**20
"""Longest payload; a frame that claims more is damaged."""
LIMIT = 2**53
"""Sequence numbers are below this; a record or a file with a higher one is damaged."""
JUMP = 2**32
"""Sequence numbers never grow by more than this from one record, or one segment, to the next: so
much cannot have been lost."""
MOST_BYTES = 2**32 - 1
"""Longest segment; offsets are stored in 32 bits."""
MOST_GENERATIONS = 2**16 - 1
"""How often a segment can be compacted."""

_HEADER = struct.Struct(
    "<8sIIQ16s"
)  # magic, format, reserved, first sequence number, memory id; then crc32 of these
_UNTIL = struct.Struct(
    "<8sIIQ16sQ"
)  # of a compacted segment: the same, and the number after its last original record
_FRAME = struct.Struct(
    "<4sBBHIQI"
)  # mark, kind, flags, reserved, payload length, sequence, payload crc; then crc32
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
FRAME_BYTES = _FRAME.size + _CRC.size
LONGEST_HEADER = _UNTIL.size + _CRC.size
_SUFFIX = ".log"
_NAME = re.compile(r"([0-9]{16,})(?:\.([0-9]{4,}))?\.log")


class Kind(IntEnum):
    """What a record is. Readers skip kinds that they do not know."""

    EPISODE = 1
    RATING = 2
    NOTE = 3
    DELETE = 4
    USEFULNESS = 5
    RESTORE = 6
    UNRATE = 7


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


def segment_path(folder: Path, segment: int, generation: int = 0) -> Path:
    """File of a segment."""
    return folder / (f"{segment:016d}" + (f".{generation:04d}" if generation else "") + _SUFFIX)


_File = tuple[Path, int, int, str]
_LISTINGS = 20
"""Looks at a folder that changes all the time, at most."""


def _all_files(folder: Path) -> list[_File]:
    """Every file that ends like a segment, ascending: its first sequence number and generation, and
    why it is none, if so."""
    for _ in range(_LISTINGS):
        files = list(_listed(folder))
        # Compacted away meanwhile, and what replaces it need not have been there yet, either.
        if None not in files:
            break
    return [file for file in files if file is not None]


def _listed(folder: Path) -> Iterator[_File | None]:
    """The same of one look at the folder; None for a file that has vanished since."""
    before = 0
    for path in sorted(folder.glob("*" + _SUFFIX)):
        name = _NAME.fullmatch(path.name)
        first, generation = (int(name[1]), int(name[2] or 0)) if name else (0, 0)
        if not name or segment_path(folder, first, generation) != path:
            yield path, 0, 0, "not the name of a segment"
        elif first >= LIMIT or first - before > JUMP:
            yield path, first, generation, f"a segment cannot begin with record {first}"
        elif generation > MOST_GENERATIONS:
            yield (
                path,
                first,
                generation,
                f"a segment cannot have been compacted {generation} times",
            )
        else:
            try:
                status = path.stat()
            except OSError as error:
                if not os.path.lexists(path):
                    yield None
                    continue
                yield path, first, generation, f"cannot be read ({error.strerror})"
                continue
            if not stat.S_ISREG(status.st_mode):
                yield path, first, generation, "no regular file"
            elif status.st_size > MOST_BYTES:
                yield (
                    path,
                    first,
                    generation,
                    f"longer than a segment can be ({status.st_size} bytes)",
                )
            else:
                before = first
                yield path, first, generation, ""


def segments(folder: Path) -> dict[int, int]:
    """The segments in `folder`, ascending by first sequence number, and the latest generation of
    each."""
    files = _all_files(folder)
    return _latest((path, first, number) for path, first, number, wrong in files if not wrong)


def _latest(files: Iterable[tuple[Path, int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for _, first, generation in files:
        found[first] = max(generation, found.get(first, 0))
    return found


def strays(folder: Path) -> list[tuple[Path, str]]:
    """Files that look like segments and are none, and why."""
    return [(path, wrong) for path, _, _, wrong in _all_files(folder) if wrong]


def superseded(folder: Path) -> list[Path]:
    """Files of generations that a later one replaces: a compaction was killed before it could
    delete them."""
    # Listed once: a compaction in another process changes the folder meanwhile.
    files = [
        (path, first, number) for path, first, number, wrong in _all_files(folder) if not wrong
    ]
    latest = _latest(files)
    return [path for path, first, number in files if number != latest[first]]


def memory_id(folder: Path) -> bytes | None:
    """Id of the memory that the segments in ``folder`` belong to, from the first intact header;
    None without one."""
    for segment, generation in segments(folder).items():
        with open_to_read(segment_path(folder, segment, generation)) as file:
            fields = parse_header(file.read(LONGEST_HEADER))
        if fields is not None:
            return fields[2]
    return None


def frame_of(kind: int, sequence: int, payload: bytes, checksum: int) -> bytes:
    """A whole record: its frame, and the payload."""
    return frame_head(kind, sequence, len(payload), checksum) + payload


def frame_head(kind: int, sequence: int, length: int, checksum: int) -> bytes:
    """What stands before a payload."""
    frame = _FRAME.pack(MARK, kind, 0, 0, length, sequence, checksum)
    return frame + _CRC.pack(zlib.crc32(frame))


def plain_header(first: int, memory: bytes) -> bytes:
    """Header of a segment whose first record has this sequence number."""
    header = _HEADER.pack(MAGIC, FORMAT, 0, first, memory)
    return header + _CRC.pack(zlib.crc32(header))


def compacted_header(first: int, until: int, memory: bytes) -> bytes:
    """Header of a segment from which records were left out."""
    header = _UNTIL.pack(MAGIC, COMPACTED, 0, first, memory, until)
    return header + _CRC.pack(zlib.crc32(header))


def parse_header(data: bytes) -> tuple[int, int, bytes, int, int] | None:
    """Format, first sequence number, memory, number after the last record (0: as found) and length;
    None if damaged."""
    for form in (_HEADER, _UNTIL):
        size = form.size + _CRC.size
        if len(data) >= size and _CRC.unpack_from(data, form.size)[0] == zlib.crc32(
            data[: form.size]
        ):
            magic, number, _, first, memory, *until = form.unpack(data[: form.size])
            if magic == MAGIC:
                return number, first, memory, until[0] if until else 0, size
    return None


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands before a payload, parsed."""

    kind: int
    length: int
    sequence: int
    checksum: int


def parse_frame(data: bytes, offset: int) -> Frame | None:
    """The frame at ``offset`` if its own checksum holds; its payload is not looked at."""
    if offset + FRAME_BYTES > len(data) or data[offset : offset + len(MARK)] != MARK:
        return None
    if _CRC.unpack_from(data, offset + _FRAME.size)[0] != zlib.crc32(
        data[offset : offset + _FRAME.size]
    ):
        return None
    _, kind, _, _, length, sequence, checksum = _FRAME.unpack_from(data, offset)
    return Frame(kind, length, sequence, checksum) if length <= MAX_PAYLOAD else None


def whole_record(data: bytes, offset: int) -> Frame | None:
    """The frame at ``offset`` if the whole record is intact."""
    frame = parse_frame(data, offset)
    if frame is None:
        return None
    stop = offset + FRAME_BYTES + frame.length
    if (
        stop > len(data)
        or zlib.crc32(memoryview(data)[offset + FRAME_BYTES : stop]) != frame.checksum
    ):
        return None
    return frame


def can_follow(sequence: int, position: int) -> bool:
    """Whether a record may have this number where `position` is the next one."""
    return position <= sequence <= position + JUMP and sequence < LIMIT


def resume(data: bytes, offset: int, position: int) -> int:
    """Where reading can go on after damage at ``offset``; ``len(data)`` if nowhere."""
    frame = parse_frame(data, offset)
    if frame is not None:
        # Only the payload is bad. Its length can be trusted if it leads to another frame.
        boundary = offset + FRAME_BYTES + frame.length
        if parse_frame(data, boundary) is not None:
            return boundary
    start = offset + 1
    while (start := data.find(MARK, start)) >= 0:
        frame = whole_record(data, start)
        if frame is not None and can_follow(frame.sequence, position):
            return start
        start += 1
    return len(data)
