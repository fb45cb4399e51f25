"""Nearest vectors: exact search, and an HNSW graph with exact search behind it. The only door to hnswlib.

A snapshot is a graph file and a JSON manifest that says what it is a graph of. The writer publishes snapshots, nobody
changes one, and a snapshot that is missing, damaged or of something else is only a reason to build another: the
vectors it is built from are in the column (:mod:`memory.vectors`).
"""

import errno
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memory.durable import TEMPORARY, publish_file, replace_file
from memory.embed import Vectors
from memory.log import Damage
from memory.vectors import VectorColumn, column_name

FORMAT = 1
"""Format number of manifests, written and read."""
EXACT_LIMIT = 10_000
"""Up to this many entries every search compares all of them. At 384 dimensions that takes 0.4 ms, is right by
definition, and does not suffer from what graphs are bad at: hundreds of goals that are nearly equally close."""
LEAST_TAIL = 2000
GROWTH = 0.1
"""A new snapshot is due once more than LEAST_TAIL entries, and more than this share of the last one, came after it."""
WIDEST = 2048
"""More candidates than this are taken by exact search: a graph is slow at that and no longer complete."""
M = 16
EF_CONSTRUCTION = 200
EF = 200
SEED = 100
SPACE = "ip"
DECIMALS = 5
"""Scores are rounded to so many decimals before they are compared: what lies beyond is rounding error, which differs
between processors, and must not decide which of two equally close episodes is shown."""


class Index(Protocol):
    """Finds the entries closest to a vector."""

    def candidates(self, vector: Vectors, count: int, stop: int) -> tuple[NDArray[np.int64], Vectors, bool]:
        """The ``count`` closest of the first ``stop`` entries: ordinals, scores, and whether all were compared.

        Descending by score, equal scores ascending by ordinal; both of shape (min(count, stop),).
        """
        ...


class ExactIndex:
    """Compares every entry: the oracle, and the right choice for small memories."""

    def __init__(self, vectors: VectorColumn) -> None:
        self._vectors = vectors

    def candidates(self, vector: Vectors, count: int, stop: int) -> tuple[NDArray[np.int64], Vectors, bool]:
        """As :meth:`Index.candidates`; always exact."""
        scores = np.round(self._vectors.scores(vector, 0, stop), DECIMALS)
        return (*_best(np.arange(stop), scores, count), True)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot is a graph of. Anything that does not match means: build another."""

    format: int
    memory: str
    """Id of the memory."""
    embedder: str
    """Identity of the embedder."""
    dimension: int
    space: str
    m: int
    ef_construction: int
    seed: int
    entries: int
    """The graph holds the first so many episodes of the log."""
    position: int
    """Log position of the graph: the episodes in it are those before it."""
    sources: str
    """SHA-256 over (sequence number, checksum) of the records they came from."""
    file: str
    """Name of the graph file, beside the manifest."""
    bytes: int
    crc32: int
    """Of the graph file."""


class HnswIndex:
    """A graph over the first entries and exact search over those after it."""

    def __init__(self, vectors: VectorColumn, graph: Any, entries: int) -> None:
        self._vectors = vectors
        self._graph = graph
        self.entries = entries
        """How many entries the graph holds."""
        self._exact = ExactIndex(vectors)

    def candidates(self, vector: Vectors, count: int, stop: int) -> tuple[NDArray[np.int64], Vectors, bool]:
        """As :meth:`Index.candidates`; approximate unless the graph knows more than may be seen, or too many are
        asked for."""
        if stop < self.entries or count >= min(stop, WIDEST):
            # An older position than the snapshot's: exact, so that the answer does not depend on when it was made.
            return self._exact.candidates(vector, count, stop)
        self._graph.set_ef(max(EF, count))
        try:
            labels, _ = self._graph.knn_query(vector[None, :], k=min(count, self.entries), num_threads=1)
        except RuntimeError:
            # hnswlib found fewer than asked for (poorly connected graph).
            return self._exact.candidates(vector, count, stop)
        found = np.sort(labels[0].astype(np.int64))
        ordinals = np.concatenate([found, np.arange(self.entries, stop)])
        # Scored by the same sum as exact search, so that equal vectors get equal scores.
        near = np.einsum("ij,j->i", self._vectors.take(found), vector)
        scores = np.round(np.concatenate([near, self._vectors.scores(vector, self.entries, stop)]), DECIMALS)
        return (*_best(ordinals, scores, count), False)


class SnapshotFolder:
    """Where the snapshots of one embedder are kept."""

    def __init__(self, folder: Path, *, memory: bytes, identity: str, dimension: int) -> None:
        self.folder = folder
        self.damage: list[Damage] = []
        self._memory = memory
        self._identity = identity
        self._dimension = dimension
        self._name = column_name(identity)
        self._manifest = folder / f"{self._name}.json"

    def load(self, vectors: VectorColumn, newer_than: int = 0) -> HnswIndex | None:
        """The published snapshot, or None if there is none that can be used (or none with more entries)."""
        for _ in range(3):  # a writer may replace the snapshot between reading its manifest and its graph
            try:
                manifest = self._read_manifest()
                if manifest is None or manifest.entries <= newer_than or manifest.entries > len(vectors):
                    return None
                if manifest.sources != vectors.sources_digest(manifest.entries):
                    self._note(self._manifest, "made from records that are no longer in the log; not used")
                    return None
                return self._load_graph(manifest, vectors)
            except FileNotFoundError:
                continue
        return None

    def publish(self, vectors: VectorColumn, position: int, base: HnswIndex | None = None) -> HnswIndex:
        """Build a graph of all vectors, starting from ``base`` if given, and make it the published snapshot.

        Deterministic: one thread, a fixed seed, entries in the order of the log.

        Raises:
            OSError: it cannot be written; the one published before remains.
        """
        import hnswlib

        entries = len(vectors)
        graph = hnswlib.Index(space=SPACE, dim=self._dimension)
        old = None
        if base is None:
            graph.init_index(max_elements=entries, ef_construction=EF_CONSTRUCTION, M=M, random_seed=SEED)
            start = 0
        else:
            old = self._read_manifest()
            if old is None or old.entries != base.entries:
                return self.publish(vectors, position)
            graph.load_index(str(self.folder / old.file), max_elements=entries)
            start = base.entries
        graph.set_num_threads(1)
        for low in range(start, entries, 4096):
            rows = np.arange(low, min(low + 4096, entries))
            graph.add_items(vectors.take(rows), rows, num_threads=1)
        path = self.folder / f"{self._name}-{position:016d}.hnsw"
        temporary = path.with_name(path.name + TEMPORARY)
        try:
            size, checksum = _save_graph(graph, temporary)
            publish_file(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        manifest = Manifest(
            format=FORMAT,
            memory=self._memory.hex(),
            embedder=self._identity,
            dimension=self._dimension,
            space=SPACE,
            m=M,
            ef_construction=EF_CONSTRUCTION,
            seed=SEED,
            entries=entries,
            position=position,
            sources=vectors.sources_digest(entries),
            file=path.name,
            bytes=size,
            crc32=checksum,
        )
        body = asdict(manifest)
        body["checksum"] = zlib.crc32(_canonical(body))
        replace_file(self._manifest, json.dumps(body, indent=1).encode())
        for other in self.folder.glob(f"{self._name}-*.hnsw*"):
            if other != path:
                other.unlink(missing_ok=True)
        return HnswIndex(vectors, graph, entries)

    def _read_manifest(self) -> Manifest | None:
        try:
            text = self._manifest.read_bytes()
        except FileNotFoundError:
            return None
        try:
            body = json.loads(text)
            checksum = body.pop("checksum")
            if checksum != zlib.crc32(_canonical(body)):
                raise ValueError("its checksum does not hold")
            manifest = Manifest(**body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._note(self._manifest, f"damaged manifest ({error}); not used")
            return None
        ours = (FORMAT, self._memory.hex(), self._identity, self._dimension, SPACE, M, EF_CONSTRUCTION, SEED)
        theirs = (
            manifest.format, manifest.memory, manifest.embedder, manifest.dimension,
            manifest.space, manifest.m, manifest.ef_construction, manifest.seed,
        )  # fmt: skip
        if ours != theirs:
            self._note(self._manifest, "made for another memory, embedder or setting; not used")
            return None
        return manifest

    def _load_graph(self, manifest: Manifest, vectors: VectorColumn) -> HnswIndex | None:
        path = self.folder / manifest.file
        # hnswlib believes whatever it reads; a damaged file would crash the process.
        if path.stat().st_size != manifest.bytes or _file_checksum(path) != manifest.crc32:
            self._note(path, "damaged index; not used")
            return None
        import hnswlib

        graph = hnswlib.Index(space=SPACE, dim=self._dimension)
        try:
            graph.load_index(str(path), max_elements=manifest.entries)
        except RuntimeError as error:
            if not path.exists():
                raise FileNotFoundError(f"{path} was replaced while it was read") from None
            self._note(path, f"cannot be loaded ({error}); not used")
            return None
        graph.set_num_threads(1)
        return HnswIndex(vectors, graph, manifest.entries)

    def _note(self, path: Path, detail: str) -> None:
        damage = Damage(f"{self.folder.name}/{path.name}", 0, 0, detail)
        if damage not in self.damage:
            self.damage.append(damage)


def publishing_is_due(entries: int, published: int) -> bool:
    """Whether the entries after the snapshot (``published`` in it, 0 without one) are worth a new one."""
    return entries > EXACT_LIMIT and entries - published > max(LEAST_TAIL, GROWTH * published)


def _best(ordinals: NDArray[np.int64], scores: Vectors, count: int) -> tuple[NDArray[np.int64], Vectors]:
    """The ``count`` highest, descending; ordinals must be ascending, and equal scores stay in that order."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        kept = np.flatnonzero(scores >= least)
        ordinals, scores = ordinals[kept], scores[kept]
    order = np.argsort(-scores, kind="stable")[:count]
    return ordinals[order], scores[order]


def _canonical(body: dict[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _save_graph(graph: Any, path: Path) -> tuple[int, int]:
    """Write the graph durably; its size in bytes and its CRC-32."""
    try:
        graph.save_index(str(path))
    except RuntimeError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    if path.stat().st_size != graph.index_file_size():
        # hnswlib does not notice a full disk.
        raise OSError(errno.ENOSPC, f"{path} cannot be written in full")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path.stat().st_size, _file_checksum(path)


def _file_checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while part := file.read(2**22):
            checksum = zlib.crc32(part, checksum)
    return checksum
