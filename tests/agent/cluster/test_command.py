"""The command line with a cluster of its own, as a person uses it: begun, stopped, gone on with."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relive.memory import Memory

pytest.importorskip("relive.agent.cluster.calls", exc_type=ImportError)
pytestmark = [pytest.mark.ray, pytest.mark.slow]
MARK = "RELIVE_TEST_COMMAND"
SLOW = """
import time
from relive.agent.policy import RandomPolicy
from relive.envs import get_suite

class Slow(RandomPolicy):
    def __init__(self):
        super().__init__(get_suite("toy"))

    def answer(self, asked):
        time.sleep(0.1)
        return super().answer(asked)
"""


def processes(mark: str) -> Iterator[str]:
    """Command lines of the processes that were started with a mark in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks at /proc")
def test_ctrl_c_ends_everything_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    command = [
        *(sys.executable, "-m", "relive", "run", "--suite", "toy", "--policy", "slow:Slow"),
        *("--tasks", "40", "--batch", "2", "--memory", "m", "--on", "ray"),
        *("--set", "ray.workers=2", "--set", f"ray.working_dir={tmp_path}"),
    ]
    mark = f"{MARK}={tmp_path}"
    how = {"cwd": tmp_path, "env": {**os.environ, MARK: str(tmp_path)}}
    first = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, **how)
    until = time.monotonic() + 60
    while not (tmp_path / "m" / "log").exists() or not any(
        log.stat().st_size > 4000 for log in (tmp_path / "m" / "log").iterdir()
    ):
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    assert any("ray::Rollout" in line for line in processes(mark))
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    assert first.stderr is not None
    assert "the same command goes on where this one stopped" in first.stderr.read().decode()
    assert first.wait() == 130
    while any(processes(mark)):
        assert time.monotonic() < until + 30, list(processes(mark))
        time.sleep(0.1)
    with Memory(tmp_path / "m", "r") as memory:
        stored = len(memory)
        assert 0 < stored < 40
    second = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    assert second.returncode == 0, second.stderr
    assert f"{40 - stored} episodes added to m; {stored} tasks were there already" in second.stdout
    with Memory(tmp_path / "m", "r") as memory:
        assert len({entry.task.identity for entry in memory.entries()}) == len(memory) == 40
