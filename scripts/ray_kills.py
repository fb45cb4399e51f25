"""A run on two nodes in which workers, writer, nodes and driver are killed again and again, and a
count of what became of its episodes.

    python scripts/bench_ray.py kills           # calls this
    python scripts/ray_kills.py drive …         # the driver, which is killed; not for people

A kill hits the middle of the run: so many episodes after the one before. What counts is what the
driver was told is stored, what the memory holds in the end, and what one process would have made of
the same tasks.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from relive.agent.cluster.executor import executor
from relive.agent.cluster.settings import RaySettings
from relive.agent.collect import collect
from relive.agent.conversation import Action, Asked
from relive.agent.events import EpisodeEnded, Event
from relive.agent.policy import ExpertPolicy, RandomPolicy, words
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import Runner, RunSettings, play_all, spec_of
from relive.envs import Task, get_suite
from relive.memory import Episode, Memory, Purpose, Retrieval
from relive.memory.storage import codec

OBJECT_STORE_BYTES = 80 * 2**20
SUITE = get_suite("household")
RUN = RunSettings(batch=2, max_steps=20, seed=3)
BEFORE, BETWEEN = 24, 12
"""Episodes that the memory holds before, and that are stored between two kills."""
WAIT_SECONDS = 0.02
MARK = "RELIVE_KILLS"
"""Variable that all processes of a trial inherit, so that nobody else's are killed."""
KINDS = ("worker", "writer", "node", "driver", "head")
LONGEST_SECONDS = 120.0
PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""A driver gives a head up that does not come back; Ray's own patience is a minute."""


class SlowPolicy(RandomPolicy):
    """Takes its time, so that kills hit episodes that are being played."""

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        """Random actions, later."""
        time.sleep(WAIT_SECONDS)
        return super().answer(asked)


def lean(cpus: int) -> dict[str, Any]:
    """A node that takes little of this machine."""
    return {"num_cpus": cpus, "object_store_memory": OBJECT_STORE_BYTES}


def start_cluster(cpus: int) -> Any:
    """A cluster with one node of so many CPUs."""
    import ray.cluster_utils

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return ray.cluster_utils.Cluster(
        initialize_head=True, head_node_args={**lean(cpus), "include_dashboard": False}
    )


def essence(episodes: Iterable[Episode]) -> dict[str, bytes]:
    """The stored bytes of each task's episode, without its id and its times."""
    plain = [replace(e, id="one", started=0.0, timings={}) for e in episodes]
    return {e.task.identity: codec.prepare(e).payload for e in plain}


def retriever(memory: Memory, at: int) -> MemoryRetriever:
    """Retrieval at a fixed position, so that nothing depends on what ended first."""
    return MemoryRetriever(memory, spec_of(SUITE), words, Retrieval(k=2), Purpose.ACT, at)


def drive(address: str, folder: Path, tasks: int, at: int) -> None:
    """Plays what is not played yet and notes, line by line, what it was told is stored."""
    with (folder / "acknowledged").open("a") as noted:

        def note(event: Event) -> None:
            if isinstance(event, EpisodeEnded):
                noted.write(event.episode.id + "\n")
                noted.flush()

        with (
            executor(f"ray://{address}", RaySettings(workers=4, losses=30)) as place,
            place.memory(folder / "memory") as memory,
        ):
            runner = place.runner(SUITE, SlowPolicy(SUITE), RUN, retriever(memory, at))
            for _ in collect(memory, runner, SUITE.tasks("train", tasks), since=at, on_event=note):
                pass


@dataclass
class Trial:
    """A run, and who is killed in it."""

    folder: Path
    tasks: int
    at: int
    cluster: Any = None
    second: Any = None
    driver: subprocess.Popen[bytes] | None = None
    done: Counter[str] = field(default_factory=Counter)

    def begin(self) -> None:
        """Starts whatever of cluster and driver is not there."""
        if self.cluster is None:
            self.cluster = start_cluster(2)
        if self.second is None:
            self.second = self.cluster.add_node(**lean(2))
        if self.driver is None:
            self.driver = subprocess.Popen(
                [sys.executable, __file__, "drive", self.cluster.address, str(self.folder),
                 str(self.tasks), str(self.at)],
                stdout=sys.stderr,
                env={**os.environ, **PATIENCE},
            )  # fmt: skip

    @property
    def acknowledged(self) -> list[str]:
        """Ids of the episodes that a driver was told are stored."""
        file = self.folder / "acknowledged"
        return file.read_text().split() if file.exists() else []

    def kill(self, kind: str) -> None:
        """Kills one of `KINDS` with all that is on it."""
        assert self.driver is not None
        if kind == "worker":
            os.kill(next(processes("ray::Rollout")), signal.SIGKILL)
        elif kind == "writer":
            os.kill(json.loads((self.folder / "memory" / "lock").read_text())["pid"], 9)
        elif kind == "node":
            self.cluster.remove_node(self.second, allow_graceful=False)
            self.second = None
        elif kind == "driver":
            self.driver.kill()
        else:
            self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        if kind in ("driver", "head"):
            self.driver.wait(LONGEST_SECONDS)  # the loss of its node ends it, too
            self.driver = None
        if kind == "head":
            self.cluster.shutdown()
            self.cluster = self.second = None
        self.done[kind] += 1

    def wait(self, count: int) -> bool:
        """Waits until so many are stored; False once the driver has ended by itself."""
        assert self.driver is not None
        until = time.monotonic() + LONGEST_SECONDS
        while len(self.acknowledged) < count:
            if self.driver.poll() is not None:
                return False
            if time.monotonic() > until:
                raise TimeoutError(f"stuck at {len(self.acknowledged)} episodes: {self.done}")
            time.sleep(0.01)
        return True

    def end(self) -> None:
        """Stops everything."""
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
        if self.cluster is not None:
            self.cluster.shutdown()


def processes(title: str) -> Iterator[int]:
    """Processes of this trial whose command line begins with something."""
    own = f"{MARK}={os.environ[MARK]}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = (folder / "cmdline").read_bytes().startswith(title.encode())
            if named and own in (folder / "environ").read_bytes():
                yield int(folder.name)
        except OSError:
            continue


def count(rounds: int) -> dict[str, float]:
    """Kills everything once a round, and counts what is lost, doubled, or another episode than one
    process makes."""
    os.environ[MARK] = uuid.uuid4().hex
    planned = [kind for _ in range(rounds) for kind in KINDS]
    tasks = BETWEEN * (len(planned) + 1)
    todo = SUITE.tasks("train", tasks)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Memory(folder / "memory") as memory:
            demonstrations = SUITE.tasks("train", BEFORE, start=tasks)
            memory.add_many(play_all(Runner(SUITE, ExpertPolicy(SUITE)), demonstrations))
            at = memory.position
        trial = Trial(folder, tasks, at)
        began = time.monotonic()
        try:
            trial.begin()
            for number, kind in enumerate(planned, start=1):
                if not trial.wait(number * BETWEEN):
                    break
                trial.kill(kind)
                trial.begin()
            if trial.driver is not None:
                trial.driver.wait(LONGEST_SECONDS)
            status = trial.driver.returncode if trial.driver else None
        finally:
            trial.end()
        print(f"{dict(trial.done)}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        with Memory(folder / "memory", "r") as memory:
            stored = list(memory.iterate())[BEFORE:]
            assert memory.verify() == ()
            alone = play_all(Runner(SUITE, RandomPolicy(SUITE), RUN, retriever(memory, at)), todo)
        told = trial.acknowledged
    if status != 0 or trial.done.total() != len(planned):
        raise RuntimeError(f"the run ended with {status} after {trial.done}")
    here, times = essence(stored), Counter(e.task.identity for e in stored)
    ids = Counter(e.id for e in stored)
    expected = essence(alone)
    return {
        "kills": trial.done.total(),
        "lost": sum(t.identity not in times for t in todo) + sum(i not in ids for i in told),
        "doubled": sum(times.values()) - len(times) + sum(n - 1 for n in Counter(told).values()),
        "differing": sum(here.get(task) != made for task, made in expected.items()),
        "kill_episodes": len(stored),
        **{f"kills_{kind}": trial.done[kind] for kind in KINDS},
    }


def main() -> None:
    """The driver."""
    parser = argparse.ArgumentParser(description="Plays tasks on a cluster and notes its episodes.")
    parser.add_argument("command", choices=["drive"])
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("tasks", type=int)
    parser.add_argument("at", type=int)
    args = parser.parse_args()
    drive(args.address, args.folder, args.tasks, args.at)


__all__ = ["Task", "count", "lean", "start_cluster"]

if __name__ == "__main__":
    main()
