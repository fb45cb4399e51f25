"""The second door: an agent that plays tasks, remembers each, and looks at what it remembers.

    agent = relive.Agent(policy, memory=memory, retrieval=relive.Retrieval(k=2))
    for episode in agent.run(MyEnv, tasks=60):
        print(episode.task.goal, episode.success, episode.retrieved)

Every episode is in the memory when it is yielded, and the next one can retrieve it.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from ..envs.adapt import GymnasiumSuite, as_suite, as_tasks
from ..envs.base import Suite, types_of
from ..envs.worker import check_can_be_sent
from ..memory import Memory, Purpose, Retrieval
from ..memory.episode import Episode
from ..task import Task
from .collect import BROKEN
from .conversation import AnyPolicy
from .policy import as_policy, counter_of
from .retriever import MemoryRetriever
from .run_episode import Success, SuccessUnknownError, stated_success
from .runner import Runner, RunSettings, spec_of


class Agent:
    """A policy with a memory.

    Args:
        policy: who acts: a function from messages (``[{"role": …, "content": …}, …]``) to the next
            action, a `LocalModel`, or any object with ``act`` (see
            :class:`relive.agent.conversation.Policy`).
        memory: where episodes are stored and found; open for writing. None: nothing is remembered.
        retrieval: what is shown of it; by default two successes.
        seed: base of all random numbers; with the task's identity it decides what is sampled.

    Raises:
        TypeError: something is not of its type.
        ValueError: the memory is open for reading only.
    """

    def __init__(
        self,
        policy: AnyPolicy | Callable[[list[dict[str, str]]], str],
        memory: Memory | None = None,
        retrieval: Retrieval | None = None,
        *,
        seed: int = 0,
    ) -> None:
        if memory is not None and not isinstance(memory, Memory):
            raise TypeError(f"memory must be a relive.Memory, not {memory!r}: relive.Memory(path)")
        if retrieval is not None and not isinstance(retrieval, Retrieval):
            raise TypeError(f"retrieval must be a relive.Retrieval, not {retrieval!r}")
        if memory is not None and not memory.writable:
            raise ValueError(
                f"the memory in {memory.path} is open for reading, and an agent adds to it: open "
                "it with relive.Memory(path), or measure with relive.evaluate"
            )
        self.policy = as_policy(policy)
        self.memory, self.retrieval = memory, retrieval or Retrieval()
        self.seed = seed

    def run(
        self,
        environment: Suite | Callable[[], Any] | Any,
        tasks: int | Literal["all"] | Sequence[int | str | Task] = 1,
        *,
        split: str = "train",
        types: Sequence[str] = (),
        at: int | None = None,
        success: Success | None = None,
        instructions: str = "",
        max_steps: int = 0,
        workers: int = 0,
        batch: int = 1,
        timeout: float = 60.0,
    ) -> Iterator[Episode]:
        """Plays tasks and yields each episode as it ends, when it is durable in the memory.

        In an environment of one's own everything that the memory holds may be shown. In a suite,
        whose splits are to be measured, the strict policy of experiments applies
        (:meth:`relive.memory.Holdout.strict`): never an episode of the very task, nor a
        near-duplicate, nor of splits that the retrieval does not name.

        Args:
            environment: a ``gymnasium.Env`` of texts; a function or class that makes one; a suite
                (:class:`relive.envs.Suite`), or the name of a registered one.
            tasks: how many, or ``"all"``; or which: seeds, goals (the environment gets them as
                ``options["goal"]`` of ``reset``), or Tasks.
            split: of the tasks, where their number is given.
            types: task types or groups of a suite; all by default.
            at: log position of the memory to read at, for experiments: then no episode sees what
                this run adds, and nothing depends on what ends first.
            success: whether the goal is reached, by the last answer
                (:class:`relive.envs.Reply`); by default ``info["success"]`` or ``info["won"]``. It
                is asked after each step, and True ends the episode.
            instructions: what the agent is told first, in an environment that is no suite.
            max_steps: actions per episode; 0 for the environment's own limit.
            workers: processes to play in, each with an environment of its own: a crash costs one
                episode. They need a function or class that makes the environment. 0: in this one.
            batch: episodes at once without workers. Those that run at the same time do not see
                each other.
            timeout: seconds that one reset or step may take, with workers.

        Raises:
            TypeError, ValueError: the environment, the tasks or a number cannot be used.
            SuccessUnknownError: the environment ended an episode and did not say how; the episode
                is stored as an error of the environment.

        Warns:
            UserWarning: an error of the environment or the policy broke off an episode, which is
                data like any other; the first one is told.
        """
        told = {"instructions": instructions} if instructions else {}
        if success is not None and not callable(success):
            raise TypeError(f"success must be a function of the last reply, not {success!r}")
        suite = as_suite(environment, **told)
        if workers:
            check_can_be_sent(suite)
        todo = as_tasks(suite, tasks, split, types_of(suite, types))
        settings = RunSettings(max_steps, batch, workers, timeout, self.seed)
        return self._run(suite, todo, settings, at, success or stated_success)

    def _run(
        self, suite: Suite, tasks: list[Task], settings: RunSettings, at: int | None, done: Success
    ) -> Iterator[Episode]:
        memory, retriever = self.memory, None
        if memory is not None:
            purpose = None if isinstance(suite, GymnasiumSuite) else Purpose.ACT
            retriever = MemoryRetriever(
                memory, spec_of(suite), counter_of(self.policy), self.retrieval, purpose, at
            )
        runner = Runner(suite, self.policy, settings, retriever, done)
        try:
            told = False
            for episode in runner.run(tasks):
                if memory is not None:
                    memory.add(episode)
                if episode.outcome.reason in BROKEN and not told:
                    told = True  # an environment that fails every time would fill the screen
                    warnings.warn(
                        f"an error broke off an episode of {suite.name}: {episode.outcome.detail} "
                        "(said once; episode.outcome tells it of each)",
                        stacklevel=2,
                    )
                yield episode
        except SuccessUnknownError as error:
            if memory is not None:
                memory.add(error.episode)
            raise
