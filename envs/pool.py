"""Environment workers: one process each, so that a crash or a hang costs one episode and nothing
else.

The pool is built for an event-driven runner: `submit_reset` and `submit_step` return at once,
`wait` returns whatever has finished. A worker that dies, hangs beyond the timeout or raises is
replaced, and the episode that it played is answered with an `EnvironmentFailure`.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_connections
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from ..task import Task
from .base import Suite, TextEnv
from .registry import load_suite, registered_target, suite_target
from .worker import (
    Registered,
    Reply,
    main_module_hidden,
    play,
    raised_in,
    sendable,
    serve,
    start_fork_server,
)

_CLOSING_SECONDS = 2.0


class EnvironmentFailure(RuntimeError):
    """An environment did not answer: its episode is lost, the pool is not.

    Args:
        reason: what happened.
        worker: index of the worker (already replaced); None where there is only one.
        task: what it was playing; None before its first task.
    """

    def __init__(self, reason: str, worker: int | None, task: Task | None) -> None:
        super().__init__(reason, worker, task)  # all arguments, so that it survives pickling
        self.reason, self.worker, self.task = reason, worker, task

    def __str__(self) -> str:
        playing = (
            f"task {self.task.identity} ({self.task.suite}, {self.task.type})"
            if self.task
            else "no task"
        )
        which = "" if self.worker is None else f" (number {self.worker} of the pool)"
        return f"the environment {self.reason}, playing {playing}{which}"


@dataclass(slots=True)
class _Worker:
    """The parent's side of one worker."""

    task: Task | None = None
    process: BaseProcess | None = None
    connection: Connection | None = None
    env: TextEnv | None = None
    """In-process mode only."""
    request: tuple[str, Any] | None = None
    """What it is working on; None when idle."""
    deadline: float = float("inf")
    """On the monotonic clock."""
    fresh: bool = True
    """Whether its next answer includes its imports."""


class EnvPool:
    """A fixed number of workers, each with an environment of one suite.

    Args:
        suite: a suite, or the name of a registered one. One that is not registered goes to the
            workers by cloudpickle, which takes classes of the caller's own script, too.
        workers: number of processes. 0 plays in this process, without the protection and without
            its cost.
        timeout: seconds that one reset or step may take. A worker's first reset gets `startup`
            seconds more. Cannot be enforced with ``workers=0``.
        slots: number of environments with ``workers=0``.
        startup: seconds that a new process may take to import the suite.
        admissible: also ask for the commands that would be accepted (`Reply.admissible`).

    Raises:
        UnknownSuiteError: no suite of that name.
        ValueError: a number is out of range, or the suite cannot be sent to workers.
    """

    def __init__(
        self,
        suite: str | Suite,
        workers: int = 0,
        timeout: float = 60.0,
        *,
        slots: int = 1,
        startup: float = 60.0,
        admissible: bool = False,
    ) -> None:
        if workers < 0 or timeout <= 0 or slots < 1:
            raise ValueError(
                f"EnvPool needs workers >= 0, timeout > 0 and slots >= 1, got {workers}, {timeout} "
                f"and {slots}"
            )
        target = suite_target(suite) if isinstance(suite, str) else registered_target(suite)
        known = load_suite(target) if target else suite
        assert not isinstance(known, str)
        self._suite_name = known.name
        self._make: Callable[[], TextEnv] = Registered(target) if target else known.make
        self._timeout, self._startup, self._admissible = timeout, startup, admissible
        self._in_process = workers == 0
        self._workers = [_Worker() for _ in range(workers or slots)]
        self._closed = False
        if not self._in_process:
            self._sent = sendable(self._make, known)
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(list(known.preload))
            try:
                start_fork_server()
                for worker in self._workers:
                    self._start(worker)
            except BaseException:
                self.close()
                raise

    def __len__(self) -> int:
        return len(self._workers)

    def __enter__(self) -> "EnvPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit_reset(self, worker: int, task: Task) -> None:
        """Ask a worker to start a task. Raises `RuntimeError` when it is busy or the pool is
        closed."""
        self._check_idle(worker)
        state = self._workers[worker]
        if state.process is not None and not state.process.is_alive():
            self._replace(worker, "died between episodes")  # which cost none
        state.task = task
        self._submit(worker, ("reset", task))

    def submit_step(self, worker: int, action: str) -> None:
        """Ask a worker to carry out an action. Raises `RuntimeError` when it is busy, has no task,
        or is closed."""
        self._check_idle(worker)
        if self._workers[worker].task is None:
            raise RuntimeError(f"environment worker {worker} plays no task: submit_reset first")
        self._submit(worker, ("step", action))

    def wait(self, timeout: float | None = None) -> list[tuple[int, Reply | EnvironmentFailure]]:
        """Block until at least one worker has answered, failed or run out of time; returns all that
        have.

        Args:
            timeout: seconds to wait at most; None waits as long as the workers' own timeouts allow.

        Returns:
            (worker, answer) pairs by worker; empty when nothing is in flight or `timeout` passed
            first.
        """
        busy = [i for i, worker in enumerate(self._workers) if worker.request is not None]
        if self._in_process:
            return [(i, self._play_here(i)) for i in busy]
        limit = None if timeout is None else time.monotonic() + timeout
        while busy:
            finished = self._collect(busy)
            now = time.monotonic()
            if finished or (limit is not None and now >= limit):
                return finished
            until = min(self._workers[i].deadline for i in busy)
            until = until if limit is None else min(until, limit)
            connections = [c for i in busy if (c := self._workers[i].connection) is not None]
            wait_for_connections(connections, max(0.0, until - now))
        return []

    def reset(self, worker: int, task: Task) -> Reply:
        """Start a task and wait for it, for callers with one worker at hand. Raises
        `EnvironmentFailure`."""
        self.submit_reset(worker, task)
        return self._answer_of(worker)

    def step(self, worker: int, action: str) -> Reply:
        """Carry out an action and wait for it. Raises `EnvironmentFailure`."""
        self.submit_step(worker, action)
        return self._answer_of(worker)

    def process_ids(self) -> list[int | None]:
        """Process id of each worker; None with ``workers=0``."""
        return [worker.process.pid if worker.process else None for worker in self._workers]

    def close(self) -> None:
        """End all workers. Can be called more than once."""
        self._closed = True
        for worker in self._workers:
            if worker.connection is not None and worker.request is None:
                with suppress(OSError):
                    worker.connection.send(None)
        deadline = time.monotonic() + _CLOSING_SECONDS
        for worker in self._workers:
            if worker.process is not None and worker.request is None:
                worker.process.join(max(0.0, deadline - time.monotonic()))
            self._stop(worker)
            if worker.env is not None:
                worker.env.close()
                worker.env = None
            worker.request, worker.task = None, None

    # --- requests and answers
    # ---------------------------------------------------------------------------------------

    def _check_idle(self, index: int) -> None:
        if self._closed:
            raise RuntimeError("the environment pool is closed: open a new EnvPool")
        if self._workers[index].request is not None:
            raise RuntimeError(
                f"environment worker {index} is busy: collect its answer with wait() first"
            )

    def _submit(self, index: int, request: tuple[str, Any]) -> None:
        worker = self._workers[index]
        worker.request = request
        if worker.connection is not None:
            worker.deadline = (
                time.monotonic() + self._timeout + (self._startup if worker.fresh else 0.0)
            )
            with suppress(
                OSError
            ):  # a worker that died while idle: wait() finds the connection closed
                worker.connection.send(request)

    def _collect(self, busy: Sequence[int]) -> list[tuple[int, Reply | EnvironmentFailure]]:
        """Answers that are in, and failures of workers that died or are past their deadline."""
        finished: list[tuple[int, Reply | EnvironmentFailure]] = []
        for index in busy:
            worker = self._workers[index]
            assert worker.connection is not None
            reason = ""
            try:
                if worker.connection.poll():
                    answer = worker.connection.recv()
                    if isinstance(answer, Reply):
                        worker.request, worker.fresh = None, False
                        finished.append((index, answer))
                        continue
                    reason = str(answer)
                elif time.monotonic() >= worker.deadline:
                    assert worker.request is not None
                    # The first answer of a process may also take as long as its start.
                    limit = self._timeout + (self._startup if worker.fresh else 0.0)
                    reason = f"did not answer {worker.request[0]} within {limit:g} s"
            except (EOFError, OSError):
                reason = self._cause_of_death(worker)
            except Exception as error:  # an answer that cannot be unpickled here
                reason = f"sent an answer that cannot be read ({type(error).__name__}: {error})"
            if reason:
                finished.append((index, self._replace(index, reason)))
        return finished

    def _answer_of(self, index: int) -> Reply:
        while True:
            for worker, answer in self.wait():
                if worker != index:
                    raise RuntimeError(
                        "EnvPool.reset and .step cannot be mixed with requests in flight: use "
                        "wait()"
                    )
                if isinstance(answer, EnvironmentFailure):
                    raise answer
                return answer

    def _play_here(self, index: int) -> Reply | EnvironmentFailure:
        worker = self._workers[index]
        assert worker.request is not None
        request, worker.request = worker.request, None
        try:
            if worker.env is None:
                worker.env = self._make()
            return play(worker.env, request, self._admissible)
        except Exception as error:
            failure = self._failure(raised_in(request, error), index)
            with suppress(Exception):
                if worker.env is not None:
                    worker.env.close()
            worker.env, worker.task = None, None
            return failure

    def _failure(self, reason: str, index: int) -> EnvironmentFailure:
        which = index if len(self._workers) > 1 else None
        return EnvironmentFailure(reason, which, self._workers[index].task)

    # --- processes
    # ----------------------------------------------------------------------------------------------

    def _start(self, worker: _Worker) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(theirs, self._sent, self._admissible),
            name=f"relive-{self._suite_name}",
            daemon=True,
        )
        with main_module_hidden():
            process.start()
        theirs.close()
        worker.process, worker.connection = process, ours
        worker.request, worker.task, worker.fresh = None, None, True

    def _stop(self, worker: _Worker) -> None:
        if worker.process is not None:
            worker.process.kill()  # harmless when it has ended; a hung one ignores anything gentler
            worker.process.join()
            worker.process.close()
        if worker.connection is not None:
            worker.connection.close()
        worker.process, worker.connection = None, None

    def _replace(self, index: int, reason: str) -> EnvironmentFailure:
        worker = self._workers[index]
        failure = self._failure(reason, index)
        self._stop(worker)
        self._start(worker)
        return failure

    @staticmethod
    def _cause_of_death(worker: _Worker) -> str:
        assert worker.process is not None
        worker.process.join(_CLOSING_SECONDS)
        code = worker.process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
        return f"died with exit code {code}"
