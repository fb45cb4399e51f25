"""From examples to batches: what is encoded, in which order it comes, and in which pieces it is
worked on."""

import bisect
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..agent.conversation import without_oldest
from ..agent.llm.chat import ChatEncoder, Encoded
from ..extras import needs
from .examples import Example

with needs("llm"):
    import torch
    from torch import Tensor

Sequences = list[Encoded]
"""What an example becomes: one sequence, or several where its chat template rewrites what is
past."""


@dataclass(frozen=True, slots=True)
class Encodings:
    """Examples that can be learnt, and how many cannot."""

    examples: list[Example]
    """Those of which at least something is learnt."""
    sequences: list[Sequences]
    """What each of them becomes."""
    too_long: int
    """Sequences that do not fit into the model's context, however they are cut."""
    cut: int
    """Examples that are learnt in several parts, because they do not fit in one."""
    without_target: int
    """Examples in which nothing is to be learnt."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(one.ids) for some in self.sequences for one in some)


def encode_example(
    encoder: ChatEncoder, example: Example, learn_reasoning: bool = True
) -> Sequences:
    """Ids and a mask of the tokens to learn: the assistant's, end of turn included, refused actions
    excluded."""
    return encoder.sequences(example.conversation, example.masked_turns, learn_reasoning)


def encode_all(
    encoder: ChatEncoder,
    examples: Sequence[Example],
    longest: int,
    learn_reasoning: bool = True,
    room: int = 32,
) -> Encodings:
    """Encodes examples of at most `longest` tokens each.

    One that has more is learnt as the agent would have lived it: up to where it outgrows the
    context, and on from there without its older half
    (:func:`relive.agent.conversation.without_oldest`). What still does not fit is left out and
    counted.

    Raises:
        ValueError: nothing is left to learn.
    """
    kept: list[Sequences] = []
    learnt: list[Example] = []
    too_long = without_target = cut = 0
    for example in examples:
        sequences = encode_example(encoder, example, learn_reasoning)
        fitting = [one for one in sequences if len(one.ids) <= longest]
        lost = len(sequences) - len(fitting)
        if lost and not encoder.looks_back:
            fitting, lost = in_parts(encoder, example, longest, learn_reasoning, room)
            cut += bool(fitting)
        too_long += lost
        without_target += not sequences
        if fitting:
            kept.append(fitting)
            learnt.append(example)
    if not kept:
        raise ValueError(
            f"nothing can be learnt from {len(examples)} examples: {too_long} sequences have more "
            f"than {longest} tokens, {without_target} examples have no target; show fewer or "
            "shorter demonstrations (retrieval.k, retrieval.max_tokens), or raise lora.max_tokens"
        )
    return Encodings(learnt, kept, too_long, cut, without_target)


def in_parts(
    encoder: ChatEncoder,
    example: Example,
    longest: int,
    learn_reasoning: bool = True,
    room: int = 32,
) -> tuple[Sequences, int]:
    """An example that is too long, as several sequences of at most `longest` tokens, in which each
    answer is learnt once.

    Args:
        encoder, example, longest, learn_reasoning: see :func:`encode_all`.
        room: tokens that the agent leaves for an answer.

    Returns:
        The sequences, and 1 where answers are left that fit into none.
    """
    conversation, opening = example.conversation, example.conversation[1].text
    answers = (len(conversation) - 1) // 2
    learnt = dropped = 0
    parts: Sequences = []

    def up_to(count: int) -> Sequences:
        """The conversation with so many of its answers, those learnt before masked."""
        masked = {turn - dropped for turn in example.masked_turns} | set(range(learnt - dropped))
        return encoder.sequences(conversation[: 1 + 2 * count], masked, learn_reasoning)

    def too_long(count: int) -> bool:
        """Whether the agent would have forgotten before this answer, or it would not fit here."""
        asked = len(encoder.prompt(conversation[: 2 * count]))
        if asked + room > longest:
            return True
        lived = encoder.sequences(conversation[: 1 + 2 * count])
        return any(len(one.ids) > longest for one in lived)

    while learnt < answers:
        known = learnt - dropped
        fits = bisect.bisect_left(range(1, answers - dropped + 1), True, key=too_long)
        if fits > known:
            parts += up_to(fits)
            learnt = dropped + fits
        if learnt < answers:
            lived = 2 + 2 * max(fits, known)
            shorter = without_oldest(conversation[:lived], opening, dropped)
            if shorter is None:
                return parts, 1
            conversation = (*shorter[0], *conversation[lived:])
            dropped = shorter[1]
    return parts, 0


@dataclass(slots=True)
class Fading:
    """A curriculum from memory to none."""

    without: Sequence[Sequences | None]
    """Each example without its memory; None where it always has it."""
    share: float
    """Of the examples with a memory, how many come without it in the end."""
    progress: float = 0.0
    """How much of the training is behind, in [0, 1]: whoever trains says so. The share grows evenly
    with it."""


def mixed(
    encoded: Sequence[Sequences],
    rehearsal: Iterator[Sequences] | None,
    mix: tuple[int, int],
    seed: int,
    fading: Fading | None = None,
) -> Iterator[Sequences]:
    """An endless stream of examples and rehearsal, evenly mixed; every example comes once before
    any comes again.

    Args:
        encoded: examples.
        rehearsal: endless.
        mix: how many of how many are rehearsal.
        seed: decides the order.
        fading: what examples are without their memory, and how much of them comes now.
    """
    rng, fate = random.Random(seed), random.Random(f"fading/{seed}")
    rehearsed, of = mix
    queue: list[int] = []
    for number in itertools.count():
        if (number + 1) * rehearsed // of > number * rehearsed // of:
            assert rehearsal is not None
            yield next(rehearsal)
        else:
            queue = queue or rng.sample(range(len(encoded)), len(encoded))
            index = queue.pop()
            without = fading.without[index] if fading else None
            if fading and without and fate.random() < fading.share * fading.progress:
                yield without
            else:
                yield encoded[index]


def batches(items: Iterator[Sequences], tokens: int, examples: int = 0) -> Iterator[list[Encoded]]:
    """What each optimiser step learns from: at most so many tokens, padding included, unless one
    example alone has more; or so many examples if that is not 0."""
    group: list[Encoded] = []
    count = 0
    for item in items:
        longest = max(len(ids) for ids, _ in [*group, *item])
        full = longest * (len(group) + len(item)) > tokens
        if group and (count == examples if examples else full):
            yield group
            group, count = [], 0
        group.extend(item)
        count += 1


def pieces(batch: Sequence[Encoded], tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in pieces of like length, each of at most so many tokens unless one example alone has
    more.

    Yields:
        ids (B, T) and the mask of what to learn (B, T), padded on the right with 0.
    """
    group: list[Encoded] = []
    for item in [*sorted(batch, key=lambda e: len(e[0])), None]:
        if group and (item is None or len(item[0]) * (len(group) + 1) > tokens):
            width = len(group[-1][0])
            ids_BT = torch.zeros(len(group), width, dtype=torch.long)
            learn_BT = torch.zeros(len(group), width, dtype=torch.bool)
            for row, (ids, mask) in enumerate(group):
                ids_BT[row, : len(ids)], learn_BT[row, : len(ids)] = (
                    torch.tensor(ids),
                    torch.tensor(mask),
                )
            yield ids_BT, learn_BT
            group = []
        if item is not None:
            group.append(item)
