"""What a job of a study works with: the folder, the settings, models, memories, and who plays a
cell."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from ....agent.conversation import AnyPolicy
from ....agent.ensemble.council import Council
from ....agent.ensemble.explorer import Explorer
from ....agent.ensemble.orders import OrderVote
from ....agent.evaluation.records import Record, record
from ....agent.llm.local import LocalModel
from ....agent.load_policy import PolicySettings, load_model
from ....agent.retriever import MemoryRetriever
from ....agent.runner import Runner, spec_of
from ....envs import get_suite
from ....memory import Memory, Purpose
from ....memory.episode import Episode
from ..conditions import under
from .arms import EASY, FULL, TRAININGS, VOTE, Cell
from .copy_baseline import CopyPolicy
from .settings import StudySettings
from .tasks import Tiers

OWN = "own-"
"""How folders of memories begin that an agent of the study lived."""
ORDERS_ASKED = 6
"""Orders of the past episodes that a vote asks under."""


class JobContext:
    """What a job works with: the study's folder and settings, and the models that this process has
    loaded."""

    _open: "JobContext | None" = None

    def __init__(self, path: Path, settings: StudySettings) -> None:
        self.path, self.settings = path, settings
        self.suite = get_suite(settings.suite)
        self.tiers = Tiers(settings, self.suite)
        self.spec = spec_of(self.suite)
        self._models: dict[tuple[str, int], LocalModel] = {}

    @classmethod
    def at(cls, path: Path, settings: StudySettings) -> "JobContext":
        """This process's job; models stay loaded from one job to the next."""
        if cls._open is None or (cls._open.path, cls._open.settings) != (path, settings):
            import torch

            # Threads of several processes would wait for each other, and sums depend on how many
            # there are.
            torch.set_num_threads(1)
            cls._open = cls(path, settings)
        return cls._open

    def model(self, base: str, answers: int = 1) -> LocalModel:
        """A base model, which is asked for so many answers at each decision."""
        if (base, answers) not in self._models:
            model = self.settings.control if base == "control" else self.settings.model
            slots = self.settings.run.batch * answers
            self._models[base, answers] = load_model(PolicySettings(model=model), slots)
        return self._models[base, answers]

    def policy(
        self, cell: Cell, memory: Memory, temperature: float = 0.0
    ) -> tuple[AnyPolicy, Callable[[str], int]]:
        """Policy and token counter of a cell, which is shown episodes of a memory."""
        local = self.model(cell.base, ORDERS_ASKED if cell.order == VOTE else 1)
        if cell.train.startswith("copier"):
            search = cell.train == "copier-search"
            return CopyPolicy(self.suite.templates, search), local.count_tokens
        local.temperature = temperature
        folder = self.path / "adapters"
        if rule := TRAININGS[cell.train].council if cell.train in TRAININGS else "":
            local.set_adapter(None)
            members = {
                one.kind: local.twin(folder / one.name)
                for one in cell.adapters(self.tiers.types[EASY])
            }
            kind_of = lambda name: memory.meta(name).task.type  # noqa: E731
            return Council(members, local, kind_of, rule), local.count_tokens
        names = [one.name for one in cell.adapters(self.tiers.types[EASY])]
        local.set_adapter(folder / names[0] if names else None, names[0] if names else None)
        if len(names) > 1:
            return Explorer(local, local.twin(folder / names[1])), local.count_tokens
        return (
            OrderVote(local, ORDERS_ASKED) if cell.order == VOTE else local, local.count_tokens
        )  # fmt: skip

    def retriever(
        self,
        memory: Memory,
        cell: Cell,
        count: Callable[[str], int],
        purpose: Purpose,
        at: int | None = None,
    ) -> MemoryRetriever:
        """A cell's retrieval, at a log position of the memory."""
        asked = replace(self.settings.retrieval, k=cell.k)
        if cell.query == "dynamic":
            asked = replace(asked, query="dynamic", refresh_after=0)
        if cell.order and cell.order != VOTE:
            asked = replace(asked, order=cell.order)
        if cell.tokens:
            asked = replace(asked, max_tokens=cell.tokens)
        elif cell.k == FULL:
            two_thirds = 2 * self.model(cell.base).context // 3
            asked = replace(asked, max_tokens=self.settings.full_tokens or two_thirds)
        return MemoryRetriever(memory, self.spec, count, asked, purpose, at)


def memory_path(path: Path, cell: Cell) -> Path:
    """Folder of a cell's memory: the expert's of its seed, or the one that its agent lived."""
    return path / (life_of(cell) if cell.source == "own" else f"memory-s{cell.seed}")


def life_of(cell: Cell) -> str:
    """Name of the life in which a cell's agent fills a memory of its own (:func:`lives_as`)."""
    return f"{OWN}{cell.train}-{cell.base}-s{cell.seed}"


def lives_as(cell: Cell) -> Cell:
    """How the agent of a cell lives: as shown what is usual, so that all cells of one training read
    the same memory."""
    return Cell(cell.train, base=cell.base, seed=cell.seed, source="own")


def make_runner(
    job: JobContext, cell: Cell, memory: Memory
) -> tuple[Runner, Callable[[Episode, Mapping[str, float]], Record]]:
    """A cell's runner, and what makes a record of an episode, given how far a council's members
    agreed (:func:`agreements`)."""
    policy, count = job.policy(cell, memory)
    retriever = under(cell.memory, job.retriever(memory, cell, count, Purpose.EVALUATE))
    members = [one.name for one in cell.adapters(job.tiers.types[EASY])]
    condition = {
        **asdict(cell),
        "condition": cell.condition,
        "rooms": job.settings.split,
        "adapter": cell.adapter,
        "model": job.settings.model_name,
        **({"members": members} if isinstance(policy, Council | Explorer) else {}),
        "suite": job.settings.suite,
    }

    def note(episode: Episode, agreed: Mapping[str, float]) -> Record:
        tier = job.tiers.of(episode.task.type)
        kept = record(episode, {**condition, "tier": tier}, memory, retriever, count)
        if episode.task.identity in agreed:
            kept["agreement"] = agreed[episode.task.identity]
        return kept

    return Runner(job.suite, policy, job.settings.run, retriever), note


def agreements(policy: object) -> dict[str, float]:
    """Task identity -> share of a council's answers that named the action taken, over the decisions
    of the task; empty for others."""
    if not isinstance(policy, Council):
        return {}
    return {task: round(sum(some) / len(some), 4) for task, some in policy.agreed.items()}
