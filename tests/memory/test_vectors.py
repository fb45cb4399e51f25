"""The column of vectors: nothing is embedded twice, and nothing wrong is believed."""

import errno
import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from relive.memory.search.embed import Vectors
from relive.memory.search.vectors import WINDOW_BITS, VectorColumn, column_name
from relive.memory.storage.durable import RolledBackError
from relive.memory.storage.rows import HEADER_BYTES, Numbers, row_sums

DIMENSION = 8
ROW = 24 + 4 * DIMENSION
COUNT = 10
ALL = range(COUNT)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here, so nothing has to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def sources(rows: range | list[int]) -> tuple[Numbers, NDArray[np.uint32]]:
    """Labels and record checksums of rows: every third record is an episode."""
    numbers = np.array(rows, dtype=np.int64)
    return 3 * numbers << WINDOW_BITS, (1000 + numbers).astype(np.uint32)


def vectors(rows: range | list[int]) -> Vectors:
    """The vectors of rows."""
    return np.repeat(np.array(rows, dtype=np.float32), DIMENSION).reshape(-1, DIMENSION)


def column(
    folder: Path, rows: range | list[int] = ALL, *, writable: bool = True, identity: str = "test"
) -> VectorColumn:
    """A column of these rows, opened."""

    def embed(numbers: Numbers) -> Vectors:
        return vectors((opened.labels[numbers] // 3 >> WINDOW_BITS).tolist())

    opened = VectorColumn(
        folder / "v.vec",
        identity=identity,
        dimension=DIMENSION,
        memory=bytes(16),
        embed=embed,
        writable=writable,
    )
    opened.open(*sources(rows))
    return opened


def check(opened: VectorColumn, rows: range | list[int] = ALL) -> None:
    """All rows are right, however one asks."""
    count = len(rows)
    assert len(opened) == count
    assert np.array_equal(opened.labels, sources(rows)[0])
    assert np.array_equal(
        opened.scores(vectors([1])[0], 2, count), DIMENSION * np.array(rows[2:], dtype=np.float32)
    )
    assert np.array_equal(
        opened.scores(vectors([1])[0], 0, count), DIMENSION * np.array(rows, dtype=np.float32)
    )
    assert np.array_equal(opened.take(np.arange(count)), vectors(rows))
    assert np.array_equal(opened.take(np.array([1, 0, 1])), vectors([rows[1], rows[0], rows[1]]))


def test_golden_bytes_of_format_2(tmp_path: Path) -> None:
    """See docs/file-format.md; rows of an odd dimension are filled up to a multiple of eight
    bytes."""
    column(tmp_path, range(1, 2))
    data = (tmp_path / "v.vec").read_bytes()
    header = b"RELIVEVC" + struct.pack("<II", 2, ROW) + bytes(16) + hashlib.sha256(b"test").digest()
    assert data[:HEADER_BYTES] == header + struct.pack("<II", zlib.crc32(header), 0)
    assert data[HEADER_BYTES + 8 :] == struct.pack(
        f"<QII{DIMENSION}f", 3 << 8, 1001, 0, *[1.0] * DIMENSION
    )
    assert (
        data[HEADER_BYTES : HEADER_BYTES + 8]
        == row_sums(np.frombuffer(data[HEADER_BYTES:], f"V{ROW}")).tobytes()
    )
    odd = VectorColumn(
        tmp_path / "o.vec",
        identity="test",
        dimension=3,
        memory=bytes(16),
        embed=lambda n: n,
        writable=True,
    )
    odd.append(*sources([0]), np.ones((1, 3), dtype=np.float32))
    assert (tmp_path / "o.vec").stat().st_size == HEADER_BYTES + 40


def test_nothing_is_embedded_twice(tmp_path: Path) -> None:
    """A second opening finds every row, appended ones too."""
    first = column(tmp_path, range(6))
    assert first.embedded == 6
    first.append(*sources([6, 7]), vectors([6, 7]))
    first.append(*sources([8, 9]), vectors([8, 9]))
    check(first)
    assert first.embedded == 6
    second = column(tmp_path)
    assert second.embedded == 0
    assert not second.damage
    check(second)
    assert second.check_all() == 0


@pytest.mark.parametrize("writable", [True, False])
def test_every_torn_length(tmp_path: Path, writable: bool) -> None:
    """Whatever is missing at the end is embedded again, and a writer puts it back."""
    column(tmp_path)
    path = tmp_path / "v.vec"
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        opened = column(tmp_path, writable=writable)
        assert opened.embedded == COUNT - max(0, length - HEADER_BYTES) // ROW
        check(opened)
        assert path.read_bytes() == (whole if writable else whole[:length])


def test_flipped_bits(tmp_path: Path) -> None:
    """One row is embedded again; a damaged header costs all of them, and no wrong vector is
    used."""
    column(tmp_path)
    path = tmp_path / "v.vec"
    whole = path.read_bytes()
    for at in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        opened = column(tmp_path)
        check(opened)
        assert opened.embedded == (COUNT if at < HEADER_BYTES else 1)
        assert len(opened.damage) == 1
        assert path.read_bytes() == whole


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("ask", ["take", "scores", "check_all"])
def test_damage_that_opening_did_not_look_at(tmp_path: Path, ask: str, writable: bool) -> None:
    """Only some rows are looked at when a column is opened; the others when they are used, and are
    embedded again then."""
    rows = range(300)
    column(tmp_path, rows)
    path = tmp_path / "v.vec"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    for row in (7, 150):
        damaged[HEADER_BYTES + row * ROW + 30] ^= 1
    path.write_bytes(damaged)
    opened = column(tmp_path, rows, writable=writable)
    assert opened.embedded == 0
    if ask == "take":
        assert np.array_equal(opened.take(np.array([150, 7, 150])), vectors([150, 7, 150]))
    elif ask == "scores":
        assert opened.scores(vectors([1])[0], 5, 160).tolist() == [
            DIMENSION * row for row in range(5, 160)
        ]
    else:
        assert opened.check_all() == 2
    assert opened.embedded == 2
    assert "2 rows embedded again" in str(opened.damage[0])
    check(opened, rows)
    assert opened.check_all() == 0
    assert path.read_bytes() == (whole if writable else bytes(damaged))


def test_rows_made_from_other_records_are_not_used(tmp_path: Path) -> None:
    """The log lost its end and went on differently: same sequence number, another record."""
    column(tmp_path)
    labels, checksums = sources(ALL)
    checksums[9] = 77

    def other() -> VectorColumn:
        opened = VectorColumn(
            tmp_path / "v.vec",
            identity="test",
            dimension=DIMENSION,
            memory=bytes(16),
            embed=lambda numbers: vectors(numbers.tolist()),
            writable=True,
        )
        opened.open(labels, checksums)
        return opened

    opened = other()
    assert opened.embedded == 1
    check(opened)
    assert other().embedded == 0
    assert column(tmp_path, range(4)).embedded == 0


def test_rows_in_the_middle_came_or_went(tmp_path: Path) -> None:
    """A compaction was killed, or a record that could not be read can be again: what is known is
    kept, in its new place."""
    column(tmp_path)
    fewer = [0, 1, 4, 5, 6, 9]
    check(column(tmp_path, fewer, writable=False), fewer)
    opened = column(tmp_path, fewer)
    assert opened.embedded == 0
    check(opened, fewer)
    more = column(tmp_path, ALL)
    assert more.embedded == 4
    check(more)
    assert column(tmp_path).embedded == 0


@pytest.mark.parametrize("writable", [True, False])
def test_nothing_is_left(tmp_path: Path, writable: bool) -> None:
    """The log has no episodes any more: rows of nobody are no reason to fail, and are gone once
    there are others."""
    column(tmp_path)
    opened = column(tmp_path, [], writable=writable)
    assert (len(opened), opened.embedded) == (0, 0)
    assert opened.scores(vectors([1])[0], 0, 0).shape == (0,)
    assert opened.check_all() == 0
    opened.append(*sources([20, 21]), vectors([20, 21]))
    check(opened, [20, 21])
    assert column(tmp_path, [20, 21], writable=False).embedded == (0 if writable else 2)


def test_dropping_rows(tmp_path: Path) -> None:
    """For good, in a new file; what was mapped of the old one stays, a damaged row is put right on
    the way."""
    rows = range(300)
    column(tmp_path, rows)
    path = tmp_path / "v.vec"
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 7 * ROW + 30] ^= 1
    path.write_bytes(data)
    opened, reader = column(tmp_path, rows), column(tmp_path, rows, writable=False)
    left = [*range(5, 9), *range(200, 300)]
    opened.drop(np.isin(np.arange(300), left))
    assert opened.embedded == 1
    check(opened, left)
    opened.append(*sources([300]), vectors([300]))
    check(opened, [*left, 300])
    assert path.stat().st_size == HEADER_BYTES + 105 * ROW
    again = column(tmp_path, [*left, 300])
    assert (again.embedded, again.damage) == (0, ())
    check(again, [*left, 300])
    again.drop(np.zeros(105, dtype=np.bool_))
    assert len(again) == 0
    again.append(*sources([301, 302]), vectors([301, 302]))
    check(again, [301, 302])
    check(reader, rows)


def test_reader_follows(tmp_path: Path) -> None:
    """It takes new rows from the file, embeds those not there yet, and minds neither being ahead
    nor behind."""
    writer = column(tmp_path, range(3))
    reader = column(tmp_path, range(2), writable=False)
    assert reader.embedded == 0
    assert not reader.damage
    writer.append(*sources([3, 4, 5]), vectors([3, 4, 5]))
    reader.follow(*sources(range(2, 8)))
    assert reader.embedded == 2
    assert not reader.damage
    check(reader, range(8))
    writer.append(*sources(range(6, 10)), vectors(range(6, 10)))
    reader.follow(*sources(range(8, 10)))
    check(reader)
    assert reader.embedded == 2
    assert not reader.damage


def test_a_reader_does_not_believe_what_it_follows(tmp_path: Path) -> None:
    """A row that the writer is still writing, or that was damaged, is embedded instead."""
    writer = column(tmp_path, range(3))
    reader = column(tmp_path, range(3), writable=False)
    writer.append(*sources([3, 4]), vectors([3, 4]))
    path = tmp_path / "v.vec"
    data = bytearray(path.read_bytes())
    data[-ROW:] = bytes(ROW)
    with path.open("r+b") as file:
        file.write(data)
    reader.follow(*sources([3, 4]))
    check(reader, range(5))
    assert reader.embedded == 1


def test_what_a_reader_mended_is_damaged_again_when_it_follows(tmp_path: Path) -> None:
    """It mends only in memory, and what is mapped anew is the file."""
    rows = range(300)
    writer = column(tmp_path, rows)
    path = tmp_path / "v.vec"
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + 7 * ROW + 30)
        file.write(b"!!")
    reader = column(tmp_path, rows, writable=False)
    check(reader, rows)
    writer.append(*sources([300]), vectors([300]))
    reader.follow(*sources([300]))
    check(reader, range(301))
    assert reader.embedded == 2


def test_a_file_in_the_place_of_another_is_not_followed(tmp_path: Path) -> None:
    """Rows have moved in it: the column has to be opened again."""
    writer = column(tmp_path, range(20))
    reader = column(tmp_path, range(20), writable=False)
    writer.drop(np.arange(20) != 3)
    writer.append(*sources([20]), vectors([20]))
    with pytest.raises(RolledBackError):
        reader.follow(*sources([20]))


def test_another_embedder(tmp_path: Path) -> None:
    """Its rows are not taken, and its file has another name anyway."""
    column(tmp_path)
    assert column(tmp_path, identity="other", writable=False).embedded == 10
    assert column_name("a/b") != column_name("a.b")
    assert "/" not in column_name("a/b")


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be written is no reason to fail; it catches up when there is room."""
    opened = column(tmp_path, range(4))
    real = os.write

    def fail(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    opened.append(*sources([4, 5]), vectors([4, 5]))
    assert "No space left" in str(opened.damage[0])
    monkeypatch.setattr(os, "write", real)
    opened.append(*sources(range(6, 10)), vectors(range(6, 10)))
    check(opened)
    assert column(tmp_path).embedded == 0


def test_equal_rows_get_equal_scores_wherever_they_stand(tmp_path: Path) -> None:
    """To the last bit, in the mapped part and in the tail."""
    generator = np.random.default_rng(0)
    row = generator.standard_normal(DIMENSION).astype(np.float32)

    def make(rows: range, writable: bool) -> VectorColumn:
        made = VectorColumn(
            tmp_path / "w.vec",
            identity="t",
            dimension=DIMENSION,
            memory=bytes(16),
            embed=lambda numbers: np.tile(row, (len(numbers), 1)),
            writable=writable,
        )
        made.open(*sources(rows))
        return made

    make(range(5), True)
    reader = make(range(5), False)
    assert reader.embedded == 0
    reader.append(*sources(range(5, 10)), np.tile(row, (5, 1)))
    query = generator.standard_normal(DIMENSION).astype(np.float32)
    assert len({float(score) for score in reader.scores(query, 0, 10)}) == 1
    assert (
        len(
            {
                float(score)
                for score in np.einsum("ij,j->i", reader.take(np.array([9, 0, 3])), query)
            }
        )
        == 1
    )


def test_digest_names_what_rows_were_made_from(tmp_path: Path) -> None:
    """Labels and checksums both count, and only those of the first so many rows."""
    opened = column(tmp_path)
    assert (
        opened.digest(6) == column(tmp_path, range(6), writable=False).digest(6) != opened.digest(7)
    )
    assert opened.digest(6) != column(tmp_path, [0, 1, 2, 3, 4, 7], writable=False).digest(6)


@pytest.mark.parametrize("there", [0, 4])
def test_what_a_reader_made_it_does_not_make_again(tmp_path: Path, there: int) -> None:
    """Nobody writes a column of its embedder, or nobody any more."""
    if there:
        column(tmp_path, range(there))
    reader = column(tmp_path, range(6), writable=False)
    for count in range(6, COUNT):
        reader.follow(*sources([count]))
        assert reader.embedded == count + 1 - there
        check(reader, range(count + 1))
    column(tmp_path, range(COUNT + 2))  # a writer of it comes
    reader.follow(*sources([COUNT]))
    reader.follow(*sources([COUNT + 1]))
    assert reader.embedded == COUNT - there
    check(reader, range(COUNT + 2))


def test_what_was_made_and_is_damaged_in_the_file_later(tmp_path: Path) -> None:
    """Rows that the writer wrote meanwhile are looked at, whatever stood in their place."""
    reader = column(tmp_path, range(4), writable=False)
    writer = column(tmp_path, range(6))
    data = bytearray((tmp_path / "v.vec").read_bytes())
    data[HEADER_BYTES + 2 * ROW + 30] ^= 1
    (tmp_path / "v.vec").write_bytes(data)
    reader.follow(*sources([4, 5]))
    check(reader, range(6))
    assert reader.embedded == 4 + 1
    check(writer, range(6))
