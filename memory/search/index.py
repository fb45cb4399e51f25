"""The HNSW graph, in memory and as the bytes of a file. The only door to hnswlib.

A graph knows labels (:mod:`relive.memory.search.vectors`), not row numbers, so it survives
compaction: labels of what is gone are passed over. What is published of it, and for whom, is in
:mod:`relive.memory.search.snapshots`.

hnswlib crashes when one thread adds and another searches, so whoever owns a :class:`Graph` lets one
thread in at a time.
"""

import json
import mmap
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..storage.catalog import Filter
from ..storage.durable import create_file, open_to_read
from ..storage.rows import BLOCK, Numbers, blocks_sum
from .embed import Vectors

SEED = 100
SPACE = "ip"
ENGINES = ("hnsw", "lancedb")
"""Kinds of index: a graph in main memory, and a table of a vector database on the disk."""
Bytes = NDArray[np.uint8]
Lock = AbstractContextManager[Any]


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """When a graph is used and how it is built. Caches only: an answer must not depend on any of it
    but by being faster.

    Raises:
        ValueError: a value that makes no sense.
    """

    engine: str = ""
    """One of :data:`ENGINES`; by default what the memory has, at first ``hnsw``. A writer that is
    given one makes it the memory's."""
    exact_limit: int = 10_000
    """Up to this many rows every search compares all of them. At 384 dimensions that takes 0.4 ms,
    is right by definition, and does not suffer from what graphs are bad at: hundreds of goals that
    are nearly equally close."""
    m: int = 16
    """Links of a node in the graph."""
    ef_construction: int = 200
    """Candidates that are kept at hand when a vector is added."""
    ef: int = 200
    """Candidates that a search keeps at hand, at least; more where the vectors need more
    (:mod:`relive.memory.search.accuracy`)."""
    recall: float = 0.993
    """What a sample of searches must find of the right ten, or all rows are compared instead."""
    stale: float = 0.3
    """A graph of which more than this share was compacted away is not used and built anew."""
    publish_rows: int = 2000
    publish_growth: float = 0.15
    """A snapshot is due once more than `publish_rows`, and more than this share of the last one,
    came after it."""

    def __post_init__(self) -> None:
        if self.engine not in ("", *ENGINES):
            raise ValueError(f"unknown index engine {self.engine!r}: use {' or '.join(ENGINES)}")
        whole = (self.exact_limit, self.m, self.ef_construction, self.ef, self.publish_rows)
        if min(whole) < 0 or min(self.m, self.ef_construction, self.ef) < 1:
            raise ValueError(
                "index settings must not be negative, and m, ef_construction and ef at least 1: "
                f"{self}"
            )
        if not (0 < self.recall <= 1 and 0 <= self.stale < 1 and self.publish_growth >= 0):
            raise ValueError(
                f"recall must be in (0, 1], stale in [0, 1) and publish_growth not negative: {self}"
            )


class Measured(NamedTuple):
    """What was found out about a graph."""

    ef: int
    """Candidates that a search has to keep at hand; 0 if no number is enough."""
    reach: float
    """Similarity of the closest row to the most remote query of the sample. Nothing is known of
    queries that are further from all that is stored."""


class VectorIndex(Protocol):
    """What proposes candidates: a :class:`Graph`, or a table of a vector database
    (:mod:`relive.memory.search.lance`)."""

    filters: bool
    """Whether it can propose only episodes that a filter keeps."""
    least: int
    """Rows that are worth adding together."""
    nodes: int
    """Vectors in it, those of rows that are gone included."""
    last: int
    """Highest label in it."""

    def add(self, vectors: Vectors, labels: Numbers) -> None:
        """See :meth:`Graph.add`."""
        ...

    def search(
        self, vector: Vectors, count: int, ef: int, wanted: Filter | None = None
    ) -> tuple[Numbers, float] | None:
        """See :meth:`Graph.search`."""
        ...


class Graph:
    """An HNSW graph of labelled unit vectors. Deterministic: one thread, a fixed seed. Not
    thread-safe."""

    filters = False
    least = 1

    def __init__(self, dimension: int, settings: IndexSettings, room: int = 1024) -> None:
        import hnswlib

        self.dimension = dimension
        self._index: Any = hnswlib.Index(space=SPACE, dim=dimension)
        self._room = room
        self.nodes = 0
        """Vectors in the graph."""
        self.last = -1
        """Highest label in it; labels are added in ascending order."""
        self._index.init_index(
            max_elements=room,
            ef_construction=settings.ef_construction,
            M=settings.m,
            random_seed=SEED,
        )
        self._index.set_num_threads(1)

    @classmethod
    def load(cls, path: Path, *, nodes: int, last: int, size: int, sums: int) -> "Graph":
        """A graph from a file.

        Everything is read and checked before hnswlib sees it: hnswlib believes whatever it is
        given, and a damaged graph would crash the process. Reading and checking happen outside the
        interpreter's lock, so other threads are not held up.

        Raises:
            OSError: it cannot be read, or is no regular file.
            ValueError: the file is damaged, or of another version of hnswlib; the message says
                which.
        """
        import hnswlib

        with open_to_read(path) as file:
            whole = os.fstat(file.fileno()).st_size == size > 0
            data = np.frombuffer(
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if whole else b"",
                dtype=np.uint8,
            )
        if not whole or blocks_sum(data) != sums:
            raise ValueError("damaged index; not used")
        head = json.loads(bytes(data[:BLOCK]).rstrip(b"\0"))
        state, offset = dict(head["state"]), BLOCK
        for name, kind, count in head["arrays"]:
            state[name] = data[offset:].view(np.uint8)[: count * np.dtype(kind).itemsize].view(kind)
            offset += -(-count * np.dtype(kind).itemsize // BLOCK) * BLOCK
        graph = cls.__new__(cls)
        graph.dimension, graph.nodes, graph.last, graph._room = (
            int(state["dim"]),
            nodes,
            last,
            nodes,
        )
        graph._index = hnswlib.Index.__new__(hnswlib.Index)
        try:
            graph._index.__setstate__((state,))
        except RuntimeError as error:
            raise ValueError(f"made by another version of hnswlib ({error}); not used") from None
        graph._index.set_num_threads(1)
        return graph

    def add(self, vectors: Vectors, labels: Numbers) -> None:
        """Add vectors, shape (n, dimension), under labels that ascend and are higher than all so
        far."""
        if self.nodes + len(labels) > self._room:
            self._room = max(self.nodes + len(labels), self._room * 3 // 2)
            self._index.resize_index(self._room)
        self._index.add_items(vectors, labels, num_threads=1)
        self.nodes += len(labels)
        self.last = int(labels[-1])

    def search(
        self, vector: Vectors, count: int, ef: int, wanted: Filter | None = None
    ) -> tuple[Numbers, float] | None:
        """About the `count` closest vectors: their labels, ascending, and a score that no vector
        left out exceeds.

        None if the graph finds fewer (poorly connected).

        Args:
            vector: of the query, shape (dimension,).
            count: how many.
            ef: candidates to keep at hand, at least.
            wanted: only episodes that it keeps; not looked at unless `filters`.
        """
        # With as many candidates as hits one in ten of them would be missed.
        self._index.set_ef(max(ef, 2 * count))
        try:
            labels, distances = self._index.knn_query(
                vector[None, :], k=min(count, self.nodes), num_threads=1
            )
        except RuntimeError:
            return None
        # Of what was compacted away there is no vector any more, but its distance counts: all that
        # is closer was found.
        return np.sort(labels[0].astype(np.int64)), 1.0 - float(distances[0, -1])

    def parts(self) -> list[Bytes]:
        """What is written of the graph, as it is now: copies, so that it may change while they are
        written."""
        (state,) = self._index.__getstate__()
        count = state["cur_element_count"]
        state |= {
            "max_elements": count,
            "num_threads": 1,
            "seed": SEED,
            "ef": 200,
        }  # every search sets its own
        # Without the room for more.
        state["data_level0"] = state["data_level0"][: count * state["size_data_per_element"]]
        state["element_levels"] = state["element_levels"][:count]
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        head = {
            "state": {name: value for name, value in state.items() if name not in arrays},
            "arrays": [(name, value.dtype.str, len(value)) for name, value in arrays.items()],
        }
        parts = [np.frombuffer(json.dumps(head).encode().ljust(BLOCK, b"\0"), dtype=np.uint8)]
        parts += [value.view(np.uint8) for value in arrays.values()]
        return parts


def write_parts(path: Path, parts: Sequence[Bytes]) -> tuple[int, int]:
    """Write bytes durably, each part at the beginning of a block; size in bytes and checksum of the
    file. Raises `OSError`."""
    with create_file(path) as file:
        for part in parts:
            file.write(part.data)
            file.write(bytes(-len(part) % BLOCK))
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size, blocks_sum(*parts)
