"""The paper's central experiment as one resumable command: does learning to use experience beat
memorising?

Per seed: a memory of expert demonstrations of all task types in train rooms; adapters trained on
its easy types only, one per training, from the same episodes in the same order; the agent's own
memory, filled from nothing; then every cell on tasks of its own in unseen rooms. Jobs run in
processes of one thread each; what is done is found again after a kill. Source of the design: Ferraz
et al., arXiv:2603.18272; definitions in `relive.training.experiments.arms`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...agent.collect import collect, collect_demonstrations
from ...agent.conversation import Policy
from ...agent.evaluation.records import Record, read, record, write
from ...agent.events import OnEvent, Phase, ignore
from ...agent.llm.local import LocalModel
from ...agent.llm.weights import find_model, hash_weights
from ...agent.load_policy import PolicySettings, load_model
from ...agent.prompt import PROMPT_VERSION
from ...agent.retriever import MemoryRetriever
from ...agent.rundir import RunDirectory, measure, versions
from ...agent.runner import Runner, RunSettings, play_all, spec_of
from ...agent.settings import as_stored
from ...envs import Suite, Task, get_suite
from ...memory import Memory, Purpose, Retrieval
from ...memory.episode import Episode
from ...memory.storage.lock import WriterLock
from ..examples import ContextRates
from ..lora import LoraSettings
from ..pretraining.rehearsal import rehearsal
from ..select import SelectSettings, select
from ..tune import tune
from .arms import TRAININGS, Cell, cells, rates_of, tier_of, tiers_of
from .conditions import under
from .copy_baseline import CopyPolicy
from .jobs import Job, commit, run_jobs

EASY = "easy"
"""The tier that is trained on."""


@dataclass(frozen=True, slots=True)
class CurveSettings:
    """Which arms' learning curves are measured (on valid rooms, seed 0), and where. See
    `relive.training.experiments.curve`."""

    arms: tuple[str, ...] = ("rag-lora", "rag-lora-rehearsal")
    steps: tuple[int, ...] = (25, 50, 100, 200, 400, 800)
    """Checkpoints of one training at constant rate; step 0, the frozen base, is always measured."""
    per_tier: int = 30
    """Rollouts per tier."""
    forced: int = 40
    """Expert episodes for the loss (easy tier) and for reading (binding tier), each."""


@dataclass(frozen=True, slots=True)
class StudySettings:
    """Everything that decides a study's numbers."""

    suite: str = "household"
    split: str = "test"
    """``valid`` while designing; ``test`` once per base version."""
    seeds: int = 3
    """Each with its own demonstrations, training sample, adapter initialisation, order and test
    tasks."""
    demonstrations: int = 600
    """Expert episodes in the memory of a seed, spread over all task types; the easy half is what
    trainings see."""
    per_tier: int = 102
    """Tasks per tier and seed, spread over its types."""
    own_temperature: float = 0.3
    """Of the rollouts that fill the agent's own memory."""
    control: str = ""
    """Folder of the control base; empty leaves its cells out."""
    conditions: tuple[str, ...] = ()
    """Only cells whose condition begins with one of these; empty for all."""
    jobs: int = 2
    """Processes of one thread each; with 1 everything happens in this process."""
    model: str = "bundled"
    lora: LoraSettings = field(
        default_factory=lambda: LoraSettings(steps=200, batch_examples=8, rehearsal=0.5)
    )
    robust: ContextRates = field(default_factory=lambda: ContextRates(0.2, 0.2))
    retrieval: Retrieval = field(default_factory=Retrieval, metadata={"stored": "recall"})
    """Budget and outcomes; k and query are the cell's own."""
    run: RunSettings = field(default_factory=RunSettings)
    curve: CurveSettings = field(default_factory=CurveSettings)

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.per_tier < 1 or self.demonstrations < 1 or self.jobs < 1:
            raise ValueError("study needs seeds, per_tier, demonstrations and jobs of at least 1")
        if self.lora.rehearsal is None:
            raise ValueError(
                "study needs lora.rehearsal as a number: the share that arms with rehearsal use"
            )


def tasks_for(settings: StudySettings, suite: Suite, seed: int, sealed: bool = False) -> list[Task]:
    """Test tasks of a seed; no task belongs to two seeds."""
    if sealed and "composed" not in suite.groups:
        raise ValueError(f"suite {suite.name!r} has no sealed tier: it lists no group 'composed'")
    tiers = {"composed": suite.groups["composed"]} if sealed else tiers_of(suite)
    found = []
    for types in tiers.values():
        per_type = -(-settings.per_tier // len(types))
        found += suite.tasks(settings.split, per_type * len(types), types, start=seed * per_type)
    return found


class JobContext:
    """What a job works with: the study's folder and settings, and the models that this process has
    loaded."""

    _open: "JobContext | None" = None

    def __init__(self, path: Path, settings: StudySettings) -> None:
        self.path, self.settings = path, settings
        self.suite = get_suite(settings.suite)
        self.spec = spec_of(self.suite)
        self._models: dict[str, LocalModel] = {}

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

    def model(self, base: str) -> LocalModel:
        """A base model."""
        if base not in self._models:
            model = self.settings.control if base == "control" else self.settings.model
            self._models[base] = load_model(PolicySettings(model=model), self.settings.run.batch)
        return self._models[base]

    def policy(self, cell: Cell, temperature: float = 0.0) -> tuple[Policy, Callable[[str], int]]:
        """Policy and token counter of a cell."""
        local = self.model(cell.base)
        if cell.train.startswith("copier"):
            search = cell.train == "copier-search"
            return CopyPolicy(self.suite.templates, search), local.count_tokens
        local.set_adapter(
            self.path / "adapters" / cell.adapter if cell.adapter else None, cell.adapter or None
        )
        local.temperature = temperature
        return local, local.count_tokens

    def retriever(
        self,
        memory: Memory,
        cell: Cell,
        count: Callable[[str], int],
        purpose: Purpose,
        at: int | None = None,
    ) -> MemoryRetriever:
        """A cell's retrieval, at a log position of the memory."""
        asked = replace(self.settings.retrieval, k=cell.k, query=cell.query)
        return MemoryRetriever(memory, self.spec, count, asked, purpose, at)


def memory_path(path: Path, source: str, seed: int) -> Path:
    """Folder of a seed's memory: the ``expert``'s, or the agent's ``own``."""
    return path / f"{'memory' if source == 'expert' else 'own'}-s{seed}"


def fill_memory(path: Path, settings: StudySettings, seed: int) -> None:
    """Expert demonstrations of a seed; no two seeds share one."""
    suite = get_suite(settings.suite)
    per_type = -(-settings.demonstrations // len(suite.types))
    with Memory(memory_path(path, "expert", seed)) as memory:
        if sum(e.success for e in memory.entries()) < settings.demonstrations:
            collect_demonstrations(memory, suite, settings.demonstrations, start=seed * per_type)


def train_arm(
    path: Path,
    settings: StudySettings,
    train: str,
    base: str,
    seed: int,
    out: Path | None = None,
    checkpoint: Callable[[int, Any], object] | None = None,
) -> None:
    """One adapter, trained on the easy demonstrations of a seed; in the study's folder unless `out`
    says where."""
    job, training = JobContext.at(path, settings), TRAININGS[train]
    model = job.model(base)
    easy = tiers_of(job.suite)[EASY]
    name = Cell(train, base=base, seed=seed).adapter
    with Memory(memory_path(path, "expert", seed), "r") as memory:
        episodes = select(memory, SelectSettings(policies=("expert",), types=easy))
        asked = replace(settings.retrieval, k=settings.retrieval.k if training.memory else 0)
        # What is retrieved from in training is exactly what is trained on.
        retriever = MemoryRetriever(
            memory,
            job.spec,
            model.count_tokens,
            asked,
            Purpose.TRAIN,
            where=lambda e: e.task.type in easy,
        )
        rates = rates_of(training, settings.robust)
        lora = replace(
            settings.lora,
            seed=settings.lora.seed + seed,
            rehearsal=settings.lora.rehearsal if training.rehearsal else 0.0,
        )
        tune(
            model, {job.spec: episodes}, lambda _: retriever, rates, lora,
            out or path / "adapters" / name, version=name, base_model=base, seed=seed,
            rehearsal=rehearsal(lora.seed), extra={"train": train}, checkpoint=checkpoint,
        )  # fmt: skip


CHUNK = 100
"""Tasks of the agent's own life between two looks at what it has learnt to remember."""


def live_own(path: Path, settings: StudySettings, train: str, seed: int) -> None:
    """The agent fills a memory of its own: the tasks of the demonstrations, from nothing, in
    chunks.

    The easy half of them are the tasks that its adapter was trained on; of the hard types it has
    seen nothing. Within a chunk the memory is read as the chunk found it, so the result does not
    depend on what ended first.
    """
    job, cell = JobContext.at(path, settings), Cell(train, source="own", seed=seed)
    per_type = -(-settings.demonstrations // len(job.suite.types))
    tasks = job.suite.tasks("train", settings.demonstrations, start=seed * per_type)
    directory = RunDirectory(path, folder_settings(settings))
    file = f"own-s{seed}.json"
    policy, count = job.policy(cell, settings.own_temperature)
    with Memory(memory_path(path, "own", seed)) as memory:
        positions: list[int] = directory.read(file) or []
        for number, first in enumerate(range(0, len(tasks), CHUNK)):
            if number == len(positions):
                positions.append(memory.position)
                directory.write(file, positions)
            retriever = job.retriever(memory, cell, count, Purpose.ACT, positions[number])
            runner = Runner(job.suite, policy, settings.run, retriever)
            for _ in collect(memory, runner, tasks[first : first + CHUNK]):
                pass


def play_cell(path: Path, settings: StudySettings, cell: Cell) -> None:
    """Plays a cell's tasks and writes their records; what is played already is not played again."""
    job = JobContext.at(path, settings)
    tasks = tasks_for(settings, job.suite, cell.seed, cell.sealed)
    directory = RunDirectory(path, folder_settings(settings))
    with Memory(memory_path(path, cell.source, cell.seed), "r") as memory:
        runner, note = make_runner(job, cell, memory)
        records = [
            note(episode) for episode in measure(directory, f"cells/{cell.name}", runner, tasks)
        ]
    write(records_file(path, cell), records)


def replay_cell(
    path: Path, settings: StudySettings, cell: Cell, tasks: Sequence[Task]
) -> list[Record]:
    """Plays some tasks under a cell's condition and returns their records, keeping nothing."""
    job = JobContext.at(path, settings)
    with Memory(memory_path(path, cell.source, cell.seed), "r") as memory:
        runner, note = make_runner(job, cell, memory)
        return [note(episode) for episode in play_all(runner, tasks)]


def make_runner(
    job: JobContext, cell: Cell, memory: Memory
) -> tuple[Runner, Callable[[Episode], Record]]:
    """A cell's runner, and what makes a record of its episodes."""
    policy, count = job.policy(cell)
    retriever = under(cell.memory, job.retriever(memory, cell, count, Purpose.EVALUATE))
    condition = {
        **asdict(cell),
        "condition": cell.condition,
        "rooms": job.settings.split,
        "adapter": cell.adapter,
    }

    def note(episode: Episode) -> Record:
        tier = tier_of(episode.task.type, job.suite)
        return record(episode, {**condition, "tier": tier}, memory, retriever, count)

    return Runner(job.suite, policy, job.settings.run, retriever), note


def records_file(path: Path, cell: Cell) -> Path:
    """Where a cell's records lie; it exists when the cell is done."""
    return path / "records" / f"{cell.name}.jsonl.gz"


def folder_settings(settings: StudySettings) -> dict[str, Any]:
    """What a study's folder belongs to. How many jobs, which cells and whether curves are wanted
    may change on the way; the control base is looked at when its cells are (`Study.run`)."""
    deciding = {
        k: v
        for k, v in as_stored(settings).items()
        if k not in ("jobs", "conditions", "control", "curve")
    }
    weights = {"bundled": hash_weights(find_model(settings.model))}
    return {
        "study": deciding,
        "weights": weights,
        "suite": get_suite(settings.suite).version,
        "prompt": PROMPT_VERSION,
    }


class Study:
    """A resumable study in a run directory.

    Args:
        path: the run directory.
        settings: what to do.
        on_event: told about progress.

    Raises:
        ValueError: the directory holds a study with other settings.
    """

    def __init__(self, path: Path, settings: StudySettings, on_event: OnEvent = ignore) -> None:
        self.path, self.settings, self.on_event = path, settings, on_event
        self.directory = RunDirectory(path, folder_settings(settings))

    def _same_control(self) -> None:
        """Refuses another control base than the one that this study began with."""
        if self.settings.control:
            weights = hash_weights(find_model(self.settings.control))
            before = self.directory.read("control.json") or weights
            if before != weights:
                raise ValueError(
                    f"{self.path} holds results of the control base {before[:12]}; "
                    f"{self.settings.control} has weights "
                    f"{weights[:12]}: use another --out"
                )
            self.directory.write("control.json", before)

    def cells(self, sealed: bool = False) -> list[Cell]:
        """The cells that this study is to hold."""
        wanted = self.settings.conditions
        found = cells(self.settings.seeds, bool(self.settings.control), sealed)
        return [c for c in found if not wanted or any(c.condition.startswith(w) for w in wanted)]

    def run(self, sealed: bool = False) -> list[Record]:
        """Does what is not done yet and returns the records of all finished cells.

        Args:
            sealed: also measure the sealed tier. To be done once, at the end.

        Raises:
            BlockingIOError: another process works on this study.
            ValueError: the control base is not the one that the study began with.
        """
        with WriterLock(self.path / "lock"):
            self._same_control()
            return self._run(sealed)

    def _run(self, sealed: bool) -> list[Record]:
        wanted = self.cells() + (self.cells(sealed=True) if sealed else [])
        s, path = self.settings, self.path
        for seed in sorted({c.seed for c in wanted}):
            self.on_event(Phase(f"demonstrations of seed {seed}"))
            fill_memory(path, s, seed)
        arms = dict.fromkeys((c.train, c.base, c.seed) for c in wanted if c.adapter)
        self.jobs(
            "adapters",
            [
                (Cell(t, base=b, seed=n).adapter, train_arm, (path, s, t, b, n))
                for t, b, n in arms
                if not (
                    path / "adapters" / Cell(t, base=b, seed=n).adapter / "manifest.json"
                ).exists()
            ],
        )
        todo = [c for c in wanted if not records_file(path, c).exists()]
        own = dict.fromkeys((c.train, c.seed) for c in todo if c.source == "own")
        self.jobs("own memories", [(f"own-s{n}", live_own, (path, s, t, n)) for t, n in own])
        self.jobs("cells", [(c.name, play_cell, (path, s, c)) for c in todo])
        return [r for c in wanted for r in read(records_file(path, c))]

    def summary(self) -> dict[str, Any]:
        """What a published result says of how it was made."""
        control = (
            {"control": hash_weights(Path(self.settings.control))} if self.settings.control else {}
        )
        seconds = self.directory.read("seconds.json") or {}
        return {
            "commit": commit(),
            "settings": as_stored(self.settings),
            "weights_sha256": folder_settings(self.settings)["weights"]["bundled"],
            "bases": {**folder_settings(self.settings)["weights"], **control},
            "versions": versions(),
            "job_seconds": round(sum(seconds.values())),
        }

    def jobs(self, what: str, jobs: Sequence[Job]) -> None:
        """Runs jobs in the study's processes."""
        run_jobs(self.directory, what, jobs, self.settings.jobs, self.on_event)
