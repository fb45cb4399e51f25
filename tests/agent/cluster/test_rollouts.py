"""On a real cluster of two nodes: the same episodes as in one process, whatever is killed."""

import json
import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relive.agent.cluster.settings import RaySettings
from relive.agent.collect import collect
from relive.agent.conversation import Action, Asked, StopRun
from relive.agent.evaluation.evaluate import evaluate
from relive.agent.load_policy import PolicySettings, load_policy
from relive.agent.policy import ExpertPolicy, words
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import Runner, RunSettings, play_all, spec_of
from relive.envs import get_suite
from relive.memory import HashedEmbedder, Memory, Purpose, Retrieval
from relive.memory.episode import Actor
from relive.memory.search.embed import Vectors
from tests.agent.cluster.compare import essence

pytest.importorskip("relive.agent.cluster.calls", exc_type=ImportError)
from relive.agent.cluster.cluster import Cluster
from relive.agent.cluster.crew import WorkerLostWarning

pytestmark = pytest.mark.ray
SUITE = get_suite("toy")
RUN = RunSettings(batch=2, seed=5)


def retriever_of(memory: Memory, at: int | None) -> MemoryRetriever:
    return MemoryRetriever(memory, spec_of(SUITE), words, Retrieval(k=2), Purpose.ACT, at)


def filled(folder: Path) -> int:
    """A memory with some of the expert's episodes; its position."""
    with Memory(folder) as memory:
        expert = Runner(SUITE, ExpertPolicy(SUITE), RUN)
        memory.add_many(play_all(expert, SUITE.tasks("train", 12, start=40)))
        return memory.position


def test_the_same_episodes_as_in_one_process(
    two_nodes: object, settings: RaySettings, tmp_path: Path
) -> None:
    """Workers on the other node read a copy, which is gone afterwards."""
    at = filled(tmp_path / "m")
    tasks = SUITE.tasks("train", 24)
    policy = load_policy(PolicySettings(kind="expert"), SUITE)
    copies = tmp_path / "copies"
    with Memory(tmp_path / "m", "r") as memory:
        alone = essence(Runner(SUITE, policy, RUN, retriever_of(memory, at)).run(tasks))
    with Cluster("auto", replace(settings, copies=str(copies))) as place:
        policy = place.policy(PolicySettings(kind="expert"), SUITE, RUN.batch)
        with place.memory(tmp_path / "m") as memory:
            runner = place.runner(SUITE, policy, RUN, retriever_of(memory, at))
            stored = list(collect(memory, runner, tasks))
            assert essence(stored) == alone
            assert len(stored) == len(tasks) == len(memory) - 12
            # What was stored meanwhile is read where nobody said at which position to read.
            later = place.runner(SUITE, policy, RUN, retriever_of(memory, None))
            before = memory.position
            assert all(e.memory_position >= before for e in later.run(SUITE.tasks("valid", 4)))
            assert list(copies.glob("*/*/memory/memory.json"))
    assert not list(copies.glob("*/*"))
    with Memory(tmp_path / "m", "r") as memory:
        assert essence(memory.iterate(memory.position)).keys() >= alone.keys()


def test_an_evaluation_is_the_same(
    two_nodes: object, settings: RaySettings, tmp_path: Path
) -> None:
    filled(tmp_path / "m")
    tasks = SUITE.tasks("test", 12)
    with Memory(tmp_path / "m", "r") as memory, Cluster("auto", settings) as place:
        here, there = (
            evaluate(
                load_policy(PolicySettings(kind="random"), SUITE), SUITE, memory,
                tasks=tasks, settings=RUN, **how,
            )
            for how in ({}, {"executor": place})
        )  # fmt: skip
    assert essence(there.episodes) == essence(here.episodes)
    assert there.audit == here.audit
    assert there.rows == here.rows


class Shuffled(HashedEmbedder):
    """An embedder of one's own."""

    identity = "shuffled-1"

    def encode(self, texts: Sequence[str]) -> Vectors:
        return super().encode(texts)[:, ::-1].copy()


def test_workers_have_the_embedder_of_ones_own(
    two_nodes: object, settings: RaySettings, tmp_path: Path
) -> None:
    with Memory(tmp_path / "m", embedder=Shuffled(64)) as memory:
        expert = Runner(SUITE, ExpertPolicy(SUITE), RUN)
        memory.add_many(play_all(expert, SUITE.tasks("train", 6, start=40)))
        retriever = retriever_of(memory, memory.position)
        with Cluster("auto", settings) as place:
            policy = place.policy(PolicySettings(kind="expert"), SUITE, RUN.batch)
            episodes = play_all(place.runner(SUITE, policy, RUN, retriever), SUITE.tasks("test", 4))
    assert all(e.success and len(e.retrieved) == 2 for e in episodes)


class Stopping:
    """Acts a few times, and then has to stop."""

    actor = Actor("stopping")

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        raise StopRun("the budget is spent")


def test_what_a_worker_raises_is_raised_here(two_nodes: object, settings: RaySettings) -> None:
    with Cluster("auto", settings) as place:
        runner = place.runner(SUITE, Stopping(), RUN)
        with pytest.raises(StopRun, match="the budget is spent"):
            list(runner.run(SUITE.tasks("train", 6)))
        # It goes on to be of use, and leaves no room for others.
        expert = PolicySettings(kind="expert")
        policy = place.policy(expert, SUITE, 2)
        assert len(list(place.runner(SUITE, policy, RUN).run(SUITE.tasks("train", 6)))) == 6
        with Cluster("auto", replace(settings, patience=1)) as other:
            with pytest.raises(RuntimeError, match="no worker found a place within 1 s"):
                other.policy(PolicySettings(), SUITE, 2)
            waiting = other.runner(SUITE, other.policy(expert, SUITE, 2), RUN)
            with pytest.raises(RuntimeError, match="no worker found a place within 1 s"):
                list(waiting.run(SUITE.tasks("train", 1)))


def test_whatever_is_killed_every_task_ends_in_one_stored_episode(
    two_nodes: Any, settings: RaySettings, tmp_path: Path
) -> None:
    """The writer is killed, a worker, and at last the other node with all that is on it."""
    at = filled(tmp_path / "m")
    tasks = SUITE.tasks("train", 60)
    policy = load_policy(PolicySettings(kind="random"), SUITE)
    with Memory(tmp_path / "m", "r") as memory:
        alone = essence(Runner(SUITE, policy, RUN, retriever_of(memory, at)).run(tasks))
    acknowledged = []
    with (
        warnings.catch_warnings(record=True) as said,
        Cluster("auto", settings) as place,
        place.memory(tmp_path / "m") as memory,
    ):
        warnings.simplefilter("always")
        policy = place.policy(PolicySettings(kind="random"), SUITE, 2)
        runner = place.runner(SUITE, policy, RUN, retriever_of(memory, at))
        for episode in collect(memory, runner, tasks):
            acknowledged.append(episode.id)
            if len(acknowledged) in (10, 30):
                holder = json.loads((tmp_path / "m" / "lock").read_text())["pid"]
                assert holder != os.getpid()
                os.kill(holder, signal.SIGKILL)
            if len(acknowledged) == 20:
                two_nodes.remove_node(two_nodes.second, allow_graceful=False)
    assert any(one.category is WorkerLostWarning for one in said)
    with Memory(tmp_path / "m", "r") as memory:
        stored = list(memory.iterate())[12:]
    assert [e.id for e in stored] == acknowledged
    assert essence(stored) == alone
    assert len(stored) == len(tasks)
