"""Measuring a policy: every task once, greedy or with seeds of its own, the memory read-only.

What the memory may show follows the strict policy of experiments (never the same task, a
near-duplicate, or anything of the split under evaluation), and what it did show is audited.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...envs import Suite
from ...envs.adapt import as_suite, as_tasks
from ...envs.base import types_of
from ...memory import Memory, Purpose, Retrieval
from ...memory.episode import Actor, Episode
from ...task import Task
from ..cluster.executor import IN_PROCESS, Executor
from ..conversation import AnyPolicy
from ..events import EpisodeEnded, OnEvent, Phase, TasksPlanned, ignore
from ..policy import as_policy, counter_of
from ..retriever import MemoryRetriever
from ..run_episode import Success, stated_success
from ..rundir import RunDirectory, measure, recorded
from ..runner import Clock, Runner, RunSettings, play_all, spec_of
from .audit import Audit, audit_all
from .fingerprint import fingerprint
from .metrics import Row, table
from .remarks import other_words, remarks


class LeakageError(ValueError):
    """An evaluation was shown what it must not see; its results are worth nothing.

    Args:
        evaluation: the results.
    """

    def __init__(self, evaluation: "Evaluation") -> None:
        super().__init__(evaluation)
        self.evaluation = evaluation

    def __str__(self) -> str:
        return (
            "the memory showed what an evaluation must not see; the results are worth nothing: "
            f"{self.evaluation.audit}"
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out."""

    episodes: Sequence[Episode]
    """One for each task, in the order of the tasks."""
    rows: Sequence[Row]
    """A row per task type, per group of types, and last one for all."""
    audit: Audit
    """What was shown and held back."""
    clock: Clock
    """Where the time went."""
    notes: Sequence[str] = ()
    """What a reader of the numbers should know, a line each."""

    @property
    def success(self) -> float:
        """Success rate, in [0, 1]; episodes that the environment broke off are left out."""
        return self.rows[-1].success

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the success rate."""
        return self.rows[-1].low, self.rows[-1].high

    @property
    def n(self) -> int:
        """Number of episodes that count."""
        return self.rows[-1].n

    def __str__(self) -> str:
        low, high = self.interval
        return "; ".join(
            [
                f"{100 * self.success:.1f} % of {self.n} tasks solved (95 % {100 * low:.1f} to "
                f"{100 * high:.1f})",
                str(self.audit),
                *self.notes,
            ]
        )


def evaluate(
    policy: AnyPolicy | Callable[[list[dict[str, str]]], str],
    environment: Suite | Callable[[], Any] | Any,
    memory: Memory | None = None,
    *,
    tasks: int | Literal["all"] | Sequence[int | str | Task] | None = None,
    split: str = "test",
    types: Sequence[str] = (),
    retrieval: Retrieval | None = None,
    at: int | None = None,
    out: Path | str | None = None,
    success: Success | None = None,
    settings: RunSettings | None = None,
    on_event: OnEvent = ignore,
    executor: Executor = IN_PROCESS,
) -> Evaluation:
    """Plays every task once and says how it went; nothing is added to the memory.

    Args:
        policy: as for :class:`relive.Agent`.
        environment: as for :meth:`relive.Agent.run`.
        memory: what is retrieved from; None for none.
        tasks: how many of the split, spread over the types; ``"all"``; or which. By default 60, or
            as many as there are.
        split: whose tasks; nothing of it is retrieved.
        types: task types or groups; all by default.
        retrieval: what is shown of the memory; by default two successes of the train split.
        at: log position to read the memory at; by default where it is now, or was when the
            evaluation in `out` began.
        out: a folder that keeps the episodes; given again, the evaluation goes on. None keeps
            nothing on disk.
        success: as for :meth:`relive.Agent.run`.
        settings: batch, workers, seed and step limit.
        on_event: told about progress.
        executor: where it is played; by default in this process.

    Raises:
        ValueError: the split may be retrieved from, the log position is unknown, or the folder
            holds something else.
        LeakageError: the audit found something that must not have been shown.
    """
    if memory is not None and not isinstance(memory, Memory):
        raise TypeError(f"memory must be a relive.Memory, not {memory!r}: relive.Memory(path)")
    if settings is not None and not isinstance(settings, RunSettings):
        raise TypeError(f"settings must be RunSettings, not {settings!r}")
    suite, acting = as_suite(environment), as_policy(policy)
    split = suite.split_of(split)
    kinds = types_of(suite, types)
    wanted = (
        suite.up_to(split, 60, kinds) if tasks is None else as_tasks(suite, tasks, split, kinds)
    )
    retrieval, run = retrieval or Retrieval(), settings or RunSettings()
    if memory is not None and set(retrieval.splits) <= {split}:
        raise ValueError(
            f"nothing of the split under evaluation is ever retrieved, and the retrieval shows "
            f"only {', '.join(retrieval.splits)}: evaluate another split than {split!r}, or leave "
            "the memory out"
        )
    folder = Path(out) if out is not None else None
    retriever = None
    if memory is not None:
        if at is not None and not 0 <= at <= memory.position:
            raise ValueError(
                f"{at} is no log position of {memory.path}: give one from 0 to {memory.position}"
            )
        if at is None and folder is not None:
            at = recorded(folder, "position")  # though the memory has grown since
            if at is not None and at > memory.position:
                raise ValueError(
                    f"the evaluation in {folder} read its memory at log position {at}, and "
                    f"{memory.path} goes to {memory.position}: it is another memory; use another "
                    "folder"
                )
        position = memory.position if at is None else at
        retriever = MemoryRetriever(
            memory, spec_of(suite), counter_of(acting), retrieval, Purpose.EVALUATE, position
        )
    runner = executor.runner(suite, acting, run, retriever, success or stated_success)
    if folder is None:
        on_event(TasksPlanned(len(wanted)))
        entries = None if memory is None else len(memory)
        episodes = play_all(
            runner, wanted, lambda episode: on_event(EpisodeEnded(episode, entries))
        )
    else:
        directory = RunDirectory(
            folder, _record(suite, wanted, runner, memory, retriever, policy, success)
        )
        on_event(Phase("evaluating"))
        episodes = measure(directory, "episodes", runner, wanted, on_event)
    # As of then: what was shown may have been evicted since.
    type_of: Mapping[str, str] | Callable[[str], str | None] = {}
    if memory is not None and retriever is not None:
        held, read_at = memory, retriever.position
        type_of = lambda i: held.meta(i, read_at).task.type  # noqa: E731
    notes = remarks(episodes)
    if memory is not None and retriever is not None and not retrieval.translate:
        notes += [note] if (note := other_words(episodes, memory, retriever.spec)) else []
    result = Evaluation(
        episodes, table(episodes, suite.groups, type_of), audit_all(episodes, memory, retriever),
        runner.clock, notes,
    )  # fmt: skip
    if folder is not None:
        rows = [{**asdict(row), "success": row.success} for row in result.rows]
        directory.write(
            "metrics.json",
            {"rows": rows, "clock": result.clock, "audit": result.audit.plain, "notes": notes},
        )
    if result.audit.leaks:
        raise LeakageError(result)
    return result


def content_of(memory: Memory) -> dict[str, Any]:
    """What decides what is found in a memory, besides the log position: a run that goes on must
    find the same."""
    return {
        "memory_id": memory.identity,
        "memory_embedder": memory.embedder.identity,
        "memory_fields": list(memory.fields),
    }


def _record(
    suite: Suite,
    tasks: Sequence[Task],
    runner: Runner,
    memory: Memory | None,
    retriever: MemoryRetriever | None,
    policy: object,
    success: Success | None,
) -> dict[str, Any]:
    """Everything that may change a result."""
    says_who = isinstance(getattr(policy, "actor", None), Actor)
    identities = "\n".join(task.identity for task in tasks)
    return {
        "suite": suite.name,
        "version": suite.version,
        "tasks": len(tasks),
        "tasks_hash": hashlib.sha256(identities.encode()).hexdigest()[:16],
        "max_steps": runner.settings.max_steps,
        **({"give_up_after": stuck} if (stuck := runner.settings.give_up_after) else {}),
        "seed": runner.settings.seed,
        "actor": runner.actor,
        **({} if says_who else {"policy": fingerprint(policy)}),
        **({"success": fingerprint(success)} if success else {}),
        "memory": None if memory is None else str(memory.path),
        **({} if memory is None else content_of(memory)),
        "position": retriever.position if retriever else None,
    }
