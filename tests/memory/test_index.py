"""HNSW against its oracle, and snapshots that are only believed when they fit."""

import json
from pathlib import Path

import numpy as np
import pytest

from memory import index as index_module
from memory.embed import Vectors
from memory.index import EXACT_LIMIT, ExactIndex, HnswIndex, SnapshotFolder, publishing_is_due
from memory.vectors import VectorColumn

DIMENSION = 32


def clustered(count: int, dimension: int, seed: int = 0) -> Vectors:
    """Unit vectors in clusters of about fifty, as goals of the same kind are."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, count // 50), dimension))
    points = centres[generator.integers(0, len(centres), count)] + 0.4 * generator.standard_normal((count, dimension))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def column(folder: Path, vectors: Vectors) -> VectorColumn:
    """A column that holds ``vectors``."""
    made = VectorColumn(folder / "v.vec", identity="test", dimension=vectors.shape[1], memory=bytes(16), writable=False)
    made.extend([(number, number) for number in range(len(vectors))], lambda ordinals: vectors[list(ordinals)])
    return made


def snapshots(folder: Path, *, identity: str = "test", dimension: int = DIMENSION) -> SnapshotFolder:
    """The snapshots in ``folder``."""
    return SnapshotFolder(folder, memory=bytes(16), identity=identity, dimension=dimension)


def recall(index: HnswIndex, oracle: ExactIndex, queries: Vectors, stop: int, count: int = 10) -> float:
    """Share of the closest ``count`` that the index finds."""
    found = 0
    for query in queries:
        found += len(set(index.candidates(query, count, stop)[0]) & set(oracle.candidates(query, count, stop)[0]))
    return found / (count * len(queries))


def test_small_sets_are_searched_as_the_oracle_does(tmp_path: Path) -> None:
    """Graph plus tail give the same answers as comparing everything, at every position."""
    vectors = clustered(300, DIMENSION)
    partial = column(tmp_path, vectors[:200])
    graph = snapshots(tmp_path).publish(partial, 200)
    full = column(tmp_path, vectors)
    index, oracle = HnswIndex(full, graph._graph, 200), ExactIndex(full)
    for query in clustered(20, DIMENSION, seed=1):
        for stop in (0, 5, 199, 200, 201, 300):
            for count in (1, 10, 400):
                ours, exact = index.candidates(query, count, stop), oracle.candidates(query, count, stop)
                assert np.array_equal(ours[0], exact[0])
                assert np.array_equal(ours[1], exact[1])
                assert len(ours[0]) == min(count, stop)


def test_oracle_against_sorting(tmp_path: Path) -> None:
    """Descending by score, equal scores in the order of the log."""
    vectors = np.repeat(clustered(10, DIMENSION), 5, axis=0)
    oracle = ExactIndex(column(tmp_path, vectors))
    query = clustered(1, DIMENSION, seed=2)[0]
    scores = np.round(np.einsum("ij,j->i", vectors, query), 5)
    expected = sorted(range(50), key=lambda ordinal: (-scores[ordinal], ordinal))
    for count in (1, 7, 50):
        ordinals, found, exact = oracle.candidates(query, count, 50)
        assert list(ordinals) == expected[:count]
        assert exact
        assert np.allclose(found, scores[ordinals])


def test_recall_on_ten_thousand(tmp_path: Path) -> None:
    """At least 0.95 of the ten closest (measured 0.99 to 1.0), with a tail that is not in the graph."""
    vectors = clustered(10_000, DIMENSION)
    graph = snapshots(tmp_path).publish(column(tmp_path, vectors[:9_000]), 9_000)
    full = column(tmp_path, vectors)
    assert recall(HnswIndex(full, graph._graph, 9_000), ExactIndex(full), clustered(100, DIMENSION, 1), 10_000) >= 0.95


def test_snapshot_comes_back_the_same(tmp_path: Path) -> None:
    """Loaded, rebuilt from nothing, or grown from the one before: readers get what the writer published."""
    vectors = clustered(600, DIMENSION)
    whole = column(tmp_path, vectors)
    folder = snapshots(tmp_path)
    published = folder.publish(whole, 600)
    first = next(tmp_path.glob("*.hnsw")).read_bytes()
    loaded = snapshots(tmp_path).load(whole)
    assert loaded is not None
    assert loaded.entries == 600
    for query in clustered(20, DIMENSION, 1):
        assert np.array_equal(published.candidates(query, 5, 600)[0], loaded.candidates(query, 5, 600)[0])
    snapshots(tmp_path).publish(whole, 600)
    assert next(tmp_path.glob("*.hnsw")).read_bytes() == first
    half = folder.publish(column(tmp_path, vectors[:300]), 300)
    grown = folder.publish(whole, 600, half)
    assert grown.entries == 600
    assert recall(grown, ExactIndex(whole), clustered(50, DIMENSION, 1), 600) > 0.95
    assert len(list(tmp_path.glob("*.hnsw*"))) == 1
    assert folder.load(whole, newer_than=600) is None


def test_damaged_old_or_foreign_snapshots_are_not_used(tmp_path: Path) -> None:
    """Each is named, none is loaded (hnswlib would crash on some)."""
    whole = column(tmp_path, clustered(300, DIMENSION))
    snapshots(tmp_path).publish(whole, 300)
    manifest, graph = next(tmp_path.glob("*.json")), next(tmp_path.glob("*.hnsw"))
    good_manifest, good_graph = manifest.read_bytes(), graph.read_bytes()

    def refused(expected: str) -> None:
        folder = snapshots(tmp_path)
        assert folder.load(whole) is None
        assert expected in str(folder.damage[0])
        manifest.write_bytes(good_manifest)
        graph.write_bytes(good_graph)
        assert snapshots(tmp_path).load(whole) is not None

    for at in (0, 40, len(good_graph) // 2, len(good_graph) - 1):
        graph.write_bytes(good_graph[:at] + bytes([good_graph[at] ^ 1]) + good_graph[at + 1 :])
        refused("damaged index")
    graph.write_bytes(good_graph[:-1])
    refused("damaged index")
    manifest.write_bytes(good_manifest.replace(b'"entries": 300', b'"entries": 299'))
    refused("damaged manifest")
    manifest.write_bytes(good_manifest[:-9])
    refused("damaged manifest")
    manifest.write_bytes(b"[]")
    refused("damaged manifest")
    body = json.loads(good_manifest)
    for name, value in (("embedder", "other"), ("format", 2), ("m", 8), ("memory", "ff")):
        changed = {**body, name: value}
        changed.pop("checksum")
        changed["checksum"] = index_module.zlib.crc32(index_module._canonical(changed))
        manifest.write_text(json.dumps(changed))
        refused("another memory, embedder or setting")
    graph.unlink()
    assert snapshots(tmp_path).load(whole) is None
    assert snapshots(tmp_path, identity="other").load(whole) is None


def test_snapshot_of_other_records_is_not_used(tmp_path: Path) -> None:
    """A record of the log was damaged since, so the ordinals no longer mean the same."""
    vectors = clustered(300, DIMENSION)
    folder = snapshots(tmp_path)
    folder.publish(column(tmp_path, vectors), 300)
    other = VectorColumn(tmp_path / "o.vec", identity="test", dimension=DIMENSION, memory=bytes(16), writable=False)
    other.extend([(number, number) for number in range(301) if number != 7], lambda ordinals: vectors[list(ordinals)])
    assert folder.load(other) is None
    assert "no longer in the log" in str(folder.damage[0])


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hnswlib does not notice a full disk; we do, and the snapshot before stays."""
    whole = column(tmp_path, clustered(300, DIMENSION))
    folder = snapshots(tmp_path)
    folder.publish(column(tmp_path, clustered(300, DIMENSION)[:200]), 200)
    import hnswlib

    class Short(hnswlib.Index):  # type: ignore[misc]
        def save_index(self, path: str) -> None:
            super().save_index(path)
            Path(path).write_bytes(Path(path).read_bytes()[:-100])

    monkeypatch.setattr(hnswlib, "Index", Short)
    with pytest.raises(OSError, match="in full"):
        folder.publish(whole, 300)
    monkeypatch.undo()
    loaded = folder.load(whole)
    assert loaded is not None
    assert loaded.entries == 200
    assert not list(tmp_path.glob("*.tmp"))


def test_snapshot_replaced_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer removes the old graph after a reader has read the manifest: the reader looks again."""
    whole = column(tmp_path, clustered(300, DIMENSION))
    writer = snapshots(tmp_path)
    writer.publish(column(tmp_path, clustered(300, DIMENSION)[:200]), 200)
    real = index_module._file_checksum
    calls: list[Path] = []

    def checksum(path: Path) -> int:
        found = real(path)
        if not calls:
            calls.append(path)
            writer.publish(whole, 300)
        return found

    monkeypatch.setattr(index_module, "_file_checksum", checksum)
    folder = snapshots(tmp_path)
    loaded = folder.load(whole)
    assert loaded is not None
    assert loaded.entries == 300
    assert not folder.damage


def test_when_a_snapshot_is_due() -> None:
    """Never for small memories, then in steps that grow with it."""
    assert not publishing_is_due(EXACT_LIMIT, 0)
    assert publishing_is_due(EXACT_LIMIT + 1, 0)
    assert not publishing_is_due(EXACT_LIMIT + 2000, EXACT_LIMIT + 1)
    assert not publishing_is_due(105_000, 100_000)
    assert publishing_is_due(110_001, 100_000)
