"""Collecting experience: episodes of tasks that were not played yet, into a memory.

The one rule for what was played already: the memory holds an episode of the task by the same policy
with the same adapter, and neither the environment nor the policy broke it off.
"""

from collections.abc import Iterator, Sequence

from ..memory import ExperienceMemory
from ..memory.episode import Actor, Episode, StopReason
from ..task import Task
from .rundir import Announce, silent
from .runner import Runner, play_all

BROKEN = (StopReason.ENVIRONMENT_ERROR, StopReason.POLICY_ERROR)
"""Episodes that ended for one of these say nothing about their task: it is played again."""


def played(memory: ExperienceMemory, actor: Actor, since: int = 0) -> dict[str, bool]:
    """Tasks that an actor has played, by identity, and whether its latest episode succeeded.

    Args:
        memory: where to look.
        actor: whose episodes count: those of the same policy with the same adapter.
        since: log position; what lies before it does not count.
    """
    who = (actor.policy, actor.adapter)
    return {
        entry.task.identity: entry.success
        for entry in memory.entries()
        if entry.position >= since
        and entry.reason not in BROKEN
        and (entry.policy, entry.adapter) == who
    }


def collect(
    memory: ExperienceMemory,
    runner: Runner,
    tasks: Sequence[Task],
    *,
    since: int = 0,
    again: bool = False,
    announce: Announce = silent,
) -> Iterator[Episode]:
    """Plays the tasks that were not played yet; each episode is durable when it is yielded.

    Args:
        memory: open for writing.
        runner: who plays, and how.
        tasks: any of one suite.
        since: log position; what was played before it is played again.
        again: play everything again.
        announce: told about progress.
    """
    known = {} if again else played(memory, runner.actor, since)
    todo = [task for task in tasks if task.identity not in known]
    announce("tasks", len(todo))
    for episode in runner.run(todo):
        memory.add(episode)
        announce("episode", episode)
        yield episode


def collect_whole(
    memory: ExperienceMemory, runner: Runner, tasks: Sequence[Task], *, since: int = 0
) -> None:
    """As :func:`collect`, but all or nothing, and added in the order of the tasks: the log is then
    the same whatever ended first."""
    known = played(memory, runner.actor, since)
    memory.add_many(play_all(runner, [task for task in tasks if task.identity not in known]))
