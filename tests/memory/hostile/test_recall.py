"""Approximate answers are as good as promised, whatever the vectors, and whatever was deleted."""

import random
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relive.memory import Embedder, HashedEmbedder, IndexSettings, Memory, Query
from tests.memory.conftest import make_episode
from tests.memory.faults import SMALL
from tests.memory.hostile.ask import ask
from tests.memory.hostile.embedders import DISTRIBUTIONS, MadeEmbedder, clustered_goal
from tests.memory.hostile.oracle import Answers, compare_all

FRESH, DELETED = 0.97, 0.99
"""Least recall of ten hits: of all answers of a memory from which nothing was deleted, and of the
approximate answers of one from which any share was."""
KINDS = 20
VERBS = (
    "put heat cool clean slice examine move fetch open close paint fold wash carry break mend pour "
    "dry stack weigh"
).split()
_FORMS = (
    "hot cold small large red green wooden metal empty full old new heavy light wet dirty".split()
)
_THINGS = "mug plate apple knife book lamp towel bottle pan potato key box".split()
_PLACES = "cabinet drawer fridge shelf sofa table sink safe bed desk".split()


@dataclass
class Scene:
    """A memory, and what has to be found in it."""

    folder: Path
    embedder: Embedder
    goals: dict[str, str] = field(default_factory=dict)
    """Of the episodes that are there, by id."""
    count: int = 0
    index: IndexSettings | None = None

    def open(self, mode: str) -> Memory:
        """Open the memory."""
        return Memory(self.folder, mode, embedder=self.embedder, index=self.index)

    def add(self, memory: Memory, goals: Sequence[str]) -> None:
        """Add an episode for each goal."""
        episodes = [
            make_episode(number, goal, steps=1) for number, goal in enumerate(goals, self.count)
        ]
        memory.add_many(episodes)
        self.count += len(episodes)
        self.goals |= {episode.id: episode.task.goal for episode in episodes}

    def keep(self, memory: Memory, beginnings: Sequence[str]) -> None:
        """Delete all but the episodes whose goals begin with one of these words."""
        for name, goal in list(self.goals.items()):
            if goal.split()[0] not in beginnings:
                memory.delete(name)
                del self.goals[name]

    def keep_latest(self, memory: Memory, count: int) -> None:
        """Delete all but the latest."""
        for name in memory.evict(capacity=count, by="age", keep_per_type=0):
            del self.goals[name]

    def judge(self, memories: Sequence[Memory], texts: Sequence[str], least: float) -> Answers:
        """Search in each memory; the answers together."""
        total = Answers()
        for memory in memories:
            assert len(memory) == len(self.goals)
            answers = compare_all(memory, self.goals, texts)
            assert not answers.wrong, answers.wrong[:3]
            recall = answers.recall if least == DELETED else answers.recall_of_all
            assert recall >= least, (
                f"recall {recall:.3f}: {answers.imperfect} of {answers.approximate} approximate "
                f"answers lack some of the right ten, {len(self.goals)} episodes alive"
            )
            total.take(answers)
        return total


def goals_by_kind(count: int, *, first: int = 0) -> list[str]:
    """Goals of :data:`KINDS` kinds, one kind after the other, as somebody has them who works
    through tasks."""
    return [clustered_goal(first + i, i * KINDS // count) for i in range(count)]


def sentences(count: int, seed: int) -> list[str]:
    """Goals in English, of twenty verbs one after the other."""
    draw = random.Random(seed)
    return [
        f"{VERBS[i * len(VERBS) // count]} a {draw.choice(_FORMS)} {draw.choice(_THINGS)} in the "
        f"{draw.choice(_PLACES)}"
        for i in range(count)
    ]


def questions(count: int, seed: int = 0) -> list[str]:
    """Half of them are like what is there, half like nothing that is."""
    draw = random.Random(seed)
    return [
        clustered_goal(10**6 + i, draw.randrange(KINDS)) if i % 2 else f"unheard{draw.random()}"
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """14,000 episodes in clusters of 16 dimensions, with the settings that everybody has. Tests
    only read it."""
    scene = Scene(tmp_path_factory.mktemp("large") / "experience", MadeEmbedder("clustered", 16))
    with scene.open("create") as memory:
        scene.add(memory, goals_by_kind(14_000))
        memory.publish_index()
    return scene


@pytest.fixture(scope="module")
def worn(large: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The same after 19 of 20 kinds were deleted, compacted, with 40 episodes that came after
    that."""
    scene = Scene(
        tmp_path_factory.mktemp("worn") / "experience",
        large.embedder,
        dict(large.goals),
        large.count,
    )
    shutil.copytree(large.folder, scene.folder)
    with scene.open("w") as memory:
        scene.keep_latest(memory, 14_000 // KINDS)
        memory.compact()
        scene.add(memory, goals_by_kind(40, first=10**5))
    return scene


def judge_worn(scene: Scene, memory: Memory, texts: Sequence[str], tail: Sequence[str]) -> Answers:
    """Before compaction, after it, and with episodes that no graph has: in the writer, reopened,
    and in readers."""
    with ExitStack() as stack:
        beside = stack.enter_context(scene.open("r"))
        total = scene.judge([memory, beside], texts, DELETED)
        memory.compact()
        beside.refresh()
        total.take(scene.judge([memory, beside], texts, DELETED))
        scene.add(memory, tail)
        beside.refresh()
        total.take(
            scene.judge([memory, beside, stack.enter_context(scene.open("r"))], texts, DELETED)
        )
        memory.close()
        total.take(scene.judge([stack.enter_context(scene.open("w"))], texts, DELETED))
    return total


@pytest.mark.parametrize("mode", ["r", "w"])
def test_of_a_memory_that_lost_most_of_its_content_the_living_are_found(
    worn: Scene, mode: str
) -> None:
    """Row 1: 14,000 episodes, 95 % deleted, compacted, some rows added, reopened."""
    with worn.open(mode) as memory:
        worn.judge([memory], questions(80), DELETED)


def test_of_deleted_verbs_what_is_closest_among_the_living_is_found(tmp_path: Path) -> None:
    """Row 1b with the default embedder, in small: 19 of 20 verbs deleted, compacted, a tail, the
    deleted verbs asked."""
    scene = Scene(tmp_path / "experience", HashedEmbedder(), index=SMALL)
    with scene.open("create") as memory:
        scene.add(memory, sentences(2400, seed=0))
        memory.publish_index()
        scene.keep_latest(memory, 2400 // len(VERBS))
        judge_worn(scene, memory, sentences(40, seed=1)[:-2], sentences(60, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("tail", [0, 30, 60, 100])
def test_of_deleted_verbs_at_full_size(tmp_path: Path, tail: int) -> None:
    """Row 1b with its own numbers: 12,000 goals published, about 700 alive."""
    scene = Scene(tmp_path / "experience", HashedEmbedder())
    with scene.open("create") as memory:
        scene.add(memory, sentences(12_000, seed=0))
        memory.publish_index()
        scene.keep_latest(memory, 12_000 // len(VERBS))
        judge_worn(scene, memory, sentences(100, seed=1), sentences(tail, seed=2))


def test_a_fresh_memory_is_searched_well(large: Scene) -> None:
    """Row 2: nothing deleted."""
    with large.open("r") as memory:
        large.judge([memory], questions(80), FRESH)


def judge_prefixes(memory: Memory, texts: Sequence[str], weights: dict[str, Any]) -> None:
    """The lists of 1 to 50 hits of a query begin alike."""
    for text in texts:
        lists = [
            [hit.episode_id for hit in ask(memory, Query(text, k=k, **weights))]
            for k in range(1, 51)
        ]
        broken = [k for k, names in enumerate(lists, 1) if names != lists[-1][:k]]
        assert not broken, f"lists of {broken} hits are no prefixes of that of 50"
        assert len(lists[-1]) == 50


@pytest.mark.parametrize(
    "weights", [{}, {"diversity": 0.5}, {"length_penalty": 0.01}, {"usefulness": 0.2}], ids=str
)
def test_lists_are_prefixes_of_longer_ones(large: Scene, weights: dict[str, Any]) -> None:
    """Row 3: k from 1 to 50, of a memory that uses graphs."""
    with large.open("r") as memory:
        judge_prefixes(memory, questions(4), weights)


@pytest.mark.parametrize("weights", [{}, {"diversity": 0.5}, {"length_penalty": 0.01}], ids=str)
@pytest.mark.parametrize("graphs", [False, True], ids=["exact", "graphs"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_lists_are_prefixes_in_small_memories(
    tmp_path: Path, distribution: str, graphs: bool, weights: dict[str, Any]
) -> None:
    """Row 3 with ties, and with what is ranked by more than similarity."""
    scene = Scene(
        tmp_path / "experience", MadeEmbedder(distribution, 8), index=SMALL if graphs else None
    )
    with scene.open("create") as memory:
        scene.add(memory, goals_by_kind(600 if graphs else 120))
        judge_prefixes(memory, questions(3), weights)


@pytest.mark.parametrize(
    ("dimension", "distribution"),
    [(8, "clustered"), (16, "identical"), (64, "uniform"), (384, "identical")],
)
def test_recall_holds_for_vectors_of_any_kind(
    tmp_path: Path, dimension: int, distribution: str
) -> None:
    """Row 2 in small: a sample of the matrix below."""
    scene = Scene(tmp_path / "experience", MadeEmbedder(distribution, dimension), index=SMALL)
    with scene.open("create") as memory:
        # Of vectors that are the same many times, so many that they fill what a search looks at.
        scene.add(memory, goals_by_kind(2400 if distribution == "identical" else 1200))
        memory.publish_index()
        scene.judge([memory], questions(40), FRESH)
        scene.keep(memory, [f"kind{kind}" for kind in range(0, KINDS, 2)])
        judge_worn(scene, memory, questions(20), goals_by_kind(40, first=10**5))


@pytest.mark.slow
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("dimension", [8, 16, 64, 384, 1024])
def test_recall_holds_for_every_dimension_and_distribution(
    tmp_path: Path, dimension: int, distribution: str
) -> None:
    """Rows 1 and 2 with default settings: fresh, with half deleted, with nineteen of twenty
    deleted."""
    scene = Scene(tmp_path / "experience", MadeEmbedder(distribution, dimension))
    texts = questions(80)
    with scene.open("create") as memory:
        scene.add(memory, goals_by_kind(14_000))
        memory.publish_index()
        scene.judge([memory], texts, FRESH)
        scene.keep(memory, [f"kind{kind}" for kind in range(0, KINDS, 2)])
        scene.judge([memory], texts, DELETED)
        scene.keep(memory, ["kind2"])
        judge_worn(scene, memory, texts, goals_by_kind(60, first=10**5))


def test_graphs_are_used_by_these_tests(tmp_path: Path) -> None:
    """What is tested above is not only exact search."""
    scene = Scene(tmp_path / "experience", MadeEmbedder("uniform", 16), index=SMALL)
    with scene.open("create") as memory:
        scene.add(memory, goals_by_kind(600))
        memory.publish_index()
        answers = scene.judge([memory], questions(20), FRESH)
        assert answers.approximate
