"""Who may see what: everything unless something is held out; with the strict policy nothing that is
doubtful."""

from dataclasses import replace

import pytest

from relive import memory as package
from relive.memory import Hit, Memory, Purpose, Query, Task
from tests.memory.conftest import make_episode
from tests.memory.hostile.ask import Hide, ask

TASK = make_episode(
    0, "put a hot mug in cabinet", split="valid", room="kitchen", identity="task"
).task


def names(hits: list[Hit]) -> set[str]:
    """Ids without what all have."""
    return {hit.episode_id.removeprefix("episode-") for hit in hits}


@pytest.fixture
def filled(store: Memory) -> Memory:
    """Episodes of several splits, rooms and tasks."""
    store.add_many(
        [
            make_episode(0, TASK.goal, split="train", room="kitchen", identity="task"),
            make_episode(1, TASK.goal.upper(), split="train", room="kitchen"),
            make_episode(2, TASK.goal, split="train", room=""),
            make_episode(3, TASK.goal, split="train", room="bathroom"),
            make_episode(4, "something else", split="train", room="kitchen"),
            make_episode(5, "something else", split="valid"),
            make_episode(6, "something else", split="test"),
            make_episode(7, "something else", split="a split of my own"),
        ]
    )
    return store


def strictly(memory: Memory, task: Task, purpose: Purpose, **options: object) -> set[str]:
    """What the strict policy shows."""
    holdout = package.Holdout.strict(task, purpose, **options)  # type: ignore[attr-defined,unused-ignore]
    return names(list(memory.search(Query("anything", k=50), holdout=holdout)))  # type: ignore[call-arg,unused-ignore]


def test_by_default_everything_is_shown(filled: Memory) -> None:
    """Row 8 and more: whatever the split, the task, the room and the goal."""
    assert names(ask(filled, Query(TASK.goal, k=50))) == set("01234567")


def test_empty_rooms_are_not_one_room(filled: Memory) -> None:
    """Row 8: the same goal, and no room."""
    hide = Hide(splits=frozenset(["train"]), near=("", TASK.goal))
    assert names(ask(filled, Query(TASK.goal, k=50), hide=hide)) == set("01234")


@pytest.mark.parametrize(
    ("hide", "shown"),
    [
        (Hide(tasks=frozenset(["task", "game-5"])), "123467"),
        (Hide(splits=frozenset(["train", "valid"])), "012345"),
        (Hide(splits=frozenset()), ""),
        (Hide(hidden_splits=frozenset(["valid", "test"])), "012347"),
        (Hide(splits=frozenset(["train", "test"]), hidden_splits=frozenset(["test"])), "01234"),
        (Hide(near=("kitchen", "Put  a hot mug, in cabinet!")), "234567"),
    ],
    ids=["tasks", "splits", "no split", "hidden splits", "splits less hidden", "near"],
)
def test_each_part_hides_what_it_says(filled: Memory, hide: Hide, shown: str) -> None:
    """And no more."""
    assert names(ask(filled, Query("anything", k=50), hide=hide)) == set(shown)


def test_the_strict_policy_fails_closed(filled: Memory) -> None:
    """Of the task, of its near-duplicates and of what is not named as training nothing is shown."""
    assert strictly(filled, TASK, Purpose.ACT) == set("234")
    assert strictly(filled, TASK, Purpose.EVALUATE) == set("234")
    assert strictly(filled, TASK, Purpose.ACT, splits=("train", "valid")) == set("2345")
    assert strictly(filled, TASK, Purpose.EVALUATE, splits=("train", "valid")) == set("234")
    training = replace(TASK, split="train")
    assert strictly(filled, training, Purpose.TRAIN) == set("234")
    assert strictly(filled, training, Purpose.EVALUATE) == set()
    assert strictly(filled, replace(TASK, room=""), Purpose.ACT) == set("1234")


@pytest.mark.parametrize("field", ["identity", "split"])
@pytest.mark.parametrize("value", ["", "  ", "\t"], ids=repr)
def test_the_strict_policy_needs_to_know_the_task(filled: Memory, field: str, value: str) -> None:
    """A task that cannot be told apart gets an error, not results."""
    with pytest.raises(ValueError, match=field):
        strictly(filled, replace(TASK, **{field: value}), Purpose.EVALUATE)
