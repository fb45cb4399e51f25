"""What the `alfworld` package ships, read as files: domain, grammar, constants, goals and the 120
room layouts.

The package is located but never imported: importing it creates a folder under the home directory,
and nothing of its code is needed here. Two of its modules that hold nothing but tables are executed
on their own.
"""

import importlib.util
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ...extras import MissingExtraError

GOAL_PLACEHOLDER = "UNKNOWN GOAL"
"""What the grammar says where the goal sentence belongs."""


@lru_cache(maxsize=1)
def package_folder() -> Path:
    """Folder of the installed `alfworld` package.

    Raises:
        ImportError: the package is not installed.
    """
    spec = importlib.util.find_spec("alfworld")  # finds a top-level package without executing it
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("household", ("alfworld",))
    return Path(next(iter(spec.submodule_search_locations)))


def _read(relative: str) -> str:
    path = package_folder() / relative
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ImportError(
            f"the installed alfworld package lacks {relative} ({path}): reinstall it, pip install "
            "--force-reinstall alfworld==0.4.2"
        ) from error


@lru_cache(maxsize=1)
def domain() -> str:
    """The PDDL domain of the household."""
    return _read("data/alfred.pddl")


@lru_cache(maxsize=1)
def grammar() -> str:
    """The text grammar (TWL2) with `GOAL_PLACEHOLDER` in it."""
    return _read("data/alfred.twl2")


@lru_cache(maxsize=2)
def _tables(name: str) -> ModuleType:
    path = package_folder() / "gen" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_relive_alfworld_{name}", path)
    if spec is None or spec.loader is None or not path.exists():
        raise ImportError(
            f"the installed alfworld package lacks gen/{name}.py: reinstall it, pip install "
            "--force-reinstall alfworld==0.4.2"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=1)
def holds() -> Mapping[str, frozenset[str]]:
    """Receptacle kind -> kinds of objects that it may hold, sliced ones left out (nothing starts
    sliced)."""
    table: Mapping[str, set[str]] = _tables("constants").VAL_RECEPTACLE_OBJECTS
    return {
        kind: frozenset(o for o in objects if not o.endswith("Sliced"))
        for kind, objects in sorted(table.items())
    }


@lru_cache(maxsize=1)
def affordances() -> Mapping[str, frozenset[str]]:
    """``Cleanable``, ``Heatable``, ``Coolable``, ``Toggleable``, ``Sliceable`` -> kinds of
    objects."""
    table: Mapping[str, set[str]] = _tables("constants").VAL_ACTION_OBJECTS
    return {name: frozenset(kinds) for name, kinds in sorted(table.items())}


@lru_cache(maxsize=1)
def movable_receptacles() -> frozenset[str]:
    """Kinds that hold things but are objects in a game (bowls, pans, boxes)."""
    return frozenset(_tables("constants").MOVABLE_RECEPTACLES)


@lru_cache(maxsize=1)
def room_kinds() -> Mapping[str, frozenset[str]]:
    """Task type -> kinds of rooms in which it makes sense."""
    table: Mapping[str, set[str]] = _tables("constants").GOALS_VALID
    return {task_type: frozenset(kinds) for task_type, kinds in table.items()}


def goal(task_type: str) -> tuple[str, tuple[str, ...]]:
    """PDDL template and the wordings of a task type's goal."""
    entry: Mapping[str, Any] = _tables("goal_library").gdict[task_type]
    return entry["pddl"], tuple(entry["templates"])


def layout(room: int) -> tuple[Mapping[str, tuple[float, float, float, float]], tuple[str, ...]]:
    """Receptacles of a room with the agent's pose in front of each (x, z, rotation, horizon), and
    all kinds in it."""
    poses = json.loads(_read(f"gen/layouts/FloorPlan{room}-openable.json"))
    kinds = json.loads(_read(f"gen/layouts/FloorPlan{room}-objects.json"))
    return {name: tuple(pose) for name, pose in poses.items()}, tuple(sorted(kinds))
