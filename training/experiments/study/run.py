"""The paper's central experiment as one resumable command: does learning to use experience beat
memorising?

Per seed: a memory of expert demonstrations of all task types in train rooms; adapters trained on
its easy types only, one per training, from the same episodes in the same order; the agent's own
memory, filled from nothing; then every cell on tasks of its own in unseen rooms. Jobs run in
processes of one thread each; what is done is found again after a kill. Source of the design: Ferraz
et al., arXiv:2603.18272; definitions in `relive.training.experiments.study.arms`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ....agent.collect import collect
from ....agent.conversation import AnyPolicy
from ....agent.ensemble.council import Council
from ....agent.ensemble.explorer import Explorer
from ....agent.ensemble.orders import OrderVote
from ....agent.evaluation.records import Record, read, record, write
from ....agent.events import OnEvent, Phase, ignore
from ....agent.llm.local import LocalModel
from ....agent.llm.manifest import FILE as MANIFEST
from ....agent.llm.weights import find_model, hash_weights
from ....agent.load_policy import PolicySettings, load_model
from ....agent.policy import ExpertPolicy
from ....agent.prompt import PROMPT_VERSION
from ....agent.retriever import MemoryRetriever
from ....agent.rundir import RunDirectory, measure, versions
from ....agent.runner import Runner, play_all, spec_of
from ....agent.settings import as_stored
from ....envs import Task, get_suite
from ....memory import Memory, Purpose
from ....memory.episode import Episode
from ....memory.storage.lock import WriterLock
from ...augment import augment, paraphrase, propose
from ...lora import LoraSettings
from ...pretraining.rehearsal import rehearsal
from ...select import SelectSettings, select
from ...tune import tune
from ..conditions import under
from ..jobs import Job, commit, run_jobs
from .arms import EASY, FULL, TRAININGS, VOTE, Cell, cells, rates_of
from .copy_baseline import CopyPolicy, copiers
from .settings import StudySettings
from .tasks import Tiers, demonstration_tasks, tasks_for

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
            asked = replace(asked, query="dynamic")
        if cell.order and cell.order != VOTE:
            asked = replace(asked, order=cell.order)
        if cell.tokens:
            asked = replace(asked, max_tokens=cell.tokens)
        elif cell.k == FULL:
            two_thirds = 2 * self.model(cell.base).context // 3
            asked = replace(asked, max_tokens=self.settings.full_tokens or two_thirds)
        return MemoryRetriever(memory, self.spec, count, asked, purpose, at)


def memory_path(path: Path, source: str, seed: int) -> Path:
    """Folder of a seed's memory: the ``expert``'s, or the agent's ``own``."""
    return path / f"{'memory' if source == 'expert' else 'own'}-s{seed}"


def fill_memory(path: Path, settings: StudySettings, seed: int) -> None:
    """Expert demonstrations of a seed; no two seeds share one."""
    suite = get_suite(settings.suite)
    tasks = demonstration_tasks(settings, suite, seed)
    runner = Runner(suite, ExpertPolicy(suite), replace(settings.run, max_steps=0, seed=0))
    fields = settings.retrieval.fields
    with Memory(memory_path(path, "expert", seed), fields=fields) as memory:
        for _ in collect(memory, runner, tasks):
            pass


def train_arm(
    path: Path,
    settings: StudySettings,
    train: str,
    base: str,
    seed: int,
    out: Path | None = None,
    checkpoint: Callable[[int, Any], object] | None = None,
    kind: str = "",
) -> None:
    """One adapter, trained on the easy demonstrations of a seed, or on those of one type; in the
    study's folder unless `out` says where."""
    job, training = JobContext.at(path, settings), TRAININGS[train]
    model = job.model(base)
    easy = job.tiers.types[EASY]
    wanted = Cell(train, base=base, seed=seed).adapters(easy)
    name = next(one.name for one in wanted if one.kind == kind)
    with Memory(memory_path(path, "expert", seed), "r") as memory:
        learnt = (kind,) if kind else easy
        episodes = select(memory, SelectSettings(policies=("expert",), types=learnt))
        made = augment(job.suite, episodes, training.variations, easy, seed=seed)
        if training.paraphrases:
            made = paraphrase(model, episodes, seed=seed)
        if training.proposals:
            made = propose(model, job.suite, episodes, len(episodes), easy, seed=seed)
        episodes = [*episodes, *made.episodes]
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
        if kind:
            lora = shared_out(lora, len(easy))
        extra = {"train": train, **({"variations": made.counts} if made.counts else {})}
        tune(
            model, {job.spec: episodes}, lambda _: retriever, rates, lora,
            out or path / "adapters" / name, version=name, base_model=base, seed=seed,
            rehearsal=rehearsal(lora.seed) if lora.rehearsal else None, extra=extra,
            checkpoint=checkpoint,
        )  # fmt: skip


def shared_out(lora: LoraSettings, members: int) -> LoraSettings:
    """A specialist's share of the rank and the steps that one adapter would have."""
    rank = max(1, lora.rank // members)
    return replace(
        lora, rank=rank, alpha=lora.alpha * rank // lora.rank, steps=max(1, lora.steps // members)
    )


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
    tasks = demonstration_tasks(settings, job.suite, seed)
    directory = RunDirectory(path, folder_settings(settings))
    file = f"own-s{seed}.json"
    fields = settings.retrieval.fields
    with Memory(memory_path(path, "own", seed), fields=fields) as memory:
        policy, count = job.policy(cell, memory, settings.own_temperature)
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

    def note(episode: Episode) -> Record:
        tier = job.tiers.of(episode.task.type)
        kept = record(episode, {**condition, "tier": tier}, memory, retriever, count)
        if isinstance(policy, Council) and (agreed := policy.agreed.get(episode.task.identity)):
            kept["agreement"] = round(sum(agreed) / len(agreed), 4)
        return kept

    return Runner(job.suite, policy, job.settings.run, retriever), note


def records_file(path: Path, cell: Cell) -> Path:
    """Where a cell's records lie; it exists when the cell is done."""
    return path / "records" / f"{cell.name}.jsonl.gz"


def folder_settings(settings: StudySettings) -> dict[str, Any]:
    """What a study's folder belongs to. How many jobs, which cells and whether curves are wanted
    may change on the way; the control base is looked at when its cells are (`Study.run`)."""
    # What a seed's numbers do not depend on; the model is known by its weights.
    free = ("jobs", "seeds", "conditions", "control", "curve", "name", "model", "methods")
    deciding = {k: v for k, v in as_stored(settings).items() if k not in free}
    weights = {"base": hash_weights(find_model(settings.model))}
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
        s = self.settings
        compared = [c for method in s.methods for c in method.conditions]
        wanted = list(dict.fromkeys([*s.conditions, *compared]))
        scripted = copiers(get_suite(s.suite).templates)
        found = cells(s.seeds, bool(s.control), sealed, bool(s.lora.rehearsal), scripted)
        chosen = [c for c in found if not wanted or any(fnmatch(c.condition, w) for w in wanted)]
        if not sealed:  # what is named and none of the usual ones
            usual = {c.condition for c in found}
            named = [w for w in wanted if not set(w) & set("*?[") and w not in usual]
            for cell in map(Cell.of, named):  # as many episodes as fit take long: one seed
                seeds = 1 if cell.k == FULL else s.seeds
                chosen += [replace(cell, seed=seed) for seed in range(seeds)]
        return chosen

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
        easy = Tiers(s, get_suite(s.suite)).types[EASY]
        adapters: dict[str, Job] = {}
        lives: dict[str, Job] = {}
        played: list[Job] = []
        after: dict[str, list[str]] = {}
        for c in wanted:
            named = c.adapters(easy)
            for one in named:
                told = (path, s, one.train, c.base, c.seed, None, None, one.kind)
                if not (path / "adapters" / one.name / MANIFEST).exists():
                    adapters.setdefault(one.name, (one.name, train_arm, told))
            if records_file(path, c).exists():
                continue
            after[c.name] = [one.name for one in named]
            if c.source == "own":
                life = f"own-s{c.seed}"
                lives.setdefault(life, (life, live_own, (path, s, c.train, c.seed)))
                after[life] = after[c.name]
                after[c.name] = [life]
            played.append((c.name, play_cell, (path, s, c)))
        self.jobs("study", [*adapters.values(), *lives.values(), *played], after)
        return [r for c in wanted for r in read(records_file(path, c))]

    def summary(self) -> dict[str, Any]:
        """What a published result says of how it was made."""
        control = (
            {"control": hash_weights(Path(self.settings.control))} if self.settings.control else {}
        )
        seconds = self.directory.read("seconds.json") or {}
        return {
            "commit": commit(),
            "model": self.settings.model_name,
            "suite": self.settings.suite,
            "settings": as_stored(replace(self.settings, model=self.settings.model_name)),
            "weights_sha256": folder_settings(self.settings)["weights"]["base"],
            "bases": {**folder_settings(self.settings)["weights"], **control},
            "versions": versions(),
            "job_seconds": round(sum(seconds.values())),
        }

    def jobs(
        self,
        what: str,
        jobs: Sequence[Job],
        after: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Runs jobs in the study's processes, see `relive.training.experiments.jobs.run_jobs`."""
        run_jobs(self.directory, what, jobs, self.settings.jobs, self.on_event, after)
