"""`relive report`: its numbers without a browser."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import relive
from relive.agent.cli import main
from relive.agent.evaluation.metrics import wilson
from relive.agent.policy import RandomPolicy
from relive.agent.report.episodes import Collected, copied
from relive.agent.report.page import finite, pack
from relive.agent.report.report import _names, report
from relive.agent.report.runs import open_run
from relive.agent.report.shown import Prompts, Shown, Unknown
from relive.agent.report.summary import Tally
from relive.agent.rundir import RunDirectory
from relive.agent.runner import RunSettings
from relive.envs import get_suite
from relive.memory.episode import StopReason
from tests.report.pages import Made


def test_what_was_shown_is_made_again_word_for_word(made: Made) -> None:
    read = iter(made.read)
    with relive.Memory(made.memory, "r") as memory:
        prompts = Prompts(memory)
        for episode in made.episodes:
            shown = prompts.shown(episode, 0)
            assert not isinstance(shown, Unknown)
            assert len(shown) == 2
            block = "".join(f"\n\n{one.text}" for one in reversed(shown))
            for number, _ in enumerate(episode.steps):
                messages = next(read)
                if number == 0:
                    head = prompts.head(episode)
                    assert messages[0]["content"] == f"{head}\n\nExperience:{block}"
            why = shown[0].explanation
            assert why is not None
            assert why.similarity == pytest.approx(episode.steps[0].retrieved[0].score)
    assert next(read, None) is None
    assert Prompts(Unknown.NO_MEMORY).shown(made.episodes[0], 0) is Unknown.NO_MEMORY


def test_an_action_is_told_from_what_it_repeats(made: Made) -> None:
    steps = tuple(
        relive.Step("seen", action) for action in ("go to hall", "take cup", "dance", "go to barn")
    )
    episode = replace(made.episodes[0], steps=steps)
    past = Shown("p", "", (("go to hall", ""), ("take key", ""), ("go to barn", "")), 0, None)
    other = Shown("q", "", (("go to barn", ""),), 0, None)
    assert copied(episode, {0: [past, other]}) == [
        (0, 0, 0, True), (0, 0, 1, False), None, (0, 0, 2, True),
    ]  # fmt: skip
    assert copied(episode, {0: Unknown.CHANGED}) == [None] * 4


def test_rows_and_tests_are_those_of_the_evaluation(made: Made, tmp_path: Path) -> None:
    suite, settings = get_suite("toy"), RunSettings(max_steps=12)
    with relive.Memory(made.memory, "r") as memory:
        other = relive.evaluate(
            RandomPolicy(suite), suite, memory, tasks=8, settings=settings, out=tmp_path / "random"
        )
    tally = Tally()
    for name, episodes in (("run", made.episodes), ("random", other.episodes)):
        for episode in episodes:
            tally.add(name, episode)
    rows = {(r["condition"], r["type"]): r for r in tally.rows()}
    won = sum(e.success for e in made.episodes)
    assert 0 < won < 8  # neither is a test of much
    assert rows["run", "all"]["success"] == round(won / 8, 4)
    low, high = wilson(won, 8)
    assert rows["run", "all"]["low"] == round(low, 4)
    assert rows["run", "all"]["high"] == round(high, 4)
    assert rows["run", "fetch"]["n"] == rows["run", "wash"]["n"] == 4
    (test,) = tally.tests()
    assert (test["a"], test["b"]) == ("random", "run")
    assert test["difference"] == pytest.approx(other.success - won / 8)
    out = report([made.run, tmp_path / "random"], tmp_path / "both.html")
    assert out.episodes == 16
    assert out.size == out.file.stat().st_size < 1_500_000


def test_runs_of_every_command_are_known(made: Made, tmp_path: Path) -> None:
    run = open_run(made.run)
    assert (run.kind, [s.condition for s in run.stores]) == ("eval", ["run"])
    assert run.stores[0].read == made.memory
    assert open_run(made.memory).kind == "memory"
    for kind, names in {
        "learn": ["gate/v1-base"], "study": ["cells/rag-lora+matching+s0"],
        "stream": ["lives/both-s0/measured/0"],
    }.items():  # fmt: skip
        directory = RunDirectory(tmp_path / kind, {kind: {}})
        for name in names:
            with directory.results(name) as results:
                results.keep(made.episodes[0])
        with relive.Memory(tmp_path / kind / "memory") as memory:
            memory.add_many(list(made.episodes[:2]))
        found = open_run(tmp_path / kind)
        assert found.kind == kind
        conditions = {s.condition for s in found.stores}
        assert ("training" in conditions) == (kind == "learn")
        assert len(conditions) == 1 + (kind == "learn")
        assert report([tmp_path / kind], tmp_path / f"{kind}.html").episodes >= 1
    assert {s.condition for s in open_run(tmp_path / "study").stores} == {"rag-lora/matching"}


def test_what_is_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "nothing", {"eval": 1})
    for name, message in (
        ("gone", "no run or memory"), ("empty", "neither a run"), ("nothing", "no episodes yet"),
    ):  # fmt: skip
        status = main(["report", str(tmp_path / name), "--out", str(tmp_path / "r.html")])
        assert status == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_folder_is_not_written_over(made: Made, tmp_path: Path) -> None:
    assert main(["report", str(made.run), "--out", str(tmp_path)]) == 2
    file = tmp_path / "page.html"
    assert main(["report", str(made.run), "--out", str(file), "--no-prompts"]) == 0
    first = file.read_bytes()
    assert main(["report", str(made.run), "--out", str(file)]) == 0
    assert len(file.read_bytes()) > len(first)


def test_numbers_that_json_has_no_word_for_are_texts() -> None:
    assert finite({"a": float("nan"), "b": [float("inf"), 1.5]}) == {"a": "nan", "b": ["inf", 1.5]}
    assert pack({"text": "\ud800"})  # half a character, which no browser can show


def test_texts_that_many_were_shown_are_kept_once(made: Made) -> None:
    collected = Collected()
    with relive.Memory(made.memory, "r") as memory:
        for _ in range(3):
            for episode in made.episodes:
                collected.add("run", "c", episode, Prompts(memory))
    assert len(collected.bodies) == 24
    assert len(collected.texts) <= 16
    assert len(collected.heads) == 1


def test_a_memory_counts_all_its_episodes(made: Made, tmp_path: Path) -> None:
    first = made.episodes[0]
    with relive.Memory(tmp_path / "m") as memory:
        memory.add_many([replace(first, id=f"again-{n}") for n in range(5)])
    assert report([tmp_path / "m"], tmp_path / "r.html").episodes == 5


def test_what_is_read_imports_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evilmod.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    first = made.episodes[0]
    with relive.Memory(tmp_path / "m") as memory:
        memory.add(replace(first, task=replace(first.task, suite="gymnasium:evilmod:X-v0")))
    assert report([tmp_path / "m"], tmp_path / "r.html").episodes == 1
    assert "evilmod" not in sys.modules


def test_runs_of_one_name_stay_apart(made: Made, tmp_path: Path) -> None:
    for name in ("a/x/run", "b/x/run"):
        shutil.copytree(made.run, tmp_path / name)
    runs = [open_run(tmp_path / name) for name in ("a/x/run", "b/x/run")]
    assert _names(runs) == ["a/x/run", "b/x/run"]
    with pytest.raises(ValueError, match="named twice"):
        report([made.run, made.run / ".." / made.run.name], tmp_path / "r.html")


def test_what_was_measured_with_a_memory_is_no_training(made: Made, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run", {"learn": {}})
    with directory.results("held-out/memory") as results:
        results.keep(made.episodes[0])
    (store,) = open_run(tmp_path / "run").stores
    assert (store.condition, store.whole) == ("held-out/memory", False)


def test_seeds_are_averaged_and_environment_errors_left_out(made: Made) -> None:
    tally = Tally()
    for seed, won in ((0, True), (1, True), (2, False)):
        for episode in made.episodes:
            outcome = replace(episode.outcome, success=won)
            tally.add("a", replace(episode, id=f"{episode.id}{seed}", outcome=outcome))
    broken = replace(made.episodes[0].outcome, success=False, reason=StopReason.ENVIRONMENT_ERROR)
    for episode in made.episodes:
        tally.add("b", replace(episode, outcome=replace(episode.outcome, success=False)))
        tally.add("c", replace(episode, outcome=broken))
    (test,) = tally.tests()
    assert (test["a"], test["b"], test["n"]) == ("b", "a", 8)
    assert test["difference"] == pytest.approx(-2 / 3)


def test_why_a_text_is_not_known_is_said(made: Made, tmp_path: Path) -> None:
    episode = made.episodes[0]
    with relive.Memory(tmp_path / "other") as other:
        assert Prompts(other).shown(episode, 0) is Unknown.OTHER_MEMORY
    shutil.copytree(made.memory, tmp_path / "memory")
    with relive.Memory(tmp_path / "memory") as memory:
        alone = replace(episode, memory_position=-1)
        assert Prompts(memory).shown(alone, 0) is Unknown.NO_SETTINGS
        for strange in ({"k": "many"}, {"k": 2, "query": "semantic"}):
            odd = replace(episode, actor=replace(episode.actor, settings=strange))
            assert Prompts(memory).shown(odd, 0) is Unknown.NO_SETTINGS
        named = replace(episode, task=replace(episode.task, suite="textworld:games"))
        assert Prompts(memory).shown(named, 0) is Unknown.SUITE
        # Of a shorter block, as a tokenizer that is not here would have made it.
        first = replace(episode.steps[0], retrieved=episode.steps[0].retrieved[:1])
        fewer = replace(episode, steps=(first, *episode.steps[1:]))
        assert Prompts(memory).shown(fewer, 0) is Unknown.CHANGED
        memory.delete(episode.steps[0].retrieved[0].episode)
        memory.compact()
        assert Prompts(memory).shown(episode, 0) is Unknown.OTHER_MEMORY


def test_another_memory_is_read_where_one_is_given(made: Made, tmp_path: Path) -> None:
    with relive.Memory(tmp_path / "played") as memory:
        memory.add_many(list(made.episodes))
    assert open_run(tmp_path / "played").stores[0].read == tmp_path / "played"
    (store,) = open_run(tmp_path / "played", made.memory).stores
    assert store.read == made.memory
    with relive.Memory(store.read, "r") as read:
        assert not isinstance(Prompts(read).shown(next(store.episodes()), 0), Unknown)


def test_prompts_say_what_they_lack(made: Made) -> None:
    prompts, episode = Prompts(Unknown.NOT_ASKED), made.episodes[0]
    assert prompts.remarks(episode) == []
    mine = replace(episode, task=replace(episode.task, suite="gymnasium:Mine-v0"))
    (remark,) = prompts.remarks(mine)
    assert "not known here" in remark
    listed = replace(episode.actor, settings={**episode.actor.settings, "admissible": True})
    (remark,) = prompts.remarks(replace(episode, actor=listed))
    assert "accepted" in remark


def test_a_run_that_has_not_ended_says_so(made: Made, tmp_path: Path) -> None:
    assert open_run(made.run).unfinished == ""
    shutil.copytree(made.run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert open_run(tmp_path / "run").unfinished == "8 of 8 tasks are played"
    learn = RunDirectory(tmp_path / "learn", {"learn": {}})
    study = RunDirectory(tmp_path / "study", {"study": {}})
    stream = RunDirectory(tmp_path / "stream", {"stream": {"stages": [{}, {}]}})
    for directory, name in (
        (learn, "gate/v1"), (study, "cells/lora+matching+s0"), (stream, "lives/both-s0/measured/0"),
    ):  # fmt: skip
        with directory.results(name) as results:
            results.keep(made.episodes[0])
    learn.write("rounds.json", [])
    assert open_run(learn.path).unfinished == ""
    learn.write("round-1.json", {"position": 0})
    assert open_run(learn.path).unfinished == "round 1 has not ended"
    assert "1 run begun and not done: lora+matching+s0" in open_run(study.path).unfinished
    (study.path / "records").mkdir()
    (study.path / "records" / "lora+matching+s0.jsonl.gz").write_bytes(b"")
    assert open_run(study.path).unfinished == ""
    stream.write("lives/both-s0/states.json", [{}])
    assert "both-s0" in open_run(stream.path).unfinished
    stream.write("lives/both-s0/states.json", [{}, {}])
    assert open_run(stream.path).unfinished == ""


def test_what_a_run_added_to_a_memory_elsewhere_is_its_training(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.memory, tmp_path / "memory")
    with relive.Memory(tmp_path / "memory") as memory:
        learn = RunDirectory(tmp_path / "learn", {"learn": {}, "memory": str(memory.path)})
        learn.write("round-1.json", {"position": memory.position})
        memory.add_many(list(made.episodes[:3]))
    (store,) = open_run(learn.path).stores
    assert (store.condition, store.whole) == ("training", True)
    assert [e.id for e in store.episodes()] == [e.id for e in made.episodes[:3]]
