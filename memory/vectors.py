"""Vectors on disk: one append-only column of checksummed rows per embedder, so that nothing is embedded twice.

Row *i* belongs to the *i*-th episode of the log and names the record (sequence number and checksum) it was made from.
Rows that are torn, damaged or made from something else are embedded again; the column is a cache of the log.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memory.durable import replace_file, write_all
from memory.embed import Vectors
from memory.log import Damage

MAGIC = b"RELIVEVC"
FORMAT = 1
"""Format number of columns, written and read."""

_HEADER = struct.Struct(
    "<8sII16s32s"
)  # magic, format, dimension, memory id, sha-256 of the embedder's identity; then crc
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_KEY = struct.Struct("<QIII")  # sequence, checksum of the record's payload, key number, crc32 of the rest of the row

Source = tuple[int, int]
"""Which record a row was made from: its sequence number and the CRC-32 of its payload."""
Embed = Callable[[Sequence[int]], Vectors]
"""Embeds the texts of the episodes with these ordinals."""


def column_name(identity: str) -> str:
    """File name, without suffix, of what belongs to an embedder: readable, and distinct for distinct identities."""
    readable = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in identity)[:48]
    return f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


class VectorColumn:
    """The vectors of all episodes for one embedder. Not thread-safe; written by the one writer of the memory."""

    def __init__(self, path: Path, *, identity: str, dimension: int, memory: bytes, writable: bool) -> None:
        self.path = path
        self.dimension = dimension
        self.embedded = 0
        """Rows that had to be embedded because the file did not have them."""
        self.damage: list[Damage] = []
        header = _HEADER.pack(MAGIC, FORMAT, dimension, memory, hashlib.sha256(identity.encode()).digest())
        self._header = header + _CRC.pack(zlib.crc32(header))
        self._row = np.dtype([("key", "V20"), ("vector", "<f4", (dimension,))])
        self._writable = writable
        self._sources: list[Source] = []
        self._mapped: Vectors = np.empty((0, dimension), dtype=np.float32)
        self._tail: Vectors = np.empty((0, dimension), dtype=np.float32)  # grows by doubling
        self._on_disk = 0  # leading rows that the file is known to hold

    def __len__(self) -> int:
        return len(self._sources)

    def extend(self, sources: Sequence[Source], embed: Embed) -> None:
        """Take in the next episodes of the log, from the file where it has them, embedded where not.

        A writer leaves a file with exactly these rows behind.
        """
        if not self._sources:
            self._load(sources, embed)
            return
        # A reader that follows: the writer appends rows in the order of the log, or has not yet.
        start = len(self._sources)
        rows = self._read_rows(start, len(sources))
        good = self._matching(rows, sources)
        vectors = np.empty((len(sources), self.dimension), dtype=np.float32)
        vectors[:good] = rows["vector"][:good]
        if good < len(sources):
            vectors[good:] = embed(range(start + good, start + len(sources)))
            self.embedded += len(sources) - good
        self._add(sources, vectors)

    def append(self, sources: Sequence[Source], vectors: Vectors) -> None:
        """Add rows for episodes that were just logged.

        A failing disk costs nothing here: the rows stay in memory and are written with the next ones, or embedded
        again at the next opening.
        """
        self._add(sources, vectors)
        self._write_missing()

    def scores(self, query: Vectors, start: int, stop: int) -> Vectors:
        """Inner products of ``query`` (dimension,) with rows ``start`` to ``stop``, shape (stop - start,).

        Equal rows get equal scores to the last bit, wherever they stand (a matrix product would not promise that, and
        ties must be broken by position alone).
        """
        edge = len(self._mapped)
        parts = []
        if start < min(stop, edge):
            parts.append(np.einsum("ij,j->i", self._mapped[start : min(stop, edge)], query))
        if max(start, edge) < stop:
            parts.append(np.einsum("ij,j->i", self._tail[max(start - edge, 0) : stop - edge], query))
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def take(self, ordinals: NDArray[np.int64]) -> Vectors:
        """The rows with these numbers, copied, shape (len(ordinals), dimension)."""
        edge = len(self._mapped)
        rows = np.empty((len(ordinals), self.dimension), dtype=np.float32)
        early = ordinals < edge
        rows[early] = self._mapped[ordinals[early]]
        rows[~early] = self._tail[ordinals[~early] - edge]
        return rows

    def sources_digest(self, count: int) -> str:
        """Names what the first ``count`` rows were made from; an index built from other rows has another."""
        return hashlib.sha256(np.array(self._sources[:count], dtype="<u8").tobytes()).hexdigest()

    def _load(self, wanted: Sequence[Source], embed: Embed) -> None:
        rows = self._read_rows(0, None)
        good = self._matching(rows, wanted)
        if good == len(rows) or (good == len(wanted) and not self._writable):
            # The usual case: nothing damaged. Some rows at the end may not have been written before the last writer
            # died; or, for a reader, the writer may be ahead of what was read of the log.
            self._mapped, self._sources, self._on_disk = np.asarray(rows["vector"][:good]), list(wanted[:good]), good
            if good < len(wanted):
                self.embedded += len(wanted) - good
                self._add(wanted[good:], embed(range(good, len(wanted))))
                self._write_missing()
            return
        found = {self._source(row): row["vector"] for row in rows if self._intact(row)}
        missing = [ordinal for ordinal, source in enumerate(wanted) if source not in found]
        vectors = np.empty((len(wanted), self.dimension), dtype=np.float32)
        for ordinal, source in enumerate(wanted):
            if source in found:
                vectors[ordinal] = found[source]
        if missing:
            vectors[missing] = embed(missing)
        self.embedded += len(missing)
        detail = f"rows that do not fit the log from row {good} on; {len(missing)} embedded again"
        self._note(HEADER_BYTES + good * self._row.itemsize, (len(rows) - good) * self._row.itemsize, detail)
        self._add(wanted, vectors)
        if self._writable:
            # To a new file: readers may have the old one mapped.
            self._replace()

    def _read_rows(self, start: int, count: int | None) -> NDArray[np.void]:
        """Whole rows of the file from row ``start`` on, mapped; none if there is no file or another one."""
        empty = np.empty(0, dtype=self._row)
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                header = file.read(HEADER_BYTES)
        except FileNotFoundError:
            return empty
        if header != self._header:
            if start == 0:
                self._note(0, len(header), "the header is damaged or of another embedder; all rows are embedded again")
                if self._writable:
                    self.path.unlink()
            return empty
        there = (size - HEADER_BYTES) // self._row.itemsize - start
        count = there if count is None else min(count, there)
        if count <= 0:
            return empty
        offset = HEADER_BYTES + start * self._row.itemsize
        return np.memmap(self.path, dtype=self._row, mode="r", offset=offset, shape=(count,))

    def _source(self, row: np.void) -> Source:
        sequence, checksum, _, _ = _KEY.unpack(row["key"].tobytes())
        return sequence, checksum

    def _intact(self, row: np.void) -> bool:
        data = row.tobytes()
        body = data[: _KEY.size - 4] + data[_KEY.size :]
        return bool(zlib.crc32(body) == _CRC.unpack_from(data, _KEY.size - 4)[0])

    def _matching(self, rows: NDArray[np.void], wanted: Sequence[Source]) -> int:
        """How many leading rows are intact and made from the records that are wanted there."""
        for good, (row, source) in enumerate(zip(rows, wanted, strict=False)):
            if self._source(row) != source or not self._intact(row):
                return good
        return min(len(rows), len(wanted))

    def _add(self, sources: Sequence[Source], vectors: Vectors) -> None:
        used = len(self._sources) - len(self._mapped)
        if used + len(sources) > len(self._tail):
            grown = np.empty((max(64, 2 * len(self._tail), used + len(sources)), self.dimension), dtype=np.float32)
            grown[:used] = self._tail[:used]
            self._tail = grown
        self._tail[used : used + len(sources)] = vectors
        self._sources.extend(sources)

    def _encode(self, start: int) -> bytes:
        parts = []
        for source, vector in zip(self._sources[start:], self.take(np.arange(start, len(self))), strict=True):
            body = vector.astype("<f4").tobytes()
            key = _KEY.pack(*source, 0, 0)[: _KEY.size - 4]
            parts.append(key + _CRC.pack(zlib.crc32(key + body)) + body)
        return b"".join(parts)

    def _write_missing(self) -> None:
        if not self._writable:
            return
        end = HEADER_BYTES + self._on_disk * self._row.itemsize
        try:
            if self._on_disk == 0 and not self.path.exists():
                self._replace()
                return
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                # A row that a dead writer left half written is overwritten here; whole rows are never cut off, so
                # that readers which have them mapped are safe. No fsync: a row that is lost is embedded again.
                os.lseek(descriptor, end, os.SEEK_SET)
                write_all(descriptor, self._encode(self._on_disk))
            finally:
                os.close(descriptor)
            self._on_disk = len(self._sources)
        except OSError as error:
            self._note(end, 0, f"cannot be written ({error.strerror}); vectors are kept in memory for now")

    def _replace(self) -> None:
        try:
            replace_file(self.path, self._header + self._encode(0))
            self._on_disk = len(self._sources)
        except OSError as error:
            self._note(0, 0, f"cannot be written ({error.strerror}); vectors are kept in memory for now")

    def _note(self, offset: int, length: int, detail: str) -> None:
        self.damage.append(Damage(f"{self.path.parent.name}/{self.path.name}", offset, length, detail))
