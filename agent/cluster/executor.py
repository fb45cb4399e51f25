"""Where episodes are run: in this process, or on a cluster. Whoever runs some asks an executor for
the policy, for the memory and for the runner, and need not know which it is."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...envs import Suite
from ...extras import needs
from ...memory import Memory
from ..conversation import AnyPolicy
from ..load_policy import PolicySettings, load_model, load_policy
from ..retriever import Retriever
from ..run_episode import Success, stated_success
from ..runner import Runner, RunSettings
from .settings import RaySettings, address_of

if TYPE_CHECKING:
    from ..llm.local import LocalModel


class Executor(Protocol):
    """A place to run episodes in."""

    def policy(self, settings: PolicySettings, suite: Suite, slots: int) -> AnyPolicy:
        """A policy that acts there; arguments and errors as of
        :func:`relive.agent.load_policy.load_policy`."""
        ...

    def model(self, settings: PolicySettings, slots: int) -> "LocalModel":
        """A model of this process, for training, that can act there; arguments and errors as of
        :func:`relive.agent.load_policy.load_model`."""
        ...

    def memory(self, path: Path, fields: Collection[str] = ()) -> Memory:
        """A memory to read and to add to; to be closed. Made if it is not there."""
        ...

    def runner(
        self,
        suite: Suite,
        policy: AnyPolicy,
        settings: RunSettings,
        retriever: Retriever | None = None,
        success: Success = stated_success,
    ) -> Runner:
        """Whoever plays tasks there; arguments as of :class:`relive.agent.runner.Runner`."""
        ...


class InProcess:
    """Runs episodes in this process (and in the environment workers of it)."""

    def policy(self, settings: PolicySettings, suite: Suite, slots: int) -> AnyPolicy:
        """A policy of this process."""
        return load_policy(settings, suite, slots)

    def model(self, settings: PolicySettings, slots: int) -> "LocalModel":
        """A model of this process."""
        return load_model(settings, slots)

    def memory(self, path: Path, fields: Collection[str] = ()) -> Memory:
        """The memory, open for writing."""
        return Memory(path, fields=fields)

    def runner(
        self,
        suite: Suite,
        policy: AnyPolicy,
        settings: RunSettings,
        retriever: Retriever | None = None,
        success: Success = stated_success,
    ) -> Runner:
        """A runner of this process."""
        return Runner(suite, policy, settings, retriever, success)


IN_PROCESS = InProcess()


@contextmanager
def executor(on: str, settings: RaySettings) -> Iterator[Executor]:
    """The place that is meant by ``--on``; what was started for it has ended afterwards.

    Args:
        on: see :func:`relive.agent.cluster.settings.address_of`; empty for this process.
        settings: of a cluster.

    Raises:
        ValueError: it names no place, or the cluster has not what the settings ask for.
        ConnectionError: there is no such cluster.
        MissingExtraError: Ray is not installed.
    """
    if not on:
        yield IN_PROCESS
        return
    address = address_of(on)
    needs("ray")
    from .cluster import Cluster

    with Cluster(address, settings) as cluster:
        yield cluster
