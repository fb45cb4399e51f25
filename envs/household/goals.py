"""What a task type asks for: where it makes sense, how many objects, what is done to them, and the
goal's two texts.

The six types of ALFWorld are read from its library. A composed type is declared by the types that
it is put together from, and everything about it follows from theirs: its goal is the library's goal
of the first part with the conditions of the other parts added to each object (a test derives the
library's own goals in the same way).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import assets


@dataclass(frozen=True, slots=True)
class Treatment:
    """Something done to an object with an appliance."""

    verb: str
    """The command, and what `relive.envs.household.simulate` calls the state."""
    affordance: str
    """What the object must allow."""
    appliance: str
    """Kind of receptacle that does it."""
    state: str
    """Predicate that holds afterwards. Heating undoes cooling and the reverse; cleaning stands for
    itself."""


CLEAN = Treatment("clean", "Cleanable", "SinkBasin", "isClean")
HEAT = Treatment("heat", "Heatable", "Microwave", "isHot")
COOL = Treatment("cool", "Coolable", "Fridge", "isCool")
BY_VERB: Mapping[str, Treatment] = {treatment.verb: treatment for treatment in (CLEAN, HEAT, COOL)}

_TREATMENT_OF = {
    "pick_clean_then_place_in_recep": CLEAN,
    "pick_heat_then_place_in_recep": HEAT,
    "pick_cool_then_place_in_recep": COOL,
}
_OBJECTS_OF = {"pick_two_obj_and_place": 2}


@dataclass(frozen=True, slots=True)
class Composition:
    """How a composed type is put together."""

    parts: tuple[str, ...]
    """ALFWorld's types, in the order in which the expert does what they ask for."""
    wordings: tuple[str, ...]


COMPOSITIONS: Mapping[str, Composition] = {
    "pick_heat_two_obj_and_place": Composition(
        ("pick_two_obj_and_place", "pick_heat_then_place_in_recep"),
        ("put two hot {obj} in {recep}", "heat two {obj} and put them in {recep}"),
    ),
    "pick_clean_then_cool_and_place": Composition(
        ("pick_clean_then_place_in_recep", "pick_cool_then_place_in_recep"),
        (
            "put a clean and cool {obj} in {recep}",
            "clean and cool some {obj} and put it in {recep}",
        ),
    ),
}

# Names each object of a goal once, whatever its variable is called.
_NAMES_AN_OBJECT = re.compile(r"^( *)\(objectType (\?\w+) \{obj\}Type\)$", re.MULTILINE)


def parts(task_type: str) -> tuple[str, ...]:
    """The types of ALFWorld that a type is put together from; only itself when it is one of
    them."""
    return COMPOSITIONS[task_type].parts if task_type in COMPOSITIONS else (task_type,)


def treatments(task_type: str) -> tuple[Treatment, ...]:
    """What is done to each object of a type's goal, in this order; often nothing."""
    return tuple(_TREATMENT_OF[part] for part in parts(task_type) if part in _TREATMENT_OF)


def objects_needed(task_type: str) -> int:
    """Number of objects that a type's goal asks for."""
    return max(_OBJECTS_OF.get(part, 1) for part in parts(task_type))


def room_kinds(task_type: str) -> frozenset[str]:
    """Kinds of rooms in which a type makes sense: those in which all its parts do."""
    return frozenset.intersection(*(assets.room_kinds()[part] for part in parts(task_type)))


def goal(task_type: str) -> tuple[str, tuple[str, ...]]:
    """PDDL template and the wordings of a type's goal."""
    if task_type not in COMPOSITIONS:
        return assets.goal(task_type)
    first, *others = parts(task_type)
    template, _ = assets.goal(first)
    for part in others:
        template = with_conditions(template, treatments(part))
    return template, COMPOSITIONS[task_type].wordings


def with_conditions(template: str, wanted: tuple[Treatment, ...]) -> str:
    """A PDDL goal that asks for the same and for each of its objects to be treated; like the
    library's, it states the affordance along with the state."""
    return _NAMES_AN_OBJECT.sub(
        lambda match: "\n".join(
            [
                *(f"{match[1]}({treatment.affordance.lower()} {match[2]})" for treatment in wanted),
                match[0],
                *(f"{match[1]}({treatment.state} {match[2]})" for treatment in wanted),
            ]
        ),
        template,
    )
