"""The one prompt format: instructions, action templates, memory block, then the conversation.

Agent and training both build their prompts here, so there is nothing to keep in step by hand. The
format is versioned and frozen: a change of any byte is a new `PROMPT_VERSION`, because models are
trained on it. Without demonstrations the prompt is, byte for byte, the prompt of an agent that has
no memory.

Layout of the system turn (Ferraz et al., arXiv:2603.18272, section "Use", with successes and
failures labelled)::

    {instructions}
    Actions: {template}, {template}, ...
    {how an action is written, unless the turn is the action}

    Experience:

    Success. Your task is to: {goal}.
    Action: {action}
    Observation: {what followed}
    ...

The closest demonstration comes last, next to the task. Ranks are not shown, so a demonstration
reads the same wherever it stands. Opening observations are left out of demonstrations (they list
another room's furniture), and so are visits during which nothing was done: see `condense`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..memory.episode import Episode
from .action_format import PLAIN, ActionFormat
from .conversation import Action, Conversation, Turn

PROMPT_VERSION = "1"


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """What a suite contributes to the prompt."""

    instructions: str
    templates: tuple[str, ...]
    """Action forms, listed once. There is never a list of what is admissible now."""
    moves: tuple[str, ...] = ()
    """What the actions that change the agent's place start with, for example ``go to``."""
    looks: tuple[str, ...] = ()
    """What the actions that only reveal start with."""
    action_format: ActionFormat = PLAIN
    """How an action stands in an answer; the policy's, not the suite's."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A past episode as it is shown."""

    goal: str
    success: bool
    steps: tuple[tuple[str, str], ...]
    """(action, the observation that followed)."""
    episode: str = ""
    """Id of the episode it shows."""

    @property
    def text(self) -> str:
        """The demonstration as it stands in the prompt."""
        label = "Success" if self.success else "Failure"
        lines = "".join(f"\nAction: {action}\nObservation: {seen}" for action, seen in self.steps)
        return f"{label}. Your task is to: {self.goal}.{lines}"


def prompt_spec(
    instructions: str,
    templates: Iterable[tuple[str, str]],
    action_format: ActionFormat = PLAIN,
) -> PromptSpec:
    """A spec from (template, kind) pairs, kind being ``move``, ``look`` or ``act``."""
    pairs = list(templates)

    def starts(kind: str) -> tuple[str, ...]:
        return tuple(text.split("{")[0].strip() for text, k in pairs if k == kind)

    return PromptSpec(
        instructions, tuple(text for text, _ in pairs), starts("move"), starts("look"),
        action_format,
    )  # fmt: skip


def condense(spec: PromptSpec, steps: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Leaves out visits that led to nothing: a move and the looks after it, when another move
    follows.

    Repeats of the same action with the same answer are shown once. What remains is verbatim. A
    recorded household demonstration loses about two thirds of its tokens this way
    (``scripts/measure_prompt.py``).

    Args:
        spec: says which actions move and which only look.
        steps: (action, the observation that followed), in order.
    """
    kept: list[tuple[str, str]] = []
    visit: list[tuple[str, str]] = []
    for step in steps:
        action = step[0]
        if _starts(action, spec.moves):
            visit = [step]
        elif _starts(action, spec.looks):
            visit.append(step)
        else:
            kept += visit
            visit = []
            if not kept or kept[-1] != step:
                kept.append(step)
    return tuple(kept + visit)


def _starts(action: str, prefixes: tuple[str, ...]) -> bool:
    return any(action == prefix or action.startswith(prefix + " ") for prefix in prefixes)


def demonstration(spec: PromptSpec, episode: Episode) -> Demonstration:
    """What is shown of an episode."""
    steps = [
        (step.action, seen)
        for step, seen in zip(episode.steps, episode.observations[1:], strict=True)
        if step.action  # an answer without an action shows nothing
    ]
    return Demonstration(episode.task.goal, episode.success, condense(spec, steps), episode.id)


def fit(
    demonstrations: Sequence[Demonstration], budget: int, count: Callable[[str], int]
) -> tuple[Demonstration, ...]:
    """The leading demonstrations that fit into `budget` tokens together; one that is too long is
    passed over.

    Args:
        demonstrations: closest first.
        budget: tokens for the memory block.
        count: number of tokens of a text.
    """
    shown: list[Demonstration] = []
    left = budget
    for demo in demonstrations:
        cost = count(demo.text) + 2  # the blank line between demonstrations
        if cost <= left:
            shown.append(demo)
            left -= cost
    return tuple(shown)


def system_text(spec: PromptSpec, demonstrations: Sequence[Demonstration] = ()) -> str:
    """The system turn. `demonstrations` come closest first and are shown closest last."""
    text = spec.instructions
    if spec.templates:
        text += f"\nActions: {', '.join(spec.templates)}"
    if spec.action_format.instruction:
        text += f"\n{spec.action_format.instruction}"
    if demonstrations:
        text += "\n\nExperience:" + "".join(f"\n\n{demo.text}" for demo in reversed(demonstrations))
    return text


def begin(
    spec: PromptSpec, observation: str, demonstrations: Sequence[Demonstration] = ()
) -> Conversation:
    """The conversation before the first action."""
    return (Turn("system", system_text(spec, demonstrations)), Turn("user", observation))


def extend(conversation: Conversation, action: Action, observation: str) -> Conversation:
    """The conversation one step later."""
    return (*conversation, action.turn, Turn("user", observation))
