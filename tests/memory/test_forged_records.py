"""Records with right checksums and impossible contents: damage that is named, and takes nothing
else with it."""

import itertools
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from relive.memory import Memory
from relive.memory.maintenance import compact as compact_module
from relive.memory.storage import annotations, codec
from relive.memory.storage.durable import Corruption
from relive.memory.storage.segments import MOST_GENERATIONS, Kind, frame_of, segment_path
from tests.memory.conftest import Make, found, make_episode

FORGED = make_episode(100)
LARGE = (2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63))


def forge(head: Mapping[str, Any] | None = None, steps: object = None) -> bytes:
    """The payload of an episode with something else in its head, or other steps."""
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(codec.encode_episode(FORGED))
    old_head, old_steps = unpacker
    return b"".join(
        map(msgpack.packb, ({**old_head, **(head or {})}, old_steps if steps is None else steps))
    )


def append(folder: Path, *records: tuple[int, int, bytes]) -> None:
    """Records of kind, sequence number and payload behind those that are there."""
    with segment_path(folder / "log", 0).open("ab") as file:
        for kind, sequence, payload in records:
            file.write(frame_of(kind, sequence, payload, zlib.crc32(payload)))


def build(folder: Path, *records: tuple[int, int, bytes], behind: bool = True) -> None:
    """Three episodes, the records, and a fourth episode behind them."""
    with Memory(folder) as memory:
        memory.add_many([make_episode(number) for number in range(3)])
    fourth = (int(Kind.EPISODE), 4, codec.encode_episode(make_episode(3)))
    append(folder, *records, *([fourth] if behind else []))


def look(memory: Memory, count: int = 4) -> tuple[Corruption, ...]:
    """Make sure that exactly the right episodes are there; what is damaged."""
    ids = [f"episode-{number}" for number in range(count)]
    hits = found(memory, make_episode(1).task.goal)
    assert hits[0] == "episode-1"
    assert sorted(hits) == ids
    assert [entry.episode_id for entry in memory.entries()] == ids
    assert list(memory.iterate()) == [make_episode(number) for number in range(count)]
    assert len(memory) == count
    return memory.verify()


@pytest.mark.parametrize(
    "head",
    [
        *({"steps": number} for number in LARGE),
        *({"steps": wrong} for wrong in (2, 4, 1.0, None)),
        *(
            {name: None}
            for name in "id final task outcome actor shown timings ratings started".split()
        ),
        {"outcome": {"success": True, "score": 1.0, "reason": "bored"}},
        {"actor": {"policy": "p", "settings": {"a": None}}},
        {"v": 2**63},
    ],
    ids=lambda head: "-".join(f"{name} {value}" for name, value in head.items())[:40],
)
@pytest.mark.parametrize("mode", ["r", "w"])
def test_heads(folder: Path, head: Mapping[str, Any], mode: str) -> None:
    """2^40 steps, and whatever else cannot be: by readers and writers, at once and when opened
    again."""
    build(folder, (Kind.EPISODE, 3, forge(head)))
    for _ in range(2):
        with Memory(folder, mode) as memory:
            (damage,) = look(memory)
            assert damage.file == "log/0000000000000000.log"
            assert "record 3" in damage.detail


@pytest.mark.parametrize("name", ["actions", "memory_position", "started"])
@pytest.mark.parametrize("number", LARGE)
def test_numbers_that_may_be(folder: Path, name: str, number: int) -> None:
    """Whatever these say, it is no reason to fail."""
    build(folder, (Kind.EPISODE, 3, forge({name: number})))
    with Memory(folder, "w") as memory:
        assert memory.get(FORGED.id).steps == FORGED.steps
        memory.delete(FORGED.id)
        memory.compact()
        assert look(memory) == ()


@pytest.mark.parametrize(
    "steps",
    [
        {},
        5,
        ["a"] * 3,
        [{"observation": "a"}] * 3,
        [{"observation": "a", "action": b"b"}] * 3,
        [{"observation": "a", "action": "b", "tokens": [1.5]}] * 3,
        [{"observation": "a", "action": "b"}] * 2,
        [{"observation": "a", "action": "b", "retrieved": [["c"]]}] * 3,
    ],
    ids=str,
)
def test_steps(folder: Path, steps: object) -> None:
    """A head that is right, and steps that are none: nobody is shown such an episode."""
    build(folder, (Kind.EPISODE, 3, forge(steps=steps)))
    for mode in ("r", "w"):
        with Memory(folder, mode) as memory:
            (damage,) = look(memory)
            assert "record 3" in damage.detail


SEQUENCES = (2**53, 2**55, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)


@pytest.mark.parametrize(("number", "behind"), list(itertools.product(SEQUENCES, [True, False])))
def test_sequence_numbers(folder: Path, number: int, behind: bool) -> None:
    """A number that cannot be is not believed, whether anything follows or not, and adding goes
    on."""
    between = (
        int(Kind.NOTE),
        3,
        annotations.encode_note(annotations.Note("episode-1", "remark", 1.0)),
    )
    forged = (int(Kind.EPISODE), number, forge())
    build(folder, *((forged, between) if behind else (between, forged)), behind=behind)
    count = 4 if behind else 3
    for mode in ("r", "w", "w"):
        with Memory(folder, mode) as memory:
            (damage,) = look(memory, count)
            assert damage.detail.startswith(f"a record numbered {number}, which")
            assert memory.notes("episode-1") == ("remark",)
            assert memory.position == count + 1
    with Memory(folder, "w") as memory:
        assert memory.add(make_episode(50)) == count + 2


def test_a_record_that_cannot_be_read_keeps_its_bytes(folder: Path) -> None:
    """Compaction leaves it as it is, and goes on naming it."""
    payload = forge({"actor": {"policy": "p", "settings": {"a": None}}})
    build(folder, (Kind.EPISODE, 3, payload))
    with Memory(folder, "w") as memory:
        memory.delete("episode-3")
        assert memory.compact().episodes == 1
        assert all("record 3" in damage.detail for damage in look(memory, 3))
    with Memory(folder, "w") as memory:
        assert ["record 3" in damage.detail for damage in look(memory, 3)] == [True]
    (path,) = (folder / "log").glob("0000000000000000*.log")
    assert frame_of(Kind.EPISODE, 3, payload, zlib.crc32(payload)) in path.read_bytes()


def test_what_earlier_versions_took_for_an_episode(
    folder: Path, episode: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They acknowledged steps that nobody can read: named, deleted when asked, and no hindrance to
    compaction."""
    bad = forge(steps=[{"observation": b"x", "action": "b"}] * 3)
    ready = codec.Prepared(FORGED, codec.head_of(FORGED), bad)
    with Memory(folder) as memory:
        memory.add_many([episode(number) for number in range(3)])
        with monkeypatch.context() as patch:
            patch.setattr(codec, "prepare", lambda one: ready)
            memory.add(FORGED)
        memory.add(episode(3))
        with pytest.raises(ValueError, match="'observation' should be text"):
            memory.get(FORGED.id)
        assert ["record 3" in damage.detail for damage in look(memory)] == [True]
        memory.delete("episode-0")
        memory.compact()
        assert bad in b"".join(path.read_bytes() for path in (folder / "log").glob("*.log"))
    with Memory(folder, "w") as memory:
        assert len(memory) == 3


def test_a_deleted_episode_that_cannot_be_read(folder: Path) -> None:
    """Its bytes go, as was asked."""
    payload = forge(steps=[])
    with Memory(folder) as memory:
        memory.add_many([make_episode(number) for number in range(4)])
        ready = codec.Prepared(FORGED, codec.head_of(FORGED), payload)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "prepare", lambda one: ready)
            memory.add(FORGED)
        memory.delete(FORGED.id)
        assert memory.compact().episodes == 1
        assert look(memory) == ()


def test_a_segment_that_was_compacted_too_often(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next name could not be read, so nothing is begun."""
    build(folder)
    segment_path(folder / "log", 0).rename(segment_path(folder / "log", 0, MOST_GENERATIONS))
    with Memory(folder, "w") as memory:
        memory.delete("episode-3")
        with pytest.raises(ValueError, match="export the memory and import it into a new one"):
            memory.compact()
        assert len(memory) == 3
    assert compact_module.MOST_GENERATIONS == 2**16 - 1


@pytest.mark.parametrize(
    "dimension", ["1e999", '"x"', "[" * 100_000 + "]" * 100_000], ids=["inf", "text", "lists"]
)
def test_descriptions(folder: Path, dimension: str) -> None:
    """What memory.json says of numbers is not believed either."""
    with Memory(folder) as memory:
        memory.add_many([make_episode(number) for number in range(4)])
    start = f'"format": 1, "id": "{"00" * 16}", "embedder": "hashed-1-384"'
    text = f'{{{start}, "dimension": {dimension}}}'
    (folder / "memory.json").write_text(text)
    with Memory(folder, "w") as memory:
        (damage,) = look(memory)
        assert damage.file == "memory.json"
