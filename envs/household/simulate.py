"""A household game in plain Python: just enough of it to let the expert play in a fraction of a
millisecond.

Task lists hold only games that the expert solves. Asking the real engine would cost a translation
per game, minutes for a list; this answers the expert's commands from the generator's `World` with
the same text (a test compares the two). It knows no `look`, `examine`, `inventory`, `close` or
`slice`, and is not an environment.
"""

from collections.abc import Callable

from . import assets, goals
from .engine import REFUSED
from .expert import HouseholdExpert
from .generator import World, display_names, is_openable, mangle


class Simulation:
    """One game, played once.

    Args:
        world: the game.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        ids = [*(r.id for r in world.receptacles), *(t.id for t in world.things)]
        symbols = {id: mangle(id).lower() for id in ids}
        names = display_names(list(symbols.values()))
        self.places = {  # by the names that the agent reads
            names[symbols[r.id]]: r for r in sorted(world.receptacles, key=lambda r: symbols[r.id])
        }
        self.things = {
            names[symbols[t.id]]: t for t in sorted(world.things, key=lambda t: symbols[t.id])
        }
        by_id = {r.id: name for name, r in self.places.items()}
        self.where: dict[str, str] = {name: by_id[t.receptacle] for name, t in self.things.items()}
        self._open: set[str] = set()
        self._states: dict[str, set[str]] = {name: set() for name in self.things}
        self._here = ""
        self._held = ""

    def initial_observation(self) -> str:
        """What the agent reads first."""
        places = _listing([f"a {name}" for name in self.places])
        return (
            f"You are in the middle of a room. Looking quickly around you, you see {places}."
            f"\n\nYour task is to: {self._world.goal}."
        )

    def step(self, command: str) -> str:
        """Carry out one of the commands that the expert uses."""
        words = command.split()
        handlers: dict[tuple[str, int], Callable[[str, str], str]] = {
            ("go", 4): lambda _, place: self._go(place),
            ("open", 3): lambda place, _: self._open_place(place),
            ("use", 3): lambda thing, _: self._use(thing),
            ("take", 6): self._take,
            ("move", 6): self._move,
        }
        handler = handlers.get((words[0], len(words)))
        if handler is None and words[0] in goals.BY_VERB and len(words) == 6:
            return self._treat(words[0], " ".join(words[1:3]), " ".join(words[4:6]))
        return REFUSED if handler is None else handler(" ".join(words[1:3]), " ".join(words[-2:]))

    def won(self) -> bool:
        """Whether the goal holds."""
        world = self._world
        if world.lamp:
            lit = any(
                t.kind == world.lamp
                and "toggled" in self._states[name]
                and self.where[name] == self._here
                for name, t in self.things.items()
            )
            return lit and bool(self._held) and self.things[self._held].kind == world.target
        states = {treatment.verb for treatment in goals.treatments(world.task_type)}
        at: list[str] = [
            self.where[name]
            for name, t in self.things.items()
            if t.kind == world.target
            and self.where[name]
            and self.places[self.where[name]].kind == world.destination
            and states <= self._states[name]
        ]
        needed = goals.objects_needed(world.task_type)
        return any(at.count(place) >= needed for place in at)

    def _contents(self, place: str) -> str:
        inside = _listing([f"a {name}" for name in self.things if self.where[name] == place])
        if not is_openable(self.places[place].kind):
            return f"On the {place}, you see {inside}."
        return (
            f"The {place} is open. In it, you see {inside}."
            if place in self._open
            else f"The {place} is closed."
        )

    def _reachable(self, place: str) -> bool:
        """Whether the agent stands at a place and the place is open, if it can be closed."""
        return place == self._here and (
            place in self._open or not is_openable(self.places[place].kind)
        )

    def _go(self, place: str) -> str:
        if place not in self.places or place == self._here:
            return REFUSED
        self._here = place
        return f"You arrive at {place}. {self._contents(place)}"

    def _open_place(self, place: str) -> str:
        if place not in self.places or place != self._here or self._reachable(place):
            return REFUSED
        self._open.add(place)
        return f"You open the {place}. {self._contents(place)}"

    def _take(self, thing: str, place: str) -> str:
        known = thing in self.things and place in self.places
        if not known or self._held or not self._reachable(place) or self.where[thing] != place:
            return REFUSED
        if self.things[thing].kind in assets.affordances()["Toggleable"]:
            return REFUSED  # lamps cannot be carried
        self._held, self.where[thing] = thing, ""
        return f"You pick up the {thing} from the {place}."

    def _move(self, thing: str, place: str) -> str:
        if (
            not thing
            or thing != self._held
            or place not in self.places
            or not self._reachable(place)
        ):
            return REFUSED
        if self.things[thing].kind not in assets.holds()[self.places[place].kind]:
            return REFUSED
        self._held, self.where[thing] = "", place
        return f"You move the {thing} to the {place}."

    def _treat(self, verb: str, thing: str, place: str) -> str:
        treatment = goals.BY_VERB[verb]
        if (
            thing != self._held
            or not thing
            or place != self._here
            or self.places[place].kind != treatment.appliance
        ):
            return REFUSED
        if self.things[thing].kind not in assets.affordances()[treatment.affordance]:
            return REFUSED
        self._states[thing] -= {"heat", "cool"} if verb != "clean" else set()
        self._states[thing].add(verb)
        return f"You {verb} the {thing} using the {place}."

    def _use(self, thing: str) -> str:
        known = thing in self.things and self.where[thing] and self.where[thing] == self._here
        if not known or self.things[thing].kind not in assets.affordances()["Toggleable"]:
            return REFUSED
        self._states[thing].add("toggled")
        return f"You turn on the {thing}."


def _listing(items: list[str]) -> str:
    if len(items) < 2:
        return items[0] if items else "nothing"
    return ", ".join(items[:-1]) + ", and " + items[-1]


def steps_to_solve(world: World, limit: int) -> int | None:
    """Number of actions that the expert takes to win a game; None when it needs more than
    `limit`."""
    simulation, expert = Simulation(world), HouseholdExpert()
    observation = simulation.initial_observation()
    for step in range(1, limit + 1):
        observation = simulation.step(expert.act(observation))
        if simulation.won():
            return step
    return None
