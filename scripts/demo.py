"""The whole cycle on two cores in a few minutes: play, remember, retrieve, fine-tune, compare.

    python scripts/demo.py            # what `make demo` runs; leaves runs/demo/summary.json and runs/demo/rounds.png

First a memory is filled with the expert's episodes in train rooms. Then the bundled model plays
tasks in *test* rooms, of types that it never saw bound (heating and cooling), without and with that
memory: the first comparison. Then three rounds of learning on easy types only, in train rooms. Last
the same test tasks again, with the grown memory and the adapter in force.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from relive.agent.cli.main import guarded
from relive.agent.evaluation.metrics import Row, paired, summarise
from relive.agent.evaluation.report import LiveProgress, console, picture_of_rounds, results_table
from relive.agent.events import Phase
from relive.agent.rundir import RunDirectory, measure
from relive.agent.runner import RunSettings
from relive.memory import Memory, Purpose
from relive.memory.episode import Episode
from relive.training.learn import Learner, LearnSettings
from relive.training.lora import LoraSettings

OUT = Path("runs/demo")
HELD_OUT = ("pick_heat_then_place_in_recep", "pick_cool_then_place_in_recep")
SETTINGS = LearnSettings(
    rounds=3,
    successes=36,
    most_episodes=48,
    demonstrations=72,
    validation=60,
    lora=LoraSettings(steps=60),
    run=RunSettings(batch=16),
)


def main() -> None:
    """Runs or resumes the demo."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    began = time.monotonic()
    out = console()
    out.print(
        f"relive demo: everything goes to {OUT}; stop it with Ctrl-C and run it again to go on\n"
    )
    with LiveProgress() as live:
        learner = Learner(OUT, SETTINGS, on_event=live.on_event)
        clock = Stopwatch(learner.directory, began)
        with Memory(learner.memory_path) as memory:
            live.on_event(Phase("expert demonstrations"))
            learner.collect_demonstrations(memory)
            position = held_out_position(learner, memory)
            results = {
                "base": held_out(learner, None, position, "", "base", live),
                "memory": held_out(learner, memory, position, "", "memory", live),
            }
            live.pause()
            show(results, memory, "First comparison: test rooms, task types never seen bound")
            clock.note("first_comparison_seconds")
    with LiveProgress() as live:
        learner.on_event = live.on_event
        rounds = learner.run()
        with Memory(learner.memory_path, mode="w") as memory:
            end = memory.position
            results["memory_and_adapter"] = held_out(
                learner, memory, end, learner.adapter, "memory-and-adapter", live
            )
            live.pause()
            show(results, memory, "After learning on easy types in train rooms")
    gain = paired(results["memory"], results["base"])
    kept = paired(results["memory_and_adapter"], results["memory"])
    out.print(
        f"memory against none: {interval(gain)};  adapter and memory against memory: "
        f"{interval(kept)}"
    )
    summary = {
        **clock.note("seconds"),
        "rounds": [
            {
                "round": r.round,
                "episodes": r.episodes,
                "success": r.success,
                "memory_size": r.memory_size,
                "adapter": r.adapter,
                "validation": r.validation,
            }
            for r in rounds
        ],
        "held_out": {name: cell(row(name, episodes)) for name, episodes in results.items()},
    }
    (OUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    picture_of_rounds(OUT / "rounds.png", summary["rounds"], summary["held_out"])  # type: ignore[arg-type]  # plain JSON
    for r in rounds:
        out.print(r.line)
    out.print(
        f"\nrun directory: {OUT}   picture: {OUT / 'rounds.png'}   summary: {OUT / 'summary.json'}"
    )
    relive = Path(sys.executable).with_name("relive")
    out.print(
        f"next: {relive} memory search 'put a hot mug in cabinet' --memory {learner.memory_path}"
    )


class Stopwatch:
    """Seconds that the demo took; what was noted once stands, so that a second `make demo` does not
    shorten it."""

    def __init__(self, directory: RunDirectory, began: float) -> None:
        self.directory, self.began = directory, began

    def note(self, name: str) -> dict[str, float]:
        """Takes down the time under a name, unless it has been, and returns all that was noted."""
        noted: dict[str, float] = self.directory.read("seconds.json") or {}
        if name not in noted:
            noted[name] = round(time.monotonic() - self.began, 1)
            self.directory.write("seconds.json", noted)
        return noted


def held_out_position(learner: Learner, memory: Memory) -> int:
    """Where the memory stood after the demonstrations; remembered, so that a resumed demo compares
    the same."""
    saved = learner.directory.read("held-out.json")
    if saved is None:
        saved = {"position": memory.position}
        learner.directory.write("held-out.json", saved)
    return int(saved["position"])


def held_out(
    learner: Learner,
    memory: Memory | None,
    position: int,
    adapter: str,
    name: str,
    live: LiveProgress,
) -> list[Episode]:
    """The same test tasks under one condition."""
    live.on_event(Phase(f"test rooms, {name.replace('-', ' ')}"))
    tasks = learner.suite.tasks("test", 64, HELD_OUT)
    runner = learner.runner(adapter, memory, position, Purpose.EVALUATE)
    return measure(learner.directory, f"held-out/{name}", runner, tasks, live.on_event)


def row(name: str, episodes: list[Episode], memory: Memory | None = None) -> Row:
    """One condition's results."""
    return summarise(name, episodes, (lambda i: memory.meta(i).task.type) if memory else {})


def cell(result: Row) -> dict[str, Any]:
    """What the summary keeps of them."""
    return {"success": result.success, "n": result.n, "low": result.low, "high": result.high}


def show(results: dict[str, list[Episode]], memory: Memory, title: str) -> None:
    """Prints the comparison."""
    console().print(
        results_table([row(name, episodes, memory) for name, episodes in results.items()], title)
    )


def interval(result: Any) -> str:
    """A paired difference in points."""
    return (
        f"{100 * result.difference:+.0f} points (95 % {100 * result.low:+.0f} to "
        f"{100 * result.high:+.0f}, n = {result.n})"
    )


if __name__ == "__main__":
    sys.exit(guarded("demo", main))
