"""Training examples: whole episodes under the context that retrieval would have given them.

The paper's recipe (Ferraz et al., arXiv:2603.18272): the agent's own retrieval builds the context
of each training episode. Trained like that alone, success falls from 88.5 to 29.5 when the memory
is empty, and to 39.3 when it holds the wrong task types; so at stated rates the memory is left out,
or filled with episodes that are beside the point.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..agent.conversation import Conversation, Turn
from ..agent.prompt import PromptSpec, begin, demonstration, fit
from ..agent.recall import Recall, Recalled
from ..memory.episode import Episode

SAMPLE = 64
"""Episodes among which those beside the point are the less similar half."""


@dataclass(frozen=True, slots=True)
class ContextRates:
    """How often an example's memory block is not what retrieval gives. The rest is retrieved as the
    agent would."""

    empty: float = 0.15
    """Share of examples without any memory."""
    irrelevant: float = 0.1
    """Share of examples whose memory is among the least similar half."""

    def __post_init__(self) -> None:
        if min(self.empty, self.irrelevant) < 0 or self.empty + self.irrelevant > 1:
            raise ValueError(
                f"context rates must be at least 0 and at most 1 together, got {self.empty} and "
                f"{self.irrelevant}"
            )


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation to learn from; assistant turns are the targets, but for those in
    `unlearnt`."""

    conversation: Conversation
    unlearnt: frozenset[int] = frozenset()
    """Indices among the assistant turns: refused actions, which are never a target."""
    memory: str = "retrieved"
    """``retrieved``, ``empty`` or ``irrelevant``."""


def example(
    spec: PromptSpec, episode: Episode, recalled: Recalled, memory: str = "retrieved"
) -> Example:
    """The episode as the agent would have seen it with these demonstrations, up to its last
    action."""
    turns: list[Turn] = list(begin(spec, episode.steps[0].observation, recalled.demonstrations))
    for i, step in enumerate(episode.steps):
        if i:
            turns.append(Turn("user", step.observation))
        turns.append(Turn("assistant", step.action, step.tokens))
    refused = frozenset(i for i, step in enumerate(episode.steps) if step.invalid)
    return Example(tuple(turns), refused, memory if recalled.demonstrations else "empty")


def build_examples(
    episodes: Sequence[Episode], recall: Recall, rates: ContextRates, seed: int
) -> list[Example]:
    """One example per episode; the same for the same arguments.

    Args:
        episodes: what to learn from, all with at least one step.
        recall: retrieval with purpose ``TRAIN``; with k = 0 no example has a memory block (plain
            LoRA).
        rates: how often the context is something else.
        seed: decides which examples.

    Raises:
        ValueError: `recall` is dynamic; an example is one conversation with one memory block.
    """
    if recall.dynamic:
        raise ValueError(
            "an episode is trained on under one memory block: use recall.query = 'static' for "
            "training"
        )
    examples = []
    for number, episode in enumerate(episodes):
        if not episode.steps:
            continue
        # Not by its id, which is another one in every run.
        rng = random.Random(f"{seed}/{episode.task.identity}/{number}")
        u = rng.random()
        spec = recall.spec
        if u < rates.empty or recall.settings.k == 0:
            examples.append(example(spec, episode, Recalled(), "empty"))
        elif u < rates.empty + rates.irrelevant:
            examples.append(example(spec, episode, _irrelevant(recall, episode, rng), "irrelevant"))
        else:
            # The firewall keeps the task itself out; the id keeps the episode out even if its task
            # were renamed.
            examples.append(
                example(
                    spec,
                    episode,
                    recall(episode.task, exclude=frozenset({episode.id})),
                    "retrieved",
                )
            )
    return examples


def _irrelevant(recall: Recall, episode: Episode, rng: random.Random) -> Recalled:
    """Episodes from the less similar half of a sample of what retrieval might show."""
    memory, task = recall.memory, episode.task
    query = recall.query(task.goal, frozenset({episode.id}))
    drawn = memory.draw(query, SAMPLE, rng.getrandbits(32), recall.holdout(task), recall.position)
    far = drawn[len(drawn) // 2 :]
    chosen = rng.sample(far, min(recall.settings.k, len(far)))
    found = [demonstration(recall.spec, memory.get(name, recall.position)) for name, _ in chosen]
    return Recalled(fit(found, recall.settings.budget, recall.count))
