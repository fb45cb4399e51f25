"""Made-up episodes, and a memory in a temporary folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memory import Actor, Episode, ExperienceMemory, Outcome, Step, StopReason, TaskRecord


def make_episode(
    number: int,
    goal: str = "",
    *,
    split: str = "train",
    room: str = "",
    identity: str = "",
    success: bool = True,
    task_type: str = "heat",
    steps: int = 3,
) -> Episode:
    """An episode that differs from all others, unless told otherwise."""
    return Episode(
        id=f"episode-{number}",
        task=TaskRecord(
            suite="household",
            identity=identity or f"game-{number}",
            type=task_type,
            split=split,
            room=room or f"room-{number}",
            seed=number,
            version="1",
            goal=goal or f"put a hot thing{number} in cabinet",
        ),
        steps=tuple(Step(f"You see shelf {step}.", f"go to shelf {step}") for step in range(steps)),
        final_observation="Done.",
        outcome=Outcome(success, float(success), StopReason.SOLVED if success else StopReason.STEP_LIMIT),
        actor=Actor("expert", settings={"temperature": 0.0}),
    )


@pytest.fixture
def episode() -> Callable[..., Episode]:
    """Makes episodes: see :func:`make_episode`."""
    return make_episode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a memory can be made."""
    return tmp_path / "experience"


@pytest.fixture
def store(folder: Path) -> Iterator[ExperienceMemory]:
    """An empty memory, open for writing."""
    with ExperienceMemory.open(folder, "create") as memory:
        yield memory
