"""A Java process of our own: it is found, talked to, and gone when we are."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("py4j")

from relive.envs.jvm import JavaError, Jvm, find_java

_HOLDER = """
import os, signal, sys, time
from relive.envs.jvm import Jvm
signal.signal(signal.SIGINT, signal.default_int_handler)
jvm = Jvm([])
child = os.fork() if "fork" in sys.argv else 0
if child or "fork" not in sys.argv:
    print(jvm.pid, child, flush=True)
if "crash" in sys.argv:
    os.abort()
if "end" not in sys.argv:
    time.sleep(60)
"""


def _running(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody asked about does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while _running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _running(pid)


def _start(*how: str) -> tuple["subprocess.Popen[str]", int, int]:
    """A Python process that has a JVM; numbers of the JVM and of a child that was forked."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, *how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert holder.stdout is not None
    jvm, child = map(int, holder.stdout.readline().split())
    return holder, jvm, child


def test_without_java_there_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(JavaError, match=r"garden runs on Java.*apt install default-jre-headless"):
        find_java("garden")


def test_the_java_of_java_home_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text("#!/bin/sh\necho no such thing >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert find_java() == str(java)
    with pytest.raises(JavaError, match=r"garden: .*did not start: no such thing"):
        Jvm([], game="garden")


def test_it_answers_and_closes() -> None:
    with Jvm([], options=["-Dcolour=green"]) as jvm:
        pid = jvm.pid
        assert jvm.alive
        assert jvm.view.java.lang.System.getProperty("colour") == "green"
    assert not jvm.alive
    assert not _running(pid)
    jvm.close()


def test_it_ends_with_its_object() -> None:
    jvm = Jvm([])
    pid = jvm.pid
    del jvm
    assert _gone(pid)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
@pytest.mark.parametrize("how", ["kill", "interrupt", "crash", "end"])
def test_no_orphan_whatever_ends_the_process(how: str) -> None:
    holder, jvm, _ = _start(how)
    try:
        if how == "kill":
            holder.kill()
        elif how == "interrupt":  # as a terminal does: the whole group
            os.killpg(holder.pid, signal.SIGINT)
        assert (
            holder.wait(20)
            == {
                "kill": -signal.SIGKILL,
                "interrupt": -signal.SIGINT,
                "crash": -signal.SIGABRT,
                "end": 0,
            }[how]
        )
        assert _gone(jvm)
    finally:
        holder.kill()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_a_forked_child_does_not_keep_it_alive() -> None:
    holder, jvm, child = _start("fork")
    try:
        assert _running(child)
        holder.kill()
        holder.wait()
        assert _gone(jvm)
        assert _running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_fork_is_told_to_make_its_own() -> None:
    with Jvm([]) as jvm:
        jvm.check_owner()
        child = os.fork()
        if child == 0:
            refused = not jvm.alive
            try:
                jvm.check_owner()
            except RuntimeError as error:
                os._exit(0 if refused and "make an environment here" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert jvm.alive
