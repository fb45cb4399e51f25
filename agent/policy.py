"""Policies that are no model: functions, the expert, a random one, one that repeats recorded
episodes; and what is recorded of any policy.

What they do follows from what they are asked alone, so they may be called in any order and batch.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import cast

from ..envs import Expert, Suite
from ..envs.wander import random_action
from ..memory import Retrieval
from ..memory.episode import Actor, Episode
from ..task import Task
from .action_format import ActionFormat, Read, format_of
from .conversation import ADMISSIBLE, Action, AnyPolicy, Asked, Conversation, messages
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


def as_policy(policy: object) -> AnyPolicy:
    """A policy from whatever acts: an object with ``act`` (see `Policy`) or ``answer`` (see
    `TaskPolicy`), or a function from messages to text.

    Raises:
        TypeError: it is neither, or a class instead of an object.
    """
    if isinstance(policy, type):
        raise TypeError(f"the policy is the class {policy.__name__}: give an object of it")
    if callable(getattr(policy, "act", None)) or callable(getattr(policy, "answer", None)):
        return cast(AnyPolicy, policy)
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
    """The suite's expert: one for each episode, shown the observations as they come.

    Asked about a conversation that is not the one it saw last, for example after a restart, it
    begins anew and reads all of it.
    """

    actor = Actor("expert")

    def __init__(self, suite: Suite) -> None:
        self._make = suite.expert
        self._episodes: OrderedDict[str, tuple[Expert, list[str], Action]] = OrderedDict()

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        """The expert's next action for each conversation."""
        return [self._act(one.task, _plain(one.conversation)) for one in asked]

    def _act(self, task: Task, seen: list[str]) -> Action:
        expert, read, action = self._episodes.pop(task.identity, (None, [], Action("")))
        if expert is None or seen[:-1] != read:
            expert, read = self._make(task), []
        for text in seen[len(read) :]:
            action = Action(expert.act(text))
        self._episodes[task.identity] = (expert, seen, action)
        while len(self._episodes) > _EPISODES:
            self._episodes.popitem(last=False)
        return action


def _plain(conversation: Conversation) -> list[str]:
    """The observations without what a run lists below them."""
    return [seen.partition(ADMISSIBLE)[0] for seen in observations(conversation)]


_EPISODES = 256
"""Episodes that an expert plays at once at most before it has to read one anew."""


class RandomPolicy:
    """Fills a random template with random names out of what it has read; the floor of every
    comparison. Where a run lists admissible commands, it takes one of these."""

    actor = Actor("random")

    def __init__(self, suite: Suite) -> None:
        self._suite = suite

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        """One random action per conversation, determined by its seed."""
        return [Action(self._choose(one)) for one in asked]

    def _choose(self, one: Asked) -> str:
        rng = random.Random(one.seed)
        if one.admissible:
            return rng.choice(one.admissible)
        return random_action(self._suite, rng, _plain(one.conversation))


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


def counter_of(policy: object) -> Callable[[str], int]:
    """The policy's own ``count_tokens``, where it has one; else the number of words."""
    count = getattr(policy, "count_tokens", None)
    return count if callable(count) else words


def actor_of(
    policy: object,
    retrieval: Retrieval | None = None,
    seed: int | None = None,
    admissible: bool = False,
) -> Actor:
    """The record of who acts.

    Args:
        policy: who; its attribute ``actor``, where it has one, says what it is and how it decides.
        retrieval: what it is shown; None for no memory.
        seed: of the run.
        admissible: whether it sees what would be accepted.
    """
    who = getattr(policy, "actor", None)
    if not isinstance(who, Actor):
        who = Actor("custom", model=type(policy).__qualname__)
    settings: dict[str, Value] = dict(who.settings)
    if retrieval is not None:
        settings |= flat(retrieval)
    if seed is not None:
        settings["seed"] = seed
    if admissible:  # another policy, whose episodes count for nothing else
        settings["admissible"] = True
        who = replace(who, policy=f"{who.policy} (admissible)")
    return replace(who, prompt=PROMPT_VERSION, settings=settings)


def flat(retrieval: Retrieval) -> dict[str, Value]:
    """Retrieval settings as plain values; those of several texts are joined by commas, and those
    that are not set are left out."""
    return {
        name: ",".join(value) if isinstance(value, tuple) else value
        for name, value in as_stored(retrieval).items()
        if value is not None
    }
