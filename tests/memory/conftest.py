"""Made-up episodes, and a memory in a temporary folder."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relive.memory import (
    Actor,
    Episode,
    Holdout,
    Memory,
    Outcome,
    Purpose,
    Query,
    Retrieved,
    Step,
    StopReason,
    Task,
)  # fmt: skip
from relive.memory.search import accuracy

Make = Callable[..., Episode]


def strict(identity: str, split: str, room: str, goal: str, purpose: Purpose) -> Holdout:
    """What is held out from whoever plays a task."""
    return Holdout.strict(Task("household", identity, "", split, room, 0, "1", goal), purpose)


HOLDOUT = strict("my game", "test", "my room", "my goal", Purpose.EVALUATE)
"""Of somebody who may see all that the tests remember."""


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
        task=Task(
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
        outcome=Outcome(
            success, float(success), StopReason.SOLVED if success else StopReason.STEP_LIMIT
        ),
        actor=Actor("expert", settings={"temperature": 0.0}),
    )


def goal(number: int) -> str:
    """The goal of an episode, unlike all others."""
    return f"make{number} the thing{number}"


def shown(run: Episode, *ids: str) -> Episode:
    """The run, with these in the context of its first step."""
    hits = tuple(Retrieved(name, 0.5) for name in ids)
    return replace(run, steps=(replace(run.steps[0], retrieved=hits), *run.steps[1:]))


def found(memory: Memory, text: str, at: int | None = None, **options: Any) -> list[str]:
    """Ids of what is found."""
    return [
        hit.episode_id for hit in memory.search(Query(text, **{"k": 99, **options}), HOLDOUT, at)
    ]


def indexes(*marks: Any) -> list[Any]:
    """All kinds of index: each has to find what comparing everything finds. `marks` are for those
    that take longer than the graph."""
    there = importlib.util.find_spec("lancedb") is not None
    missing = pytest.mark.skipif(not there, reason="lancedb is not installed")
    return ["hnsw", pytest.param("lancedb", marks=[missing, *marks])]


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index is measured with fewer searches, where each takes milliseconds."""
    monkeypatch.setattr(accuracy, "SAMPLE", 8)
    monkeypatch.setattr(accuracy, "FAR", 4)


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut in these tests, so nothing has to reach the disk, which is slow."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def episode() -> Callable[..., Episode]:
    """Makes episodes: see :func:`make_episode`."""
    return make_episode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a memory can be made."""
    return tmp_path / "experience"


@pytest.fixture
def store(folder: Path) -> Iterator[Memory]:
    """An empty memory, open for writing."""
    with Memory(folder) as memory:
        yield memory
