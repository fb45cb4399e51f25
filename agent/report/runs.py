"""What lies in a run's folder, whatever made it: its settings, its results, and its episodes.

A run of any command is a folder with ``run.json``; a memory is one, too. Episodes lie in memory
folders within, one for each condition; what the agent itself remembered lies in folders called
``memory``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...memory import Memory
from ...memory.description import is_memory
from ...memory.episode import Episode
from ...memory.plain import counted
from ..rundir import memories_below, memory_of
from ..settings import json_of


@dataclass(frozen=True, slots=True)
class Store:
    """Episodes of one condition."""

    condition: str
    """What it is called in tables."""
    path: Path
    """Folder of the episodes."""
    read: Path | None = None
    """Folder of the memory that they were shown episodes of; None where nobody knows."""
    whole: bool = False
    """It is a memory, in which a task may have been played many times; else the newest episode of
    each task counts, as where a measurement was gone on with after a kill."""
    since: int = 0
    """Log position; what lies before it is not the run's."""

    def episodes(self) -> Iterator[Episode]:
        """All of them, or the newest of each task, in the order in which they ended."""
        with Memory(self.path, "r") as memory:
            mine = [e for e in memory.entries() if e.position >= self.since]
            names = {
                e.episode_id if self.whole else (e.task.identity, e.policy, e.adapter): e.episode_id
                for e in mine
            }
            for name in names.values():
                yield memory.get(name)


@dataclass(frozen=True, slots=True)
class Run:
    """One run."""

    path: Path
    kind: str
    """``memory``, ``eval``, ``learn``, ``study`` or ``stream``."""
    stores: tuple[Store, ...]
    record: Mapping[str, Any] = field(default_factory=dict)
    """Content of ``run.json``: settings, versions, command, when it began."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """Further results by name: ``metrics``, ``rounds``, ``seconds``."""
    adapters: tuple[Mapping[str, Any], ...] = ()
    """Manifests of its adapters."""
    unfinished: str = ""
    """What is still to be done, where it has not come to its end."""

    @property
    def name(self) -> str:
        """What it is called: the last part of its path."""
        return self.path.resolve().name


def open_run(path: Path, memory: Path | None = None) -> Run:
    """What a folder holds.

    Args:
        path: folder of a run, or of a memory.
        memory: where the memory lies that was read, if not where it was then.

    Raises:
        ValueError: it is neither, or holds no episodes yet.
        OSError: it cannot be read.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no run or memory {path}: give the folder that a command wrote")
    if is_memory(path):
        return Run(path, "memory", (Store(path.resolve().name, path, memory or path, True),))
    if not (path / "run.json").exists():
        raise ValueError(
            f"{path} is neither a run (it has no run.json) nor a memory (no log): give the "
            "--out folder of a command, or a memory"
        )
    record = json_of(path / "run.json", "run record")
    settings = record["settings"]
    kind = next((name for name in ("learn", "study", "stream") if name in settings), "eval")
    stores = tuple(_stores(path, settings, memory))
    if not stores:
        raise ValueError(f"{path} holds no episodes yet: report on it once some are played")
    files = {
        name: json_of(path / f"{name}.json", "file of the run")
        for name in ("metrics", "rounds", "seconds")
        if (path / f"{name}.json").exists()
    }
    found = [json_of(file, "manifest") for file in _manifests(path)]
    unfinished = _unfinished(path, kind, record, files, stores)
    return Run(path, kind, stores, record, files, tuple(found), unfinished)


def _manifests(path: Path) -> list[Path]:
    return sorted((path / "adapters").glob("*/manifest.json"))


def _stores(path: Path, settings: Mapping[str, Any], memory: Path | None) -> Iterator[Store]:
    """All episodes below a run's folder. What was remembered is no result, but for the episodes
    that `relive learn` plays itself."""
    for folder in memories_below(path):
        name = folder.relative_to(path).as_posix()
        if _remembered(folder, path):
            if "learn" in settings:
                yield Store("training", folder, folder, True)
            continue
        yield Store(_condition(name, path), folder, memory or _memory_read(path, folder))
    outside = memory_of(path) if "learn" in settings else None
    if outside is not None and path.resolve() not in outside.resolve().parents:
        first = path / "round-1.json"  # the run began where its first round read
        if first.exists():
            since = int(json_of(first, "file of the run")["position"])
            yield Store("training", outside, outside, True, since)


def _remembered(folder: Path, path: Path) -> bool:
    """Whether it is what a run, or a life of a stream, remembered, and not what was measured."""
    its_own = folder.parent == path or folder.parent.parent == path / "lives"
    return its_own and (folder.name == "memory" or folder.name.startswith(("memory-s", "own-")))


def _condition(name: str, path: Path) -> str:
    if name == "episodes":
        return path.resolve().name
    if name.startswith("cells/"):  # a study's; its seeds belong together
        return name.removeprefix("cells/").rpartition("+s")[0].replace("+", "/")
    if name.startswith("lives/"):  # a stream's: its arm and order, and after which stage
        life, _, measured = name.removeprefix("lives/").partition("/")
        return f"{life.rpartition('-s')[0]}/{measured.removeprefix('evaluated/')}"
    return name


def _memory_read(path: Path, folder: Path) -> Path | None:
    """The memory that a condition's episodes read, if it is still there: what the run says, one in
    the run's folder, or one beside the episodes."""
    seed = folder.name.rpartition("+s")[2]
    train, *parts = folder.name.split("+")
    base = "control" if "control" in parts else "base"
    source = f"own-{train}-{base}" if "own" in parts else "memory"
    told = memory_of(path)
    candidates = [
        *([told] if told else []),
        path / f"{source}-s{seed}",
        path / "memory",
        folder.parent / "memory",
        folder.parent.parent / "memory",
    ]
    return next((one for one in candidates if is_memory(one)), None)


def _unfinished(
    path: Path,
    kind: str,
    record: Mapping[str, Any],
    files: Mapping[str, Any],
    stores: Sequence[Store],
) -> str:
    """What a run has still to do, by the files that it writes last; empty where it is at its end,
    or nobody can say."""
    if kind == "eval" and "metrics" not in files:
        done = sum(sum(1 for _ in store.episodes()) for store in stores)
        return f"{done} of {record['settings'].get('tasks', '?')} tasks are played"
    if kind == "learn":
        begun = len(list(path.glob("round-*.json")))
        return f"round {begun} has not ended" if begun > len(files.get("rounds", [])) else ""
    if kind == "study":
        cells = {folder.name for folder in (path / "cells").glob("*") if is_memory(folder)}
        ended = {file.name.removesuffix(".jsonl.gz") for file in (path / "records").glob("*")}
        left = sorted(cells - ended)
        told = f"{counted(len(left), 'run')} begun and not done: {', '.join(left)}"
        return told if left else ""
    if kind == "stream":
        stages = len(record["settings"]["stream"].get("stages", []))
        left = [
            life.name
            for life in sorted((path / "lives").glob("*"))
            if len(_listed(life / "states.json")) < stages
        ]
        told = f"{counted(len(left), 'run')} not at the end of the stream: {', '.join(left)}"
        return told if left else ""
    return ""


def _listed(file: Path) -> list[Any]:
    return list(json_of(file, "file of the run")) if file.exists() else []
