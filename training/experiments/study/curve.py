"""Learning curves: success, reading and validation loss as fine-tuning goes on, at a constant rate,
on valid rooms only.

The paper finds that success on hard tasks still rises at 30-50 epochs while validation loss worsens
(Ferraz et al., arXiv:2603.18272), so a checkpoint is chosen by rollouts. Here both are measured at
the same checkpoints.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ....agent.policy import ExpertPolicy
from ....agent.retriever import MemoryRetriever, RetrievedContext
from ....agent.rundir import RunDirectory, measure
from ....agent.runner import Runner, play_all
from ....envs import Suite, Task, get_suite
from ....memory import Memory, Purpose
from ....memory.episode import Episode
from ....memory.storage.lock import WriterLock
from ...batches import encode_example
from ...examples import example
from ...teacher_forced import Action, forced, mean_loss
from .arms import EASY, HARD, Cell
from .context import JobContext, memory_path
from .run import Study
from .settings import StudySettings
from .tasks import Tiers
from .work import fill_memory, folder_settings, train_arm

_TREATED = re.compile(r"\w+ .+ with (.+)")


def treatments(episode: Episode) -> list[int]:
    """Indices of the actions at an appliance: what is done with it, and going there right
    before."""
    found = []
    for i, step in enumerate(episode.steps):
        match = _TREATED.fullmatch(step.action)
        if match:
            went = i and episode.steps[i - 1].action == f"go to {match[1]}"
            found += [i - 1, i] if went else [i]
    return found


def curves(study: Study) -> list[dict[str, Any]]:
    """All learning curves of a study: what is not measured yet is, one process per arm.

    Returns:
        One row per arm and checkpoint: arm, step, success per tier and on both hard ones, reading,
        loss_easy, loss_reading.

    Raises:
        ValueError: the study's folder holds curves of other settings, or its tiers are not those
            of the household, whose appliances are what is read.
    """
    settings, wanted = study.settings, asdict(study.settings.curve)
    if not {EASY, *HARD} <= set(Tiers(settings, get_suite(settings.suite)).types):
        raise ValueError(
            f"curves need the tiers {EASY}, {', '.join(HARD)}, which suite {settings.suite!r} has "
            "not: leave --curves out"
        )
    before = study.directory.read("curve/settings.json")
    if before is not None and before != json.loads(json.dumps(wanted)):
        raise ValueError(
            f"{study.path / 'curve'} holds curves of other settings: move it away to measure others"
        )
    (study.path / "curve").mkdir(exist_ok=True)
    study.directory.write("curve/settings.json", wanted)
    with WriterLock(study.path / "lock"):
        fill_memory(study.path, settings, 0)
        todo = [arm for arm in settings.curve.arms if None in _rows(study.directory, settings, arm)]
        study.jobs(
            "curves", [(f"curve-{arm}", measure_curve, (study.path, settings, arm)) for arm in todo]
        )
    return measured(study)


def measured(study: Study) -> list[dict[str, Any]]:
    """Rows of :func:`curves` that are there already; none where the folder holds other curves."""
    settings, before = study.settings, study.directory.read("curve/settings.json")
    if before != json.loads(json.dumps(asdict(settings.curve))):
        return []
    found = [(arm, _rows(study.directory, settings, arm)) for arm in settings.curve.arms]
    return [{"arm": arm, **row} for arm, rows in found for row in rows if row is not None]


def _rows(
    directory: RunDirectory, settings: StudySettings, arm: str
) -> list[dict[str, Any] | None]:
    """What is measured of an arm's curve, None where it is not."""
    return [directory.read(f"curve/{arm}-{step}.json") for step in (0, *settings.curve.steps)]


def measure_curve(path: Path, settings: StudySettings, arm: str) -> None:
    """Trains one arm once, and measures every checkpoint that is not measured yet."""
    job, wanted = JobContext.at(path, settings), settings.curve
    folder = path / "curve" / arm
    if not (folder / "last" / "manifest.json").exists():

        def save(step: int, model: Any) -> None:
            if step in wanted.steps:
                model.save_pretrained(folder / f"step-{step}")

        long = replace(settings, lora=replace(settings.lora, steps=wanted.steps[-1], decay=False))
        train_arm(path, long, arm, "base", 0, out=folder / "last", checkpoint=save)
    directory = RunDirectory(path, folder_settings(settings))
    for step in (0, *wanted.steps):
        if directory.read(f"curve/{arm}-{step}.json") is None:
            adapter = folder / f"step-{step}" if step else None
            row = _measured(job, directory, f"{arm}-{step}", adapter)
            directory.write(f"curve/{arm}-{step}.json", {"step": step, **row})


def _measured(
    job: JobContext, directory: RunDirectory, name: str, adapter: Path | None
) -> dict[str, float]:
    """Rollouts and teacher-forced measures of one checkpoint, on valid rooms with matching
    memory."""
    suite, cell, wanted = job.suite, Cell("none"), job.settings.curve
    local = job.model("base")
    local.set_adapter(adapter, name if adapter else None)
    tasks = [
        t for types in job.tiers.types.values() for t in _spread(suite, wanted.per_tier, types)
    ]
    with Memory(memory_path(job.path, Cell("none")), "r") as memory:
        retriever = job.retriever(memory, cell, local.count_tokens, Purpose.EVALUATE)
        runner = Runner(suite, local, job.settings.run, retriever)
        episodes = measure(directory, f"curve/episodes/{name}", runner, tasks)
        easy = _said(job, retriever, _spread(suite, wanted.forced, job.tiers.types[EASY]))
        bound = _said(job, retriever, _spread(suite, wanted.forced, job.tiers.types["binding"]))
    at_appliance = [actions[i] for episode, actions in bound for i in treatments(episode)]
    row = {
        "reading": sum(a.matched for a in at_appliance) / len(at_appliance),
        "loss_reading": mean_loss(at_appliance),
        "loss_easy": mean_loss([a for _, actions in easy for a in actions]),
    }
    for tier in job.tiers.types:
        mine = [e.success for e in episodes if job.tiers.of(e.task.type) == tier]
        row[tier] = sum(mine) / len(mine)
    hard = [e.success for e in episodes if job.tiers.of(e.task.type) in HARD]
    row["hard"] = sum(hard) / len(hard)
    return {key: round(value, 4) for key, value in row.items()}


def _spread(suite: Suite, count: int, types: Sequence[str]) -> list[Task]:
    return suite.tasks(suite.validation_split, -(-count // len(types)) * len(types), types)


def _said(
    job: JobContext, retriever: MemoryRetriever, tasks: Sequence[Task]
) -> list[tuple[Episode, list[Action]]]:
    """The expert's episodes at tasks, and what the model would have said at each of their
    actions."""
    local, expert = job.model("base"), ExpertPolicy(job.suite)
    found = []
    for episode in play_all(Runner(job.suite, expert), tasks):
        context: RetrievedContext = retriever(episode.task)
        encoded = encode_example(local.encoder, example(job.spec, episode, context))
        found.append((episode, [a for one in encoded for a in forced(local.model, one)]))
    return found
