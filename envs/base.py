"""What an environment is to the rest of the project: tasks, the text environment, and the suite
that makes both.

A suite is a family of tasks that share an engine and a grammar. It lists its tasks, makes
environments that play them, states its action templates and brings an expert where it has one.
"""

import difflib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import gymnasium
from gymnasium import spaces

from ..task import Task

Info = dict[str, Any]

SPLITS = ("train", "valid", "test")
INSTRUCTIONS = "You act in a text environment. Answer with your next action and nothing else."
"""What an agent is told where nobody tells it more."""
MAX_STEPS = 100
"""Actions per episode where nobody says."""


@dataclass(frozen=True, slots=True)
class ActionTemplate:
    """One form that an action can take."""

    text: str
    """For example ``take {object} from {receptacle}``; braces mark what is filled in."""
    kind: str
    """``move`` (changes where the agent is), ``look`` (serves to see: look, examine, open), or
    ``act`` (changes the world)."""


class Expert(Protocol):
    """A scripted policy for one episode, deciding from the visible text alone."""

    def act(self, observation: str) -> str:
        """The next action, given the newest observation. The first call gets the opening
        observation."""
        ...


class TextEnv(gymnasium.Env[str, str]):
    """A text environment on the Gymnasium API.

    Its answers can be made with :mod:`relive.envs.steps`. `reset` takes the task in
    ``options={"task": task}``; without it, `seed` picks a task of the train split. Both `reset` and
    `step` return an `info` with

    * ``task``: the `Task` being played,
    * ``success``: whether the goal is reached,
    * ``invalid``: whether the last action was not understood or refused (False after reset),
    * ``score``: progress in [0, 1]; 1 exactly when won.

    Admissible commands are *not* in `info`: no policy sees them. `admissible()` is there for humans
    and for checks.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"]}  # noqa: RUF012 (gymnasium declares it so)
    observation_space: spaces.Space[str] = spaces.Text(
        100_000, min_length=0, charset=string.printable
    )
    action_space: spaces.Space[str] = spaces.Text(1_000, min_length=0, charset=string.printable)

    def admissible(self) -> Sequence[str]:
        """Commands that the engine would accept now, sorted. Not for policies."""
        raise NotImplementedError(f"{type(self).__name__} does not list admissible commands")


@runtime_checkable
class Suite(Protocol):
    """A family of tasks. Inherit from it to get what has a default here."""

    name: str
    version: str
    types: tuple[str, ...]
    """Task types, in the order in which reports list them."""
    groups: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Named sets of types, for example ``easy`` and ``hard``. A group may name types outside
    `types`: those are listed only when asked for by name (a sealed test set)."""
    templates: tuple[ActionTemplate, ...] = ()
    """The action forms listed once in the prompt."""
    instructions: str = INSTRUCTIONS
    """One or two sentences that open the prompt."""
    max_steps: int = MAX_STEPS
    """Default step limit of an episode."""

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks of a split, spread evenly over `types` (the suite's own `types` when
        empty), the same for the same arguments.

        `start` skips that many tasks *per type*, so that disjoint lists can be cut from one split.
        """
        ...

    def make(self) -> TextEnv:
        """A fresh environment that can play any task of the suite, one after the other."""
        ...

    def expert(self) -> Expert:
        """A fresh expert for one episode. Raises `NotImplementedError` when the suite has none."""
        raise NotImplementedError(f"suite {self.name!r} has no expert")


def has_expert(suite: Suite) -> bool:
    """Whether a suite brings an expert."""
    try:
        suite.expert()
    except NotImplementedError:
        return False
    return True


def checked_types(
    name: str, known: Sequence[str], split: str, types: Sequence[str]
) -> tuple[str, ...]:
    """The types asked for without repeats, empty for all; for `Suite.tasks`.

    Args:
        name: of the suite.
        known: its types.
        split, types: what was asked for.

    Raises:
        ValueError: there is no such split, or no such type; the message names the closest.
    """
    if split not in SPLITS:
        raise ValueError(f"suite {name!r} has no split {split!r}: use one of {', '.join(SPLITS)}")
    for kind in types:
        if kind not in known:
            close = difflib.get_close_matches(kind, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"suite {name!r} has no task type {kind!r}.{hint} It has {', '.join(known)}"
            )
    return tuple(dict.fromkeys(types))


def types_of(suite: Suite, names: Sequence[str]) -> tuple[str, ...]:
    """Task types from names of types and of groups (``easy``); unknown ones are left for
    `Suite.tasks` to complain about.

    Raises:
        TypeError: a text, whose letters would be taken for names.
    """
    if isinstance(names, str):
        raise TypeError(f"types must be a list of names: [{names!r}], not {names!r}")
    return tuple(dict.fromkeys(t for name in names for t in suite.groups.get(name, (name,))))
