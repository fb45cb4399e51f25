"""Does a person who rates a few of a memory's entries mend what wrong ones spoil?

    # plays; resumable; a few minutes on one core
    python scripts/rate_memory.py --out runs/rate-memory
    # and writes docs/results/ratings.json
    python scripts/rate_memory.py --out runs/rate-memory --commit

The bundled model plays household tasks whose procedure it has to read out of its memory block
(clean, heat, cool), in valid rooms. Of a memory of the expert's demonstrations a share is made
wrong: such an entry keeps its goal and its success, and holds the steps of a task of another type.
First the agent plays train tasks with that memory. Then a simulated person looks at 5 % of the
entries and gives each the rating it deserves: `human` 1 if its steps are those of its goal, -1 if
not. Which entries the person looks at is a rule that anybody can follow: those that were shown most
often in episodes that failed. Looking at as many drawn at random is the control.

Conditions, all on the same valid tasks, greedy, k = 2: *clean* (the memory before it was spoilt),
*wrong* (nobody rated anything), *rated* (by the rule), *rated at random*; then other shares of the
memory by the same rule, beyond what failed among all that was shown, and people who are mistaken in
some of what they look at (the rating is turned round). All but *clean* under the same retrieval
settings, `ratings` included.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from relive.agent.collect import collect_demonstrations
from relive.agent.evaluation.live import LiveProgress
from relive.agent.evaluation.metrics import wilson
from relive.agent.evaluation.report import console, percent
from relive.agent.evaluation.statistics import paired_difference
from relive.agent.events import Phase
from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.policy import actor_of
from relive.agent.retriever import MemoryRetriever
from relive.agent.rundir import RunDirectory, measure, versions
from relive.agent.runner import Runner, RunSettings, spec_of
from relive.envs import get_suite
from relive.envs.base import types_of
from relive.memory import Episode, Memory, Purpose, Retrieval

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
TYPES = ("pick_clean_then_place_in_recep", "pick_heat_then_place_in_recep",
         "pick_cool_then_place_in_recep")  # fmt: skip
DEMONSTRATIONS = 300
TASKS = 72
LOOKED_AT = 0.05
GRID = {
    **{f"rated {share:.0%}": (share, 0.0) for share in (0.02, 0.1, 0.2)},
    **{
        f"rated {share:.0%}, {noise:.0%} mistaken": (share, noise)
        for share in (0.05, 0.2)
        for noise in (0.1, 0.3)
    },
}
"""Condition -> share of the memory that is looked at, and share of the ratings that are wrong."""
CONDITIONS = ("clean", "wrong", "rated", "rated at random", *GRID)


def spoilt(entries: Sequence[Episode], share: float, seed: int) -> tuple[list[Episode], set[str]]:
    """The entries, a share of them with the steps of one of another type; and which these are."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(entries), round(share * len(entries)), replace=False).tolist()
    made, wrong = list(entries), set()
    for i in chosen:
        others = [e for e in entries if e.task.type != entries[i].task.type]
        other = others[int(rng.integers(len(others)))]
        made[i] = replace(entries[i], steps=other.steps, final_observation=other.final_observation)
        wrong.add(entries[i].id)
    return made, wrong


def shown_in_failures(episodes: Sequence[Episode]) -> list[str]:
    """Ids of what was shown in failed episodes, the most often shown first; of those shown as
    often, what was shown in fewer successes."""
    failed, solved = Counter[str](), Counter[str]()
    for episode in episodes:
        (solved if episode.success else failed).update(r.episode for r in episode.retrieved)
    return sorted(failed, key=lambda name: (-failed[name], solved[name], name))


def shown_at_all(episodes: Sequence[Episode]) -> list[str]:
    """Ids of what was shown in failed episodes, as above, and then of what else was shown, the most
    often shown first."""
    first = shown_in_failures(episodes)
    often = Counter(r.episode for e in episodes for r in e.retrieved)
    return first + sorted(set(often) - set(first), key=lambda name: (-often[name], name))


def rate(
    memory: Memory, names: Sequence[str], wrong: set[str], noise: float = 0.0, seed: int = 0
) -> None:
    """What the person does who looks at these entries, and is mistaken in a share of them."""
    rng = np.random.default_rng([seed, 2])
    mistaken = set(rng.choice(list(names), round(noise * len(names)), replace=False).tolist())
    for name in names:
        memory.rate(name, "human", -1.0 if (name in wrong) != (name in mistaken) else 1.0)


def main() -> None:
    """Plays all conditions of all seeds, prints the table, writes the results when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.3, help="of entries that are wrong")
    parser.add_argument("--weight", type=float, default=0.3, help="retrieval.ratings")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--commit", action="store_true", help="write docs/results/ratings.json")
    args = parser.parse_args()
    suite = get_suite("household")
    model = load_model(PolicySettings(model="bundled"), args.batch)
    retrieval = Retrieval(k=2, ratings=args.weight)
    settings = {
        "share": args.share, "demonstrations": DEMONSTRATIONS, "tasks": TASKS, "types": TYPES,
        "looked_at": LOOKED_AT, "actor": actor_of(model, retrieval),
    }  # fmt: skip
    directory = RunDirectory(args.out, settings)
    outcomes: dict[str, dict[str, float]] = {name: {} for name in CONDITIONS}
    rooms: dict[str, str] = {}
    wrong_shown: dict[str, list[float]] = {name: [] for name in CONDITIONS}
    people = []
    with LiveProgress() as live:
        for seed in range(args.seeds):
            here = args.out / f"seed-{seed}"
            with Memory(here / "demonstrations") as memory:
                collect_demonstrations(
                    memory, suite, DEMONSTRATIONS, on_event=live.on_event, start=60 * seed
                )
                clean = list(memory.iterate())
            entries, wrong = spoilt(clean, args.share, seed)
            memories = {name: Memory(here / name) for name in CONDITIONS}
            for name, memory in memories.items():
                if not len(memory):
                    memory.add_many(clean if name == "clean" else entries)

            def play(
                name: str, what: str, memory: Memory, split: str, purpose: Purpose,
                seed: int = seed,
            ) -> list[Episode]:  # fmt: skip
                live.on_event(Phase(f"seed {seed}: {what}"))
                asked = MemoryRetriever(
                    memory, spec_of(suite), model.count_tokens, retrieval, purpose, memory.position
                )
                runner = Runner(suite, model, RunSettings(batch=args.batch), asked)
                # Train tasks that no demonstration is of; valid tasks of which no two seeds share
                # any.
                start = 600 + 30 * seed if split == "train" else seed * TASKS // len(TYPES)
                tasks = suite.up_to(split, TASKS, types_of(suite, TYPES), start=start)
                return measure(directory, f"seed-{seed}-{name}", runner, tasks, live.on_event)

            lived = play("life", "the agent plays", memories["wrong"], "train", Purpose.ACT)
            looked = round(LOOKED_AT * len(entries))
            by_rule = shown_in_failures(lived)[:looked]
            drawn = np.random.default_rng([seed, 1]).permutation([e.id for e in entries])[:looked]
            for name, names in (("rated", by_rule), ("rated at random", drawn.tolist())):
                if not memories[name].stats().ratings:
                    rate(memories[name], names, wrong)
            for name, (share, noise) in GRID.items():
                if not memories[name].stats().ratings:
                    ranked = by_rule if share == LOOKED_AT else shown_at_all(lived)
                    names = ranked[: round(share * len(entries))]
                    rate(memories[name], names, wrong, noise, seed)
            said = [memories["rated"].ratings(e.id).get("human") for e in entries]
            people.append(
                {"seed": seed, "wrong_entries": len(wrong), "failed_before": sum(
                    not e.success for e in lived), "rated": sum(v is not None for v in said),
                    "rated_wrong": sum(v == -1 for v in said)}
            )  # fmt: skip
            for name in CONDITIONS:
                for e in play(name, name, memories[name], "valid", Purpose.EVALUATE):
                    key = f"{seed}/{e.task.identity}"
                    outcomes[name][key], rooms[key] = float(e.success), e.task.room
                    shown = [r.episode in wrong for r in e.retrieved]
                    wrong_shown[name].append(sum(shown) / len(shown) if shown else 0.0)
            for memory in memories.values():
                memory.close()
    rows: list[dict[str, Any]] = []
    for name in CONDITIONS:
        won, n = sum(outcomes[name].values()), len(outcomes[name])
        low, high = wilson(int(won), n)
        rows.append(
            {"condition": name, "n": n, "success": round(won / n, 4), "low": round(low, 4),
             "high": round(high, 4), "wrong_shown": 0.0 if name == "clean" else round(
                 sum(wrong_shown[name]) / n, 4)}
        )  # fmt: skip
        console().print(
            f"{name:24} {percent(won / n)} % ({percent(low)}–{percent(high)}), "
            f"n = {n}, wrong among those shown {percent(rows[-1]['wrong_shown'])} %"
        )
    pairs = {}
    for a, b in (("wrong", "clean"), ("rated", "wrong"), ("rated at random", "wrong"),
                 ("rated", "rated at random"), ("rated", "clean"),
                 *((name, "wrong") for name in GRID)):  # fmt: skip
        test = paired_difference(outcomes[a], outcomes[b], rooms)
        pairs[f"{a} - {b}"] = {k: round(v, 4) for k, v in asdict(test).items()}
        console().print(
            f"{a} − {b}: {100 * test.difference:+.1f} ({100 * test.low:+.1f} to "
            f"{100 * test.high:+.1f}) points, p = {test.p:.4f}, {test.clusters} rooms"
        )
    summary = {
        "command": "python scripts/rate_memory.py --out runs/rate-memory --commit",
        "split": "valid", "types": TYPES, "seeds": args.seeds, "tasks_per_seed": TASKS,
        "demonstrations": DEMONSTRATIONS, "share_wrong": args.share, "looked_at": LOOKED_AT,
        "weight": args.weight, "weights_sha256": model.weights_sha256, "people": people,
        "rows": rows, "paired": pairs, "versions": versions(),
    }  # fmt: skip
    directory.write("results.json", summary)
    print(json.dumps(rows))
    if args.commit:
        (RESULTS / "ratings.json").write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
