"""More to learn from each success: variations of it that its suite knows to be true.

A suite says what else an episode shows (:meth:`relive.envs.Suite.variations`): the goal in other
words, another goal that was reached as well, the way back. Each becomes an episode to learn from,
and is never stored: it was not lived.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..envs import Suite
from ..envs.base import Variation
from ..memory.episode import Episode, Outcome, Step, StopReason


@dataclass(frozen=True, slots=True)
class Augmented:
    """What was made of some episodes."""

    episodes: tuple[Episode, ...]
    """The variations. Each has the id and the task's identity of the episode that it was made of,
    so that retrieval keeps that one out of its context; goal and type are its own."""
    counts: Mapping[str, int]
    """Variations of each kind."""


def augment(
    suite: Suite,
    episodes: Sequence[Episode],
    kinds: Sequence[str],
    types: Sequence[str] = (),
    most: int = 1,
    seed: int = 0,
) -> Augmented:
    """Variations of episodes.

    Args:
        suite: in which they were lived.
        episodes: successes, say.
        kinds: of variations; those of `suite.variation_kinds`.
        types: task types that variations may be of; any if empty.
        most: variations of a kind that one episode gives at most.
        seed: decides which, where there are more.

    Raises:
        ValueError: the suite knows no such kind.
    """
    if unknown := set(kinds) - set(suite.variation_kinds):
        raise ValueError(
            f"suite {suite.name!r} knows no variations of kind {', '.join(sorted(unknown))}: it "
            f"has {', '.join(suite.variation_kinds) or 'none'}"
        )
    found: list[Episode] = []
    counts: Counter[str] = Counter()
    for episode in episodes:
        actions = [step.action for step in episode.steps if not step.invalid]
        for kind in kinds:
            some = [
                one
                for one in suite.variations(episode.task, actions, kind)
                if not types or one.type in types
            ]
            rng = random.Random(f"{seed}/{kind}/{episode.task.identity}")
            chosen = rng.sample(some, min(most, len(some)))
            found += [_episode(episode, one) for one in chosen]
            counts[kind] += len(chosen)
    return Augmented(tuple(found), dict(counts))


def _episode(episode: Episode, variation: Variation) -> Episode:
    """The variation as if it had been lived."""
    seen = [variation.opening, *(observation for _, observation in variation.steps)]
    steps = tuple(
        Step(observation, action)
        for observation, (action, _) in zip(seen, variation.steps, strict=False)
    )
    return replace(
        episode,
        task=replace(episode.task, goal=variation.goal, type=variation.type),
        steps=steps,
        final_observation=seen[-1],
        outcome=Outcome(True, 1.0, StopReason.SOLVED),
    )
