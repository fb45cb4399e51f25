"""Does an embedder tuned on the policy's likelihood find the right procedure for goals in a wording
that was never stored?

    # prints a table; resumable
    python scripts/tune_retriever.py --out runs/retriever
    # and writes docs/results/retriever.json
    python scripts/tune_retriever.py --out runs/retriever --commit

The retrieval study's hardest cell (`scripts/retrieval_study.py`, "wording"): each of the
household's goals has two wordings, only goals in one of them are stored, and what is asked is in
the other. "Right" is a hit of the query's own task type. For each of the two memories an embedder
is tuned on what that memory holds, 600 expert episodes in the one wording, with the bundled
model's likelihoods (as `relive train-retriever` does), and measured on queries from another split
in the other wording.

Then the bundled model plays valid hard tasks (clean, heat, cool) whose goals are in the wording
that its memory lacks, with each embedder, k = 2.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_search import Entry, Remembered, Stored, minilm, summary
from retrieval_study import TREATED, take, worded, wording
from rich.table import Table

from relive.agent.evaluation.live import LiveProgress
from relive.agent.evaluation.metrics import wilson
from relive.agent.evaluation.report import console, percent
from relive.agent.evaluation.statistics import paired_difference
from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.policy import ExpertPolicy
from relive.agent.retriever import MemoryRetriever
from relive.agent.rundir import RunDirectory, measure, versions
from relive.agent.runner import Runner, RunSettings, play_all, spec_of
from relive.agent.settings import as_stored
from relive.envs import Suite, Task, get_suite
from relive.envs.household.rooms import TASK_TYPES
from relive.memory import HashedEmbedder, Memory, Purpose, Retrieval
from relive.memory.search.embed import Embedder
from relive.training.retriever.linear_map import fit_map
from relive.training.retriever.score import score_candidates
from relive.training.retriever.settings import RetrieverSettings, ScoredQuery

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
STORED = 600
"""Episodes that an embedder is tuned on, and that the agent plays with."""
ASKED = 100
"""Queries of each type."""
SIZES = (100, 1000, 10_000)
PLAYED = 36
"""Hard tasks of each wording that are played."""
KS = (1, 2)


def scored_in(
    folder: Path, form: int, suite: Suite, settings: RetrieverSettings, model: Any, live: Any
) -> list[ScoredQuery]:
    """The policy's likelihoods in the memory of a wording, which is made if need be; kept."""
    with Memory(folder / f"memory-{form}") as memory:
        if not len(memory):
            memory.add_many(play_all(Runner(suite, ExpertPolicy(suite)), stored(form, STORED)))
        kept = folder / f"scores-{form}.json"
        if not kept.exists():
            made = score_candidates(model, memory, suite, Retrieval(k=2), settings, live.on_event)
            kept.write_text(json.dumps([asdict(query) for query in made]))
    read = json.loads(kept.read_text())
    return [
        ScoredQuery(**{**q, "keys": tuple(q["keys"]), "likelihoods": tuple(q["likelihoods"])})
        for q in read
    ]


def stored(form: int, count: int) -> list[Task]:
    """The first train tasks in a wording, as in the retrieval study."""
    return take("train", count, worded(form))


def right_types(
    embedders: Sequence[Embedder], tasks: Sequence[Sequence[Task]], asked: Sequence[Task], size: int
) -> list[dict[str, Any]]:
    """Rows of one memory size: the study's measure, all queries together.

    Args:
        embedders: for the memory of each wording.
        tasks: stored in each wording.
        asked: each is put to the memory of the other wording.
        size: entries of a memory.
    """
    found: list[list[bool]] = []
    types: list[str] = []
    for form in (0, 1):
        encode = Remembered(embedders[form])
        memory = Stored([Entry(t.identity, t.type, [t.goal]) for t in tasks[form][:size]], encode)
        some = [task for task in asked if wording(task) != form]
        for task, vector in zip(some, encode([task.goal for task in some]), strict=True):
            found.append([hit.type == task.type for hit in memory.closest(vector, max(KS))])
            types.append(task.type)
    right = np.array(found)
    rows = []
    for k in KS:
        row = {"memory_size": size, **summary(right, k)}
        of = np.array(types)
        row["by_type"] = [round(float(right[of == t, :k].mean()), 3) for t in TASK_TYPES]
        rows.append(row)
    return rows


def played(
    out: Path, name: str, embedders: Sequence[Embedder], suite: Suite, model: Any, live: Any
) -> dict[str, Any]:
    """What the bundled model does with an embedder at tasks in the wording that is not stored."""
    directory = RunDirectory(out / f"play-{name.replace(' ', '-')}", {
        "embedders": [e.identity for e in embedders], "weights": model.weights_sha256})  # fmt: skip
    won: dict[str, float] = {}
    rooms: dict[str, str] = {}
    right: list[bool] = []
    for form in (0, 1):
        with Memory(out / f"memory-{form}", "r") as source:
            episodes = list(source.iterate())
        types = {e.id: e.task.type for e in episodes}
        with Memory(directory.path / f"memory-{form}", embedder=embedders[form]) as memory:
            if not len(memory):
                memory.add_many(episodes)
            asked = MemoryRetriever(
                memory, spec_of(suite), model.count_tokens, Retrieval(k=2), Purpose.EVALUATE,
                memory.position,
            )  # fmt: skip
            tasks = [t for t in take("valid", 2 * PLAYED, worded(1 - form)) if t.type in TREATED]
            runner = Runner(suite, model, RunSettings(batch=12), asked)
            for e in measure(directory, f"wording-{1 - form}", runner, tasks, live.on_event):
                won[e.task.identity], rooms[e.task.identity] = float(e.success), e.task.room
                right += [types[r.episode] == e.task.type for r in e.retrieved]
    n, solved = len(won), int(sum(won.values()))
    return {"embedder": name, "n": n, "success": round(solved / n, 4),
            "success_95": [round(x, 4) for x in wilson(solved, n)],
            "right_shown": round(float(np.mean(right)), 4), "won": won, "rooms": rooms}  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Right share of the top two, with its interval."""
    made = Table("embedder", *(f"{size:,}" for size in SIZES), title="right type in the top two, %")
    for name in dict.fromkeys(row["embedder"] for row in rows):
        cells = [
            f"{percent(r['right_share'])} ({percent(r['right_95'][0])}–{percent(r['right_95'][1])})"
            for r in rows
            if r["embedder"] == name and r["k"] == 2
        ]
        made.add_row(name, *cells)
    return made


def main() -> None:
    """Tunes, measures, plays, prints the tables, writes the results when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=("valid", "test"), default="valid",
                        help="of what is only searched for; valid while designing")  # fmt: skip
    parser.add_argument(
        "--seeds", type=int, default=3, help="fits over the hashed embedder; the first acts"
    )
    parser.add_argument("--play", action="store_true", help="the bundled model's success, too")
    parser.add_argument("--commit", action="store_true", help="test split, play, and write results")
    args = parser.parse_args()
    split = "test" if args.commit else args.split
    suite, model = get_suite("household"), load_model(PolicySettings(model="bundled"), 12)
    settings, bert = RetrieverSettings(), minilm()
    args.out.mkdir(parents=True, exist_ok=True)
    tasks = [stored(form, max(SIZES)) for form in (0, 1)]
    asked = take(split, ASKED * len(TASK_TYPES))
    bases: dict[str, Embedder] = {"hashed": HashedEmbedder(), **({"MiniLM": bert} if bert else {})}
    rows: list[dict[str, Any]] = []
    fits: list[dict[str, Any]] = []
    acting: dict[str, list[Embedder]] = {}
    with LiveProgress() as live:
        scored = [scored_in(args.out, f, suite, settings, model, live) for f in (0, 1)]
    for name, base in bases.items():
        kept = Remembered(base, args.out / "vectors" if base is bert else None)
        cached = _Cached(base, kept)
        acting[name] = [base, base]
        variants: list[dict[str, float]] = [{"actions": 0.0}, {}]
        for size in SIZES:
            rows += [{"embedder": name, "seed": 0, **row}
                     for row in right_types([cached, cached], tasks, asked, size)]  # fmt: skip
        for change in variants:
            label = f"tuned {name}" + (", goals only" if change else "")
            for seed in range(1 if change or base is bert else args.seeds):
                made = []
                for form in (0, 1):
                    own = RetrieverSettings(**{**asdict(settings), **change, "seed": seed})
                    tuned, report = fit_map(cached, scored[form], own)
                    told = asdict(report) | {"train_losses": report.train_losses[-1:],
                                             "losses": report.losses[-1:]}  # fmt: skip
                    fits.append({"embedder": label, "stored_wording": form, "seed": seed,
                                 "identity": tuned.identity, **told})  # fmt: skip
                    made.append(tuned)
                if seed == 0 and not change:
                    acting[label] = list(made)
                for size in SIZES:
                    rows += [{"embedder": label, "seed": seed, **row}
                             for row in right_types(made, tasks, asked, size)]  # fmt: skip
    console().print(table([row for row in rows if row["seed"] == 0]))
    for fitted in fits:
        console().print({k: v for k, v in fitted.items() if k != "identity"})
    result: dict[str, Any] = {
        "command": "python scripts/tune_retriever.py --out runs/retriever --commit",
        "split": split, "stored": STORED, "asked_per_type": ASKED, "types": TASK_TYPES,
        "settings": as_stored(settings), "weights_sha256": model.weights_sha256, "fits": fits,
        "rows": rows, "versions": versions(),
    }  # fmt: skip
    if args.play or args.commit:
        with LiveProgress() as live:
            plays = [played(args.out, name, e, suite, model, live) for name, e in acting.items()]
        for play in plays:
            console().print({k: v for k, v in play.items() if k not in ("won", "rooms")})
        result["played_split"] = "valid"
        result["played"] = [
            {k: v for k, v in p.items() if k not in ("won", "rooms")} for p in plays
        ]
        by_name = {p["embedder"]: p for p in plays}
        result["paired"] = {}
        for name in bases:
            a, b = by_name[f"tuned {name}"], by_name[name]
            test = paired_difference(a["won"], b["won"], a["rooms"])
            result["paired"][f"tuned {name} - {name}"] = {
                key: round(value, 4) for key, value in asdict(test).items()
            }
        console().print(result["paired"])
    (args.out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    if args.commit:
        (RESULTS / "retriever.json").write_text(json.dumps(result, indent=1) + "\n")


class _Cached:
    """An embedder whose vectors are made once."""

    def __init__(self, base: Embedder, kept: Remembered) -> None:
        self.identity, self.dimension, self.encode = base.identity, base.dimension, kept


if __name__ == "__main__":
    main()
