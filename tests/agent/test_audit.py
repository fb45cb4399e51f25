"""The leakage audit: it looks at what was shown, so it finds what a broken policy would let
through."""

from dataclasses import replace
from pathlib import Path

import pytest

from relive.agent.evaluation.audit import Audit, audit_all, audit_of, is_leak, summed
from relive.agent.evaluation.records import record
from relive.agent.prompt import prompt_spec
from relive.agent.retriever import MemoryRetriever
from relive.memory import Episode, Memory, Purpose, Retrieval, Task
from tests.memory.conftest import make_episode, shown

SPEC = prompt_spec("Do it.", ())
TASK = Task("household", "my game", "heat", "valid", "my room", 0, "1", "put a hot mug in cabinet")


def words(text: str) -> int:
    """Tokens of these tests."""
    return len(text.split())


@pytest.mark.parametrize(
    ("changes", "leaks"),
    [
        ({}, False),
        ({"identity": "my game"}, True),
        ({"identity": "MY\u200b game "}, True),
        ({"split": "valid"}, True),
        ({"room": "My Room", "goal": "Put a hot  mug in cabinet!"}, True),
        ({"room": "my room", "goal": "put a cold mug in cabinet"}, False),
        ({"room": "another", "goal": TASK.goal}, False),
    ],
)
def test_what_is_a_leak(changes: dict[str, str], leaks: bool) -> None:
    """The task itself, its split, and the same goal in the same room; spelled as one likes."""
    other = Task(
        "household", "another game", "heat", "train", "their room", 1, "1", "find two mugs"
    )
    assert is_leak(TASK, replace(other, **changes)) == leaks


def test_without_rooms_there_are_no_near_duplicates() -> None:
    """Every task with a goal of the same words would be one."""
    other = replace(TASK, identity="another", split="train", room="")
    assert not is_leak(replace(TASK, room=" "), other)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    """Three episodes of the train split, one of them a near-duplicate, and one of the split under
    evaluation."""
    memory = Memory(tmp_path / "m")
    for number, room in enumerate(("my room", "a", "b")):
        memory.add(make_episode(number, TASK.goal, room=room))
    memory.add(make_episode(3, TASK.goal, split="valid", room="c"))
    return memory


def played(memory: Memory, *ids: str) -> Episode:
    """An evaluation episode that was shown some of the memory."""
    run = replace(make_episode(9), task=TASK, memory_position=memory.position)
    return shown(run, *ids)


def test_the_policy_lets_nothing_through_and_its_work_is_counted(memory: Memory) -> None:
    """Two of the four are held back: the near-duplicate, and what is of the split under
    evaluation."""
    retriever = MemoryRetriever(memory, SPEC, words, Retrieval(k=4), Purpose.EVALUATE)
    context = retriever(TASK)
    ids = [hit.episode for hit in context.retrieved]
    assert sorted(ids) == ["episode-1", "episode-2"]
    audit = audit_of(played(memory, *ids), memory, retriever)
    assert (audit.shown, audit.leaks) == (2, ())
    assert audit.held_back == 2
    assert "none leaked" in str(audit)


def test_what_leaks_is_found(memory: Memory) -> None:
    """Also if it was deleted since."""
    retriever = MemoryRetriever(memory, SPEC, words, Retrieval(), Purpose.EVALUATE)
    run = played(memory, "episode-0", "episode-1", "episode-3")
    memory.delete("episode-3")
    audit = audit_all([run, run], memory, retriever)
    assert (audit.shown, audit.leaks) == (6, ("game-0", "game-3") * 2)
    assert "4 LEAKED" in str(audit)


def test_records_carry_it(memory: Memory) -> None:
    """And are added up; those from before there were audits say so."""
    retriever = MemoryRetriever(memory, SPEC, words, Retrieval(), Purpose.EVALUATE)
    records = [
        record(played(memory, "episode-1", "episode-3"), {}, memory, retriever, words)
        for _ in range(2)
    ]
    total = summed(records)
    assert total is not None
    assert (total["shown"], total["leaks"]) == (4, ["game-3", "game-3"])
    assert summed([*records, {"task": "old"}]) is None
    assert record(played(memory), {})["audit"] == {"shown": 0, "held_back": 0, "leaks": []}
    assert Audit(1, 2) + Audit(3, 4, ("x",)) == Audit(4, 6, ("x",))
