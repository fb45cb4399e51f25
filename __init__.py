"""An agent that acts in text worlds, remembers every episode, and relives what helped."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .memory import Episode, ExperienceMemory, Hit, Query, Step

__all__ = [
    "Episode",
    "ExperienceMemory",
    "Hit",
    "Query",
    "Step",
]

_HOMES = {
    "Episode": ".memory",
    "ExperienceMemory": ".memory",
    "Hit": ".memory",
    "Query": ".memory",
    "Step": ".memory",
}
"""Which sub-package a name comes from, when it is first asked for."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
