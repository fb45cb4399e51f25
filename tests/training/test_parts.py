"""Episodes that are too long for the model are learnt in parts, each answer once."""

import pytest

from relive.agent.conversation import Turn
from relive.agent.llm.chat import ChatEncoder
from relive.agent.llm.local import LocalModel
from relive.training.batches import encode_all, in_parts
from relive.training.examples import Example


@pytest.fixture(scope="module")
def encoder() -> ChatEncoder:
    return LocalModel("bundled").encoder


def example(answers: int, masked: frozenset[int] = frozenset()) -> Example:
    turns = [Turn("system", "Act."), Turn("user", "You are in a room.")]
    for n in range(answers):
        turns += [
            Turn("assistant", f"go to shelf {n}"),
            Turn("user", f"On the shelf {n} is a cup."),
        ]
    return Example(tuple(turns[:-1]), masked)


@pytest.mark.parametrize("masked", [frozenset[int](), frozenset({0, 7, 8})])
def test_each_answer_is_learnt_once(encoder: ChatEncoder, masked: frozenset[int]) -> None:
    whole = example(20, masked)
    (one,) = encoder.sequences(whole.conversation, whole.masked_turns)
    longest = 150
    parts, lost = in_parts(encoder, whole, longest)
    assert not lost
    assert len(parts) > 2
    assert all(len(part.ids) <= longest for part in parts)
    assert sum(map(sum, (part.supervised for part in parts))) == sum(one.supervised)
    learnt = [
        encoder.text_of(
            [token for token, own in zip(part.ids, part.supervised, strict=True) if own]
        )
        for part in parts
    ]
    for n in range(20):
        assert sum(f"go to shelf {n}<" in text.replace(" <", "<") for text in learnt) == (
            n not in masked
        )
    # From the second part on, the opening says what is missing.
    assert "are not shown" not in encoder.text_of(parts[0].ids)
    assert all("are not shown" in encoder.text_of(part.ids) for part in parts[1:])


def test_what_fits_is_left_as_it_is_and_the_rest_counted(encoder: ChatEncoder) -> None:
    short, long = example(2), example(20)
    (one,) = encoder.sequences(short.conversation)
    made = encode_all(encoder, [short, long], 3 * len(one.ids))
    assert made.sequences[0] == [one]
    assert (made.cut, made.too_long) == (1, 0)
    with pytest.raises(ValueError, match="nothing can be learnt"):
        encode_all(encoder, [long], 20)


def test_long_answers_are_learnt_once_as_well(encoder: ChatEncoder) -> None:
    turns = [Turn("system", "Act."), Turn("user", "You are in a room.")]
    for n in range(10):
        said = " ".join(["go to the shelf"] * 12)
        turns += [Turn("assistant", f"{n} {said}"), Turn("user", "A cup.")]
    whole = Example(tuple(turns[:-1]))
    (one,) = encoder.sequences(whole.conversation)
    parts, lost = in_parts(encoder, whole, 300)
    assert not lost
    assert all(len(part.ids) <= 300 for part in parts)
    assert sum(sum(part.supervised) for part in parts) == sum(one.supervised)
