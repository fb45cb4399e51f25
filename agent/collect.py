"""Collecting experience: episodes of tasks that were not played yet, into a memory.

The one rule for what was played already: the memory holds an episode of the task by the same policy
with the same weights, and neither the environment nor the policy broke it off.
"""

from collections.abc import Iterator, Sequence

from ..envs import Suite
from ..memory import Memory
from ..memory.episode import Actor, Episode, StopReason
from ..task import Task
from .cluster.executor import IN_PROCESS, Executor
from .events import EpisodeEnded, OnEvent, Phase, TasksPlanned, ignore
from .load_policy import PolicySettings
from .runner import Runner, RunSettings, play_all

BROKEN = (StopReason.ENVIRONMENT_ERROR, StopReason.POLICY_ERROR)
"""Episodes that ended for one of these say nothing about their task: it is played again."""


def played(memory: Memory, actor: Actor, since: int = 0) -> dict[str, bool]:
    """Tasks that an actor has played, by identity, and whether its latest episode succeeded.

    Args:
        memory: where to look.
        actor: whose episodes count: those of the same policy, and of the same model and adapter: by
            their weights where these are known, else by their names.
        since: log position; what lies before it does not count.
    """
    who = (actor.policy, actor.adapter)
    return {
        entry.task.identity: entry.success
        for entry in memory.entries(since=since)
        if entry.reason not in BROKEN
        and (entry.policy, entry.adapter) == who
        and (not actor.model or _same_model(actor, memory.get(entry.episode_id).actor))
    }


def _same_model(one: Actor, other: Actor) -> bool:
    if one.weights and other.weights:
        return one.weights == other.weights
    return one.model == other.model


def collect(
    memory: Memory,
    runner: Runner,
    tasks: Sequence[Task],
    *,
    since: int = 0,
    again: bool = False,
    on_event: OnEvent = ignore,
) -> Iterator[Episode]:
    """Plays the tasks that were not played yet; each episode is durable when it is yielded.

    Args:
        memory: open for writing.
        runner: who plays, and how.
        tasks: any of one suite.
        since: log position; what was played before it is played again.
        again: play everything again.
        on_event: told about progress.
    """
    known = {} if again else played(memory, runner.actor, since)
    todo = [task for task in tasks if task.identity not in known]
    on_event(TasksPlanned(len(todo)))
    for episode in runner.run(todo):
        memory.add(episode)
        on_event(EpisodeEnded(episode, len(memory)))
        yield episode


def collect_whole(memory: Memory, runner: Runner, tasks: Sequence[Task], *, since: int = 0) -> None:
    """As :func:`collect`, but all or nothing, and added in the order of the tasks: the log is then
    the same whatever ended first."""
    known = played(memory, runner.actor, since)
    memory.add_many(play_all(runner, [task for task in tasks if task.identity not in known]))


def collect_demonstrations(
    memory: Memory,
    suite: Suite,
    count: int,
    settings: RunSettings | None = None,
    on_event: OnEvent = ignore,
    start: int = 0,
    executor: Executor = IN_PROCESS,
) -> None:
    """Adds the expert's episodes at `count` train tasks, spread over all types; what is there is
    not played again.

    Args:
        memory: open for writing.
        suite: whose expert and tasks.
        count: demonstrations that the memory is to hold; fewer where there are not so many tasks.
        settings: how they are played; the step limit is always the suite's, within which the expert
            solves what is listed.
        on_event: told about progress.
        start: train tasks per type to skip, so that several memories share none.
        executor: where they are played; by default in this process.
    """
    plain = settings or RunSettings()
    run = RunSettings(
        batch=plain.batch, workers=plain.workers, timeout=plain.timeout, seed=plain.seed
    )
    expert = executor.policy(PolicySettings(kind="expert"), suite, run.batch)
    runner = executor.runner(suite, expert, run)
    tasks = suite.up_to("train", count, start=start)
    on_event(Phase("expert demonstrations"))
    for _ in collect(memory, runner, tasks, on_event=on_event):
        pass
