"""Rows 7d and 7d2: records with right checksums and impossible contents, which somebody else may
have written."""

import itertools
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from relive.memory import Episode, Memory, Query
from relive.memory.storage import codec
from relive.memory.storage.segments import (
    Kind,
    frame_of,
    memory_id,
    plain_header,
    segment_path,
    segments,
)
from tests.memory.conftest import make_episode
from tests.memory.faults import EMBEDDER, delete_caches, open_memory
from tests.memory.hostile.ask import ask
from tests.memory.hostile.contents import GOOD, LEAST, MOST, same
from tests.memory.hostile.oracle import compare_all

HONEST = tuple(make_episode(number) for number in range(8))
TEXTS = ("put a hot thing3 in cabinet", "anything")


def packed(*parts: object) -> bytes:
    """msgpack, one object after the other."""
    return b"".join(
        msgpack.packb(part, use_bin_type=True, unicode_errors="surrogatepass") for part in parts
    )


def parts_of(episode: Episode) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Head and steps of an episode, as they are written."""
    unpacker = msgpack.Unpacker(raw=False, unicode_errors="surrogatepass")
    unpacker.feed(codec.encode_episode(episode))
    head, steps = unpacker
    return head, steps


def build(folder: Path, episodes: tuple[Episode, ...] = HONEST) -> None:
    """A memory of honest episodes."""
    with open_memory(folder, "create") as memory:
        memory.add_many(episodes)


def append(folder: Path, *records: tuple[int, int, bytes]) -> None:
    """Write records of kind, sequence number and payload behind the last one, with right
    checksums."""
    first, generation = max(segments(folder / "log").items())
    with segment_path(folder / "log", first, generation).open("ab") as file:
        for kind, sequence, payload in records:
            file.write(frame_of(kind, sequence, payload, zlib.crc32(payload)))


def judge(
    folder: Path, expected: tuple[Episode, ...], *, damaged: bool | None, strangers: int = 0
) -> None:
    """Readers and writers find the honest episodes, whatever was forged beside them.

    Args:
        folder: of the memory.
        expected: the honest episodes.
        damaged: whether damage has to be named; None: it may be.
        strangers: forged episodes that may be there as well, since they are not impossible.
    """

    def look(memory: Memory, expected: tuple[Episode, ...]) -> None:
        goals = {episode.id: episode.task.goal for episode in expected}
        if strangers:
            found = {hit.episode_id for text in TEXTS for hit in ask(memory, Query(text, k=50))}
            assert set(goals) <= found
        else:
            assert not (wrong := compare_all(memory, goals, TEXTS).wrong), wrong
        there = {episode.id: episode for episode in memory.iterate()}
        for episode in expected:
            assert same(there[episode.id], episode)
        assert len(expected) <= len(there) <= len(expected) + strangers
        assert len(memory) == len(there) == len(memory.entries())
        said = {*memory.stats().damage, *memory.verify()}
        assert damaged is None or bool(said) == damaged, said

    with open_memory(folder) as memory:
        look(memory, expected)
    new = make_episode(1000)
    with open_memory(folder, "w") as memory:
        look(memory, expected)
        memory.add(new)
        memory.rate(new.id, "worth", 1.0)
        memory.evict(capacity=100)
        assert memory.usefulness(new.id).shown == 0
        memory.delete(new.id)
        last = make_episode(1001)
        memory.add(last)
        look(memory, (*expected, last))
    delete_caches(folder)
    with open_memory(folder, "w") as memory:
        look(memory, (*expected, last))
        memory.publish_index()
        memory.compact()
    damaged = None  # a compaction may leave out what is damaged
    with open_memory(folder) as memory:
        look(memory, (*expected, last))


_HEADS: dict[str, Mapping[str, Any]] = {
    f"{name} {value}": {name: value}
    for name, values in {
        "steps": (2**40, 2**32, 2**31, 2**63, MOST, -1, LEAST, 0, 3, 1.0, None, "1", [1]),
        "actions": (MOST, 2**63, -2, LEAST, 1.5, "1", None),
        "v": (MOST, LEAST, -1, 0, 1.0, "1", None),
        "memory_position": (MOST, LEAST, 1.5, None, "1"),
        "started": (MOST, LEAST, None, "now"),
        "id": (5, b"x", None, ["x"]),
        "shown": (None, 5, [5], [None], {"a": 1}, "ab"),
        "final": (None, 5, b"x"),
        "timings": (None, [], {"a": None}, {"a": "b"}, {"a": [1]}, {1: 1.0}),
        "ratings": (None, [], {"a": None}, {b"a": 1.0}),
        "task": (None, [], {}, "task"),
        "outcome": (None, {}, {"success": 1, "score": 1.0, "reason": "solved"}),
        "actor": (None, {}, {"policy": "p", "settings": {"a": None}}),
    }.items()
    for value in values
}
_LEGAL = {
    *(
        f"actions {value}" for value in (MOST, 2**63, -2, LEAST)
    ),  # a hash that is wrong, or that has to be made
    *(f"memory_position {value}" for value in (MOST, LEAST)),
    *(f"started {value}" for value in (MOST, LEAST)),
}
"""What is strange, but no damage: it may be there or not."""


@pytest.mark.parametrize("what", _HEADS)
def test_heads_of_episodes(folder: Path, what: str) -> None:
    """Row 7d: 2^40 steps, and everything else that a head may claim."""
    build(folder)
    head, steps = parts_of(GOOD)
    append(folder, (Kind.EPISODE, len(HONEST), packed({**head, **_HEADS[what]}, steps)))
    legal = what in _LEGAL
    judge(folder, HONEST, damaged=None if legal else True, strangers=int(legal))


_STEPS: dict[str, Any] = {
    "no list": None,
    "a map": {},
    "a number": 5,
    "texts": ["a", "b"],
    "too few": [{"observation": "a", "action": "b"}],
    "without action": [{"observation": "a"}] * 2,
    "tokens of text": [{"observation": "a", "action": "b", "tokens": ["1"]}] * 2,
    "tokens that are no whole numbers": [{"observation": "a", "action": "b", "tokens": [1.5]}] * 2,
    "retrieved without score": [{"observation": "a", "action": "b", "retrieved": [["c"]]}] * 2,
    "reward of text": [{"observation": "a", "action": "b", "reward": "1"}] * 2,
}


@pytest.mark.parametrize("what", _STEPS)
def test_steps_of_episodes(folder: Path, what: str) -> None:
    """A head that is right, and steps that are not: damage, and no more."""
    build(folder)
    append(folder, (Kind.EPISODE, len(HONEST), packed(parts_of(GOOD)[0], _STEPS[what])))
    judge(folder, HONEST, damaged=True, strangers=0)


_PAYLOADS: dict[str, tuple[int, bytes]] = {
    "an episode of no bytes": (Kind.EPISODE, b""),
    "an episode of noise": (Kind.EPISODE, bytes(range(256))),
    "a list that claims 2^32 items": (Kind.EPISODE, b"\xdd\xff\xff\xff\xff"),
    "a map that claims 2^32 items": (Kind.EPISODE, b"\xdf\xff\xff\xff\xff"),
    "a text that claims 2^32 bytes": (Kind.EPISODE, b"\xdb\xff\xff\xff\xff"),
    "a thousand lists in each other": (Kind.EPISODE, b"\x91" * 100_000),
    "an extension": (Kind.EPISODE, b"\xc7\x04\x01abcd"),
    "bytes behind the steps": (Kind.EPISODE, codec.encode_episode(GOOD) + b"\0"),
    "a rating of noise": (Kind.RATING, b"\xff\xff"),
    "a rating without value": (Kind.RATING, packed({"v": 1, "episode": "episode-1", "name": "x"})),
    "a rating of text": (
        Kind.RATING,
        packed({"v": 1, "episode": "episode-1", "name": "x", "value": "1"}),
    ),
    "a rating of nobody's": (
        Kind.RATING,
        packed({"v": 1, "episode": None, "name": "x", "value": 1.0}),
    ),
    "a note of bytes": (Kind.NOTE, packed({"v": 1, "episode": "episode-1", "text": b"x"})),
    "a deletion without reason": (
        Kind.DELETE,
        packed({"v": 1, "episode": "episode-1", "reason": None}),
    ),
    "a deletion of a list": (Kind.DELETE, packed({"v": 1, "episode": ["episode-1"]})),
    "a restoration of noise": (Kind.RESTORE, b"\xff\xff"),
    "a restoration of nobody": (Kind.RESTORE, packed({"v": 1, "reason": "x"})),
    "a restoration of a later version": (Kind.RESTORE, packed({"v": 2, "episode": "episode-1"})),
    "a removal without name": (Kind.UNRATE, packed({"v": 1, "episode": "episode-1"})),
    "a removal of bytes": (Kind.UNRATE, packed({"v": 1, "episode": "episode-1", "name": b"x"})),
    "a credit without list": (
        Kind.USEFULNESS,
        packed({"v": 1, "shown": None, "task": "t", "success": True}),
    ),
    "a credit of numbers": (
        Kind.USEFULNESS,
        packed({"v": 1, "shown": [1], "task": "t", "success": True}),
    ),
    "a credit of a later version": (Kind.USEFULNESS, packed({"v": 2**63})),
}


@pytest.mark.parametrize("what", _PAYLOADS)
def test_payloads_that_are_nothing(folder: Path, what: str) -> None:
    """Each is damage, named, that takes nothing else with it."""
    build(folder)
    kind, payload = _PAYLOADS[what]
    append(folder, (kind, len(HONEST), payload))
    judge(folder, HONEST, damaged=True)


_SAID: dict[str, tuple[int, Mapping[str, Any]]] = {
    f"{name} {value}": (kind, {"v": 1, **fields, name: value})
    for kind, name, fields in (
        (Kind.RATING, "value", {"episode": "episode-7", "name": "x", "time": 1.0}),
        (Kind.RATING, "time", {"episode": "episode-7", "name": "x", "value": 1.0}),
        (Kind.NOTE, "time", {"episode": "nobody", "text": "x"}),
        (Kind.DELETE, "time", {"episode": "nobody", "reason": "x"}),
        (Kind.RESTORE, "time", {"episode": "episode-7", "reason": "x"}),
        (Kind.UNRATE, "time", {"episode": "episode-7", "name": "never given"}),
        (Kind.RATING, "value", {"episode": "episode-7", "name": "human", "time": 1.0}),
        (Kind.USEFULNESS, "time", {"shown": ["nobody"], "task": "t", "success": True}),
    )
    for value in (MOST, LEAST, float("nan"), float("inf"), -1e308)
}


@pytest.mark.parametrize("what", _SAID)
def test_numbers_in_what_is_said(folder: Path, what: str) -> None:
    """The largest numbers that a record may hold are no reason to fail."""
    kind, fields = _SAID[what]
    build(folder)
    append(folder, (kind, len(HONEST), packed(fields)))
    with open_memory(folder) as memory:
        assert len(memory) == len(HONEST)
        memory.get("episode-7")
    judge(folder, HONEST[:7], damaged=None, strangers=1)


NUMBERS = [2**55, 2**56, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
"""The first is too large to be shifted to a label."""


_FORGED: dict[str, tuple[int, bytes]] = {
    "note": (Kind.NOTE, packed({"v": 1, "episode": "episode-1", "text": "x"})),
    "deletion": (Kind.DELETE, packed({"v": 1, "episode": "episode-1", "reason": "x"})),
    "restoration": (Kind.RESTORE, packed({"v": 1, "episode": "episode-1", "reason": "x"})),
    "removal": (Kind.UNRATE, packed({"v": 1, "episode": "episode-1", "name": "x"})),
    "unknown": (77, b"of a later version"),
    "episode": (Kind.EPISODE, codec.encode_episode(GOOD)),
}


@pytest.mark.parametrize(
    ("what", "number"),
    [
        *itertools.product(["episode"], NUMBERS),
        *itertools.product(
            ["note", "deletion", "restoration", "removal", "unknown"], [2**55, 2**64 - 1]
        ),
    ],
)
def test_sequence_numbers(folder: Path, what: str, number: int) -> None:
    """Row 7d2: damage, named; nothing is lost, the number is not believed, and adding goes on."""
    build(folder)
    kind, payload = _FORGED[what]
    append(folder, (kind, number, payload))
    with open_memory(folder) as memory:
        assert memory.position <= 2**55
    judge(folder, HONEST, damaged=True)


@pytest.mark.parametrize("number", [2**55, 2**63 - 1, 2**64 - 2], ids=hex)
def test_sequence_numbers_between_others(folder: Path, number: int) -> None:
    """What follows an impossible number is read as if it were not there."""
    build(folder, HONEST[:5])
    honest = [(int(Kind.EPISODE), i, codec.encode_episode(HONEST[i])) for i in range(5, 8)]
    append(folder, (Kind.EPISODE, number, codec.encode_episode(GOOD)), *honest)
    judge(folder, HONEST, damaged=True)


@pytest.mark.parametrize("number", [10**16, 2**55, 2**63, 2**64 - 1], ids=hex)
@pytest.mark.parametrize("header", [True, False], ids=["header", "bare"])
def test_segments_with_impossible_numbers(folder: Path, number: int, header: bool) -> None:
    """The name of a file in the log is a number, too."""
    build(folder)
    memory = memory_id(folder / "log")
    assert memory is not None
    payload = codec.encode_episode(GOOD)
    text = plain_header(number, memory) + frame_of(
        Kind.EPISODE, number, payload, zlib.crc32(payload)
    )
    segment_path(folder / "log", number).write_bytes(text if header else b"nothing")
    impossible = number in NUMBERS
    judge(
        folder,
        HONEST,
        damaged=True if header and impossible else None,
        strangers=int(not impossible),
    )


@pytest.mark.parametrize(
    "name",
    ["1e5.log", "-1.log", "\u0663.log", "\u00b2.log", f"{'9' * 60}.log", "0.0.log"],
    ids=ascii,
)
def test_names_in_the_log_that_are_no_segments(folder: Path, name: str) -> None:
    """Files that only look like a part of the log take nothing with them."""
    build(folder)
    (folder / "log" / name).write_bytes(b"nothing")
    with open_memory(folder) as memory:
        assert {episode.id for episode in memory.iterate()} >= {episode.id for episode in HONEST}


def _compacted(folder: Path, until: int) -> None:
    """Say in the header of the only segment that another number follows behind it."""
    (path,) = (folder / "log").glob("0000000000000000.*.log")
    data = bytearray(path.read_bytes())
    data[40:48] = struct.pack("<Q", until)
    data[48:52] = struct.pack("<I", zlib.crc32(data[:48]))
    path.write_bytes(data)


@pytest.mark.parametrize("until", [2**55, 2**63, 2**64 - 1], ids=hex)
def test_headers_with_impossible_numbers(folder: Path, until: int) -> None:
    """What a compacted segment says of the next one is not believed beyond what can be."""
    with open_memory(folder, "create") as memory:
        memory.add_many([*HONEST, make_episode(500)])
        memory.delete("episode-500")
        memory.compact()
    _compacted(folder, until)
    delete_caches(folder)
    judge(folder, HONEST, damaged=None)
    with open_memory(folder) as memory:
        assert memory.position <= 2**55


def test_a_memory_with_unreadable_records_can_be_compacted(folder: Path) -> None:
    """Row 4: what an earlier version acknowledged and cannot be read stays, byte for byte, and is
    still named."""
    build(folder)
    head, steps = parts_of(GOOD)
    unreadable = packed({**head, "final": None}, steps)
    append(folder, (Kind.EPISODE, len(HONEST), unreadable))
    with open_memory(folder, "w") as memory:
        memory.delete("episode-2")
        assert memory.compact().episodes == 1
        assert memory.verify()
    assert any(unreadable in path.read_bytes() for path in (folder / "log").glob("*.log"))
    with open_memory(folder, "w") as memory:
        assert memory.verify()
        assert memory.compact().episodes == 0
        goals = {episode.id: episode.task.goal for episode in HONEST if episode.id != "episode-2"}
        assert not compare_all(memory, goals, TEXTS).wrong
    assert any(unreadable in path.read_bytes() for path in (folder / "log").glob("*.log"))


def test_a_deleted_record_that_cannot_be_read_can_be_compacted(folder: Path) -> None:
    """An unreadable episode was deleted: its bytes may go, and nothing fails."""
    build(folder)
    head, steps = parts_of(GOOD)
    bad = packed(head, [{**step, "tokens": ["x"]} for step in steps])
    deletion = packed({"v": 1, "episode": GOOD.id, "reason": "x", "time": 1.0})
    append(folder, (Kind.EPISODE, len(HONEST), bad), (Kind.DELETE, len(HONEST) + 1, deletion))
    with Memory(folder, "w", embedder=EMBEDDER) as memory:
        memory.compact()
    judge(folder, HONEST, damaged=None)
