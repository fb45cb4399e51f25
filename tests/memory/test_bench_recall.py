"""The recall benchmark on a few hundred entries: what it deletes, what it counts, and that it goes
on where it was killed."""

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from relive.memory import Hit, Memory

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
COUNT, ASKED = 300, 5


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return import_module("bench_recall")


@pytest.mark.parametrize("name", ["clustered", "uniform", "identical"])
def test_vectors_are_unit_length_and_the_same_every_time(bench: ModuleType, name: str) -> None:
    vectors = bench.DISTRIBUTIONS[name](400, 16, 3)
    assert vectors.shape == (400, 16)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert np.array_equal(vectors, bench.DISTRIBUTIONS[name](400, 16, 3))
    distinct = len(np.unique(vectors, axis=0))
    assert distinct <= 20 if name == "identical" else distinct == 400


def test_a_share_goes_at_random_or_around_the_queries(bench: ModuleType, tmp_path: Path) -> None:
    job = bench.Job("clustered", 16, COUNT, ASKED)
    closest = job.scores()[:, :COUNT].max(axis=0)
    alive = {}
    for how in ("random", "close"):
        bench.build(tmp_path / how, job)
        with Memory(tmp_path / how, "w", embedder=job.embedder()) as memory:
            alive[how] = bench.delete(memory, COUNT, 0.5, how)
            left = {f"e{i}" for i in np.flatnonzero(alive[how])}
            assert {entry.episode_id for entry in memory.entries()} == left
        assert np.count_nonzero(alive[how]) == COUNT // 2
    assert closest[~alive["close"]].min() >= closest[alive["close"]].max()
    assert closest[~alive["random"]].min() < closest[alive["random"]].max()


def test_hits_that_are_wrong_or_missing_are_counted(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.Job("uniform", 16, COUNT, ASKED)
    bench.build(tmp_path / "built", job)
    alive = np.arange(job.stored) < COUNT
    real = bench.search

    def without_the_best(memory: Memory, text: str) -> list[Hit]:
        return list(real(memory, text)[1:])

    with Memory(tmp_path / "built", "r", embedder=job.embedder()) as memory:
        row = bench.ask(memory, job, job.scores(), alive)
        assert (row["recall_at_10"], row["top1"]) == (1.0, 1.0)
        # Had the entries that are found been deleted, all would be wrong, however close.
        row = bench.ask(memory, job, job.scores(), ~alive)
        assert (row["recall_at_10"], row["top1"]) == (0.0, 0.0)
        monkeypatch.setattr(bench, "search", without_the_best)
        row = bench.ask(memory, job, job.scores(), alive)
        assert (row["recall_at_10"], row["top1"]) == (pytest.approx(0.9), 0.0)
        monkeypatch.setattr(bench, "search", lambda memory, text: [])
        row = bench.ask(memory, job, job.scores(), alive)
        assert (row["recall_at_10"], row["top1"], row["approximate_share"]) == (0.0, 0.0, 0.0)


def test_a_run_prints_goes_on_where_it_was_killed_and_writes(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, result = tmp_path / "recall.jsonl", tmp_path / "memory.json"
    out.write_text('{"settings": {"entr')  # killed while it wrote
    result.write_text(json.dumps({"entries": 7, "recall_by_dimension": [{"dimension": 1}]}))
    words = (
        f"bench_recall.py --entries {COUNT} --queries {ASKED} --out {out} --write {result} "
        "--dimensions 8"
    )
    monkeypatch.setattr("sys.argv", words.split())
    bench.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["recall_by_dimension"]
    assert [(row["deleted_share"], row["deleted"], row["compacted"]) for row in rows] == [
        (0.0, "none", False),
        *(
            (share, how, compacted)
            for share in (0.5, 0.95)
            for how in ("random", "close")
            for compacted in (False, True)
        ),
    ]
    for row in rows:
        assert (row["dimension"], row["distribution"], row["entries"]) == (8, "clustered", COUNT)
        assert min(row["recall_at_10"], row["writer_recall_at_10"]) >= 0.97, row
        assert row["graph_rows"] <= COUNT, (
            "the rows that were added last should be in no published graph"
        )
    assert json.loads(result.read_text()) == {"entries": 7, "recall_by_dimension": rows}

    measured = []

    def measure(job: object, *_: object) -> list[dict[str, object]]:
        measured.append(job.dimension)  # type: ignore[attr-defined]
        return []

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr("sys.argv", [*words.split(), "16"])
    bench.main()
    assert measured == [16]  # 8 was finished
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["recall_by_dimension"] == rows
