"""Real SIGKILLs at random moments of a real writer: nothing that was acknowledged is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memory import ExperienceMemory, Purpose, Query, Viewer

ROOT = Path(__file__).parents[2]
WRITER = """
import os, sys
from memory import *
from memory import space
space.EXACT_LIMIT = space.LEAST_TAIL = 40  # so that snapshots are published all the time, too
memory = ExperienceMemory.open(sys.argv[1], "create")
start = len(memory)
os.write(1, b"open %d\\n" % start)
number = start
while True:
    batch = []
    for _ in range(1 + number % 3):
        task = TaskRecord("s", f"game {number}", "heat", "train", f"r{number}", number, "1", f"make{number} it")
        steps = tuple(Step("You see nothing. " * (number % 50), f"go {step}") for step in range(number % 7))
        outcome = Outcome(True, 1.0, StopReason.SOLVED)
        batch.append(Episode(f"episode-{number}", task, steps, "", outcome, Actor("expert")))
        number += 1
    memory.add_many(batch)
    os.write(1, b"".join(b"%s\\n" % episode.id.encode() for episode in batch))
"""


def kill_writers(folder: Path, kills: int, seed: int) -> tuple[int, int]:
    """Let writers add to one memory and kill each at a random moment; number of acknowledgements and of torn tails."""
    draw = random.Random(seed)
    acknowledged: list[str] = []
    torn = 0
    for _ in range(kills):
        # Acknowledgements go through a pipe to this process, which outlives the writer.
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout
        if draw.random() < 0.8:  # else: killed while it starts, opens and recovers
            assert writer.stdout.readline().startswith(b"open")
        time.sleep(draw.random() * 0.1)
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().decode()
        writer.stdout.close()
        writer.wait()
        # A line may be cut by the kill; only whole ones are acknowledgements.
        acknowledged += [line for line in rest.split("\n")[:-1] if line.startswith("episode-")]
        if not (folder / "memory.json").exists():
            assert not acknowledged
            continue
        with ExperienceMemory.open(folder) as memory:
            missing = [episode_id for episode_id in acknowledged if episode_id not in memory]
            assert not missing, missing
            torn += bool(memory.stats().damage)
            assert all("not a complete record" in damage.detail for damage in memory.stats().damage)
    with ExperienceMemory.open(folder, "w") as memory:
        assert len(set(acknowledged)) == len(acknowledged)
        assert [episode.id for episode in memory.iterate()] == [f"episode-{number}" for number in range(len(memory))]
        viewer = Viewer("me", "test", "here", "rest", Purpose.EVALUATE)
        for number in draw.sample(range(len(memory)), min(50, len(memory))):
            (hit,) = memory.search(Query(f"make{number} it", k=1), viewer)
            assert hit.score == pytest.approx(1.0)
    return len(acknowledged), torn


def test_no_acknowledged_episode_is_lost(tmp_path: Path) -> None:
    """Fifty kills of writers of the same memory."""
    acknowledged, _ = kill_writers(tmp_path / "experience", 50, seed=0)
    assert acknowledged > 100


@pytest.mark.slow
def test_no_acknowledged_episode_is_lost_in_five_hundred_kills(tmp_path: Path) -> None:
    """The same, longer."""
    for seed in range(10):
        kill_writers(tmp_path / f"experience-{seed}", 50, seed=seed)
