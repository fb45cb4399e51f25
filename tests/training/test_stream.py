"""Continual learning on the household: arms, orders, kills, and tables that follow from the
records."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.agent.cli import main
from relive.agent.evaluation.records import REPLAYED, record
from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.runner import Runner, RunSettings, play_all, spec_of
from relive.agent.settings import build
from relive.envs import get_suite
from relive.memory import Memory, Retrieval
from relive.training import tune as tune_module
from relive.training.examples import Example
from relive.training.experiments.stream import run as stream_module
from relive.training.experiments.stream.continual import measures
from relive.training.experiments.stream.pictures import picture
from relive.training.experiments.stream.plan import (
    StageSettings,
    StreamSettings,
    held_out_tasks,
    order_of,
    training_tasks,
)
from relive.training.experiments.stream.publish import disagreements, markdown, publish
from relive.training.experiments.stream.results import (
    curves,
    lives_of,
    recomputed,
    rows_of,
    summaries,
)
from relive.training.experiments.stream.run import RunKey, Stream
from relive.training.lora import LoraSettings, train_adapter


def settings(**changes: Any) -> StreamSettings:
    """Two short stages of the household, one process."""
    small = StreamSettings(
        stages=(
            StageSettings("put", types=("pick_and_place_simple",), tasks=4),
            StageSettings("light", types=("look_at_obj_in_light",), tasks=4),
        ),
        split="valid",
        held_out=3,
        arms=("none", "memory", "both", "bounded-age"),
        orders=1,
        seeds=1,
        jobs=1,
        lora=LoraSettings(steps=2, batch_examples=2, rehearsal=0.0),
        run=RunSettings(max_steps=20, give_up_after=5),  # nothing here depends on late successes
    )
    return replace(small, **changes)


def test_stages_are_lived_through_measured_and_bounded(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "s", settings())
    records = stream.run()
    assert {r["arm"] for r in records} == {"none", "memory", "both", "bounded-age"}
    assert all(row["n"] == 3 for row in rows_of(records))
    assert len(rows_of(records)) == 4 * 2 * 2
    both, bounded = stream.states(RunKey("both")), stream.states(RunKey("bounded-age"))
    assert [(state.name, state.memory_size, state.adapter) for state in both] == [
        ("put", 4, "stage-0"),
        ("light", 8, "stage-1"),
    ]
    assert both[1].tokens > both[0].tokens > 0
    assert (bounded[1].memory_size, bounded[1].stored) == (
        4,
        4,
    )  # two successes of each type are spared
    assert all(state.seconds > 0 for state in both)
    with Memory(tmp_path / "s" / "lives" / "both-o0-s0" / "memory", "r") as memory:
        assert len(memory.entries(at=both[0].position)) == 4
    assert stream.run() == records
    with pytest.raises(
        ValueError, match=r"other settings \(stream.held_out: 3 there, 2 now\): use another"
    ):
        Stream(tmp_path / "s", settings(held_out=2))
    longer = (*settings().stages, StageSettings("clean", tasks=4))
    with pytest.raises(ValueError, match=r"stream.stages\[2\].name: nothing there, \"clean\" now"):
        Stream(tmp_path / "s", settings(stages=longer))


@pytest.mark.parametrize("setting", [("length_penalty", 0.5), ("min_score", 0.99)])
def test_a_stage_can_be_restored(tmp_path: Path, setting: tuple[str, float]) -> None:
    """Its log position and its adapter are all that an evaluation needs to do the same again, after
    later stages too."""
    stream = Stream(
        tmp_path / "s",
        settings(arms=("both",), retrieval=replace(Retrieval(), **{setting[0]: setting[1]})),
    )
    records = stream.run()
    life, done = tmp_path / "s" / "lives" / "both-o0-s0", []
    for state in stream.states(RunKey("both")):
        out, adapter = tmp_path / state.name, life / "adapters" / state.adapter
        memory = ["--memory", str(life / "memory"), "--at", str(state.read)]
        memory += [f"--{setting[0].replace('_', '-')}", str(setting[1])]
        tasks = ["--split", "valid", "--types", "pick_and_place_simple", "--tasks", "3"]
        assert main(["eval", *memory, *tasks, "--adapter", str(adapter), "--out", str(out)]) == 0
        with (
            Memory(out / "episodes", "r") as played,
            Memory(life / "memory", "r") as lived,
        ):
            again = {e.task.identity: record(e, {}, lived) for e in played.iterate()}
        cell = {
            r["task"]: r for r in records if (r["stage"], r["evaluated"]) == (state.stage, "put")
        }
        done.append({task: {name: r[name] for name in REPLAYED} for task, r in again.items()})
        assert done[-1] == {task: {name: r[name] for name in REPLAYED} for task, r in cell.items()}
    assert done[0] != done[1]  # a state is told from another


def test_killed_anywhere_it_comes_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after everything that writes, each kill in the run that the one before it left
    behind; adapters bit for bit."""
    small = settings(arms=("bounded-usefulness",), experience="own", temperature=1.0)
    small = replace(small, lora=replace(small.lora, bf16=False))
    whole = Stream(tmp_path / "whole", small).run()
    writes: list[tuple[Any, str]] = [
        (Memory, "add_many"), (Memory, "evict"),
        (tune_module, "train_adapter"), (stream_module, "measure"),
    ]  # fmt: skip
    for owner, name in writes:
        for after in (False, True):
            act = getattr(owner, name)

            def stop(*arguments: Any, act: Any = act, after: bool = after, **named: Any) -> None:
                if after:
                    act(*arguments, **named)
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(owner, name, stop)
                with pytest.raises(KeyboardInterrupt):
                    Stream(tmp_path / "killed", small).run()
    killed = Stream(tmp_path / "killed", small).run()
    # Wall time is the one thing that is not the same again.
    assert [r | {"seconds": 0.0} for r in killed] == [r | {"seconds": 0.0} for r in whole]
    assert (
        len({r["weights_sha256"] for r in whole}) == 2
    )  # an adapter for each stage, and they are compared


def test_orders_differ_and_begin_differently() -> None:
    stages = tuple(StageSettings(str(i), types=("pick_and_place_simple",)) for i in range(4))
    some = settings(stages=stages, orders=24)
    orders = [tuple(order_of(some, number)) for number in range(24)]
    assert orders[0] == (0, 1, 2, 3)
    assert len(set(orders)) == 24
    assert sorted(order[0] for order in orders[:4]) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="2 stages cannot be put into 3 different orders"):
        settings(orders=3)


def test_no_task_belongs_to_two_stages_or_seeds() -> None:
    """Also where what one stage is drawn from is part of what another is drawn from."""
    easy, both = ("pick_and_place_simple",), ("pick_and_place_simple", "look_at_obj_in_light")
    stages = (
        StageSettings("easy", types=easy, tasks=5),
        StageSettings("all", types=both, tasks=6),
        StageSettings("all", types=both),
    )
    some = settings(stages=stages)
    for listed, different in ((held_out_tasks, 2), (training_tasks, 3)):
        found = [
            {t.identity for t in listed(some, number, seed)}
            for seed in (0, 1)
            for number in range(different)
        ]
        assert len(set.union(*found)) == sum(map(len, found))
    assert held_out_tasks(some, 1, 0) == held_out_tasks(some, 2, 0)
    for seed in (0, 1):  # what was given away is replaced by tasks of the same type
        assert Counter(task.type for task in training_tasks(some, 1, seed)) == {
            easy[0]: 3,
            both[1]: 3,
        }
    with pytest.raises(ValueError, match="stage 'none' finds 0 of 4 tasks of split 'train'"):
        training_tasks(
            settings(
                stages=(
                    StageSettings("none", types=("look_at_obj_in_light",), wording="put", tasks=4),
                )
            ),
            0,
            0,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "train"}, "measure on 'valid' or 'test'"),
        ({"arms": ()}, "each once"),
        ({"arms": ("both", "both")}, "each once"),
        ({"arms": ("sleep",)}, "each once"),
        ({"replay": -1.0}, "must not be negative"),
        ({"stages": ()}, r"\[\[stages\]\]"),
        ({"retrieval": Retrieval(query="dynamic")}, "under one memory block"),
        (
            {"stages": (StageSettings("a"), StageSettings("a", wording="put"))},
            "give them different names",
        ),
        ({"tune": "melody"}, "'restart', 'continue' or 'replay'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_groups_keep_the_streams_own_defaults() -> None:
    some = build(
        StreamSettings,
        {
            "orders": 1,
            "stages": [{"name": "a"}],
            "lora": {"learning_rate": 1e-3},
            "context": {"empty": 0.3},
        },
    )
    assert (
        some.lora.learning_rate,
        some.lora.steps,
        some.lora.batch_examples,
        some.lora.rehearsal,
    ) == (
        1e-3,
        80,
        5,
        0.5,
    )
    assert (some.context.empty, some.context.irrelevant) == (0.3, 0.2)
    with pytest.raises(ValueError, match=r"write \[\[stages\]\] in the file"):
        build(StreamSettings, {"stages": {"name": "a"}})


def test_a_frozen_memory_is_frozen_when_it_explores_too(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "s", settings(arms=("frozen-memory",), experience="own"))
    stream.run()
    first, second = stream.states(RunKey("frozen-memory"))
    assert (second.read, second.memory_size, second.stored) == (first.read, 4, 8)
    with Memory(tmp_path / "s" / "lives" / "frozen-memory-o0-s0" / "memory", "r") as memory:
        assert {
            episode.memory_position
            for episode in memory.iterate()
            if episode.task.type == "look_at_obj_in_light"
        } == {4}


def test_what_memory_does_not_know_is_explored_by_the_base(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "s", settings(arms=("both-exploring",), known_above=0.9))
    stream.run()
    (life,) = stream.lives()
    last = tmp_path / "s" / "lives" / life.name / "evaluated" / "0-light"
    with Memory(last, "r") as played:
        episodes = list(played.iterate())
    # After the first stage it remembers how to put, and nothing of lights.
    assert all(not e.retrieved and e.actor.adapter == "stage-0" for e in episodes)
    assert all(e.actor.settings["explores"] is True for e in episodes)
    base = load_model(PolicySettings(), 4)
    suite = get_suite("household")
    tasks = held_out_tasks(stream.settings, 1, 0)
    alone = play_all(Runner(suite, base, stream.settings.run), tasks)
    assert [[s.action for s in e.steps] for e in alone] == [
        [s.action for s in next(e for e in episodes if e.task == task).steps] for task in tasks
    ]
    with Memory(last.with_name("0-put"), "r") as played:
        assert all(r.score >= 0.9 for e in played.iterate() for r in e.retrieved)
        assert any(e.retrieved for e in played.iterate())


def test_examples_are_under_the_prompt_of_their_own_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (
        StageSettings("toy", suite="toy", tasks=2),
        StageSettings("put", types=("pick_and_place_simple",), tasks=2),
    )
    trained: list[list[Example]] = []

    def train(model: Any, examples: list[Example], *rest: Any, **named: Any) -> Any:
        trained.append(examples)
        return train_adapter(model, examples, *rest, **named)

    monkeypatch.setattr(tune_module, "train_adapter", train)
    Stream(tmp_path / "s", settings(arms=("both",), stages=stages)).run()
    told = [example.conversation[0].text for example in trained[-1]]
    suites = {name: spec_of(get_suite(name)).instructions for name in ("toy", "household")}
    under = [name for text in told for name, words in suites.items() if words in text]
    assert sorted(under) == ["household", "household", "toy", "toy"]


def test_stages_draw_on_their_own_rooms_wordings_and_rounds() -> None:
    stage = StageSettings("put", types=("pick_and_place_simple",), tasks=4)
    varied = (
        replace(stage, rooms=0),
        replace(stage, rooms=1),
        replace(stage, name="said", wording="put"),
        stage,
        stage,
    )
    first, second, put, once, again = (
        training_tasks(settings(stages=varied), number, 0) for number in range(5)
    )
    assert not {task.room for task in first} & {task.room for task in second}
    assert all(task.goal.startswith("put") for task in put)
    assert not {task.identity for task in once} & {task.identity for task in again}
    with pytest.raises(ValueError, match="needs wording"):
        StageSettings("x", wording="loud")


def made_up() -> list[dict[str, Any]]:
    """Records of two arms, two orders and two seeds, with outcomes drawn once."""
    rng, records = np.random.default_rng(0), []
    for arm in ("none", "memory", "both"):
        for order in (0, 1):
            for seed in (0, 1):
                if arm == "none" and order:
                    continue
                names = ["a", "b", "c"] if not order else ["c", "a", "b"]
                for stage, learnt in enumerate(names):
                    for evaluated in names:
                        better = 0.2 if arm == "none" else 0.5 if arm == "memory" else 0.9
                        records += [
                            {
                                "arm": arm,
                                "order": order,
                                "seed": seed,
                                "stage": stage,
                                "learnt": learnt,
                                "evaluated": evaluated,
                                "task": f"{evaluated}{seed}{k}",
                                "success": bool(rng.random() < better),
                            }
                            for k in range(20)
                        ]
    return records


def test_measures_are_those_of_the_matrices() -> None:
    records = made_up()
    rows, tests = summaries(records, draws=200)
    lives = lives_of(records, "both")
    untaught = {seed: lives_of(records, "none")[0, seed][1] for seed in (0, 1)}
    expected = []
    for (_, seed), (names, outcomes) in lives.items():
        matrix = [[float(outcomes[name][i].mean()) for name in names] for i in range(3)]
        expected.append(measures(matrix, [float(untaught[seed][name][0].mean()) for name in names]))
    for row in rows:
        if row["arm"] == "both":
            assert row["value"] == pytest.approx(
                np.mean([e[row["name"]] for e in expected]), abs=1e-4
            )
            assert row["low"] <= row["value"] <= row["high"]
    (gain,) = [
        t for t in tests if (t["a"], t["b"], t["name"]) == ("both", "memory", "average_success")
    ]
    assert 0.2 < gain["low"] < gain["value"] < gain["high"]
    assert "both − memory" in markdown(records, draws=20)


def test_published_tables_are_checked(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "s", settings(arms=("none", "memory")))
    records = stream.run()
    publish(tmp_path / "out" / "stream.json", stream, records)
    published = json.loads((tmp_path / "out" / "stream.json").read_text())
    assert published["rows"] == recomputed(records)["rows"]
    assert disagreements(published, records, published["weights_sha256"]) == []
    assert "shipped are 00" in disagreements(published, records, "00")[0]
    assert published["costs"][1] == {
        **published["costs"][1],
        "arm": "memory",
        "memory_size": 8.0,
        "stored": 8.0,
        "tokens": 0.0,
    }
    assert "| memory | 8.0 | 8.0 | 0.0 |" in markdown(records, published["states"], draws=20)
    assert (
        "costs"
        in disagreements({**published, "costs": []}, records, published["weights_sha256"])[0]
    )
    records[0]["success"] = not records[0]["success"]
    assert disagreements(published, records, published["weights_sha256"])


def test_without_an_untaught_agent_there_is_no_forward_transfer() -> None:
    records = [r for r in made_up() if r["arm"] != "none"]
    rows, _ = summaries(records, draws=20)
    assert {row["name"] for row in rows} == {
        "average_success",
        "backward_transfer",
        "forgetting",
        "learning_curve_area",
    }
    assert "forward" not in markdown(records, draws=20)


def test_arms_may_have_been_lived_in_more_seeds_than_others() -> None:
    records = [r for r in made_up() if (r["arm"], r["seed"]) != ("both", 1)]
    rows, tests = summaries(records, draws=20)
    assert {(row["arm"], row["lives"]) for row in rows} == {("none", 4), ("memory", 4), ("both", 2)}
    assert {test["lives"] for test in tests if (test["a"], test["b"]) == ("both", "memory")} == {2}


def test_intervals_cover_what_they_should() -> None:
    """Tasks differ in how hard they are, and the lives of a seed share them: lives are not
    independent."""
    covered = 0
    for repeat in range(60):
        rng = np.random.default_rng(repeat)
        records: list[dict[str, Any]] = []
        for seed in (0, 1, 2):
            ease = rng.beta(0.5, 0.5, size=(2, 20))
            for order in (0, 1, 2):
                names = ["a", "b"] if order % 2 else ["b", "a"]
                records += [
                    {
                        "arm": "memory",
                        "order": order,
                        "seed": seed,
                        "stage": stage,
                        "learnt": learnt,
                        "evaluated": name,
                        "task": f"{name}{seed}-{k}",
                        "success": bool(rng.random() < ease["ab".index(name), k]),
                    }
                    for stage, learnt in enumerate(names)
                    for name in names
                    for k in range(20)
                ]
        rows, _ = summaries(records, draws=100)
        covered += rows[0]["low"] <= 0.5 <= rows[0]["high"]
    assert (
        covered >= 57
    )  # of 200, it covers 99 %; with lives drawn as if independent it would be 90


def test_curves_average_over_lives_and_stages(tmp_path: Path) -> None:
    records = made_up()
    found = {(row["arm"], row["stage"]): row for row in curves(records, draws=50)}
    assert {row["evaluated"] for row in found.values()} == {"all stages"}
    for arm in ("none", "both"):
        expected = [
            row["success"] for row in rows_of(records) if (row["arm"], row["stage"]) == (arm, 1)
        ]
        assert found[arm, 1]["value"] == pytest.approx(np.mean(expected), abs=1e-4)
        assert found[arm, 1]["low"] < found[arm, 1]["value"] < found[arm, 1]["high"]
    picture(tmp_path / "s.png", records)
    assert (tmp_path / "s.png").stat().st_size > 5000


def test_rounds_of_one_distribution_have_first_and_final_success() -> None:
    rng = np.random.default_rng(1)
    records: list[dict[str, Any]] = [
        {
            "arm": arm,
            "order": 0,
            "seed": seed,
            "stage": stage,
            "learnt": "easy" if stage < 2 else "all",
            "evaluated": evaluated,
            "task": f"{evaluated}{seed}{k}",
            "success": bool(rng.random() < (0.2 if arm == "none" else 0.2 + 0.2 * stage)),
        }
        for arm in ("none", "memory")
        for seed in (0, 1)
        for stage in range(4)
        for evaluated in ("easy", "all")
        for k in range(30)
    ]
    everything = recomputed(records, draws=100)
    rates = {(r["arm"], r["stage"], r["evaluated"]): [] for r in everything["rows"]}  # type: ignore[var-annotated]
    for r in everything["rows"]:
        rates[r["arm"], r["stage"], r["evaluated"]].append(r["success"])
    measured = {(m["arm"], m["evaluated"], m["name"]): m for m in everything["measures"]}
    final = measured["memory", "all", "final_success"]["value"]
    assert final == pytest.approx(np.mean(rates["memory", 3, "all"]), abs=1e-4)
    ratio = measured["memory", "all", "final_over_first"]
    assert ratio["value"] == pytest.approx(final / np.mean(rates["memory", 0, "all"]), abs=1e-3)
    assert 1.5 < ratio["low"] < ratio["high"]
    (gain,) = [t for t in everything["tests"] if t["evaluated"] == "easy"]
    assert (gain["a"], gain["b"]) == ("memory", "none")
    assert gain["low"] > 0
    assert "memory − none | all" in markdown(records, draws=20)
