"""An agent that acts in text environments, remembers every episode, and relives what helped."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agent.agent import Agent
    from .agent.evaluation.evaluate import evaluate
    from .agent.llm.local import LocalModel
    from .agent.server.model import ServerModel
    from .doors import learn
    from .memory import Episode, Hit, Holdout, Memory, Query, Retrieval, Step, Task

__all__ = [
    "Agent",
    "Episode",
    "Hit",
    "Holdout",
    "LocalModel",
    "Memory",
    "Query",
    "Retrieval",
    "ServerModel",
    "Step",
    "Task",
    "evaluate",
    "learn",
]

_HOMES = {
    **dict.fromkeys(
        ("Episode", "Hit", "Holdout", "Memory", "Query", "Retrieval", "Step", "Task"), ".memory"
    ),
    "Agent": ".agent.agent",
    "LocalModel": ".agent.llm.local",
    "ServerModel": ".agent.server.model",
    "evaluate": ".agent.evaluation.evaluate",
    "learn": ".doors",
}
"""Which module a name comes from, when it is first asked for."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
