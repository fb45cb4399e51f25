"""Conversations as data: what every policy reads and every training example is made of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from ..task import Task

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation."""

    role: Role
    text: str
    tokens: tuple[int, ...] = ()
    """Assistant turns: the ids as sampled, end-of-turn excluded; they are used instead of encoding
    `text` again."""
    reasoning: str = ""
    """Assistant turns: what was thought before; shown only as the model's chat template does."""


Conversation = tuple[Turn, ...]
"""System turn, then user and assistant turns in alternation. Conversations only ever grow at the
end."""


_HALF = re.compile("[\ud800-\udfff]")


def readable(text: str) -> str:
    """A text as a model reads it: half a character (a lone surrogate) is U+FFFD, since no tokenizer
    and no file in UTF-8 takes it."""
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def messages(conversation: Conversation) -> list[dict[str, str]]:
    """A conversation as most models and servers take it: ``{"role": …, "content": …}`` for each
    turn, see `readable`; a system turn without text is left out."""
    return [
        {"role": turn.role, "content": readable(turn.text)}
        for turn in conversation
        if turn.text or turn.role != "system"
    ]


@dataclass(frozen=True, slots=True)
class Usage:
    """What answers took."""

    prompt: int = 0
    """Tokens that were read."""
    completion: int = 0
    """Tokens that were written, thoughts included."""
    cost: float = 0.0
    """In the currency of the prices."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt + other.prompt, self.completion + other.completion, self.cost + other.cost
        )


@dataclass(frozen=True, slots=True)
class Action:
    """What a policy says."""

    text: str
    tokens: tuple[int, ...] = ()
    """As sampled, end-of-turn excluded; empty for scripted policies."""
    said: str = ""
    """The whole answer, where it is more than the action."""
    reasoning: str = ""
    """What was thought before it."""
    problem: str = ""
    """What the model is told instead of an observation when there is no action in its answer."""
    usage: Usage | None = field(default=None, compare=False)
    """What it took; None where nobody counts."""
    cut: bool = field(default=False, compare=False)
    """Whether the answer ended at the most tokens it may have before it came to an action."""

    def with_usage(self, usage: Usage) -> "Action":
        """The same action, and what it took."""
        return replace(self, usage=usage)

    @property
    def turn(self) -> Turn:
        """The action as a turn of the conversation."""
        return Turn("assistant", self.said or self.text, self.tokens, self.reasoning)


class StopRun(Exception):
    """A policy cannot act any more: the run stops, and what is finished stays recorded."""


class SomeFailed(Exception):
    """A policy could answer some conversations and not others.

    Args:
        answers: an action, or what went wrong, for each.
    """

    def __init__(self, answers: "Sequence[Action | Exception]") -> None:
        super().__init__(answers)
        self.answers = list(answers)

    def __str__(self) -> str:
        failed = [one for one in self.answers if isinstance(one, Exception)]
        return f"{len(failed)} of {len(self.answers)} got no answer, such as: {failed[0]}"


class ContextOverflow(ValueError):
    """A conversation and its answer do not fit into the model's context."""


ADMISSIBLE = "\n\nAdmissible commands: "
"""What stands before the list of commands below an observation, where a run shows it."""


def without_oldest(
    conversation: Conversation, opening: str, dropped: int
) -> tuple[Conversation, int] | None:
    """The conversation without the older half of its actions and their answers; what is to be done,
    the memory and the opening stay. The opening says how many are missing.

    Args:
        conversation: system turn, opening, then actions and what followed in alternation.
        opening: the opening observation as it was.
        dropped: actions that are missing already.

    Returns:
        The conversation and how many actions are missing now; None where nothing can go.
    """
    head, rest = conversation[:2], conversation[2:]
    there = len(rest) // 2
    if there < 2:
        return None
    gone = dropped + there // 2
    note = f"{opening}\n\n[The first {gone} actions and their answers are not shown.]"
    return (head[0], replace(head[1], text=note), *rest[2 * (there // 2) :]), gone


class Playing:
    """Who plays episodes with a policy, and how many: each is played by one adapter from beginning
    to end."""

    def __init__(self) -> None:
        self._episodes: dict[int, int] = {}

    def tell(self, who: int, episodes: int) -> None:
        """Says that `who` has so many episodes running now."""
        self._episodes[who] = episodes
        if not episodes:
            del self._episodes[who]

    def check(self) -> None:
        """Raises while episodes run.

        Raises:
            RuntimeError: the adapter must not change now.
        """
        if count := sum(self._episodes.values()):
            raise RuntimeError(
                f"{count} episodes are being played, and the adapter cannot change under them: "
                "wait until they have ended"
            )


class Together(Playing):
    """The same for policies that play as one: what is told one of them, all are told.

    Args:
        policies: those that have adapters (an attribute ``playing``) count.
    """

    def __init__(self, *policies: object) -> None:
        super().__init__()
        known = [getattr(policy, "playing", None) for policy in policies]
        self._each = list({id(one): one for one in known if isinstance(one, Playing)}.values())

    def tell(self, who: int, episodes: int) -> None:
        """Says that `who` has so many episodes running now."""
        for one in self._each:
            one.tell(who, episodes)

    def check(self) -> None:
        """Raises while episodes run with any of them, see `Playing.check`."""
        for one in self._each:
            one.check()


class Policy(Protocol):
    """Whatever can act: a language model, a script, a person."""

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """One action per conversation, each of which ends with a user turn.

        Args:
            conversations: any number of them, of any lengths, in any order from call to call; the
                result for one must not depend on which others are beside it.
            seeds: one per conversation, for sampling; a policy that is greedy ignores them.

        Raises:
            ValueError: a conversation does not end with a user turn.
        """
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One decision of an episode, and all that is known about it."""

    conversation: Conversation
    seed: int
    task: Task
    admissible: tuple[str, ...] = ()
    """Commands that the environment would accept now; only where the run asks for them."""
    shown: tuple[str, ...] = ()
    """Ids of the past episodes that are in the context now, closest first."""


class TaskPolicy(Protocol):
    """Whatever decides by more than the conversation, and is told: an expert that was given the
    solution of the task, a random choice among admissible commands."""

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        """One action for each, as `Policy.act`."""
        ...


AnyPolicy = Policy | TaskPolicy
"""Whatever can play."""
