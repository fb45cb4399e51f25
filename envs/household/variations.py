"""What else an episode shows: the same goal in the world's other words, another goal that its
actions reached as well, and the way back; and whether what somebody made up works.

Nothing is assumed: every variation is played in the game that it would belong to, and is given only
if its goal holds at the end and did not hold before.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...task import Task
from ..base import Variation
from . import assets, generator, goals
from .generator import Thing, World
from .rooms import ROOMS, TASK_TYPES
from .simulate import Simulation
from .tasks import world_of

PLACING = "pick_and_place_simple"
"""The type of a goal that asks for nothing but a thing in a place."""


def wordings(task: Task, actions: Sequence[str]) -> Iterator[Variation]:
    """The same goal in the other words that the world has for it."""
    world = world_of(task)
    for wording in goals.goal(world.task_type)[1]:
        told = _worded(world, wording)
        if told.goal != world.goal and (found := _played(told, actions, "wordings")):
            yield found


def hindsight(task: Task, actions: Sequence[str]) -> Iterator[Variation]:
    """Goals of other types that the actions reached, with the same thing in the same kind of place;
    what was done after they were reached is left out. (Andrychowicz et al., arXiv:1707.01495.)"""
    world, handled = world_of(task), _handled(task, actions)
    for thing, place in handled:
        for kind in TASK_TYPES:
            if kind in (world.task_type, "look_at_obj_in_light"):
                continue
            for wording in goals.goal(kind)[1][:1]:
                other = replace(world, task_type=kind, target=thing, destination=place, lamp="")
                if found := _played(_worded(other, wording), actions, "hindsight"):
                    yield found


def reversal(task: Task, actions: Sequence[str]) -> Iterator[Variation]:
    """The way back: the thing lies where it was brought, and is to be brought where it was taken
    from. Only for an episode that moved one thing."""
    world = world_of(task)
    before = Simulation(world)
    taken = [(words[1:3], words[-2:]) for words in _split(actions, "take")]
    moved = [(words[1:3], words[-2:]) for words in _split(actions, "move")]
    if len(taken) != 1 or len(moved) != 1 or taken[0][0] != moved[0][0]:
        return
    name, origin = " ".join(taken[0][0]), " ".join(taken[0][1])
    end = " ".join(moved[0][1])
    if name not in before.things or not {origin, end} <= before.places.keys():
        return
    thing, there, back = before.things[name], before.places[end], before.places[origin]
    things = tuple(
        Thing(one.id, one.kind, there.id) if one.id == thing.id else one for one in world.things
    )
    turned = replace(
        world, task_type=PLACING, things=things, target=thing.kind, destination=back.kind, lamp=""
    )
    way = [f"go to {end}", f"open {end}", f"take {name} from {end}", f"go to {origin}",
           f"open {origin}", f"move {name} to {origin}"]  # fmt: skip
    for wording in goals.goal(PLACING)[1]:
        if found := _played(_worded(turned, wording), way, "reversal", skip_refused=True):
            yield found


def proposed(goal: str, actions: Sequence[str], seed: int = 0) -> Variation | None:
    """What somebody made up, as an experience: in a room for training a game is laid out in which
    the goal makes sense and its thing lies where the actions take it from, and they are played.

    Returns:
        None where the world has no such goal, no room for it, or the actions do not reach it.
    """
    rng = random.Random(f"proposed/{seed}/{goal}")
    taken = _split(actions, "take")
    for kind in TASK_TYPES:
        if goals.objects_needed(kind) > 1:
            continue
        for wording in goals.goal(kind)[1]:
            told = _reads(wording, goal)
            if told is None or not taken:
                continue
            rooms = [n for place in sorted(goals.room_kinds(kind))
                     for n in ROOMS["train"].get(place, ())]  # fmt: skip
            for room in rng.sample(rooms, len(rooms)):
                world = _laid_out(kind, told, " ".join(taken[0][-2:]), goal, room, rng)
                found = world and _played(world, actions, "proposed")
                if found:
                    return found
    return None


def _reads(wording: str, goal: str) -> dict[str, str] | None:
    """What a goal of a wording names."""
    parts = (re.escape(part) for part in re.split(r"\{\w+\}", wording))
    names = re.findall(r"\{(\w+)\}", wording)
    found = re.fullmatch(r"(\w+)".join(parts), goal)
    return dict(zip(names, found.groups(), strict=True)) if found else None


def _laid_out(
    kind: str, told: Mapping[str, str], place: str, goal: str, room: int, rng: random.Random
) -> World | None:
    """A game in a room with one thing of the goal's kind, at a place; None where there is none."""
    world = generator.drawn(kind, rng, room)
    if world is None:
        return None
    known = {name.lower(): name for name in (*world.object_kinds, *generator.LAMPS)}
    holders = {receptacle.kind.lower(): receptacle.kind for receptacle in world.receptacles}
    target = known.get(told["obj"])
    destination = holders.get(told.get("recep", ""), "")
    lamp = known.get(told.get("toggle", ""), "")
    there = Simulation(world).places.get(place)
    if target is None or there is None or target not in assets.holds()[there.kind]:
        return None
    treated = all(target in assets.affordances()[t.affordance] for t in goals.treatments(kind))
    if world.lamp:
        if not lamp or lamp != world.lamp:
            return None
    elif not destination or target not in assets.holds()[destination]:
        return None
    if not treated or there.kind == destination:
        return None
    kept = [thing for thing in world.things if thing.kind != target]
    things = sorted([*kept, Thing(f"{target}|+00.00|+00.00|+00.00", target, there.id)],
                    key=lambda thing: thing.id)  # fmt: skip
    return replace(world, target=target, destination=destination, goal=goal, things=tuple(things))


KINDS = {"wordings": wordings, "hindsight": hindsight, "reversal": reversal}
"""What can be made of an episode."""


def _worded(world: World, wording: str) -> World:
    goal = wording.format(
        obj=world.target.lower(), recep=world.destination.lower(), toggle=world.lamp.lower()
    )
    return replace(world, goal=goal)


def _split(actions: Sequence[str], verb: str) -> list[list[str]]:
    return [words for words in (action.split() for action in actions)
            if len(words) == 6 and words[0] == verb]  # fmt: skip


def _handled(task: Task, actions: Sequence[str]) -> list[tuple[str, str]]:
    """Kinds of what was put somewhere, and kinds of the places."""
    game = Simulation(world_of(task))
    found = []
    for words in _split(actions, "move"):
        thing, place = " ".join(words[1:3]), " ".join(words[-2:])
        if thing in game.things and place in game.places:
            found.append((game.things[thing].kind, game.places[place].kind))
    return list(dict.fromkeys(found))


def _played(
    world: World, actions: Sequence[str], kind: str, *, skip_refused: bool = False
) -> Variation | None:
    """The variation in which these actions are played in a world, up to where its goal holds; None
    where it never does, or did from the beginning, or an action is refused: what looks around
    (``look``, ``inventory``) is not simulated."""
    from .engine import REFUSED

    game = Simulation(world)
    opening = game.initial_observation()
    if game.won():
        return None
    steps: list[tuple[str, str]] = []
    for action in actions:
        seen = game.step(action)
        if seen != REFUSED:
            steps.append((action, seen))
        elif not skip_refused:
            return None
        if game.won():
            return Variation(kind, world.goal, world.task_type, opening, tuple(steps))
    return None
