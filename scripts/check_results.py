"""Recomputes committed results from the committed per-episode records, and replays a sample from the committed weights.

    python scripts/check_results.py               # recompute docs/results/base-model.json; seconds
    python scripts/check_results.py --rerun 40    # also play 40 recorded episodes again; minutes

The replay fills a memory with the same demonstrations anew (the expert is deterministic), retrieves, plays, and compares
retrieved tasks, actions and outcome one by one.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from eval_base_model import RESULTS, recallers, rows_of

from agent.assemble import BUNDLED, PolicySettings, assemble
from agent.demonstrate import demonstrate
from agent.records import REPLAYED, read, record
from agent.report import LiveProgress
from agent.runner import Runner, RunSettings, play_all
from agent.weights import hash_weights
from envs import get_suite
from memory import ExperienceMemory


def load() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The committed summary and its records."""
    summary = json.loads((RESULTS / "base-model.json").read_text())
    return summary, read(RESULTS / "base-model-episodes.jsonl.gz")


def disagreements(summary: dict[str, Any], records: list[dict[str, Any]]) -> list[str]:
    """What in the summary does not follow from the records or the shipped weights; empty when all does."""
    found = []
    shipped = hash_weights(BUNDLED)
    if summary["weights_sha256"] != shipped:
        found.append(f"the summary is of weights {summary['weights_sha256'][:12]}, shipped are {shipped[:12]}")
    if any(r["weights_sha256"] != shipped for r in records):
        found.append("some records are of other weights than the shipped ones")
    recomputed = rows_of(records)
    if recomputed != summary["rows"]:
        found += [
            f"row differs: {a} recomputed, {b} committed"
            for a, b in zip(recomputed, summary["rows"], strict=False)
            if a != b
        ]
        if len(recomputed) != len(summary["rows"]):
            found.append(f"{len(recomputed)} rows recomputed, {len(summary['rows'])} committed")
    keys = [(r["task"], r["memory"], r["k"]) for r in records]
    if len(set(keys)) != len(keys):
        found.append("a task is recorded twice under one condition")
    return found


def replay(summary: dict[str, Any], records: list[dict[str, Any]], count: int, seed: int) -> list[str]:
    """Plays a sample again; returns what came out differently."""
    suite = get_suite("household")
    sample = random.Random(seed).sample(records, min(count, len(records)))
    per_type = max(sum(r["task_type"] == t and r["memory"] == "empty" for r in records) for t in suite.types)
    tasks = {t.identity: t for t in suite.tasks(summary["split"], per_type * len(suite.types))}
    made = assemble(PolicySettings(), suite)
    found = []
    with (
        LiveProgress() as live,
        tempfile.TemporaryDirectory() as folder,
        ExperienceMemory.open(Path(folder) / "m", mode="create") as memory,
    ):
        demonstrate(memory, suite, summary["demonstrations"], announce=live.announce)
        for name, recall in recallers(memory, suite, made.count).items():
            wanted = {r["task"]: r for r in sample if r["memory"] == name}
            runner = Runner(suite, made.policy, made.actor, RunSettings(), recall)
            for episode in play_all(runner, [tasks[identity] for identity in wanted]):
                before = wanted[episode.task.identity]
                now = json.loads(json.dumps(record(episode, {}, memory, recall, made.count)))
                for key in REPLAYED:
                    if now[key] != before[key]:
                        found.append(
                            f"{name} memory, task {before['task']}: {key} differ: {now[key]} now, {before[key]} committed"
                        )
    return found


def main() -> int:
    """Checks, and says what disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rerun", type=int, default=0, metavar="N", help="play N recorded episodes again")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    args = parser.parse_args()
    summary, records = load()
    found = disagreements(summary, records)
    print(f"{len(records)} records, {len(summary['rows'])} rows recomputed: {'agree' if not found else 'DISAGREE'}")
    if args.rerun:
        again = replay(summary, records, args.rerun, args.seed)
        print(f"{min(args.rerun, len(records))} episodes replayed: {'agree' if not again else 'DISAGREE'}")
        found += again
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
