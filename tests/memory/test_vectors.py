"""The column of vectors: nothing is embedded twice, and nothing wrong is believed."""

import errno
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from memory.embed import Vectors
from memory.vectors import HEADER_BYTES, Source, VectorColumn, column_name

DIMENSION = 8
ROW = 20 + 4 * DIMENSION
SOURCES = [(3 * number, 1000 + number) for number in range(10)]


def vector(ordinal: int) -> Vectors:
    """The vector of an entry."""
    return np.full(DIMENSION, ordinal, dtype=np.float32)


def embed(ordinals: Sequence[int]) -> Vectors:
    """The vectors of some entries."""
    return np.array([vector(ordinal) for ordinal in ordinals], dtype=np.float32).reshape(-1, DIMENSION)


def column(
    folder: Path, sources: list[Source] = SOURCES, *, writable: bool = True, identity: str = "test"
) -> VectorColumn:
    """A column with the rows for ``sources``."""
    opened = VectorColumn(folder / "v.vec", identity=identity, dimension=DIMENSION, memory=bytes(16), writable=writable)
    opened.extend(sources, embed)
    return opened


def check(opened: VectorColumn, count: int = len(SOURCES)) -> None:
    """All rows are right."""
    assert len(opened) == count
    assert np.array_equal(opened.take(np.arange(count)), embed(range(count)))
    assert np.array_equal(opened.scores(vector(1), 0, count), DIMENSION * np.arange(count, dtype=np.float32))
    assert np.array_equal(opened.scores(vector(1), 2, 7), DIMENSION * np.arange(2, 7, dtype=np.float32))


def test_golden_bytes_of_format_1(tmp_path: Path) -> None:
    """See docs/file-format.md."""
    column(tmp_path, SOURCES[1:2])
    data = (tmp_path / "v.vec").read_bytes()
    assert data[:32] == b"RELIVEVC" + struct.pack("<II", 1, DIMENSION) + bytes(16)
    assert data[64:68] == struct.pack("<I", zlib.crc32(data[:64]))
    assert HEADER_BYTES == 68
    key, body = struct.pack("<QII", 3, 1001, 0), bytes(4 * DIMENSION)
    assert data[68:] == key + struct.pack("<I", zlib.crc32(key + body)) + body


def test_nothing_is_embedded_twice(tmp_path: Path) -> None:
    """A second opening finds every row, appended ones too."""
    first = column(tmp_path, SOURCES[:6])
    assert first.embedded == 6
    first.append(SOURCES[6:8], embed([6, 7]))
    first.append(SOURCES[8:], embed([8, 9]))
    check(first)
    second = column(tmp_path)
    assert second.embedded == 0
    assert not second.damage
    check(second)


@pytest.mark.parametrize("writable", [True, False])
def test_every_torn_length(tmp_path: Path, writable: bool) -> None:
    """Whatever is missing at the end is embedded again, and a writer puts it back."""
    column(tmp_path)
    path = tmp_path / "v.vec"
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        opened = column(tmp_path, writable=writable)
        assert opened.embedded == 10 - max(0, length - HEADER_BYTES) // ROW
        check(opened)
        assert path.read_bytes() == (whole if writable else whole[:length])


def test_flipped_bits(tmp_path: Path) -> None:
    """One row is embedded again; a damaged header costs all of them, and no wrong vector is used."""
    column(tmp_path)
    path = tmp_path / "v.vec"
    whole = path.read_bytes()
    for at in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        opened = column(tmp_path)
        check(opened)
        assert opened.embedded == (10 if at < HEADER_BYTES else 1)
        assert len(opened.damage) == 1
        assert path.read_bytes() == whole


def test_rows_made_from_other_records_are_not_used(tmp_path: Path) -> None:
    """The log lost its end and went on differently: same sequence number, another record."""
    column(tmp_path)
    other = [*SOURCES[:9], (SOURCES[9][0], 77)]
    opened = column(tmp_path, other)
    assert opened.embedded == 1
    check(opened)
    assert column(tmp_path, other).embedded == 0
    assert column(tmp_path, SOURCES[:4]).embedded == 0


def test_reader_follows(tmp_path: Path) -> None:
    """It takes new rows from the file, embeds those not there yet, and minds neither being ahead nor behind."""
    writer = column(tmp_path, SOURCES[:3])
    reader = column(tmp_path, SOURCES[:2], writable=False)
    assert reader.embedded == 0
    assert not reader.damage
    writer.append(SOURCES[3:6], embed([3, 4, 5]))
    reader.extend(SOURCES[2:8], embed)
    assert reader.embedded == 2
    assert not reader.damage
    check(reader, 8)


def test_another_embedder(tmp_path: Path) -> None:
    """Its rows are not taken, and its file has another name anyway."""
    column(tmp_path)
    assert column(tmp_path, identity="other", writable=False).embedded == 10
    assert column_name("a/b") != column_name("a.b")
    assert "/" not in column_name("a/b")


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be written is no reason to fail; it catches up when there is room."""
    opened = column(tmp_path, SOURCES[:4])
    real = os.write

    def fail(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    opened.append(SOURCES[4:6], embed([4, 5]))
    assert "No space left" in str(opened.damage[0])
    monkeypatch.setattr(os, "write", real)
    opened.append(SOURCES[6:], embed([6, 7, 8, 9]))
    check(opened)
    assert column(tmp_path).embedded == 0


def test_equal_rows_get_equal_scores_wherever_they_stand(tmp_path: Path) -> None:
    """To the last bit, in the mapped part and in the tail, for odd dimensions too."""
    generator = np.random.default_rng(0)
    row = generator.standard_normal(DIMENSION).astype(np.float32)
    writer = VectorColumn(tmp_path / "w.vec", identity="t", dimension=DIMENSION, memory=bytes(16), writable=True)
    writer.extend(SOURCES, lambda ordinals: np.tile(row, (len(ordinals), 1)))
    reader = VectorColumn(tmp_path / "w.vec", identity="t", dimension=DIMENSION, memory=bytes(16), writable=False)
    reader.extend(SOURCES[:5], embed)
    reader.append(SOURCES[5:], np.tile(row, (5, 1)))
    query = generator.standard_normal(DIMENSION).astype(np.float32)
    assert len({float(score) for score in reader.scores(query, 0, 10)}) == 1
