"""The cycle on the toy suite, with a tiny model that learns from the expert's episodes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.runner import RunSettings
from relive.envs import get_suite
from relive.memory import Memory, Retrieval
from relive.training.learn import (
    Learner,
    LearnSettings,
    Round,
)
from relive.training.lora import LoraSettings
from relive.training.select import SelectSettings, of_suite, why_nothing
from relive.training.tune import NothingToLearnError, train_on_memory


def settings(model: Path, **changes: object) -> LearnSettings:
    plain = LearnSettings(
        suite="toy",
        rounds=2,
        successes=3,
        most_episodes=4,
        demonstrations=8,
        validation=6,
        policy=PolicySettings(model=str(model)),
        select=SelectSettings(policies=("local", "expert")),
        lora=LoraSettings(steps=2, batch_tokens=2000),
        retrieval=Retrieval(
            k=1, max_tokens=300
        ),  # the toy's words are not in the tokenizer: a token is a byte
        run=RunSettings(max_steps=3, batch=8),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def learner(out: Path, chosen: LearnSettings) -> Learner:
    """As the command line makes it, without rehearsal."""
    return Learner(out, chosen, get_suite(chosen.suite), load_model(chosen.policy, 8))


def run(out: Path, chosen: LearnSettings) -> list[Round]:
    with learner(out, chosen) as cycle:
        return cycle.run()


def test_the_cycle_fills_memory_trains_versions_and_gates_them(
    tiny_model: Path, tmp_path: Path
) -> None:
    with learner(tmp_path / "run", settings(tiny_model)) as cycle:
        rounds = cycle.run()
    assert [r.round for r in rounds] == [1, 2]
    assert [r.candidate for r in rounds] == ["v1", "v2"]
    for r in rounds:
        manifest = json.loads(
            (tmp_path / "run" / "adapters" / r.candidate / "manifest.json").read_text()
        )
        assert manifest["version"] == r.candidate
        assert manifest["base_sha256"] == cycle.model.base_sha256
        assert manifest["tasks"]
        assert r.gate["n"] == 6
    assert (
        json.loads((tmp_path / "run" / "adapters" / "v2" / "manifest.json").read_text())["parent"]
        == rounds[0].adapter
    )
    with Memory(tmp_path / "run" / "memory", "r") as memory:
        stats = memory.stats()
        assert stats.by_policy["expert"] == 8
        assert stats.by_policy["local"] == 8
        assert set(stats.by_split) == {"train"}
        played = [e for e in memory.entries() if e.policy == "local"]
        assert len({e.task.identity for e in memory.entries()}) == 16  # no task is played twice
        assert {e.adapter for e in played} <= {"", "v1"}
    assert run(tmp_path / "run", settings(tiny_model)) == rounds  # done is done


def test_memory_may_start_empty(tiny_model: Path, tmp_path: Path) -> None:
    (only,) = run(tmp_path / "run", settings(tiny_model, demonstrations=0, rounds=1))
    assert (only.candidate, only.adopted, only.adapter) == (
        "",
        False,
        "",
    )  # a random model succeeds at nothing
    assert only.memory_size == 4


def test_a_run_with_other_settings_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    learner(tmp_path / "run", settings(tiny_model)).close()
    with pytest.raises(ValueError, match="other settings"):
        learner(tmp_path / "run", settings(tiny_model, successes=2))


def test_mistakes_are_found_before_anything_is_written(tiny_model: Path, tmp_path: Path) -> None:
    wrong_adapter = PolicySettings(model=str(tiny_model), adapter="somewhere")
    for bad in (
        {"types": ("fecth",)},
        {"select": SelectSettings(types=("fecth",))},
        {"policy": wrong_adapter},
        {"policy": PolicySettings(model="./nowhere")},
    ):
        with pytest.raises((ValueError, FileNotFoundError)):
            learner(tmp_path / "run", settings(tiny_model, **bad))
        assert not (tmp_path / "run").exists()


def test_rounds_can_be_added(tiny_model: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "run", settings(tiny_model, rounds=1))
    both = run(tmp_path / "run", settings(tiny_model, rounds=2))
    assert [r.round for r in both] == [1, 2]
    assert both[0] == first[0]


def test_a_memory_that_is_only_read_cannot_be_learnt_into(tiny_model: Path, tmp_path: Path) -> None:
    Memory(tmp_path / "m").close()
    chosen = settings(tiny_model)
    with Memory(tmp_path / "m", "r") as memory, pytest.raises(ValueError, match="open for reading"):
        Learner(tmp_path / "run", chosen, get_suite("toy"), load_model(chosen.policy), memory)
    assert not (tmp_path / "run").exists()


def test_scripted_policies_cannot_learn() -> None:
    with pytest.raises(ValueError, match="has no weights"):
        load_model(PolicySettings(kind="expert"))


def test_training_from_a_memory(tiny_model: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", settings(tiny_model, rounds=0))
    model, toy = load_model(settings(tiny_model).policy), get_suite("toy")
    own = settings(tiny_model, select=SelectSettings())
    with Memory(tmp_path / "run" / "memory", "r") as memory:
        with pytest.raises(NothingToLearnError, match="8 successes, but none of local"):
            train_on_memory(own, toy, model, memory, tmp_path / "adapter")
        manifest = train_on_memory(settings(tiny_model), toy, model, memory, tmp_path / "adapter")
    assert manifest.examples == 8


def test_a_group_of_types_is_selected_by_its_name(tmp_path: Path) -> None:
    """As everywhere else; and the reason why nothing is selected is the real one."""
    toy = get_suite("household")
    easy = of_suite(SelectSettings(policies=("expert",), types=("easy",)), toy)
    assert easy.types == tuple(toy.groups["easy"])
    with pytest.raises(ValueError, match="no task type 'esay'"):
        of_suite(SelectSettings(types=("esay",)), toy)
    with Memory(tmp_path) as memory:
        assert "no success at a task of the train split" in why_nothing(memory, easy)
        memory.add(
            goal="heat an egg", steps=[("", "heat egg")], success=True, policy="expert",
            type="pick_heat_then_place_in_recep",
        )  # fmt: skip
        assert "none at the task types asked for" in why_nothing(memory, easy)
        assert "there are successes at pick_heat" in why_nothing(memory, easy)


_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.training.test_learn import run, settings
run(Path({out!r}), settings(Path({model!r})))
"""


def test_a_killed_run_resumes_to_the_same_end(tiny_model: Path, tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    whole = run(tmp_path / "whole", settings(tiny_model))
    script = _SCRIPT.format(root=root, out=str(tmp_path / "killed"), model=str(tiny_model))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=root, stderr=subprocess.DEVNULL)
    for _ in range(3000):  # until the first adapter is there: in the middle of round one
        if (tmp_path / "killed" / "adapters" / "v1").exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "round-2.json").exists()
    resumed = run(tmp_path / "killed", settings(tiny_model))
    assert resumed == whole
    for version in ("v1", "v2"):
        whole_one, killed_one = (
            json.loads((tmp_path / run / "adapters" / version / "manifest.json").read_text())
            for run in ("whole", "killed")
        )
        for key in ("tasks", "contexts", "adapter_sha256"):
            assert whole_one[key] == killed_one[key]


def test_a_bad_adapter_is_rolled_back(tmp_path: Path) -> None:
    """The bundled model, fine-tuned at a rate that ruins it: the gate notices, and the bare model
    stays in force."""
    ruinous = LearnSettings(
        rounds=1,
        successes=1,
        most_episodes=3,
        demonstrations=18,
        validation=6,
        select=SelectSettings(policies=("local", "expert")),
        lora=LoraSettings(steps=3, learning_rate=1.0, batch_tokens=2000),
        run=RunSettings(max_steps=15),
    )
    with learner(tmp_path / "run", ruinous) as cycle:
        (only,) = cycle.run()
    assert only.candidate == "v1"
    assert only.gate["difference"] < -ruinous.margin
    assert (only.adopted, only.adapter) == (False, "")
    assert cycle.adapter == ""
    assert (
        tmp_path / "run" / "adapters" / "v1" / "manifest.json"
    ).exists()  # rolled back, not forgotten
