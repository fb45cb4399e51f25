"""The measurement of scale runs the real code, goes on where it was, and computes what it says."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from relive import Memory

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def test_a_simulation_goes_on_where_it_was(scripts: Any, tmp_path: Path) -> None:
    simulation: Any = scripts("scale_simulation")
    simulation.QUERIES = 4
    simulation.simulate(tmp_path, 128, 64, 1)
    simulation.simulate(tmp_path, 256, 64, 2)
    rows = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [row["episodes"] for row in rows] == [64, 128, 192, 256]
    assert all(row["ms"][part] > 0 for row in rows for part in ("environment", "storing", "loop"))
    assert all(low <= high for row in rows for low, high in row["search_ms"].values())
    with Memory(tmp_path / "memory", "r") as memory:
        entries = memory.entries()
        assert len({entry.task.identity for entry in entries}) == 256
        assert {entry.task.suite for entry in entries} == {"scale-a", "scale-b"}
        assert 0.4 < sum(entry.success for entry in entries) / 256 < 0.8
        shown = [bool(episode.retrieved) for episode in memory.iterate()]
        assert any(shown[64:128])
        assert not all(shown[128:])
        held = memory.get(entries[-1].episode_id)
        assert len(held.steps) == 8


def test_a_plan_is_arithmetic(scripts: Any) -> None:
    bench: Any = scripts("bench_scale")
    one = {
        "environment_ms": 40.0, "storing_cpu_ms": 0.5, "acting_ms": 200.0,
        "training_ms": 150.0, "storing_one_ms": 3.0, "storing_64_ms": 0.6,
        "bytes": {"log": 3600, "vectors": 1560},
    }  # fmt: skip
    progress = [
        {
            "episodes": n, "ms_median": {"retrieval": n / 1000, "loop": 0.1},
            "resident_gb": 4e-6 * n, "bytes": {"index": 1600 * n},
        }
        for n in (250_000, 500_000, 750_000, 1_000_000)
    ]  # fmt: skip
    made = bench.plan({"parts": one, "tokens": {"written": 172.8}}, progress)
    million, most = made["rows"]
    assert (million["episodes"], million["measured_to"]) == (10**6, 10**6)
    assert (most["episodes"], most["measured_to"]) == (10**8, 10**6)
    assert made["retrieval_ms_per_stored_episode"] == pytest.approx(1e-3)
    assert million["retrieval_core_days_one_memory"] == pytest.approx(1e6 * 500 / 8.64e7, rel=0.01)
    assert million["acting_gpu_days_assumed"] == pytest.approx(1.0)
    assert million["terabytes"] == {"log": 0.0036, "vectors": 0.0016, "index": 0.0016}
    assert most["resident_gb_one_memory"] == pytest.approx(400, rel=0.01)
