"""Graphs, and snapshots that are only believed when they fit. What a graph finds is compared in
test_space.py."""

import errno
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from relive.memory.search import snapshots as snapshots_module
from relive.memory.search.embed import Vectors
from relive.memory.search.index import Graph, IndexSettings, Measured, write_parts
from relive.memory.search.snapshots import SnapshotFolder
from relive.memory.search.vectors import VectorColumn
from relive.memory.storage.rows import BLOCK, Numbers

DIMENSION, EF = 16, 200
FOUND = Measured(EF, 0.5)


def clustered(count: int, seed: int = 0) -> Vectors:
    """Unit vectors in clusters of about fifty, as goals of the same kind are."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, count // 50), DIMENSION))
    points = centres[generator.integers(0, len(centres), count)] + 0.4 * generator.standard_normal(
        (count, DIMENSION)
    )
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def labels_of(numbers: Numbers) -> Numbers:
    """Labels: every other record is an episode."""
    return 2 * numbers << 8


def column(folder: Path, vectors: Vectors, numbers: Numbers | None = None) -> VectorColumn:
    """A column that holds ``vectors``, in memory."""
    made = VectorColumn(
        folder / "v.vec",
        identity="test",
        dimension=DIMENSION,
        memory=bytes(16),
        embed=lambda rows: vectors[rows],
        writable=False,
    )
    numbers = np.arange(len(vectors)) if numbers is None else numbers
    made.open(labels_of(numbers), numbers.astype(np.uint32))
    return made


def graph_of(vectors: Vectors, start: int = 0) -> Graph:
    """A graph of ``vectors``."""
    graph = Graph(DIMENSION, IndexSettings())
    graph.add(vectors, labels_of(start + np.arange(len(vectors))))
    return graph


def snapshots(folder: Path, *, identity: str = "test", key: str = "goal") -> SnapshotFolder:
    """The snapshots in ``folder``."""
    return SnapshotFolder(
        folder,
        memory=bytes(16),
        identity=identity,
        key=key,
        dimension=DIMENSION,
        settings=IndexSettings(),
    )


def found_by(graph: Graph, query: Vectors, count: int) -> Numbers | None:
    """Labels that a search finds."""
    answer = graph.search(query, count, EF)
    return None if answer is None else answer[0]


def test_a_graph_finds_labels() -> None:
    """Ascending, about the closest; all of them if as many are asked for; and it grows beyond the
    room it was made with."""
    vectors = clustered(500)
    graph = Graph(DIMENSION, IndexSettings(), room=10)
    for low in range(0, 500, 50):
        graph.add(vectors[low : low + 50], labels_of(np.arange(low, low + 50)))
    assert (graph.nodes, graph.last) == (500, 499 * 2 << 8)
    found = right = 0
    for query in clustered(50, seed=1):
        labels = found_by(graph, query, 10)
        assert labels is not None
        assert labels.tolist() == sorted(labels.tolist())
        closest = labels_of(np.argsort(-(vectors @ query), kind="stable")[:10])
        found, right = found + 10, right + len(set(labels.tolist()) & set(closest.tolist()))
    assert right >= 0.95 * found
    assert found_by(graph, vectors[0], 1) == [0]
    small = graph_of(vectors[:7])
    everything = found_by(small, vectors[3], 99)
    assert everything is not None
    assert everything.tolist() == labels_of(np.arange(7)).tolist()


def test_graphs_are_deterministic(tmp_path: Path) -> None:
    """The same vectors make the same file, byte for byte, whatever room there was; one that was
    loaded finds the same."""
    vectors = clustered(400)
    first = graph_of(vectors)
    size, checksum = write_parts(tmp_path / "a", first.parts())
    second = Graph(DIMENSION, IndexSettings(), room=5000)
    second.add(vectors[:100], labels_of(np.arange(100)))
    second.add(vectors[100:], labels_of(np.arange(100, 400)))
    assert write_parts(tmp_path / "b", second.parts()) == (size, checksum)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = Graph.load(tmp_path / "a", nodes=400, last=first.last, size=size, sums=checksum)
    size, checksum = write_parts(tmp_path / "c", loaded.parts())
    loaded = Graph.load(tmp_path / "c", nodes=400, last=first.last, size=size, sums=checksum)
    for query in clustered(20, seed=1):
        ours, theirs = found_by(first, query, 5), found_by(loaded, query, 5)
        assert ours is not None
        assert theirs is not None
        assert ours.tolist() == theirs.tolist()


def test_a_loaded_graph_grows(tmp_path: Path) -> None:
    """Saved half-way and loaded, it finds what is added to it, and what was in it."""
    vectors = clustered(300)
    half = graph_of(vectors[:150])
    size, checksum = write_parts(tmp_path / "a", half.parts())
    loaded = Graph.load(tmp_path / "a", nodes=150, last=half.last, size=size, sums=checksum)
    loaded.add(vectors[150:], labels_of(np.arange(150, 300)))
    assert (loaded.nodes, loaded.last) == (300, 299 * 2 << 8)
    for number in (0, 149, 150, 299):
        labels = found_by(loaded, vectors[number], 1)
        assert labels is not None
        assert labels.tolist() == [2 * number << 8]


def test_a_damaged_graph_is_never_given_to_hnswlib(tmp_path: Path) -> None:
    """It would crash on some. Every block is checked, and the length."""
    vectors = clustered(100)
    size, checksum = write_parts(tmp_path / "a", graph_of(vectors).parts())
    assert size % BLOCK == 0
    good = (tmp_path / "a").read_bytes()

    def refused(data: bytes) -> None:
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(ValueError, match="damaged index"):
            Graph.load(tmp_path / "a", nodes=100, last=0, size=size, sums=checksum)

    for at in (*range(0, size, BLOCK), 40, size // 2 + 1, size - 1):
        refused(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    refused(good[:-1])
    refused(good + b"\0")
    refused(b"")
    refused(good[BLOCK : 2 * BLOCK] + good[:BLOCK] + good[2 * BLOCK :])


def test_snapshot_comes_back_the_same(tmp_path: Path) -> None:
    """With how many rows it covers, and since when; the one before is removed, those of other
    fields are not."""
    vectors = clustered(300)
    whole = column(tmp_path, vectors)
    folder, other = snapshots(tmp_path), snapshots(tmp_path, key="window")
    assert folder.load(whole) is None
    other.publish(graph_of(vectors[:50]), whole, 40, FOUND)
    folder.publish(graph_of(vectors[:200]), whole, 500, FOUND)
    folder.publish(graph_of(vectors), whole, 700, FOUND)
    found = snapshots(tmp_path).load(whole)
    assert found is not None
    graph, known = found
    assert (graph.nodes, graph.last) == (300, 299 * 2 << 8)
    assert (known.rows, known.position, known.ef, known.reach) == (300, 700, EF, 0.5)
    assert folder.load(whole, newer_than=700) is None
    assert folder.load(whole, newer_than=699) is not None
    assert folder.load(column(tmp_path, vectors[:299])) is None  # a reader that is behind
    assert not folder.damage
    kept = other.load(whole)
    assert kept is not None
    assert (kept[1].rows, kept[1].position) == (50, 40)
    assert len(list(tmp_path.glob("*.hnsw*"))) == 2


def test_damaged_old_or_foreign_snapshots_are_not_used(tmp_path: Path) -> None:
    """Each is named, none is loaded."""
    vectors = clustered(100)
    whole = column(tmp_path, vectors)
    snapshots(tmp_path).publish(graph_of(vectors), whole, 200, FOUND)
    manifest, graph = next(tmp_path.glob("*.json")), next(tmp_path.glob("*.hnsw"))
    good_manifest, good_graph = manifest.read_bytes(), graph.read_bytes()

    def refused(expected: str) -> None:
        folder = snapshots(tmp_path)
        assert folder.load(whole) is None
        assert expected in str(folder.damage[0])
        assert len(folder.damage) == 1
        manifest.write_bytes(good_manifest)
        graph.write_bytes(good_graph)
        assert snapshots(tmp_path).load(whole) is not None

    for at in (0, 40, len(good_graph) // 2, len(good_graph) - 1):
        graph.write_bytes(good_graph[:at] + bytes([good_graph[at] ^ 1]) + good_graph[at + 1 :])
        refused("damaged index")
    graph.write_bytes(good_graph[:-1])
    refused("damaged index")
    for changed in (
        good_manifest.replace(b'"rows": 100', b'"rows": 99'),
        good_manifest[:-9],
        b"[]",
        b"",
        b'{"format": 2}',
    ):
        assert changed != good_manifest
        manifest.write_bytes(changed)
        refused("damaged manifest")
    for name, value in (
        ("embedder", "other"),
        ("m", 8),
        ("memory", "ff"),
        ("key", "first"),
        ("dimension", 3),
    ):
        manifest.write_text(signed({**json.loads(good_manifest), name: value}))
        refused("another memory, embedder or setting")
    manifest.write_text(signed({"format": 1, "entries": 100}))
    refused("of format 1; built anew")
    manifest.write_text(signed({**json.loads(good_manifest), "of_the_future": 1}))
    graph.write_bytes(good_graph)
    assert snapshots(tmp_path).load(whole) is not None
    graph.unlink()
    assert snapshots(tmp_path).load(whole) is None
    assert snapshots(tmp_path, identity="other").load(whole) is None


def signed(body: dict[str, object]) -> str:
    """A manifest with a checksum that holds."""
    body.pop("checksum", None)
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**body, "checksum": zlib.crc32(canonical)})


def test_snapshot_of_other_records_is_not_used(tmp_path: Path) -> None:
    """A record of the log was damaged since, so rows no longer mean the same."""
    vectors = clustered(301)
    folder = snapshots(tmp_path)
    folder.publish(graph_of(vectors[:300]), column(tmp_path, vectors[:300]), 600, FOUND)
    numbers = np.delete(np.arange(301), 7)
    assert folder.load(column(tmp_path, vectors[numbers], numbers)) is None
    assert "not those in the log" in str(folder.damage[0])


def test_after_rows_were_dropped(tmp_path: Path) -> None:
    """The graph stays, and its manifest says which of the rows that are left it covers."""
    vectors = clustered(300)
    folder = snapshots(tmp_path)
    folder.publish(graph_of(vectors[:200]), column(tmp_path, vectors), 600, FOUND)
    numbers = np.delete(np.arange(300), [3, 150, 250])
    left = column(tmp_path, vectors[numbers], numbers)
    folder.renumber(left, 620)
    found = snapshots(tmp_path).load(left)
    assert found is not None
    assert (found[0].nodes, found[1].rows, found[1].position) == (200, 198, 620)
    assert not folder.damage
    none = column(tmp_path, vectors[:0])
    folder.renumber(none, 630)
    assert snapshots(tmp_path, key="first").read() is None
    snapshots(tmp_path, key="first").renumber(
        none, 630
    )  # nothing was published, so nothing changes
    assert snapshots(tmp_path).load(none) is None  # nothing of it is left


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot before stays, and nothing half-written does."""
    vectors = clustered(300)
    whole = column(tmp_path, vectors)
    folder = snapshots(tmp_path)
    folder.publish(graph_of(vectors[:200]), whole, 400, FOUND)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail if name == "fsync" else lambda *paths: fail(0))
            with pytest.raises(OSError, match="No space"):
                folder.publish(graph_of(vectors), whole, 600, FOUND)
        found = folder.load(whole)
        assert found is not None
        assert (found[1].rows, found[1].position) == (200, 400)
        assert not list(tmp_path.glob("*.tmp"))


def test_snapshot_replaced_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer removes the old graph after a reader has read the manifest: the reader looks
    again."""
    vectors = clustered(300)
    whole = column(tmp_path, vectors)
    writer = snapshots(tmp_path)
    writer.publish(graph_of(vectors[:200]), whole, 400, FOUND)
    folder = snapshots(tmp_path)
    real = folder.read
    calls: list[object] = []

    def read() -> object:
        found = real()
        if not calls:
            calls.append(found)
            writer.publish(graph_of(vectors), whole, 600, FOUND)
        return found

    monkeypatch.setattr(folder, "read", read)
    found = folder.load(whole)
    assert found is not None
    assert (found[1].rows, found[1].position) == (300, 600)
    assert not folder.damage


def test_of_another_version_of_hnswlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and another is built."""
    import hnswlib

    class Newer(hnswlib.Index):  # type: ignore[misc]
        def __setstate__(self, state: object) -> None:
            raise RuntimeError("Invalid serialization version")

    vectors = clustered(100)
    whole = column(tmp_path, vectors)
    snapshots(tmp_path).publish(graph_of(vectors), whole, 200, FOUND)
    monkeypatch.setattr(hnswlib, "Index", Newer)
    folder = snapshots(tmp_path)
    assert folder.load(whole) is None
    assert "another version of hnswlib" in str(folder.damage[0])
    assert snapshots_module.FORMAT == 2
