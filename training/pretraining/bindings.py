"""Bindings of synthetic worlds: what its words mean, bound afresh for every world, and the goals
that they make.

A `Bindings` says what the words of one world mean: which verb and which appliance an adjective
stands for, which verb switches a device on. The draws are independent and uniform over pools that
contain the household's own words, so the corpus carries no information about what "hot" means in
the real household (``tests/training/test_corpus.py`` measures that).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from . import lexicon as lex

Kind = Literal["put", "device", "property", "composed", "routine"]


@dataclass(frozen=True, slots=True)
class Property:
    """An adjective and what it takes to make it true."""

    adjective: str
    verb: str
    appliance: str


@dataclass(frozen=True, slots=True)
class Op:
    """One stage of a procedure, after the object was found and taken.

    ``apply``: treat the object (`verb`) at an appliance (`thing`). ``place``: put it where the goal
    says. ``use``: find a device (`thing`) and switch it on (`verb`). ``tool``: find a tool
    (`thing`), take it to where the object was placed and use it on the object (`verb`). ``bring``:
    find another thing (`thing`, the same kind in all of a world) and put it where the goal says,
    before the object is fetched or after it was placed.
    """

    name: Literal["apply", "place", "use", "tool", "bring"]
    thing: str = ""
    verb: str = ""


PLACE = Op("place")


@dataclass(frozen=True, slots=True)
class Routine:
    """A word that stands for a whole procedure, so that the order and number of its stages have to
    be read from memory."""

    word: str
    ops: tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class Bindings:
    """What the words of one world mean."""

    properties: tuple[Property, ...]
    devices: tuple[tuple[str, str], ...]
    """(device, the verb that switches it on)."""
    templates: tuple[str, ...]
    """All action templates of this world, in the order in which the prompt lists them."""
    routines: tuple[Routine, ...] = ()


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be done in one room."""

    kind: Kind
    text: str
    target: str
    ops: tuple[Op, ...]
    destination: str = ""
    first_form: bool = True
    """Which of the two wordings; the second one of a property names its verb instead of its
    adjective."""


HOUSEHOLD = Bindings(
    (
        Property("hot", "heat", "microwave"),
        Property("cool", "cool", "fridge"),
        Property("clean", "clean", "sinkbasin"),
    ),
    (("desklamp", "use"), ("floorlamp", "use")),
    (
        *(text for text, _ in lex.TEMPLATES),
        "use {object}",
        *(f"{verb} {{object}} with {{receptacle}}" for verb in ("clean", "heat", "cool")),
    ),
)
"""The true bindings. Used only to measure, never to train the base model."""


def draw_bindings(rng: random.Random) -> Bindings:
    """Bindings of a new world: adjective, verb and appliance of each property are drawn
    independently."""
    n = rng.randint(2, 4)
    verbs = rng.sample(lex.VERBS, n + 3)
    adjectives, appliances = rng.sample(lex.ADJECTIVES, n), rng.sample(lex.APPLIANCES, n)
    properties = tuple(
        Property(a, v, p) for a, v, p in zip(adjectives, verbs, appliances, strict=False)
    )
    devices = tuple(zip(rng.sample(lex.DEVICES, 2), verbs[n:-1], strict=True))
    own = [f"{v} {{object}} with {{receptacle}}" for v in verbs[:n]] + [
        f"{v} {{object}}" for v in verbs[n:-1]
    ]
    things = rng.sample(lex.OBJECTS, 3)
    tool = Op("tool", things.pop(), verbs[-1]) if rng.random() < 0.5 else None
    if tool:
        own.append(f"{tool.verb} {{object}} with {{object}}")
    rng.shuffle(own)
    routines = tuple(
        Routine(w, draw_ops(rng, properties, devices, tool, things))
        for w in rng.sample(lex.ROUTINES, 2)
    )
    return Bindings(properties, devices, (*(text for text, _ in lex.TEMPLATES), *own), routines)


def draw_ops(
    rng: random.Random,
    properties: Sequence[Property],
    devices: Sequence[tuple[str, str]],
    tool: Op | None,
    things: Sequence[str],
) -> tuple[Op, ...]:
    """Stages of a routine: two to five, the object fetched once and placed once, and mostly
    something before or after that.

    A second object of the same kind is never fetched, and no goal asks for two objects: tasks of
    that structure are held out. What is fetched otherwise is always of the same kind in one world
    (`things`, `tool`), before the object or after it, so that what each fetching is for has to be
    read from memory. Nor is the object taken again from where it was placed: models that saw that
    did so whenever something was to be fetched after placing.
    """
    treat = [Op("apply", p.appliance, p.verb) for p in properties]
    switch = [Op("use", device, verb) for device, verb in devices]
    while True:
        bring = [Op("bring", thing) for thing in rng.sample(things, 2)]
        ops: list[Op] = []
        while bring and rng.random() < 0.4:
            ops.append(bring.pop())
        for _ in range(rng.choice((1, 2, 2, 3, 4))):
            if PLACE not in ops:
                ops.append(rng.choice([rng.choice(treat), PLACE, PLACE, rng.choice(switch)]))
            else:
                after = [
                    rng.choice(switch),
                    *([bring[-1]] * 2 if bring else ()),
                    *([tool] if tool else ()),
                ]
                ops.append(rng.choice(after))
            if ops[-1].name == "bring":
                bring.pop()
            elif ops[-1].name == "tool":  # the hands are full from here on
                break
        if PLACE in ops and [op.name for op in ops] not in (["place"], ["apply", "place"]):
            return tuple(ops)


def draw_goal(
    rng: random.Random,
    kind: Kind,
    bindings: Bindings,
    target: str,
    destination: str,
    like: Goal | None = None,
) -> Goal:
    """A goal of a kind: ``put``, ``device``, ``property``, ``composed`` (two properties) or
    ``routine``. Never two objects.

    With `like`, the goal asks for the same procedure as that one.
    """
    first = rng.random() < 0.5
    if kind == "put":
        text = (
            f"put a {target} in {destination}" if first else f"put some {target} on {destination}"
        )
        return Goal(kind, text, target, (PLACE,), destination, first)
    if kind == "device":
        ops = like.ops if like else (Op("use", *rng.choice(bindings.devices)),)
        name = ops[0].thing
        text = (
            f"look at {target} under the {name}"
            if first
            else f"examine the {target} with the {name}"
        )
        return Goal(kind, text, target, ops, first_form=first)
    if like and rng.random() < 0.85:
        first = like.first_form
    if kind == "routine":
        known = [r for r in bindings.routines if like and r.ops == like.ops]
        routine = known[0] if known else rng.choice(bindings.routines)
        word = routine.word
        text = (
            f"put {word} {target} in {destination}"
            if first
            else f"find {word} {target} and put it in {destination}"
        )
        return Goal(kind, text, target, routine.ops, destination, first)
    by_stage = {(p.appliance, p.verb): p for p in bindings.properties}
    if like:
        wanted = [by_stage[op.thing, op.verb] for op in like.ops if op.name == "apply"]
    else:
        wanted = rng.sample(bindings.properties, 2 if kind == "composed" else 1)
    words = " and ".join(p.adjective if first else p.verb for p in wanted)
    text = (
        f"put a {words} {target} in {destination}"
        if first
        else f"{words} some {target} and put it in {destination}"
    )
    ops = (*(Op("apply", p.appliance, p.verb) for p in wanted), PLACE)
    return Goal(kind, text, target, ops, destination, first)
