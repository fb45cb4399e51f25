"""From several answers to one: the action that most of them name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..conversation import Action, Usage


@dataclass(frozen=True, slots=True)
class Vote:
    """What came of a vote."""

    action: Action
    """The first answer that named the action which most answers name; it carries what all of them
    took."""
    agreement: float
    """Share of the answers that name it, in (0, 1]."""
    unique: bool
    """Whether no other action was named as often."""


def vote(answers: Sequence[Action]) -> Vote:
    """The action that most answers name; of several, the one that is named first.

    Args:
        answers: at least one. Answers without an action count as one opinion.
    """
    counts = Counter(answer.text for answer in answers)
    (text, most), *others = counts.most_common()  # of equal counts the first named comes first
    winner = next(answer for answer in answers if answer.text == text)
    return Vote(
        winner.with_usage(usage_of(answers)), most / len(answers),
        not others or others[0][1] < most,
    )  # fmt: skip


def usage_of(answers: Sequence[Action]) -> Usage:
    """What answers took together."""
    return sum((answer.usage or Usage() for answer in answers), Usage())
