"""A runner whose tasks are played by the workers of a cluster."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...envs import Task
from ...memory.episode import Actor, Episode
from ..action_format import format_of
from ..conversation import Action, Conversation, Usage
from ..load_policy import PolicySettings
from ..runner import Runner

if TYPE_CHECKING:
    from .cluster import Cluster


class RemotePolicy:
    """Stands here for a policy that is loaded where it acts, and nowhere else.

    Args:
        settings: which.
        actor: the record of it, as it was loaded there.
    """

    def __init__(self, settings: PolicySettings, actor: Actor) -> None:
        self.actor = actor
        """Who acts, for the record."""
        self.model_name = settings.model
        """The model's name, as `LocalModel.model_name`."""
        self.action_format = format_of(settings.action_format)
        """How an action stands in an answer."""

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """Cannot be asked here.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{self.model_name} is loaded by the workers of a cluster: play with the runner of its "
            "executor"
        )


@dataclass(slots=True)
class ClusterRunner(Runner):
    """Plays tasks as :class:`relive.agent.runner.Runner` does, elsewhere.

    The episodes are the same but for their ids and times. Of the clock, policy and environment are
    what an average worker spent.

    Args:
        cluster: who plays.
    """

    cluster: "Cluster | None" = None

    def run(self, tasks: Sequence[Task]) -> Iterator[Episode]:
        """Plays every task once and yields each episode as it arrives.

        Raises:
            ValueError: as of :meth:`relive.agent.runner.Runner.run`; or something cannot be sent.
            RuntimeError: as of :meth:`relive.agent.cluster.crew.Crew.play`.
        """
        if not tasks:
            return
        assert self.cluster is not None
        budget = getattr(self.policy, "budget", None)
        if budget is not None:
            budget.check()
        with self.cluster.crew(self, tasks) as (crew, size):
            try:
                began = time.monotonic()
                for ended in crew.play():
                    now = time.monotonic()
                    self.clock.total += now - began
                    self.clock.policy += ended.policy / size
                    self.clock.environment += ended.environment / size
                    self._hold(crew.running)
                    yield ended.episode
                    if budget is not None:
                        budget.add(_usage(ended.episode))
                        budget.check()
                    began = time.monotonic()
            finally:
                self._hold(0)


def _usage(episode: Episode) -> Usage:
    used = episode.usage
    return Usage(int(used.get("prompt", 0)), int(used.get("completion", 0)), used.get("cost", 0.0))
