"""A study's tables, recomputed from the records of its episodes: rows, paired tests, and the text
of a report.

Rates are in [0, 1]. Intervals resample whole clusters, a cluster being one room in one seed:
episodes in one room are alike, and one seed shares its adapters and its memory. They speak of the
adapters that were trained. How much other trainings would differ is in the second interval of a
difference (``crossed``), for which rooms and seeds are drawn apart; with few seeds it is wide.
Tests compare two conditions on the very same tasks; p-values of all tests together are corrected by
Holm's method.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....agent.evaluation.audit import summed
from ....agent.evaluation.metrics import wilson
from ....agent.evaluation.records import Record, right_type_share, write
from ....agent.evaluation.statistics import (
    cluster_interval,
    crossed_interval,
    holm,
    paired_difference,
)
from ....agent.events import ResultsKnown
from ....agent.llm.manifest import FILE as MANIFEST
from ....agent.llm.weights import hash_weights, with_adapter
from ....agent.rundir import write_json
from ....agent.settings import json_of
from .arms import HARD, SCRIPTED

if TYPE_CHECKING:
    from .run import Study  # needs torch, which recomputing does not

Row = dict[str, Any]

WEIGHTS = "adapter_model.safetensors"

GROUPS = ("easy", *HARD, "hard", "composed")
"""What is reported apart; ``hard`` is both hard tiers together."""

RAG = ("rag-lora-robust", "rag-lora")
COMPARISONS: tuple[tuple[str, str], ...] = (
    *((f"{a}/matching", b) for a in RAG for b in (
        "lora/empty", "lora-rehearsal/empty", "none/matching", "lora/matching",
        "lora-rehearsal/matching", "copier/matching", "copier-search/matching",
    )),
    *((f"rag-lora-robust/{memory}", b) for memory in ("empty", "other") for b in (
        "lora/empty", "lora-rehearsal/empty",
    )),
    ("rag-lora/empty", "lora/empty"),
    ("rag-lora/other", "lora/empty"),
    ("rag-lora-robust/empty", "rag-lora/empty"),
    ("rag-lora-robust/other", "rag-lora/other"),
    *((f"{a}/matching", f"{a}/matching/k1") for a in ("rag-lora-robust", "none")),
    *((f"{a}/matching/k4", f"{a}/matching") for a in ("rag-lora-robust", "none")),
    *((f"{a}/matching/dynamic", f"{a}/matching") for a in ("rag-lora-robust", "none")),
    ("rag-lora-robust/matching/own", "rag-lora-robust/matching"),
    ("rag-lora-robust/matching/own", "lora/empty"),
    *((f"{a}/matching/full", f"{a}/matching") for a in ("rag-lora-robust", "none")),
    ("none/matching", "none/empty"),
    ("none/matching", "none/matching/control"),
    ("none/empty", "none/empty/control"),
    ("lora/matching", "lora/matching/control"),
    ("lora/empty", "lora/empty/control"),
)  # fmt: skip
"""Pairs of conditions that are tested, where a study holds both."""


def rows_of(records: Iterable[Record]) -> list[Row]:
    """One row per condition, tier and seed, in the order of the records."""
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for r in records:
        groups.setdefault((r["condition"], r["tier"], r["seed"]), []).append(r)
    return [
        {
            **{
                key: found[0][key]
                for key in (
                    "train",
                    "base",
                    "memory",
                    "k",
                    "query",
                    "tier",
                    "rooms",
                    "source",
                    "seed",
                )
            },
            "condition": condition,
            "success": round(sum(r["success"] for r in found) / len(found), 4),
            "n": len(found),
            "right_type_share": right_type_share(found),
            "invalid_share": round(
                sum(r["invalid"] for r in found) / max(1, sum(len(r["actions"]) for r in found)), 4
            ),
            "memory_tokens": round(sum(r["memory_tokens"] for r in found) / len(found), 1),
            **_means(found),
        }
        for (condition, _, _), found in groups.items()
    ]


MEASURED = ("score", "best_score", "tokens", "seconds")
"""What records say besides success; the first studies kept none of it."""


def _means(records: Sequence[Record]) -> Row:
    """Means of what was measured besides success, and which model played where."""
    if not all(key in r for r in records for key in MEASURED):
        return {}
    means = {key: round(sum(r[key] for r in records) / len(records), 4) for key in MEASURED}
    return {"model": records[0]["model"], "suite": records[0]["suite"], **means}


def in_group(records: Iterable[Record], condition: str, group: str) -> list[Record]:
    """Records of a condition and a tier, or of all hard ones."""
    tiers = ("hard", *HARD) if group == "hard" else (group,)
    return [r for r in records if r["condition"] == condition and r["tier"] in tiers]


def clusters(records: Sequence[Record]) -> list[tuple[str, int]]:
    """The cluster of each record: its room and its seed; in a suite without rooms, its task.

    Seeds have tasks, memories and adapters of their own and share their rooms. With the room alone
    intervals hardly change (docs/results.md), but no test of the kitchens' tasks could tell
    anything, however large the difference: there are six kitchens.
    """
    return [(r["room"] or r["task"], r["seed"]) for r in records]


def interval(records: Sequence[Record]) -> tuple[float, float]:
    """95 % interval of the success rate: by clusters, or Wilson's where there is but one, or where
    all came out alike: what is drawn from them does, too, and has no width."""
    labels = clusters(records)
    if len(set(labels)) < 2 or len({bool(r["success"]) for r in records}) < 2:
        return wilson(sum(r["success"] for r in records), len(records))
    return cluster_interval([float(r["success"]) for r in records], labels)


def summaries(records: Sequence[Record]) -> list[Row]:
    """Success of every condition over all seeds, per group, with its 95 % cluster interval."""
    found = []
    for condition in dict.fromkeys(r["condition"] for r in records):
        for group in GROUPS:
            mine = in_group(records, condition, group)
            if mine:
                low, high = interval(mine)
                success = sum(r["success"] for r in mine) / len(mine)
                found.append(
                    {
                        "condition": condition,
                        "tier": group,
                        "success": round(success, 4),
                        "n": len(mine),
                        "low": round(low, 4),
                        "high": round(high, 4),
                        "right_type_share": right_type_share(mine),
                        **{k: v for k, v in _means(mine).items() if k in MEASURED},
                    }
                )
    return found


def known(records: Sequence[Record]) -> ResultsKnown:
    """Success of every condition over all seeds, per group, for whoever keeps curves."""
    rows = summaries(records)
    return ResultsKnown(1, {f"{r['condition']}/{r['tier']}": r["success"] for r in rows})


def compared(records: Sequence[Record]) -> list[Row]:
    """All comparisons that the records allow; ``p`` is corrected over all of them.

    Success is compared; the score as well (``"measure": "score"``) where it is more than success.
    """
    present = {r["condition"] for r in records}
    partial = any(r.get("score", 0.0) not in (0.0, 1.0) for r in records)
    found: list[Row] = []
    for measure in ("success", "score") if partial else ("success",):
        for a, b in COMPARISONS:
            for group in GROUPS if {a, b} <= present else ():
                row = difference(in_group(records, a, group), in_group(records, b, group), measure)
                if row:
                    told = {} if measure == "success" else {"measure": measure}
                    found.append({"a": a, "b": b, "tier": group, **told, **row})
    for row, p in zip(found, holm([row.pop("p_raw") for row in found]), strict=True):
        row["p"] = round(float(p), 5)
    return found


def difference(one: Sequence[Record], other: Sequence[Record], measure: str) -> Row | None:
    """Their mean difference on the tasks that both played; None without at least two clusters.

    Where there are several seeds, ``crossed`` is its interval with rooms and seeds drawn apart.
    """
    first, second = ({(r["task"], r["seed"]): r for r in records} for records in (one, other))
    both = [key for key in first if key in second]
    labels = clusters([first[key] for key in both])
    if len(set(labels)) < 2:
        return None
    one_by_one, other_by_one = (
        [float(some[key][measure]) for key in both] for some in (first, second)
    )
    test = paired_difference(one_by_one, other_by_one, labels)
    places, seeds = zip(*labels, strict=True)
    ends = {}
    if min(len(set(places)), len(set(seeds))) > 1:
        gaps = [a - b for a, b in zip(one_by_one, other_by_one, strict=True)]
        ends = {"crossed": [round(end, 4) for end in crossed_interval(gaps, places, seeds)]}
    return {
        "n": test.n,
        "difference": round(test.difference, 4),
        "low": round(test.low, 4),
        "high": round(test.high, 4),
        **ends,
        "p_raw": test.p,
    }


def wording(goal: str) -> str:
    """``verb`` for goals that name the verb ("heat some egg and put it in …"), ``property`` for
    those that name what is to become of the thing ("put a hot egg in …"), ``other`` where the
    procedure has neither."""
    first = goal.split()[0]
    if first in ("clean", "heat", "cool"):
        return "verb"
    return "property" if any(word in ("clean", "hot", "cool") for word in goal.split()) else "other"


def by_wording(records: Sequence[Record], conditions: Sequence[str]) -> list[Row]:
    """Success per wording of the goal, where the procedure has both: clean in the easy tier, heat
    and cool in the binding one."""
    found = []
    for condition in conditions:
        for tier in ("easy", "binding"):
            for kind in ("property", "verb"):
                mine = [r for r in in_group(records, condition, tier) if wording(r["goal"]) == kind]
                if mine:
                    low, high = interval(mine)
                    success = round(sum(r["success"] for r in mine) / len(mine), 4)
                    found.append(
                        {
                            "condition": condition,
                            "tier": tier,
                            "wording": kind,
                            "success": success,
                            "n": len(mine),
                            "low": round(low, 4),
                            "high": round(high, 4),
                        }
                    )
    return found


def recomputed(records: Sequence[Record]) -> dict[str, Any]:
    """All of a published study that follows from its records."""
    treated = [c for c in dict.fromkeys(r["condition"] for r in records) if "/matching" in c]
    found: dict[str, Any] = {
        "rows": rows_of(records),
        "summaries": summaries(records),
        "wordings": by_wording(records, treated),
        "tests": compared(records),
    }
    audit = summed(records)
    return found if audit is None else {**found, "audit": audit}


LARGEST = 2_000_000
"""Bytes of an adapter's weights that are published with it; of a larger one only the manifest,
which holds their hash."""


def publish(
    folder: Path, study: "Study", records: Sequence[Record], curves: Sequence[Row] = ()
) -> str:
    """Writes all that is needed to recompute a study, and to replay it where its adapters are
    small: ``study-<name>.json``, records, adapters. Returns that name.

    A study on valid rooms is published under a name of its own, ``study-<name>-valid``.
    """
    settings = study.settings
    name = f"study-{settings.name or settings.suite}"
    name += f"-{settings.split}" if settings.split != "test" else ""
    write(folder / f"{name}-episodes.jsonl.gz", records)
    for adapter in sorted({name for r in records for name in adapters_of(r)}):
        made, to = study.path / "adapters" / adapter, folder / name / "adapters" / adapter
        to.mkdir(parents=True, exist_ok=True)
        # Comparisons of many methods have too many of them.
        small = (made / WEIGHTS).stat().st_size <= LARGEST and not settings.methods
        for file in (WEIGHTS, MANIFEST) if small else (MANIFEST,):
            shutil.copyfile(made / file, to / file)
        # peft notes where the base model lay on this machine.
        config = json_of(made / "adapter_config.json", "adapter's file")
        base = settings.control if "-control-" in adapter else settings.model_name
        write_json(to / "adapter_config.json", {**config, "base_model_name_or_path": base})
    control = folder / name / "control"
    if (
        any(r["base"] == "control" for r in records)
        and Path(settings.control).resolve() != control.resolve()
    ):
        shutil.copytree(settings.control, control, dirs_exist_ok=True)
    write_json(
        folder / f"{name}.json",
        {**study.summary(), **recomputed(records), "curves": list(curves)},
    )
    return name


def adapters_of(r: Record) -> list[str]:
    """Adapters that a record was played with: one, none, or those of a council's members."""
    return r.get("members") or [name for name in (r["adapter"],) if name]


def _acted(r: Record, base: str, hashes: Mapping[str, str]) -> str:
    """Hash of the weights that a record is to have been played with."""
    if r["train"] in SCRIPTED:
        return ""
    if r.get("members"):
        return "+".join(with_adapter(base, hashes[name])[:12] for name in r["members"])
    return with_adapter(base, hashes[r["adapter"]]) if r["adapter"] else base


def _hash_of(adapter: Path) -> str:
    """Hash of a published adapter's weights, or what its manifest says where they are too large to
    be there."""
    if (adapter / WEIGHTS).exists():
        return hash_weights(adapter)
    return str(json_of(adapter / MANIFEST, "manifest")["adapter_sha256"])


def disagreements(
    summary: Row, records: Sequence[Record], weights: str, adapters: Path
) -> list[str]:
    """What in a published study does not follow from its records, or from the weights as shipped;
    empty when all does.

    Curves have no records: they come from runs on valid rooms that are not published.

    Args:
        summary: the content of ``study-<name>.json``.
        records: of its episodes.
        weights: hash of the bundled weights.
        adapters: folder of the published adapters.
    """
    found = []
    if summary.get("model", "bundled") == "bundled" and summary["weights_sha256"] != weights:
        found.append(
            f"the study is of weights {summary['weights_sha256'][:12]}, shipped are {weights[:12]}"
        )
    for name, now in recomputed(records).items():
        then = summary.get(name, [])
        if name == "audit":
            found += [f"audit: {now} recomputed, {then} committed"] if now != then else []
            found += [f"audit: {task} was shown and must not be" for task in now["leaks"]]
            continue
        found += [
            f"{name}: {a} recomputed, {b} committed"
            for a, b in zip(now, then, strict=False)
            if a != b
        ]
        if len(now) != len(then):
            found.append(f"{len(now)} {name} recomputed, {len(then)} committed")
    hashes = {a: _hash_of(adapters / a) for a in {name for r in records for name in adapters_of(r)}}
    for r in records:
        if r["weights_sha256"] != _acted(r, summary["bases"][r["base"]], hashes):
            found.append(
                f"{r['condition']}, task {r['task']}: played by other weights than those published"
            )
    keys = [(r["condition"], r["seed"], r["task"]) for r in records]
    if len(set(keys)) != len(keys):
        found.append("a task is recorded twice under one condition and seed")
    played = {(r["task"], r["seed"]) for r in records}
    if len({task for task, _ in played}) != len(played):
        found.append("two seeds share a task")
    return found


def markdown(records: Sequence[Record]) -> str:
    """Tables for people: success per condition and tier, then all tests."""
    groups = [
        g for g in GROUPS if any(in_group(records, c, g) for c in {r["condition"] for r in records})
    ]
    cells = {(row["condition"], row["tier"]): row for row in summaries(records)}
    lines = [
        "| condition | " + " | ".join(groups) + " | retrieval precision@k |",
        "|---" * (len(groups) + 2) + "|",
    ]
    for condition in dict.fromkeys(r["condition"] for r in records):
        texts = []
        for group in groups:
            row = cells.get((condition, group))
            texts.append(
                f"{100 * row['success']:.1f} ({100 * row['low']:.0f}–{100 * row['high']:.0f})"
                if row
                else "–"
            )
        share = right_type_share([r for r in records if r["condition"] == condition])
        lines.append(
            f"| {condition} | {' | '.join(texts)} | "
            f"{'–' if share is None else f'{100 * share:.0f} %'} |"
        )
    lines += [
        "",
        "| a | b | tier | n | a − b, points (95 %) | p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    for test in compared(records):
        points = (
            f"{100 * test['difference']:+.1f} ({100 * test['low']:+.1f} to "
            f"{100 * test['high']:+.1f})"
        )
        lines.append(
            f"| {test['a']} | {test['b']} | {test['tier']} | {test['n']} | {points} | "
            f"{test['p']:.4f} |"
        )
    return "\n".join(lines) + "\n"
