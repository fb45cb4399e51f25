"""The log: what was acknowledged is there, whatever happens to the file."""

import errno
import os
import resource
import signal
import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relive.memory.storage.durable import RolledBackError
from relive.memory.storage.log import Log
from relive.memory.storage.segments import (
    FRAME_BYTES,
    HEADER_BYTES,
    MARK,
    Kind,
    Record,
    memory_id,
    segments,
)

ID = bytes(range(16))
PAYLOADS = [b"", b"one", MARK * 3, b"\x00" * 40, b"five is a little longer than the others"]


def open_log(
    folder: Path, *, writable: bool = True, segment_bytes: int = 2**20
) -> tuple[Log, list[Record]]:
    """A log and all its records."""
    folder.mkdir(exist_ok=True)
    log = Log(folder, memory=ID, writable=writable, segment_bytes=segment_bytes)
    return log, list(log.refresh())


def write(folder: Path, payloads: list[bytes] = PAYLOADS, segment_bytes: int = 2**20) -> list[int]:
    """A new log; offsets at which its records begin."""
    log, _ = open_log(folder, segment_bytes=segment_bytes)
    places = [log.append([(Kind.EPISODE, payload)])[0] for payload in payloads]
    log.close()
    return [place.offset for place in places]


def only_file(folder: Path) -> Path:
    """The one segment in ``folder``."""
    (path,) = folder.glob("*.log")
    return path


def test_golden_bytes_of_format_1(tmp_path: Path) -> None:
    """Format 1 is on people's disks; see docs/file-format.md."""
    write(tmp_path / "log", [b"payload"])
    header = b"RELIVELG" + struct.pack("<IIQ", 1, 0, 0) + ID
    frame = b"\xc1RL\xc1" + struct.pack("<BBHIQI", 1, 0, 0, 7, 0, zlib.crc32(b"payload"))
    expected = (
        header
        + struct.pack("<I", zlib.crc32(header))
        + frame
        + struct.pack("<I", zlib.crc32(frame))
        + b"payload"
    )
    assert only_file(tmp_path / "log").read_bytes() == expected
    assert only_file(tmp_path / "log").name == "0000000000000000.log"


def test_records_come_back_in_order_and_can_be_read_again(tmp_path: Path) -> None:
    """With their kinds and sequence numbers, across segments, one at a time or in batches."""
    log, _ = open_log(tmp_path / "log", segment_bytes=200)
    for payload in PAYLOADS:
        log.append([(Kind.EPISODE, payload), (Kind.RATING, payload)])
    log.close()
    assert len(segments(tmp_path / "log")) > 1
    log, records = open_log(tmp_path / "log", writable=False)
    assert [record.payload for record in records] == [
        payload for payload in PAYLOADS for _ in range(2)
    ]
    assert [record.kind for record in records] == [Kind.EPISODE, Kind.RATING] * len(PAYLOADS)
    assert [record.place.sequence for record in records] == list(range(10))
    assert log.position == 10
    assert [log.read(record.place) for record in records] == [record.payload for record in records]
    assert not log.damage
    assert memory_id(tmp_path / "log") == ID
    log.close()


def test_truncation_at_every_byte_of_the_last_record(tmp_path: Path) -> None:
    """The torn record is cut and reported, all before it are there, and the log goes on."""
    offsets = write(tmp_path / "log")
    whole = only_file(tmp_path / "log").read_bytes()
    for length in range(offsets[-1], len(whole)):
        only_file(tmp_path / "log").write_bytes(whole[:length])
        reader, records = open_log(tmp_path / "log", writable=False)
        assert [record.payload for record in records] == PAYLOADS[:-1]
        assert reader.unfinished == length - offsets[-1]
        assert not reader.damage
        reader.close()
        log, records = open_log(tmp_path / "log")
        assert [record.payload for record in records] == PAYLOADS[:-1]
        found = [(damage.offset, damage.length) for damage in log.damage]
        assert found == ([(offsets[-1], length - offsets[-1])] if length > offsets[-1] else [])
        log.append([(Kind.EPISODE, b"after")])
        log.close()
        log, records = open_log(tmp_path / "log", writable=False)
        assert [record.payload for record in records] == [*PAYLOADS[:-1], b"after"]
        assert not log.damage
        log.close()


def test_flipped_bit_anywhere_costs_one_record(tmp_path: Path) -> None:
    """Every bit of the file: at most the record it lies in is lost, it is named, and what follows
    is found."""
    offsets = write(tmp_path / "log")
    whole = only_file(tmp_path / "log").read_bytes()
    ends = [*offsets[1:], len(whole)]
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        only_file(tmp_path / "log").write_bytes(damaged)
        log, records = open_log(tmp_path / "log", writable=False)
        hit = [start <= bit // 8 < end for start, end in zip(offsets, ends, strict=True)]
        assert [record.payload for record in records] == [
            p for p, lost in zip(PAYLOADS, hit, strict=True) if not lost
        ]
        if not hit[-1]:
            (damage,) = log.damage
            start, end = (
                (offsets[hit.index(True)], ends[hit.index(True)]) if any(hit) else (0, HEADER_BYTES)
            )
            assert (damage.offset, damage.length) == (start, end - start)
        else:
            assert log.unfinished == ends[-1] - offsets[-1]
        log.close()


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8), st.data())
def test_any_damage_leaves_the_untouched_records(
    tmp_path: Path, payloads: list[bytes], data: st.DataObject
) -> None:
    """Bytes overwritten, removed or put in between: every record outside is read, none is made
    up."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    offsets = write(folder, payloads)
    whole = only_file(folder).read_bytes()
    start = data.draw(st.integers(HEADER_BYTES, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    garbage = data.draw(
        st.one_of(
            st.binary(max_size=50), st.just(MARK), st.just(whole[HEADER_BYTES : HEADER_BYTES + 30])
        )
    )
    only_file(folder).write_bytes(whole[:start] + garbage + whole[stop:])
    ends = [*offsets[1:], len(whole)]
    untouched = [
        payload
        for payload, low, high in zip(payloads, offsets, ends, strict=True)
        if high <= start or low >= stop
    ]
    for writable in (False, True, False):
        log, records = open_log(folder, writable=writable)
        found = [record.payload for record in records]
        log.close()
        assert [payload for payload in found if payload in payloads] == found
        remaining = iter(found)
        assert all(payload in remaining for payload in untouched)


def test_lost_records_and_segments_are_counted(tmp_path: Path) -> None:
    """Sequence numbers tell what is missing, even a whole file."""
    write(tmp_path / "log", [bytes([number]) * 50 for number in range(9)], segment_bytes=200)
    first, second, *_ = sorted((tmp_path / "log").glob("*.log"))
    second.unlink()
    log, records = open_log(tmp_path / "log")
    missing = sorted(set(range(9)) - {record.place.sequence for record in records})
    assert missing
    assert log.position == 9
    assert any(
        f"records {missing[0]} to {missing[-1]} are missing" in str(damage) for damage in log.damage
    )
    assert log.append([(Kind.EPISODE, b"next")])[0].sequence == 9
    log.close()
    assert first.exists()


@pytest.mark.parametrize("failing", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, code: int
) -> None:
    """The append says what happened and leaves the log as it was; after that it works again."""
    log, _ = open_log(tmp_path / "log")
    log.append([(Kind.EPISODE, b"first")])
    before = only_file(tmp_path / "log").read_bytes()
    real_write, real_fsync = os.write, os.fsync
    state = {"left": 10}

    def write_some(descriptor: int, data: memoryview) -> int:
        if state["left"] == 0:
            raise OSError(code, os.strerror(code))
        written = real_write(descriptor, bytes(data)[: state["left"]])
        state["left"] -= written
        return written

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, failing, write_some if failing == "write" else fail)
    for _ in range(2):
        with pytest.raises(OSError, match="nothing was added") as caught:
            log.append([(Kind.EPISODE, b"second" * 100)])
        assert caught.value.errno == code
        assert "make room" in str(caught.value)
    monkeypatch.setattr(os, "write", real_write)
    monkeypatch.setattr(os, "fsync", real_fsync)
    assert only_file(tmp_path / "log").read_bytes() == before
    log.append([(Kind.EPISODE, b"third")])
    log.close()
    log, records = open_log(tmp_path / "log")
    assert [record.payload for record in records] == [b"first", b"third"]
    assert not log.damage
    log.close()


def test_full_disk_for_real(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow (RLIMIT_FSIZE): the same, without a shim."""
    log, _ = open_log(tmp_path / "log")
    log.append([(Kind.EPISODE, b"first")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError, match="nothing was added"):
            log.append([(Kind.EPISODE, b"x" * 5000)])
        log.append([(Kind.EPISODE, b"fits")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    log.append([(Kind.EPISODE, b"y" * 5000)])
    log.close()
    log, records = open_log(tmp_path / "log")
    assert [record.payload for record in records] == [b"first", b"fits", b"y" * 5000]
    assert not log.damage
    log.close()


def test_reader_follows_a_writer(tmp_path: Path) -> None:
    """Across segments, and through a record that is only half there yet."""
    writer, _ = open_log(tmp_path / "log", segment_bytes=300)
    reader, records = open_log(tmp_path / "log", writable=False)
    assert not records
    for number in range(20):
        writer.append([(Kind.EPISODE, b"%d" % number * 30)])
        assert [record.payload for record in reader.refresh()] == [b"%d" % number * 30]
        assert reader.position == writer.position
    last = sorted((tmp_path / "log").glob("*.log"))[-1]
    whole = last.read_bytes()
    writer.append([(Kind.NOTE, b"late")])
    grown = last.read_bytes()
    if grown.startswith(whole):
        last.write_bytes(grown[:-3])
        assert list(reader.refresh()) == []
        assert reader.unfinished
        last.write_bytes(grown)
    assert [record.payload for record in reader.refresh()] == [b"late"]
    assert not reader.unfinished
    assert not reader.damage
    writer.close()
    reader.close()


def test_reader_notices_that_a_record_was_taken_back(tmp_path: Path) -> None:
    """It had been seen before it was durable, and then the disk failed: better an error than a
    wrong answer."""
    write(tmp_path / "log")
    reader, records = open_log(tmp_path / "log", writable=False)
    os.truncate(only_file(tmp_path / "log"), records[-1].place.offset)
    with pytest.raises(RolledBackError, match="open it again"):
        list(reader.refresh())
    reader.close()


def test_format_of_the_future_and_foreign_segments(tmp_path: Path) -> None:
    """Refused with what was found and what to do, and left alone."""
    write(tmp_path / "log")
    path = only_file(tmp_path / "log")
    whole = path.read_bytes()
    header = b"RELIVELG" + struct.pack("<IIQ", 9, 0, 0) + ID
    path.write_bytes(header + struct.pack("<I", zlib.crc32(header)) + whole[HEADER_BYTES:])
    with pytest.raises(ValueError, match=r"format 9; this program reads 1 and 2"):
        open_log(tmp_path / "log")
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="another memory"):
        list(Log(tmp_path / "log", memory=bytes(16), writable=True).refresh())
    assert path.read_bytes() == whole


def test_limits_and_reading_only(tmp_path: Path) -> None:
    """A record that is too long, and an append to a log open for reading."""
    write(tmp_path / "log")
    log, records = open_log(tmp_path / "log", writable=False)
    with pytest.raises(ValueError, match="mode='w'"):
        log.append([(Kind.NOTE, b"")])
    path = only_file(tmp_path / "log")
    data = bytearray(path.read_bytes())
    data[records[1].place.offset + FRAME_BYTES] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="others are not affected"):
        log.read(records[1].place)
    assert log.read(records[0].place) == PAYLOADS[0]
    log.close()
