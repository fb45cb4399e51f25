"""Workers: a crash, a hang or an exception costs one episode and nothing else."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relive.envs import EnvironmentFailure, EnvPool, Reply, get_suite

ROOT = Path(__file__).resolve().parents[2]


def finish(pool: EnvPool, worker: int, suite: str) -> None:
    """Play one task to its end with the expert."""
    task = get_suite(suite).tasks("train", 1)[0]
    expert = get_suite(suite).expert(task)
    reply = pool.reset(worker, task)
    while not reply.terminated:
        reply = pool.step(worker, expert.act(reply.observation))
    assert reply.info["success"]
    assert reply.reward == 1.0


@pytest.mark.parametrize("workers", [0, 2])
def test_episodes_interleave_and_answer_as_they_finish(workers: int) -> None:
    suite = get_suite("toy")
    tasks = suite.tasks("train", 6)
    waiting = list(tasks)
    playing = {}
    won = []
    with EnvPool("toy", workers, slots=2) as pool:
        assert len(pool) == 2
        for worker in range(2):
            first = waiting.pop()
            playing[worker] = (first, suite.expert(first))
            pool.submit_reset(worker, playing[worker][0])
        while playing:
            for worker, reply in pool.wait(30):
                assert isinstance(reply, Reply)
                task, expert = playing[worker]
                assert reply.info["task"] == task
                assert reply.seconds >= 0
                if not reply.terminated:
                    pool.submit_step(worker, expert.act(reply.observation))
                    continue
                won.append(task.identity)
                del playing[worker]
                if waiting:
                    task = waiting.pop()
                    playing[worker] = (task, suite.expert(task))
                    pool.submit_reset(worker, playing[worker][0])
        assert pool.wait() == []
    assert sorted(won) == sorted(task.identity for task in tasks)


def test_household_is_the_same_in_a_worker_and_here() -> None:
    suite = get_suite("household")
    task = suite.tasks("train", 1)[0]
    with EnvPool("household", 1) as pool, EnvPool("household") as here:
        away, near = pool.reset(0, task), here.reset(0, task)
        expert = suite.expert(task)
        while not near.terminated:
            assert (away.observation, away.info) == (near.observation, near.info)
            action = expert.act(near.observation)
            away, near = pool.step(0, action), here.step(0, action)
        assert away.terminated


def test_a_killed_worker_costs_one_episode(misbehaving: str) -> None:
    tasks = get_suite(misbehaving).tasks("train", 2)
    with EnvPool(misbehaving, 2) as pool:
        pool.reset(0, tasks[0])
        pool.reset(1, tasks[1])
        victim, bystander = pool.process_ids()
        assert victim is not None
        pool.submit_step(0, "hang")
        os.kill(victim, signal.SIGKILL)
        [(worker, failure)] = pool.wait(30)
        assert worker == 0
        assert isinstance(failure, EnvironmentFailure)
        assert failure.reason == "was killed by SIGKILL"
        assert failure.task == tasks[0]
        assert tasks[0].identity in str(failure)
        assert "was killed by SIGKILL, playing task" in str(failure)
        assert pool.process_ids()[0] not in (None, victim)
        assert pool.process_ids()[1] == bystander
        assert isinstance(pool.step(1, "look"), Reply)  # the other episode goes on
        with pytest.raises(RuntimeError, match="plays no task"):
            pool.submit_step(0, "look")
        finish(pool, 0, misbehaving)


def test_a_worker_killed_between_episodes_costs_none(misbehaving: str) -> None:
    with EnvPool(misbehaving, 1) as pool:
        finish(pool, 0, misbehaving)
        pid = pool.process_ids()[0]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        finish(pool, 0, misbehaving)


def test_a_hanging_worker_is_replaced_after_its_timeout(misbehaving: str) -> None:
    task = get_suite(misbehaving).tasks("train", 1)[0]
    with EnvPool(misbehaving, 1, timeout=0.5) as pool:
        pool.reset(0, task)
        started = time.monotonic()
        pool.submit_step(0, "hang")
        assert pool.wait(0.1) == []  # a shorter wait returns empty-handed
        with pytest.raises(RuntimeError, match="is busy"):
            pool.submit_step(0, "look")
        [(_, failure)] = pool.wait()
        assert 0.4 < time.monotonic() - started < 5
        assert isinstance(failure, EnvironmentFailure)
        assert "did not answer step within 0.5 s" in str(failure)
        finish(pool, 0, misbehaving)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("exit", "died with exit code 3"),
        ("raise", "raised ZeroDivisionError in step: on purpose"),
        ("unpicklable", "raised TypeError in step"),
    ],
)
def test_other_ways_to_go_wrong(misbehaving: str, action: str, reason: str) -> None:
    task = get_suite(misbehaving).tasks("train", 1)[0]
    with EnvPool(misbehaving, 1) as pool:
        pool.reset(0, task)
        with pytest.raises(EnvironmentFailure) as caught:
            pool.step(0, action)
        assert caught.value.reason.startswith(reason)
        finish(pool, 0, misbehaving)


def test_in_process_an_exception_costs_one_episode_too(misbehaving: str) -> None:
    task = get_suite(misbehaving).tasks("train", 1)[0]
    with EnvPool(misbehaving) as pool:
        assert pool.process_ids() == [None]
        pool.reset(0, task)
        with pytest.raises(EnvironmentFailure, match="ZeroDivisionError") as caught:
            pool.step(0, "raise")
        assert "of the pool" not in str(caught.value)  # there is one environment
        finish(pool, 0, misbehaving)


def test_a_failure_survives_pickling() -> None:
    failure = EnvironmentFailure("died", 3, get_suite("toy").tasks("train", 1)[0])
    copy = pickle.loads(pickle.dumps(failure))
    assert str(copy) == str(failure)
    assert str(copy).endswith("(number 3 of the pool)")
    assert (copy.reason, copy.worker, copy.task) == (failure.reason, 3, failure.task)


def test_closing_ends_all_workers_even_busy_ones_and_the_pool_refuses_more(
    misbehaving: str,
) -> None:
    pool = EnvPool(misbehaving, 2)
    task = get_suite(misbehaving).tasks("train", 1)[0]
    pool.reset(0, task)
    pool.submit_step(0, "hang")
    pids = [pid for pid in pool.process_ids() if pid is not None]
    started = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - started < 5
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists() or not Path("/proc").exists()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit_reset(0, task)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="workers >= 0"):
        EnvPool("toy", -1)
    with pytest.raises(KeyError, match="no suite 'toi'"):
        EnvPool("toi", 1)


SCRIPT = """
# No main guard, and an import that must not be repeated in workers.
import sys
sys.path[:0] = {paths!r}
print("main runs", flush=True)
from relive.envs import EnvPool, get_suite, register
register("misbehaving", "misbehaving_suite:MisbehavingSuite")
task = get_suite("misbehaving").tasks("train", 1)[0]
try:
    with EnvPool("misbehaving", 2) as pool:
        pool.reset(0, task)
        pool.reset(1, task)
        pool.submit_step(0, "hang")
        print("playing", flush=True)
        pool.wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_reaches_the_parent_only_and_main_is_not_imported_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=[str(Path(__file__).parent)]))
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a process group of its own, so that Ctrl-C can be sent to all of it
        start_new_session=True,
        # A shell's background job ignores SIGINT and passes that on to whatever it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "main runs\n"
        assert process.stdout.readline() == "playing\n"
        os.killpg(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert rest == "interrupted\n"
    assert errors == ""
    assert process.returncode == 0
