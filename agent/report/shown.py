"""What a recorded episode was shown: the texts in its prompts, and why each of them was chosen.

An episode's record names the past episodes that were in the context. Their texts are made anew by
the functions that made them then, from the memory as it was, and with the tokenizer that counted
then, where it is at hand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from ...envs.adapt import GymnasiumSuite
from ...envs.base import INSTRUCTIONS
from ...memory import Memory, Purpose, Retrieval
from ...memory.episode import Actor, Episode
from ...memory.plain import stored_name
from ...memory.query import Explanation
from ...task import Task
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


class Unknown(StrEnum):
    """Why nobody can say what was shown."""

    NOT_ASKED = "left out"
    """It was not asked for."""
    NO_MEMORY = "the memory that was read is not at hand: give it with --memory"
    NO_SETTINGS = "the episode does not say how the memory was asked"
    OTHER_MEMORY = "the memory at hand is not the one that was read, or an older state of it"
    SUITE = "the suite was named with an argument, which may open anything and is not opened here"
    CHANGED = (
        "the memory would show something else now: episodes were deleted for good, or the "
        "tokenizer or the suite that was used then is not here"
    )


class Prompts:
    """Makes the prompts of recorded episodes anew.

    Args:
        memory: what was read; or why nothing is known but names.
    """

    def __init__(self, memory: Memory | Unknown) -> None:
        self.memory = memory

    def head(self, episode: Episode) -> str:
        """The system turn without its memory block."""
        return system_text(spec_of_episode(episode))

    def remarks(self, episode: Episode) -> list[str]:
        """In what a prompt that is made anew differs from the one that was read."""
        found = []
        if stored_suite(episode.task.suite)[0] is None:
            found.append(
                "The environment is not known here: these are the instructions that environments "
                "without their own have."
            )
        if episode.actor.settings.get("admissible"):
            found.append(
                "Below every observation stood the commands that would be accepted; they are not "
                "recorded."
            )
        return found

    def shown(self, episode: Episode, number: int) -> list[Shown] | Unknown:
        """What was in the context of a step at which the memory was asked, closest first.

        Args:
            episode: a recorded one.
            number: of the step.

        Returns:
            Or why it cannot be said.
        """
        recorded = episode.steps[number].retrieved
        if not recorded:
            return []
        retriever = self._retriever(episode)
        if isinstance(retriever, Unknown):
            return retriever
        try:
            history = [
                (step.action, seen)
                for step, seen in zip(
                    episode.steps[:number], episode.observations[1:], strict=False
                )
            ]
            context = retriever(episode.task, history, opening=episode.observations[0])
        except LookupError:
            return Unknown.OTHER_MEMORY
        except ValueError:
            return Unknown.CHANGED
        names = [one.episode for one in recorded]
        if [demo.episode for demo in context.demonstrations] != names:
            known = {entry.episode_id for entry in retriever.memory.entries()}
            return Unknown.CHANGED if set(names) <= known else Unknown.OTHER_MEMORY
        why = self._explanations(retriever, episode, history)
        return [
            Shown(
                demo.episode, demo.text, demo.steps, retriever.count(demo.text),
                why.get(demo.episode),
            )
            for demo in context.demonstrations
        ]  # fmt: skip

    def _retriever(self, episode: Episode) -> MemoryRetriever | Unknown:
        if isinstance(self.memory, Unknown):
            return self.memory
        try:
            settings = _retrieval(episode.actor)
        except (TypeError, ValueError):  # of another version, or made up
            settings = None
        if settings is None or episode.memory_position < 0:
            return Unknown.NO_SETTINGS
        if ":" in episode.task.suite:
            return Unknown.SUITE
        if episode.memory_position > self.memory.position:
            return Unknown.OTHER_MEMORY
        count = _counter(episode.actor.policy, episode.actor.model)
        return MemoryRetriever(
            self.memory, spec_of_episode(episode), count, settings, purpose_of(episode.task),
            episode.memory_position,
        )  # fmt: skip

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


def purpose_of(task: Task) -> Purpose | None:
    """What for a memory is asked by whoever plays a task, by what the task says of itself. In an
    environment of one's own everything may be shown, unless it is under evaluation."""
    if task.split != "train":
        return Purpose.EVALUATE
    return None if stored_suite(task.suite)[0] is None else Purpose.ACT


def spec_of_episode(episode: Episode) -> PromptSpec:
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
