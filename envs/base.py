"""What an environment is to the rest of the project: tasks, the text environment, and the suite
that makes both.

A suite is a family of tasks that share an engine and a grammar. It lists its tasks, makes
environments that play them, states its action templates and brings an expert where it has one.
"""

import difflib
import string
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol

import gymnasium
from gymnasium import spaces

from ..task import Task
from .names import names_in

Info = dict[str, Any]

SPLITS = ("train", "valid", "test")
"""The splits of a suite that has no names of its own for them."""
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
    """Whoever knows how to play one episode; what it knows is said by `Suite.expert_kind`."""

    def act(self, observation: str) -> str:
        """The next action, given the newest observation. The first call gets the opening
        observation, and every later one the answer to the action before."""
        ...


class TextEnv(gymnasium.Env[str, str]):
    """A text environment on the Gymnasium API.

    Its answers can be made with :mod:`relive.envs.steps`. `reset` takes the task in
    ``options={"task": task}``; without it, `seed` picks a task of the train split. Both `reset` and
    `step` return an `info` with

    * ``task``: the `Task` being played, with its goal where the listing had none,
    * ``success``: whether the goal is reached,
    * ``invalid``: whether the last action was not understood or refused (False after reset, and
      always where the engine does not say),
    * ``score``: progress in [0, 1]; 1 exactly when won. An episode that is lost for good may score
      less than 0, down to -1.

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


@dataclass(frozen=True, slots=True)
class Variation:
    """Something else that an episode's actions show, checked in the game that it belongs to."""

    kind: str
    """What was varied, see :attr:`Suite.variation_kinds`."""
    goal: str
    type: str
    opening: str
    """First observation."""
    steps: tuple[tuple[str, str], ...]
    """(action, the observation that followed), up to where the goal holds."""


class Suite(ABC):
    """A family of tasks: what every suite inherits from, with a default for whatever has one."""

    name: str
    version: str
    types: tuple[str, ...]
    """Task types, in the order in which reports list them."""
    groups: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Named sets of types, for example ``easy`` and ``hard``. A group may name types outside
    `types`: those are listed only when asked for by name (a sealed test set)."""
    splits: tuple[str, ...] = SPLITS
    """Names of the splits. ``train`` is always one of them."""
    validation_split: str = "valid"
    """The split that is played where ``valid`` is asked for."""
    test_split: str = "test"
    """The split that is played where ``test`` is asked for."""
    rooms_shared: tuple[str, ...] = ()
    """Splits that are played in rooms of the train split (ALFWorld's ``valid_seen``)."""
    repeats: tuple[str, ...] = ()
    """Types of which a package itself gives the same game under several seeds, in one split or in
    two. Declared, so that whoever measures generalisation knows."""
    templates: tuple[ActionTemplate, ...] = ()
    """The action forms listed once in the prompt."""
    instructions: str = INSTRUCTIONS
    """One or two sentences that open the prompt."""
    goal_form: Literal["phrase", "instruction"] = "phrase"
    """``phrase`` follows the words "Your task is to:" (put a mug in the sink); ``instruction`` is
    one or more whole sentences."""
    condense_by: Literal["visits", "changes"] = "visits"
    """How demonstrations are shortened (:func:`relive.agent.prompt.condense`): by the kinds of the
    templates, or by what actions changed, where no kinds are known."""
    max_steps: int = MAX_STEPS
    """Default step limit of an episode; see `limit`."""
    expert_kind: Literal["", "reads text", "scripted"] = ""
    """What the expert decides by: the visible text alone, or a solution that it was given. Empty
    where there is none."""
    processes: int = 0
    """Environments of the suite need processes of their own, and so many unless somebody says
    otherwise; 0: they play anywhere."""
    preload: tuple[str, ...] = ()
    """Modules worth importing before a worker is forked."""
    copies: int = 0
    """How many environments there can be at once; 0 for any number."""

    @abstractmethod
    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks of a split, spread evenly over `types` (the suite's own `types` when
        empty), the same for the same arguments; types that have fewer are passed over when they are
        used up (:func:`relive.envs.listing.spread`).

        `start` skips that many tasks *per type*, so that disjoint lists can be cut from one split.

        Raises:
            ValueError: unknown split or type, a negative number, or more than there are.
        """

    @abstractmethod
    def make(self) -> TextEnv:
        """A fresh environment that can play any task of the suite, one after the other."""

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int | None:
        """How many tasks `tasks` can list; None where they are made as they are asked for.

        Raises:
            ValueError: unknown split or type.
        """
        return None

    def count(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        """As `size`.

        Raises:
            ValueError: as `size`, and where there is no last task.
        """
        there = self.size(split, types, start)
        if there is None:
            raise ValueError(
                f"suite {self.name!r} makes as many tasks as are asked for: give a number"
            )
        return there

    def up_to(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks as `tasks` lists them, or as many as there are."""
        there = self.size(split, types, start)
        return self.tasks(split, count if there is None else min(count, there), types, start)

    def check_ready(self) -> None:  # noqa: B027
        """Raises where environments of the suite cannot be made here at all (no Java, a cache that
        cannot be written); by default nothing.

        Raises:
            ImportError, OSError, RuntimeError: what is missing, and what to do.
        """

    def prepare(self, tasks: Sequence[Task], processes: int = 1) -> int:
        """Makes beforehand what the tasks need and takes long (games that are compiled); by default
        nothing. Whatever plays without it makes it when it is needed.

        Args:
            tasks: what is to be played.
            processes: how many may work at it at once.

        Returns:
            How many were made.
        """
        return 0

    def limit(self, task: Task) -> int:
        """Actions that an episode of a task may take."""
        return self.max_steps

    def expert(self, task: Task) -> Expert:
        """A fresh expert for one episode of a task. Raises `NotImplementedError` when the suite has
        none."""
        raise NotImplementedError(f"suite {self.name!r} has no expert")

    def reworded(self, steps: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """An experience in the words of this suite, where its world is known to speak in others,
        too; by default as it is.

        Args:
            steps: (action, the observation that followed).
        """
        return list(steps)

    variation_kinds: tuple[str, ...] = ()
    """What :meth:`variations` can make of an episode."""

    def variations(self, task: Task, actions: Sequence[str], kind: str) -> Iterable[Variation]:
        """What else an episode shows, each of them checked.

        Args:
            task: that was played.
            actions: those that were not refused.
            kind: one of `variation_kinds`.

        Raises:
            KeyError: the suite knows no such kind.
        """
        raise KeyError(kind)

    def proposed(self, goal: str, actions: Sequence[str], seed: int = 0) -> Variation | None:
        """Asks whether there is a train task with this goal that these actions solve: what somebody
        made up, as an experience; None where it does not work, or nobody can say.

        Args:
            goal: as the agent would read it.
            actions: from the beginning.
            seed: decides which room is tried first.
        """
        return None

    def names(self, observation: str) -> list[str]:
        """Names of things in an observation, for filling the blanks of templates at random."""
        return names_in(observation)

    def split_of(self, name: str) -> str:
        """The suite's own name of a split; ``valid`` and ``test`` are understood by every suite.

        Raises:
            ValueError: there is no such split; the message names those that there are.
        """
        if name in self.splits:
            return name
        roles = {"valid": self.validation_split, "test": self.test_split}
        if roles.get(name) in self.splits:
            return roles[name]
        raise ValueError(
            f"suite {self.name!r} has no split {name!r}: use one of {', '.join(self.splits)}"
        )

    def checked(self, split: str, types: Sequence[str]) -> tuple[str, ...]:
        """The types asked for without repeats, the suite's own `types` for none; for `tasks`.

        Raises:
            ValueError: there is no such split, or no such type; the message names the closest.
        """
        if split not in self.splits:
            self.split_of(split)  # which complains of what nobody has
            raise ValueError(
                f"suite {self.name!r} calls its split {self.split_of(split)!r}, not {split!r}"
            )
        known = tuple(dict.fromkeys([*self.types, *(t for g in self.groups.values() for t in g)]))
        for kind in types:
            if kind not in known:
                close = difflib.get_close_matches(kind, known, 1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ValueError(
                    f"suite {self.name!r} has no task type {kind!r}.{hint} It has "
                    f"{', '.join(known)}"
                )
        return tuple(dict.fromkeys(types)) or self.types


def has_expert(suite: Suite) -> bool:
    """Whether a suite brings an expert."""
    return bool(suite.expert_kind)


def types_of(suite: Suite, names: Sequence[str]) -> tuple[str, ...]:
    """Task types from names of types and of groups (``easy``); unknown ones are left for
    `Suite.tasks` to complain about.

    Raises:
        TypeError: a text, whose letters would be taken for names.
    """
    if isinstance(names, str):
        raise TypeError(f"types must be a list of names: [{names!r}], not {names!r}")
    return tuple(dict.fromkeys(t for name in names for t in suite.groups.get(name, (name,))))
