"""A stream's published result: written with its records beside it, compared with them again, and as
tables to read.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....agent.evaluation.records import Record, write
from ....agent.rundir import write_json
from .results import DRAWS, Row, recomputed, round_summaries, rows_of, summaries

if TYPE_CHECKING:
    from .run import Stream  # needs torch, which recomputing does not


def states_of(stream: "Stream") -> list[Row]:
    """What every agent was after each stage."""
    return [
        {**asdict(life), **asdict(state)}
        for life in stream.lives()
        for state in stream.states(life)
    ]


def costs(states: Sequence[Row]) -> list[Row]:
    """What the arms cost, in means: episodes that can be retrieved, and are kept, at the end;
    tokens learnt and seconds per stage."""
    found = []
    for arm in dict.fromkeys(state["arm"] for state in states):
        mine = [state for state in states if state["arm"] == arm]
        last = [state for state in mine if state["stage"] == max(other["stage"] for other in mine)]
        sizes = {
            name: round(float(np.mean([state[name] for state in last])), 1)
            for name in ("memory_size", "stored")
        }
        spent = {
            name: round(float(np.mean([state[name] for state in mine])), 1)
            for name in ("tokens", "seconds")
        }
        found.append({"arm": arm, **sizes, **spent})
    return found


def publish(file: Path, stream: "Stream", records: Sequence[Record]) -> None:
    """Writes a JSON file, and the records beside it as ``NAME-episodes.jsonl.gz``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    states = states_of(stream)
    write_json(
        file, {**stream.summary(), **recomputed(records), "costs": costs(states), "states": states}
    )
    slim = [{k: v for k, v in r.items() if k not in ("goal", "retrieved")} for r in records]
    write(file.with_name(f"{file.stem}-episodes.jsonl.gz"), slim)


def disagreements(published: Row, records: Sequence[Record], shipped: str) -> list[str]:
    """Where a published result is not what its records give, or not of the shipped weights."""
    found = []
    if published["weights_sha256"] != shipped:
        found.append(
            f"the summary is of weights {published['weights_sha256'][:12]}, shipped are "
            f"{shipped[:12]}"
        )
    for part, mine in recomputed(records).items():
        if published.get(part) != mine:
            found.append(
                f"{part}: {len(mine)} recomputed do not equal the {len(published.get(part, []))} "
                "published"
            )
    found += [
        f"audit: {task} was shown and must not be"
        for task in published.get("audit", {}).get("leaks", ())
    ]
    if published.get("costs") != costs(published.get("states", ())):
        found.append("costs: they do not follow from the states published")
    return found


def markdown(records: Sequence[Record], states: Sequence[Row] = (), draws: int = DRAWS) -> str:
    """Tables of the measures and of the differences, in points, and of what it cost."""
    rows, tests = summaries(records, draws)
    if not rows:
        lines = _rounds(records, draws)
    else:
        names = list(dict.fromkeys(row["name"] for row in rows))
        lines = [
            f"| arm | {' | '.join(name.replace('_', ' ') for name in names)} |",
            "|---" * (1 + len(names)) + "|",
        ]
        for arm in dict.fromkeys(row["arm"] for row in rows):
            lines.append(
                f"| {arm} | {' | '.join(_told(row) for row in rows if row['arm'] == arm)} |"
            )
        lines += ["", "| difference | average success | forgetting |", "|---|---|---|"]
        for a, b in dict.fromkeys((row["a"], row["b"]) for row in tests):
            some = {row["name"]: row for row in tests if (row["a"], row["b"]) == (a, b)}
            lines.append(
                f"| {a} − {b} | {_told(some['average_success'])} | {_told(some['forgetting'])} |"
            )
    spent = costs(states)
    if spent:
        lines += [
            "",
            "| arm | can be retrieved | kept | tokens learnt from, per stage | seconds per stage |",
            "|---" * 5 + "|",
        ]
        lines += [f"| {' | '.join(str(value) for value in row.values())} |" for row in spent]
    broken = sum("error" in str(r.get("reason", "")) for r in records)
    if broken:
        lines += [
            "",
            f"{broken} of {len(records)} held-out episodes were broken off by an error and count "
            "as failures.",
        ]
    return "\n".join(lines)


def _told(row: Row) -> str:
    return f"{100 * row['value']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def _rounds(records: Sequence[Record], draws: int) -> list[str]:
    """Success after each stage, for streams whose stages are rounds of few distributions."""
    rows = rows_of(records)
    names = list(dict.fromkeys(row["evaluated"] for row in rows))
    lines = [f"| arm | after | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        for stage in sorted({row["stage"] for row in rows if row["arm"] == arm}):
            cells = []
            for name in names:
                mine = [
                    row
                    for row in rows
                    if (row["arm"], row["stage"], row["evaluated"]) == (arm, stage, name)
                ]
                total = sum(row["n"] for row in mine)
                cells.append(
                    f"{100 * sum(row['success'] * row['n'] for row in mine) / total:.1f}"
                    if total
                    else ""
                )
            lines.append(f"| {arm} | {stage + 1} | {' | '.join(cells)} |")
    _, tests = round_summaries(records, draws)
    lines += ["", "| difference after the last round | on | success |", "|---|---|---|"]
    lines += [f"| {row['a']} − {row['b']} | {row['evaluated']} | {_told(row)} |" for row in tests]
    return lines
