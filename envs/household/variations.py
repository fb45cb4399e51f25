"""What else an episode shows: the same goal in the world's other words, another goal that its
actions reached as well, and the way back.

Nothing is assumed: every variation is played in the game that it would belong to, and is given only
if its goal holds at the end and did not hold before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...task import Task
from ..base import Variation
from . import goals
from .generator import Thing, World
from .rooms import TASK_TYPES
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
    where it never does, or did from the beginning."""
    from .engine import REFUSED

    game = Simulation(world)
    opening = game.initial_observation()
    if game.won():
        return None
    steps: list[tuple[str, str]] = []
    for action in actions:
        seen = game.step(action)
        if not (skip_refused and seen == REFUSED):
            steps.append((action, seen))
        if game.won():
            return Variation(kind, world.goal, world.task_type, opening, tuple(steps))
    return None
