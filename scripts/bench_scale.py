"""What an episode costs, part by part, and what a million of them and a hundred million would.

    python scripts/bench_scale.py parts OUT.json              # on this machine; a few minutes
    python scripts/bench_scale.py tokens OUT.json             # of a real model's tokenizer
    nice -n 10 python scripts/scale_simulation.py FOLDER      # a million episodes; an hour or more
    python scripts/bench_scale.py look FOLDER OUT.json        # what it takes to work with them
    python scripts/bench_scale.py index FOLDER OUT.json       # LanceDB in place of the graph
    python scripts/bench_scale.py plan OUT.json FOLDER        # arithmetic with all of it

Each writes its part of one JSON file. ``parts`` plays the household with its expert and with the
bundled model, stores, retrieves and fine-tunes; ``plan`` does arithmetic with what was measured,
and says of each number whether it was measured or extrapolated. Timings of a busy machine are
noisy: medians, and CPU seconds where something runs for long.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scale_simulation import bytes_of, kinds_of, resident, searches
from scale_world import task_of

from relive.agent.collect import collect_demonstrations, played
from relive.agent.load_policy import PolicySettings, load_model
from relive.agent.policy import ExpertPolicy
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import Runner, RunSettings, play_all, spec_of
from relive.envs import get_suite
from relive.memory import Episode, Holdout, IndexSettings, Memory, Purpose, Query, Retrieval
from relive.memory.episode import Actor

TASKS = 24
SIZES = (10**6, 10**8)
DAY = 86_400.0
GPU_TOKENS = 2_000.0
"""Tokens a second that one GPU is assumed to write for a model of some billion parameters, many
conversations at once. Assumed, not measured: put in what yours does."""


def timed(action: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of this process, and what the action returned."""
    began = time.process_time()
    done = action()
    return time.process_time() - began, done


def parts() -> dict[str, Any]:
    """Everything that can be measured in minutes, in milliseconds an episode of one core."""
    suite = get_suite("household")
    model = load_model(PolicySettings(), 16)
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "m") as memory:
        collect_demonstrations(memory, suite, 120)
        tasks = suite.tasks("train", TASKS, start=40)
        expert = play_all(Runner(suite, ExpertPolicy(suite), RunSettings(batch=16)), tasks)
        retriever = MemoryRetriever(
            memory, spec_of(suite, model), model.count_tokens, Retrieval(), Purpose.ACT
        )
        retrieval = [timed(lambda t=t: retriever(t))[0] for t in tasks for _ in range(3)]
        runner = Runner(suite, model, RunSettings(batch=16), retriever)
        cpu, acted = timed(lambda: play_all(runner, tasks))
        assert isinstance(acted, list)
        steps = statistics.mean(len(episode.steps) for episode in acted)
        stored = _stored(Path(folder) / "stored", acted)
        training = _training(Path(folder) / "a", memory, suite, model)
    environment = [e.timings["environment"] for e in expert]
    written = [e.usage.get("completion", 0.0) for e in acted]
    read = [e.usage.get("prompt", 0.0) for e in acted]
    return {
        "environment_ms": round(1e3 * statistics.mean(environment), 3),
        "retrieval_ms": round(1e3 * statistics.median(retrieval), 3),
        "acting_ms": round(1e3 * cpu / len(acted), 1),
        "steps": round(steps, 1),
        "tokens_written": round(statistics.mean(written), 1),
        "tokens_read": round(statistics.mean(read), 1),
        **stored,
        **training,
        "cores": os.cpu_count(),
    }


def _stored(folder: Path, acted: Sequence[Episode]) -> dict[str, Any]:
    """Adding one by one and 64 at a time, and what lies on the disk afterwards."""

    def numbered(start: int, count: int) -> list[Episode]:
        made = []
        for i in range(start, start + count):
            one = acted[i % len(acted)]
            task = replace(one.task, identity=f"game-{i}", goal=f"{one.task.goal} {i}")
            made.append(replace(one, id=f"episode-{i}", task=task))
        return made

    with Memory(folder) as memory:
        single, many, cpu = [], [], []
        for turn in range(40):
            (one,) = numbered(65 * turn, 1)
            began = time.perf_counter()
            memory.add(one)
            single.append(time.perf_counter() - began)
            some = numbered(65 * turn + 1, 64)
            began, busy = time.perf_counter(), time.process_time()
            memory.add_many(some)
            many.append((time.perf_counter() - began) / 64)
            cpu.append((time.process_time() - busy) / 64)
        count, on_disk = len(memory), bytes_of(folder)
    return {
        "storing_one_ms": round(1e3 * statistics.median(single), 3),
        "storing_64_ms": round(1e3 * statistics.median(many), 3),
        "storing_cpu_ms": round(1e3 * statistics.median(cpu), 3),
        "bytes": {part: round(size / count) for part, size in on_disk.items() if size},
    }


def tokens() -> dict[str, Any]:
    """Tokens of an episode of the household's expert, as SmolLM2 counts them: the bundled model's
    own are whole words."""
    import fetch_smollm2
    from transformers import AutoTokenizer

    from relive.agent.llm.weights import find_model

    suite = get_suite("household")
    tasks = suite.tasks("train", TASKS, start=40)
    episodes = play_all(Runner(suite, ExpertPolicy(suite), RunSettings(batch=16)), tasks)
    tokenizer = AutoTokenizer.from_pretrained(str(find_model(fetch_smollm2.gguf_file())))

    def count(texts: Sequence[str]) -> int:
        return sum(len(tokenizer(text)["input_ids"]) for text in texts)

    written = [count([s.action for s in e.steps]) + len(e.steps) for e in episodes]  # and an end
    return {
        "steps": round(statistics.mean(len(e.steps) for e in episodes), 1),
        "written": round(statistics.mean(written), 1),
        "observed": round(statistics.mean(count(e.observations) for e in episodes), 1),
    }


def _training(out: Path, memory: Memory, suite: Any, model: Any) -> dict[str, Any]:
    """Seconds of LoRA an episode, each seen once."""
    from relive.training.learn import LearnSettings, train_on_memory
    from relive.training.lora import LoraSettings
    from relive.training.select import SelectSettings

    settings = LearnSettings(
        lora=LoraSettings(steps=10, batch_examples=12, rehearsal=0.0),
        select=SelectSettings(policies=("expert",)),
    )
    cpu, manifest = timed(lambda: train_on_memory(settings, suite, model, memory, out))
    return {
        "training_ms": round(1e3 * cpu / 120, 1),
        "training_tokens": round(manifest.supervised_tokens / 120, 1),  # type: ignore[attr-defined]
    }


def look(folder: Path) -> dict[str, Any]:
    """What working with a large memory takes: opening, listing, choosing what to learn from."""
    from relive.training.select import SelectSettings, select

    began = time.perf_counter()
    reader = Memory(folder / "memory", "r")
    found: dict[str, Any] = {"episodes": len(reader)}
    found["open_s"] = round(time.perf_counter() - began, 2)
    found["open_gb"] = round(resident(), 3)
    with reader:
        end = reader.position
        found["search_ms"] = searches(kinds_of(reader))
        found["position_ms"] = _at(reader, end)
        cpu, _ = timed(lambda: played(reader, Actor("local", "seeded", adapter="v1"), end - 1000))
        found["played_since_1000_s"] = round(cpu, 3)
        found["listing"] = []
        for size in (10_000, 50_000):
            before = resident()
            cpu, _ = timed(lambda size=size: reader.entries(at=size))
            row = {"episodes": size, "entries_s": round(cpu, 2)}
            row["gb"] = round(resident() - before, 3)
            cpu, chosen = timed(lambda size=size: select(reader, SelectSettings(), size))
            row["select_s"], row["selected"] = round(cpu, 2), len(chosen)  # type: ignore[arg-type]
            found["listing"].append(row)
    found["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
    return found


def _at(reader: Memory, end: int) -> dict[str, list[float]]:
    """Milliseconds of searches at older positions, which no index serves."""
    kinds = {}
    for share in (0.1, 0.5, 1.0):

        def ask(number: int, at: int = int(share * end)) -> object:
            task = task_of(number, "test")
            holdout = Holdout.strict(task, Purpose.EVALUATE)
            return reader.search(Query(task.goal, k=2), holdout, at)

        kinds[f"{share:.0%} of the log"] = ask
    return searches(kinds)


def index(folder: Path) -> dict[str, Any]:
    """LanceDB in place of the graph, made from the log's vectors: time, bytes, memory, searches,
    and how much of the right ten it finds."""
    path = folder / "memory"
    began, busy = time.perf_counter(), time.process_time()
    with Memory(path, "w", index=IndexSettings(engine="lancedb")) as memory:
        memory.publish_index()
    made = {
        "build_s": round(time.perf_counter() - began, 1),
        "build_cpu_s": round(time.process_time() - busy, 1),
        "bytes": bytes_of(path)["index"],
    }
    with (
        Memory(path, "r") as reader,
        Memory(path, "r", index=IndexSettings(engine="hnsw", exact_limit=10**9)) as exact,
    ):
        space = reader._state.spaces["goal"]
        made |= {"episodes": len(reader), "ef": space.ef, "reach": round(space.reach, 4)}
        made["search_ms"] = _beside(reader, exact)
        made["recall_at_10"] = _recall(reader)
    return made


def _beside(reader: Memory, exact: Memory) -> dict[str, dict[str, float]]:
    """Median milliseconds of searches by kind, with the index and comparing everything, in turns;
    and of how many of them the answers have the same scores."""
    found = {}
    for kind, search in kinds_of(reader).items():
        compare = kinds_of(exact)[kind]
        times, same = [], 0
        for number in range(30):
            began = time.perf_counter()
            ours = search(number)
            middle = time.perf_counter()
            theirs = compare(number)
            times.append((middle - began, time.perf_counter() - middle))
            same += [round(h.score, 4) for h in ours] == [round(h.score, 4) for h in theirs]
        pairs = np.array(times) * 1e3
        found[kind] = {
            "index": round(float(np.median(pairs[:, 0])), 2),
            "exact": round(float(np.median(pairs[:, 1])), 2),
            "same": same / 30,
        }
    return found


def _recall(reader: Memory) -> dict[str, float]:
    """Share of the ten best scores among stored goals that the index proposes, by a filter's
    share; what the memory answers is better, since it compares more where this may not do."""
    space, catalog = reader._state.spaces["goal"], reader._state.catalog
    right = wanted = 0
    for number in range(30):
        vector = reader.embedder.encode([task_of(number, "test").goal])[0]
        assert space.graph is not None
        answer = space.graph.search(vector, 75, space.ef or 200)
        every = np.sort(np.round(space.column.scores(vector, 0, len(catalog)), 5))[-10:]
        if answer is not None:
            places = space.column.places(answer[0], len(catalog))
            scores = np.sort(np.round(space.column.take(places) @ vector, 5))[-10:]
            right += int(np.count_nonzero(scores >= every - 1e-5))
        wanted += 10
    return {"test goals": round(right / wanted, 4)}


def plan(told: dict[str, Any], progress: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the sizes cost, by arithmetic from what was measured."""
    one, last, written = told["parts"], progress[-1], told["tokens"]["written"]
    # Real episodes are longer than those of the simulation; the index is the same for both.
    per = {**one["bytes"], "index": last["bytes"]["index"] / last["episodes"]}
    late = progress[len(progress) // 2 :]
    slope = float(  # milliseconds a retrieval for each episode that is stored
        np.polyfit([r["episodes"] for r in late], [r["ms_median"]["retrieval"] for r in late], 1)[0]
    )
    resident_slope = float(
        np.polyfit([r["episodes"] for r in late], [r["resident_gb"] for r in late], 1)[0]
    )
    rows = []
    for size in SIZES:
        measured = size <= last["episodes"]
        # Every episode of a growing memory meets half of it on average.
        retrieval = slope * size / 2
        core_ms = one["environment_ms"] + last["ms_median"]["loop"] + one["storing_cpu_ms"]
        rows.append({
            "episodes": size,
            "measured_to": last["episodes"] if not measured else size,
            "environment_and_storing_core_days": round(size * core_ms / 1e3 / DAY, 2),
            "retrieval_core_days_one_memory": round(size * retrieval / 1e3 / DAY, 1),
            "acting_core_days_bundled": round(size * one["acting_ms"] / 1e3 / DAY, 1),
            "acting_gpu_days_assumed": round(size * written / GPU_TOKENS / DAY, 2),
            "training_core_days_bundled": round(size * one["training_ms"] / 1e3 / DAY, 1),
            "writer_days_one_sync_each": round(size * one["storing_one_ms"] / 1e3 / DAY, 2),
            "writer_days_64_a_sync": round(size * one["storing_64_ms"] / 1e3 / DAY, 2),
            "terabytes": {part: round(size * n / 1e12, 4) for part, n in per.items()},
            "resident_gb_one_memory": round(size * resident_slope, 1),
        })  # fmt: skip
    return {
        "rows": rows,
        "retrieval_ms_per_stored_episode": slope,
        "resident_gb_per_episode": resident_slope,
        "gpu_tokens_per_second_assumed": GPU_TOKENS,
    }


def _merge(out: Path, name: str, value: Any) -> None:
    told = json.loads(out.read_text()) if out.exists() else {}
    told[name] = value
    out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps({name: value}))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    orders = {
        "parts": ("out",), "tokens": ("out",), "look": ("folder", "out"),
        "index": ("folder", "out"), "plan": ("out", "folder"),
    }  # fmt: skip
    for name, order in orders.items():
        command = commands.add_parser(name)
        for argument in order:
            command.add_argument(argument, type=Path)
    arguments = parser.parse_args()
    if arguments.command == "parts":
        _merge(arguments.out, "parts", parts())
    elif arguments.command == "tokens":
        _merge(arguments.out, "tokens", tokens())
    elif arguments.command == "look":
        _merge(arguments.out, "look", look(arguments.folder))
    elif arguments.command == "index":
        _merge(arguments.out, "lancedb", index(arguments.folder))
    else:
        text = (arguments.folder / "progress.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        _merge(arguments.out, "simulation", rows)
        _merge(arguments.out, "plan", plan(json.loads(arguments.out.read_text()), rows))


if __name__ == "__main__":
    main()
