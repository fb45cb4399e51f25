"""Measures the bundled base model: does it read procedures out of its memory block?

    # plays; resumable; about 20 minutes on two cores
    python scripts/eval_base_model.py --out runs/base-model
    # and writes docs/results/base-model.json + records
    python scripts/eval_base_model.py --out runs/base-model --commit

Every test-room task is played three times: with *matching* memory (one index of all six types,
built from the expert's episodes in train rooms, retrieval by text alone), with memory of *other*
types (the same index without the type under test, cut to at most the token length of the matching
block; both lengths are reported), and with an *empty* memory. Greedy, fp32.
"""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from relive.agent.collect import collect_demonstrations
from relive.agent.evaluation.live import LiveProgress
from relive.agent.evaluation.metrics import summarise
from relive.agent.evaluation.records import record, right_type_share, write
from relive.agent.evaluation.report import console, results_table
from relive.agent.events import Phase
from relive.agent.llm.weights import BUNDLED
from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.policy import actor_of
from relive.agent.retriever import MemoryRetriever, Retriever
from relive.agent.rundir import RunDirectory, measure, versions
from relive.agent.runner import Runner, RunSettings, spec_of
from relive.envs import Suite, Task, get_suite
from relive.envs.base import types_of
from relive.memory import Memory, Purpose, Retrieval
from relive.training.experiments.conditions import MEMORIES, under

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
DEMONSTRATIONS = 300
K = 2


def retrievers(memory: Memory, suite: Suite, count: Any, k: int = K) -> dict[str, Retriever | None]:
    """What each condition recalls."""
    matching = MemoryRetriever(memory, spec_of(suite), count, Retrieval(k=k), Purpose.EVALUATE)
    return {name: under(name, matching) for name in MEMORIES}


def rows_of(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table, recomputed from the committed records."""
    cells: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for r in records:
        cells.setdefault((r["task_type"], r["memory"], r["k"]), []).append(r)
    rows = []
    for (kind, memory, k), found in cells.items():
        success = round(sum(r["success"] for r in found) / len(found), 4)
        rows.append(
            {
                "task_type": kind,
                "memory": memory,
                "k": k,
                "success": success,
                "n": len(found),
                "right_type_share": right_type_share(found),
                "memory_tokens": round(sum(r["memory_tokens"] for r in found) / len(found), 1),
                "steps": round(sum(len(r["actions"]) for r in found) / len(found), 2),
                "invalid_share": round(
                    sum(r["invalid"] for r in found) / sum(len(r["actions"]) for r in found), 4
                ),
            }
        )
    return rows


def main() -> None:
    """Plays all cells, prints the table, writes the results when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument(
        "--split", default="test", help="valid while designing, test once per base version"
    )
    parser.add_argument("--per-type", type=int, default=60)
    parser.add_argument("--types", default="", help="task types by comma; all by default")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--commit", action="store_true", help="write docs/results/base-model.json and its records"
    )
    args = parser.parse_args()
    if args.commit and (args.model, args.split, args.types) != ("bundled", "test", ""):
        parser.error("--commit is for the bundled model, the test split and all types")
    suite = get_suite("household")
    types = list(types_of(suite, [t for t in args.types.split(",") if t])) or list(suite.types)
    tasks: list[Task] = suite.tasks(args.split, args.per_type * len(types), types)
    made = load_model(PolicySettings(model=args.model), args.batch)
    settings = {
        "split": args.split,
        "per_type": args.per_type,
        "types": types,
        "actor": actor_of(made),
        "k": K,
    }
    directory = RunDirectory(args.out, settings)
    started, records = time.monotonic(), []
    with (
        LiveProgress() as live,
        Memory(args.out / "memory") as memory,
    ):
        collect_demonstrations(memory, suite, DEMONSTRATIONS, on_event=live.on_event)
        for name, retriever in retrievers(memory, suite, made.count_tokens).items():
            live.on_event(Phase(name))
            runner = Runner(suite, made, RunSettings(batch=args.batch), retriever)
            episodes = measure(directory, f"episodes-{name}", runner, tasks, live.on_event)
            rows = [
                summarise(
                    t, [e for e in episodes if e.task.type == t], lambda i: memory.meta(i).task.type
                )
                for t in types
            ]
            console().print(results_table(rows, f"{name} memory, {args.split} rooms"))
            condition = {"memory": name, "k": K if retriever else 0}
            records += [
                record(e, condition, memory, retriever, made.count_tokens) for e in episodes
            ]
    seconds = time.monotonic() - started
    rows_json = rows_of(records)
    directory.write("rows.json", rows_json)
    if args.commit:
        write(RESULTS / "base-model-episodes.jsonl.gz", records)
        training = json.loads((BUNDLED / "training.json").read_text())
        summary = {
            "weights_sha256": made.weights_sha256, "parameters": training["parameters"],
            "tokens": training["tokens"], "seconds": training["seconds"],
            "hardware": training.get("hardware", ""),
            "command": "python scripts/eval_base_model.py --out runs/base-model --commit",
            "evaluation_seconds": round(seconds), "demonstrations": DEMONSTRATIONS,
            "split": args.split, "versions": versions(), "rows": rows_json,
        }  # fmt: skip
        (RESULTS / "base-model.json").write_text(json.dumps(summary, indent=2) + "\n")
        console().print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
