"""The memory engine in numbers, against what it is built on: raw hnswlib, and plain writing and
syncing.

    python scripts/bench_memory.py --quick                    # 2·10⁴ entries, no peers; within 50 s
    python scripts/bench_memory.py --peers peers/bin/python   # 10⁵ entries, and the peers
    python scripts/bench_memory.py --entries 1000000          # half an hour

The peers are those of scripts/bench_peers.py. ``--built FOLDER`` keeps the memory for another run.

384 dimensions, seeded clustered vectors, episodes that the household's expert played. One table;
the last line is JSON. Both sides of every ratio are measured in the same run, in turns, and medians
are compared: timings of a busy machine are noisy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from bench_vectors import Given, Vectors, clustered

from relive.memory import Episode, Holdout, IndexSettings, Memory, Query
from relive.memory.search.index import SEED
from relive.memory.storage.log import Log
from relive.memory.storage.segments import Kind

DIMENSION, K, BATCH, QUERIES = 384, 10, 64, 300
TYPES = 20  # a filter on one of them keeps 5 %
HOLDOUT = Holdout(frozenset({"asked"}), frozenset({"train"}), frozenset({"test"}))
INDEX = IndexSettings()


def played(count: int) -> list[Episode]:
    """Episodes of the household's expert on training tasks."""
    from relive.agent.collect import collect_demonstrations
    from relive.envs import get_suite

    with tempfile.TemporaryDirectory() as folder, Memory(folder) as memory:
        collect_demonstrations(memory, get_suite("household"), count)
        return list(memory.iterate())


def entries(real: Sequence[Episode], start: int, stop: int) -> list[Episode]:
    """Episodes `start` to `stop`: real ones under numbers of their own, with the number of a vector
    for a goal."""
    made = []
    for i in range(start, stop):
        episode = real[i % len(real)]
        task = replace(
            episode.task,
            identity=f"game-{i}",
            room=f"room-{i}",
            goal=str(i),
            type=f"type-{i % TYPES}",
        )
        made.append(replace(episode, id=f"episode-{i}", task=task))
    return made


def alternate(*actions: Callable[[int], object], repeats: int) -> list[float]:
    """Median seconds of each action; called in turns, with the number of the turn."""
    times: list[list[float]] = [[] for _ in actions]
    for turn in range(repeats):
        for which, action in enumerate(actions):
            began = time.perf_counter()
            action(turn)
            times[which].append(time.perf_counter() - began)
    return [statistics.median(some) for some in times]


def build(
    folder: Path, vectors: Vectors, real: Sequence[Episode], count: int
) -> tuple[float, float]:
    """Fills a memory and a raw index with the same vectors, in turns; seconds of each, the memory's
    last snapshot included.

    Both make the same graph: same vectors, order, parameters and seed. The raw one is saved beside
    the memory.
    """
    raw = hnswlib.Index(space="ip", dim=DIMENSION)
    raw.init_index(
        max_elements=count, ef_construction=INDEX.ef_construction, M=INDEX.m, random_seed=SEED
    )
    raw.set_num_threads(1)
    ours = theirs = 0.0
    with Memory(folder, embedder=Given(vectors)) as memory:
        for start in range(0, count, BATCH):
            batch = entries(real, start, min(start + BATCH, count))
            began = time.perf_counter()
            memory.add_many(batch)
            middle = time.perf_counter()
            raw.add_items(
                vectors[start : start + len(batch)],
                np.arange(start, start + len(batch)),
                num_threads=1,
            )
            ours, theirs = ours + middle - began, theirs + time.perf_counter() - middle
        began = time.perf_counter()
        memory.publish_index()
        ours += time.perf_counter() - began
    raw.save_index(str(folder.with_suffix(".raw")))
    folder.with_suffix(".json").write_text(json.dumps({"count": count, "seconds": [ours, theirs]}))
    return ours, theirs


def built(
    folder: Path, vectors: Vectors, real: Sequence[Episode], count: int
) -> tuple[float, float]:
    """What :func:`build` returned when it built this very memory; builds it otherwise."""
    note = folder.with_suffix(".json")
    if not note.exists():
        return build(folder, vectors, real, count)
    found = json.loads(note.read_text())
    if found["count"] != count:
        raise SystemExit(
            f"{folder} holds {found['count']} entries, not {count}: give another --built folder"
        )
    note.unlink()  # measuring adds to it
    ours, theirs = found["seconds"]
    return ours, theirs


def oracle(vectors: Vectors, queries: Vectors, step: int = 1, first: int = 0) -> list[set[str]]:
    """Ids of the ten closest to each query, among every `step`-th entry."""
    found = []
    for query in queries:
        near = np.argpartition(-(vectors[first::step] @ query), K)[:K]
        found.append({f"episode-{first + step * int(i)}" for i in near})
    return found


def searches(folder: Path, vectors: Vectors, count: int) -> dict[str, float]:
    """Recall and time of searches, plain and filtered, against the graph that they use."""
    queries = vectors[count:]
    raw = hnswlib.Index(space="ip", dim=DIMENSION)
    raw.load_index(str(folder.with_suffix(".raw")))
    raw.set_num_threads(1)
    raw.set_ef(INDEX.ef)
    with Memory(folder, "r", embedder=Given(vectors)) as memory:

        def search(turn: int, kept: dict[str, set[str]]) -> set[str]:
            hits = memory.search(Query(str(count + turn), k=K, only=kept), HOLDOUT)
            return {hit.episode_id for hit in hits}

        few = {"type": {"type-3"}}
        plain = [search(turn, {}) for turn in range(QUERIES)]
        filtered = [search(turn, few) for turn in range(QUERIES)]
        recall = sum(
            len(a & b) for a, b in zip(plain, oracle(vectors[:count], queries), strict=True)
        )
        wanted = oracle(vectors[:count], queries, TYPES, 3)
        filter_recall = sum(len(a & b) for a, b in zip(filtered, wanted, strict=True))
        plainly, bare, rarely = alternate(
            lambda turn: search(turn, {}),
            # Another query than the memory's, or its way through the graph would be in the
            # processor's cache already.
            lambda turn: raw.knn_query(queries[turn - QUERIES // 2][None, :], k=K, num_threads=1),
            lambda turn: search(turn, few),
            repeats=QUERIES,
        )
    return {
        "recall_at_10": recall / (K * QUERIES),
        "filter_recall": filter_recall / (K * QUERIES),
        "search_ms": 1000 * plainly,
        "knn_query_ms": 1000 * bare,
        "search_ratio": plainly / bare,
        "filtered_ms": 1000 * rarely,
        "filter_ratio": rarely / plainly,
    }


def pauses(folder: Path, vectors: Vectors, count: int, scratch: Path) -> dict[str, float]:
    """A reader searches without a break, and follows in another thread, while a writer adds a fifth
    and publishes a new graph."""
    times: list[float] = []
    with Memory(folder, "r", embedder=Given(vectors)) as memory:
        before, over = memory.stats().index_entries, threading.Event()

        def follow() -> None:
            while not over.wait(0.1):
                memory.refresh()

        following = threading.Thread(target=follow)
        following.start()
        command = [
            sys.executable,
            __file__,
            "--child",
            "grow",
            str(folder),
            str(scratch / "vectors.npy"),
        ]
        with subprocess.Popen([*command, str(count)]) as writer:
            while writer.poll() is None:
                began = time.perf_counter()
                memory.search(Query(str(count + len(times) % QUERIES), k=K), HOLDOUT)
                times.append(time.perf_counter() - began)
        over.set()
        following.join()
        memory.refresh()
        if memory.stats().index_entries <= before:
            raise SystemExit("no new graph reached the reader")
    return {"reader_pause_ms": 1000 * max(times), "reader_p50_ms": 1000 * statistics.median(times)}


def grow(folder: Path, vectors: Vectors, count: int) -> None:
    """Adds a fifth of what is there."""
    real = played(4)
    with Memory(folder, "w", embedder=Given(vectors)) as memory:
        for start in range(count, count + count // 5, BATCH):
            # Vectors of entries that are there: what is measured does not depend on them.
            batch = [
                replace(e, task=replace(e.task, goal=str(int(e.task.goal) - count)))
                for e in entries(real, start, start + BATCH)
            ]
            memory.add_many(batch)


def appends(folder: Path, repeats: int = 60) -> dict[str, float]:
    """Durable appends of 64 payloads of 1 KiB, against writing and syncing the same bytes."""
    payloads = [np.random.default_rng(i).bytes(1024) for i in range(BATCH)]
    log = Log(folder / "log", memory=bytes(16), writable=True)
    (folder / "log").mkdir(parents=True)
    list(log.refresh())
    plain = os.open(folder / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    whole = b"".join(payloads)

    def write(_: int) -> None:
        os.write(plain, whole)
        os.fsync(plain)

    records = [(Kind.EPISODE, payload) for payload in payloads]
    ours, theirs = alternate(lambda _: log.append(records), write, repeats=repeats)
    os.close(plain)
    log.close()
    return {"append_ratio": theirs / ours, "append_per_second": BATCH / ours}


def child(what: str, folder: Path, vectors: Path) -> None:
    """In a process of its own: time to the first answer, or growth of resident memory; prints
    JSON."""
    given = np.load(vectors, mmap_mode="r")
    query = np.ascontiguousarray(given[-1])
    before = _resident()
    began = time.perf_counter()
    if what == "raw":
        raw = hnswlib.Index(space="ip", dim=DIMENSION)
        raw.load_index(str(folder.with_suffix(".raw")))
        raw.set_ef(INDEX.ef)
        labels, _ = raw.knn_query(query[None, :], k=K, num_threads=1)
        answer = sorted(map(int, labels[0]))
        print(json.dumps({"seconds": time.perf_counter() - began, "answer": answer}))
        return
    memory = Memory(folder, "r", embedder=Given(given))
    hits = memory.search(Query(str(len(given) - 1), k=K, only={"type": {"type-3"}}), HOLDOUT)
    seconds = time.perf_counter() - began
    if what == "resident":
        for turn in range(1000):
            text = str(len(given) - 1 - turn % QUERIES)
            memory.search(Query(text, k=K, only={"type": {f"type-{turn % TYPES}"}}), HOLDOUT)
    grown = _resident() - before
    print(
        json.dumps(
            {"seconds": seconds, "grown": grown, "answer": sorted(hit.episode_id for hit in hits)}
        )
    )


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def processes(
    folder: Path, vectors: Vectors, count: int, scratch: Path, rounds: int = 5
) -> dict[str, float]:
    """New processes: how long to the first correct filtered answer, how much memory after a
    thousand."""
    np.save(scratch / "vectors.npy", vectors)

    def run(what: str) -> dict[str, Any]:
        command = [
            sys.executable,
            __file__,
            "--child",
            what,
            str(folder),
            str(scratch / "vectors.npy"),
        ]
        return dict(
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        )

    run("open")  # files are warm from here on
    opened, raw = [], []
    for _ in range(rounds):
        opened.append(run("open"))
        raw.append(run("raw"))
    (wanted,) = oracle(vectors[:count], vectors[-1:], TYPES, 3)
    right = sum(len(wanted & set(one["answer"])) >= K - 1 for one in opened)
    if right < rounds:
        raise SystemExit("a new process answered wrongly")
    ours, theirs = (statistics.median(one["seconds"] for one in some) for some in (opened, raw))
    needed = count * DIMENSION * 4 + folder.with_suffix(".raw").stat().st_size
    return {
        "open_ms": 1000 * ours,
        "load_index_ms": 1000 * theirs,
        "open_ratio": ours / theirs,
        "resident_ratio": run("resident")["grown"] / needed,
    }


def main() -> None:
    """Builds a memory, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="20,000 entries, no peers")
    parser.add_argument("--peers", type=Path, help="Python of an environment that holds the peers")
    parser.add_argument("--peer-entries", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument(
        "--built", type=Path, help="build there and leave it; or measure, once, what was left there"
    )
    parser.add_argument(
        "--only-build", action="store_true", help="with --built: measure later, on a quiet machine"
    )
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child and args.child[0] == "grow":
        grow(Path(args.child[1]), np.load(args.child[2], mmap_mode="r"), int(args.child[3]))
        return
    if args.child:
        child(args.child[0], Path(args.child[1]), Path(args.child[2]))
        return
    count = 20_000 if args.quick else args.entries
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        folder = Path(scratch)
        vectors = clustered(count + QUERIES, DIMENSION, seed=1)
        real = played(60)
        place = (args.built or folder) / "memory"
        if args.only_build:
            build(place, vectors, real, count)
            return
        ours, theirs = built(place, vectors, real, count)
        result: dict[str, Any] = {
            "entries": count,
            "add_ratio": theirs / ours,
            "add_ms": 1000 * ours / count,
        }
        result |= {"insertion_ms": 1000 * theirs / count}
        result |= searches(place, vectors, count)
        result |= appends(folder / "appends")
        result |= processes(place, vectors, count, folder)
        result |= pauses(place, vectors, count, folder)  # last: it adds
    for name, value in result.items():
        print(f"{name:20s} {value:12.4f}", flush=True)
    result["peers"] = []
    if args.peers and not args.quick:
        from bench_peers import peers

        with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
            result["peers"] = peers(args.peer_entries, Path(scratch), 3, str(args.peers))
    for row in result["peers"]:
        print(row)
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()
