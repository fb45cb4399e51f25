r"""The memory against chromadb, lancedb, qdrant-client (local mode) and mem0: same job, same
machine, same run.

    python -m venv peers
    peers/bin/pip install chromadb==1.5.9 lancedb==0.40.0 \
        qdrant-client==1.20.0 mem0ai==2.2.1
    peers/bin/pip install hnswlib msgpack numpy
    peers/bin/pip install --no-deps -e .    # this project's memory
    python scripts/bench_peers.py --entries 2000 --python peers/bin/python --out peers.json

The job: store episodes of about 1 KiB with given unit vectors, 64 at a time, and index them (add);
the best ten that pass a filter, by inner product (search); a new process that opens what is there
and answers a filtered query correctly (open; imports are not counted, the page cache is warm).
Nobody embeds, no language model is called. Engines are set up as their documentation recommends.
What is not the job is done for the peers beforehand: their episodes are JSON already, their filter
is two or three equalities, while the memory encodes its episodes and applies its whole holdout.

Every measurement is a process of its own; engines take turns, in another order each round; medians
over the rounds are compared. A ratio is the peer's time over the memory's: above 1 the memory is
faster. `cpu_…` is processor time, which a busy machine changes less.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relive.memory import (
    Actor,
    Episode,
    Holdout,
    Memory,
    Outcome,
    Query,
    Step,
    StopReason,
    Task,
)

DIMENSION, BATCH, K, QUERIES = 384, 64, 10, 200
OPENINGS = 3  # new processes per round and engine
LEAST_RECALL = 0.97  # an engine below this is told to search more thoroughly
# scores that differ by less are equal: it depends on the order in which products were summed
TIE = 1e-5

Vectors = NDArray[np.float32]
Filter = Mapping[str, str | bool]
Numbers = dict[str, Any]

HALF: Filter = {"split": "train", "success": True}
FILTERS = {"": HALF, "rare_": {**HALF, "task_type": "type-3"}}  # they keep 50 % and 5 %


@dataclass(frozen=True, slots=True)
class Entry:
    """One episode, and what engines that know no episodes are given of it: JSON, and what filters
    ask for."""

    episode: Episode
    vector: Vectors
    payload: str
    metadata: dict[str, Any]


class Engine:
    """A store under test, made anew in each process; `load` comes first, then `open`."""

    name = package = durability = settings = ""
    modules: tuple[str, ...] = ()
    store: Any

    def load(self) -> None:
        """Import everything that is needed sooner or later. Not timed."""
        self.loaded: list[Any] = [import_module(module) for module in self.modules]

    def open(self, folder: Path) -> None:
        """Open what is in the folder, or make it."""
        raise NotImplementedError

    def add(self, batch: Sequence[Entry]) -> None:
        """Store entries."""
        raise NotImplementedError

    def finish(self) -> None:
        """Index what was stored, where `add` did not."""

    def search(self, vector: Vectors, k: int, kept: Filter) -> list[str]:
        """Ids of the closest k whose metadata are as ``kept`` says."""
        raise NotImplementedError

    def tune(self) -> str:
        """Search more thoroughly from now on; says how, nothing if it cannot."""
        return ""

    def close(self) -> None:
        """Close files, where that can be done."""
        getattr(self.store, "close", lambda: None)()


class _Relive(Engine):
    name = package = "relive"
    modules = ("hnswlib",)
    durability = "one fsync per batch"
    settings = "exact up to 10,000 entries, above HNSW (M 16, ef 200), which grows with add"

    def open(self, folder: Path) -> None:
        self._known: dict[str, Vectors] = {}
        given: Any = SimpleNamespace(identity="given", dimension=DIMENSION)
        given.encode = lambda texts: np.stack([self._known[text] for text in texts])
        mode = "r" if (folder / "memory.json").exists() else "create"
        self.store = Memory(folder, mode, embedder=given)

    def add(self, batch: Sequence[Entry]) -> None:
        self._known = {entry.episode.task.goal: entry.vector for entry in batch}
        self.store.add_many([entry.episode for entry in batch])

    def search(self, vector: Vectors, k: int, kept: Filter) -> list[str]:
        self._known["asked"] = vector
        kind = kept.get("task_type")
        only = {} if kind is None else {"type": [str(kind)]}
        query = Query("asked", k=k, successes_only=bool(kept["success"]), only=only)
        hits = self.store.search(query, Holdout(splits=frozenset({"train"})))
        return [hit.episode_id for hit in hits]


class _Chroma(Engine):
    name = package = "chromadb"
    modules = (
        "chromadb",
        "chromadb.api.rust",
        "chromadb.telemetry.product.posthog",
        "chromadb_rust_bindings",
    )
    durability = "SQLite transaction, 9 fsyncs per batch; graph saved every 1,000"
    settings = (
        "PersistentClient, HNSW with its defaults (M 16, ef_construction 100, ef_search "
        "100), inner product"
    )
    _ef = 100

    def open(self, folder: Path) -> None:
        chromadb, how = self.loaded[0], {"hnsw": {"space": "ip"}}
        self.store = chromadb.PersistentClient(
            str(folder), settings=chromadb.Settings(anonymized_telemetry=False)
        )
        self._all = self.store.get_or_create_collection(
            "all", configuration=how, embedding_function=None
        )

    def add(self, batch: Sequence[Entry]) -> None:
        ids, vectors = (
            [entry.episode.id for entry in batch],
            np.stack([entry.vector for entry in batch]),
        )
        metadatas = [
            {**entry.metadata, "episode": entry.payload} for entry in batch
        ]  # documents take twice as long
        self._all.add(ids=ids, embeddings=vectors, metadatas=metadatas)

    def search(self, vector: Vectors, k: int, kept: Filter) -> list[str]:
        where = {"$and": [{key: value} for key, value in kept.items()]}
        return list(
            self._all.query(vector[None, :], n_results=k, where=where, include=[])["ids"][0]
        )

    def tune(self) -> str:
        self._ef *= 2
        self._all.modify(configuration={"hnsw": {"ef_search": self._ef}})
        return f"ef_search {self._ef}" if self._ef <= 6400 else ""


class _Lance(Engine):
    name = package = "lancedb"
    modules = ("lancedb", "pyarrow", "lancedb.index")
    durability = "no fsync: a power cut may take what was acknowledged"
    settings = (
        "IVF_FLAT (documented as unnecessary so small, but it helps), bitmap indices, "
        "optimize() once at the end"
    )
    _probes = 20

    def open(self, folder: Path) -> None:
        lancedb, arrow, _ = self.loaded
        text, there = arrow.string(), (folder / "all.lance").exists()
        columns = {"id": text, "vector": arrow.list_(arrow.float32(), DIMENSION), "episode": text}
        columns |= {"split": text, "success": arrow.bool_(), "task_type": text, "identity": text}
        self._schema = arrow.schema(list(columns.items()))
        make = lancedb.connect(str(folder))
        self.store = (
            make.open_table("all") if there else make.create_table("all", schema=self._schema)
        )

    def add(self, batch: Sequence[Entry]) -> None:
        arrow = self.loaded[1]
        ids, payloads = zip(*((entry.episode.id, entry.payload) for entry in batch), strict=True)
        flat = arrow.array(np.concatenate([entry.vector for entry in batch]))
        columns = [
            arrow.array(ids),
            arrow.FixedSizeListArray.from_arrays(flat, DIMENSION),
            arrow.array(payloads),
        ]
        columns += [
            arrow.array([entry.metadata[key] for entry in batch]) for key in self._schema.names[3:]
        ]
        self.store.add(arrow.table(columns, schema=self._schema))

    def finish(self) -> None:
        self.store.optimize()
        self.store.create_index("vector", config=self.loaded[2].IvfFlat(distance_type="dot"))
        for column in FILTERS["rare_"]:
            self.store.create_index(column, config=self.loaded[2].Bitmap())

    def search(self, vector: Vectors, k: int, kept: Filter) -> list[str]:
        where = " AND ".join(f"{key} = {value!r}" for key, value in kept.items())
        query = (
            self.store.search(vector)
            .distance_type("dot")
            .where(where, prefilter=True)
            .nprobes(self._probes)
        )
        return list(query.limit(k).select(["id", "_distance"]).to_arrow()["id"].to_pylist())

    def tune(self) -> str:
        self._probes *= 2
        return f"nprobes {self._probes}" if self._probes <= 1280 else ""


class _Qdrant(Engine):
    name, package = "qdrant-local", "qdrant-client"
    modules = ("qdrant_client", "qdrant_client.models", "portalocker")
    durability = "SQLite transaction per point, 4 fdatasyncs each"
    settings = (
        "local mode, inner product, always exact: it has no index there (recommended up to "
        "20,000 points)"
    )

    def open(self, folder: Path) -> None:
        client, models, _ = self.loaded
        self.store = client.QdrantClient(path=str(folder))
        if not self.store.collection_exists("all"):
            how = models.VectorParams(size=DIMENSION, distance=models.Distance.DOT)
            self.store.create_collection("all", vectors_config=how)

    def add(self, batch: Sequence[Entry]) -> None:
        ids, vectors = (
            [int(entry.episode.id[1:]) for entry in batch],
            [entry.vector.tolist() for entry in batch],
        )
        payloads = [{**entry.metadata, "episode": entry.payload} for entry in batch]
        self.store.upsert(
            "all", points=self.loaded[1].Batch(ids=ids, vectors=vectors, payloads=payloads)
        )

    def search(self, vector: Vectors, k: int, kept: Filter) -> list[str]:
        one, match = self.loaded[1].FieldCondition, self.loaded[1].MatchValue
        wanted = self.loaded[1].Filter(
            must=[one(key=key, match=match(value=kept[key])) for key in kept]
        )
        found = self.store.query_points(
            "all", query=vector, query_filter=wanted, limit=k, with_payload=False
        )
        return [f"e{point.id}" for point in found.points]


class _Mem0(Engine):
    name, package = "mem0", "mem0ai"
    modules = (
        "mem0",
        "mem0.utils.factory",
        "mem0.vector_stores.qdrant",
        "mem0.utils.spacy_models",
        "portalocker",
    )
    durability = "two SQLite transactions per episode, 4 fdatasyncs each"
    settings = (
        "infer=False, default store (qdrant, local mode) and history, threshold 0; one "
        "episode per call"
    )

    def embed(self, text: str, memory_action: str = "") -> list[float]:
        return list(self._known)

    def open(self, folder: Path) -> None:
        mem0, factory = self.loaded[:2]
        # Nobody embeds: it gets the vector that was set. A language model is never asked.
        factory.EmbedderFactory.create = lambda *_: self
        factory.LlmFactory.create = lambda *_: None
        folder.mkdir(exist_ok=True)
        store = {"path": str(folder / "qdrant"), "embedding_model_dims": DIMENSION, "on_disk": True}
        how = {
            "vector_store": {"provider": "qdrant", "config": store},
            "history_db_path": str(folder / "history.db"),
        }
        self.store = mem0.Memory.from_config(how)

    def add(self, batch: Sequence[Entry]) -> None:
        for entry in batch:
            self._known = entry.vector.tolist()
            metadata = {**entry.metadata, "entry": entry.episode.id, "episode": entry.payload}
            self.store.add(entry.episode.task.goal, user_id="agent", metadata=metadata, infer=False)

    def search(self, vector: Vectors, k: int, kept: Filter) -> list[str]:
        self._known = vector.tolist()
        found = self.store.search(
            "asked", top_k=k, filters={"user_id": "agent", **kept}, threshold=0.0
        )
        return [hit["metadata"]["entry"] for hit in found["results"]]

    def close(self) -> None:
        self.store.vector_store.client.close()
        super().close()


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (_Relive, _Chroma, _Lance, _Qdrant, _Mem0)
}


def make_job(count: int, seed: int = 0) -> tuple[list[Entry], Vectors]:
    """Made-up household episodes and the queries; vectors in clusters of about 400, as goals of one
    kind are."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal(DIMENSION) + generator.standard_normal(
        (max(4, count // 400), DIMENSION)
    )

    def points(number: int) -> Vectors:
        noise = 0.4 * generator.standard_normal((number, DIMENSION))
        rows = centres[generator.integers(0, len(centres), number)] + noise
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    vectors, queries = points(count), points(QUERIES)
    train, success = generator.random(count) < 0.9, generator.random(count) < 5 / 9
    kinds = generator.integers(0, 10, count)
    entries = []
    for i in range(count):
        episode = _episode(
            i, f"type-{kinds[i]}", "train" if train[i] else "valid", bool(success[i])
        )
        task = episode.task
        metadata = {
            "task_type": task.type,
            "split": task.split,
            "success": episode.success,
            "identity": task.identity,
        }
        entries.append(Entry(episode, vectors[i], json.dumps(asdict(episode)), metadata))
    return entries, queries


def _episode(number: int, kind: str, split: str, success: bool) -> Episode:
    places = "cabinet drawer shelf countertop fridge sinkbasin microwave garbagecan".split()
    seen = "You arrive at {0} 1. On the {0} 1, you see a mug 1, a plate 2 and a book 3."
    steps = tuple(
        Step(seen.format(places[(number + at) % 8]), f"go to {places[at]} {at}") for at in range(7)
    )
    goal = f"put a hot mug in {places[number % 8]} (game {number})"
    task = Task(
        "household", f"game-{number}", kind, split, f"room-{number % 120}", number, "1", goal
    )
    outcome = Outcome(
        success, float(success), StopReason.SOLVED if success else StopReason.STEP_LIMIT
    )
    return Episode(f"e{number}", task, steps, "Done.", outcome, Actor("expert"))


def keeps(kept: Filter, entries: Sequence[Entry]) -> NDArray[np.bool_]:
    """Which entries pass a filter."""
    return np.array(
        [all(entry.metadata[key] == value for key, value in kept.items()) for entry in entries]
    )


def recall(found: Sequence[str], scores: Vectors, kept: NDArray[np.bool_], k: int = K) -> float:
    """Share of the best k of those kept that were found; whatever is as close as the k-th counts as
    one of them."""
    best = np.sort(scores[kept])[::-1][:k]
    if not len(best):
        return float(not found)
    close = kept & (scores >= best[-1] - TIE)
    return sum(bool(close[int(name[1:])]) for name in set(found)) / len(best)


def fill(engine: Engine, folder: Path, count: int) -> Numbers:
    """Add everything, then ask everything."""
    entries, queries = make_job(count)
    engine.load()
    engine.open(folder)
    busy, began = time.process_time(), time.perf_counter()
    for start in range(0, count, BATCH):
        engine.add(entries[start : start + BATCH])
    engine.finish()
    result: Numbers = {
        "add_seconds": time.perf_counter() - began,
        "cpu_add_seconds": time.process_time() - busy,
    }
    scores = queries @ np.stack([entry.vector for entry in entries]).T
    tuned, masks = "", {name: keeps(kept, entries) for name, kept in FILTERS.items()}
    while True:
        result |= {"recall_at_10": 1.0, "tuned": tuned}
        for name, kept in FILTERS.items():
            times, found = [], []
            busy = time.process_time()
            for query in queries:
                began = time.perf_counter()
                found.append(engine.search(query, K, kept))
                times.append(1000 * (time.perf_counter() - began))
            result[f"cpu_search_{name}ms"] = 1000 * (time.process_time() - busy) / len(queries)
            result[f"search_{name}ms"] = statistics.median(times)
            right = [
                recall(ids, exact, masks[name]) for ids, exact in zip(found, scores, strict=True)
            ]
            result["recall_at_10"] = min(result["recall_at_10"], statistics.fmean(right))
        if result["recall_at_10"] >= LEAST_RECALL or not (tuned := engine.tune()):
            engine.close()
            return result


def act(what: str, name: str, folder: str, count: int = 0, asked: int = 0) -> Numbers:
    """What a process of its own does: `fill`, `open` and ask once, or say which version there
    is."""
    os.environ |= {
        "MEM0_TELEMETRY": "False",
        "MEM0_DIR": str(Path(folder, "mem0-home")),
    }  # or it uses the network
    engine, place = ENGINES[name](), Path(folder, name)
    if what == "fill":
        return fill(engine, place, count)
    engine.load()
    if what == "version":
        return {"version": importlib.metadata.version(engine.package)}
    query = np.load(Path(folder, "queries.npy"))[asked]
    busy, began = time.process_time(), time.perf_counter()
    engine.open(place)
    found = engine.search(query, K, HALF)
    took = {
        "open_ms": 1000 * (time.perf_counter() - began),
        "cpu_open_ms": 1000 * (time.process_time() - busy),
    }
    return took | {"found": found}


def process(python: str, **what: str | int) -> Numbers:
    """`act` in a new process; RuntimeError, with the last line it wrote, if it fails."""
    done = subprocess.run(
        [python, __file__, "act", json.dumps(what)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def peers(
    entries: int, folder: Path, rounds: int = 3, python: str = sys.executable
) -> list[Numbers]:
    """Compare; one row per engine, the memory itself first. ``python`` is of the environment in
    which they are installed.

    A peer that could not be compared has only ``name`` and ``absent``, the reason. ``folder`` says
    on which disk to work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    versions, absent = {}, {}
    results: dict[str, list[Numbers]] = {name: [] for name in ENGINES}
    with tempfile.TemporaryDirectory(dir=folder) as work:
        for name in ENGINES:
            try:
                versions[name] = process(python, what="version", name=name, folder=work)["version"]
            except RuntimeError as error:
                absent[name] = f"{error} (the top of {Path(__file__).name} says how to install it)"
        stored, queries = make_job(entries)
        np.save(Path(work, "queries.npy"), queries)
        scores, kept = queries @ np.stack([entry.vector for entry in stored]).T, keeps(HALF, stored)
        for turn in range(rounds):
            order = [name for name in ENGINES if name not in absent]
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                try:
                    result = process(python, what="fill", name=name, folder=work, count=entries)
                    opened = [
                        process(python, what="open", name=name, folder=work, asked=i)
                        for i in range(OPENINGS)
                    ]
                    if (
                        min(recall(each["found"], scores[i], kept) for i, each in enumerate(opened))
                        < 0.9
                    ):
                        raise RuntimeError("its first answer after opening is wrong")
                    medium = {
                        key: statistics.median(each[key] for each in opened)
                        for key in ("open_ms", "cpu_open_ms")
                    }
                    results[name].append(result | medium)
                except RuntimeError as error:
                    absent[name] = f"round {turn + 1}: {error}"
                shutil.rmtree(Path(work, name), ignore_errors=True)
                if "relive" in absent:
                    raise RuntimeError(f"this project's own memory: {absent['relive']}")
    own = medians(results["relive"])
    rows = {name: {"name": name, "absent": reason} for name, reason in absent.items()}
    present = (name for name in ENGINES if name not in absent)
    rows |= {
        name: row(name, versions[name], entries, medians(results[name]), own) for name in present
    }
    return [rows[name] for name in ENGINES]


def medians(results: Sequence[Numbers]) -> Numbers:
    """The median of each number over the rounds; of recall the worst; what was tuned in the
    last."""
    numbers = {
        key: statistics.median(each[key] for each in results)
        for key in results[0]
        if key != "tuned"
    }
    worst = min(each["recall_at_10"] for each in results)
    return {**numbers, "recall_at_10": worst, "tuned": results[-1]["tuned"]}


def row(name: str, version: str, entries: int, its: Numbers, own: Numbers) -> Numbers:
    """An engine in numbers. `search_ms` is with the filter that keeps half; the ratio is the lower
    one of both filters."""
    ratios = {
        f"{what}_ratio": its[key] / own[key]
        for what, key in (("add", "add_seconds"), ("open", "open_ms"))
    }
    ratios["search_ratio"] = min(its[key] / own[key] for key in ("search_ms", "search_rare_ms"))
    said = {"durability": ENGINES[name].durability, "settings": ENGINES[name].settings}
    return {"name": name, "version": version, "entries": entries, **ratios, **its, **said}


def show(rows: Sequence[Numbers]) -> None:
    """A table, and who is missing and why."""
    from rich.console import Console
    from rich.table import Table

    numbers = {
        "add s": "add_seconds",
        "add ×": "add_ratio",
        "search ms": "search_ms",
        "of 5 %": "search_rare_ms",
    }
    numbers |= {
        "search ×": "search_ratio",
        "open ms": "open_ms",
        "open ×": "open_ratio",
        "recall": "recall_at_10",
    }
    console, table = Console(width=140), Table("engine", *numbers, "durable")
    for entry in rows:
        if "absent" in entry:
            console.print(f"{entry['name']}: absent, {entry['absent']}", markup=False)
            continue
        console.print(f"{entry['name']}: {entry['settings']} {entry['tuned']}", markup=False)
        cells = [f"{entry[key]:.3g}" for key in numbers.values()]
        table.add_row(f"{entry['name']} {entry['version']}", *cells, entry["durability"])
    console.print(table)


def main() -> None:
    """See the top of this file."""
    if sys.argv[1:2] == ["act"]:
        warnings.simplefilter("ignore")
        print(json.dumps(act(**json.loads(sys.argv[2]))), flush=True)
        os._exit(0)  # some engines complain when the interpreter takes them apart
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=2000, help="episodes to store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter of the environment that has the peers"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="on which disk"
    )
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    given = parser.parse_args()
    rows = peers(given.entries, given.folder, given.rounds, given.python)
    show(rows)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
