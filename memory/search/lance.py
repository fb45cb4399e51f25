"""A LanceDB table in place of the HNSW graph: the index of a memory that outgrows main memory. The
only door to lancedb.

The table lies on the disk, and searches read what they need of it. It holds what the graph holds,
labels and vectors, and the columns that filters are made of, so that a search proposes only what is
wanted. As with the graph, what it proposes is only that: scores are those of the vector column, and
who may see what is decided by the catalog, so a table that is wrong costs hits and shows nobody
anything. It is published with the checksums of its files, and one that is damaged, or made from
something else, is made again.

Up to :data:`TRAINED` rows LanceDB compares all that pass the filter. Beyond that an IVF index
(partitions around centroids, vectors as they are) finds the partitions that are closest; how many
of them a search looks at is measured, like the graph's ``ef``.
"""

import json
import math
import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...extras import needs
from ..storage.catalog import REASONS, Filter
from ..storage.codec import digest
from ..storage.durable import (
    open_to_read,
    read_file,
    refuse_links,
    replace_file,
    sync_folder,
)
from ..storage.rows import Numbers, blocks_sum
from .embed import Vectors
from .index import IndexSettings, Lock, VectorIndex
from .snapshots import Manifest, Saved, SnapshotFolder
from .vectors import WINDOW_BITS, VectorColumn

Columns = Callable[[Numbers], Mapping[str, NDArray[Any]]]
"""From sequence numbers of episodes to what filters look at: the catalog's columns of hashes, and
``success`` and ``reason``."""
HASHES = ("suite", "type", "split", "policy", "adapter")
TRAINED = 20_000
"""Rows from which on there is an IVF index; fewer are compared one by one as fast."""
GROWN = 2.0
"""An index whose table has grown by this factor since is trained again; until then new rows join
the partitions there are."""
EF_PER_PROBE = 8
"""What one partition more counts in ``ef``, the measure of effort that the graph's accuracy is
measured with."""
KEPT_FOR = timedelta(minutes=15)
"""How long the files of versions that nobody publishes any more stay: readers may be at them."""
_TABLE, _LISTING = "rows", "files-{}.json"
_HINT = "latest_version_hint.json"
"""Changes with every version, and is not needed by whoever names one; all other files are written
once."""


class LanceTable:
    """Labelled unit vectors and the columns of their episodes. Not thread-safe but for searches.

    Args:
        table: of lancedb.
        nodes: rows in it.
        last: highest label in it.
        columns: of episodes.
        report: told what is wrong with the files.
        least: rows that go in together.
    """

    filters = True

    def __init__(
        self,
        table: Any,
        nodes: int,
        last: int,
        columns: Columns,
        report: Callable[[str], object],
        least: int,
    ) -> None:
        self.table, self.nodes, self.last, self.least = table, nodes, last, least
        self._columns, self._report = columns, report
        self._pinned = False

    def pin(self, version: int) -> None:
        """Look at a version of the table and no other; the first addition makes it the newest
        one, whatever came after it."""
        self.table.checkout(version)
        self._pinned = True

    def add(self, vectors: Vectors, labels: Numbers) -> None:
        """As :meth:`relive.memory.search.index.Graph.add`. Raises `OSError`."""
        import pyarrow as pa

        if self._pinned:
            self.table.restore()
            self._pinned = False
        columns = self._columns(labels >> WINDOW_BITS)
        values = pa.array(np.ascontiguousarray(vectors).ravel())
        arrays = [pa.array(labels), pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])]
        arrays += [pa.array(np.ascontiguousarray(columns[n]).view(np.int64)) for n in HASHES]
        arrays += [pa.array(columns["success"]), pa.array(columns["reason"].astype(np.int8))]
        schema = _schema(vectors.shape[1])
        self.table.add(pa.Table.from_arrays(arrays, schema=schema))
        self.nodes += len(labels)
        self.last = int(labels[-1])

    def search(
        self, vector: Vectors, count: int, ef: int, wanted: Filter | None = None
    ) -> tuple[Numbers, float] | None:
        """As :meth:`relive.memory.search.index.Graph.search`, among the rows of wanted episodes."""
        try:
            query = self.table.search(vector, vector_column_name="vector").distance_type("cosine")
            query = query.nprobes(max(1, math.ceil(ef / EF_PER_PROBE)))
            if wanted is not None and (clause := where(wanted)):
                query = query.where(clause, prefilter=True)
            found = query.limit(min(count, self.nodes)).select(["label", "_distance"]).to_arrow()
        except Exception as error:  # whatever Rust says of files that are gone or damaged
            self._report(f"cannot be read ({' '.join(str(error).split())[:150]}); not used")
            return None
        if len(found) < min(count, self.nodes):
            return None  # the partitions looked at, or the filter, have no more
        labels = found["label"].to_numpy().astype(np.int64)
        return np.sort(labels), 1.0 - float(np.max(found["_distance"].to_numpy()))

    def trained_on(self) -> int:
        """Rows that its IVF index was trained on; 0 where it has none."""
        names = [index.name for index in self.table.list_indices()]
        return int(names[0].rpartition("_")[2]) if names else 0

    def train(self) -> None:
        """Brings the IVF index up to date, and leaves out what nobody reads."""
        from lancedb.index import IvfFlat

        trained = self.trained_on()
        if self.nodes >= TRAINED and self.nodes >= GROWN * trained:
            partitions = round(math.sqrt(self.nodes))
            if trained:
                self.table.drop_index(f"vector_{trained}")
            self.table.create_index(
                "vector", config=IvfFlat(distance_type="cosine", num_partitions=partitions),
                name=f"vector_{self.nodes}",
            )  # fmt: skip
        self.table.optimize(cleanup_older_than=KEPT_FOR)


class LanceFolder(SnapshotFolder):
    """Where the tables of one embedder and key are kept, beside the snapshots of a graph.

    Args:
        columns: of episodes.
        more: as of :class:`relive.memory.search.snapshots.SnapshotFolder`.
    """

    space = "lancedb-1"
    suffix = ".lancedb"

    def __init__(self, folder: Path, *, columns: Columns, **more: Any) -> None:
        with needs("lancedb"):
            super().__init__(folder, **more)
        self._columns = columns
        self._home = folder / f"{self._name}{self.suffix}"

    def fresh(self, room: int) -> LanceTable:
        """An empty table; what was there is removed."""
        lancedb = _lancedb()
        refuse_links(self.folder, [self._home.name])
        shutil.rmtree(self._home, ignore_errors=True)
        connection = lancedb.connect(str(self._home))
        table = connection.create_table(_TABLE, schema=_schema(self._dimension))
        return self._table(table, 0, -1)

    def _table(self, table: Any, nodes: int, last: int) -> LanceTable:
        least = least_of(self._settings)
        return LanceTable(table, nodes, last, self._columns, self.report, least)

    def _save(
        self, graph: VectorIndex, column: VectorColumn, position: int, lock: Lock | None
    ) -> Saved:
        """Trains the index and lists the files."""
        assert isinstance(graph, LanceTable)
        table = graph
        try:
            table.train()
        except (RuntimeError, ValueError) as error:  # how lancedb reports a full disk
            raise OSError(f"lancedb: {error}") from error
        with lock or nullcontext():
            version, last, nodes = int(table.table.version), table.last, table.nodes
            rows = int(np.searchsorted(column.labels, last, side="right"))
            sources, files = column.digest(rows), _files(self._home)
        sums = {name: [len(data), blocks_sum(data)] for name, data in _read(self._home, files)}
        listing = self._home / _LISTING.format(version)
        text = json.dumps(sums, sort_keys=True).encode()
        replace_file(listing, text)
        sync_folder(self._home)
        for other in self._home.glob(_LISTING.format("*")):
            if other != listing:
                other.unlink(missing_ok=True)
        name = f"{self._home.name}/{listing.name}"
        data = np.frombuffer(text, dtype=np.uint8)
        return Saved(name, len(text), blocks_sum(data), rows, last, nodes, sources)

    def _load(self, manifest: Manifest) -> LanceTable:
        lancedb = _lancedb()
        listing = self._home / Path(manifest.file).name
        text = read_file(listing)
        data = np.frombuffer(text, dtype=np.uint8)
        if (len(text), blocks_sum(data)) != (manifest.bytes, manifest.sum):
            raise ValueError("damaged index; not used")
        known: dict[str, list[int]] = json.loads(text)
        for name, content in _read(self._home, list(known)):
            if known[name] != [len(content), blocks_sum(content)]:
                raise ValueError("damaged index; not used")
        try:
            table = lancedb.connect(str(self._home)).open_table(_TABLE)
            made = self._table(table, manifest.nodes, manifest.last)
            made.pin(int(listing.stem.rpartition("-")[2]))
        except FileNotFoundError:
            raise
        except Exception as error:  # of Rust, about files that are as they were published
            raise ValueError(f"cannot be opened by this lancedb ({error}); not used") from None
        return made

    def _remove_others(self, file: str) -> None:
        """Its own versions are left out when the index is trained."""


def least_of(settings: IndexSettings) -> int:
    """Rows that go into a table together: every addition is a version of its own on the disk. The
    rows that wait are compared one by one."""
    return max(1, settings.publish_rows // 2)


def where(wanted: Filter) -> str:
    """A filter as LanceDB's SQL; empty where it keeps everything."""
    parts = ["success"] if wanted.successes_only else []
    for name, values in wanted.only:
        hashes = sorted(np.array([digest(v) for v in values], dtype=np.uint64).view(np.int64))
        parts.append(f"{name} IN ({', '.join(map(str, hashes))})" if values else "false")
    parts += [f"reason != {REASONS.index(one)}" for one in sorted(wanted.not_reasons)]
    return " AND ".join(parts)


def _lancedb() -> Any:
    # It warns of empty partitions by the thousand while it is trained on texts that repeat.
    os.environ.setdefault("LANCE_LOG", "error")
    import lancedb

    return lancedb


def _schema(dimension: int) -> Any:
    import pyarrow as pa

    return pa.schema(
        [("label", pa.int64()), ("vector", pa.list_(pa.float32(), dimension))]
        + [(name, pa.int64()) for name in HASHES]
        + [("success", pa.bool_()), ("reason", pa.int8())]
    )


def _files(home: Path) -> list[str]:
    """Names of the table's files."""
    found = (f for f in home.rglob("*") if f.is_file() and f.parent != home and f.name != _HINT)
    return sorted(file.relative_to(home).as_posix() for file in found)


def _read(home: Path, names: Sequence[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Names and bytes of files, one after the other, mapped; raises `FileNotFoundError`, and
    `OSError` for what is no regular file."""
    for name in names:
        with open_to_read(home / name) as file:
            there = os.fstat(file.fileno()).st_size > 0  # nothing cannot be mapped
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if there else b""
            yield name, np.frombuffer(data, dtype=np.uint8)
