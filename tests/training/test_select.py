"""What is learnt from is what the memory held at a position, whatever happened to it since."""

from pathlib import Path

import pytest

from relive.memory import Actor, Episode, Memory, Outcome, Step, StopReason, Task
from relive.training.select import SelectSettings, select, why_nothing


def success(name: str, steps: int = 1, task: str = "") -> Episode:
    """A success of the agent's own."""
    task = task or name
    about = Task("toy", task, "fetch", "train", "farm", 1, "1", f"put the {task} in barn")
    outcome = Outcome(True, 1.0, StopReason.SOLVED)
    return Episode(
        name, about, (Step("A barn.", "look"),) * steps, "Done.", outcome, Actor("local")
    )


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    """Three tasks; one has a short and a long success."""
    made = Memory(tmp_path / "m")
    made.add_many(
        [success("cup"), success("key", 2), success("key-long", 3, "key"), success("lamp")]
    )
    return made


def ids(episodes: list[Episode]) -> list[str]:
    return [episode.id for episode in episodes]


def test_a_later_deletion_changes_nothing(memory: Memory) -> None:
    """The whole episodes are read as of the position, as they are listed."""
    position = memory.position
    before = select(memory, SelectSettings(), position)
    assert ids(before) == ["cup", "key", "lamp"]
    memory.delete("key", "wrong")
    memory.delete("lamp", "wrong")
    assert select(memory, SelectSettings(), position) == before
    assert ids(select(memory, SelectSettings())) == ["cup", "key-long"]
    assert ids(select(memory, SelectSettings(), memory.position)) == ["cup", "key-long"]


def test_a_reader_sees_the_same(memory: Memory) -> None:
    position = memory.position
    memory.delete("key", "wrong")
    with Memory(memory.path, "r") as reader:
        assert ids(select(reader, SelectSettings(), position)) == ["cup", "key", "lamp"]


def test_a_later_episode_changes_nothing(memory: Memory) -> None:
    """Not even a better one at the same task."""
    position = memory.position
    memory.add(success("key-short", 1, "key"))
    assert ids(select(memory, SelectSettings(), position)) == ["cup", "key", "lamp"]
    assert ids(select(memory, SelectSettings())) == ["cup", "key-short", "lamp"]


def test_what_compaction_took_away_is_neither_listed_nor_read(memory: Memory) -> None:
    position = memory.position
    memory.delete("lamp", "wrong")
    memory.compact()
    assert ids(select(memory, SelectSettings(), position)) == ["cup", "key"]


def test_several_of_a_task_are_the_shortest(memory: Memory) -> None:
    memory.add(success("key-short", 1, "key"))
    chosen = select(memory, SelectSettings(per_task=2))
    assert ids(chosen) == ["cup", "key-short", "key", "lamp"]


def test_episodes_of_other_suites_are_left_out(tmp_path: Path) -> None:
    with Memory(tmp_path / "m") as memory:
        for suite in ("toy", "elsewhere", ""):
            memory.add(
                goal="put the cup in barn", steps=[("a room", "look")], success=True,
                suite=suite, task_id=f"{suite} task", split="train", policy="local",
            )  # fmt: skip
        found = select(memory, SelectSettings(), suite="toy")
        assert {episode.task.suite for episode in found} == {"toy", ""}
        assert len(select(memory, SelectSettings())) == 3
    with Memory(tmp_path / "n") as memory:
        memory.add(
            goal="g", steps=[("a room", "look")], success=True, suite="elsewhere", policy="local"
        )
        told = why_nothing(memory, SelectSettings(), suite="toy")
        assert "none of suite 'toy'" in told
        assert "retrieval.across=true" in told


def test_what_people_rated_wrong_or_unsafe_is_not_learnt_from(memory: Memory) -> None:
    """As of the position; nothing said is no objection, and the next best of the task is taken."""
    position = memory.position
    memory.rate("key", "human", -0.1)
    memory.rate("cup", "human", 0.3)
    memory.rate("lamp", "unsafe", 1.0)
    assert ids(select(memory, SelectSettings())) == ["cup", "key-long"]
    assert ids(select(memory, SelectSettings(), position)) == ["cup", "key", "lamp"]
    assert ids(select(memory, SelectSettings(min_rating=0.3))) == ["cup"]
    assert ids(select(memory, SelectSettings(min_rating=-0.5))) == ["cup", "key"]
    assert ids(select(memory, SelectSettings(min_rating=None))) == ["cup", "key"]
    memory.unrate("lamp", "unsafe")
    memory.rate("key", "human", 0.0)
    assert ids(select(memory, SelectSettings())) == ["cup", "key", "lamp"]
    with pytest.raises(ValueError, match=r"min_rating is 2; ratings are from -1"):
        SelectSettings(min_rating=2)


def test_why_nothing_names_ratings(memory: Memory) -> None:
    for name in ("cup", "key", "key-long", "lamp"):
        memory.rate(name, "human", -1.0)
    assert select(memory, SelectSettings()) == []
    told = why_nothing(memory, SelectSettings())
    assert "4 successes of local, but people rated them unsafe or below 0.0" in told
    assert "--set select.min_rating=-1" in told
