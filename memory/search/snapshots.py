"""Snapshots of HNSW graphs on disk.

A snapshot is a graph file (what hnswlib pickles, as plain arrays) and a JSON manifest that says
what it is a graph of. The writer publishes snapshots, nobody changes one, and a snapshot that is
missing, damaged or of something else is only a reason to build another: the vectors it is built
from are in the column.
"""

import json
import zlib
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..storage.durable import TEMPORARY, Corruption, publish_file, read_file, replace_file
from .index import SEED, SPACE, Graph, IndexSettings, Lock, Measured, VectorIndex, write_parts
from .vectors import VectorColumn, column_name

FORMAT = 2
"""Format number of manifests, written and read; a graph of format 1 is built anew (its labels were
row numbers)."""


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


class Saved(NamedTuple):
    """What was written of an index."""

    file: str
    """Name of the file, inside the folder, that the checksum is of."""
    bytes: int
    sum: int
    rows: int
    last: int
    nodes: int
    sources: str


class SnapshotFolder:
    """Where the snapshots of one embedder and key are kept."""

    space = SPACE
    """What kind of index it is, for the manifest."""
    suffix = ""
    """Of the manifest's name, so that indexes of several kinds do not take each other's place."""

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
        self._path = folder / f"{self._name}{self.suffix}.json"

    def fresh(self, room: int) -> VectorIndex:
        """An empty index, with room for so many rows."""
        return Graph(self._dimension, self._settings, room)

    def load(
        self, column: VectorColumn, newer_than: int = -1, lock: Lock | None = None
    ) -> tuple[VectorIndex, Manifest] | None:
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
        graph: VectorIndex,
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
        saved = self._save(graph, column, position, lock)
        self._write(
            Manifest(
                format=FORMAT,
                memory=self._memory.hex(),
                embedder=self._identity,
                key=self._key,
                dimension=self._dimension,
                space=self.space,
                m=self._settings.m,
                ef_construction=self._settings.ef_construction,
                seed=SEED,
                rows=saved.rows,
                last=saved.last,
                nodes=saved.nodes,
                position=position,
                sources=saved.sources,
                file=saved.file,
                bytes=saved.bytes,
                sum=saved.sum,
                ef=found.ef,
                reach=found.reach,
            )
        )
        self._remove_others(saved.file)
        return saved.rows

    def _save(
        self, graph: VectorIndex, column: VectorColumn, position: int, lock: Lock | None
    ) -> Saved:
        """Writes the index; nothing points to it yet."""
        assert isinstance(graph, Graph)
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
        return Saved(path.name, size, checksum, rows, last, nodes, sources)

    def _remove_others(self, file: str) -> None:
        """Removes what was published before."""
        for other in self.folder.glob(f"{self._name}-*.hnsw*"):
            if other.name != file and other.name[len(self._name) + 1 :].split(".")[0].isdigit():
                with suppress(OSError):  # what lies there harms nobody
                    other.unlink()

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
            text = read_file(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note(self._path, f"cannot be read ({error.strerror}); not used")
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
            self.space,
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

    def _load_graph(self, manifest: Manifest) -> VectorIndex | None:
        try:
            return self._load(manifest)
        except FileNotFoundError:
            raise
        except OSError as error:
            detail = f"cannot be read ({error.strerror}); not used"
            self._note(self.folder / manifest.file, detail)
        except ValueError as error:
            self._note(self.folder / manifest.file, str(error))
        return None

    def _load(self, manifest: Manifest) -> VectorIndex:
        """The index of a manifest; raises `ValueError`, which says what is wrong with it."""
        return Graph.load(
            self.folder / manifest.file,
            nodes=manifest.nodes,
            last=manifest.last,
            size=manifest.bytes,
            sums=manifest.sum,
        )

    def _note(self, path: Path, detail: str) -> None:
        damage = Corruption(f"{self.folder.name}/{path.name}", 0, 0, detail)
        if damage not in self.damage:
            self.damage.append(damage)


def _canonical(body: dict[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
