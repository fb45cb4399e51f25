"""A cluster as a place to run episodes: connected to, or started, and given back."""

import logging
import math
import os
import socket
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ...envs import Suite, Task
from ...envs.registry import registered_target
from ...envs.worker import check_can_be_sent
from ...extras import needs
from ...memory import Memory
from ...memory.description import own_embedder
from ...memory.search.embed import AbsentEmbedder
from ..conversation import AnyPolicy
from ..load_policy import PolicySettings, load_model, load_policy
from ..retriever import MemoryRetriever, Retriever
from ..run_episode import Success, stated_success
from ..runner import Runner, RunSettings, spec_of
from .calls import beside_driver, nodes, start
from .crew import Crew, Worker, close_all, no_place
from .jobs import AdapterFiles, Job, MemoryRecipe, PolicyRecipe, RetrievalRecipe
from .memory import ActorMemory, MemoryFiles
from .runner import ClusterRunner, RemotePolicy
from .settings import RaySettings

with needs("ray"):
    import ray

if TYPE_CHECKING:
    from ..llm.local import LocalModel

LOCAL = "local"
"""Address that starts a cluster of this machine."""
OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of a cluster that is started here. Episodes and adapters are small."""


_REACH_SECONDS = 10.0


class Cluster:
    """An :class:`relive.agent.cluster.executor.Executor` on Ray; a context manager.

    Args:
        address: of the cluster's head, ``auto``, or ``local`` to start a cluster here. The cluster
            that this process is connected to already is used by all of them, and stays.
        settings: what workers take.

    Raises:
        ConnectionError: there is no cluster at that address.
        ValueError: it has not what the settings ask for.
    """

    def __init__(self, address: str, settings: RaySettings) -> None:
        self._settings = settings
        self._workers: list[Worker] = []
        self._busy = False
        self._memories: list[ActorMemory] = []
        self._sources: dict[object, tuple[Any, str]] = {}
        self._loaded: list[tuple[object, PolicySettings]] = []
        self._key = uuid.uuid4().hex[:12]
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(address, settings)
        elif ":" in address and address != (now := ray.get_runtime_context().gcs_address):
            raise _no_cluster(address, f"this process is connected to {now}")
        try:
            self._node: str = ray.get_runtime_context().get_node_id()
            self.size = room_for(settings, nodes())
            """How many workers play."""
        except BaseException:
            self._disconnect()
            raise

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything that was started."""
        try:
            if ray.is_initialized():
                close_all(self._workers)
                for memory in self._memories:
                    memory.close()
        finally:
            self._workers, self._memories, self._sources = [], [], {}
            self._disconnect()

    def _disconnect(self) -> None:
        if self._ours:
            ray.shutdown()

    def policy(self, settings: PolicySettings, suite: Suite, slots: int) -> AnyPolicy:
        """A policy of the workers; what needs a model is loaded by them alone. Arguments and errors
        as of :func:`relive.agent.load_policy.load_policy`."""
        if settings.kind == "local":
            job = Job(_sent(suite), self._recipe(settings), RunSettings(batch=slots),
                      stated_success, None, 1)  # fmt: skip
            (worker,) = self._crew(1)
            actor = worker.describe(job, self._settings.patience)
            if actor is None:
                raise no_place(self._settings)
            policy: Any = RemotePolicy(settings, actor)
        else:
            policy = load_policy(settings, suite, slots)
        self._loaded.append((policy, settings))
        return policy  # type: ignore[no-any-return]

    def model(self, settings: PolicySettings, slots: int) -> "LocalModel":
        """A model of this process that the workers load as well; arguments and errors as of
        :func:`relive.agent.load_policy.load_model`."""
        model = load_model(settings, slots)
        self._loaded.append((model, settings))
        return model

    def memory(self, path: Path, fields: Collection[str] = ()) -> Memory:
        """A memory on this machine, with a writer of its own."""
        memory = ActorMemory(path, fields, self._settings.losses)
        self._memories.append(memory)
        return memory

    def runner(
        self,
        suite: Suite,
        policy: AnyPolicy,
        settings: RunSettings,
        retriever: Retriever | None = None,
        success: Success = stated_success,
    ) -> Runner:
        """A runner whose tasks are played by the workers."""
        check_can_be_sent(suite)
        return ClusterRunner(suite, policy, settings, retriever, success, cluster=self)

    @contextmanager
    def crew(self, runner: Runner, tasks: Sequence[Task]) -> Iterator[tuple[Crew, int]]:
        """Workers for a runner's tasks, and how many they are. Left before all is played, they end.

        Raises:
            RuntimeError: they play something else now.
        """
        if self._busy:
            raise RuntimeError("the workers of this cluster play another run: let it end first")
        job = self._job(runner, len(tasks))
        workers = self._crew(min(self.size, len(tasks)))
        self._busy, finished = True, False
        try:
            yield Crew(workers, job, tasks, runner.actor, self._settings), len(workers)
            finished = True
        finally:
            self._busy = False
            if not finished:  # they are in the middle of episodes that nobody waits for
                close_all(workers)

    def _crew(self, count: int) -> list[Worker]:
        while len(self._workers) < count:
            self._workers.append(Worker(self._settings))
        return self._workers[:count]

    def _job(self, runner: Runner, most: int) -> Job:
        return Job(
            _sent(runner.suite), self._recipe_of(runner.policy), runner.settings, runner.success,
            self._retrieval(runner.suite, runner.retriever), most,
        )  # fmt: skip

    def _recipe_of(self, policy: Any) -> PolicyRecipe | AnyPolicy:
        settings = next((known for one, known in self._loaded if one is policy), None)
        if settings is None:
            if hasattr(policy, "set_adapter") and hasattr(policy, "playing"):
                raise ValueError(
                    f"{policy.model_name} was loaded in this process, and a model is not sent: "
                    "load it with the executor's model(settings, slots)"
                )
            return policy  # type: ignore[no-any-return]
        recipe = self._recipe(settings)
        if settings.kind != "local" or isinstance(policy, RemotePolicy):
            return recipe
        adapter = policy.adapter_folder
        files = AdapterFiles.of(adapter, policy.adapter) if adapter else None
        return replace(recipe, adapter=files, temperature=policy.temperature)

    def _recipe(self, settings: PolicySettings) -> PolicyRecipe:
        # A budget is kept by the process that sees all episodes.
        server = replace(settings.server, budget_tokens=0, budget_money=0.0)
        adapter = None
        if settings.kind == "local":
            if settings.adapter:
                folder = Path(settings.adapter)
                adapter = AdapterFiles.of(folder, folder.resolve().name)
                settings = replace(settings, adapter="")
            if not settings.device and not self._settings.gpus:
                settings = replace(settings, device="cpu")  # it was promised no other
        return PolicyRecipe(replace(settings, server=server), adapter)

    def _retrieval(self, suite: Suite, retriever: Retriever | None) -> RetrievalRecipe | None:
        if retriever is None:
            return None
        if not isinstance(retriever, MemoryRetriever):
            raise ValueError(f"{type(retriever).__name__} cannot be sent: use a MemoryRetriever")
        spec = replace(retriever.spec, reword=None)
        return RetrievalRecipe(
            self._memory(retriever.memory), spec, spec_of(suite).reword is not None
            and retriever.spec.reword is not None, retriever.settings, retriever.purpose,
            retriever.at, retriever.where,
        )  # fmt: skip

    def _memory(self, memory: Memory) -> MemoryRecipe:
        path = memory.path.absolute()
        # One that is only read may be opened and closed any number of times.
        one: object = memory if isinstance(memory, ActorMemory) else path
        if one not in self._sources:
            files = getattr(memory, "writer", None)
            if files is None:
                files = start(
                    MemoryFiles, str(path), max_restarts=-1, max_task_retries=-1, **beside_driver()
                )
            self._sources[one] = files, f"{self._key}-{len(self._sources)}"
        files, key = self._sources[one]
        # What stands for an embedder that is not here has its identity as well.
        own = own_embedder(path)
        usual = own.identity == memory.embedder.identity and not isinstance(own, AbsentEmbedder)
        return MemoryRecipe(
            files, str(path), self._node, key, memory.fields, None if usual else memory.embedder,
            self._settings.copies,
        )  # fmt: skip


def _sent(suite: Suite) -> str | Suite:
    """A suite as it is sent: by its name, where it has one that means the same everywhere."""
    return registered_target(suite) or suite


def _connect(address: str, settings: RaySettings) -> None:
    """Connects this process to a cluster, or starts one.

    Raises:
        ConnectionError: there is none at that address, or it does not take this process.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    _reach(address)
    options: dict[str, Any] = {}
    if address == LOCAL:
        asked = math.ceil(settings.workers * settings.cpus)
        options = {
            "num_cpus": max(asked, os.cpu_count() or 1),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    if settings.working_dir:
        options["runtime_env"] = {"working_dir": settings.working_dir}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        ray.shutdown()
        first = " ".join(str(error).split())[:300]
        raise _no_cluster(address, first) from error


def _reach(address: str) -> None:
    """Looks whether anybody listens at an address: Ray itself tries for a quarter of an hour.

    Raises:
        ConnectionError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, why: str) -> ConnectionError:
    return ConnectionError(
        f"cannot join the cluster at {address} ({why}): this machine must be a node of it "
        "(ray start --address=HOST:PORT); --on ray starts one of this machine alone"
    )


def room_for(settings: RaySettings, listed: Sequence[dict[str, Any]]) -> int:
    """How many workers play on some nodes.

    Args:
        settings: what each takes.
        listed: the nodes, as `ray.nodes` lists them.

    Raises:
        ValueError: there can be none, or not as many as are asked for.
    """
    alive = [node["Resources"] for node in listed if node["Alive"]]
    amounts = settings.amounts or {"CPU": 1.0}
    fit = sum(
        min(math.floor(node.get(name, 0.0) / amount + 1e-9) for name, amount in amounts.items())
        for node in alive
    )
    if fit >= max(1, settings.workers) or (fit and not settings.amounts):
        return settings.workers or fit
    has = "; ".join(
        ", ".join(f"{node.get(name, 0.0):g} {name}" for name in amounts) for node in alive
    )
    wants = ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())
    raise ValueError(
        f"a worker takes {wants}, and the nodes of the cluster have {has}: there is room for {fit} "
        f"workers, not for {max(1, settings.workers)}; ask for fewer or smaller ones (ray.workers, "
        "ray.cpus, ray.gpus, ray.memory, ray.resources), or add nodes"
    )
