"""Text environments: suites of tasks, the environments that play them, workers, and the contract as
a check."""

from ..task import Task
from .base import SPLITS, ActionTemplate, Expert, Info, Suite, TextEnv
from .check import Finding, check_env
from .pool import EnvironmentFailure, EnvPool
from .registry import UnknownSuiteError, entry, get_suite, register, register_gymnasium, suite_names
from .worker import Reply

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
    "entry",
    "get_suite",
    "register",
    "register_gymnasium",
    "suite_names",
]
