"""Kill, damage, starve and stress the memory engine for as long as it takes; count what was lost or
wrong (nothing must be).

    # half an hour or more; a table, then one line of JSON
    python scripts/fault_memory.py
    # a minute, to try it
    python scripts/fault_memory.py --kills 20 --every 97 --seconds 5 --disks 3
    python scripts/fault_memory.py --only kills stress

The parts are those of tests/memory/test_kill.py, test_faults.py and test_stress.py, with larger
numbers. A part that finds anything wrong is named with what it found, and the program ends with
status 1.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tests are not installed

from tests.memory import test_faults as faults
from tests.memory.faults import check, ids_of, make, open_memory
from tests.memory.test_kill import Kills, judge_kills, kill_writers
from tests.memory.test_stress import judge_stress, stress

Counts = dict[str, Any]
MEMORIES = 10
"""Memories among which the kills are divided."""


def kills(folder: Path, options: argparse.Namespace) -> Counts:
    """SIGKILL at random moments of writers that do everything a writer can do."""
    total = Kills()
    memories = min(MEMORIES, options.kills)
    for number in range(memories):
        share = options.kills * (number + 1) // memories - options.kills * number // memories
        result = kill_writers(folder / f"kills-{number}", share, options.seed + number)
        for name, value in vars(result).items():
            if name == "agreement":
                total.agreement.take(value)
            else:
                setattr(total, name, getattr(total, name) + value)
    judge_kills(total)
    counts: Counts = {
        name: value for name, value in vars(total).items() if name not in ("agreement", "problems")
    }
    return {
        **counts,
        "exact searches": total.agreement.exact,
        "wrong answers": total.agreement.wrong,
        "approximate searches": total.agreement.approximate,
        "recall": round(total.agreement.recall, 4),
    }


def damage(folder: Path, options: argparse.Namespace) -> Counts:
    """Flipped bits in every file, and logs cut within their last record."""
    counts: Counts = {}
    for caches in (True, False):
        words = "with caches" if caches else "caches deleted"
        found = faults.flips_in_log(folder / f"flips-{caches}", options.every, caches=caches)
        counts[f"flips in the log, {words}"] = found["flips"]
        counts[f"damaged episodes, {words}"] = found["episodes that were damaged themselves"]
        found = faults.cuts_of_last_record(folder / f"cuts-{caches}", options.every, caches=caches)
        counts[f"cuts of the log, {words}"] = found["cuts"]
    for number, pattern in enumerate(faults.PARTS):
        every = options.every * (1 if pattern.endswith("json") else 16)
        counts[f"flips in {pattern}"] = faults.flips_in_caches(
            folder / f"part-{number}", pattern, every
        )["flips"]
    return {**counts, "lost": 0}


def exchange(folder: Path, options: argparse.Namespace) -> Counts:
    """Caches deleted, of another memory, older and newer than the log."""
    counts: Counter[str] = Counter()
    for what in (*faults.CACHES, "all"):
        counts += faults.exchange_caches(folder / f"exchange-{what}", what)
        for number, change in enumerate(faults.CHANGES):
            counts += faults.mix_caches(folder / f"mix-{what}-{number}", what, change)
    return {**counts, "lost": 0}


def failing(folder: Path, options: argparse.Namespace) -> Counts:
    """Every single call to the system fails, in every way, during every operation."""
    counts: Counts = {}
    for operation in faults.OPERATIONS:
        for number, mode in enumerate(faults.MODES):
            found = faults.fail_everywhere(
                folder / f"fail-{operation.replace(' ', '-')}-{number}", operation, mode
            )
            counts[f"{operation}: {mode}"] = dict(found)
    return {**counts, "lost": 0}


def disks(folder: Path, options: argparse.Namespace) -> Counts:
    """File systems that are really full (tmpfs of many sizes, for which one has to be root), and
    later larger."""
    counts: Counter[str] = Counter()
    for number in range(options.disks):
        place = folder / f"disk-{number}"
        place.mkdir()
        size = 120 + 12 * number
        mounted = _mount(place, f"size={size}k")
        if mounted:
            return {"mounted": False, "why": mounted}
        try:
            counts += _fill(place, options.seed + number)
        finally:
            # Lazily: what is mapped is let go of when Python collects it.
            subprocess.run(["umount", "--lazy", str(place)], check=True)
    return {"mounted": True, "disks": options.disks, **counts, "lost": 0}


def _mount(place: Path, how: str) -> str:
    """Mount a tmpfs; why not, if not."""
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def _fill(place: Path, seed: int) -> Counter[str]:
    """Write until nothing goes any more, and then some; make the disk larger; look."""
    counts: Counter[str] = Counter()
    draw, present, number = random.Random(seed), set[str](), 0
    memory = open_memory(place / "experience", "create")
    while counts["refused"] < 30 and counts["done"] < 2000:
        choice = draw.random()
        batch = range(number, number + draw.choice([1, 1, 3, 20]))
        gone = draw.choice(sorted(present)) if present else ""
        name = (
            "add"
            if choice < 0.7 or not gone
            else "delete"
            if choice < 0.8
            else "compact"
            if choice < 0.85
            else "publish"
        )
        try:
            if name == "add":
                memory.add_many([make(n) for n in batch])
                present |= ids_of(batch)
            elif name == "delete":
                memory.delete(gone)
                present.discard(gone)
            elif name == "compact":
                memory.compact()
            else:
                memory.publish_index()
            counts["done"] += 1
        except OSError:
            counts["refused"] += 1
            counts[f"refused: {name}"] += 1
            faults.judge(memory, present, numbers=[number])
        number = batch.stop  # also after a refusal: the ids that were refused must not turn up
        if draw.random() < 0.02:
            memory.close()
            with open_memory(place / "experience") as reader:
                faults.judge(reader, present, numbers=[number])
            try:
                memory = open_memory(place / "experience", "w")
            except OSError:
                counts["refused: open"] += 1
                subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
                memory = open_memory(place / "experience", "w")
    subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
    memory.add(make(10**5))
    memory.close()
    check(place / "experience", present | ids_of([10**5]))
    counts["episodes"] = len(present)
    return counts


def readers(folder: Path, options: argparse.Namespace) -> Counts:
    """One writer and several readers that compare every answer with exact search."""
    result = stress(folder / "stress", options.seconds, options.readers, options.seed)
    judge_stress(result)
    found = result.readers_found
    counts: Counts = {
        name: value for name, value in asdict(result).items() if name != "readers_found"
    }
    return {
        **counts,
        "exact": found.exact,
        "wrong exact": found.wrong_exact,
        "approximate": found.approximate,
        "approximate with wrong scores": found.wrong_scores,
        "recall": round(found.recall, 4),
    }


PARTS: Mapping[str, Callable[[Path, argparse.Namespace], Counts]] = {
    "kills": kills,
    "damage": damage,
    "exchange": exchange,
    "failing": failing,
    "disks": disks,
    "stress": readers,
}


def main() -> None:
    """Print a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500, help="writers to kill (default: 500)")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        help="damage every so-manieth byte, of large caches a 16th of these (1)",
    )
    parser.add_argument(
        "--disks", type=int, default=40, help="small file systems to fill (default: 40)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="of the stress test (default: 60)"
    )
    parser.add_argument(
        "--readers", type=int, default=4, help="processes that read in the stress test (default: 4)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to make memories (default: the system's temporary folder)",
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)"
    )
    options = parser.parse_args()
    results: dict[str, object] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "commit": _commit(),
    }
    failed = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.only:
            started = time.perf_counter()
            place = Path(folder) / name
            place.mkdir()
            try:
                found = PARTS[name](place, options)
            except Exception as error:  # the other parts are run all the same
                traceback.print_exc()
                found = {"wrong": f"{type(error).__name__}: {str(error)[:500]}"}
                failed.append(name)
            results[name] = {"took_seconds": round(time.perf_counter() - started, 1), **found}
            print(f"{name}: {PARTS[name].__doc__}", flush=True)
            for what, value in found.items():
                print(f"  {what:44} {value}", flush=True)
    print(
        f"{len(failed)} of {len(options.only)} parts found something "
        f"wrong{': ' if failed else ''}{', '.join(failed)}"
    )
    print(json.dumps({**results, "failed": failed}))
    sys.exit(bool(failed))


def _commit() -> str:
    """What is checked out."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=os.path.dirname(__file__),
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
