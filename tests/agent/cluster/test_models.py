"""Language models on a cluster: loaded by the workers, adapters and all."""

import shutil
from pathlib import Path

import pytest

from relive.agent.cluster.executor import IN_PROCESS, Executor
from relive.agent.cluster.settings import RaySettings
from relive.agent.collect import collect_demonstrations
from relive.agent.load_policy import PolicySettings
from relive.agent.runner import RunSettings, UnfitModelWarning
from relive.envs import get_suite
from relive.memory import Memory, Retrieval
from relive.training.learn import Learner, LearnSettings, Round
from relive.training.lora import LoraSettings
from relive.training.select import SelectSettings
from tests.agent.cluster.compare import essence

pytest.importorskip("relive.agent.cluster.calls", exc_type=ImportError)
from relive.agent.cluster.cluster import Cluster

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings(f"ignore::{UnfitModelWarning.__module__}.UnfitModelWarning"),
]
SUITE = get_suite("toy")
LEARN = LearnSettings(
    suite="toy",
    rounds=1,
    successes=3,
    most_episodes=4,
    demonstrations=0,
    validation=4,
    policy=PolicySettings(),
    select=SelectSettings(policies=("local", "expert")),
    lora=LoraSettings(steps=2, batch_tokens=2000),
    retrieval=Retrieval(k=1, max_tokens=300),
    run=RunSettings(max_steps=3, batch=2),
)


def learned(place: Executor, folder: Path) -> tuple[list[Round], dict[str, dict[str, bytes]]]:
    """A round of learning in a folder that holds a memory, and the episodes that it played."""
    model = place.model(LEARN.policy, LEARN.run.batch)
    with place.memory(folder / "m") as memory:
        with Learner(folder / "run", LEARN, SUITE, model, memory, executor=place) as learner:
            rounds = learner.run()
        played = {"rollouts": essence(e for e in memory.iterate() if e.actor.policy == "local")}
    for gate in (folder / "run" / "gate").iterdir():
        with Memory(gate, "r") as results:
            played[gate.name] = essence(results.iterate())
    return rounds, played


def test_a_round_of_learning_is_the_same(
    two_nodes: object, settings: RaySettings, tmp_path: Path
) -> None:
    """Rollouts, an adapter that is sent to the workers, and the gate that plays with both."""
    with Memory(tmp_path / "m") as memory:
        collect_demonstrations(memory, SUITE, 8, LEARN.run)
    for name in ("here", "there"):
        shutil.copytree(tmp_path / "m", tmp_path / name / "m")
    here = learned(IN_PROCESS, tmp_path / "here")
    with Cluster("auto", settings) as place:
        there = learned(place, tmp_path / "there")
    assert len(here[1]["rollouts"]) == 4
    assert set(here[1]) == {"rollouts", "v1-base", "v1-v1"}
    assert there == here


def test_a_model_that_only_workers_load(
    two_nodes: object, settings: RaySettings, tmp_path: Path
) -> None:
    tasks, run = SUITE.tasks("test", 4), RunSettings(max_steps=3, batch=2)
    here = IN_PROCESS.policy(PolicySettings(), SUITE, 2)
    alone = essence(IN_PROCESS.runner(SUITE, here, run).run(tasks))
    with Cluster("auto", settings) as place:
        policy = place.policy(PolicySettings(), SUITE, 2)
        runner = place.runner(SUITE, policy, run)
        assert runner.actor == IN_PROCESS.runner(SUITE, here, run).actor
        assert essence(runner.run(tasks)) == alone
        with pytest.raises(RuntimeError, match="loaded by the workers"):
            policy.act([])  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="a model is not sent"):
            list(place.runner(SUITE, here, run).run(tasks))
        missing = PolicySettings(kind="local", model="/nowhere/at/all")
        with pytest.raises(FileNotFoundError, match="no model folder /nowhere/at/all"):
            place.policy(missing, SUITE, 2)
