"""An agent that acts in text environments, remembers every episode, and relives what helped."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import agent as agent
    from . import envs as envs
    from . import memory as memory
    from . import training as training
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
_FOLDERS = ("agent", "envs", "memory", "training")
"""Sub-packages that ``import relive`` alone makes reachable, as ``relive.memory`` for example."""
__version__: str
"""Of the installed package; looked up when it is first asked for."""


def __getattr__(name: str) -> object:
    if name in _FOLDERS:
        return import_module(f".{name}", __name__)
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version(__name__)
        except PackageNotFoundError:  # run from its source, which no metadata describes
            found = "0+unknown"
        return globals().setdefault(name, found)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FOLDERS, "__version__"})
