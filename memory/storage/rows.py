"""Files of fixed rows, each with a checksum of its own: what the catalog and the columns of vectors
are made of.

Rows are only appended; a file is mapped, not read, and the checksums of a hundred thousand rows are
compared in milliseconds. Such a file is a cache of the log: a row that is torn or damaged is made
again, never trusted, and a disk that does not take rows costs no episode.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .durable import (
    TEMPORARY,
    Corruption,
    create_file,
    open_file,
    open_to_read,
    replace_file,
    write_all,
)

Rows = NDArray[np.void]
Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]

_HEADER = struct.Struct(
    "<8sII16s32s"
)  # magic, format, bytes per row, memory id, sha-256 of the tag
_CRC = struct.Struct("<I4x")
HEADER_BYTES = _HEADER.size + _CRC.size
BLOCK = 4096
"""Bytes that are checked together in a file that is no rows."""
_CHUNK = 8192  # rows that are checked at once: what is compared stays in the processor's cache


@lru_cache(maxsize=16)
def _factors(words: int) -> Words:
    """Odd factors, one per word: the golden ratio's multiples, mixed (SplitMix64, Steele et al.,
    OOPSLA 2014)."""
    made = []
    for i in range(1, words + 1):
        z = i * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        made.append((z ^ z >> 31) | 1)
    return np.array(made, dtype=np.uint64)


def row_sums(rows: Rows) -> Words:
    """Checksum of each row, shape (len(rows),): a sum of its 64-bit words but the first, each times
    an odd factor, modulo 2^64.

    Any change within a single word changes it; it is a multilinear hash (Lemire and Kaser, Computer
    Journal 2014), chosen because numpy computes it for many rows at once. The first word of a row
    is where it is stored.
    """
    words = np.ascontiguousarray(rows).view("<u8").reshape(len(rows), rows.dtype.itemsize // 8)
    factors = _factors(words.shape[1])
    return np.asarray(np.einsum("ij,j->i", words[:, 1:], factors[1:]) + factors[0], dtype=np.uint64)


def blocks_sum(*parts: NDArray[np.uint8]) -> int:
    """Checksum of bytes: the multilinear hash of each block of 4 KiB (:func:`row_sums`), and CRC-32
    over these.

    Args:
        parts: what the bytes consist of; each begins a new block, a last one that is not full
            counts as filled with zeros.
    """
    checksum, factors = 0, _factors(BLOCK // 8 + 1)
    for part in parts:
        whole = len(part) // BLOCK * BLOCK
        rest = np.zeros(BLOCK if whole < len(part) else 0, dtype=np.uint8)
        rest[: len(part) - whole] = part[whole:]
        for some in (part[:whole], rest):
            words = some.view("<u8").reshape(-1, BLOCK // 8)
            for low in range(0, len(words), 1024):
                sums = np.einsum("ij,j->i", words[low : low + 1024], factors[1:]) + factors[0]
                checksum = zlib.crc32(sums.tobytes(), checksum)
    return checksum


class RowFile:
    """Rows of one dtype: those of the file, mapped, and after them those that were appended since,
    in memory.

    Args:
        path: the file; it need not exist.
        magic: first eight bytes.
        number: format number.
        dtype: of a row; a multiple of eight bytes long, its first field `sum` (``<u8``) is filled
            in here.
        memory: id of the memory.
        tag: what else the rows depend on (the embedder's identity); another tag is another file.
        writable: whether rows are written.
    """

    def __init__(
        self,
        path: Path,
        *,
        magic: bytes,
        number: int,
        dtype: np.dtype[np.void],
        memory: bytes,
        tag: str,
        writable: bool,
    ) -> None:
        self.path, self.dtype, self.writable = path, dtype, writable
        self.damage: list[Corruption] = []
        header = _HEADER.pack(
            magic, number, dtype.itemsize, memory, hashlib.sha256(tag.encode()).digest()
        )
        self._header = header + _CRC.pack(zlib.crc32(header))
        self._mapped: Rows = np.empty(0, dtype=dtype)
        self._tail: Rows = np.empty(64, dtype=dtype)
        self._used = 0
        self._on_disk = 0  # leading rows that the file is known to hold
        self.inode = -1
        """Number of the file that is mapped: what was found out about its rows holds for no other
        file."""

    def __len__(self) -> int:
        return len(self._mapped) + self._used

    @property
    def mapped(self) -> int:
        """How many leading rows are those of the file."""
        return len(self._mapped)

    def load(self) -> int:
        """Map the whole rows of the file and forget everything else; returns their number. They are
        not checked."""
        before = (
            self._mapped
        )  # kept until the end, so that another file does not get the number of this one
        self._mapped, self._used, self._on_disk, self.inode = (
            np.empty(0, dtype=self.dtype),
            0,
            0,
            -1,
        )
        try:
            # Size, header and rows of one and the same file: a writer may put another into its
            # place at any moment.
            with open_to_read(self.path) as file:
                status, header = os.fstat(file.fileno()), file.read(HEADER_BYTES)
                count = max(0, status.st_size - HEADER_BYTES) // self.dtype.itemsize
                if header == self._header and count:
                    mapped = np.memmap(
                        file, dtype=self.dtype, mode="c", offset=HEADER_BYTES, shape=(count,)
                    )
                    self._mapped = mapped.view(
                        np.ndarray
                    )  # which is the same, and faster to take rows of
        except FileNotFoundError:
            return 0
        except OSError as error:
            self.note(0, 0, f"cannot be read ({error.strerror}); what it held is made again")
            return 0
        if header != self._header:
            if not self._of_earlier_format(header):
                self.note(
                    0,
                    len(header),
                    "the header is damaged or of something else; what it held is made again",
                )
            return 0
        self._on_disk, self.inode = count, status.st_ino
        del before
        return count

    def _of_earlier_format(self, header: bytes) -> bool:
        """Whether this is the header of the same file as an earlier version wrote it: made again,
        but not damaged."""
        if len(header) < HEADER_BYTES or _CRC.unpack_from(header, _HEADER.size)[0] != zlib.crc32(
            header[: _HEADER.size]
        ):
            return False
        (magic, number, _, *of), (our_magic, ours, _, *our) = map(
            _HEADER.unpack_from, (header, self._header)
        )
        return bool((magic, of) == (our_magic, our) and number < ours)

    def keep(self, count: int) -> None:
        """Forget all rows after the first `count`; those in the file are overwritten by what is
        appended next."""
        if count < len(self._mapped):
            self._mapped, self._used = self._mapped[:count], 0
        else:
            self._used = count - len(self._mapped)
        self._on_disk = min(self._on_disk, count)

    def valid(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Which of the rows `start` to `stop` agree with their checksums."""
        masks = [
            part[low : low + _CHUNK]["sum"] == row_sums(part[low : low + _CHUNK])
            for part in self.parts(start, stop)
            for low in range(0, len(part), _CHUNK)
        ]
        return np.concatenate(masks) if masks else np.empty(0, dtype=np.bool_)

    def parts(self, start: int, stop: int) -> Iterator[Rows]:
        """Rows `start` to `stop` as one or two arrays, not copied."""
        edge = len(self._mapped)
        if start < min(stop, edge):
            yield self._mapped[start : min(stop, edge)]
        if max(start, edge) < stop:
            yield self._tail[max(start - edge, 0) : stop - edge]

    def take(self, numbers: Numbers) -> Rows:
        """The rows with these numbers, copied."""
        edge = len(self._mapped)
        if not self._used:
            return self._mapped.take(numbers)
        rows = np.empty(len(numbers), dtype=self.dtype)
        early = numbers < edge
        rows[early] = self._mapped[numbers[early]]
        rows[~early] = self._tail[numbers[~early] - edge]
        return rows

    def append(self, rows: Rows) -> None:
        """Add rows (their checksums are filled in) and write them; what cannot be written now is
        written with the next ones."""
        rows["sum"] = row_sums(rows)
        self.extend(rows)
        self.write()

    def extend(self, rows: Rows) -> None:
        """Add rows as they are, in memory only."""
        if self._used + len(rows) > len(self._tail):
            grown = np.empty(max(2 * len(self._tail), self._used + len(rows)), dtype=self.dtype)
            grown[: self._used] = self._tail[: self._used]
            self._tail = grown
        self._tail[self._used : self._used + len(rows)] = rows
        self._used += len(rows)

    def write(self) -> None:
        """Write the rows that the file does not hold yet; not synced, since a row that is lost is
        made again."""
        if not self.writable or self._on_disk == len(self):
            return
        try:
            if self._on_disk == 0:
                # To a new file: readers may have the old one mapped.
                replace_file(
                    self.path,
                    self._header + b"".join(part.tobytes() for part in self.parts(0, len(self))),
                )
            else:
                descriptor = open_file(self.path, os.O_WRONLY)
                try:
                    # Half a row that a dead writer left is overwritten; nothing is ever cut off, so
                    # mapped rows stay.
                    os.lseek(
                        descriptor, HEADER_BYTES + self._on_disk * self.dtype.itemsize, os.SEEK_SET
                    )
                    for part in self.parts(self._on_disk, len(self)):
                        write_all(descriptor, part.tobytes())
                finally:
                    os.close(descriptor)
            self._on_disk = len(self)
        except OSError as error:
            self.note(
                0,
                0,
                f"cannot be written ({error.strerror}); what belongs there is kept in memory for "
                "now",
            )

    def replace(self, parts: Iterable[Rows]) -> None:
        """Put other rows into the place of all (their checksums as they are), in a new file, and
        map that.

        Raises:
            OSError: nothing was changed.
        """
        temporary = self.path.with_name(self.path.name + TEMPORARY)
        try:
            with create_file(temporary) as file:
                file.write(self._header)
                for part in parts:
                    file.write(part.tobytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self.load()

    def repair(self, number: int, row: Rows) -> None:
        """Put a good row, shape (1,), where a damaged one is mapped; readers that look at it find
        it damaged or good."""
        row["sum"] = row_sums(row)
        edge = len(self._mapped)
        if number >= edge:
            self._tail[number - edge] = row[0]
            return
        self._mapped[number] = row[0]  # mapped copy-on-write: changed here, not in the file
        if self.writable:
            try:
                descriptor = open_file(self.path, os.O_WRONLY)
                try:
                    os.pwrite(
                        descriptor, row.tobytes(), HEADER_BYTES + number * self.dtype.itemsize
                    )
                finally:
                    os.close(descriptor)
            except OSError as error:
                self.note(
                    0,
                    0,
                    f"cannot be written ({error.strerror}); what belongs there is kept in memory "
                    "for now",
                )

    def note(self, offset: int, length: int, detail: str) -> None:
        """Say that something was found damaged; once."""
        damage = Corruption(f"{self.path.parent.name}/{self.path.name}", offset, length, detail)
        if damage not in self.damage:
            self.damage.append(damage)

    def offset(self, number: int) -> int:
        """Where a row begins in the file, in bytes."""
        return HEADER_BYTES + number * self.dtype.itemsize
