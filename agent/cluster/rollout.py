"""The actor that plays: an ordinary runner that is handed tasks and sends back episodes."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ...envs import Task
from ...extras import needs
from ...memory.episode import Actor, Episode
from ..runner import TaskQueue
from .jobs import Job, Workshop

with needs("ray"):
    import ray

CONTROL = "control"
"""Calls that are answered while episodes are played."""
GROUPS = {CONTROL: 1}


@dataclass(frozen=True, slots=True)
class Placed:
    """A worker has found a place; it goes on to load what it needs."""

    node: str
    """Id of the node."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker can be handed tasks."""

    actor: Actor
    """Who acts there."""
    slots: int
    """How many episodes it plays at once."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An episode is over."""

    number: int
    """Of its task."""
    episode: Episode
    policy: float
    """Seconds in the policy since the episode before, see :class:`relive.agent.runner.Clock`."""
    environment: float
    """Seconds of waiting for environments."""


Message = Placed | Ready | Ended


class Rollout:
    """Plays the tasks of one job at a time. Its public methods are called through Ray."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._workshop = Workshop(self._node)
        self._queues: dict[str, TaskQueue] = {}

    def node(self) -> str:
        """Where it is: the id of its node."""
        return self._node

    def describe(self, job: Job) -> Actor:
        """The record of a job's policy."""
        policy = self._workshop.policy(job, self._workshop.suite(job))
        actor: Actor = policy.actor  # type: ignore[union-attr]  # of policies that are loaded
        return actor

    def play(self, name: str, job: Job) -> Iterator[Message]:
        """Plays what is given under a name until that is ended; says how it gets on.

        Raises:
            StopRun: the policy cannot act any more.
            Exception: what the job asks for cannot be made here.
        """
        yield Placed(self._node)
        queue = self._queue(name)
        runner = self._workshop.runner(job)
        runner.check()
        yield Ready(runner.actor, runner.slots(job.most))
        policy = environment = 0.0
        try:
            for number, episode in runner.follow(queue, job.most):
                clock = runner.clock
                yield Ended(number, episode, clock.policy - policy, clock.environment - environment)
                policy, environment = clock.policy, clock.environment
        finally:
            del self._queues[name]

    def give(self, name: str, job: Job, tasks: Sequence[tuple[int, Task]]) -> None:
        """Hands over tasks, with a number each."""
        with suppress(Exception):  # whoever plays a task that cannot be made is told so
            self._workshop.suite(job).prepare([task for _, task in tasks], 1)
        self._queue(name).put(tasks)

    def end(self, name: str) -> None:
        """Says that no more tasks will be given under a name."""
        self._queue(name).close()

    def close(self) -> None:
        """Gives up files, and removes copies that nobody else uses."""
        self._workshop.close()

    def _queue(self, name: str) -> TaskQueue:
        return self._queues.setdefault(name, TaskQueue())
