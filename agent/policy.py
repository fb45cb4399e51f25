"""Scripted policies: the expert, a random one, and one that repeats recorded episodes.

All are stateless: what they do follows from the conversation alone, so they may be called in any
order and batch.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence

from ..envs import Expert, Suite
from ..memory.episode import Episode
from .conversation import Action, Conversation


def observations(conversation: Conversation) -> list[str]:
    """The user turns, oldest first.

    Raises:
        ValueError: the conversation does not end with one.
    """
    if not conversation or conversation[-1].role != "user":
        raise ValueError("a conversation must end with a user turn for a policy to act on it")
    return [turn.text for turn in conversation if turn.role == "user"]


class ExpertPolicy:
    """The suite's scripted expert, shown the observations of the conversation one after the
    other."""

    def __init__(self, suite: Suite) -> None:
        self._make: Callable[[], Expert] = suite.expert

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """The expert's next action for each conversation."""
        actions = []
        for conversation in conversations:
            expert = self._make()
            actions.append(Action([expert.act(seen) for seen in observations(conversation)][-1]))
        return actions


class RandomPolicy:
    """Fills a random template with random names out of what it has read; the floor of every
    comparison."""

    _name = re.compile(r"\b[a-z]+ \d+\b")

    def __init__(self, templates: Sequence[str]) -> None:
        if not templates:
            raise ValueError(
                "the random policy needs at least one action template; the suite lists none"
            )
        self.templates = tuple(templates)

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """One random action per conversation, determined by its seed."""
        actions = []
        for i, conversation in enumerate(conversations):
            rng = random.Random(seeds[i] if seeds else 0)
            names = sorted(
                {name for text in observations(conversation) for name in self._name.findall(text)}
            ) or ["it"]
            parts = re.split(r"\{\w+\}", rng.choice(self.templates))
            filled = [part + rng.choice(names) for part in parts[:-1]]
            actions.append(Action("".join([*filled, parts[-1]])))
        return actions


class ReplayPolicy:
    """Repeats recorded episodes, found by their first observation.

    Raises:
        ValueError: two episodes begin alike and go on differently, so that it would be a guess
            which one is meant.
        LookupError: no recorded episode starts with what the conversation starts with, or it has no
            more actions.
    """

    def __init__(self, episodes: Iterable[Episode]) -> None:
        self._actions: dict[str, list[Action]] = {}
        for episode in episodes:
            actions = [Action(step.action, step.tokens) for step in episode.steps]
            if self._actions.setdefault(episode.observations[0], actions) != actions:
                raise ValueError(
                    f"episode {episode.id} begins like another and goes on differently: replay "
                    "them one at a time"
                )

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """The recorded action for each conversation."""
        actions = []
        for conversation in conversations:
            seen = observations(conversation)
            recorded = self._actions.get(seen[0])
            if recorded is None:
                raise LookupError(
                    f"no recorded episode starts with {seen[0][:80]!r}; replay only tasks that "
                    "were recorded"
                )
            if len(seen) > len(recorded):
                raise LookupError(
                    f"the recorded episode has {len(recorded)} actions, action {len(seen)} was "
                    "asked for"
                )
            actions.append(recorded[len(seen) - 1])
        return actions
