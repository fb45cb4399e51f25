"""Files of fixed rows: every change is noticed, a torn end is made again, a mapped row stays what
it was."""

import errno
import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from relive.memory.storage.rows import BLOCK, HEADER_BYTES, RowFile, Rows, blocks_sum, row_sums

DTYPE = np.dtype([("sum", "<u8"), ("number", "<u8"), ("text", "S16")])
ID = bytes(range(16))


def rows(*numbers: int) -> Rows:
    """A row for each number."""
    made = np.zeros(len(numbers), dtype=DTYPE)
    made["number"], made["text"] = numbers, [f"row {number}".encode() for number in numbers]
    return made


def open_file(folder: Path, *, writable: bool = True, tag: str = "t", number: int = 3) -> RowFile:
    """The file in ``folder``, loaded."""
    file = RowFile(
        folder / "a.rows",
        magic=b"RELIVEXX",
        number=number,
        dtype=DTYPE,
        memory=ID,
        tag=tag,
        writable=writable,
    )
    file.load()
    return file


def numbers(file: RowFile) -> list[int]:
    """What the rows hold, by both ways of getting at them, which must agree; their checksums
    hold."""
    taken = file.take(np.arange(len(file)))["number"].tolist()
    parts = [part["number"].tolist() for part in file.parts(0, len(file))]
    assert taken == [number for part in parts for number in part]
    assert file.valid(0, len(file)).all()
    return taken


def test_golden_bytes(tmp_path: Path) -> None:
    """See docs/file-format.md: the header, and the checksum of a row computed in the plainest
    way."""
    open_file(tmp_path).append(rows(7))
    data = (tmp_path / "a.rows").read_bytes()
    header = (
        b"RELIVEXX" + struct.pack("<II", 3, DTYPE.itemsize) + ID + hashlib.sha256(b"t").digest()
    )
    assert data[:HEADER_BYTES] == header + struct.pack("<II", zlib.crc32(header), 0)
    # SplitMix64 from state 0 gives these (made odd): the first three outputs of its reference
    # implementation.
    factors = [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4 | 1,
        0x06C45D188009454F,
        0xF88BB8A8724C81EC | 1,
    ]
    words = struct.unpack("<QQQ", struct.pack("<Q16s", 7, b"row 7"))
    expected = (factors[0] + sum(f * w for f, w in zip(factors[1:], words, strict=True))) % 2**64
    assert data[HEADER_BYTES:] == struct.pack("<QQ16s", expected, 7, b"row 7")


def test_what_is_appended_comes_back(tmp_path: Path) -> None:
    """From memory at once, from the file at the next opening, and both together after that."""
    file = open_file(tmp_path)
    assert len(file) == 0
    for number in range(0, 200, 2):
        file.append(rows(number, number + 1))
    assert numbers(file) == list(range(200))
    assert file.mapped == 0
    file = open_file(tmp_path)
    assert (len(file), file.mapped) == (200, 200)
    file.append(rows(200, 201))
    assert numbers(file) == list(range(202))
    assert [part["number"].tolist() for part in file.parts(198, 201)] == [[198, 199], [200]]
    assert file.take(np.array([201, 3, 200]))["number"].tolist() == [201, 3, 200]
    assert (file.mapped, file.damage) == (200, [])
    assert file.offset(200) == HEADER_BYTES + 200 * DTYPE.itemsize


def test_any_flipped_bit_is_noticed() -> None:
    """Within a word always; the other rows stay sound."""
    good = rows(1, 2, 3)
    good["sum"] = row_sums(good)
    data = good.tobytes()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        read = np.frombuffer(bytes(damaged), dtype=DTYPE)
        hit = bit // 8 // DTYPE.itemsize
        assert (read["sum"] == row_sums(read)).tolist() == [number != hit for number in range(3)]


def test_rows_of_zeros_are_not_valid() -> None:
    """What a file system leaves behind after a power cut."""
    empty = np.zeros(4, dtype=DTYPE)
    assert not (empty["sum"] == row_sums(empty)).any()
    assert row_sums(empty[:0]).shape == (0,)


def test_any_changed_block_is_noticed() -> None:
    """Flipped, swapped or missing blocks of a file that is no rows; how it is cut into parts at
    blocks makes no difference."""
    data = np.random.default_rng(0).integers(0, 256, 3 * BLOCK + 100, dtype=np.uint8)
    good = blocks_sum(data)
    assert good == blocks_sum(data[:BLOCK], data[BLOCK:]) == blocks_sum(data.copy())
    others = [
        blocks_sum(data[: 3 * BLOCK]),
        blocks_sum(data[BLOCK:]),
        blocks_sum(data[BLOCK : 2 * BLOCK], data),
    ]
    others.append(blocks_sum(data[BLOCK : 2 * BLOCK], data[:BLOCK], data[2 * BLOCK :]))
    for at in (0, BLOCK - 1, BLOCK, 2 * BLOCK + 17, len(data) - 1):
        flipped = data.copy()
        flipped[at] ^= 1
        others.append(blocks_sum(flipped))
    assert good not in others
    assert len(set(others)) == len(others)


def test_half_a_row_is_overwritten(tmp_path: Path) -> None:
    """A writer died in the middle of a row: whole rows are kept, and what comes next takes its
    place."""
    open_file(tmp_path).append(rows(0, 1, 2))
    path = tmp_path / "a.rows"
    whole = path.read_bytes()
    for missing in range(1, DTYPE.itemsize):
        path.write_bytes(whole[:-missing])
        file = open_file(tmp_path)
        assert numbers(file) == [0, 1]
        file.append(rows(9))
        assert numbers(open_file(tmp_path)) == [0, 1, 9]


def test_what_is_not_kept_is_overwritten_and_never_cut_off(tmp_path: Path) -> None:
    """Another process may have it mapped: a map of what was cut off kills who touches it."""
    open_file(tmp_path).append(rows(*range(10)))
    size = (tmp_path / "a.rows").stat().st_size
    reader = open_file(tmp_path, writable=False)
    file = open_file(tmp_path)
    file.keep(4)
    assert numbers(file) == [0, 1, 2, 3]
    file.append(rows(50))
    assert numbers(file) == [0, 1, 2, 3, 50]
    assert (tmp_path / "a.rows").stat().st_size == size
    assert reader.valid(0, 10).all()
    assert numbers(open_file(tmp_path)) == [0, 1, 2, 3, 50, *range(5, 10)]
    file.keep(4)
    file.append(rows(60, 61))
    assert numbers(file) == [0, 1, 2, 3, 60, 61]


def test_starting_again_makes_a_new_file(tmp_path: Path) -> None:
    """What a reader has mapped of the old one stays as it was."""
    open_file(tmp_path).append(rows(*range(10)))
    reader = open_file(tmp_path, writable=False)
    file = open_file(tmp_path)
    file.keep(0)
    file.append(rows(70, 71))
    assert numbers(reader) == list(range(10))
    assert numbers(open_file(tmp_path)) == [70, 71]


@pytest.mark.parametrize("other", ["tag", "number", "damaged", "short"])
def test_another_header_is_another_file(tmp_path: Path, other: str) -> None:
    """It is named, nothing is taken from it, and a writer replaces it."""
    open_file(tmp_path).append(rows(1, 2))
    path = tmp_path / "a.rows"
    data = bytearray(path.read_bytes())
    if other == "damaged":
        data[70] ^= 1
        path.write_bytes(data)
    elif other == "short":
        path.write_bytes(data[:20])
    options: dict[str, object] = {"tag": {"tag": "u"}, "number": {"number": 2}}.get(other, {})  # type: ignore[assignment]
    file = open_file(tmp_path, **options)  # type: ignore[arg-type]
    assert len(file) == 0
    assert "damaged or of something else" in str(file.damage[0])
    file.append(rows(3))
    again = open_file(tmp_path, **options)  # type: ignore[arg-type]
    assert (numbers(again), again.damage) == ([3], [])


def test_a_reader_writes_nothing(tmp_path: Path) -> None:
    """It keeps rows in memory; so does mending."""
    open_file(tmp_path).append(rows(1, 2))
    before = (tmp_path / "a.rows").read_bytes()
    reader = open_file(tmp_path, writable=False)
    reader.append(rows(3))
    reader.repair(0, rows(8))
    reader.repair(2, rows(9))
    assert numbers(reader) == [8, 2, 9]
    assert (tmp_path / "a.rows").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.rows"]


def test_mending(tmp_path: Path) -> None:
    """A damaged row is put right where it is mapped, and in the file."""
    open_file(tmp_path).append(rows(0, 1, 2))
    path = tmp_path / "a.rows"
    whole = path.read_bytes()
    path.write_bytes(whole[: HEADER_BYTES + 40] + b"!!" + whole[HEADER_BYTES + 42 :])
    file = open_file(tmp_path)
    assert file.valid(0, 3).tolist() == [True, False, True]
    assert file.valid(1, 2).tolist() == [False]
    file.repair(1, rows(1))
    assert numbers(file) == [0, 1, 2]
    assert path.read_bytes() == whole


def test_replacing_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a new file, or not at all."""
    file = open_file(tmp_path)
    file.append(rows(*range(6)))
    reader = open_file(tmp_path, writable=False)
    kept = file.take(np.array([1, 4]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", _fail)
        with pytest.raises(OSError, match="No space"):
            file.replace([kept])
    assert numbers(file) == numbers(open_file(tmp_path)) == list(range(6))
    assert [path.name for path in tmp_path.iterdir()] == ["a.rows"]
    file.replace([kept[:1], kept[1:]])
    assert numbers(file) == numbers(open_file(tmp_path)) == [1, 4]
    file.append(rows(9))
    assert numbers(file) == numbers(open_file(tmp_path)) == [1, 4, 9]
    assert numbers(reader) == list(range(6))


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is kept, and written with what comes next; half a write does no
    harm."""
    file = open_file(tmp_path)
    file.append(rows(0, 1))
    real = os.write
    room = [30]

    def short(descriptor: int, data: memoryview) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(descriptor, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", short)
    file.append(rows(2, 3))
    file.append(rows(4))
    assert numbers(file) == [0, 1, 2, 3, 4]
    assert len(file.damage) == 1
    assert "No space left" in str(file.damage[0])
    monkeypatch.setattr(os, "write", real)
    assert numbers(open_file(tmp_path, writable=False)) == [0, 1]
    file.append(rows(5))
    assert numbers(open_file(tmp_path)) == [0, 1, 2, 3, 4, 5]


def test_unreadable_file(tmp_path: Path) -> None:
    """A folder where the file should be, for example: named, and no reason to fail."""
    (tmp_path / "a.rows").mkdir()
    file = open_file(tmp_path)
    assert len(file) == 0
    file.append(rows(1))
    assert numbers(file) == [1]
    assert any("cannot be" in str(damage) for damage in file.damage)


def _fail(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
