"""What a worker is told to do, and how it makes of it what this process would have: the suite, the
policy, the memory and the runner. Nothing heavy is sent: a model is loaded where it acts."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...envs import Suite
from ...envs.registry import load_suite
from ...memory import EntryMeta, Memory, Purpose, Retrieval
from ...memory.maintenance.replica import Copy, remove_unused
from ...memory.search.embed import Embedder
from ..conversation import AnyPolicy
from ..load_policy import PolicySettings, load_policy
from ..policy import counter_of
from ..prompt import PromptSpec
from ..retriever import MemoryRetriever
from ..run_episode import Success
from ..runner import Runner, RunSettings
from .calls import answer

_COPIES = "relive-copies"
"""Folder of copies below that for temporary files."""


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter, to be put on another machine."""

    version: str
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, folder: Path, version: str) -> "AdapterFiles":
        """What is in a folder.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no adapter in {folder}")
        return cls(version, {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()})

    def put(self, below: Path) -> Path:
        """The folder that they are in from now on."""
        content = hashlib.sha256()
        for name, data in sorted(self.files.items()):
            content.update(f"{name}\n{len(data)}\n".encode() + data)
        folder = below / content.hexdigest()[:16] / self.version
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder


@dataclass(frozen=True, slots=True)
class PolicyRecipe:
    """How a policy is made where it acts."""

    settings: PolicySettings
    adapter: AdapterFiles | None = None
    temperature: float | None = None
    """Of now, where it is not that of the settings."""


@dataclass(frozen=True, slots=True)
class MemoryRecipe:
    """How a memory is read where its episodes are needed."""

    files: Any
    """The actor that answers ``changes(have)`` as :mod:`relive.memory.maintenance.replica`."""
    path: str
    node: str
    """Id of the node where it lies at `path`; everybody there opens it itself."""
    key: str
    """Names the copies."""
    fields: tuple[str, ...]
    embedder: Embedder | None
    """None for the one that it was embedded with."""
    copies: str
    """Folder for copies; empty for the temporary one."""


@dataclass(frozen=True, slots=True)
class RetrievalRecipe:
    """As the arguments of :class:`relive.agent.retriever.MemoryRetriever`."""

    memory: MemoryRecipe
    spec: PromptSpec
    """Without the suite's own way of rewording."""
    rewords: bool
    settings: Retrieval
    purpose: Purpose | None
    at: int | None
    where: Callable[[EntryMeta], bool] | None


@dataclass(frozen=True, slots=True)
class Job:
    """What is played, by whom, with what in view."""

    suite: str | Suite
    """``module:attribute`` of a registered one."""
    policy: PolicyRecipe | AnyPolicy
    run: RunSettings
    success: Success
    retrieval: RetrievalRecipe | None
    most: int
    """Tasks that there are in all."""


class FollowingRetriever(MemoryRetriever):
    """Brings the memory up to date before it binds an episode to what it holds."""

    follow: Callable[[], object]

    def frozen(self) -> MemoryRetriever:
        """The same, but bound to what the memory holds now."""
        self.follow()
        return super().frozen()


class Workshop:
    """Makes what jobs ask for, on the machine where it is used, and keeps it for the next one.

    Args:
        node: id of this node.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        # One at a time, since models are large; with what it was made for.
        self._policy: tuple[tuple[str, PolicySettings, int], AnyPolicy] | None = None
        self._memories: dict[str, tuple[Memory, Callable[[], object]]] = {}
        self._copies: list[Copy] = []
        self._adapters: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Gives up what was opened."""
        for memory, _ in self._memories.values():
            memory.close()
        for copy in self._copies:
            copy.close()
        if self._adapters is not None:
            self._adapters.cleanup()

    def runner(self, job: Job) -> Runner:
        """Whoever plays the tasks of a job."""
        suite = self.suite(job)
        policy = self.policy(job, suite)
        retriever = None
        if job.retrieval is not None:
            retriever = self._retriever(job.retrieval, suite, policy)
        return Runner(suite, policy, job.run, retriever, job.success)

    def suite(self, job: Job) -> Suite:
        """The suite of a job."""
        return load_suite(job.suite) if isinstance(job.suite, str) else job.suite

    def policy(self, job: Job, suite: Suite) -> AnyPolicy:
        """The policy of a job, as it is to act now."""
        recipe = job.policy
        if not isinstance(recipe, PolicyRecipe):
            return recipe
        key = (suite.name, recipe.settings, job.run.batch)
        if self._policy is None or self._policy[0] != key:
            self._policy = None
            self._policy = key, load_policy(recipe.settings, suite, job.run.batch)
        policy = self._policy[1]
        if recipe.settings.kind == "local":
            self._adapt(policy, recipe)
        return policy

    def _adapt(self, model: Any, recipe: PolicyRecipe) -> None:
        wanted = recipe.adapter.version if recipe.adapter else None
        if model.adapter != wanted:
            folder = None
            if recipe.adapter is not None:
                self._adapters = self._adapters or tempfile.TemporaryDirectory(prefix="relive-")
                folder = recipe.adapter.put(Path(self._adapters.name))
            model.set_adapter(folder, wanted)
        if recipe.temperature is not None:
            model.temperature = recipe.temperature

    def _retriever(self, recipe: RetrievalRecipe, suite: Suite, policy: object) -> MemoryRetriever:
        memory, follow = self._memory(recipe.memory)
        spec = replace(recipe.spec, reword=suite.reworded if recipe.rewords else None)
        retriever = FollowingRetriever(
            memory, spec, counter_of(policy), recipe.settings, recipe.purpose, recipe.at,
            recipe.where,
        )  # fmt: skip
        known = recipe.at is not None
        # What was added after a position that is read at is nobody's business here.
        retriever.follow = _nothing if known else follow
        if known and memory.position < (recipe.at or 0):
            follow()
        return retriever

    def _memory(self, recipe: MemoryRecipe) -> tuple[Memory, Callable[[], object]]:
        """A memory that is read here, and what brings it up to date."""
        if recipe.key not in self._memories:
            path, fetch = Path(recipe.path), _nothing
            if recipe.node != self._node:
                below = Path(recipe.copies or tempfile.gettempdir()) / _COPIES
                below.mkdir(parents=True, exist_ok=True)
                remove_unused(below)
                copy = Copy(below / f"{recipe.key}-{self._node[:12]}")
                self._copies.append(copy)
                path = copy.path

                def fetch() -> None:
                    copy.update(lambda have: answer(recipe.files.changes.remote(have)))

            fetch()
            memory = Memory(path, "r", embedder=recipe.embedder, fields=recipe.fields)

            def follow() -> None:
                fetch()
                memory.refresh()

            self._memories[recipe.key] = memory, follow
        return self._memories[recipe.key]


def _nothing() -> None:
    """Nothing is to be done."""
