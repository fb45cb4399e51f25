"""Many episodes at once, event-driven: whoever is ready acts.

Episodes do not wait for each other. All conversations that are waiting when no environment has an
answer go to the policy as one batch; environments work meanwhile. What an episode becomes does not
depend on what ran beside it: random numbers come from the run's seed and the task, and retrieval
reads the memory at a fixed position.
"""

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ..envs import EnvironmentFailure, EnvPool, Suite, Task
from ..envs.base import TextEnv
from ..memory.episode import Actor, Episode
from .action_format import PLAIN
from .conversation import (
    Action,
    AnyPolicy,
    Asked,
    ContextOverflow,
    Playing,
    Policy,
    SomeFailed,
    StopRun,
)
from .policy import actor_of
from .prompt import PromptSpec, prompt_spec
from .retriever import Retriever
from .run_episode import (
    EpisodeRun,
    Need,
    NeedReset,
    PolicyFailure,
    Success,
    run_episode,
    stated_success,
)


class UnfitModelWarning(UserWarning):
    """A model plays in a world that it cannot know."""


def at_home(suite: Suite) -> bool:
    """Whether the bundled model knows the commands of a suite."""
    return suite.name.startswith("household") or suite.name == "alfworld"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How episodes are run; none of it but `max_steps`, `give_up_after` and `seed` may
    change a result."""

    max_steps: int = 0
    """Actions per episode; 0 takes the suite's own limit."""
    batch: int = 16
    """Episodes at once."""
    workers: int = 0
    """Environment processes; 0 plays in this process, which is fastest for environments that never
    crash or hang. A suite that needs processes has as many as it says then, and no more than
    `batch`."""
    timeout: float = 60.0
    """Seconds that one reset or step may take (with workers)."""
    seed: int = 0
    admissible: bool = False
    """List the commands that would be accepted below every observation, and let the random policy
    choose among them. For comparison only: no result with it compares with one without."""
    give_up_after: int = field(default=0, metadata={"sparse": True})
    """End an episode in which the same action was refused so many times in a row; 0 never does.
    A greedy policy hardly ever leaves such a loop (of 3,478 successes of the bundled model 2 hold
    ten refusals, and 775 of 2,642 failures), and its actions are the dearest."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.timeout <= 0:
            raise ValueError(
                f"run settings need batch >= 1 and timeout > 0, got {self.batch} and {self.timeout}"
            )
        for name in ("workers", "max_steps", "give_up_after"):
            if getattr(self, name) < 0:
                raise ValueError(f"run.{name} is {getattr(self, name)}; it must not be negative")


class TaskQueue:
    """Numbered tasks that wait for a slot; more may be put in from another thread while they are
    played."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Task]] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, tasks: Iterable[tuple[int, Task]]) -> None:
        """Adds tasks, with a number each that their episodes are told apart by."""
        with self._changed:
            self._waiting.extend(tasks)
            self._changed.notify_all()

    def close(self, *, drop: bool = False) -> None:
        """Says that no more will come; `drop` also forgets those that wait."""
        with self._changed:
            self._closed = True
            if drop:
                self._waiting.clear()
            self._changed.notify_all()

    def take(self, wait: bool) -> tuple[int, Task] | None:
        """The next task; None where there is none now, or, with `wait`, never will be."""
        with self._changed:
            while wait and not self._waiting and not self._closed:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None


@dataclass(slots=True)
class Clock:
    """Where the time of a run went, in seconds of wall time; what is in neither part is the loop's
    own."""

    total: float = 0.0
    policy: float = 0.0
    environment: float = 0.0


@dataclass(slots=True)
class Runner:
    """Plays tasks with a policy.

    Args:
        suite: where the tasks come from.
        policy: who acts.
        settings: how.
        retriever: what past episodes to show; None for no memory.
        success: whether the goal is reached; by default what the environment says.
    """

    suite: Suite
    policy: AnyPolicy
    settings: RunSettings = field(default_factory=RunSettings)
    retriever: Retriever | None = None
    success: Success = stated_success
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        if getattr(self.policy, "model_name", "") == "bundled" and not at_home(self.suite):
            warnings.warn(
                f"the bundled model was made for the household and knows nothing of "
                f"{self.suite.name}: use a language model (--model, relive.LocalModel)",
                UnfitModelWarning,
                stacklevel=3,
            )

    @property
    def actor(self) -> Actor:
        """The record of who acts, as it is now."""
        retrieval = getattr(self.retriever, "settings", None)
        return actor_of(self.policy, retrieval, self.settings.seed, self.settings.admissible)

    def run(self, tasks: Sequence[Task]) -> Iterator[Episode]:
        """Plays every task once and yields each episode as it ends.

        Raises:
            ValueError: admissible commands are to be shown, and the suite's environments list none.
        """
        if not tasks:
            return
        self.check()
        try:
            self.suite.prepare(tasks, max(1, self._workers))
        except Exception as error:  # whoever plays a task that cannot be made is told so
            warnings.warn(f"{self.suite.name}: {error}", stacklevel=2)
        queue = TaskQueue()
        queue.put(enumerate(tasks))
        queue.close()
        for _, episode in self.follow(queue, len(tasks)):
            yield episode

    def check(self) -> None:
        """Raises unless tasks can be played here; raises as :meth:`run`."""
        if self.settings.admissible and type(self.suite.make()).admissible is TextEnv.admissible:
            raise ValueError(
                f"suite {self.suite.name!r} does not list admissible commands: play it without "
                "--admissible (run.admissible)"
            )
        self.suite.check_ready()

    @property
    def _workers(self) -> int:
        """Environment processes; 0 to play in this one."""
        return self.settings.workers or min(self.suite.processes, self.settings.batch)

    def slots(self, most: int) -> int:
        """Episodes at once, of `most` tasks in all."""
        return min(self._workers or self.settings.batch, most, self.suite.copies or most)

    def follow(self, queue: TaskQueue, most: int) -> Iterator[tuple[int, Episode]]:
        """Plays tasks as they come, until there will be no more; yields each episode, with the
        number of its task, as it ends.

        Args:
            queue: where tasks come from. What can be made beforehand was made.
            most: how many there can be.
        """
        slots = self.slots(most)
        pool = EnvPool(
            self.suite,
            min(self._workers, slots),
            self.settings.timeout,
            slots=slots,
            admissible=self.settings.admissible,
        )
        began = time.monotonic()
        try:
            with pool:
                for ended in self._play(pool, slots, queue):
                    self.clock.total += time.monotonic() - began
                    began = time.monotonic()
                    yield ended
        finally:
            self._hold(0)
        self.clock.total += time.monotonic() - began

    def _play(self, pool: EnvPool, slots: int, queue: TaskQueue) -> Iterator[tuple[int, Episode]]:
        running: dict[int, EpisodeRun] = {}
        numbers: dict[int, int] = {}
        asking: dict[int, Asked] = {}
        idle = list(reversed(range(slots)))
        in_flight = 0
        ended: list[tuple[int, Episode]] = []

        def advance(slot: int, answer: Any = None, error: Exception | None = None) -> None:
            """Sends an answer into an episode and takes down what it needs next."""
            nonlocal in_flight
            try:
                need: Need = running[slot].throw(error) if error else running[slot].send(answer)
            except StopIteration as stop:
                del running[slot]
                ended.append((slot, stop.value))
                return
            if isinstance(need, Asked):
                asking[slot] = need
            elif isinstance(need, NeedReset):
                pool.submit_reset(slot, need.task)
                in_flight += 1
            else:
                pool.submit_step(slot, need.action)
                in_flight += 1

        def fill() -> None:
            """Begins waiting tasks in idle slots; where nothing else goes on, waits for one."""
            while idle and (taken := queue.take(wait=not running and not ended)):
                slot = idle.pop()
                numbers[slot] = taken[0]
                running[slot] = self._begin(taken[1])
                advance(slot)

        fill()
        while running or ended:
            while ended:
                slot, episode = ended.pop()
                self._hold(len(running))
                yield numbers[slot], episode
                idle.append(slot)
                fill()
            if in_flight:
                now = time.monotonic()
                replies = pool.wait(0.0 if asking else None)
                self.clock.environment += time.monotonic() - now
                in_flight -= len(replies)
                for slot, reply in replies:
                    if isinstance(reply, EnvironmentFailure):
                        advance(slot, error=reply)
                    else:
                        advance(slot, reply)
                if replies:
                    continue
            if asking:
                batch, asking = asking, {}
                now = time.monotonic()
                self._hold(len(running))
                actions = self._act(list(batch.values()))
                self.clock.policy += time.monotonic() - now
                for slot, action in zip(batch, actions, strict=True):
                    if isinstance(action, PolicyFailure):
                        advance(slot, error=action)
                    else:
                        advance(slot, action)
            fill()

    def _hold(self, episodes: int) -> None:
        """Tells a policy whose adapter can change how many episodes depend on it."""
        playing = getattr(self.policy, "playing", None)
        if isinstance(playing, Playing):
            playing.tell(id(self), episodes)

    def _begin(self, task: Task) -> EpisodeRun:
        limit = self.settings.max_steps or self.suite.limit(task)
        return run_episode(
            task, spec_of(self.suite, self.policy), self.actor, self.retriever, limit,
            self.settings.seed, self.success, self.settings.admissible,
            self.settings.give_up_after,
        )  # fmt: skip

    def _act(self, asked: Sequence[Asked]) -> Sequence[Action | PolicyFailure]:
        """The policy's answers; where it raises, each conversation is tried alone, so that one
        costs only itself."""
        try:
            return _actions(_said(self.policy, asked), len(asked))
        except StopRun:
            raise
        except SomeFailed as some:
            return [one if isinstance(one, Action) else _failure(one) for one in some.answers]
        except Exception as error:
            if len(asked) == 1:
                return [_failure(error)]
            return [answer for need in asked for answer in self._act([need])]


def _said(policy: AnyPolicy, asked: Sequence[Asked]) -> object:
    answer = getattr(policy, "answer", None)
    if callable(answer):
        return answer(asked)
    act = cast(Policy, policy).act
    return act([one.conversation for one in asked], [one.seed for one in asked])


def _failure(error: Exception) -> PolicyFailure:
    overflow = isinstance(error, ContextOverflow)
    return PolicyFailure(f"{type(error).__name__}: {error}", overflow)


def _actions(said: object, count: int) -> list[Action]:
    """What a policy's ``act`` returned, if it is one action, or text, for each conversation."""
    if not isinstance(said, Sequence) or isinstance(said, str) or len(said) != count:
        raise TypeError(f"act must return {count} actions in a list, not {said!r:.80}")
    actions = [Action(one) if isinstance(one, str) else one for one in said]
    for one in actions:
        if not isinstance(one, Action):
            raise TypeError(f"act must return Actions or texts, not {one!r:.80}")
    return actions


def spec_of(suite: Suite, policy: object = None) -> PromptSpec:
    """The suite's part of the prompt, with the form in which the policy writes its actions."""
    templates = [(t.text, t.kind) for t in suite.templates]
    spec = prompt_spec(suite.instructions, templates, getattr(policy, "action_format", PLAIN))
    rewords = type(suite).reworded is not Suite.reworded
    return replace(
        spec, goal_form=suite.goal_form, condense_by=suite.condense_by,
        reword=suite.reworded if rewords else None,
    )  # fmt: skip


def play_all(
    runner: Runner, tasks: Sequence[Task], keep: Callable[[Episode], object] | None = None
) -> list[Episode]:
    """Runs all tasks, hands each episode to `keep` as it ends, and returns them in the order of the
    tasks."""
    order = {task.identity: i for i, task in enumerate(tasks)}
    last = len(tasks)  # an environment may tell that it played another one
    episodes = []
    for episode in runner.run(tasks):
        if keep:
            keep(episode)
        episodes.append(episode)
    return sorted(episodes, key=lambda e: order.get(e.task.identity, last))
