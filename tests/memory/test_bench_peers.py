"""The peer comparison: its arithmetic, and that every engine that is installed gives the right
answers."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from relive.memory.storage import codec

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_peers.py"
ENGINES = ["relive", "chromadb", "lancedb", "qdrant-local", "mem0"]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("bench_peers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_job_is_the_same_every_time_and_as_announced(bench: ModuleType) -> None:
    entries, queries = bench.make_job(1000)
    again, same = bench.make_job(1000)
    assert np.array_equal(queries, same)
    assert [e.episode for e in entries] == [e.episode for e in again]
    assert np.array_equal(entries[7].vector, again[7].vector)
    assert np.allclose(np.linalg.norm([e.vector for e in entries], axis=1), 1.0, atol=1e-6)
    assert len({e.episode.task.goal for e in entries}) == 1000
    sizes = [len(codec.encode_episode(e.episode)) for e in entries]
    assert 900 < np.mean(sizes) < 1300
    kept = {name: bench.keeps(wanted, entries).mean() for name, wanted in bench.FILTERS.items()}
    assert kept[""] == pytest.approx(0.5, abs=0.05)
    assert kept["rare_"] == pytest.approx(0.05, abs=0.02)


def test_recall_counts_what_is_kept_and_close_enough_once(bench: ModuleType) -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.7, 0.6], dtype=np.float32)
    kept = np.array([True, True, True, True, False])
    assert bench.recall(["e0", "e1"], scores, kept, 2) == 1.0
    assert bench.recall(["e0", "e2"], scores, kept, 2) == 1.0  # as close as e1
    assert bench.recall(["e0", "e0"], scores, kept, 2) == 0.5
    assert bench.recall(["e3", "e4"], scores, kept, 2) == 0.0
    assert (
        bench.recall(["e0", "e1", "e2", "e3", "e4"], scores, kept, 9) == 1.0
    )  # e4 was filtered out: no credit
    assert bench.recall([], scores, kept, 2) == 0.0
    assert bench.recall([], scores, np.zeros(5, dtype=bool), 2) == 1.0


def measured(**changed: float) -> dict[str, Any]:
    """What a round measures."""
    numbers = {
        "add_seconds": 1.0,
        "search_ms": 2.0,
        "search_rare_ms": 4.0,
        "open_ms": 8.0,
        "recall_at_10": 1.0,
    }
    return {**numbers, "tuned": "", **changed}


def test_medians_over_rounds_but_the_worst_recall(bench: ModuleType) -> None:
    rounds = [
        measured(add_seconds=s, recall_at_10=r) for s, r in ((1.0, 1.0), (9.0, 0.9), (2.0, 1.0))
    ]
    merged = bench.medians(rounds)
    assert merged["add_seconds"] == 2.0
    assert merged["recall_at_10"] == 0.9


def test_ratios_say_how_much_longer_the_peer_takes(bench: ModuleType) -> None:
    row = bench.row(
        "lancedb",
        "1",
        10,
        measured(add_seconds=3.0, search_ms=20.0, search_rare_ms=8.0),
        measured(),
    )
    assert (row["add_ratio"], row["search_ratio"], row["open_ratio"]) == (3.0, 2.0, 1.0)
    wanted = (
        "name version entries add_ratio search_ratio open_ratio recall_at_10 add_seconds "
        "search_ms open_ms durability"
    )
    assert set(wanted.split()) <= set(row)
    own = bench.row("relive", "1", 10, measured(), measured())
    assert (own["add_ratio"], own["search_ratio"], own["open_ratio"]) == (1.0, 1.0, 1.0)
    bench.show([own, row, {"name": "mem0", "absent": "no module [mem0]"}])


def test_absent_peers_have_a_reason_and_the_others_are_compared(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entries, queries = bench.make_job(100)
    scores, kept = (
        queries @ np.stack([e.vector for e in entries]).T,
        bench.keeps(bench.HALF, entries),
    )
    calls = []

    def process(
        python: str, what: str, name: str, folder: str, count: int = 0, asked: int = 0
    ) -> dict[str, Any]:
        calls.append((what, name))
        if name == "mem0":
            raise RuntimeError("No module named 'mem0'")
        if what == "version":
            return {"version": "1"}
        if what == "fill":
            return measured(add_seconds=5.0 if name == "lancedb" else 1.0)
        best = sorted(np.flatnonzero(kept), key=lambda number: -scores[asked, number])[:10]
        found = [f"e{number}" for number in (best if name != "chromadb" else best[:5])]
        return {"open_ms": 1.0, "cpu_open_ms": 1.0, "found": found}

    monkeypatch.setattr(bench, "process", process)
    rows = bench.peers(100, tmp_path, rounds=2)
    assert [row["name"] for row in rows] == ENGINES
    by_name = {row["name"]: row for row in rows}
    assert by_name["relive"]["add_ratio"] == 1.0
    assert by_name["lancedb"]["add_ratio"] == 5.0
    assert "No module named 'mem0'" in by_name["mem0"]["absent"]
    assert "wrong" in by_name["chromadb"]["absent"]
    filled = [name for what, name in calls if what == "fill"]
    assert filled == [
        "relive",
        "chromadb",
        "lancedb",
        "qdrant-local",
        "lancedb",
        "qdrant-local",
        "relive",
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_finds_the_right_ones_also_after_it_was_opened_again(
    bench: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEM0_TELEMETRY", "False")
    monkeypatch.setenv("MEM0_DIR", str(tmp_path / "mem0-home"))
    entries, queries = bench.make_job(150)
    engine = bench.ENGINES[name]()
    try:
        engine.load()
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")
    scores = queries @ np.stack([e.vector for e in entries]).T
    folder = tmp_path / name
    folder.mkdir()
    engine.open(folder)
    for start in range(0, 150, bench.BATCH):
        engine.add(entries[start : start + bench.BATCH])
    engine.finish()
    for again in (False, True):
        if again:
            engine.close()
            engine = bench.ENGINES[name]()
            engine.load()
            engine.open(folder)
        for wanted in bench.FILTERS.values():
            kept = bench.keeps(wanted, entries)
            found = [engine.search(query, 10, wanted) for query in queries[:5]]
            assert (
                np.mean([bench.recall(ids, scores[i], kept) for i, ids in enumerate(found)]) >= 0.97
            )
            assert all(kept[int(entry[1:])] for ids in found for entry in ids)
    engine.close()
