"""What the live view of a run costs.

    python scripts/bench_live.py

A process whose output is a terminal runs thousands of short episodes of the toy suite, played by
its expert and stored in a memory as `relive run` does (`--bare` leaves that out: 0.2 ms an
episode), by turns with the view, without, and without once more, and says how much longer it took
with it: the median over the turns, of seconds and of the processor's time (which other programs
disturb less). The third says how far two turns without a view are apart, which is noise. The view's
share of any run with a model is smaller.
"""

import argparse
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from relive.agent.collect import collect
from relive.agent.evaluation.live import LiveProgress
from relive.agent.events import EpisodeEnded, OnEvent, Phase, TasksPlanned, ignore
from relive.agent.policy import ExpertPolicy
from relive.agent.runner import Runner, RunSettings
from relive.envs import Suite, Task, get_suite
from relive.memory import Memory


def play(suite: Suite, tasks: list[Task], on_event: OnEvent, bare: bool) -> tuple[float, float]:
    """Seconds, and seconds of the processor."""
    runner = Runner(suite, ExpertPolicy(suite), RunSettings(batch=1))
    with tempfile.TemporaryDirectory() as folder, Memory(folder) as memory:
        wall, cpu = time.perf_counter(), time.process_time()
        on_event(Phase("playing"))
        if bare:
            on_event(TasksPlanned(len(tasks)))
            for number, episode in enumerate(runner.run(tasks)):
                on_event(EpisodeEnded(episode, number))
        else:
            for _ in collect(memory, runner, tasks, on_event=on_event):
                pass
        return time.perf_counter() - wall, time.process_time() - cpu


def measure(episodes: int, turns: int, out: Path, bare: bool) -> None:
    """In the process on the terminal."""
    suite = get_suite("toy")
    tasks = suite.tasks("train", episodes)
    play(suite, tasks, ignore, bare)
    rows = []
    for turn in range(turns):
        row: dict[str, tuple[float, float]] = {}
        names = ["watched", "alone", "again"]
        for name in names[turn % 3 :] + names[: turn % 3]:
            if name == "watched":
                with LiveProgress() as live:
                    row[name] = play(suite, tasks, live.on_event, bare)
            else:
                row[name] = play(suite, tasks, ignore, bare)
        rows.append(row)
    out.write_text(json.dumps(rows))


def main() -> None:
    """Measures in a process on a pseudo-terminal, and prints the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=10_000, help="of each turn")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--bare", action="store_true", help="play, and store nothing")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.episodes, args.turns, args.measure, args.bare)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        options = ["--episodes", str(args.episodes), "--turns", str(args.turns)]
        options += ["--bare"] if args.bare else []
        argv = [sys.executable, __file__, *options, "--measure", str(out)]
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            argv, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        os.close(theirs)
        shown = 0
        try:
            while data := os.read(ours, 1 << 16):
                shown += len(data)
        except OSError:
            pass  # how the end of a terminal is told
        if process.wait():
            raise SystemExit("the measured process failed")
        rows = json.loads(out.read_text())
    result: dict[str, float] = {"episodes": args.episodes, "turns": args.turns, "shown": shown}
    for i, name in enumerate(("seconds", "processor")):
        alone = statistics.median(row["alone"][i] for row in rows)
        share, noise = (
            statistics.median(row[which][i] / row["alone"][i] - 1 for row in rows)
            for which in ("watched", "again")
        )
        result |= {name: round(alone, 3), f"{name}_share": round(share, 5)}
        result[f"{name}_noise"] = round(noise, 5)
        print(
            f"{name}: {alone:.2f} alone, {100 * share:+.2f} % with the view, "
            f"{100 * noise:+.2f} % alone again"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
