"""What a recorded episode was shown: the texts in its prompts, and why each of them was chosen.

An episode's record names the past episodes that were in the context. Their texts are made anew by
the functions that made them then, from the memory as it was, and with the tokenizer that counted
then, where it is at hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from ...envs.adapt import GymnasiumSuite
from ...envs.base import INSTRUCTIONS
from ...memory import Memory, Purpose, Retrieval
from ...memory.episode import Actor, Episode
from ...memory.plain import stored_name
from ...memory.query import Explanation
from ..evaluation.stored import in_its_format, stored_spec, stored_suite
from ..policy import words
from ..prompt import PromptSpec, prompt_spec, system_text
from ..retriever import MemoryRetriever
from ..settings import build


@dataclass(frozen=True, slots=True)
class Shown:
    """One past episode in a prompt."""

    episode: str
    text: str
    """As it stood there."""
    steps: tuple[tuple[str, str], ...]
    """(action, what followed) of the text."""
    tokens: int
    explanation: Explanation | None
    """Why it was chosen; None where the memory no longer says."""


class Prompts:
    """Makes the prompts of recorded episodes anew.

    Args:
        memory: what was read; None where it is not at hand, and nothing is known but names.
    """

    def __init__(self, memory: Memory | None) -> None:
        self.memory = memory

    def head(self, episode: Episode) -> str:
        """The system turn without its memory block."""
        return system_text(_spec(episode))

    def shown(self, episode: Episode, number: int) -> list[Shown] | None:
        """What was in the context of a step at which the memory was asked, closest first.

        Args:
            episode: a recorded one.
            number: of the step.

        Returns:
            None where it cannot be said: the memory is not at hand, is another one than then, or
            would show something else now.
        """
        recorded = episode.steps[number].retrieved
        if not recorded:
            return []
        retriever = self._retriever(episode)
        if retriever is None:
            return None
        try:
            history = [
                (step.action, seen)
                for step, seen in zip(
                    episode.steps[:number], episode.observations[1:], strict=False
                )
            ]
            context = retriever(episode.task, history, opening=episode.observations[0])
        except (LookupError, ValueError):
            return None
        names = [one.episode for one in recorded]
        if [demo.episode for demo in context.demonstrations] != names:
            return None
        why = self._explanations(retriever, episode, history)
        return [
            Shown(
                demo.episode, demo.text, demo.steps, retriever.count(demo.text),
                why.get(demo.episode),
            )
            for demo in context.demonstrations
        ]  # fmt: skip

    def _retriever(self, episode: Episode) -> MemoryRetriever | None:
        settings = _retrieval(episode.actor)
        if self.memory is None or settings is None or episode.memory_position < 0:
            return None
        if not 0 <= episode.memory_position <= self.memory.position:
            return None
        purpose: Purpose | None = None  # in an environment of one's own everything may be shown
        if stored_suite(episode.task.suite)[0] is not None:
            purpose = Purpose.ACT if episode.task.split == "train" else Purpose.EVALUATE
        count = _counter(episode.actor.policy, episode.actor.model)
        return MemoryRetriever(
            self.memory, _spec(episode), count, settings, purpose, episode.memory_position
        )

    def _explanations(
        self, retriever: MemoryRetriever, episode: Episode, history: Sequence[tuple[str, str]]
    ) -> dict[str, Explanation]:
        asked = retriever.asked(episode.task, history, episode.observations[0])
        hits = retriever.memory.search(
            retriever.query(episode.task, asked), retriever.holdout(episode.task),
            at=retriever.position,
        )  # fmt: skip
        return {hit.episode_id: hit.explanation for hit in hits}


def _retrieval(actor: Actor) -> Retrieval | None:
    """The retrieval settings that an actor recorded; None for one without a memory."""
    told = dict(actor.settings)
    if "k" not in told:
        return None
    values: dict[str, Any] = {}
    for one in fields(Retrieval):
        name = stored_name(one)
        if name in told:
            listed = one.type in ("tuple[str, ...]", tuple[str, ...])
            values[name] = str(told[name]).split(",") if listed else told[name]
    return build(Retrieval, values, stored=True)


def _spec(episode: Episode) -> PromptSpec:
    """The suite's part of the prompt; of an environment that is no suite, what those have."""
    spec, _ = stored_spec(episode.task.suite)
    if spec is None:
        own = GymnasiumSuite
        spec = prompt_spec(INSTRUCTIONS, ())
        spec = replace(spec, goal_form=own.goal_form, condense_by=own.condense_by)
    return in_its_format(spec, episode)


@lru_cache
def _counter(policy: str, model: str) -> Callable[[str], int]:
    """What counted tokens then: the model's tokenizer where it can be loaded here, else words."""
    if not policy.startswith("local"):
        return words
    try:
        from ..llm.load import token_counter

        return token_counter(model)
    except (OSError, ValueError, ImportError):
        return words
