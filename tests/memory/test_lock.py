"""One writer: the lock names its holder and does not outlive it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relive.memory.storage.lock import WriterLock

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from relive.memory.storage.lock import WriterLock
lock = WriterLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> "subprocess.Popen[str]":
    """A process that holds the lock until it is killed or its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_live_holder_is_named_and_a_dead_one_forgotten(tmp_path: Path) -> None:
    """The error says which process; after SIGKILL the lock is free at once."""
    process = holder(tmp_path / "lock")
    with pytest.raises(
        BlockingIOError, match=rf"process {process.pid} on .* since \d{{4}}-.*mode='r'"
    ):
        WriterLock(tmp_path / "lock")
    process.send_signal(signal.SIGKILL)
    process.wait()
    WriterLock(tmp_path / "lock").release()
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    process.stdout.close()


def test_own_process(tmp_path: Path) -> None:
    """A second writer in the same process is refused, with other advice."""
    with WriterLock(tmp_path / "lock"), pytest.raises(BlockingIOError, match="this very process"):
        WriterLock(tmp_path / "lock")
    WriterLock(tmp_path / "lock").release()


def test_unreadable_label(tmp_path: Path) -> None:
    """Whatever the file says, the lock works."""
    lock = WriterLock(tmp_path / "lock")
    (tmp_path / "lock").write_bytes(os.urandom(20))
    with pytest.raises(BlockingIOError, match="left no name"):
        WriterLock(tmp_path / "lock")
    lock.release()
