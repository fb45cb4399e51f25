"""What goes on around one environment worker: how its process is started, what is sent to it, and
the loop that it runs.

Workers come from a fork server, a small process started before (and without) torch. They do not
import the caller's main module, so a pool can be opened from a script without an
``if __name__ == "__main__"``, a notebook or a REPL.
"""

import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, SupportsFloat

import cloudpickle

from .base import Info, Suite, TextEnv
from .registry import load_suite


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker answered to `reset` or `step`."""

    observation: str
    reward: float
    """0 after reset."""
    terminated: bool
    truncated: bool
    info: Info
    seconds: float
    """Time spent in the environment itself."""
    admissible: tuple[str, ...] = ()
    """Commands that would be accepted now; only where a run asks for them."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Makes environments of a registered suite, which a worker imports by its name."""

    target: str

    def __call__(self) -> TextEnv:
        """A new environment of the suite."""
        return load_suite(self.target).make()


_ADVICE = "give a function or class that makes the environment, or play with workers=0"


def check_can_be_sent(suite: Suite) -> None:
    """Raises a `ValueError` if a suite is one environment of this process, which no worker has."""
    if suite.copies:
        raise ValueError(
            f"{suite.name} is one environment of this process and cannot be played by workers: "
            f"{_ADVICE}"
        )


def sendable(make: Callable[[], TextEnv], suite: Suite) -> bytes:
    """A function that makes environments, for a worker.

    Raises:
        ValueError: it cannot be sent.
    """
    check_can_be_sent(suite)
    try:
        return bytes(cloudpickle.dumps(make))
    except Exception as error:
        raise ValueError(
            f"{suite.name} cannot be sent to worker processes ({type(error).__name__}: {error}): "
            f"{_ADVICE}"
        ) from error


def start_fork_server() -> None:
    """Start the fork server, unless it runs, deaf to Ctrl-C: its workers are then deaf from their
    first moment on."""
    before = signal.getsignal(signal.SIGINT)
    # Only the main thread may change handlers, and one that was not set from Python cannot be put
    # back.
    if threading.current_thread() is not threading.main_thread() or before is None:
        before = None
    else:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # what is ignored stays so in a program that is started
    try:
        with main_module_hidden():
            forkserver.ensure_running()
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Keep `multiprocessing` from importing the caller's main module into a worker.

    Workers need none of it, and a main module may import torch or, without a guard, open this very
    pool again.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def serve(connection: Connection, make: bytes, admissible: bool = False) -> None:
    """A worker's life: one environment, requests until the parent says stop or goes away."""
    # Ctrl-C goes to the whole process group; ending workers is the parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    env: TextEnv | None = None
    while True:
        try:
            request = connection.recv()
        except (EOFError, OSError):
            return
        if request is None:
            return
        try:
            if env is None:
                env = pickle.loads(make)()  # what the parent has just made
            answer: Any = play(env, request, admissible)
            pickle.dumps(
                answer
            )  # an answer that cannot be sent is this environment's error, not the pipe's
        except Exception as error:
            answer = raised_in(request, error)
        try:
            connection.send(answer)
        except OSError:
            return
        if isinstance(answer, str):
            return  # the parent replaces it: an environment that raised may be in any state


def play(env: TextEnv, request: tuple[str, Any], admissible: bool = False) -> Reply:
    """Carry out a request: (``reset``, task) or (``step``, action).

    Args:
        env, request: what to do, and where.
        admissible: also say what would be accepted next.
    """
    kind, argument = request
    started = time.perf_counter()
    reward: SupportsFloat = 0.0
    terminated = truncated = False
    if kind == "reset":
        observation, info = env.reset(options={"task": argument})
    else:
        observation, reward, terminated, truncated, info = env.step(argument)
    seconds = time.perf_counter() - started
    commands = tuple(env.admissible()) if admissible and not (terminated or truncated) else ()
    return Reply(observation, float(reward), terminated, truncated, info, seconds, commands)


def raised_in(request: tuple[str, Any], error: BaseException) -> str:
    """What is said of an error that an environment raised."""
    return f"raised {type(error).__name__} in {request[0]}: {error}"
