"""Training examples: whole episodes under the context that retrieval would have given them.

The paper's recipe (Ferraz et al., arXiv:2603.18272): the agent's own retrieval builds the context
of each training episode. Trained like that alone, success falls from 88.5 to 29.5 when the memory
is empty, and to 39.3 when it holds the wrong task types; so at stated rates the memory is left out,
or filled with episodes that are beside the point.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..agent.conversation import Conversation, Turn
from ..agent.prompt import PromptSpec, begin, demonstration, fit, system_text
from ..agent.retriever import MemoryRetriever, RetrievedContext, first_steps, ordered
from ..memory.episode import Episode, Step

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
    fade: float = field(default=0.0, metadata={"sparse": True})
    """A curriculum from memory to none: of the examples that have a memory, the share that loses it
    grows over the training from 0 to this."""

    def __post_init__(self) -> None:
        if (
            min(self.empty, self.irrelevant) < 0
            or self.empty + self.irrelevant > 1
            or not 0 <= self.fade <= 1
        ):
            raise ValueError(
                f"context rates must be at least 0 and at most 1 together, got {self.empty} and "
                f"{self.irrelevant}; fade must be from 0 to 1, got {self.fade}"
            )


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation to learn from; assistant turns are the targets, but for those in
    `masked_turns`."""

    conversation: Conversation
    masked_turns: frozenset[int] = frozenset()
    """Indices among the assistant turns: refused actions, which are never a target."""
    memory: str = "retrieved"
    """``retrieved``, ``empty`` or ``irrelevant``."""
    fading: Conversation | None = None
    """The same without a memory, where a curriculum goes from memory to none."""


def example(
    spec: PromptSpec, episode: Episode, context: RetrievedContext, memory: str = "retrieved"
) -> Example:
    """The episode as the agent would have seen it with these demonstrations, up to its last
    action. Where retrieval asked once more after some steps, all of it is under what was shown
    then."""
    turns: list[Turn] = list(begin(spec, episode.steps[0].observation, context.demonstrations))
    for i, step in enumerate(episode.steps):
        if i:
            turns.append(Turn("user", step.observation))
        turns.append(answer_of(spec, step))
    refused = frozenset(i for i, step in enumerate(episode.steps) if step.invalid)
    return Example(tuple(turns), refused, memory if context.demonstrations else "empty")


def answer_of(spec: PromptSpec, step: Step) -> Turn:
    """What the model is to say at a step: what was said, if that is the action in the prompt's
    format, else the action written in it."""
    action_format = spec.action_format
    said = step.said or step.action
    if not step.action:
        return Turn("assistant", said, step.tokens, step.reasoning)
    if action_format.read(said) == step.action:
        return Turn("assistant", said, step.tokens, step.reasoning)
    written = action_format.write(step.action)
    if action_format.read(written) != step.action:
        raise ValueError(
            f"action format {action_format.name} cannot write {step.action!r} (it reads "
            f"{action_format.read(written)!r} from {written!r}): give a relive.agent.action_format."
            "ActionFormat whose write is the reverse of its read"
        )
    return Turn("assistant", written, (), step.reasoning)


def build_examples(
    episodes: Sequence[Episode], retriever: MemoryRetriever, rates: ContextRates, seed: int
) -> list[Example]:
    """One example per episode; the same for the same arguments.

    Args:
        episodes: what to learn from, all with at least one step.
        retriever: retrieval with purpose ``TRAIN``; with k = 0 no example has a memory block (plain
            LoRA).
        rates: how often the context is something else.
        seed: decides which examples.

    Raises:
        ValueError: `retriever` is dynamic; an example is one conversation with one memory block.
    """
    if retriever.settings.query == "dynamic":
        raise ValueError(
            "an episode is trained on under one memory block: use retrieval.query = 'static' or "
            "'opening' for training"
        )
    examples = []
    for number, episode in enumerate(episodes):
        if not episode.steps:
            continue
        # Not by its id, which is another one in every run.
        rng = random.Random(f"{seed}/{episode.task.identity}/{number}")
        u = rng.random()
        spec = retriever.spec
        if u < rates.empty or retriever.settings.k == 0:
            examples.append(example(spec, episode, RetrievedContext(), "empty"))
        elif u < rates.empty + rates.irrelevant:
            examples.append(
                example(spec, episode, _irrelevant(retriever, episode, rng), "irrelevant")
            )
        else:
            # The holdout keeps the task itself out; the id keeps the episode out even if its task
            # were renamed.
            examples.append(
                example(
                    spec,
                    episode,
                    retriever(
                        episode.task,
                        first_steps(episode, retriever.settings.refresh_after),
                        exclude=frozenset({episode.id}),
                        opening=episode.steps[0].observation,
                    ),
                    "retrieved",
                )
            )
    if rates.fade:
        return [_fading(retriever.spec, one) for one in examples]
    return examples


def _fading(spec: PromptSpec, one: Example) -> Example:
    if one.memory == "empty":
        return one
    system = replace(one.conversation[0], text=system_text(spec))
    return replace(one, fading=(system, *one.conversation[1:]))


def _irrelevant(
    retriever: MemoryRetriever, episode: Episode, rng: random.Random
) -> RetrievedContext:
    """Episodes from the less similar half of a sample of what retrieval might show."""
    memory, task = retriever.memory, episode.task
    history = first_steps(episode, retriever.settings.refresh_after)
    asked = retriever.asked(task, history, episode.observations[0])
    query = retriever.query(task, asked, frozenset({episode.id}))
    drawn = memory.draw(
        query, SAMPLE, rng.getrandbits(32), retriever.holdout(task), retriever.position
    )
    s = retriever.settings
    far = drawn[len(drawn) // 2 :]
    chosen = rng.sample(far, min(retriever.settings.k, len(far)))
    found = [
        demonstration(retriever.spec, memory.get(name, retriever.position), reword=s.translate)
        for name, _ in chosen
    ]
    latest = " ".join(history[-1]) if history else ""
    shown = fit(
        found, s.max_tokens, retriever.count, s.k, shorten=s.long == "shorten", latest=latest
    )
    return RetrievedContext(ordered(shown, s.order, task))
