"""The HNSW graph, and its snapshots on disk. The only door to hnswlib.

A graph knows labels (:mod:`relive.memory.search.vectors`), not row numbers, so it survives
compaction: labels of what is gone are passed over. A snapshot is a graph file (what hnswlib
pickles, as plain arrays) and a JSON manifest that says what it is a graph of. The writer publishes
snapshots, nobody changes one, and a snapshot that is missing, damaged or of something else is only
a reason to build another: the vectors it is built from are in the column.

hnswlib crashes when one thread adds and another searches, so whoever owns a :class:`Graph` lets one
thread in at a time.
"""

import json
import mmap
import os
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..storage.durable import TEMPORARY, publish_file, replace_file
from ..storage.log import Corruption
from ..storage.rows import BLOCK, Numbers, blocks_sum
from .embed import Vectors
from .vectors import VectorColumn, column_name

FORMAT = 2
"""Format number of manifests, written and read; a graph of format 1 is built anew (its labels were
row numbers)."""
SEED = 100
SPACE = "ip"
Bytes = NDArray[np.uint8]
Lock = AbstractContextManager[Any]


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """When a graph is used and how it is built. Caches only: an answer must not depend on any of it
    but by being faster.

    Raises:
        ValueError: a value that makes no sense.
    """

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
    """Similarity of the closest row to the most remote query of the sample. Nothing is known of queries
    that are further from all that is stored."""


class Graph:
    """An HNSW graph of labelled unit vectors. Deterministic: one thread, a fixed seed. Not
    thread-safe."""

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
            ValueError: the file is damaged, or of another version of hnswlib; the message says
                which.
        """
        import hnswlib

        with path.open("rb") as file:
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

    def search(self, vector: Vectors, count: int, ef: int) -> tuple[Numbers, float] | None:
        """About the `count` closest vectors: their labels, ascending, and a score that no vector
        left out exceeds.

        None if the graph finds fewer (poorly connected).

        Args:
            vector: of the query, shape (dimension,).
            count: how many.
            ef: candidates to keep at hand, at least.
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
    with path.open("wb") as file:
        for part in parts:
            file.write(part.data)
            file.write(bytes(-len(part) % BLOCK))
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size, blocks_sum(*parts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot is a graph of. Anything that does not match means: build another."""

    format: int
    memory: str
    """Id of the memory."""
    embedder: str
    """Identity of the embedder."""
    key: str
    """Which texts of the episodes."""
    dimension: int
    space: str
    m: int
    ef_construction: int
    seed: int
    rows: int
    """The graph holds the first so many rows of the column."""
    last: int
    """Highest label in it."""
    nodes: int
    """Vectors in it, those of rows that are gone included."""
    position: int
    """Log position when it was made."""
    sources: str
    """SHA-256 of the labels and record checksums of these rows."""
    file: str
    """Name of the graph file, beside the manifest."""
    bytes: int
    sum: int
    """Checksum of the graph file."""
    ef: int = -1
    """Candidates that a search has to keep at hand; 0: all rows are compared instead; -1: not
    measured."""
    reach: float = -1.0
    """As of :class:`Measured`."""


class SnapshotFolder:
    """Where the snapshots of one embedder and key are kept."""

    def __init__(
        self,
        folder: Path,
        *,
        memory: bytes,
        identity: str,
        key: str,
        dimension: int,
        settings: IndexSettings,
    ) -> None:
        self.folder, self._settings = folder, settings
        self.damage: list[Corruption] = []
        self._memory = memory
        self._identity, self._key = identity, key
        self._dimension = dimension
        self._name = column_name(identity, key)
        self._path = folder / f"{self._name}.json"

    def load(
        self, column: VectorColumn, newer_than: int = -1, lock: Lock | None = None
    ) -> tuple[Graph, Manifest] | None:
        """The published graph and what is known of it, or None if none can be used.

        Args:
            column: whose rows it must be made from.
            newer_than: log position; an older snapshot is not loaded.
            lock: guards the column; it is not held while the graph is read.
        """
        for _ in range(
            3
        ):  # a writer may replace the snapshot between reading its manifest and its graph
            try:
                manifest = self.read()
                if manifest is None or manifest.position <= newer_than:
                    return None
                with lock or nullcontext():
                    known = manifest.rows <= len(column)
                    fits = known and manifest.sources == column.digest(manifest.rows)
                if not fits:
                    if known:
                        self._note(
                            self._path, "made from records that are not those in the log; not used"
                        )
                    return None
                if manifest.rows < (1 - self._settings.stale) * manifest.nodes:
                    # most of it was compacted away; the writer builds another when it is needed
                    return None
                graph = self._load_graph(manifest)
                return None if graph is None else (graph, manifest)
            except FileNotFoundError:
                continue
        return None

    def publish(
        self,
        graph: Graph,
        column: VectorColumn,
        position: int,
        found: Measured,
        lock: Lock | None = None,
    ) -> int:
        """Make the graph, which covers the leading rows of the column, the published one; returns
        how many they are.

        Args:
            graph: what is published, as it is when the lock is taken.
            column: whose rows it holds.
            position: log position.
            found: what is known of how well it finds.
            lock: guards graph and column; it is not held while the disk works.

        Raises:
            OSError: it cannot be written; the one published before remains.
        """
        path = self.folder / f"{self._name}-{position:016d}.hnsw"
        temporary = path.with_name(path.name + TEMPORARY)
        try:
            with lock or nullcontext():
                parts, last, nodes = graph.parts(), graph.last, graph.nodes
                rows = int(np.searchsorted(column.labels, last, side="right"))
                sources = column.digest(rows)
            size, checksum = write_parts(temporary, parts)
            publish_file(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._write(
            Manifest(
                format=FORMAT,
                memory=self._memory.hex(),
                embedder=self._identity,
                key=self._key,
                dimension=self._dimension,
                space=SPACE,
                m=self._settings.m,
                ef_construction=self._settings.ef_construction,
                seed=SEED,
                rows=rows,
                last=last,
                nodes=nodes,
                position=position,
                sources=sources,
                file=path.name,
                bytes=size,
                sum=checksum,
                ef=found.ef,
                reach=found.reach,
            )
        )
        for other in self.folder.glob(f"{self._name}-*.hnsw*"):
            if other != path and other.name[len(self._name) + 1 :].split(".")[0].isdigit():
                other.unlink(missing_ok=True)
        return rows

    def report(self, detail: str) -> None:
        """Say that something is wrong with what was published; once."""
        self._note(self._path, detail)

    def renumber(self, column: VectorColumn, position: int) -> None:
        """After rows were dropped from the column: say anew which of them the published graph
        covers."""
        manifest = self.read()
        if manifest is not None:
            rows = int(np.searchsorted(column.labels, manifest.last, side="right"))
            self._write(
                replace(manifest, rows=rows, sources=column.digest(rows), position=position)
            )

    def read(self) -> Manifest | None:
        """The manifest, if it is intact and fits."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            body = json.loads(text)
            checksum = body.pop("checksum")
            if checksum != zlib.crc32(_canonical(body)):
                raise ValueError("its checksum does not hold")
            if body["format"] != FORMAT:
                self._note(self._path, f"of format {body['format']}; built anew")
                return None
            known = {
                field.name: body[field.name] for field in fields(Manifest) if field.name in body
            }
            manifest = Manifest(**known)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._note(self._path, f"damaged manifest ({error}); not used")
            return None
        m, ef_construction = self._settings.m, self._settings.ef_construction
        ours = (
            self._memory.hex(),
            self._identity,
            self._key,
            self._dimension,
            SPACE,
            m,
            ef_construction,
            SEED,
        )
        theirs = (
            manifest.memory, manifest.embedder, manifest.key, manifest.dimension,
            manifest.space, manifest.m, manifest.ef_construction, manifest.seed,
        )  # fmt: skip
        if ours != theirs:
            self._note(self._path, "made for another memory, embedder or setting; not used")
            return None
        return manifest

    def _write(self, manifest: Manifest) -> None:
        body = asdict(manifest)
        body["checksum"] = zlib.crc32(_canonical(body))
        replace_file(self._path, json.dumps(body, indent=1).encode())

    def _load_graph(self, manifest: Manifest) -> Graph | None:
        path = self.folder / manifest.file
        try:
            return Graph.load(
                path,
                nodes=manifest.nodes,
                last=manifest.last,
                size=manifest.bytes,
                sums=manifest.sum,
            )
        except ValueError as error:
            self._note(path, str(error))
            return None

    def _note(self, path: Path, detail: str) -> None:
        damage = Corruption(f"{self.folder.name}/{path.name}", 0, 0, detail)
        if damage not in self.damage:
            self.damage.append(damage)


def _canonical(body: dict[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
