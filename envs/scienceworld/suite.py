"""The suite `scienceworld`: thirty tasks in 7207 variations, with the package's own splits."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType

from ...extras import needs
from ...task import Task
from ..base import ActionTemplate, Suite
from ..jvm import check_java
from ..listing import size_of, spread
from .env import ScienceWorldEnv
from .games import PACKAGE, SPLITS, SUITE, VERSION, games, task_of
from .gold import GoldExpert, solution

_DOOR = re.compile(r"\bdoor to (?:the )?([a-z][a-z ]*?)(?= \(|[.,\n]|$)", re.IGNORECASE)
_THING = re.compile(
    r"\b(?:an?|the) (?:substance called )?([a-z][a-z0-9' -]*?)"
    r"(?= \(|[.,:;)\n]|$| which\b| containing\b| that\b| is\b| door\b)",
    re.IGNORECASE,
)
_NOBODY = frozenset({"agent", "air"})
_NOT_IN_A_NAME = re.compile(r"^(?:door|table is|room)\b|\b(?:see|called|are)\b")


class ScienceWorldSuite(Suite):
    """The tasks of ScienceWorld. See `relive.envs.base.Suite`.

    The groups are those of the paper that reports on 17 easy and 13 hard tasks. The house is the
    same in all of them.

    Raises:
        MissingExtraError: the package is not installed.
        ImportError: it is of another version, which has other games.
    """

    name: str = SUITE
    version: str = VERSION
    types: tuple[str, ...] = tuple(games())
    groups: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            group: tuple(kind for kind, game in games().items() if game.group == group)
            for group in ("easy", "hard")
        }
    )
    splits: tuple[str, ...] = SPLITS
    validation_split: str = "dev"
    templates: tuple[ActionTemplate, ...] = (
        ActionTemplate("go to {location}", "move"),
        ActionTemplate("open {object}", "look"),
        ActionTemplate("close {object}", "look"),
        ActionTemplate("look around", "look"),
        ActionTemplate("look at {object}", "look"),
        ActionTemplate("examine {object}", "look"),
        ActionTemplate("look in {object}", "look"),
        ActionTemplate("read {object}", "look"),
        ActionTemplate("inventory", "look"),
        ActionTemplate("focus on {object}", "act"),
        ActionTemplate("pick up {object}", "act"),
        ActionTemplate("drop {object}", "act"),
        ActionTemplate("move {object} to {object}", "act"),
        ActionTemplate("pour {object} in {object}", "act"),
        ActionTemplate("dunk {object} into {object}", "act"),
        ActionTemplate("mix {object}", "act"),
        ActionTemplate("use {object} on {object}", "act"),
        ActionTemplate("activate {object}", "act"),
        ActionTemplate("deactivate {object}", "act"),
        ActionTemplate("connect {object} to {object}", "act"),
        ActionTemplate("disconnect {object}", "act"),
        ActionTemplate("eat {object}", "act"),
        ActionTemplate("flush {object}", "act"),
        ActionTemplate("wait", "act"),
        ActionTemplate("wait1", "act"),
    )
    instructions: str = (
        "You do science experiments in a house, one short command at a time. Focusing on anything "
        "but what the task names ends it at once. When you are asked which of several actions you "
        "mean, answer with its number and nothing else; anything else cancels the action."
    )
    condense_by = "changes"
    """By visits, the ways between rooms would be left out, and the doors on them."""
    processes: int = 2
    """Environments have a Java process each, of some hundred MiB."""
    expert_kind = "scripted"
    preload: tuple[str, ...] = ("py4j.java_gateway",)

    def __init__(self) -> None:
        needs("scienceworld")
        if version("scienceworld") != PACKAGE:
            raise ImportError(
                f"suite {SUITE!r} is made of the games of scienceworld {PACKAGE}, and "
                f"{version('scienceworld')} is installed: pip install scienceworld=={PACKAGE}"
            )

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """`count` tasks, the types in turn; each type's in the order of its variations. Starts no
        Java.

        Raises:
            ValueError: unknown split or type, a negative number, or more than there are.
        """
        pools = self._pools(split, types)
        listed = spread(pools, count, start, where=f"{SUITE}, split {split!r},")
        return [task_of(kind, split, variation) for kind, variation in listed]

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        """How many tasks `tasks` can list."""
        return size_of(self._pools(split, types), start)

    def check_ready(self) -> None:
        """Raises where there is no Java."""
        check_java("scienceworld")

    def make(self) -> ScienceWorldEnv:
        """A fresh environment."""
        return ScienceWorldEnv()

    def limit(self, task: Task) -> int:
        """Actions that an episode may take: 1.3 times the longest solution that was seen of its
        type, but 50 at least and 300 at most."""
        return games()[task.type].limit

    def expert(self, task: Task) -> GoldExpert:
        """The simulator's own solution. The first time takes up to half a minute; it is kept."""
        return GoldExpert(solution(task))

    def names(self, observation: str) -> list[str]:
        """Things and rooms in an observation, as commands call them: "glass cup", "hallway",
        "door to hallway"."""
        rooms = {room.lower() for room in _DOOR.findall(observation)}
        things = {thing.lower().strip() for thing in _THING.findall(observation)}
        things = {thing for thing in things - _NOBODY if not _NOT_IN_A_NAME.search(thing)}
        return sorted(rooms | {f"door to {room}" for room in rooms} | things)

    def _pools(self, split: str, types: Sequence[str]) -> dict[str, range]:
        return {kind: games()[kind].variations[split] for kind in self.checked(split, types)}
