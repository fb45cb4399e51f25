r"""Recall of searches by dimension, distribution and share of deleted entries, each against the
exact answer among the living.

    # two minutes
    python scripts/bench_recall.py --entries 20000 --dimensions 16 384
    # 10⁵ entries: an hour
    python scripts/bench_recall.py --out recall.jsonl --write docs/results/memory.json
    # what graphs are bad at
    python scripts/bench_recall.py --distribution uniform identical \
        --dimensions 8 16 128

One memory is built for each dimension and distribution, and copied for each case: nothing deleted,
a share deleted at random, the same share deleted around the queries (those closest to any of them
first, whatever they are about). Each is searched before and after compaction. Before each round of
searches some rows are added that no published graph holds. A reader is asked, and the writer; a hit
is right if it is as close as the tenth of the living, whichever of equals it is.

A table; the last line is JSON. With ``--out`` every finished dimension is kept in a file of JSON
lines, and a later run with the same entries and queries goes on from there.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_peers import TIE, recall
from bench_vectors import DISTRIBUTIONS, Given, Vectors
from numpy.typing import NDArray

from relive.memory import (
    Actor,
    Episode,
    Hit,
    Memory,
    Outcome,
    Query,
    StopReason,
    Task,
)

K, BATCH, SEED = 10, 512, 1
LONGEST_TAIL = 500  # a writer publishes a graph for 2,000 new rows; two tails stay below that
TASK = Task("bench", "", "any", "train", "", 0, "1", "")
EPISODE = Episode("", TASK, (), "Done.", Outcome(True, 1.0, StopReason.SOLVED), Actor("expert"))
Row = dict[str, Any]
Mask = NDArray[np.bool_]


class Job:
    """What is stored and asked: vectors by number, the entries first, then two tails, then the
    queries."""

    def __init__(self, distribution: str, dimension: int, count: int, queries: int) -> None:
        self.distribution, self.dimension, self.count = distribution, dimension, count
        self.tail = min(LONGEST_TAIL, max(1, count // 200))
        self.stored = count + 2 * self.tail
        self.vectors = DISTRIBUTIONS[distribution](self.stored + queries, dimension, SEED)
        self.queries = self.vectors[self.stored :]

    def embedder(self) -> Given:
        """Knows all vectors by number."""
        return Given(self.vectors)

    def scores(self) -> Vectors:
        """Of every stored vector with every query, shape (queries, stored)."""
        scores: Vectors = self.queries @ self.vectors[: self.stored].T
        return scores

    def episodes(self, start: int, stop: int) -> list[Episode]:
        """The episodes with these numbers."""
        return [
            replace(
                EPISODE,
                id=f"e{i}",
                task=replace(TASK, identity=f"game-{i}", room=f"room-{i}", goal=str(i)),
            )
            for i in range(start, stop)
        ]


def search(memory: Memory, text: str) -> list[Hit]:
    """The best ten, nothing held back."""
    return memory.search(Query(text, k=K))


def build(folder: Path, job: Job) -> None:
    """A memory of all entries, with a published graph of them.

    What an episode says of its start is its turn to go: those closest to any query first. So a
    whole neighbourhood is deleted with one synchronisation of the disk.
    """
    closest = job.scores()[:, : job.count].max(axis=0)
    turns = np.empty(job.count)
    turns[np.argsort(-closest, kind="stable")] = np.arange(job.count)
    with Memory(folder, embedder=job.embedder()) as memory:
        for start in range(0, job.count, BATCH):
            stop = min(start + BATCH, job.count)
            batch = zip(job.episodes(start, stop), turns[start:stop].tolist(), strict=True)
            memory.add_many([replace(episode, started=turn) for episode, turn in batch])
        memory.publish_index()


def delete(memory: Memory, count: int, share: float, how: str) -> Mask:
    """Delete a share of `count` entries, at random or around the queries; which of them are left,
    shape (count,)."""
    going = round(share * count)
    gone = (
        memory.evict(capacity=count - going, by="random", keep_per_type=0)
        if how == "random"
        else memory.evict(before=float(going), keep_per_type=0)
    )
    alive = np.ones(count, dtype=np.bool_)
    alive[[int(name[1:]) for name in gone]] = False
    if np.count_nonzero(alive) != count - going:
        raise SystemExit(f"{len(gone)} entries were deleted, {going} should have been")
    return alive


def ask(memory: Memory, job: Job, scores: Vectors, alive: Mask) -> Row:
    """Recall, time and kind of the answers of an open memory. `alive`: of all that is stored, what
    is to be found."""
    times, recalls, right, approximate = [], [], 0, 0
    for number, of_query in enumerate(scores):
        began = time.perf_counter()
        hits = search(memory, str(job.stored + number))
        times.append(time.perf_counter() - began)
        recalls.append(recall([hit.episode_id for hit in hits], of_query, alive, K))
        best = alive & (of_query >= of_query[alive].max() - TIE)
        right += bool(hits) and bool(best[int(hits[0].episode_id[1:])])
        approximate += any(not hit.explanation.exact for hit in hits)
    return {
        "recall_at_10": statistics.fmean(recalls),
        "top1": right / len(scores),
        "search_ms": 1000 * statistics.median(times),
        "approximate_share": approximate / len(scores),
        "graph_rows": memory.stats().index_entries,
    }


def exact_seconds(job: Job, alive: Mask) -> float:
    """Median time in which numpy compares a query with everything that is alive, in one thread."""
    living = job.vectors[: job.stored][alive]
    times = []
    for query in job.queries:
        began = time.perf_counter()
        scores = np.einsum("ij,j->i", living, query)
        np.argpartition(-scores, min(K, len(scores) - 1))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def cases(built: Path, scratch: Path, job: Job, shares: Sequence[float]) -> list[Row]:
    """All cases of one memory, which is left as it is."""
    scores = job.scores()
    rows: list[Row] = []
    for share, how in [
        (s, how) for s in shares for how in (("random", "close") if s else ("none",))
    ]:
        folder = scratch / "case"
        shutil.copytree(built, folder)
        alive = np.zeros(job.stored, dtype=np.bool_)
        alive[: job.count] = True
        for compacted in (False, True) if share else (False,):
            with Memory(folder, "w", embedder=job.embedder()) as writer:
                if compacted:
                    writer.compact()
                elif share:
                    alive[: job.count] = delete(writer, job.count, share, how)
                first = job.count + job.tail * compacted
                writer.add_many(job.episodes(first, first + job.tail))
                alive[first : first + job.tail] = True
                of_writer = ask(writer, job, scores, alive)
            with Memory(folder, "r", embedder=job.embedder()) as reader:
                of_reader = ask(reader, job, scores, alive)
            rows.append(
                {
                    "dimension": job.dimension,
                    "distribution": job.distribution,
                    "entries": job.count,
                    "deleted_share": share,
                    "deleted": how,
                    "compacted": compacted,
                    **of_reader,
                    "exact_ms": 1000 * exact_seconds(job, alive),
                    "writer_recall_at_10": of_writer["recall_at_10"],
                    "writer_top1": of_writer["top1"],
                }
            )
            show(rows[-1:])
        shutil.rmtree(folder)
    return rows


def measure(job: Job, shares: Sequence[float], place: Path | None = None) -> list[Row]:
    """Builds a memory in a temporary folder and asks it."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        build(Path(folder) / "built", job)
        return cases(Path(folder) / "built", Path(folder), job, shares)


def show(rows: Sequence[Row], head: bool = False) -> None:
    """Lines of the table."""
    if head:
        print(
            f"{'dim':>5s} {'vectors':9s} {'deleted':>7s} {'how':6s} {'compacted':9s} "
            f"{'recall@10':>9s} {'top1':>6s} "
            f"{'writer':>7s} {'top1':>6s} {'approx.':>7s} {'in graph':>8s} {'ms':>7s} "
            f"{'exact ms':>8s}"
        )
    for row in rows:
        print(
            f"{row['dimension']:5d} {row['distribution']:9s} {row['deleted_share']:7.2f} "
            f"{row['deleted']:6s} "
            f"{'yes' if row['compacted'] else 'no':9s} {row['recall_at_10']:9.4f} "
            f"{row['top1']:6.3f} "
            f"{row['writer_recall_at_10']:7.4f} {row['writer_top1']:6.3f} "
            f"{row['approximate_share']:7.2f} "
            f"{row['graph_rows']:8d} {row['search_ms']:7.3f} {row['exact_ms']:8.3f}",
            flush=True,
        )


def finished(out: Path | None) -> dict[str, list[Row]]:
    """Rows by settings, of the runs that a file of JSON lines holds; a line that was cut off is
    left out."""
    found: dict[str, list[Row]] = {}
    for line in out.read_text().splitlines() if out and out.exists() else ():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        found[json.dumps(one["settings"])] = one["rows"]
    return found


def keep(out: Path, settings: Row, rows: Sequence[Row]) -> None:
    """Add a finished dimension; a line that was cut off before it stays a line of its own."""
    with out.open("a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        cut_off = file.read() not in (b"", b"\n")
        line = json.dumps({"settings": settings, "rows": rows})
        file.write(b"\n" * cut_off + line.encode() + b"\n")


def main() -> None:
    """Measures what is not finished yet, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[16, 128, 384, 1024])
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.0, 0.5, 0.95],
        help="of entries that are deleted",
    )
    parser.add_argument(
        "--distribution", nargs="+", choices=list(DISTRIBUTIONS), default=["clustered"]
    )
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument(
        "--out", type=Path, help="JSON lines: finished dimensions are added, and not measured again"
    )
    parser.add_argument(
        "--write", type=Path, help='a JSON file whose "recall_by_dimension" is replaced'
    )
    args = parser.parse_args()
    known = finished(args.out)
    rows: list[Row] = []
    show([], head=True)
    for distribution in args.distribution:
        for dimension in args.dimensions:
            settings = {"entries": args.entries, "queries": args.queries, "shares": args.shares}
            settings |= {"distribution": distribution, "dimension": dimension}
            if json.dumps(settings) in known:
                some = known[json.dumps(settings)]
                show(some)
            else:
                some = measure(
                    Job(distribution, dimension, args.entries, args.queries),
                    args.shares,
                    args.folder,
                )
                if args.out:
                    keep(args.out, settings, some)
            rows += some
    result = {"recall_by_dimension": [{k: _rounded(v) for k, v in row.items()} for row in rows]}
    if args.write:
        whole = json.loads(args.write.read_text()) if args.write.exists() else {}
        args.write.write_text(json.dumps(whole | result, indent=1) + "\n")
    print(json.dumps(result))


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
