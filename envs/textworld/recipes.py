"""What each task type of the suite `textworld` is made of: a challenge of TextWorld, its settings,
and seeds that no two splits share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ...task import Task, identity_of

SUITE = "textworld"
TEXTWORLD = "1.7.0"
"""Version of TextWorld whose generators make the games; another one makes others."""
VERSION = f"textworld-1 ({TEXTWORLD})"

FIRST_SEED: Mapping[str, int] = MappingProxyType(
    {"train": 0, "valid": 100_000_000, "test": 200_000_000}
)
"""Where the seeds of a split begin. Within it each type has `SEEDS` of its own, too: two types of
simple games would be the same house under the same seed, with other rewards."""
SEEDS = 1_000_000
"""Games of a type and split, more than anyone makes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A task type."""

    challenge: str
    """Name of the generator."""
    limit: int
    """Actions that an episode may take: at least twice the longest walk-through seen."""
    settings: Mapping[str, Any]
    held_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What is different in a split, where the generator keeps things apart itself."""

    def settings_in(self, split: str) -> dict[str, Any]:
        """All settings of a game of a split."""
        return {**self.settings, **self.held_out.get(split, {})}


def _coin(level: int, limit: int) -> Kind:
    return Kind("tw-coin_collector", limit, {"level": level})


def _treasure(level: int, limit: int) -> Kind:
    return Kind("tw-treasure_hunter", limit, {"level": level})


def _simple(rewards: str, goal: str) -> Kind:
    # Three of its foods are for tests alone.
    settings = {"rewards": rewards, "goal": goal, "test": False}
    return Kind("tw-simple", 50, settings, {"test": {"test": True}})


def _cooking(
    ingredients: int, rooms: int, limit: int, *, cut: bool, cook: bool = True, drop: bool = False
) -> Kind:
    # Its splits differ in foods, and in how the same foods are to be prepared.
    settings = {
        "recipe": ingredients,
        "take": ingredients,
        "go": rooms,
        "open": True,
        "cook": cook,
        "cut": cut,
        "drop": drop,
        "recipe_seed": 0,  # the recipe is drawn with everything else
    }
    return Kind("tw-cooking", limit, settings, {name: {"split": name} for name in FIRST_SEED})


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "cooking-1": _cooking(1, 1, 30, cut=False),
        "cooking-2": _cooking(2, 6, 60, cut=False),
        "cooking-3": _cooking(3, 9, 100, cut=True),
        "cooking-4": _cooking(4, 12, 160, cut=True, drop=True),
        # A chain of rooms; then dead ends beside each; then two.
        "coin-easy": _coin(5, 30),
        "coin-medium": _coin(110, 50),
        "coin-hard": _coin(215, 80),
        # 5, 10 and 20 rooms; the second with doors and containers to open, the third with locks.
        "treasure-easy": _treasure(5, 30),
        "treasure-medium": _treasure(15, 50),
        "treasure-hard": _treasure(23, 80),
        # Points for every part and directions; fewer points and a hint; a point at the end alone.
        "simple-easy": _simple("dense", "detailed"),
        "simple-medium": _simple("balanced", "brief"),
        "simple-hard": _simple("sparse", "brief"),
        # One kitchen, and one thing more than in the first type.
        "cooking-1-cut": _cooking(1, 1, 30, cut=True, cook=False),
        "cooking-1-both": _cooking(1, 1, 30, cut=True),
        "cooking-2-near": _cooking(2, 1, 40, cut=False),
    }
)
"""The task types, easier ones of a game first. New ones come last: a type's place decides its
seeds."""

SKILLS = ("cooking-1-cut", "cooking-1-both", "cooking-2-near")
"""Types that are only played when they are asked for."""

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **{
            game: tuple(kind for kind in KINDS if kind.startswith(game) and kind not in SKILLS)
            for game in ("cooking", "coin", "treasure", "simple")
        },
        "easy": ("cooking-1", "coin-easy", "treasure-easy", "simple-easy"),
        "hard": ("cooking-4", "coin-hard", "treasure-hard", "simple-hard"),
        "skills": SKILLS,
    }
)


def recipe_of(kind: str, split: str, seed: int) -> dict[str, Any]:
    """What the compiler needs to make a game (`relive.envs.textworld.compiler`)."""
    made_of = KINDS[kind]
    settings = made_of.settings_in(split)
    told = [f"{name}={settings[name]}" for name in sorted(settings)]
    return {
        "name": identity_of(VERSION, made_of.challenge, *told, str(seed)),
        "challenge": made_of.challenge,
        "settings": settings,
        "seed": seed,
    }


def task_of(kind: str, split: str, index: int) -> Task:
    """The task of a type and split with a number, from 0 on. Its goal is told at reset."""
    seed = FIRST_SEED[split] + SEEDS * tuple(KINDS).index(kind) + index
    name = recipe_of(kind, split, seed)["name"]
    return Task(SUITE, name, kind, split, "", seed, VERSION, "")
