"""Jobs in processes of one thread each: what several experiments do with two cores."""

import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...agent.events import JobEnded, OnEvent
from ...agent.rundir import RunDirectory

Job = tuple[str, Callable[..., object], tuple[Any, ...]]
"""Name, function of a module, arguments that can be pickled."""


def run_jobs(
    directory: RunDirectory,
    what: str,
    jobs: Sequence[Job],
    processes: int,
    on_event: OnEvent,
    after: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> None:
    """Runs jobs, notes in ``seconds.json`` how long each took, also where it is stopped on the way
    (but not where all is killed), and stops at the first that fails.

    Args:
        directory: the run they belong to.
        what: what they are, for who watches.
        jobs: each resumable by itself.
        processes: how many at once; with 1 everything happens in this process, in this order.
        on_event: told about each job that is done.
        after: name of a job -> those that must be done before it. They stand before it in `jobs`;
            what does not is done already.
    """
    if not jobs:
        return
    seconds: dict[str, float] = directory.read("seconds.json") or {}
    finished = 0

    def spent(name: str, took: float) -> None:
        seconds[name] = round(seconds.get(name, 0.0) + took, 1)
        directory.write("seconds.json", seconds)

    def done(name: str, took: float) -> None:
        nonlocal finished
        finished += 1
        spent(name, took)
        on_event(JobEnded(what, name, finished, len(jobs), took))

    if processes == 1:
        for name, act, arguments in jobs:
            began = time.monotonic()
            try:
                act(*arguments)
            except BaseException:
                spent(name, time.monotonic() - began)
                raise
            done(name, time.monotonic() - began)
        return
    # Forked workers would inherit torch's threads in an undefined state.
    context = multiprocessing.get_context("forkserver")
    ended, end = context.Pipe(duplex=False)  # closing `end` is what workers are told
    workers = min(processes, len(jobs))
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_end_early, initargs=(ended,)
    )
    todo, running = list(jobs), dict[Future[float], str]()
    began_at: dict[str, float] = {}
    try:
        while todo or running:
            open_ = {*running.values(), *(name for name, *_ in todo)}
            ready = [job for job in todo if open_.isdisjoint(after.get(job[0], ()))]
            for job in ready[: workers - len(running)]:
                todo.remove(job)
                running[pool.submit(_timed, *job[1:])] = job[0]
                began_at[job[0]] = time.monotonic()
            for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                took = future.result()
                done(running.pop(future), took)
    except BaseException:
        for name in running.values():
            spent(name, time.monotonic() - began_at[name])
        # What runs is resumable; waiting for it would make Ctrl-C take minutes.
        pool.shutdown(wait=False, cancel_futures=True)
        end.close()
        raise
    pool.shutdown()
    end.close()


def commit() -> str:
    """The commit that this code stands at, with a plus when files differ from it; ``unknown``
    outside a repository."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--abbrev=12",
        "--exclude=*",
        "--dirty=+",
    ]
    try:
        return subprocess.run(
            git, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _end_early(told: Connection) -> None:
    """Makes a worker end when it is told to, or when the experiment's own process ends, however
    that ends: two must not share a folder."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        wait([told] if parent is None else [told, parent.sentinel])
        os._exit(1)  # at once, from whatever thread; its leading underscore is its public name

    threading.Thread(target=watch, daemon=True).start()


def _timed(act: Callable[..., object], arguments: tuple[Any, ...]) -> float:
    began = time.monotonic()
    act(*arguments)
    return time.monotonic() - began
