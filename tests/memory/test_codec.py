"""Episodes to bytes and back: all of them, the same for ever, and nothing but them."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.memory import Actor, Episode, Outcome, Retrieved, Step, StopReason, Task
from relive.memory.storage import annotations, codec
from relive.memory.storage.payload import MAX_BYTES, CodecError

# Lone surrogates included: a byte-level model may sample half a character.
text = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
number = st.floats(allow_nan=False)
tasks = st.builds(Task, text, text, text, text, text, st.integers(-(2**63), 2**64 - 1), text, text)
steps = st.builds(
    Step, text, text, number, st.booleans(),
    st.lists(st.integers(0, 2**32), max_size=5).map(tuple),
    st.lists(st.builds(Retrieved, text, number), max_size=3).map(tuple), text,
)  # fmt: skip
outcomes = st.builds(Outcome, st.booleans(), number, st.sampled_from(StopReason), text)
setting = st.one_of(text, st.integers(-(2**63), 2**63), number, st.booleans())
actors = st.builds(Actor, text, text, text, text, text, st.dictionaries(text, setting, max_size=3))
episodes = st.builds(
    Episode, text, tasks, st.lists(steps, max_size=4).map(tuple), text, outcomes, actors,
    st.integers(-1, 2**40), number, *(2 * [st.dictionaries(text, number, max_size=3)]),
)  # fmt: skip

GOLDEN = bytes.fromhex(
    "8ba17601a26964a26531a47461736b88a57375697465a9686f757365686f6c64a86964656e74697479a461623132a4747970"
    "65a468656174a573706c6974a5747261696ea4726f6f6daa466c6f6f72506c616e31a47365656407a776657273696f6ea131"
    "a4676f616cb8707574206120686f74206d756720696e20636162696e6574a76f7574636f6d6584a773756363657373c2a573"
    "636f7265cb0000000000000000a6726561736f6eac706f6c696379206572726f72a664657461696cb456616c75654572726f"
    "723a20746f6f206c6f6e67a56163746f7286a6706f6c696379a56c6f63616ca56d6f64656ca462617365a777656967687473"
    "a430306666a761646170746572a27633a670726f6d7074a131a873657474696e677384a16b02ab74656d7065726174757265"
    "cb3fe0000000000000a6677265656479c2a473746f70a10aa5737465707302a566696e616cb04e6f7468696e672068617070"
    "656e732eaf6d656d6f72795f706f736974696f6e0ca773746172746564cb41d954fc40200000a774696d696e677381a5746f"
    "74616ccb3ff8000000000000a7726174696e677381a568756d616ecb3ff00000000000009284ab6f62736572766174696f6e"
    "ae596f75207365652061206d75672ea6616374696f6eaa74616b65206d75672031a6746f6b656e739205cd012ca972657472"
    "69657665649192a26530cb3fe000000000000084ab6f62736572766174696f6ea654616b656e2ea6616374696f6ea473696e"
    "67a6726577617264cbbfd0000000000000a7696e76616c6964c3"
)
WRITTEN = bytes.fromhex(
    "8da17601a26964a26531a47461736b88a57375697465a9686f757365686f6c64a86964656e74697479a461623132a4747970"
    "65a468656174a573706c6974a5747261696ea4726f6f6daa466c6f6f72506c616e31a47365656407a776657273696f6ea131"
    "a4676f616cb8707574206120686f74206d756720696e20636162696e6574a76f7574636f6d6584a773756363657373c2a573"
    "636f7265cb0000000000000000a6726561736f6eac706f6c696379206572726f72a664657461696cb456616c75654572726f"
    "723a20746f6f206c6f6e67a56163746f7286a6706f6c696379a56c6f63616ca56d6f64656ca462617365a777656967687473"
    "a430306666a761646170746572a27633a670726f6d7074a131a873657474696e677384a16b02ab74656d7065726174757265"
    "cb3fe0000000000000a6677265656479c2a473746f70a10aa5737465707302a566696e616cb04e6f7468696e672068617070"
    "656e732eaf6d656d6f72795f706f736974696f6e0ca773746172746564cb41d954fc40200000a7616374696f6e73cfefc1c3"
    "779f0c3ed1a573686f776e91a26530a774696d696e677381a5746f74616ccb3ff8000000000000a7726174696e677381a568"
    "756d616ecb3ff00000000000009284ab6f62736572766174696f6eae596f75207365652061206d75672ea6616374696f6eaa"
    "74616b65206d75672031a6746f6b656e739205cd012ca97265747269657665649192a26530cb3fe000000000000084ab6f62"
    "736572766174696f6ea654616b656e2ea6616374696f6ea473696e67a6726577617264cbbfd0000000000000a7696e76616c"
    "6964c3"
)
"""The same episode as it is written now: its head holds a hash of its actions and what was shown,
too."""
GOLDEN_EPISODE = Episode(
    id="e1",
    task=Task(
        "household", "ab12", "heat", "train", "FloorPlan1", 7, "1", "put a hot mug in cabinet"
    ),
    steps=(
        Step("You see a mug.", "take mug 1", tokens=(5, 300), retrieved=(Retrieved("e0", 0.5),)),
        Step("Taken.", "sing", reward=-0.25, invalid=True),
    ),
    final_observation="Nothing happens.",
    outcome=Outcome(False, 0.0, StopReason.POLICY_ERROR, "ValueError: too long"),
    actor=Actor(
        "local",
        "base",
        "00ff",
        "v3",
        "1",
        {"k": 2, "temperature": 0.5, "greedy": False, "stop": "\n"},
    ),
    memory_position=12,
    started=1700000000.5,
    timings={"total": 1.5},
    ratings={"human": 1.0},
)


DELETION = bytes.fromhex(
    "84a17601a7657069736f6465a26531a6726561736f6ea7746f6f206f6c64a474696d65cb4004000000000000"
)
CREDIT = bytes.fromhex(
    "87a17601a573686f776e92a26530a26531a47461736ba461623132a474797065a468656174a6706f6c696379a56c6f63616c"
    "a773756363657373c3a474696d65cb4008000000000000"
)
RESTORATION = bytes.fromhex(
    "84a17601a7657069736f6465a26531a6726561736f6ea57269676874a474696d65cb400c000000000000"
)
REMOVAL = bytes.fromhex(
    "84a17601a7657069736f6465a26531a46e616d65a568756d616ea474696d65cb4010000000000000"
)


def test_golden_bytes_of_version_1() -> None:
    """Version 1 is on people's disks: its bytes are written and read like this for ever."""
    assert codec.encode_episode(GOLDEN_EPISODE) == WRITTEN
    assert codec.decode_episode(WRITTEN) == GOLDEN_EPISODE
    deletion = annotations.Deletion("e1", "too old", 2.5)
    assert annotations.encode_deletion(deletion) == DELETION
    assert annotations.decode_deletion(DELETION) == deletion
    credit = annotations.Credit(("e0", "e1"), "ab12", "heat", "local", True, 3.0)
    assert annotations.encode_credit(credit) == CREDIT
    assert annotations.decode_credit(CREDIT) == credit
    restoration = annotations.Restoration("e1", "right", 3.5)
    assert annotations.encode_restoration(restoration) == RESTORATION
    assert annotations.decode_restoration(RESTORATION) == restoration
    removal = annotations.RatingRemoval("e1", "human", 4.0)
    assert annotations.encode_removal(removal) == REMOVAL
    assert annotations.decode_removal(REMOVAL) == removal


def test_heads_that_hold_less_are_read() -> None:
    """The first programs wrote no hash of the actions and nothing of what was shown: both follow
    from the steps."""
    assert codec.decode_episode(GOLDEN) == GOLDEN_EPISODE
    head = codec.decode_head(GOLDEN)
    assert head == codec.decode_head(WRITTEN)
    assert (head.actions, head.shown) == (codec.digest("take mug 1\nsing"), ("e0",))
    with pytest.raises(CodecError):
        codec.decode_head(GOLDEN[:-1])


def test_reasoning_is_written_only_where_there_is_some() -> None:
    """An episode without it keeps the bytes it always had; old bytes are read as steps without
    reasoning."""
    thought, silent = GOLDEN_EPISODE.steps
    episode = replace(GOLDEN_EPISODE, steps=(replace(thought, reasoning="A mug!"), silent))
    written = codec.encode_episode(episode)
    first = bytes.fromhex("9285")  # two steps, of which the first holds one field more
    last = b"\xa9reasoning\xa6A mug!"
    at, end = WRITTEN.index(bytes.fromhex("9284ab6f6273")), WRITTEN.rindex(b"\x84\xabobservation")
    assert written == WRITTEN[:at] + first + WRITTEN[at + 2 : end] + last + WRITTEN[end:]
    assert codec.decode_episode(written) == episode
    assert [step.reasoning for step in codec.decode_episode(GOLDEN).steps] == ["", ""]


def test_digests_are_the_same_everywhere() -> None:
    """They are on disk: 64 bits of BLAKE2b, little-endian, lone surrogates included."""
    assert codec.digest("") == int.from_bytes(bytes.fromhex("e4a6a0577479b2b4"), "little")
    assert codec.digest("put a hot mug in cabinet") == int.from_bytes(
        hashlib.blake2b(b"put a hot mug in cabinet", digest_size=8).digest(), "little"
    )
    assert codec.digest("\ud800") == int.from_bytes(
        hashlib.blake2b(b"\xed\xa0\x80", digest_size=8).digest(), "little"
    )


def test_what_was_shown() -> None:
    """Every episode that was in the context of any step, once, in order of appearance."""
    one, two = Retrieved("one", 0.5), Retrieved("two", 0.4)
    steps = (
        Step("o", "a", retrieved=(two, one)),
        Step("o", "b"),
        Step("o", "c", retrieved=(one, Retrieved("two", 0.1))),
    )
    episode = replace(GOLDEN_EPISODE, steps=steps)
    assert codec.shown_in(episode) == ("two", "one")
    assert codec.decode_head(codec.encode_episode(episode)).shown == ("two", "one")


@settings(max_examples=150, deadline=None)
@given(episodes)
def test_round_trip(episode: Episode) -> None:
    """Any episode comes back equal, and its head says the same without the steps."""
    payload = codec.encode_episode(episode)
    assert codec.decode_episode(payload) == episode
    head = codec.decode_head(payload)
    assert (head.id, head.task, head.outcome, head.actor, head.step_count) == (
        episode.id, episode.task, episode.outcome, episode.actor, len(episode.steps),
    )  # fmt: skip
    assert (head.actions, head.shown) == (codec.actions_digest(episode), codec.shown_in(episode))


def test_numbers_of_other_libraries_are_taken(episode: Callable[..., Episode]) -> None:
    """Rewards and tokens come from numpy as often as not."""
    odd = Step("o", "a", reward=np.float32(0.5), tokens=tuple(np.array([3, 4])))
    decoded = codec.decode_episode(
        codec.encode_episode(
            Episode("x", episode(1).task, (odd,), "", episode(1).outcome, Actor("p"))
        )
    )
    assert decoded.steps == (Step("o", "a", 0.5, tokens=(3, 4)),)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_garbage_gives_one_kind_of_error(data: st.DataObject) -> None:
    """Whatever the bytes, there is an episode or a CodecError; nothing else comes out."""
    payload = bytearray(
        data.draw(
            st.one_of(
                *map(st.just, (GOLDEN, WRITTEN, DELETION, CREDIT, RESTORATION, REMOVAL)),
                st.binary(max_size=200),
            )
        )
    )
    for _ in range(data.draw(st.integers(0, 3))):
        if payload:
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    for decode in (
        codec.decode_episode,
        codec.decode_head,
        annotations.decode_rating,
        annotations.decode_note,
        annotations.decode_deletion,
        annotations.decode_restoration,
        annotations.decode_removal,
        annotations.decode_credit,
    ):
        with suppress(CodecError):
            decode(bytes(payload))


def test_truncated_payload() -> None:
    """Every prefix is refused."""
    for golden, decode in (
        (GOLDEN, codec.decode_episode),
        (WRITTEN, codec.decode_episode),
        (DELETION, annotations.decode_deletion),
        (RESTORATION, annotations.decode_restoration),
        (REMOVAL, annotations.decode_removal),
        (CREDIT, annotations.decode_credit),
    ):
        for length in range(len(golden)):
            with pytest.raises(CodecError):
                decode(golden[:length])


def parts() -> tuple[dict[str, object], list[dict[str, object]]]:
    """Head and steps of the golden episode as plain objects."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(WRITTEN)
    return unpacker.unpack(), unpacker.unpack()


def test_fields_of_the_future_are_skipped() -> None:
    """Within a version fields may be added, and older programs go on reading."""
    head, steps = parts()
    head["mood"] = {"calm": [1, 2]}
    head["task"]["weather"] = "dry"  # type: ignore[index]
    steps[0]["thought"] = "hm"
    assert codec.decode_episode(msgpack.packb(head) + msgpack.packb(steps)) == GOLDEN_EPISODE


def test_version_of_the_future_is_named() -> None:
    """The error says which version it is and which are read."""
    head, steps = parts()
    head["v"] = 9
    with pytest.raises(CodecError, match="version 9; this program reads 1"):
        codec.decode_episode(msgpack.packb(head) + msgpack.packb(steps))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("id", 3, "'id' should be text and is int"),
        ("task", [], "a map was expected"),
        ("timings", {"a": "b"}, "number"),
        ("actions", "a", "'actions' should be an integer"),
        ("shown", ["e0", 1], "should be text"),
    ],
)
def test_wrong_types_are_named(name: str, value: object, message: str) -> None:
    """A field of another type is an error that names it, not a strange object later on."""
    head, steps = parts()
    head[name] = value
    with pytest.raises(CodecError, match=message):
        codec.decode_episode(msgpack.packb(head) + msgpack.packb(steps))


def test_limits() -> None:
    """Deep nesting and forged lengths are refused before they cost anything."""
    with pytest.raises(CodecError):
        codec.decode_episode(b"\x91" * 100_000)
    with pytest.raises(CodecError):
        codec.decode_episode(b"\xdd\xff\xff\xff\xff")
    with pytest.raises(CodecError, match="limit"):
        codec.decode_episode(bytes(MAX_BYTES + 1))


def test_what_cannot_be_stored_is_named(episode: Callable[..., Episode]) -> None:
    """Before anything is written, with the episode's id."""
    good = episode(1)
    odd = Episode("x", good.task, (), "", good.outcome, Actor("p", settings={"device": object()}))  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="episode 'x' cannot be stored"):
        codec.encode_episode(odd)
    with pytest.raises(ValueError, match="episode 'x' cannot be stored"):
        codec.encode_episode(
            Episode("x", good.task, (), "", good.outcome, Actor("p", settings={"seed": 2**70}))
        )


def test_what_is_said_about_episodes_round_trips() -> None:
    """And none passes for another."""
    rating = annotations.Rating("e1", "human", 0.5, 1.0)
    note = annotations.Note("e1", "odd", 2.0)
    assert annotations.decode_rating(annotations.encode_rating(rating)) == rating
    assert annotations.decode_note(annotations.encode_note(note)) == note
    with pytest.raises(CodecError):
        annotations.decode_note(annotations.encode_rating(rating))
    with pytest.raises(CodecError):
        annotations.decode_credit(DELETION)
    with pytest.raises(CodecError):
        annotations.decode_deletion(CREDIT)


@settings(max_examples=60, deadline=None)
@given(
    st.builds(annotations.Deletion, text, text, number),
    st.builds(
        annotations.Credit,
        st.lists(text, max_size=3).map(tuple),
        text,
        text,
        text,
        st.booleans(),
        number,
    ),
)
def test_deletions_and_credits_round_trip(
    deletion: annotations.Deletion, credit: annotations.Credit
) -> None:
    """Any of them comes back equal."""
    assert annotations.decode_deletion(annotations.encode_deletion(deletion)) == deletion
    assert annotations.decode_credit(annotations.encode_credit(credit)) == credit


def test_a_deletion_or_credit_of_the_future() -> None:
    """Fields may be added; another version is named."""
    fields = msgpack.unpackb(DELETION)
    assert annotations.decode_deletion(msgpack.packb({**fields, "who": "me"})).episode == "e1"
    with pytest.raises(CodecError, match="a deletion of format version 2"):
        annotations.decode_deletion(msgpack.packb({**fields, "v": 2}))
    fields = msgpack.unpackb(CREDIT)
    assert annotations.decode_credit(msgpack.packb({**fields, "tokens": 3})).shown == ("e0", "e1")
    with pytest.raises(CodecError, match="'success' should be true or false"):
        annotations.decode_credit(msgpack.packb({**fields, "success": 1}))
