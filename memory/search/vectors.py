"""Vectors on disk: one column of checksummed rows per embedder and key, so that nothing is embedded
twice.

A row carries its *label* (which episode, which of its texts) and the checksum of the record that it
was made from. Rows are mapped and looked at when they are used: one that is torn, damaged or made
from something else is embedded again, then.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..storage.durable import Corruption, RolledBackError
from ..storage.rows import Numbers, RowFile, Rows, row_sums
from .embed import Vectors

MAGIC = b"RELIVEVC"
FORMAT = 2
"""Format number of columns, written and read."""
WINDOW_BITS = 8
"""A label is an episode's sequence number shifted by so many bits, plus the number of the text
among the episode's."""
_SPOTS = 64  # rows that are looked at when a column is opened

Embed = Callable[[Numbers], Vectors]
"""Embeds the texts of the rows with these numbers."""


def column_name(identity: str, key: str = "goal") -> str:
    """File name, without suffix, of what belongs to an embedder and a key: readable, and distinct
    for distinct ones."""
    readable = "".join(
        letter if letter.isalnum() or letter in "-_" else "-" for letter in identity
    )[:48]
    name = f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    return name if key == "goal" else f"{name}-{key}"


class VectorColumn:
    """The vectors of all rows that are expected, in ascending order of their labels. Not
    thread-safe.

    Args:
        path: the file; it need not exist.
        identity: of the embedder.
        dimension: length of a vector.
        memory: id of the memory.
        embed: makes vectors of rows that the file does not have.
        writable: whether rows are written.
        able: whether `embed` can make any. Where it cannot, rows that lack a vector are held as
            unknown ones: nothing is written in their place, and who asks for such a vector gets
            what `embed` raises.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: str,
        dimension: int,
        memory: bytes,
        embed: Embed,
        writable: bool,
        able: bool = True,
    ) -> None:
        self.dimension = dimension
        self.embedded = 0
        """Rows that had to be embedded because the file did not have them."""
        self._path, self._embed, self._able = path, embed, able
        self._row = np.dtype(
            [
                ("sum", "<u8"),
                ("label", "<u8"),
                ("checksum", "<u4"),
                ("unused", "V4"),
                ("vector", "<f4", (dimension,)),
            ]
            + ([("padding", "V4")] if dimension % 2 else [])
        )
        self.file = RowFile(
            path,
            magic=MAGIC,
            number=FORMAT,
            dtype=self._row,
            memory=memory,
            tag=identity,
            writable=writable,
        )
        self._labels = np.empty(64, dtype=np.int64)
        self._checksums = np.empty(64, dtype=np.uint32)
        self._valid = np.empty(64, dtype=np.bool_)  # rows that were looked at and found good
        self._count = 0
        self._repaired = False  # whether rows that are mapped were changed in memory

    def __len__(self) -> int:
        return self._count

    @property
    def labels(self) -> Numbers:
        """Label of each row, ascending."""
        return self._labels[: self._count]

    @property
    def damage(self) -> tuple[Corruption, ...]:
        """What was found damaged."""
        return tuple(self.file.damage)

    def open(self, labels: Numbers, checksums: NDArray[np.uint32]) -> None:
        """Take in the file, which should hold rows with these labels, made from records with these
        checksums."""
        there = self.file.load()
        if there > len(labels) and not self.file.writable:
            self.file.keep(len(labels))  # the writer is ahead of what was read of the log
        self._expect(labels, checksums, valid=False)
        common = min(there, len(labels))
        # Not numpy.unique, whose first use imports numpy.ma: 8 ms, a third of the time to open a
        # small memory.
        spots = np.array(
            sorted({i * (common - 1) // (_SPOTS - 1) for i in range(_SPOTS)} if common else ()),
            dtype=np.int64,
        )
        if (there > len(labels) and self.file.writable) or not self._check(spots).all():
            self._reconcile()
        elif there < len(labels):
            self._append_embedded(there)

    def append(self, labels: Numbers, checksums: NDArray[np.uint32], vectors: Vectors) -> None:
        """Add rows whose vectors are known.

        A failing disk costs nothing here: the rows stay in memory and are written with the next
        ones, or embedded again at the next opening.
        """
        self._expect(labels, checksums, valid=True)
        self.file.append(self._made(labels, checksums, vectors))

    def follow(self, labels: Numbers, checksums: NDArray[np.uint32]) -> None:
        """Add rows that the writer has made, or is about to make; a reader embeds those itself, in
        memory only.

        Raises:
            RolledBackError: the file is another one than before; open the column again.
        """
        mapped, inode, known = self.file.mapped, self.file.inode, self._count
        own = self.file.take(np.arange(mapped, len(self.file)))
        self._expect(labels, checksums, valid=False)
        there = min(self.file.load(), self._count)
        self.file.keep(there)
        if inode not in (-1, self.file.inode):
            # A writer that compacts puts another file into its place: what is known of rows does
            # not hold for that one.
            raise RolledBackError(f"{self._path} was replaced; open it again")
        # What was mended here is mapped anew, as damaged as before.
        self._valid[0 if self._repaired else mapped : there], self._repaired = False, False
        if mapped <= there < known:
            # Made here, and in no file yet, or never, where nobody writes vectors of this embedder.
            self.file.extend(own[there - mapped :])
            there = known
        if there < self._count:
            self._append_embedded(there)

    def sure(self, start: int, stop: int) -> int:
        """Where those of the rows `start` to `stop` end that come before the first unknown one."""
        if self._able:
            return stop
        unsure = start + np.flatnonzero(~self._valid[start:stop])
        bad = unsure[~self._check(unsure)]
        return int(bad[0]) if len(bad) else stop

    def take(self, numbers: Numbers) -> Vectors:
        """The vectors of these rows, copied, shape (len(numbers), dimension)."""
        rows = self.file.take(numbers)
        unsure = ~self._valid[numbers]
        if unsure.any():
            good = self._good(rows[unsure], numbers[unsure])
            self._valid[numbers[unsure][good]] = True
            if not good.all():
                self._repair(np.unique(numbers[unsure][~good]))
                rows = self.file.take(numbers)
        return rows["vector"]

    def scores(self, query: Vectors, start: int, stop: int) -> Vectors:
        """Inner products of `query` (dimension,) with rows `start` to `stop`, shape (stop -
        start,).

        Equal rows get equal scores to the last bit, wherever they stand (a matrix product would not
        promise that, and ties must be broken by position alone).
        """
        self._make_sure(start, stop)
        parts = [
            np.einsum("ij,j->i", part["vector"], query) for part in self.file.parts(start, stop)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def products(self, queries: Vectors, start: int, stop: int) -> Vectors:
        """Inner products of rows `start` to `stop` with several queries, shape (stop - start,
        len(queries)).

        By a matrix product, which is fast and, unlike :meth:`scores`, may differ in the last bits
        between equal rows.
        """
        self._make_sure(start, stop)
        parts = [part["vector"] @ queries.T for part in self.file.parts(start, stop)]
        return np.concatenate(parts) if parts else np.empty((0, len(queries)), dtype=np.float32)

    def places(self, wanted: Numbers, stop: int) -> Numbers:
        """Numbers of those of the first `stop` rows that have one of these labels, shape (at most
        len(wanted),)."""
        ascending, last = self._labels[:stop], stop - 1
        if last < 0:
            return np.empty(0, dtype=np.int64)
        # Where nothing but episodes was ever recorded, the label says so; searching a large array
        # misses the processor's cache.
        places = np.minimum(np.maximum((wanted - ascending[0]) >> WINDOW_BITS, 0), last)
        right = ascending[places] == wanted
        if not right.all():
            places = np.minimum(np.searchsorted(ascending, wanted), last)
            right = ascending[places] == wanted
        found: Numbers = places[right]
        return found

    def digest(self, count: int) -> str:
        """Names what the first `count` rows were made from; an index built from other rows has
        another."""
        made = hashlib.sha256(self._labels[:count].astype("<i8").tobytes())
        made.update(self._checksums[:count].astype("<u4").tobytes())
        return made.hexdigest()

    def drop(self, kept: NDArray[np.bool_]) -> None:
        """Leave rows out for good: a new file holds only those that are kept, shape (len(self),),
        and not even those of them that are unknown.

        Raises:
            OSError: nothing was changed.
        """
        numbers = np.flatnonzero(kept)

        def rows() -> Iterator[Rows]:
            for low in range(0, len(numbers), 2048):
                some = numbers[low : low + 2048]
                if self._able:
                    self.take(some)  # damaged ones are made again first
                else:
                    some = some[self._check(some)]
                yield self.file.take(some)

        self.file.replace(rows())
        labels, checksums = self._labels[numbers], self._checksums[numbers]
        self._count = 0
        if len(self.file) == len(numbers):
            self._expect(labels, checksums, valid=True)
        else:
            self.open(labels, checksums)

    def check_all(self) -> int:
        """Look at every row; damaged ones are made again, where that can be. Returns how many were
        damaged."""
        bad = np.flatnonzero(~self._check(np.arange(self._count)))
        if len(bad) and self._able:
            self._repair(bad)
        elif len(bad):
            self._valid[bad] = False
            self._note(bad, f"{len(bad)} rows damaged or missing; made when the embedder is there")
        return len(bad)

    def _expect(self, labels: Numbers, checksums: NDArray[np.uint32], *, valid: bool) -> None:
        start, stop = self._count, self._count + len(labels)
        if stop > len(self._labels):
            size = max(stop, 2 * len(self._labels))
            for name in ("_labels", "_checksums", "_valid"):
                old = getattr(self, name)
                grown = np.empty(size, dtype=old.dtype)
                grown[:start] = old[:start]
                setattr(self, name, grown)
        self._labels[start:stop], self._checksums[start:stop], self._valid[start:stop] = (
            labels,
            checksums,
            valid,
        )
        self._count = stop

    def _make_sure(self, start: int, stop: int) -> None:
        """Look at those of the rows `start` to `stop` that were not looked at yet, and mend what is
        damaged."""
        if not self._valid[start:stop].all():
            unsure = start + np.flatnonzero(~self._valid[start:stop])
            bad = unsure[~self._check(unsure)]
            if len(bad):
                self._repair(bad)

    def _good(self, rows: Rows, numbers: Numbers) -> NDArray[np.bool_]:
        """Which rows agree with their checksums and are what is expected at these numbers."""
        good = rows["sum"] == row_sums(rows)
        good &= rows["label"].astype(np.int64) == self._labels[numbers]
        good &= rows["checksum"] == self._checksums[numbers]
        return np.asarray(good)

    def _check(self, numbers: Numbers) -> NDArray[np.bool_]:
        """The same for rows by number, some at a time; good ones are not looked at again."""
        found = [
            self._good(self.file.take(some), some)
            for some in (numbers[low : low + 2048] for low in range(0, len(numbers), 2048))
        ]
        good = np.concatenate(found) if found else np.empty(0, dtype=np.bool_)
        self._valid[numbers[good]] = True
        return good

    def _repair(self, numbers: Numbers) -> None:
        vectors = self._embed(numbers)
        self.embedded += len(numbers)
        self._repaired = True
        made = self._made(self._labels[numbers], self._checksums[numbers], vectors)
        for i, number in enumerate(numbers.tolist()):
            self.file.repair(number, made[i : i + 1])
        self._valid[numbers] = True
        self._note(numbers, f"{len(numbers)} rows embedded again")

    def _note(self, numbers: Numbers, detail: str) -> None:
        place = self.file.offset(int(numbers[0]))
        self.file.note(place, len(numbers) * self._row.itemsize, detail)

    def _made(self, labels: Numbers, checksums: NDArray[np.uint32], vectors: Vectors) -> Rows:
        rows = np.zeros(len(labels), dtype=self._row)
        rows["label"], rows["checksum"], rows["vector"] = labels, checksums, vectors
        return rows

    def _append_embedded(self, start: int) -> None:
        """Embed the expected rows from `start` on."""
        if not self._able:  # the writer is about to write them, as a rule
            self.file.extend(np.zeros(self._count - start, dtype=self._row))
            return
        numbers = np.arange(start, self._count)
        for low in range(0, len(numbers), 1024):
            some = numbers[low : low + 1024]
            self.file.append(
                self._made(self._labels[some], self._checksums[some], self._embed(some))
            )
        self._valid[start : self._count] = True
        self.embedded += self._count - start

    def _reconcile(self) -> None:
        """Keep whatever fits of a file whose rows are not those expected, in a new one."""
        known: dict[int, tuple[int, Vectors]] = {}
        for low in range(0, len(self.file), 2048):
            numbers = np.arange(low, min(low + 2048, len(self.file)))
            rows = self.file.take(numbers)
            for row in rows[self.file.valid(low, int(numbers[-1]) + 1)]:
                known[int(row["label"])] = int(row["checksum"]), row["vector"].copy()
        numbers = np.arange(self._count)
        fits = np.array(
            [
                known.get(label, (-1, None))[0] == int(self._checksums[i])
                for i, label in enumerate(self.labels.tolist())
            ],
            dtype=np.bool_,
        )
        vectors = np.empty((self._count, self.dimension), dtype=np.float32)
        for number in numbers[fits].tolist():
            vectors[number] = known[int(self._labels[number])][1]
        complete, lacking = bool(fits.all()), int(np.count_nonzero(~fits))
        if not complete and self._able:
            vectors[~fits] = self._embed(numbers[~fits])
            self.embedded += lacking
        made = "embedded again" if self._able or complete else "made when the embedder is there"
        self.file.note(0, 0, f"rows that do not fit the log; {lacking} {made}")
        self.file.keep(0)
        rows = self._made(self.labels, self._checksums[: self._count], vectors)
        if complete or self._able:
            self.file.append(rows)
            self._valid[: self._count] = True
        else:
            rows["sum"] = row_sums(rows)
            rows[~fits] = np.zeros((), dtype=self._row)
            self.file.extend(rows)
            self._valid[: self._count] = fits
