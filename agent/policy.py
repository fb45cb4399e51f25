"""Policies that are no model: functions, the expert, a random one, one that repeats recorded
episodes; and what is recorded of any policy.

All of them are stateless: what they do follows from the conversation alone, so they may be called
in any order and batch.
"""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import cast

from ..envs import Expert, Suite
from ..memory import Retrieval
from ..memory.episode import Actor, Episode
from .action_format import ActionFormat, Read, format_of
from .conversation import Action, Conversation, Policy, messages
from .prompt import PROMPT_VERSION
from .settings import as_stored

Value = str | int | float | bool


def observations(conversation: Conversation) -> list[str]:
    """The user turns, oldest first.

    Raises:
        ValueError: the conversation does not end with one.
    """
    if not conversation or conversation[-1].role != "user":
        raise ValueError("a conversation must end with a user turn for a policy to act on it")
    return [turn.text for turn in conversation if turn.role == "user"]


class CallablePolicy:
    """A function from messages to text as a policy.

    Args:
        function: takes ``[{"role": "system" | "user" | "assistant", "content": text}, …]``, the
            last of which is what was just observed, and returns the next answer.
        name: what to call it in the record; by default the function's own name.
        action_format: how an action stands in an answer; None where the answer is the action, to
            the letter.
    """

    def __init__(
        self,
        function: Callable[[list[dict[str, str]]], str],
        name: str = "",
        action_format: str | ActionFormat | Read | None = None,
    ) -> None:
        self._function = function
        self._reads = action_format is not None
        self.action_format = format_of(action_format or "plain")
        """How an action stands in an answer."""
        how = self.action_format.settings | ({"reads": True} if self._reads else {})
        self.actor = Actor("callable", model=name or _name_of(function), settings=how)
        """Who acts, for the record."""

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """What the function says to each conversation, one after the other.

        Raises:
            TypeError: it returned something that is no text.
        """
        return [self._answer(conversation) for conversation in conversations]

    def _answer(self, conversation: Conversation) -> Action:
        answer = self._function(messages(conversation))
        if not isinstance(answer, str):
            raise TypeError(
                f"policy {self.actor.model} must return the next action as text, not {answer!r:.80}"
            )
        return self.action_format.action(answer) if self._reads else Action(answer.strip())


def as_policy(policy: object) -> Policy:
    """A policy from whatever acts: an object with ``act`` (see `Policy`), or a function from
    messages to text.

    Raises:
        TypeError: it is neither, or a class instead of an object.
    """
    if isinstance(policy, type):
        raise TypeError(f"the policy is the class {policy.__name__}: give an object of it")
    if callable(getattr(policy, "act", None)):
        return cast(Policy, policy)
    if callable(policy):
        return CallablePolicy(policy)
    raise TypeError(
        f"{policy!r} cannot act: give a function from messages to text, a relive.LocalModel, or "
        "an object with act(conversations, seeds)"
    )


def _name_of(function: object) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name)


class ExpertPolicy:
    """The suite's scripted expert, shown the observations of the conversation one after the
    other."""

    actor = Actor("expert")

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

    actor = Actor("random")
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
            actions = [
                Action(
                    step.action, step.tokens, step.said, step.reasoning,
                    told if step.invalid and not step.action else "",
                )
                for step, told in zip(episode.steps, episode.observations[1:], strict=True)
            ]  # fmt: skip
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


def words(text: str) -> int:
    """Number of words: how a policy without a tokenizer counts."""
    return len(text.split())


def counter_of(policy: Policy) -> Callable[[str], int]:
    """The policy's own ``count_tokens``, where it has one; else the number of words."""
    count = getattr(policy, "count_tokens", None)
    return count if callable(count) else words


def actor_of(policy: Policy, retrieval: Retrieval | None = None, seed: int | None = None) -> Actor:
    """The record of who acts.

    Args:
        policy: who; its attribute ``actor``, where it has one, says what it is and how it decides.
        retrieval: what it is shown; None for no memory.
        seed: of the run.
    """
    who = getattr(policy, "actor", None)
    if not isinstance(who, Actor):
        who = Actor("custom", model=type(policy).__qualname__)
    settings: dict[str, Value] = dict(who.settings)
    if retrieval is not None:
        settings |= flat(retrieval)
    if seed is not None:
        settings["seed"] = seed
    return replace(who, prompt=PROMPT_VERSION, settings=settings)


def flat(retrieval: Retrieval) -> dict[str, Value]:
    """Retrieval settings as plain values; those of several texts are joined by commas, and those
    that are not set are left out."""
    return {
        name: ",".join(value) if isinstance(value, tuple) else value
        for name, value in as_stored(retrieval).items()
        if value is not None
    }
