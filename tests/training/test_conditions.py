"""The three conditions of a memory at test time."""

from collections.abc import Iterator

import pytest

from relive.agent.collect import collect_demonstrations
from relive.agent.policy import words
from relive.agent.prompt import Demonstration
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import spec_of
from relive.envs import get_suite
from relive.memory import Memory, Purpose, Retrieval
from relive.training.experiments.conditions import MEMORIES, cut, under

SUITE = get_suite("household")


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryRetriever]:
    """Retrieval from two expert episodes of every type."""
    with Memory(tmp_path_factory.mktemp("m") / "memory") as memory:
        collect_demonstrations(memory, SUITE, 24)
        yield MemoryRetriever(memory, spec_of(SUITE), words, Retrieval(k=2), Purpose.EVALUATE)


def test_other_memory_has_no_episode_of_the_type_under_test_and_is_not_longer(
    retriever: MemoryRetriever,
) -> None:
    other = under("other", retriever)
    assert other is not None
    for task in SUITE.tasks("valid", 12):
        record = task
        shown, matching = other(record), retriever(record)
        assert {retriever.memory.meta(r.episode).task.type for r in matching.retrieved} == {
            task.type
        }
        assert shown.retrieved
        assert task.type not in {
            retriever.memory.meta(r.episode).task.type for r in shown.retrieved
        }
        assert len(shown.retrieved) == len(shown.demonstrations)
        assert sum(words(d.text) for d in shown.demonstrations) <= sum(
            words(d.text) for d in matching.demonstrations
        )


def test_other_memory_is_the_closest_one_in_whatever_order(retriever: MemoryRetriever) -> None:
    def shown(order: str) -> list[tuple[str, float]]:
        settings = Retrieval(k=2, order=order)
        matching = MemoryRetriever(
            retriever.memory, retriever.spec, words, settings, Purpose.EVALUATE
        )
        other = under("other", matching)
        assert other is not None
        return [(r.episode, r.score) for r in other(SUITE.tasks("valid", 12)[5]).retrieved]

    assert shown("closest-first") == list(reversed(shown("closest-last")))
    assert len(shown("closest-last")) > 1


def test_what_is_too_unlike_is_not_shown(retriever: MemoryRetriever) -> None:
    """With the type in the memory the same as ever; without it nothing, where otherwise something
    else is shown."""
    for task in SUITE.tasks("valid", 24):
        record = task
        settings = Retrieval(k=2, min_score=0.5)
        strict = MemoryRetriever(
            retriever.memory, retriever.spec, words, settings, Purpose.EVALUATE
        )
        assert strict(record) == retriever(record)
        strict.where = lambda entry, kind=task.type: entry.task.type != kind
        assert strict(record).retrieved == ()
        strict.settings = Retrieval(k=2)
        assert len(strict(record).retrieved) == 2


def test_empty_memory_is_no_memory_and_unknown_ones_are_refused(retriever: MemoryRetriever) -> None:
    assert [under(name, retriever) is None for name in MEMORIES] == [False, False, True]
    with pytest.raises(ValueError, match="matching, other, empty"):
        under("wrong", retriever)


def test_the_last_demonstration_loses_its_last_steps(retriever: MemoryRetriever) -> None:
    demos = [Demonstration(f"goal {i}", True, (("a", "b"),) * 5, str(i)) for i in range(3)]
    length = words(demos[0].text)
    assert cut(demos, 3 * length, retriever) == tuple(demos)
    shorter = cut(demos, 2 * length - 1, retriever)
    assert [len(d.steps) for d in shorter] == [5, 4]
    assert cut(demos, 3, retriever) == ()
