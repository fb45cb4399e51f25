"""The data the whole project speaks: steps, episodes and their outcomes.

Everything here is frozen, holds plain fields only and knows nothing about environments or models,
so that an episode written today can be read by a program that has neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ..task import Task


class StopReason(StrEnum):
    """Why an episode ended. Every episode ends with exactly one of these; none is a lost run."""

    SOLVED = "solved"
    """The environment said that the goal was reached."""
    FAILED = "failed"
    """The environment ended the episode without the goal being reached."""
    STEP_LIMIT = "step limit"
    """The step budget ran out."""
    ENVIRONMENT_ERROR = "environment error"
    """The environment raised, died or did not answer in time; says nothing about the policy."""
    POLICY_ERROR = "policy error"
    """The policy raised, or the conversation no longer fitted into its context."""
    STUCK = "stuck"
    """The policy repeated what was refused, as often as the run's settings bear."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """One past episode that was in the context."""

    episode: str
    """Its id."""
    score: float
    """Similarity with the query, higher is closer."""


@dataclass(frozen=True, slots=True)
class Step:
    """What was seen, what was done about it, what that brought."""

    observation: str
    """The text the agent read before acting."""
    action: str
    """What it said, as text."""
    reward: float = 0.0
    """Reward of this action alone, not cumulative."""
    invalid: bool = False
    """The environment did not understand the action or refused it."""
    tokens: tuple[int, ...] = ()
    """The action as sampled (never re-tokenised); empty when no language model acted."""
    retrieved: tuple[Retrieved, ...] = ()
    """What was retrieved for this step; static retrieval notes it at the first step only."""
    reasoning: str = ""
    """What was thought before the action, where that was recorded; never part of the action."""
    said: str = ""
    """The whole answer that the action was read from, where it is more than the action."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended."""

    success: bool
    score: float
    """Progress at the end, in [-1, 1]; 1 exactly when the goal was reached, below 0 where losing
    costs points. Tables show it clamped at 0, as papers do."""
    reason: StopReason
    detail: str = ""
    """For errors: exception type and message."""
    best: float = 0.0
    """Highest score at any point, the end included; 0 also where nobody kept it."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acted: enough to tell two policies apart and to make the same one again."""

    policy: str
    """Kind of policy: ``expert``, ``random``, ``replay``, ``local``."""
    model: str = ""
    """Model folder or hub name; empty for scripted policies."""
    weights: str = ""
    """SHA-256 of the model's weights."""
    adapter: str = ""
    """Adapter version, for example ``v3``; empty for the bare model."""
    prompt: str = ""
    """Version of the prompt format."""
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """Decoding and retrieval settings."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One attempt at one task, from the first observation to the end."""

    id: str
    """Unique within a memory."""
    task: Task
    steps: tuple[Step, ...]
    final_observation: str
    """What was seen after the last action."""
    outcome: Outcome
    actor: Actor
    memory_position: int = -1
    """Log position of the memory that was read; -1 when none was."""
    started: float = 0.0
    """Unix time in seconds."""
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by part: ``policy``, ``environment``, ``retrieval``, ``total``."""
    ratings: Mapping[str, float] = field(default_factory=dict)
    """Ratings given afterwards, by name."""
    usage: Mapping[str, float] = field(default_factory=dict)
    """What its actor used: tokens of prompts (``prompt``) and of answers (``completion``), and what
    they cost (``cost``), where somebody counted. ``dropped``: how many of its own first actions it
    no longer saw at the end, because the conversation outgrew the model's context."""

    @property
    def success(self) -> bool:
        """Whether the goal was reached."""
        return self.outcome.success

    @property
    def retrieved(self) -> tuple[Retrieved, ...]:
        """All past episodes that were in the context at one step or another, each once."""
        first: dict[str, Retrieved] = {}
        for step in self.steps:
            for one in step.retrieved:
                first.setdefault(one.episode, one)
        return tuple(first.values())

    @property
    def observations(self) -> tuple[str, ...]:
        """All observations, the final one included: one more than there are actions."""
        return (*(step.observation for step in self.steps), self.final_observation)
