"""A council of specialists: one adapter for each kind of task, and what was retrieved says whose
case it is.

Every member learns from one kind of episode (a task type, or a cluster of the memory). Who has seen
such episodes before speaks first; where nobody has, all of them answer and agreement decides; where
they do not agree, the bare base is asked, which has unlearnt nothing. Members share the base's
weights in memory (:meth:`relive.agent.llm.local.LocalModel.twin`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ...memory.episode import Actor
from ..conversation import Action, Asked, Policy, Together
from ..policy import actor_of
from .through import Through
from .votes import Vote, vote

Rule = Literal["route", "vote"]
"""``route``: the member whose kind was retrieved answers alone, and all where there is none.
``vote``: all of them always answer."""


class Council(Through):
    """Specialists that act as one.

    Args:
        members: by the kind of task that they know.
        base: who is asked where they do not agree.
        kind_of: kind of a past episode, by its id.
        rule: who answers.

    Raises:
        ValueError: it has no members, or there is no such rule.
    """

    def __init__(
        self,
        members: Mapping[str, Policy],
        base: Policy,
        kind_of: Callable[[str], str],
        rule: Rule = "route",
    ) -> None:
        if not members or rule not in ("route", "vote"):
            raise ValueError(
                f"a council needs members, and a rule route or vote: got {len(members)} and "
                f"{rule!r}"
            )
        super().__init__(base)
        self.members, self.base, self.kind_of, self.rule = dict(members), base, kind_of, rule
        self.playing = Together(base, *members.values())
        self.agreed: dict[str, list[float]] = {}
        """Task identity -> at each of its decisions, the share of answers that named the action
        taken; 1 where one member answered alone."""

    @property
    def actor(self) -> Actor:
        """The base, with all members' adapters."""
        base = actor_of(self.base)
        all_ = joined(base, [actor_of(member) for member in self.members.values()])
        return replace(all_, policy="council", settings={**base.settings, "council": self.rule})

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        """One action for each, see `relive.agent.conversation.TaskPolicy.answer`."""
        speak = [self.speakers(one.shown) for one in asked]
        answers: list[list[Action]] = [[] for _ in asked]
        for name, member in self.members.items():
            mine = [i for i, names in enumerate(speak) if name in names]
            for i, action in zip(mine, _ask(member, [asked[i] for i in mine]), strict=True):
                answers[i].append(action)
        votes = [vote(some) for some in answers]
        torn = [i for i, one in enumerate(votes) if not one.unique]
        for i, action in zip(torn, _ask(self.base, [asked[i] for i in torn]), strict=True):
            votes[i] = _decided([*answers[i], action], action.text)
        for one, decided in zip(asked, votes, strict=True):
            self.agreed.setdefault(one.task.identity, []).append(decided.agreement)
        return [decided.action for decided in votes]

    def speakers(self, shown: Sequence[str]) -> list[str]:
        """Who answers where these past episodes are in the context."""
        known = [kind for kind in dict.fromkeys(map(self.kind_of, shown)) if kind in self.members]
        return known if known and self.rule == "route" else list(self.members)


def joined(base: Actor, members: Sequence[Actor]) -> Actor:
    """A record of who acts, with the adapters and weights of all members."""
    return replace(
        base, adapter="+".join(one.adapter for one in members),
        weights="+".join(one.weights[:12] for one in members),  # whole ones would fill a page
    )  # fmt: skip


def _ask(policy: Policy, asked: Sequence[Asked]) -> list[Action]:
    if not asked:
        return []
    return policy.act([one.conversation for one in asked], [one.seed for one in asked])


def _decided(answers: Sequence[Action], text: str) -> Vote:
    """The vote of answers that one of them decides."""
    agreement = sum(answer.text == text for answer in answers) / len(answers)
    last = vote(answers).action.usage
    winner = next(answer for answer in reversed(answers) if answer.text == text)
    return Vote(replace(winner, usage=last), agreement, True)
