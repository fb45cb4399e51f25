"""The agent's speed: cached policy against plain `generate`, loop overhead, engine, and how fast help comes.

    python scripts/bench_agent.py             # a table; last line JSON

Ratios are measured within one run, the two sides taking turns, and medians are reported.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_engine
import bench_policy

from agent.assemble import BUNDLED, PolicySettings, assemble
from agent.conversation import Conversation
from agent.recall import Recall, RecallSettings
from agent.runner import Runner, RunSettings, play_all, spec_of
from envs import get_suite
from memory import ExperienceMemory, Purpose
from training.examples import example


def recorded(count: int = 48) -> list[Conversation]:
    """Expert episodes in test rooms as the agent would have seen them: K = 2, memory from train rooms."""
    suite = get_suite("household")
    spec, made = spec_of(suite), assemble(PolicySettings(), suite)
    expert = assemble(PolicySettings(kind="expert"), suite)
    with tempfile.TemporaryDirectory() as folder, ExperienceMemory.open(folder, mode="create") as memory:
        memory.add_many(play_all(Runner(suite, expert.policy, expert.actor), suite.tasks("train", 60)))
        recall = Recall(memory, spec, made.count, RecallSettings(), Purpose.EVALUATE)
        episodes = play_all(Runner(suite, expert.policy, expert.actor), suite.tasks("test", count))
        return [example(spec, e, recall(e.task)).conversation for e in episodes]


def loop_overhead(tasks: int = 12) -> float:
    """Share of wall time outside model and environment; one episode at a time in one worker process, retrieval and the
    fsync of every episode included."""
    suite = get_suite("household")
    expert = assemble(PolicySettings(kind="expert"), suite)
    made = assemble(PolicySettings(), suite, 1)
    with tempfile.TemporaryDirectory() as folder, ExperienceMemory.open(folder, mode="create") as memory:
        for episode in Runner(suite, expert.policy, expert.actor).run(suite.tasks("train", 60)):
            memory.add(episode)
        recall = Recall(memory, spec_of(suite), made.count, RecallSettings(), Purpose.ACT)
        runner = Runner(suite, made.policy, made.actor, RunSettings(batch=1, workers=1), recall)
        spent = {"policy": 0.0, "environment": 0.0}
        began = time.monotonic()
        for episode in runner.run(suite.tasks("train", tasks, start=20)):
            memory.add(episode)
            for part in spent:
                spent[part] += episode.timings[part]
        return 1 - sum(spent.values()) / (time.monotonic() - began)


def help_seconds(repeats: int = 7) -> float:
    """Median wall time of `relive --help` in a fresh process."""
    times = []
    for _ in range(repeats):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "agent.cli", "--help"], check=True, capture_output=True)
        times.append(time.monotonic() - began)
    return statistics.median(times)


def main() -> None:
    """Measures everything."""
    policy = bench_policy.measure(Path(BUNDLED), recorded())
    engine = bench_engine.measure()
    result = {
        "cached_speedup": policy["cached_speedup"],
        "batch16_speedup": policy["batch16_speedup"],
        "loop_overhead": round(loop_overhead(), 4),
        "engine_step_speedup": engine["engine_step_speedup"],
        "engine_reset_ms": engine["engine_reset_ms"],
        "help_seconds": round(help_seconds(), 3),
    }
    for name, value in result.items():
        print(f"{name:22s} {value:10.3f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
