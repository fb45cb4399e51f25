"""The retrieval study measures what it says: ties, diversity, what is never stored, what is asked
when."""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.envs.household import assets
from relive.envs.household.expert import parse_goal
from relive.envs.household.rooms import TASK_TYPES
from relive.memory import HashedEmbedder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import retrieval_study

    yield retrieval_study
    for name in ("retrieval_study", "retrieval_search"):
        sys.modules.pop(name, None)


def angles(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Texts are angles in degrees."""
    turns = np.radians([float(text) for text in texts])
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)


def test_equally_close_entries_rank_the_same_however_they_were_stored(study: Any) -> None:
    entries = [study.Entry(f"task {i}", f"{i}", ["30" if i % 2 else "60"]) for i in range(40)]
    query = angles(["20"])[0]
    seen = set()
    for seed in range(5):
        mixed = random.Random(seed).sample(entries, len(entries))
        store = study.Stored(mixed, angles)
        seen.add(tuple(hit.type for hit in store.closest(query, 4)))
        assert len(store.closest(query, 100)) == 40
    (best,) = seen
    assert all(int(number) % 2 for number in best)
    assert best != ("1", "3", "5", "7")


def test_an_entry_counts_by_its_closest_text(study: Any) -> None:
    store = study.Stored(
        [study.Entry("a", "a", ["10", "80"]), study.Entry("b", "b", ["60", "50"])], angles
    )
    assert [hit.type for hit in store.closest(angles(["75"])[0], 2)] == ["a", "b"]
    assert [hit.type for hit in store.closest(angles(["55"])[0], 1)] == ["b"]
    assert [hit.type for hit in store.diverse(angles(["75"])[0], 2, 1.0, 9)] == ["a", "b"]


def test_mmr_prefers_what_differs_from_what_was_chosen(study: Any) -> None:
    entries = [study.Entry(text, text, [text]) for text in ("10", "11", "12", "-30", "90")]
    query = angles(["5"])[0]
    store = study.Stored(entries, angles)
    assert [hit.type for hit in store.closest(query, 3)] == ["10", "11", "12"]
    assert [hit.type for hit in store.diverse(query, 3, 1.0, 9)] == ["10", "11", "12"]
    assert [hit.type for hit in store.diverse(query, 2, 0.5, 9)] == ["10", "-30"]
    assert [hit.type for hit in store.diverse(query, 2, 0.5, 2)] == [
        "10",
        "11",
    ]  # nothing else is in the pool


def test_mmr_takes_a_text_once_however_often_it_is_stored(study: Any) -> None:
    entries = [study.Entry(f"{i}", "same", ["10"]) for i in range(9)] + [
        study.Entry("x", "other", ["20"])
    ]
    store = study.Stored(entries, angles)
    assert [hit.type for hit in store.diverse(angles(["9"])[0], 4, 0.5, 5)] == ["same", "other"]


def test_every_goal_has_a_wording_and_tasks_come_in_turn(study: Any) -> None:
    tasks = study.take("valid", 36)
    assert [task.type for task in tasks[:6]] == list(TASK_TYPES)
    assert {study.wording(task) for task in tasks} == {0, 1}
    for form, start in ((0, "put a hot "), (1, "heat some ")):
        heated = [t for t in study.take("valid", 36, study.worded(form)) if "heat" in t.type]
        assert heated
        assert all(task.goal.startswith(start) for task in heated)


def test_what_is_held_out_is_nowhere_in_what_is_stored(study: Any) -> None:
    kinds = {kind for held in assets.holds().values() for kind in held}
    held = {
        kind.lower()
        for kind in kinds - assets.affordances()["Toggleable"]
        if study.is_held_out(kind)
    }
    assert len(kinds) // 5 < len(held) < len(kinds) // 2
    for task in study.take("train", 12, study.lacks({"object"})):
        played = study.play(task, study.without_held_out)
        words = (
            " ".join([task.goal, *(f"{action} {seen}" for action, seen in played.steps)])
            .replace(".", " ")
            .split()
        )
        assert not held & set(words)
    for task in study.take("valid", 12, study.has({"object"})):
        assert parse_goal(task.goal).target in held


def test_queries_know_nothing_of_what_comes_after_them(study: Any) -> None:
    played = study.play(study.take("valid", 2)[1])
    actions = [action for action, _ in played.steps]
    assert study.query_text("goal", played, 0) == played.task.goal
    assert study.query_text("first", played, 0) == played.initial_observation
    assert study.query_text("trajectory", played, 0) == f"Your task is to: {played.task.goal}."
    half = study.query_text("trajectory", played, 0.5)
    assert half.count("Action:") == round(len(actions) / 2)
    assert study.query_text("trajectory", played, 1.0) == study.field_texts("trajectory", played)[0]
    assert study.query_text("windows", played, 1.0).count("Action:") == min(
        study.WINDOW, len(actions)
    )
    windows = study.field_texts("windows", played)
    assert "".join(windows).count("Action:") == len(actions)
    assert len(study.field_texts("condensed", played)[0]) <= len(
        study.field_texts("trajectory", played)[0]
    )


def test_shares_and_intervals(study: Any) -> None:
    right = np.array([[True, False], [True, True], [False, False], [False, True]])
    one, two = study.summary(right, 1), study.summary(right, 2)
    assert (one["right_share"], one["any_right"], one["n"]) == (0.5, 0.5, 4)
    assert (two["right_share"], two["any_right"]) == (0.5, 0.75)
    assert two["any_95"][0] < 0.75 < two["any_95"][1]


def test_rows_say_what_was_measured(study: Any) -> None:
    parts = (
        study.Part(study.named(study.take("train", 60)), study.named(study.take("valid", 24))),
    )
    rows = study.rows_of(parts, "goal", 0, 60, study.Remembered(HashedEmbedder()))
    assert {(row["wording"], row["mmr"], row["k"]) for row in rows} == {
        *((name, False, k) for name in ("all", "property", "verb") for k in (1, 2, 4)),
        *(("all", True, k) for k in (2, 4)),
    }
    whole = next(row for row in rows if row["wording"] == "all" and row["k"] == 1)
    treated = [row["n"] for row in rows if row["wording"] != "all" and row["k"] == 1]
    assert whole["n"] == 24
    assert sum(treated) == 12
    assert np.mean(whole["by_type"]) == pytest.approx(whole["right_share"], abs=1e-3)
    assert json.loads(study.as_json({"a": 1}, rows))["rows"] == rows


def test_vectors_are_made_once_and_kept(study: Any, tmp_path: Path) -> None:
    class Counting(HashedEmbedder):
        made = 0

        def encode(self, texts: Sequence[str]) -> Any:
            Counting.made += len(texts)
            return super().encode(texts)

    first = study.Remembered(Counting(), tmp_path, chunk=2)(["a", "b", "a", "c"])
    assert Counting.made == 3
    again = study.Remembered(Counting(), tmp_path, chunk=2)
    assert np.array_equal(again(["a", "b", "a", "c"]), first)
    assert np.array_equal(again(["d"])[0], HashedEmbedder().encode(["d"])[0])
    assert Counting.made == 4


def test_a_missing_package_is_no_error(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert study.minilm() is None
