"""Segments of the log on disk: their names, their headers, and the frames of records. See ``docs/file-format.md``."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"RELIVELG"
FORMAT, COMPACTED = 1, 2
"""Format numbers of segments: as they are written, and of those from which records were left out on purpose."""
MARK = b"\xc1RL\xc1"
"""Starts each record. 0xC1 occurs in no UTF-8 text and as no msgpack type, so it is rare inside payloads."""
MAX_PAYLOAD = 64 * 2**20
"""Longest payload; a frame that claims more is damaged."""

_HEADER = struct.Struct("<8sIIQ16s")  # magic, format, reserved, first sequence number, memory id; then crc32 of these
_UNTIL = struct.Struct("<8sIIQ16sQ")  # of a compacted segment: the same, and the number after its last original record
_FRAME = struct.Struct("<4sBBHIQI")  # mark, kind, flags, reserved, payload length, sequence, payload crc; then crc32
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
FRAME_BYTES = _FRAME.size + _CRC.size
LONGEST_HEADER = _UNTIL.size + _CRC.size
_SUFFIX = ".log"


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


def superseded(folder: Path) -> list[Path]:
    """Files of generations that a later one replaces: a compaction was killed before it could delete them."""
    latest = segments(folder)
    return [segment_path(folder, s, g) for s, g in _all_files(folder) if g != latest[s]]


def memory_id(folder: Path) -> bytes | None:
    """Id of the memory that the segments in ``folder`` belong to, from the first intact header; None without one."""
    for segment, generation in segments(folder).items():
        fields = parse_header(segment_path(folder, segment, generation).open("rb").read(LONGEST_HEADER))
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
    """Format, first sequence number, memory, number after the last record (0: as found) and length; None if damaged."""
    for form in (_HEADER, _UNTIL):
        size = form.size + _CRC.size
        if len(data) >= size and _CRC.unpack_from(data, form.size)[0] == zlib.crc32(data[: form.size]):
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
    if _CRC.unpack_from(data, offset + _FRAME.size)[0] != zlib.crc32(data[offset : offset + _FRAME.size]):
        return None
    _, kind, _, _, length, sequence, checksum = _FRAME.unpack_from(data, offset)
    return Frame(kind, length, sequence, checksum) if length <= MAX_PAYLOAD else None


def good_record(data: bytes, offset: int, position: int) -> Frame | None:
    """The frame at ``offset`` if the whole record is intact and comes after what was read before."""
    frame = parse_frame(data, offset)
    if frame is None or frame.sequence < position:
        return None
    stop = offset + FRAME_BYTES + frame.length
    if stop > len(data) or zlib.crc32(memoryview(data)[offset + FRAME_BYTES : stop]) != frame.checksum:
        return None
    return frame


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
        if good_record(data, start, position) is not None:
            return start
        start += 1
    return len(data)
