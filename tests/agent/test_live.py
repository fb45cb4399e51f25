"""The view of a run while it goes on: what it counts, what a terminal shows of it, what a log file
does, and what it costs."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from relive.agent.evaluation import live as live_module
from relive.agent.evaluation.live import LiveProgress, Standing
from relive.agent.events import EpisodeEnded, Phase, RoundEnded, TasksPlanned, TrainingStep
from relive.memory import Actor, Episode, Outcome, Step, StopReason, Task

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ended(reason: StopReason = StopReason.SOLVED, steps: int = 5, adapter: str = "") -> Episode:
    success = reason is StopReason.SOLVED
    return Episode(
        "e",
        Task("toy", "t", "fetch", "train", "", 1, "1", "a goal"),
        (Step("A barn.", "look"),) * steps,
        "Done.",
        Outcome(success, float(success), reason),
        Actor("local", adapter=adapter),
    )


def test_what_is_counted() -> None:
    """Success without the episodes that an environment broke, pace, memory, adapter, time left."""
    clock = Clock()
    standing = Standing(clock)
    assert (standing.told(), standing.left) == ([], None)
    standing.begin(40)
    for number in range(10):
        clock.now += 2
        reason = StopReason.ENVIRONMENT_ERROR if number == 9 else StopReason.SOLVED
        standing.episode(
            ended(StopReason.FAILED if number < 3 else reason, adapter="v2"), 300 + number
        )
    assert standing.told() == [
        "6/9 solved, success 66.7 % (35.4–87.9)", "1 lost", "2.5 actions/s", "memory 309",
        "adapter v2",
    ]  # fmt: skip
    assert standing.left == pytest.approx(60)
    standing.begin(5)
    assert (standing.told(), standing.left) == (["memory 309"], None)
    standing.episode(ended(), None)
    assert standing.told()[0] == "1/1 solved, success 100.0 % (20.7–100.0)"
    assert standing.told()[-1] == "no adapter"


def test_losses_and_where_they_go() -> None:
    """Of a training that was stopped, the time left is that of what is still to do."""
    clock = Clock()
    standing = Standing(clock)
    for number in range(101, 121):
        clock.now += 3
        standing.step(number, 140, 2.0 - number / 100)
    assert standing.told() == ["loss 0.800 falling"]
    assert standing.left == pytest.approx(57 / 20 * 20)  # the clock began with the first step
    for number, loss in enumerate([0.8] * 10 + [0.801] * 10, start=1):
        standing.step(number, 40, loss)
    assert standing.told() == ["loss 0.801 level"]
    for number in range(20):
        standing.step(21 + number, 40, 0.9 + number)
    assert standing.trend == "rising"
    standing.begin(3)
    assert (standing.training, standing.told()) == (False, [])


def test_lines_where_no_terminal_is(capfd: pytest.CaptureFixture[str]) -> None:
    """Every phase says how far it came, with its interval, before the next begins."""
    clock = Clock()
    with LiveProgress(clock) as live:
        live.on_event(Phase("playing"))
        live.on_event(TasksPlanned(60))
        for _ in range(24):
            clock.now += 0.5
            live.on_event(EpisodeEnded(ended(), 7))
        live.on_event(Phase("fine-tuning"))
        for number in range(1, 9):
            live.on_event(TrainingStep(number, 8, 1.0 / number))
        live.on_event(RoundEnded(1, "round 1: kept"))
    assert capfd.readouterr().err.splitlines() == [
        "[0:00:00] playing",
        "[0:00:10] playing: 20/60, 20/20 solved, success 100.0 % (83.9–100.0), 10.0 actions/s, "
        "memory 7, no adapter, 0:00:20 left",
        "[0:00:12] playing: 24/60, 24/24 solved, success 100.0 % (86.2–100.0), 10.0 actions/s, "
        "memory 7, no adapter, 0:00:18 left",
        "[0:00:12] fine-tuning",
        "[0:00:12] round 1: kept",
    ]  # fmt: skip


PLAYED = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from tests.agent.test_live import *
live_module.DRAWN = 20
with LiveProgress() as live:
    live.on_event(Phase("playing \\x1b[2J"))
    live.on_event(TasksPlanned(4))
    for number in range(4):
        live.on_event(EpisodeEnded(ended(adapter="v\\x1b]3"), 11 + number))
        time.sleep(0.7)
    live.pause()
    print("between")
    live.on_event(Phase("fine-tuning"))
    for number in range(1, 31):
        live.on_event(TrainingStep(number, 30, 3.0 / number))
    time.sleep(0.7)
    print("printed meanwhile")
"""


def on_a_terminal(code: str) -> str:
    """What a program shows on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 1 << 16):
            shown += data
    except OSError:
        pass  # how the end of a terminal is told
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_shows_all_of_it() -> None:
    """While it goes on, and one line of each phase that stays; nothing commands the terminal."""
    shown = on_a_terminal(PLAYED)
    for seen in ("1/4", "3/4", "success 100.0 %", "actions/s", "memory 14", "0:00:01 left", "loss"):
        assert seen in shown, seen
    assert shown.count("between") == shown.count("printed meanwhile") == 1
    for command in ("\x1b[2J", "\x1b]"):
        assert command not in shown
    kept = r"playing \x1b[2J: 4/4, 4/4 solved, success 100.0 % (51.0–100.0)"
    assert shown.count(kept) == 1
    assert r"adapter v\x1b]3" in shown
    assert shown.index(kept) < shown.index("between") < shown.index("fine-tuning")
    assert shown.count("fine-tuning: 30/30, loss 0.100 falling") == 1


def test_events_only_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn or reckoned where an episode ends: thousands of them cost nothing."""
    monkeypatch.setattr(live_module, "wilson", lambda *_: pytest.fail("reckoned"))
    clock = Clock()
    with LiveProgress(clock) as live:
        live.on_event(TasksPlanned(5000))
        for _ in range(5000):
            live.on_event(EpisodeEnded(ended(), 1))
        monkeypatch.undo()
