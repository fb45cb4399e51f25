"""The study: its cells, a small run on the toy suite, and the recomputation of its tables."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from relive.agent.evaluation.records import Record, read
from relive.agent.events import Event, JobEnded
from relive.agent.runner import RunSettings
from relive.envs import get_suite
from relive.memory import Memory, Retrieval
from relive.training.examples import ContextRates
from relive.training.experiments.study.arms import Cell, cells
from relive.training.experiments.study.context import life_of, lives_as
from relive.training.experiments.study.methods import markdown as markdown_of_methods
from relive.training.experiments.study.methods import table
from relive.training.experiments.study.results import (
    compared,
    disagreements,
    markdown,
    publish,
    rows_of,
    summaries,
    wording,
)
from relive.training.experiments.study.run import Study
from relive.training.experiments.study.settings import MethodSettings, StudySettings
from relive.training.experiments.study.tasks import Tiers, demonstration_tasks, tasks_for
from relive.training.lora import LoraSettings


def settings(model: Path, **changes: object) -> StudySettings:
    plain = StudySettings(
        suite="toy",
        split="valid",
        seeds=1,
        demonstrations=8,
        per_tier=3,
        jobs=1,
        model=str(model),
        lora=LoraSettings(steps=2, batch_examples=2, rehearsal=0.5, bf16=False),
        robust=ContextRates(0.5, 0.25),
        retrieval=Retrieval(k=2, max_tokens=300),
        run=RunSettings(max_steps=2, batch=4),
        conditions=(
            "none/empty",
            "rag-lora-robust/matching/own",
            "rag-lora-robust/other",
            "lora/empty",
        ),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_every_required_cell_is_there_once() -> None:
    found = cells(seeds=3, control=True)
    assert len({c.name for c in found}) == len(found)
    by = Counter(
        (c.train, c.memory)
        for c in found
        if (c.k, c.query, c.source, c.base) == (2, "static", "expert", "base")
    )
    for train in ("none", "lora", "rag-lora", "rag-lora-robust"):
        for memory in ("matching", "other", "empty"):
            assert by[train, memory] == 3
    for train in ("none", "rag-lora-robust"):
        assert sum(c.train == train and c.k in (1, 4) for c in found) == 6
        assert sum(c.train == train and c.query == "dynamic" for c in found) == 1
    assert sum(c.source == "own" for c in found) == 3
    assert {c.train for c in found if c.base == "control"} == {"none", "lora"}
    assert not any(c.sealed for c in found)
    assert all(c.sealed for c in cells(3, True, sealed=True))
    assert {c.base for c in cells(1, False)} == {"base"}


def test_seeds_share_no_task_and_the_sealed_tier_is_apart() -> None:
    s = StudySettings(split="valid", per_tier=6)
    suite = get_suite("household")
    seen: set[str] = set()
    for seed in range(3):
        tasks = tasks_for(s, suite, seed)
        assert Counter(Tiers(s, suite).of(t.type) for t in tasks) == {
            "easy": 6,
            "binding": 6,
            "structure": 6,
        }
        assert not seen & {t.identity for t in tasks}
        seen |= {t.identity for t in tasks}
    assert {Tiers(s, suite).of(t.type) for t in tasks_for(s, suite, 0, sealed=True)} == {"composed"}
    with pytest.raises(ValueError, match="belongs to no tier"):
        Tiers(s, suite).of("dance")


def test_a_small_study_runs_resumes_and_is_recomputed(tiny_model: Path, tmp_path: Path) -> None:
    s = settings(tiny_model)
    done: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, JobEnded):
            done.append(event.name)

    study = Study(tmp_path / "run", s, note)
    records = study.run()
    assert len(records) == 4 * 6
    assert {r["condition"] for r in records} == {c.condition for c in study.cells()}
    assert len(done) == 2 + 1 + 4  # adapters, own memory, cells
    assert done.index("rag-lora-robust-base-s0") < done.index("own-rag-lora-robust-base-s0")
    # In the order in which they are named; what one needs is made right before it, and none waits
    # for all adapters.
    assert [name for name in done if "+" in name] == [Cell.of(c).name for c in s.conditions]
    assert done.index("lora-base-s0") == done.index("lora+empty+s0") - 1
    with Memory(tmp_path / "run" / "own-rag-lora-robust-base-s0", "r") as own:
        assert {e.policy for e in own.entries()} == {"local"}
        assert len(own) == s.demonstrations
    # What is done is not done again; what is lost is.
    done.clear()
    assert Study(tmp_path / "run", s, note).run() == records
    assert not done
    lost = tmp_path / "run" / "records" / f"{Cell('none', 'empty').name}.jsonl.gz"
    kept = read(lost)
    lost.unlink()
    Study(tmp_path / "run", s).run()
    assert read(lost) == kept
    # Trainings differ in what contexts show, and in nothing else.
    manifests = {
        name: json.loads(
            (tmp_path / "run" / "adapters" / f"{name}-base-s0" / "manifest.json").read_text()
        )
        for name in ("lora", "rag-lora-robust")
    }
    assert manifests["lora"]["tasks"] == manifests["rag-lora-robust"]["tasks"]
    assert manifests["lora"]["contexts"]["retrieved"] == 0
    assert manifests["lora"]["lora"]["rehearsal"] == 0
    assert manifests["rag-lora-robust"]["lora"]["rehearsal"] == 0.5
    with Memory(tmp_path / "run" / "memory-s0", "r") as memory:
        easy = {e.task.identity for e in memory.entries() if e.task.type == "fetch"}
        assert set(manifests["lora"]["tasks"]) == easy
        assert {e.task.split for e in memory.entries()} == {"train"}
    with pytest.raises(ValueError, match="other settings"):
        Study(tmp_path / "run", replace(s, per_tier=4))
    publish(tmp_path / "out", study, records)
    summary = json.loads((tmp_path / "out" / "study-toy-valid.json").read_text())
    published = tmp_path / "out" / "study-toy-valid" / "adapters"
    assert disagreements(summary, records, summary["weights_sha256"], published) == []
    for change in ({"success": not records[0]["success"]}, {"weights_sha256": "0" * 64}):
        assert disagreements(
            summary, [{**records[0], **change}, *records[1:]], summary["weights_sha256"], published
        )
    bundled = {**summary, "model": "bundled"}
    assert disagreements(bundled, records, "0" * 64, published)
    assert (
        tmp_path
        / "out"
        / "study-toy-valid"
        / "adapters"
        / "lora-base-s0"
        / "adapter_model.safetensors"
    ).exists()
    # Of an adapter that is too large to be published, the manifest holds the hash.
    for file in published.glob("*/adapter_model.safetensors"):
        file.unlink()
    assert disagreements(summary, records, summary["weights_sha256"], published) == []
    assert summary["rows"] == rows_of(read(tmp_path / "out" / "study-toy-valid-episodes.jsonl.gz"))


def test_tiers_by_setting_and_portions_that_no_two_seeds_share() -> None:
    s = StudySettings(
        suite="scienceworld", easy=("boil", "melt"), hard=("identify-life-stages-2",), per_tier=6,
        demonstrations=30,
    )  # fmt: skip
    suite = get_suite("scienceworld")
    assert Tiers(s, suite).of("melt") == "easy"
    assert Tiers(s, suite).all == ("boil", "melt", "identify-life-stages-2")
    with pytest.raises(ValueError, match="belongs to no tier"):
        Tiers(s, suite).of("find-plant")
    first, second = (
        {t.identity for t in demonstration_tasks(replace(s, demonstrations=9), suite, seed)}
        for seed in range(2)
    )
    assert len(first) == 9
    assert second
    assert not first & second
    # Four test tasks are all there are of the hard type, and six are asked for.
    assert Counter(t.type for t in tasks_for(s, suite, 0)) == {
        "boil": 3, "melt": 3, "identify-life-stages-2": 4,
    }  # fmt: skip
    with pytest.raises(ValueError, match="no hard tasks left for seed 1"):
        tasks_for(s, suite, 1)
    with pytest.raises(ValueError, match="Did you mean 'boil'"):
        Tiers(replace(s, easy=("boill",)), suite)
    with pytest.raises(ValueError, match="easy and hard"):
        replace(s, hard=())
    with pytest.raises(ValueError, match="no groups 'easy' and 'hard'"):
        Tiers(StudySettings(), get_suite("tales"))


def test_scores_are_compared_where_they_are_more_than_success() -> None:
    def scored(condition: str, score: float) -> list[Record]:
        measured = {"score": score, "best_score": score, "tokens": 5, "seconds": 1.0}
        named = {"model": "m", "suite": "s"}
        return [{**r, **measured, **named} for r in made_up(condition, "hard", [0] * 12)]

    records = [*scored("rag-lora/matching", 0.5), *scored("lora/empty", 0.25)]
    tests = {(t.get("measure"), t["tier"]): t for t in compared(records)}
    assert tests["score", "hard"]["difference"] == 0.25
    assert tests[None, "hard"]["difference"] == 0
    row = rows_of(records)[0]
    assert (row["model"], row["suite"], row["score"], row["tokens"]) == ("m", "s", 0.5, 5)
    assert summaries(records)[0]["best_score"] == 0.5
    # In a suite without rooms each task is a cluster of its own.
    alone = [{**r, "room": ""} for r in records]
    assert len(compared(alone)) == len(compared(records))


def made_up(condition: str, tier: str, wins: list[int], seed: int = 0) -> list[Record]:
    train, memory = condition.split("/")[:2]
    return [
        {
            "train": train, "memory": memory, "k": 2, "query": "static", "source": "expert",
            "base": "base", "seed": seed, "condition": condition, "tier": tier, "rooms": "test",
            "task": f"{tier}{seed}{i}", "task_type": tier, "room": f"room {i % 4}",
            "goal": "put a hot egg in shelf" if i % 2 else "heat some egg and put it in shelf",
            "retrieved": [["x", tier], ["y", "else"]] if memory != "empty" else [],
            "actions": ["look"] * 4, "success": bool(won), "invalid": 1, "memory_tokens": 10,
            "adapter": "",
        }
        for i, won in enumerate(wins)
    ]  # fmt: skip


def test_rows_tests_and_text_follow_from_records() -> None:
    records = [
        *made_up("rag-lora/matching", "binding", [1] * 20),
        *made_up("rag-lora/matching", "structure", [1] * 10 + [0] * 10),
        *made_up("lora/empty", "binding", [0] * 20),
        *made_up("lora/empty", "structure", [0] * 20),
    ]
    rows = {(r["train"], r["tier"]): r for r in rows_of(records)}
    assert rows["rag-lora", "structure"]["success"] == 0.5
    assert rows["rag-lora", "binding"]["right_type_share"] == 0.5
    assert rows["lora", "binding"]["right_type_share"] is None
    assert rows["lora", "binding"]["invalid_share"] == 0.25
    hard = next(
        r
        for r in summaries(records)
        if (r["condition"], r["tier"]) == ("rag-lora/matching", "hard")
    )
    assert (hard["success"], hard["n"]) == (0.75, 40)
    tests = {(t["a"], t["b"], t["tier"]): t for t in compared(records)}
    assert tests["rag-lora/matching", "lora/empty", "hard"]["difference"] == 0.75
    assert tests["rag-lora/matching", "lora/empty", "binding"]["low"] == 1.0
    assert all(0 < t["p"] <= 1 for t in tests.values())
    text = markdown(records)
    assert "| rag-lora/matching | 100.0 (84–100)" in text  # twenty of twenty are not all there are
    assert "+75.0" in text


def test_differences_say_how_far_other_trainings_would_be() -> None:
    some = [1, 0, 1, 1, 0] * 4
    spans = []
    for won in ([some] * 3, [[1] * 20, some, [1] * 4 + [0] * 16]):
        records = [
            r
            for seed in range(3)
            for r in (
                *made_up("rag-lora/matching", "binding", won[seed], seed),
                *made_up("lora/empty", "binding", [0] * 20, seed),
            )
        ]
        (test,) = (t for t in compared(records) if t["tier"] == "binding")
        assert test["difference"] == 0.6
        spans.append(test["crossed"][1] - test["crossed"][0])
    assert spans[1] > 2 * spans[0]


def test_cells_of_a_study_that_asks_again_can_be_dynamic(tiny_model: Path, tmp_path: Path) -> None:
    asked = Retrieval(refresh_after=2, fields=("goal", "window"), max_tokens=300)
    s = settings(tiny_model, retrieval=asked, first_seed=1, conditions=("none/matching/dynamic",))
    study = Study(tmp_path / "run", s)
    assert [c.name for c in study.cells()] == ["none+matching+dynamic+s1"]
    records = study.run()
    assert {r["seed"] for r in records} == {1}
    took = study.directory.read("seconds.json")["none+matching+dynamic+s1"]
    assert sum(r["seconds"] for r in records) == pytest.approx(took, rel=0.05)


def test_all_cells_of_a_training_read_one_life() -> None:
    usual = Cell.of("rag-lora-robust/matching/own", seed=2)
    for condition in ("rag-lora-robust/matching/k4/own", "rag-lora-robust/matching/dynamic/own"):
        cell = Cell.of(condition, seed=2)
        assert life_of(cell) == life_of(usual)
        assert lives_as(cell) == usual


def test_seeds_are_paired_only_with_themselves() -> None:
    first = made_up("rag-lora/matching", "binding", [1] * 8, seed=0)
    other = made_up("lora/empty", "binding", [0] * 8, seed=1)
    assert compared([*first, *other]) == []


def test_wordings() -> None:
    assert wording("heat some egg and put it in shelf") == "verb"
    assert wording("put a hot egg in shelf") == "property"
    assert wording("put two egg in shelf") == "other"


@pytest.mark.parametrize(
    "condition",
    [
        "none/empty", "rag-lora/matching/k4", "rag-lora-robust/matching/full/tokens400",
        "lora/matching/dynamic/own/control", "none/other/k1/vote", "council/matching/random",
    ],
)  # fmt: skip
def test_a_condition_names_its_cell(condition: str) -> None:
    assert Cell.of(condition, 2).condition == condition
    assert Cell.of(condition, 2).seed == 2


@pytest.mark.parametrize(
    "wrong", ["", "none", "none/", "dance/empty", "none/empty/k0", "none/matching/k2",
              "none/matching/vote/k1", "none/matching/loud", "none/empty/k1",
              "council/matching/vote", "routed/empty/vote", "copier/matching/vote"],
)  # fmt: skip
def test_what_is_no_condition_is_said(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no condition"):
        Cell.of(wrong)


def test_methods_are_compared_in_one_table(tiny_model: Path, tmp_path: Path) -> None:
    methods = (
        MethodSettings("council", "lora/empty", ("council/empty", "council-vote/empty")),
        MethodSettings("fading", "lora/empty", ("rag-lora-fade/empty",)),
        MethodSettings("routed", "lora/empty", ("routed/empty",)),
        MethodSettings("votes", "none/matching/k3", ("none/matching/k3/vote",)),
    )
    s = replace(settings(tiny_model, conditions=(), methods=methods), per_tier=2)
    study = Study(tmp_path / "run", s)
    records = study.run()
    assert {r["condition"] for r in records} == {c for m in methods for c in m.conditions}
    adapters = {folder.name for folder in (tmp_path / "run" / "adapters").iterdir()}
    assert adapters == {
        "lora-base-s0", "rag-lora-fade-base-s0", "rag-lora-robust-base-s0", "council-fetch-base-s0",
    }  # fmt: skip
    played = {
        c: [(r["task"], r["actions"]) for r in records if r["condition"] == c]
        for c in ("lora/empty", "routed/empty")
    }
    assert played["routed/empty"] == played["lora/empty"]  # nothing is shown
    council = [r for r in records if r["train"] == "council"]
    assert all(r["members"] == ["council-fetch-base-s0"] for r in council)
    assert all(0 < r["agreement"] <= 1 for r in council)
    agreed = next(r for r in table(methods, records)["rows"] if r["condition"] == "council/empty")
    assert agreed["n_always_agreed"] + agreed["n_not_always"] == agreed["n"]
    told = [
        {**r, "agreement": share, "success": won}
        for r, share, won in zip(council, (1.0, 1.0, 0.5), (1, 0, 1), strict=False)
    ]
    told = [{**r, "tier": "easy", "condition": "council/empty"} for r in told]
    row = table(methods[:1], told)["rows"][0]
    assert (row["n_always_agreed"], row["success_always_agreed"]) == (2, 0.5)
    assert (row["n_not_always"], row["success_not_always"]) == (1, 1.0)
    made = table(methods, records)
    assert {row["variant"] for row in made["rows"] if row["method"] == "votes"} == {
        "baseline", "none/matching/k3/vote",
    }  # fmt: skip
    assert made["tests"] == []  # of one room, nothing can be said
    rooms = [{**r, "room": r["task"]} for r in records]
    tests = {(t["a"], t["b"], t["tier"]) for t in table(methods, rooms)["tests"]}
    assert len(tests) == 2 * 5
    assert ("council/empty", "lora/empty", "hard") in tests
    assert "| council | council-vote/empty | empty |" in markdown_of_methods(methods, records)
    name = publish(tmp_path / "out", study, records)
    summary = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    where = tmp_path / "out" / name / "adapters"
    assert not list(where.rglob("*.safetensors"))  # manifests alone: there are many
    assert disagreements(summary, records, summary["weights_sha256"], where) == []
    council[0]["weights_sha256"] = "other"
    assert disagreements(summary, records, summary["weights_sha256"], where)
    for wrong in (("a", "lora/empty", ("lora/empty",)), ("a", "dance/empty", ())):
        with pytest.raises(ValueError, match=r"twice|no condition"):
            MethodSettings(*wrong)
