"""Conversations as data: what every policy reads and every training example is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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


def messages(conversation: Conversation) -> list[dict[str, str]]:
    """A conversation as most models and servers take it: ``{"role": …, "content": …}`` for each
    turn; a system turn without text is left out."""
    return [
        {"role": turn.role, "content": turn.text}
        for turn in conversation
        if turn.text or turn.role != "system"
    ]


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

    @property
    def turn(self) -> Turn:
        """The action as a turn of the conversation."""
        return Turn("assistant", self.said or self.text, self.tokens, self.reasoning)


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
