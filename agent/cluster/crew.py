"""The workers of a run, seen from the process that drives it: who is handed which task, and what
becomes of the tasks of one that is lost.

A task counts as played when its episode has arrived here, and never before: whatever a lost worker
had in hand is handed out again, and what it might still say is not listened to.
"""

import math
import time
import uuid
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from ...envs import Task
from ...extras import needs
from ...memory.episode import Actor
from .calls import ActorLostError, answer, free_resources, spread, start
from .jobs import Job
from .rollout import CONTROL, GROUPS, Ended, Message, Placed, Ready, Rollout
from .settings import RaySettings

with needs("ray"):
    import ray

PREFETCH = 2
"""Tasks that a worker has in hand beyond those it plays, so that it need not wait for the next."""
_PULSE = 1.0
"""Seconds between looks at whether anybody is there at all."""
_CLOSING_SECONDS = 5.0
_SHOWN = 200  # characters of what Ray says of a lost actor


class WorkerLostWarning(UserWarning):
    """A worker was lost, with its node or alone; what it was playing is played again."""


class Worker:
    """One actor that plays, its successors included.

    Args:
        settings: what it takes.
    """

    def __init__(self, settings: RaySettings) -> None:
        self._options = {"concurrency_groups": GROUPS, **spread(settings.amounts)}
        self.hand: dict[int, Task] = {}
        """What it was given and has not answered, by number."""
        self.losses = 0
        """How often it was lost since it last finished an episode."""
        self.slots = 0
        """How many episodes it plays at once; 0 until it is ready."""
        self.placed = False
        """Whether it is known to run somewhere."""
        self._actor: Any = None
        self._job: Job | None = None
        self._name = ""
        self._messages: Any = None
        self._calls: list[Any] = []

    @property
    def actor(self) -> Any:
        """The handle of its actor."""
        if self._actor is None:
            self._actor = start(Rollout, **self._options)
        return self._actor

    def describe(self, job: Job, patience: float) -> Actor | None:
        """The record of a job's policy, as this worker loads it; None where it finds no place
        within so many seconds.

        Raises:
            ActorLostError: it was lost meanwhile.
            Exception: the policy cannot be loaded there.
        """
        there = self._control("node")
        if not ray.wait([there], timeout=patience)[0]:
            return None
        self.placed = True
        actor: Actor = answer(self.actor.describe.remote(job))
        return actor

    def begin(self, job: Job) -> None:
        """Makes it load what a job needs."""
        self._job, self._name = job, uuid.uuid4().hex
        self.hand, self.slots, self.placed = {}, 0, False
        self._messages = self.actor.play.options(num_returns="streaming").remote(self._name, job)

    def give(self, tasks: Sequence[tuple[int, Task]]) -> None:
        """Hands it tasks."""
        self.hand.update(tasks)
        self._calls.append(self._control("give", self._name, self._job, tasks))

    @property
    def references(self) -> list[Any]:
        """What Ray is to wait for: its next message, and whether it got what it was given."""
        return [self._messages, *self._calls]

    def receive(self, reference: Any) -> Message | None:
        """What is behind one of its references that is ready; None where it got what it was given.

        Raises:
            ActorLostError: it is gone, or does not know what it was given.
            Exception: what it raised.
        """
        if reference is not self._messages:
            self._calls.remove(reference)
            answer(reference)
            return None
        try:
            message: Message = answer(next(self._messages))
        except StopIteration:
            raise ActorLostError("it ended before its tasks did") from None
        if isinstance(message, Placed):
            self.placed = True
        elif isinstance(message, Ready):
            self.slots = message.slots
        else:
            self.losses = 0
            self.hand.pop(message.number, None)
        return message

    def end(self) -> None:
        """Says that the job is done."""
        self._control("end", self._name)
        self._messages, self._calls = None, []

    def kill(self) -> None:
        """Ends its actor, whatever it does."""
        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = self._messages = None
        self._calls = []
        self.hand, self.slots, self.placed = {}, 0, False

    def closing(self) -> Any:
        """A reference to the end of its files; None where it has none."""
        return self._control("close") if self._actor is not None and self.placed else None

    def _control(self, name: str, *arguments: Any) -> Any:
        method = getattr(self.actor, name)
        return method.options(concurrency_group=CONTROL).remote(*arguments)


def no_place(settings: RaySettings) -> RuntimeError:
    """What is said where others have taken all the room there is."""
    return RuntimeError(
        f"no worker found a place within {settings.patience:g} s: each takes {settings.amounts}, "
        f"and what is free is {free_resources()}; wait for others to end, or ask for less "
        "(ray.cpus, ray.gpus, ray.memory, ray.resources)"
    )


def close_all(workers: Sequence[Worker]) -> None:
    """Ends workers; those that answer remove what they left on disk."""
    closing = [reference for worker in workers if (reference := worker.closing()) is not None]
    if closing:
        ray.wait(closing, num_returns=len(closing), timeout=_CLOSING_SECONDS)
    for worker in workers:
        worker.kill()


class Crew:
    """Plays the tasks of one job with some workers.

    Args:
        workers: who plays; they have nothing else to do.
        job: what is played.
        tasks: which; each is played once.
        actor: the record that every worker has to agree with.
        settings: how much is put up with.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        job: Job,
        tasks: Sequence[Task],
        actor: Actor,
        settings: RaySettings,
    ) -> None:
        self._workers, self._job, self._actor, self._settings = workers, job, actor, settings
        self._todo = deque(enumerate(tasks))
        self._left = len(tasks)
        self._lost_with: Counter[int] = Counter()
        self._seen = time.monotonic()

    @property
    def running(self) -> int:
        """Tasks that are in somebody's hands."""
        return sum(len(worker.hand) for worker in self._workers)

    def play(self) -> Iterator[Ended]:
        """Yields every episode once, as it arrives.

        Raises:
            RuntimeError: there is no place for any worker, workers are lost again and again, or one
                of them acts otherwise than this process would.
            Exception: what a worker raised.
        """
        for worker in self._workers:
            worker.begin(self._job)
        while self._left:
            self._hand_out()
            for worker, reference in self._heard():
                if reference not in worker.references:
                    continue  # it was replaced a moment ago
                try:
                    message = worker.receive(reference)
                except ActorLostError as lost:
                    self._replace(worker, lost)
                    continue
                if isinstance(message, Ready):
                    self._check(message)
                elif isinstance(message, Ended):
                    self._left -= 1
                    yield message
        for worker in self._workers:
            worker.end()

    def _hand_out(self) -> None:
        """Gives everybody enough to do, and nobody so much that others stand idle in the end."""
        share = math.ceil(self._left / len(self._workers))
        for worker in self._workers:
            room = min(worker.slots + PREFETCH, share) - len(worker.hand) if worker.slots else 0
            given = [self._todo.popleft() for _ in range(min(room, len(self._todo)))]
            if given:
                worker.give(given)

    def _heard(self) -> list[tuple[Worker, Any]]:
        """Workers that have said something, and what of theirs is ready."""
        owners = {one: worker for worker in self._workers for one in worker.references}
        waiting = list(owners)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=_PULSE)
        if ready:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        if any(worker.placed for worker in self._workers):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > self._settings.patience:
            raise no_place(self._settings)
        return [(owners[one], one) for one in ready]

    def _replace(self, worker: Worker, lost: ActorLostError) -> None:
        """Takes back what a lost worker had in hand, and puts another one into its place."""
        self._todo.extendleft(reversed(worker.hand.items()))
        self._lost_with.update(worker.hand.keys())
        worker.losses += 1
        most = self._settings.losses
        again = max((self._lost_with[number] for number in worker.hand), default=0)
        if max(worker.losses, again) > most:
            what = "a worker" if worker.losses > most else "the worker with the same task"
            raise RuntimeError(
                f"{what} was lost {most + 1} times (ray.losses = {most}), at last: {lost}"
            ) from lost
        warnings.warn(
            f"a worker was lost with {len(worker.hand)} tasks in hand, which are played again: "
            f"{str(lost)[:_SHOWN]}",
            WorkerLostWarning,
            stacklevel=2,
        )
        worker.kill()
        worker.begin(self._job)

    def _check(self, ready: Ready) -> None:
        if ready.actor != self._actor:
            raise RuntimeError(
                f"a worker acts as {ready.actor}, and this process would act as {self._actor}: "
                "every node needs the same model and the same version of relive"
            )
