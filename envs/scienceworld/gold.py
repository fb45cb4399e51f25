"""Solutions: what the simulator calls its gold path, up to the action that solves the task; found
once and kept on disk.

Finding one takes from a tenth of a second to half a minute. One Java process of this process
does that, started when the first solution is asked for that is not on disk.
"""

import json
import os
import re
import threading
from pathlib import Path

from ...caches import cache_folder
from ...task import Task
from .games import VERSION, check_task, games
from .simulator import Simulator

_lock = threading.Lock()
_simulator: Simulator | None = None


def solution(task: Task) -> tuple[str, ...]:
    """Actions that solve a task, the last of which does.

    Raises:
        LookupError: the simulator finds none.
        ValueError: the task is none of the suite's.
        MissingExtraError, JavaError: the package or Java is missing.
    """
    check_task(task)
    kept = _file(task)
    try:
        return tuple(json.loads(kept.read_text("utf-8")))
    except (OSError, ValueError):
        pass  # not there yet, or not whole
    with _lock:
        actions = _started().solution(task.type, task.seed, games()[task.type].limit)
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
    part.write_text(json.dumps(actions), "utf-8")
    part.replace(kept)
    return actions


def close() -> None:
    """End the Java process that finds solutions, if there is one; it is started again when
    needed."""
    global _simulator
    with _lock:
        if _simulator is not None:
            _simulator.close()
            _simulator = None


def _started() -> Simulator:
    global _simulator
    if _simulator is None or not _simulator.alive:
        _simulator = Simulator()
    return _simulator


def _file(task: Task) -> Path:
    version = re.sub(r"[^\w.]+", "-", VERSION).strip("-")
    return cache_folder("scienceworld-gold") / version / f"{task.type}-{task.seed}.json"


class GoldExpert:
    """Follows a solution, whatever it sees; then it looks around."""

    def __init__(self, actions: tuple[str, ...]) -> None:
        self._actions = iter(actions)

    def act(self, observation: str) -> str:
        """The next action of the solution."""
        return next(self._actions, "look around")
