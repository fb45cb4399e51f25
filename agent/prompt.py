"""The one prompt format: instructions, action templates, memory block, then the conversation.

Agent and training both build their prompts here, so there is nothing to keep in step by hand. The
format is versioned and frozen: a change of any byte is a new `PROMPT_VERSION`, because models are
trained on it. (What version 1 showed it shows still; shortened demonstrations and instructions as
goals came later, and stand only where it showed nothing.) Without demonstrations the prompt is,
byte for byte, the prompt of an agent that has no memory.

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
another room's furniture), and so are steps that led to nothing: see `condense`. Where goals are
whole instructions, a demonstration begins "Success. Task: {goal}". One that is too long for its
share of the block is shortened: see `shortened`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

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
    goal_form: str = "phrase"
    """``phrase`` or ``instruction``, see :class:`relive.envs.base.Suite`."""
    condense_by: str = "visits"
    """``visits`` or ``changes``, see `condense`."""
    reword: Callable[[Sequence[tuple[str, str]]], list[tuple[str, str]]] | None = field(
        default=None, compare=False
    )
    """Says an experience in the suite's own words (:meth:`relive.envs.Suite.reworded`); None where
    it has no others."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A past episode as it is shown."""

    goal: str
    success: bool
    steps: tuple[tuple[str, str], ...]
    """(action, the observation that followed). Without an action, the text is a remark on what is
    left out there."""
    episode: str = ""
    """Id of the episode it shows."""
    goal_form: str = "phrase"
    """``phrase`` or ``instruction``."""

    @property
    def head(self) -> str:
        """Its first line."""
        label = "Success" if self.success else "Failure"
        if self.goal_form == "instruction":
            return f"{label}. Task: {self.goal}"
        return f"{label}. Your task is to: {self.goal}."

    @property
    def text(self) -> str:
        """The demonstration as it stands in the prompt."""
        return self.head + "".join(map(_lines, self.steps))


def _lines(step: tuple[str, str]) -> str:
    action, seen = step
    return f"\nAction: {action}\nObservation: {seen}" if action else f"\n{seen}"


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


def condense(
    spec: PromptSpec, steps: Sequence[tuple[str, str]], refused: Collection[int] = ()
) -> tuple[tuple[str, str], ...]:
    """Leaves out what led to nothing; what remains is verbatim.

    By ``visits``: a move and the looks after it, when another move follows; repeats of the same
    action with the same answer are shown once. A recorded household demonstration loses about two
    thirds of its tokens this way (``scripts/measure_prompt.py``). By ``changes``, where nobody says
    what moves and what looks: actions that were refused, and repeats of the action before that got
    the same answer.

    Args:
        spec: says how, and which actions move and which only look.
        steps: (action, the observation that followed), in order.
        refused: indices of the steps that the environment refused.
    """
    if spec.condense_by == "changes":
        told = [step for index, step in enumerate(steps) if index not in refused]
        return tuple(step for n, step in enumerate(told) if n == 0 or step != told[n - 1])
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


def demonstration(spec: PromptSpec, episode: Episode, *, reword: bool = False) -> Demonstration:
    """What is shown of an episode; with `reword` in the suite's own words, where it was lived in
    others."""
    told = [
        (step, seen)
        for step, seen in zip(episode.steps, episode.observations[1:], strict=True)
        if step.action  # an answer without an action shows nothing
    ]
    lived = [(step.action, seen) for step, seen in told]
    steps = condense(
        spec,
        spec.reword(lived) if reword and spec.reword else lived,
        [index for index, (step, _) in enumerate(told) if step.invalid],
    )
    return Demonstration(
        episode.task.goal, episode.success, steps, episode.id, goal_form=spec.goal_form
    )


def fit(
    demonstrations: Iterable[Demonstration],
    budget: int,
    count: Callable[[str], int],
    k: int,
    *,
    shorten: bool = True,
    latest: str = "",
) -> tuple[Demonstration, ...]:
    """Up to `k` demonstrations that fit into `budget` tokens together. One that is too long is
    shortened to its share of what is left, or else passed over, and the next one is tried.

    Args:
        demonstrations: closest first; no more of them are made than are looked at.
        budget: tokens for the memory block.
        count: number of tokens of a text.
        k: how many at most.
        shorten: whether long ones are shortened at all.
        latest: what was done and seen last, where retrieval is dynamic; see `shortened`.
    """
    shown: list[Demonstration] = []
    left = budget
    if k and left:
        for demo in demonstrations:
            # Counting takes time, and no tokenizer has so many characters in a token.
            hopeless = len(demo.text) > _CHARACTERS * left
            cost = left + 1 if hopeless else count(demo.text) + _BETWEEN
            if cost > left and shorten:
                share = left // (k - len(shown)) - _BETWEEN
                demo = shortened(demo, share, count, latest)
                cost = count(demo.text) + _BETWEEN if demo.steps else left + 1
            if cost <= left:
                shown.append(demo)
                left -= cost
            if len(shown) == k or left < _LEAST:
                break
    return tuple(shown)


_BETWEEN = 2
"""Tokens of the blank line between demonstrations."""
_LEAST = 24
"""Tokens in which nothing can be shown."""
_CHARACTERS = 64
"""Characters of a token at most, on average."""
_LONG = 240
"""Characters of an observation in a shortened demonstration at most."""
_REMARK = 12
"""Tokens that a remark on what is left out takes at most."""


def shortened(
    demo: Demonstration, budget: int, count: Callable[[str], int], latest: str = ""
) -> Demonstration:
    """A demonstration in at most `budget` tokens.

    Long observations are cut first. Where that is not enough, steps are left out, with a remark in
    their place: retrieved once, at the start, it shows how the episode begins (two thirds) and how
    it ends; retrieved at every step, it shows a window that begins where the episode was most like
    what was done and seen last.

    Args:
        demo: the whole of it.
        budget: tokens.
        count: number of tokens of a text.
        latest: what was done and seen last; empty at the start.

    Returns:
        It has no steps where fewer than two fit.
    """
    left = budget - count(demo.head)
    if not demo.steps or left < 2 * _REMARK:
        return replace(demo, steps=())
    steps = [(action, _cut(seen)) for action, seen in demo.steps]
    # Only what can be shown is counted.
    cost = lru_cache(maxsize=None)(lambda index: count(_lines(steps[index])) + 1)
    kept = _ends(len(steps), cost, left)
    if len(kept) < len(steps):
        kept = (
            _window(len(steps), cost, left - 2 * _REMARK, _most_like(steps, latest))
            if latest
            else _ends(len(steps), cost, left - _REMARK)
        )
        if len(kept) < 2:
            return replace(demo, steps=())
        steps = _with_remarks(steps, kept)
    return replace(demo, steps=tuple(steps))


def _cut(seen: str) -> str:
    if len(seen) <= _LONG:
        return seen
    end = seen.rfind(" ", _LONG // 2, _LONG)
    return f"{seen[: end if end > 0 else _LONG]} …"


Cost = Callable[[int], int]
"""Tokens of a step, by its index."""


def _ends(steps: int, cost: Cost, budget: int) -> list[int]:
    """Indices of the first steps in two thirds of the budget, and of the last ones in the rest."""
    first, left = 0, budget
    while first < steps and cost(first) <= left - budget // 3:
        left -= cost(first)
        first += 1
    last = steps
    while last > first and cost(last - 1) <= left:
        last -= 1
        left -= cost(last)
    return [*range(first), *range(last, steps)]


def _window(steps: int, cost: Cost, budget: int, begin: int) -> list[int]:
    """Indices of consecutive steps from `begin` on, and before it where there is room left."""
    first = last = begin
    left = budget
    while last < steps and cost(last) <= left:
        left -= cost(last)
        last += 1
    while first and last == steps and cost(first - 1) <= left:
        first -= 1
        left -= cost(first)
    return list(range(first, last))


def _most_like(steps: Sequence[tuple[str, str]], latest: str) -> int:
    """Index of the step that has most words in common with what happened last."""
    words = set(latest.lower().split())

    def likeness(step: tuple[str, str]) -> float:
        own = set(" ".join(step).lower().split())
        return len(own & words) / max(1, len(own | words))

    return max(range(len(steps)), key=lambda index: likeness(steps[index]))


def _with_remarks(steps: Sequence[tuple[str, str]], kept: Sequence[int]) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    before = -1
    for index in [*kept, len(steps)]:
        if missing := index - before - 1:
            told.append(("", f"[{missing} actions left out]"))
        if index < len(steps):
            told.append(steps[index])
        before = index
    return told


EXPERIENCE = "\n\nExperience:"
"""What stands before the memory block in the system turn."""
_DEMONSTRATION = re.compile(r"(?=\n\n(?:Success|Failure)\. (?:Your task is to|Task): )")


def demonstrations_of(system: str) -> list[str]:
    """The demonstrations in a system turn's text, in the order in which they are read, each with
    the blank line before it; none where there is no memory block."""
    block = system.partition(EXPERIENCE)[2]
    return [part for part in _DEMONSTRATION.split(block) if part]


def system_text(spec: PromptSpec, demonstrations: Sequence[Demonstration] = ()) -> str:
    """The system turn. `demonstrations` come closest first and are shown closest last."""
    text = spec.instructions
    if spec.templates:
        text += f"\nActions: {', '.join(spec.templates)}"
    if spec.action_format.instruction:
        text += f"\n{spec.action_format.instruction}"
    if demonstrations:
        text += EXPERIENCE + "".join(f"\n\n{demo.text}" for demo in reversed(demonstrations))
    return text


def begin(
    spec: PromptSpec, observation: str, demonstrations: Sequence[Demonstration] = ()
) -> Conversation:
    """The conversation before the first action."""
    return (Turn("system", system_text(spec, demonstrations)), Turn("user", observation))


def extend(conversation: Conversation, action: Action, observation: str) -> Conversation:
    """The conversation one step later."""
    return (*conversation, action.turn, Turn("user", observation))
