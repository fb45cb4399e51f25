"""A run directory: resolved settings, versions, weights, episodes, metrics; enough to resume it and
to make it again."""

import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from ..envs import Task
from ..memory import Memory
from ..memory.description import is_memory
from ..memory.episode import Episode, StopReason
from ..memory.storage.durable import replace_file
from .events import EpisodeEnded, OnEvent, TasksPlanned, ignore
from .runner import Runner
from .settings import as_stored, json_of

_PACKAGES = (
    "relive",
    "torch",
    "transformers",
    "peft",
    "hnswlib",
    "gymnasium",
    "textworld",
    "msgpack",
    "alfworld",
    "scienceworld",
    "textworld-express",
    "jericho",
    "py4j",
)


def versions() -> dict[str, str]:
    """Versions of everything a result may depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_json(file: Path, value: Any) -> None:
    """Writes JSON so that a reader finds the old file or the new one, never half of it."""
    replace_file(file, (json.dumps(value, indent=2, default=_plain) + "\n").encode())


_ABSENT = "nothing"


def _leaves(value: Any, name: str = "") -> dict[str, str]:
    """What a description says, as JSON, by the way to it: ``retrieval.k``, ``stages[0].name``."""
    parts: list[tuple[str, Any]] = []
    if isinstance(value, dict) and value:
        parts = [(f"{name}.{key}" if name else key, item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        parts = [(f"{name}[{i}]", item) for i, item in enumerate(value)]
    else:
        return {name: json.dumps(value, ensure_ascii=False)}
    return {leaf: text for key, item in parts for leaf, text in _leaves(item, key).items()}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return as_stored(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def recorded(path: Path, setting: str) -> Any | None:
    """A setting of the run in a folder; None when there is no run, or it has no such setting."""
    file = path / "run.json"
    return json_of(file, "run record")["settings"].get(setting) if file.exists() else None


def memory_of(path: Path) -> Path | None:
    """The memory that the run in a folder read and wrote by its record, if it is still there."""
    told = recorded(path, "memory")
    places = [Path(told), path / told] if isinstance(told, str) and told else []
    return next((place for place in places if is_memory(place)), None)


_OWN = ("episodes", "memory")
"""Where a run keeps what it measured, or what it learnt from."""
_LISTED = 10
"""Memories that are named where it is not clear which one is meant."""


def memory_in(path: Path) -> Path:
    """The folder of the memory that is meant by a folder: of a memory, or of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several, and none of them is the run's own; the message names them.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: give that of a run or of a memory")
    if is_memory(path):
        return path
    for own in (*(path / name for name in _OWN), memory_of(path)):
        if own is not None and is_memory(own):
            return own
    inside = memories_below(path)
    if not inside:
        raise FileNotFoundError(
            f"{path} holds no episodes: give the folder of a run or of a memory"
        )
    if len(inside) > 1:
        names = ", ".join(str(one) for one in inside[:_LISTED])
        more = f" and {len(inside) - _LISTED} more" if len(inside) > _LISTED else ""
        raise ValueError(f"{path} holds several memories: give one of {names}{more}")
    return inside[0]


def memories_below(path: Path) -> list[Path]:
    """The folders of all memories below a folder, in the order of their names."""
    return sorted({log.parent for log in path.glob("**/log") if is_memory(log.parent)})


class RunDirectory:
    """A folder that belongs to one run.

    Opened again with the same settings the run resumes; with others it is refused, so that no
    result is a mixture.

    Args:
        path: the folder; made when missing.
        settings: everything that may change a result; must be JSON.

    Raises:
        NotADirectoryError: it is a file.
        ValueError: the folder holds a run with other settings, or something else.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path} is a file: give a folder, for example {path}-run")
        self.path = path
        described = json.loads(json.dumps(settings, default=_plain))
        file = path / "run.json"
        if file.exists():
            before = json_of(file, "run record")["settings"]
            there, now = _leaves(before), _leaves(described)
            changed = sorted(
                k for k in {*there, *now} if there.get(k, _ABSENT) != now.get(k, _ABSENT)
            )
            if changed:
                lines = ", ".join(
                    f"{k}: {there.get(k, _ABSENT)} there, {now.get(k, _ABSENT)} now"
                    for k in changed
                )
                raise ValueError(
                    f"{path} holds a run with other settings ({lines}): use another --out, or the "
                    "same settings"
                )
        else:
            if path.is_dir() and any(path.iterdir()):
                raise ValueError(f"{path} is not empty and holds no run: use another --out")
            path.mkdir(parents=True, exist_ok=True)
            record = {
                "settings": described,
                "versions": versions(),
                "command": sys.argv,
                "started": time.time(),
            }
            write_json(file, record)

    def results(self, name: str = "episodes") -> "Results":
        """The run's own store of episodes under a name."""
        return Results(self.path / name)

    def write(self, name: str, value: Any) -> Path:
        """Writes a JSON file into the run."""
        file = self.path / name
        write_json(file, value)
        return file

    def read(self, name: str) -> Any | None:
        """Reads a JSON file of the run; None when it is not there yet."""
        file = self.path / name
        return json_of(file, "file of the run") if file.exists() else None


class Results:
    """Episodes of one measurement, durable one by one; a resumed run plays only what is missing."""

    def __init__(self, path: Path) -> None:
        self.store = Memory(path)

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *exception: object) -> None:
        self.store.close()

    def keep(self, episode: Episode) -> None:
        """Stores an episode; durable when it returns."""
        self.store.add(episode)

    def missing(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that have no result yet; those that an error broke off are played again."""
        broken = (StopReason.ENVIRONMENT_ERROR, StopReason.POLICY_ERROR)
        done = {e.task.identity for e in self.store.entries() if e.reason not in broken}
        return [task for task in tasks if task.identity not in done]

    def episodes(self, tasks: Sequence[Task]) -> list[Episode]:
        """The stored episode of each task, the newest where there are several, in the order of the
        tasks."""
        newest = {e.task.identity: e.episode_id for e in self.store.entries()}
        return [self.store.get(newest[task.identity]) for task in tasks if task.identity in newest]


def measure(
    directory: RunDirectory,
    name: str,
    runner: Runner,
    tasks: Sequence[Task],
    on_event: OnEvent = ignore,
) -> list[Episode]:
    """Plays every task once into the run directory and returns the episodes; resumes where it
    stopped."""
    with directory.results(name) as results:
        charge = getattr(runner.policy, "charge", None)
        if callable(charge):  # what the run has used of a budget before
            charge(results.store.iterate())
        todo = results.missing(tasks)
        on_event(TasksPlanned(len(todo)))
        memory = getattr(runner.retriever, "memory", None)
        entries = None if memory is None else len(memory)
        for episode in runner.run(todo):
            results.keep(episode)
            on_event(EpisodeEnded(episode, entries))
        return results.episodes(tasks)
