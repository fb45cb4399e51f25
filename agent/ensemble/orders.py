"""A vote of orders: the same past episodes are shown in several orders, and the action that most
answers name is taken.

What stands last in a long context weighs more than what stands in its middle (Liu et al.,
arXiv:2307.03172), and the order of demonstrations alone can decide an answer (Lu et al.,
arXiv:2104.08786). A vote takes this chance out, at the price of as many answers as orders.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, permutations

from ...memory.episode import Actor
from ..conversation import Action, Conversation, Policy
from ..policy import actor_of
from ..prompt import EXPERIENCE, demonstrations_of
from .through import Through
from .votes import vote


class OrderVote(Through):
    """A policy that asks another one under several orders of what it is shown.

    Args:
        policy: who is asked. A local model needs slots for `most` times as many conversations as
            run at once.
        most: orders at most. Of two episodes there are two, of three six; of more, so many are
            drawn, the same ones for the same block.

    Raises:
        ValueError: `most` is below 1.
    """

    def __init__(self, policy: Policy, most: int = 6) -> None:
        if most < 1:
            raise ValueError(f"a vote needs at least one order, not {most}")
        super().__init__(policy)
        self.policy, self.most = policy, most
        self.playing = getattr(policy, "playing", None)

    @property
    def actor(self) -> Actor:
        """The policy that is asked, and that it is asked under several orders."""
        asked = actor_of(self.policy)
        return replace(asked, settings={**asked.settings, "orders": self.most})

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """One action per conversation, see `relive.agent.conversation.Policy.act`. Ties go to the
        order that was given."""
        asked = [in_orders(conversation, self.most) for conversation in conversations]
        flat = [conversation for some in asked for conversation in some]
        drawn = seeds and [
            seed + number
            for seed, some in zip(seeds, asked, strict=True)
            for number in range(len(some))
        ]
        answers = iter(self.policy.act(flat, drawn))
        return [vote(list(islice(answers, len(some)))).action for some in asked]


def in_orders(conversation: Conversation, most: int) -> list[Conversation]:
    """The conversation as it is, and with its demonstrations in other orders."""
    system = conversation[0]
    shown = demonstrations_of(system.text)
    if len(shown) < 2:
        return [conversation]
    head = system.text.partition(EXPERIENCE)[0]
    return [
        (replace(system, text=head + EXPERIENCE + "".join(order)), *conversation[1:])
        for order in orders(shown, most)
    ]


def orders(shown: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """The order that is given, and others, `most` in all."""
    if len(shown) <= _LISTED:
        every = list(permutations(shown))
        rng = random.Random("\n".join(shown))
        return [every[0], *rng.sample(every[1:], min(most, len(every)) - 1)]
    rng = random.Random("\n".join(shown))
    return [tuple(shown), *(tuple(rng.sample(list(shown), len(shown))) for _ in range(most - 1))]


_LISTED = 6
"""Demonstrations of which all orders are looked at."""
