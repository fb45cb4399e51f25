"""The whole cycle on two cores in a few minutes: play, remember, retrieve, fine-tune, compare.

    python scripts/demo.py     # what `make demo` runs; leaves runs/demo/summary.json and rounds.png

A memory is filled with the expert's episodes in train rooms. The bundled model then plays tasks in
rooms that it has never seen: heating and cooling, whose procedures it was never taught, and putting
two objects away, where it was never shown that a second one is fetched. It plays them without and
with the memory: the first comparison. Then it plays easy tasks and tasks with two objects in train
rooms itself and is fine-tuned on its successes and the expert's, each under what the memory would
have shown; of heating and cooling nothing is trained on. Last the same unseen tasks again, with the
grown memory and the adapter. So memory earns the procedures, and the adapter the second object.

The settings were chosen on valid rooms. This is a demonstration, not a measurement: for those
see docs/results.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from relive.agent.cli.main import guarded
from relive.agent.evaluation.live import LiveProgress
from relive.agent.evaluation.metrics import Row, paired, summarise
from relive.agent.evaluation.report import console, picture_of_rounds, results_table
from relive.agent.evaluation.statistics import PairedDifference
from relive.agent.events import Phase
from relive.agent.load_policy import load_model
from relive.agent.rundir import RunDirectory, measure
from relive.agent.runner import RunSettings
from relive.doors import rehearsal_of
from relive.envs import get_suite
from relive.memory import Purpose
from relive.memory.episode import Episode
from relive.training.learn import Learner, LearnSettings, Round
from relive.training.lora import LoraSettings
from relive.training.select import SelectSettings

OUT = Path("runs/demo")
HELD_OUT = {
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
    "pick_two_obj_and_place": "two objects",
}
"""Task types that are played in unseen rooms, and what the tables call them."""
TASKS = 144
"""Held-out tasks, spread over these types."""
SETTINGS = LearnSettings(
    rounds=1,
    successes=48,
    most_episodes=64,
    demonstrations=180,
    validation=48,
    types=("easy", "pick_two_obj_and_place"),
    select=SelectSettings(policies=("local", "expert")),
    lora=LoraSettings(steps=120, batch_examples=5, learning_rate=1.5e-3, rehearsal=0.2),
    run=RunSettings(batch=16),
)
"""Chosen on valid rooms."""
NAMES = {
    "none": "without memory",
    "memory": "with memory",
    "both": "with memory and adapter",
}


def main() -> None:
    """Runs or resumes the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT, help=f"run directory ({OUT})")
    parser.add_argument(
        "--split", default="test", help="of the unseen rooms: test (default), valid"
    )
    args = parser.parse_args()
    began, out = time.monotonic(), console()
    out.print(
        f"relive demo: everything goes to {args.out}; stop it with Ctrl-C, run it again to go on\n"
    )
    suite, model = get_suite(SETTINGS.suite), load_model(SETTINGS.policy, SETTINGS.run.batch)
    with (
        LiveProgress() as live,
        Learner(
            args.out, SETTINGS, suite, model, on_event=live.on_event, rehearsal=rehearsal_of(model)
        ) as learner,
    ):
        clock = Stopwatch(learner.directory, began)
        learner.collect_demonstrations()
        start = position_after_demonstrations(learner)
        results = {
            name: held_out(learner, args.split, name, start, live) for name in ("none", "memory")
        }
        live.pause()
        show(results, learner, "Unseen rooms, before learning")
        clock.note("first_comparison_seconds")
        rounds = learner.run()
        results["both"] = held_out(learner, args.split, "both", learner.memory.position, live)
        live.pause()
        show(results, learner, "The same tasks, after learning")
    gained = paired(results["memory"], results["none"])
    learnt = paired(results["both"], results["memory"])
    out.print(f"what memory adds:      {interval(gained)}")
    out.print(f"what the adapter adds: {interval(learnt)}")
    write_summary(args.out, clock, rounds, results)
    for r in rounds:
        out.print(r.line)
    picture, command = args.out / "rounds.png", Path(sys.executable).with_name("relive")
    out.print(f"\npicture: {picture}   summary: {args.out / 'summary.json'}")
    out.print(
        f"next: {command} memory search 'put a hot mug in cabinet' --memory {learner.memory.path}"
    )


class Stopwatch:
    """Seconds that the demo took; what was noted once stands, so that a second `make demo` does not
    shorten it."""

    def __init__(self, directory: RunDirectory, began: float) -> None:
        self.directory, self.began = directory, began

    def note(self, name: str) -> dict[str, float]:
        """Takes down the time under a name, unless it has been, and returns all that was noted."""
        seconds: dict[str, float] = self.directory.read("seconds.json") or {}
        if name not in seconds:
            seconds[name] = round(time.monotonic() - self.began, 1)
            self.directory.write("seconds.json", seconds)
        return seconds


def position_after_demonstrations(learner: Learner) -> int:
    """Where the memory stood then; remembered, so that a resumed demo compares the same."""
    saved = learner.directory.read("held-out.json")
    if saved is None:
        saved = {"position": learner.memory.position}
        learner.directory.write("held-out.json", saved)
    return int(saved["position"])


def held_out(
    learner: Learner, split: str, name: str, position: int, live: LiveProgress
) -> list[Episode]:
    """The same unseen tasks under one condition."""
    live.on_event(Phase(f"unseen rooms, {NAMES[name]}"))
    tasks = learner.suite.tasks(split, TASKS, tuple(HELD_OUT))
    adapter = learner.adapter if name == "both" else ""
    runner = learner.runner(adapter, position, Purpose.EVALUATE, remember=name != "none")
    return measure(learner.directory, f"held-out/{name}", runner, tasks, live.on_event)


def row(name: str, episodes: Sequence[Episode], learner: Learner) -> Row:
    """One condition's results."""
    return summarise(name, episodes, lambda i: learner.memory.meta(i).task.type)


def show(results: dict[str, list[Episode]], learner: Learner, title: str) -> None:
    """Prints each condition, by task type and together."""
    rows = []
    for name, episodes in results.items():
        for kind, short in HELD_OUT.items():
            of_kind = [episode for episode in episodes if episode.task.type == kind]
            rows.append(row(f"{NAMES[name]}: {short}", of_kind, learner))
        rows.append(row(f"{NAMES[name]}: all", episodes, learner))
    console().print(results_table(rows, title))


def write_summary(
    out: Path, clock: Stopwatch, rounds: Sequence[Round], results: dict[str, list[Episode]]
) -> None:
    """The numbers and the picture."""
    rows = {name: summarise(name, episodes, {}) for name, episodes in results.items()}
    summary: dict[str, Any] = {
        **clock.note("seconds"),
        "rounds": [asdict(r) for r in rounds],
        "held_out": {
            name: {"success": r.success, "n": r.n, "low": r.low, "high": r.high}
            for name, r in rows.items()
        },
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    picture_of_rounds(out / "rounds.png", summary["rounds"], summary["held_out"])


def interval(result: PairedDifference) -> str:
    """A paired difference in points."""
    return (
        f"{100 * result.difference:+.0f} points (95 % {100 * result.low:+.0f} to "
        f"{100 * result.high:+.0f}, n = {result.n})"
    )


if __name__ == "__main__":
    sys.exit(guarded("demo", main))
