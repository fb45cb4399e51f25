"""The agent's speed: cached policy against plain `generate`, loop overhead, engine, and how fast
help comes.

    python scripts/bench_agent.py             # a table; last line JSON

Ratios are measured within one run, the two sides taking turns, and medians are reported.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import bench_engine
import bench_policy

from relive.agent.collect import collect_demonstrations
from relive.agent.conversation import Conversation
from relive.agent.llm.local import LocalModel
from relive.agent.llm.weights import BUNDLED
from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.policy import ExpertPolicy
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import Clock, Runner, RunSettings, play_all, spec_of
from relive.envs import get_suite
from relive.memory import Memory, Purpose, Retrieval
from relive.training.examples import example


def recorded(count: int = 48) -> list[Conversation]:
    """Expert episodes in test rooms as the agent would have seen them: K = 2, memory from train
    rooms."""
    suite = get_suite("household")
    spec, made = spec_of(suite), load_model(PolicySettings())
    expert = ExpertPolicy(suite)
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(folder) as memory,
    ):
        collect_demonstrations(memory, suite, 60)
        recall = MemoryRetriever(memory, spec, made.count_tokens, Retrieval(), Purpose.EVALUATE)
        episodes = play_all(Runner(suite, expert), suite.tasks("test", count))
        return [example(spec, e, recall(e.task)).conversation for e in episodes]


def loop_overhead(tasks: int = 24) -> float:
    """Share of wall time outside model and environment; one episode at a time in one worker process
    that has started, retrieval and the fsync of every episode included."""
    suite = get_suite("household")
    made = load_model(PolicySettings(), 1)
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory(folder) as memory,
    ):
        collect_demonstrations(memory, suite, 60)
        recall = MemoryRetriever(
            memory, spec_of(suite), made.count_tokens, Retrieval(), Purpose.ACT
        )
        runner = Runner(suite, made, RunSettings(batch=1, workers=1), recall)
        playing = runner.run(suite.tasks("train", tasks + 1, start=20))
        next(playing)  # the worker has started and everything is imported
        runner.clock, environment, began = Clock(), 0.0, time.monotonic()
        for episode in playing:
            memory.add(episode)
            environment += episode.timings["environment"]
        return 1 - (runner.clock.policy + environment) / (time.monotonic() - began)


def bf16_disagreement(conversations: Sequence[Conversation]) -> float:
    """Share of recorded decisions at which bf16 says something else than fp32, greedy."""
    asked = [c[:i] for c in conversations for i, turn in enumerate(c) if turn.role == "assistant"]
    said = [LocalModel(BUNDLED, dtype=dtype).act(asked) for dtype in ("float32", "bfloat16")]
    return sum(a.text != b.text for a, b in zip(*said, strict=True)) / len(asked)


def help_seconds(repeats: int = 7) -> float:
    """Median wall time of `relive --help` in a fresh process."""
    times = []
    for _ in range(repeats):
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "relive.agent.cli", "--help"], check=True, capture_output=True
        )
        times.append(time.monotonic() - began)
    return statistics.median(times)


def main() -> None:
    """Measures everything."""
    conversations = recorded()
    policy = bench_policy.measure(Path(BUNDLED), conversations)
    engine = bench_engine.measure()
    result = {
        "cached_speedup": policy["cached_speedup"],
        "batch16_speedup": policy["batch16_speedup"],
        "loop_overhead": round(loop_overhead(), 4),
        "engine_step_speedup": engine["engine_step_speedup"],
        "engine_reset_ms": engine["engine_reset_ms"],
        "help_seconds": round(help_seconds(), 3),
        "bf16_disagreement": round(bf16_disagreement(conversations[:16]), 4),
    }
    for name, value in result.items():
        print(f"{name:22s} {value:10.3f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
