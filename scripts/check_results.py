"""Recomputes committed results from the committed per-episode records, and replays a sample from
the committed weights.

    python scripts/check_results.py               # recompute docs/results/*.json; seconds
    python scripts/check_results.py --rerun 40    # also play 40 episodes of each again; minutes

The replay fills a memory with the same demonstrations anew (the expert is deterministic),
retrieves, plays, and compares retrieved tasks, actions and outcome one by one. Of a study it
replays what read the expert's memory: the agent's own would have to be lived again, as would the
lives of a stream, which are only recomputed.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from eval_base_model import RESULTS, retrievers, rows_of
from methods_table import gathered

from relive.agent.collect import collect_demonstrations
from relive.agent.evaluation.live import LiveProgress
from relive.agent.evaluation.records import REPLAYED, Record, read, record
from relive.agent.evaluation.terminal import say
from relive.agent.llm.weights import BUNDLED, hash_weights
from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.runner import Runner, RunSettings, play_all
from relive.agent.settings import build
from relive.envs import get_suite
from relive.memory import Memory
from relive.training.experiments.stream.publish import disagreements as stream_disagreements
from relive.training.experiments.study.arms import Cell
from relive.training.experiments.study.results import WEIGHTS, adapters_of
from relive.training.experiments.study.results import disagreements as study_disagreements
from relive.training.experiments.study.settings import StudySettings
from relive.training.experiments.study.tasks import tasks_for
from relive.training.experiments.study.work import fill_memory, replay_cell

Loaded = tuple[dict[str, Any], list[Record]]


def load(name: str = "base-model") -> Loaded:
    """A committed summary and its records."""
    return json.loads((RESULTS / f"{name}.json").read_text()), read(
        RESULTS / f"{name}-episodes.jsonl.gz"
    )


def disagreements(summary: dict[str, Any], records: list[Record]) -> list[str]:
    """What in the base model's summary does not follow from the records or the shipped weights;
    empty when all does."""
    found = []
    shipped = hash_weights(BUNDLED)
    if summary["weights_sha256"] != shipped:
        found.append(
            f"the summary is of weights {summary['weights_sha256'][:12]}, shipped are "
            f"{shipped[:12]}"
        )
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


def differences(now: Record, before: Record) -> list[str]:
    """What came out differently when an episode was played again."""
    now = json.loads(json.dumps(now))
    return [
        f"{before.get('condition', before['memory'])}, task {before['task']}: {key} differ: "
        f"{now[key]} now, "
        f"{before[key]} committed"
        for key in REPLAYED
        if now[key] != before[key]
    ]


def replay(summary: dict[str, Any], records: list[Record], count: int, seed: int) -> list[str]:
    """Plays a sample of the base model's episodes again; returns what came out differently."""
    suite = get_suite("household")
    sample = random.Random(seed).sample(records, min(count, len(records)))
    per_type = max(
        sum(r["task_type"] == t and r["memory"] == "empty" for r in records) for t in suite.types
    )
    tasks = {t.identity: t for t in suite.tasks(summary["split"], per_type * len(suite.types))}
    made = load_model(PolicySettings())
    found = []
    with (
        LiveProgress() as live,
        tempfile.TemporaryDirectory() as folder,
        Memory(Path(folder) / "m") as memory,
    ):
        collect_demonstrations(memory, suite, summary["demonstrations"], on_event=live.on_event)
        for name, retriever in retrievers(memory, suite, made.count_tokens).items():
            wanted = {r["task"]: r for r in sample if r["memory"] == name}
            runner = Runner(suite, made, RunSettings(), retriever)
            for episode in play_all(runner, [tasks[identity] for identity in wanted]):
                found += differences(
                    record(episode, {}, memory, retriever, made.count_tokens),
                    wanted[episode.task.identity],
                )
    return found


def replay_study(
    name: str, summary: dict[str, Any], records: list[Record], count: int, seed: int
) -> list[str]:
    """Plays a sample of a study's episodes again, with the committed adapters; returns what came
    out differently."""
    settings = build(StudySettings, summary["settings"], stored=True)
    settings = replace(
        settings, control=str(RESULTS / name / "control") if settings.control else ""
    )
    suite = get_suite(settings.suite)
    adapters = RESULTS / name / "adapters"
    again = [
        r
        for r in records
        if r["source"] == "expert"
        and all((adapters / a / WEIGHTS).exists() for a in adapters_of(r))
    ]
    sample = random.Random(seed).sample(again, min(count, len(again)))
    cells: dict[Cell, dict[str, Record]] = {}
    for r in sample:
        cell = Cell(**{f.name: r[f.name] for f in fields(Cell) if f.name in r})
        cells.setdefault(cell, {})[r["task"]] = r
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        if adapters.exists():
            shutil.copytree(adapters, path / "adapters")
        for number in sorted({cell.seed for cell in cells}):
            fill_memory(path, settings, number)
        for cell, wanted in cells.items():
            tasks = [
                t
                for t in tasks_for(settings, suite, cell.seed, cell.sealed)
                if t.identity in wanted
            ]
            for now in replay_cell(path, settings, cell, tasks):
                found += differences(now, wanted[now["task"]])
    return found


def main() -> int:
    """Checks, and says what disagrees."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rerun", type=int, default=0, metavar="N", help="play N recorded episodes of each again"
    )
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    args = parser.parse_args()
    found: list[str] = []

    def check(
        name: str, loaded: Loaded, wrong: Iterable[str], play: Callable[[], list[str]] | None = None
    ) -> None:
        summary, records = loaded
        mine = list(wrong)
        print(
            f"{name}: {len(records)} records, {len(summary['rows'])} rows recomputed: "
            f"{_verdict(mine)}"
        )
        if args.rerun and play:
            again = play()
            print(f"{name}: {args.rerun} episodes replayed: {_verdict(again)}")
            mine += again
        found.extend(mine)

    base = load()
    check("base-model", base, disagreements(*base), lambda: replay(*base, args.rerun, args.seed))
    for file in sorted(RESULTS.glob("study-*.json")):
        study = load(file.stem)
        wrong = study_disagreements(*study, hash_weights(BUNDLED), RESULTS / file.stem / "adapters")
        check(
            file.stem, study, wrong,
            lambda name=file.stem, study=study: replay_study(name, *study, args.rerun, args.seed),
        )  # fmt: skip
    for file in sorted(RESULTS.glob("stream-*.json")):
        stream = load(file.stem)
        check(file.stem, stream, stream_disagreements(*stream, hash_weights(BUNDLED)))
    table = RESULTS / "methods.json"
    if table.exists():
        then, now = json.loads(table.read_text()), gathered()
        wrong = [f"methods.json: {part} differ: run scripts/methods_table.py"
                 for part in now if now[part] != then.get(part)]  # fmt: skip
        print(f"methods: {len(then['rows'])} rows made again: {_verdict(wrong)}")
        found += wrong
    say("\n".join(found), lines=True)
    return 1 if found else 0


def _verdict(found: list[str]) -> str:
    return "DISAGREE" if found else "agree"


if __name__ == "__main__":
    sys.exit(main())
