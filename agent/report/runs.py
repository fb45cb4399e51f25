"""What lies in a run's folder, whatever made it: its settings, its results, and its episodes.

A run of any command is a folder with ``run.json``; a memory is one, too. Episodes lie in memory
folders within, one for each condition; what the agent itself remembered lies in folders called
``memory``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...memory import Memory
from ...memory.episode import Episode
from ..settings import json_of

DESCRIPTION = "memory.json"
"""What makes a folder a memory."""


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

    def episodes(self) -> Iterator[Episode]:
        """All of them, or the newest of each task, in the order in which they ended."""
        with Memory(self.path, "r") as memory:
            if self.whole:
                yield from memory.iterate()
                return
            newest = {
                (e.task.identity, e.policy, e.adapter): e.episode_id for e in memory.entries()
            }
            for name in newest.values():
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
    if (path / DESCRIPTION).exists():
        return Run(path, "memory", (Store(path.resolve().name, path, path, True),))
    if not (path / "run.json").exists():
        raise ValueError(
            f"{path} is neither a run (it has no run.json) nor a memory (no {DESCRIPTION}): give "
            "the --out folder of a command, or a memory"
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
    return Run(path, kind, stores, record, files, tuple(found))


def _manifests(path: Path) -> list[Path]:
    return sorted((path / "adapters").glob("*/manifest.json"))


def _stores(path: Path, settings: Mapping[str, Any], memory: Path | None) -> Iterator[Store]:
    """All episodes below a run's folder. What was remembered is no result, but for the episodes
    that `relive learn` plays itself."""
    for file in sorted(path.rglob(DESCRIPTION)):
        folder = file.parent
        name = folder.relative_to(path).as_posix()
        if _remembered(folder, path):
            if "learn" in settings:
                yield Store("training", folder, folder, True)
            continue
        yield Store(_condition(name, path), folder, memory or _memory_of(path, folder, settings))


def _remembered(folder: Path, path: Path) -> bool:
    """Whether it is what a run, or a life of a stream, remembered, and not what was measured."""
    its_own = folder.parent == path or folder.parent.parent == path / "lives"
    return its_own and (folder.name == "memory" or folder.name.startswith(("memory-s", "own-s")))


def _condition(name: str, path: Path) -> str:
    if name == "episodes":
        return path.resolve().name
    if name.startswith("cells/"):  # a study's; its seeds belong together
        return name.removeprefix("cells/").rpartition("+s")[0].replace("+", "/")
    return name


def _memory_of(path: Path, folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """The memory that a condition's episodes read, if it is still there: what the run says, one in
    the run's folder, or one beside the episodes."""
    told = settings.get("memory")
    seed = folder.name.rpartition("+s")[2]
    source = "own" if "+own" in folder.name else "memory"
    candidates = [
        *([Path(told), path / told] if isinstance(told, str) else []),
        path / f"{source}-s{seed}",
        path / "memory",
        folder.parent / "memory",
        folder.parent.parent / "memory",
    ]
    return next((one for one in candidates if (one / DESCRIPTION).exists()), None)
