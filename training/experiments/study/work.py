"""What the jobs of a study do: fill a memory, train an adapter, live, play a cell. Each resumes
where it was stopped."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....agent.collect import collect
from ....agent.evaluation.records import Record, write
from ....agent.events import EpisodeEnded, Event
from ....agent.llm.weights import find_model, hash_weights
from ....agent.policy import ExpertPolicy
from ....agent.prompt import PROMPT_VERSION
from ....agent.retriever import MemoryRetriever
from ....agent.rundir import RunDirectory, measure
from ....agent.runner import Runner, play_all
from ....agent.settings import as_stored
from ....envs import Task, get_suite
from ....memory import Memory, Purpose
from ...augment import augment, paraphrase, propose
from ...lora import LoraSettings
from ...pretraining.rehearsal import rehearsal
from ...select import SelectSettings, select
from ...tune import tune
from .arms import EASY, TRAININGS, Cell, rates_of
from .context import JobContext, agreements, life_of, lives_as, make_runner, memory_path
from .settings import StudySettings
from .tasks import demonstration_tasks, tasks_for


def fill_memory(path: Path, settings: StudySettings, seed: int) -> None:
    """Expert demonstrations of a seed; no two seeds share one."""
    suite = get_suite(settings.suite)
    tasks = demonstration_tasks(settings, suite, seed)
    runner = Runner(suite, ExpertPolicy(suite), replace(settings.run, max_steps=0, seed=0))
    fields = settings.retrieval.fields
    with Memory(memory_path(path, Cell("none", seed=seed)), fields=fields) as memory:
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
    model.set_adapter(None)  # the cell that was played before may have left one on
    easy = job.tiers.types[EASY]
    wanted = Cell(train, base=base, seed=seed).adapters(easy)
    name = next(one.name for one in wanted if one.kind == kind)
    with Memory(memory_path(path, Cell("none", seed=seed)), "r") as memory:
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


def live_own(path: Path, settings: StudySettings, cell: Cell) -> None:
    """The agent fills a memory of its own: the tasks of the demonstrations, from nothing, in
    chunks.

    The easy half of them are the tasks that its adapter was trained on; of the hard types it has
    seen nothing. Within a chunk the memory is read as the chunk found it, so the result does not
    depend on what ended first.
    """
    job, cell = JobContext.at(path, settings), lives_as(cell)
    tasks = demonstration_tasks(settings, job.suite, cell.seed)
    directory = RunDirectory(path, folder_settings(settings))
    file = f"{life_of(cell)}.json"
    fields = settings.retrieval.fields
    with Memory(memory_path(path, cell), fields=fields) as memory:
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
    with Memory(memory_path(path, cell), "r") as memory:
        runner, note = make_runner(job, cell, memory)
        file = f"cells/{cell.name}.agreement.json"
        agreed: dict[str, float] = directory.read(file) or {}

        def keep(event: Event) -> None:  # episodes are kept, what a council thought of them is not
            if isinstance(event, EpisodeEnded) and (new := agreements(runner.policy)):
                directory.write(file, agreed | new)

        episodes = measure(directory, f"cells/{cell.name}", runner, tasks, keep)
        agreed |= agreements(runner.policy)
        records = [note(episode, agreed) for episode in episodes]
    write(records_file(path, cell), records)


def replay_cell(
    path: Path, settings: StudySettings, cell: Cell, tasks: Sequence[Task]
) -> list[Record]:
    """Plays some tasks under a cell's condition and returns their records, keeping nothing."""
    job = JobContext.at(path, settings)
    with Memory(memory_path(path, cell), "r") as memory:
        runner, note = make_runner(job, cell, memory)
        episodes = play_all(runner, tasks)
        return [note(episode, agreements(runner.policy)) for episode in episodes]


def records_file(path: Path, cell: Cell) -> Path:
    """Where a cell's records lie; it exists when the cell is done."""
    return path / "records" / f"{cell.name}.jsonl.gz"


def folder_settings(settings: StudySettings) -> dict[str, Any]:
    """What a study's folder belongs to. How many jobs, which cells and whether curves are wanted
    may change on the way; the control base is looked at when its cells are (`Study.run`)."""
    # What a seed's numbers do not depend on; the model is known by its weights.
    free = (
        "jobs",
        "seeds",
        "first_seed",
        "conditions",
        "control",
        "curve",
        "name",
        "model",
        "methods",
    )
    deciding = {k: v for k, v in as_stored(settings).items() if k not in free}
    weights = {"base": hash_weights(find_model(settings.model))}
    return {
        "study": deciding,
        "weights": weights,
        "suite": get_suite(settings.suite).version,
        "prompt": PROMPT_VERSION,
    }
