"""The bare base explores where memory knows nothing; the adapter does what it has learnt.

An adapter that was trained on its own successes narrows what the agent tries: where it has learnt
nothing, it still says what it knows (docs/log.md, self-improvement). What was retrieved says
whether the agent has been here before: with ``Retrieval.min_score`` nothing is shown that does not
fit, and an empty block hands the task to the base.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...memory.episode import Actor
from ..conversation import Action, Asked, Policy, Together
from ..policy import actor_of
from .council import joined
from .through import Through


class Explorer(Through):
    """Two policies, of which what was retrieved chooses one.

    Args:
        tuned: acts where something is shown.
        base: acts where nothing is: the bare model, or one with another adapter.
    """

    def __init__(self, tuned: Policy, base: Policy) -> None:
        super().__init__(tuned)
        self.tuned, self.base = tuned, base
        self.playing = Together(tuned, base)

    @property
    def actor(self) -> Actor:
        """The tuned one, and that it leaves to the base what it does not know; both where both have
        adapters."""
        tuned, base = actor_of(self.tuned), actor_of(self.base)
        acts = joined(tuned, [tuned, base]) if base.adapter else tuned
        return replace(acts, settings={**tuned.settings, "explores": True})

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        """One action for each, see `relive.agent.conversation.TaskPolicy.answer`."""
        answers: dict[int, Action] = {}
        for policy, knows in ((self.tuned, True), (self.base, False)):
            mine = [i for i, one in enumerate(asked) if bool(one.shown) is knows]
            if mine:
                said = policy.act(
                    [asked[i].conversation for i in mine], [asked[i].seed for i in mine]
                )
                answers.update(zip(mine, said, strict=True))
        return [answers[i] for i in range(len(asked))]
