"""Filling a memory with the expert's episodes, labelled by their actor."""

from ..envs import Suite
from ..memory import ExperienceMemory
from .collect import collect
from .policy import ExpertPolicy
from .rundir import Announce, silent
from .runner import Runner, RunSettings


def demonstrate(
    memory: ExperienceMemory,
    suite: Suite,
    count: int,
    settings: RunSettings | None = None,
    announce: Announce = silent,
    start: int = 0,
) -> None:
    """Adds the expert's episodes at `count` train tasks, spread over all types; what is there is
    not played again.

    Args:
        memory: open for writing.
        suite: whose expert and tasks.
        count: demonstrations that the memory is to hold.
        settings: how they are played; the step limit is always the suite's, within which the expert
            solves what is listed.
        announce: told about progress.
        start: train tasks per type to skip, so that several memories share none.
    """
    plain = settings or RunSettings()
    run = RunSettings(
        batch=plain.batch, workers=plain.workers, timeout=plain.timeout, seed=plain.seed
    )
    expert = ExpertPolicy(suite)
    runner = Runner(suite, expert, run)
    announce("phase", "expert demonstrations")
    for _ in collect(memory, runner, suite.tasks("train", count, start=start), announce=announce):
        pass
