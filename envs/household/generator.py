"""Household games from a seed: ALFWorld's logic, goals and real room layouts, with objects placed
at random.

A game is first drawn as a `World` (plain data: which receptacles, which objects, where) and then
written down as the three texts that the engine plays. It is not the ALFWorld benchmark: rooms hold
fewer fixed things, and things are placed evenly over the *kinds* of places (a cup is as likely on
the one dining table as in one of twenty cabinets), which is what makes a search of real rooms a
matter of 50 steps.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from . import assets, goals
from .rooms import ALL_TYPES, ROOMS

VERSION = "1"
"""Bump when the same seed would give another game, so that old episodes are not taken for new
ones."""

# Boxes can be opened in the simulator but are objects in these games.
_OPENABLE = frozenset({"Fridge", "Cabinet", "Microwave", "Drawer", "Safe"})
# In a room's list of kinds, but often without a pose of their own: kind -> how many to add.
_WITHOUT_POSE = {
    "CoffeeMachine": 1,
    "Toaster": 1,
    "StoveBurner": 4,
    "GarbageCan": 1,
    "ToiletPaperHanger": 1,
    "HandTowelHolder": 2,
    "TowelHolder": 1,
}
LAMPS = ("DeskLamp", "FloorLamp")
_LAMP_STANDS = frozenset({"Desk", "SideTable", "Dresser", "DiningTable", "CoffeeTable", "Shelf"})
# Kinds that the domain itself mentions, so that every problem has to declare them.
_NAMED_RECEPTACLES = ("SinkBasin", "Microwave", "Fridge")
_NAMED_OBJECTS = ("Knife", "ButterKnife")
_MAX_OBJECTS = 30
_ATTEMPTS = 500


@dataclass(frozen=True, slots=True)
class Receptacle:
    """A place that holds things."""

    id: str
    kind: str
    location: str
    """Where the agent stands to use it; unique to it (see `_separate`)."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An object and where it starts."""

    id: str
    kind: str
    receptacle: str
    """Id of the receptacle that holds it."""


@dataclass(frozen=True, slots=True)
class World:
    """A game before it is written down."""

    task_type: str
    room: int
    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]
    start: str
    target: str
    """Kind of object that the goal names."""
    destination: str
    """Kind of receptacle that the goal names; empty for `look_at_obj_in_light`."""
    lamp: str
    """Kind of lamp that the goal names; empty for all other types."""
    goal: str
    """Goal as the agent reads it, without a full stop."""
    object_kinds: tuple[str, ...]
    """Every kind of object that the room could hold."""


@dataclass(frozen=True, slots=True)
class Game:
    """What the engine plays: the content of a ``game.tw-pddl`` file."""

    domain: str
    grammar: str
    """Text grammar with `relive.envs.household.assets.GOAL_PLACEHOLDER` where the goal belongs."""
    problem: str
    goal: str


def generate(task_type: str, seed: int, split: str) -> World:
    """Draw the game of a type with a seed, in one of the rooms of a split.

    Raises:
        ValueError: unknown type or split.
        RuntimeError: no room of the split allows such a game (does not happen with the rooms as
            shipped).
    """
    if task_type not in ALL_TYPES:
        raise ValueError(f"household has no task type {task_type!r}; it has {', '.join(ALL_TYPES)}")
    if split not in ROOMS:
        raise ValueError(f"household has no split {split!r}; it has {', '.join(ROOMS)}")
    # A string seeds through SHA-512: the same everywhere, and games of different types share no
    # numbers.
    rng = random.Random(f"household/{VERSION}/{split}/{task_type}/{seed}")
    rooms = [n for kind in sorted(goals.room_kinds(task_type)) for n in ROOMS[split].get(kind, ())]
    for _ in range(_ATTEMPTS):
        world = drawn(task_type, rng, rng.choice(rooms))
        if world is not None:
            return world
    raise RuntimeError(
        f"no room of split {split!r} allows a game of type {task_type!r} (seed {seed}): choose "
        "another"
    )


def _position(rng: random.Random) -> str:
    point = (rng.uniform(-3, 3), rng.uniform(0, 2), rng.uniform(-3, 3))
    return "|".join(("+" if v >= 0 else "-") + f"{abs(v):05.2f}" for v in point)


@lru_cache(maxsize=256)
def furniture(room: int) -> tuple[tuple[Receptacle, ...], frozenset[str]]:
    """The room's receptacles, sorted by id, and all kinds of things found in it. The same for every
    game in it."""
    poses, kinds = assets.layout(room)
    found: list[Receptacle] = []
    for name, (x, z, rotation, horizon) in poses.items():
        # A basin is named after the sink or bathtub that it belongs to: "Sink|...|SinkBasin".
        kind = name.split("|")[-1] if name.endswith("Basin") else name.split("|")[0]
        if kind not in assets.movable_receptacles() and kind in assets.holds():
            location = f"loc|{round(x * 4)}|{round(z * 4)}|{round(rotation / 90)}|{round(horizon)}"
            found.append(Receptacle(name, kind, location))
    rng = random.Random(f"furniture of room {room}")
    present = {receptacle.kind for receptacle in found}
    for kind, count in _WITHOUT_POSE.items():
        if kind in kinds and kind not in present:
            location = f"loc|{rng.randint(20, 40)}|{rng.randint(20, 40)}|{rng.randint(0, 3)}|30"
            found.extend(
                Receptacle(f"{kind}|{_position(rng)}", kind, location) for _ in range(count)
            )
    return _separate(sorted(found, key=lambda receptacle: receptacle.id)), frozenset(kinds)


def _separate(receptacles: Sequence[Receptacle]) -> tuple[Receptacle, ...]:
    """Give each receptacle a location of its own.

    In the real rooms a quarter of them share the agent's pose with another, so that an agent could
    open a cabinet that it never went to. Nothing in the text says which; such games could only be
    won by trial and error.
    """
    used: set[str] = set()
    separate = []
    for receptacle in receptacles:
        location, count = receptacle.location, 0
        while location in used:
            location, count = f"{receptacle.location}|{count}", count + 1
        used.add(location)
        separate.append(Receptacle(receptacle.id, receptacle.kind, location))
    return tuple(separate)


def drawn(task_type: str, rng: random.Random, room: int) -> World | None:
    """One attempt at a game in a room; None when the room does not allow it."""
    receptacles, kinds_in_room = furniture(room)
    receptacle_kinds = sorted({receptacle.kind for receptacle in receptacles})
    object_kinds = sorted(
        kind
        for kind in kinds_in_room
        if kind not in receptacle_kinds and any(kind in assets.holds()[r] for r in receptacle_kinds)
    )
    treatments = goals.treatments(task_type)
    appliances = {treatment.appliance for treatment in treatments}
    if not appliances <= set(receptacle_kinds):
        return None
    targets = [
        k for k in object_kinds if all(k in assets.affordances()[t.affordance] for t in treatments)
    ]
    lamp = ""
    if task_type == "look_at_obj_in_light":
        lamps = [kind for kind in LAMPS if kind in kinds_in_room]
        if not lamps:
            return None
        lamp = rng.choice(lamps)
        choices = [(target, "") for target in targets]
    else:
        choices = [
            (t, r)
            for t in targets
            for r in receptacle_kinds
            if t in assets.holds()[r] and r not in appliances
        ]
    if not choices:
        return None
    target, destination = rng.choice(choices)

    things: list[Thing] = []

    def place(kind: str, allowed: Sequence[str]) -> bool:
        if not allowed:
            return False
        chosen = rng.choice(
            allowed
        )  # the kind of place first, so that twenty cabinets weigh as much as one table
        instance = rng.choice([r for r in receptacles if r.kind == chosen])
        things.append(Thing(f"{kind}|{_position(rng)}", kind, instance.id))
        return True

    elsewhere = [r for r in receptacle_kinds if target in assets.holds()[r] and r != destination]
    for _ in range(goals.objects_needed(task_type) + rng.randint(0, 1)):
        if not place(target, elsewhere):
            return None
    if lamp and not place(lamp, [r for r in receptacle_kinds if r in _LAMP_STANDS]):
        return None
    others = [kind for kind in object_kinds if kind != target]
    rng.shuffle(others)
    for kind in others:
        for _ in range(rng.randint(1, 2)):
            if len(things) < _MAX_OBJECTS:
                place(kind, [r for r in receptacle_kinds if kind in assets.holds()[r]])
    start = f"loc|{rng.randint(-40, -21)}|{rng.randint(-40, -21)}|{rng.randint(0, 3)}|30"
    wording = rng.choice(goals.goal(task_type)[1])
    return World(
        task_type=task_type,
        room=room,
        receptacles=receptacles,
        things=tuple(sorted(things, key=lambda thing: thing.id)),
        start=start,
        target=target,
        destination=destination,
        lamp=lamp,
        goal=wording.format(obj=target.lower(), recep=destination.lower(), toggle=lamp.lower()),
        object_kinds=tuple(object_kinds),
    )


def mangle(name: str) -> str:
    """A name of the simulator as a PDDL symbol, the way ALFWorld writes it."""
    for character, word in (
        ("-", "minus"),
        ("|", "bar"),
        ("+", "plus"),
        (".", "dot"),
        (",", "comma"),
    ):
        name = name.replace(character, f"_{word}_")
    return name


def problem_text(world: World) -> str:
    """The PDDL problem of a game."""
    affordances, holds = assets.affordances(), assets.holds()
    receptacle_kinds = sorted({r.kind for r in world.receptacles})
    object_kinds = sorted(set(world.object_kinds) | {t.kind for t in world.things})
    location_of = {r.id: r.location for r in world.receptacles}
    receptacles = [(mangle(r.id), r) for r in world.receptacles]
    things = [(mangle(t.id), t) for t in world.things]
    lines = ["(define (problem household)", "(:domain alfred)", "(:objects", "agent1 - agent"]
    lines += [f"{kind}Type - otype" for kind in sorted({*object_kinds, *_NAMED_OBJECTS})]
    lines += [f"{kind}Type - rtype" for kind in sorted({*receptacle_kinds, *_NAMED_RECEPTACLES})]
    lines += [f"{name} - object" for name, _ in things]
    lines += [f"{name} - receptacle" for name, _ in receptacles]
    lines += [
        f"{mangle(location)} - location"
        for location in sorted({*location_of.values(), world.start})
    ]
    lines += [")", "(:init", f"(atLocation agent1 {mangle(world.start)})"]
    lines += [f"(receptacleType {name} {r.kind}Type)" for name, r in receptacles]
    lines += [f"(receptacleAtLocation {name} {mangle(r.location)})" for name, r in receptacles]
    lines += [f"(openable {name})" for name, r in receptacles if r.kind in _OPENABLE]
    lines += [
        f"(canContain {r}Type {o}Type)"
        for r in receptacle_kinds
        for o in sorted(holds[r] & set(object_kinds))
    ]
    lines += [f"(objectType {name} {t.kind}Type)" for name, t in things]
    lines += [f"(inReceptacle {name} {mangle(t.receptacle)})" for name, t in things]
    lines += [
        f"(objectAtLocation {name} {mangle(location_of[t.receptacle])})" for name, t in things
    ]
    lines += [f"(pickupable {name})" for name, t in things if t.kind not in LAMPS]
    lines += [
        f"(isReceptacleObject {name})"
        for name, t in things
        if t.kind in assets.movable_receptacles()
    ]
    for affordance in sorted(affordances):
        lines += [
            f"({affordance.lower()} {name})"
            for name, t in things
            if t.kind in affordances[affordance]
        ]
    goal = goals.goal(world.task_type)[0].format(
        obj=world.target, recep=world.destination, toggle=world.lamp
    )
    return "\n".join([*lines, ")", goal.replace("#", "-")])


def game(world: World) -> Game:
    """The texts that the engine plays."""
    return Game(assets.domain(), assets.grammar(), problem_text(world), world.goal)


def identity(problem: str) -> str:
    """What makes two games the same: a hash of the PDDL problem, whatever the problem is called. 16
    hex digits."""
    nameless = re.sub(r"\(\s*problem\s+[^\s()]+\s*\)", "(problem _)", problem, count=1)
    return hashlib.sha256(nameless.encode()).hexdigest()[:16]


def is_openable(kind: str) -> bool:
    """Whether receptacles of this kind have a door or a lid."""
    return kind in _OPENABLE


def display_names(ids: Sequence[str]) -> dict[str, str]:
    """PDDL symbols -> names such as ``cabinet 3``, by ALFWorld's rule.

    Instances of a kind are numbered from the highest down in the order of their symbols
    (`AlfredDemangler`).
    """
    bases: dict[str, str] = {}
    for symbol in sorted(ids):
        base, bar, _ = symbol.partition("_bar_")
        if bar:
            # "sink_bar_..._bar_sinkbasin" is the basin, not the sink.
            bases[symbol] = base + "basin" if "basin" in symbol else base
    left = Counter(bases.values())
    names = {}
    for symbol in sorted(ids):
        if symbol in bases:
            names[symbol] = f"{bases[symbol]} {left[bases[symbol]]}"
            left[bases[symbol]] -= 1
        else:
            # Symbols that are not instances keep their text; ALFWorld's rule leaves a space where
            # the number was.
            names[symbol] = symbol + " "
    return names
