"""The bundled model: it is what the documents say it is, and it reads its memory."""

import json
import re
import sys
from pathlib import Path

import pytest

from relive.agent.llm.weights import BUNDLED, hash_weights
from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.policy import ExpertPolicy
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import Runner, RunSettings, play_all, spec_of
from relive.envs import get_suite
from relive.memory import Memory, Purpose, Retrieval

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = hash_weights(BUNDLED)


def test_the_shipped_folder_is_small_and_complete() -> None:
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) < 20_000_000
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "training.json",
        "README.md",
    ):
        assert (BUNDLED / name).is_file()


def test_documents_cite_the_shipped_weights_and_no_others() -> None:
    cited = 0
    for file in [ROOT / "README.md", BUNDLED / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for found in re.findall(r"weights `([0-9a-f]{12,64})`", file.read_text()):
            assert SHIPPED.startswith(found), f"{file.name} cites other weights"
            cited += 1
    assert cited >= 2
    assert (
        json.loads((ROOT / "docs" / "results" / "base-model.json").read_text())["weights_sha256"]
        == SHIPPED
    )


def test_committed_results_follow_from_their_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import check_results

    try:
        summary, records = check_results.load()
        assert len(records) >= 60 * 6 * 3
        assert check_results.disagreements(summary, records) == []
        records[0]["success"] = not records[0]["success"]
        assert check_results.disagreements(summary, records)
    finally:
        for name in ("check_results", "eval_base_model"):
            sys.modules.pop(name, None)


def test_memory_helps_on_procedures_it_was_never_taught(tmp_path: Path) -> None:
    """Heating and cooling in valid rooms: with matching demonstrations against none, the same
    tasks."""
    suite = get_suite("household")
    expert = ExpertPolicy(suite)
    made = load_model(PolicySettings())
    kinds = ("pick_heat_then_place_in_recep", "pick_cool_then_place_in_recep")
    tasks = suite.tasks("valid", 12, kinds)
    with Memory(tmp_path / "m") as memory:
        memory.add_many(play_all(Runner(suite, expert), suite.tasks("train", 24)))
        retriever = MemoryRetriever(
            memory, spec_of(suite), made.count_tokens, Retrieval(), Purpose.EVALUATE
        )
        assert len(retriever(tasks[0]).demonstrations) == 2
        settings = RunSettings(max_steps=35)
        shown = play_all(Runner(suite, made, settings, retriever), tasks)
    alone = play_all(Runner(suite, made, settings), tasks)
    assert {e.actor.weights for e in shown} == {SHIPPED}
    assert sum(e.success for e in shown) >= sum(e.success for e in alone) + 3
