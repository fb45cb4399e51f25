"""Text environments: suites of tasks, the environments that play them, workers, and the contract as a check."""

from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path

from envs.base import SPLITS, ActionTemplate, Expert, Info, Suite, Task, TextEnv
from envs.check import Finding, check_env
from envs.pool import EnvironmentFailure, EnvPool, Reply
from envs.registry import UnknownSuiteError, get_suite, register, register_gymnasium, suite_names

# These names collide easily (a user's own memory.py, another package called envs), so: do the siblings come from here?
for _name in ("agent", "memory", "training"):
    _found = _find_spec(_name)
    _origin = _found.origin if _found else None
    if _origin is None or _Path(_origin).resolve().parents[1] != _Path(__file__).resolve().parents[1]:
        raise ImportError(
            f"relive needs its own package {_name!r}, but Python finds {_origin or 'none'}: "
            "rename or move that file, or run from another folder"
        )

__all__ = [
    "SPLITS",
    "ActionTemplate",
    "EnvPool",
    "EnvironmentFailure",
    "Expert",
    "Finding",
    "Info",
    "Reply",
    "Suite",
    "Task",
    "TextEnv",
    "UnknownSuiteError",
    "check_env",
    "get_suite",
    "register",
    "register_gymnasium",
    "suite_names",
]
