"""Episodes on a cluster: what Ray costs, what it gains, and what is lost when things are killed.

    python scripts/bench_ray.py                    # everything, ten minutes; last line JSON
    python scripts/bench_ray.py waiting storing    # some of it
    python scripts/bench_ray.py --write            # also docs/results/scale.json

All of it runs on a real cluster of two nodes (two raylets) on this machine. Speeds are ratios
within one run, both sides taking turns, and medians are reported. The kills are done to a driver in
a process of its own (`ray_kills.py`), in turn: a worker, the writer, the node without the driver,
the driver, and the driver's node with the head of the cluster.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray_kills

from relive.agent.cluster.cluster import Cluster
from relive.agent.cluster.executor import IN_PROCESS, Executor
from relive.agent.cluster.settings import RaySettings
from relive.agent.conversation import Action, Asked
from relive.agent.load_policy import PolicySettings, load_policy
from relive.agent.policy import RandomPolicy
from relive.agent.runner import Runner, RunSettings, play_all
from relive.envs import Suite, get_suite
from relive.memory import Memory

import ray  # isort: skip  (after the package, which says how it is to be imported)

RESULT = Path(__file__).parent.parent / "docs" / "results" / "scale.json"
WAIT_SECONDS = 0.05
WAITING_WORKERS = 16
WAITING_STEPS = 10


class WaitingPolicy(RandomPolicy):
    """Waits for each answer as long as a server takes; episodes are of one length."""

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        """Random actions, later."""
        time.sleep(WAIT_SECONDS)
        return super().answer(asked)


@contextmanager
def two_nodes(cpus: int) -> Iterator[None]:
    """This process as a driver of two nodes with so many CPUs each."""
    cluster = ray_kills.start_cluster(cpus)
    cluster.add_node(**ray_kills.lean(cpus))
    ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def seconds(act: Callable[[], object]) -> float:
    """Wall time of something."""
    began = time.monotonic()
    act()
    return time.monotonic() - began


def overhead(repeats: int = 5, tasks: int = 240) -> dict[str, float]:
    """Throughput of the expert on the household, two nodes with a worker each against one process,
    and one worker against it; every episode is stored on all sides."""
    suite, run, kind = get_suite("household"), RunSettings(), PolicySettings(kind="expert")
    todo = suite.tasks("train", tasks)
    sides: dict[str, list[float]] = {"alone": [], "one": [], "two": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        two_nodes(1),
        Cluster("auto", RaySettings(workers=2)) as two,
    ):

        def play(name: str, place: Executor, path: Path) -> None:
            policy = place.policy(kind, suite, run.batch)
            with place.memory(path) as memory:
                runner = place.runner(suite, policy, run)
                sides[name].append(seconds(lambda: play_all(runner, todo, memory.add)))

        for turn in range(repeats + 1):  # the first one imports and parses, and does not count
            two.size = 2
            play("alone", IN_PROCESS, Path(folder) / f"alone-{turn}")
            play("two", two, Path(folder) / f"two-{turn}")
            two.size = 1
            play("one", two, Path(folder) / f"one-{turn}")
    alone, one, two_took = (sides[name][1:] for name in ("alone", "one", "two"))
    return {
        "ray_overhead": _ratio(alone, two_took),
        "ray_overhead_one_worker": _ratio(alone, one),
        "episodes_per_second_alone": round(tasks / statistics.median(alone), 1),
        "episodes_per_second_cluster": round(tasks / statistics.median(two_took), 1),
    }


def _ratio(before: Sequence[float], after: Sequence[float]) -> float:
    return round(statistics.median(b / a for b, a in zip(before, after, strict=True)), 3)


def waiting(repeats: int = 3, tasks: int = 48) -> dict[str, float]:
    """How much faster sixteen workers are than one process at a policy that only waits, one episode
    at a time each; the single process plays a sixteenth of the tasks."""
    suite = get_suite("toy")
    run = RunSettings(max_steps=WAITING_STEPS, batch=1)
    todo = _long_enough(suite, tasks * WAITING_WORKERS)
    ratios = []
    with (
        two_nodes(WAITING_WORKERS // 2),
        Cluster("auto", RaySettings(workers=WAITING_WORKERS)) as place,
    ):
        there = place.runner(suite, WaitingPolicy(suite), run)
        here = Runner(suite, WaitingPolicy(suite), run)
        play_all(there, todo[: 2 * WAITING_WORKERS])  # all workers have started
        for _ in range(repeats):
            alone = seconds(lambda: play_all(here, todo[:tasks])) * WAITING_WORKERS
            ratios.append(alone / seconds(lambda: play_all(there, todo)))
    return {"waiting_policy_speedup": round(statistics.median(ratios), 2)}


def _long_enough(suite: Suite, count: int) -> list[ray_kills.Task]:
    """Tasks at which random actions do not succeed by accident: all episodes wait as often."""
    run = RunSettings(max_steps=WAITING_STEPS)
    listed = suite.tasks("train", count + count // 2)
    lost = Runner(suite, RandomPolicy(suite), run).run(listed)
    left = {e.task.identity for e in lost if len(e.steps) == WAITING_STEPS}
    return [task for task in listed if task.identity in left][:count]


def storing(episodes: int = 300) -> dict[str, float]:
    """What storing an episode through the writer adds to storing it, in milliseconds; both wait for
    the disk, one episode after the other, in turns."""
    suite = get_suite("household")
    expert = Runner(suite, load_policy(PolicySettings(kind="expert"), suite))
    made = play_all(expert, suite.tasks("train", episodes))
    extra, alone = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        two_nodes(1),
        Cluster("auto", RaySettings(workers=1)) as place,
        Memory(Path(folder) / "alone") as here,
    ):
        there = place.memory(Path(folder) / "cluster")
        for episode in made:
            alone.append(seconds(lambda: here.add(episode)))  # noqa: B023
            extra.append(seconds(lambda: there.add(episode)) - alone[-1])  # noqa: B023
    return {
        "store_ms": round(1e3 * statistics.median(extra), 3),
        "store_alone_ms": round(1e3 * statistics.median(alone), 3),
    }


def kills(rounds: int = 5) -> dict[str, float]:
    """What became of the episodes of a run in which everything is killed once a round."""
    return ray_kills.count(rounds)


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "overhead": overhead, "waiting": waiting, "storing": storing, "kills": kills,
}  # fmt: skip


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description="Episodes on a cluster.")
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--write", action="store_true", help=f"put the results into {RESULT.name}")
    args = parser.parse_args()
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}: {', '.join(PARTS)}")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    result: dict[str, float] = {}
    for name in args.parts or PARTS:
        result |= PARTS[name]()
        print(name, json.dumps(result), file=sys.stderr, flush=True)
    if args.write:
        before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(json.dumps({**before, **result}, indent=1) + "\n")
    for name, value in result.items():
        print(f"{name:30s} {value:10.3f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
