"""Made-up worlds: rooms with things in them, one goal each, and a solver that reaches it.

What the words mean is in :mod:`relive.training.pretraining.bindings`. Texts are those of
TextWorld's ALFRED grammar, letter by letter. Rooms are invented; no real layout is used.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import lexicon as lex
from .bindings import Bindings, Goal, Kind, draw_goal

Step = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode of the privileged solver: it knows the bindings, but searches like anyone."""

    goal: str
    initial_observation: str
    steps: tuple[Step, ...]
    injected_errors: frozenset[int] = frozenset()
    """Indices of actions that were wrong on purpose; they are never a training target."""
    success: bool = True


def several(names: Sequence[str]) -> str:
    """The grammar's list of things: ``a book 1, a pen 2, and a pen 1``; ``nothing`` when empty."""
    if not names:
        return "nothing"
    each = [f"a {name}" for name in names]
    return each[0] if len(each) == 1 else ", ".join(each[:-1]) + f", and {each[-1]}"


def numbered(counts: dict[str, int]) -> list[str]:
    """Instance names as the engine lists them: kinds in alphabetical order, numbers falling."""
    return [f"{kind} {i}" for kind in sorted(counts) for i in range(counts[kind], 0, -1)]


@dataclass
class Room:
    """A room with things in it and one goal."""

    bindings: Bindings
    goal: Goal
    places: list[str]
    inside: dict[str, list[str]]
    closed: frozenset[str]
    """Kinds of places that start closed."""
    opened: set[str] = field(default_factory=set)

    @property
    def initial_observation(self) -> str:
        """The first observation."""
        return (
            "You are in the middle of a room. Looking quickly around you, you see "
            f"{several(self.places)}.\n\n"
            f"Your task is to: {self.goal.text}."
        )

    def contents(self, place: str) -> str:
        """What the grammar's `examineReceptacle` says."""
        if place.split()[0] not in self.closed:
            return f"On the {place}, you see {several(self.inside[place])}."
        if place in self.opened:
            return f"The {place} is open. In it, you see {several(self.inside[place])}."
        return f"The {place} is closed."

    def shut(self, place: str) -> bool:
        """Whether it has to be opened first."""
        return place.split()[0] in self.closed and place not in self.opened

    def solve(self, rng: random.Random, slip: float = 0.0, wrong: bool = False) -> Trajectory:
        """Searches from the last listed place backwards, then follows the procedure.

        Args:
            rng: for injected_errors.
            slip: chance of refused actions before each one ("Nothing happens."), marked so that
                they are never a target.
            wrong: use wrong appliances and stop there, so that the episode fails.
        """
        return _Solver(self, rng, slip).solve(wrong)


class _Solver:
    """One attempt at a room: where it is, what it has seen, what it has done."""

    def __init__(self, room: Room, rng: random.Random, slip: float) -> None:
        self.room, self.rng, self.slip = room, rng, slip
        self.steps: list[Step] = []
        self.injected_errors: set[int] = set()
        self.todo = list(reversed(room.places))
        self.here = ""
        self.seen: dict[str, str] = {}  # what the procedure needs -> the place where it was seen
        self.needed = {
            room.goal.target,
            *(op.thing for op in room.goal.ops if op.name in ("use", "tool", "bring")),
        }

    def do(self, action: str, seen: str) -> None:
        """Acts, sometimes after a refused attempt."""
        if self.rng.random() < self.slip:
            self.refuse(self._slip(action))
        self.steps.append((action, seen))

    def refuse(self, action: str) -> None:
        """A slip: an action that is not carried out.

        After it comes the right one, never the same again: a model that has seen refusals repeated
        repeats them for ever.
        """
        self.injected_errors.add(len(self.steps))
        self.steps.append((action, "Nothing happens."))

    def _slip(self, action: str) -> str:
        """What a learner might do instead of an action: the right thing with the wrong verb, a
        place that the room does not have, or any action on things that are elsewhere."""
        rng, verb = self.rng, action.split()[0]
        kind = rng.random()
        if kind < 0.35:
            template = rng.choice([t for t in self.room.bindings.templates if t.count("{") == 2])
            places = [place for place in self.room.places if place != self.here] or ["safe 3"]
            thing = rng.choice(
                [name for things in self.room.inside.values() for name in things] or ["cup 4"]
            )
            return (
                template.replace("{object}", thing, 1)
                .replace("{object}", "knife 4")
                .format(receptacle=rng.choice(places))
            )
        if verb != "go":
            return f"go to {action.split(maxsplit=1)[1]}"
        absent = sorted(lex.PLACES.keys() - {place.split()[0] for place in self.room.places})
        return f"go to {rng.choice(absent)} 1" if absent and kind < 0.5 else f"take {action[6:]}"

    def go(self, place: str, enter: bool = False) -> None:
        """Moves, unless there already, and opens what is shut if it is to be entered."""
        room = self.room
        if self.here != place:
            self.here = place
            self.do(f"go to {place}", f"You arrive at {place}. {room.contents(place)}")
        if enter and room.shut(place):
            room.opened.add(place)
            self.do(f"open {place}", f"You open the {place}. {room.contents(place)}")
        if not room.shut(place):
            for name in room.inside[place]:
                if name.split()[0] in self.needed:
                    self.seen.setdefault(name.split()[0], place)

    def find(self, kind: str) -> str:
        """Goes to where a thing of the kind is, searching on where the search stopped; returns the
        thing's name."""
        while kind not in self.seen:
            self.go(self.todo.pop(0), enter=True)
        self.go(self.seen[kind])
        return next(name for name in self.room.inside[self.here] if name.split()[0] == kind)

    def fetch(self, kind: str) -> str:
        """Finds a thing of the kind and takes it; returns its name."""
        item = self.find(kind)
        self.room.inside[self.here].remove(item)
        self.do(f"take {item} from {self.here}", f"You pick up the {item} from the {self.here}.")
        return item

    def put(self, item: str) -> None:
        """Puts what is carried where the goal says."""
        destination = f"{self.room.goal.destination} 1"
        self.go(destination, enter=True)
        self.do(f"move {item} to {destination}", f"You move the {item} to the {destination}.")
        self.room.inside[destination].append(item)

    def solve(self, wrong: bool) -> Trajectory:
        """Goes through the stages; the object is fetched when the first of them needs it."""
        goal, item = self.room.goal, ""
        for op in goal.ops:
            if op.name == "bring":
                self.put(self.fetch(op.thing))
                continue
            item = item or self.fetch(goal.target)
            if op.name == "apply":
                others = sorted({place.split()[0] for place in self.room.places} - {op.thing})
                appliance = f"{self.rng.choice(others) if wrong else op.thing} 1"
                if self.rng.random() < 3 * self.slip:
                    # An object that is found on an appliance tempts one to treat it there; and if
                    # that is the right one, to go where one is.
                    here = self.here == appliance
                    self.refuse(
                        f"go to {appliance}" if here else f"{op.verb} {item} with {self.here}"
                    )
                self.go(appliance)
                done = f"You {op.verb} the {item} using the {appliance}."
                self.do(f"{op.verb} {item} with {appliance}", "Nothing happens." if wrong else done)
            elif wrong:
                break
            elif op.name == "place":
                self.put(item)
            elif op.name == "use":
                device = self.find(op.thing)
                said = "turn on" if op.verb == "use" else op.verb
                self.do(f"{op.verb} {device}", f"You {said} the {device}.")
            elif op.name == "tool":
                tool = self.fetch(op.thing)
                self.go(f"{goal.destination} 1")
                self.do(
                    f"{op.verb} {item} with {tool}", f"You {op.verb} the {item} using the {tool}."
                )
        return Trajectory(
            goal.text,
            self.room.initial_observation,
            tuple(self.steps),
            frozenset(self.injected_errors),
            success=not wrong,
        )


def draw_counts(rng: random.Random, kinds: int, crowd: float) -> dict[str, int]:
    """How many of each kind of place a room holds.

    Args:
        rng: source of randomness.
        kinds: number of kinds.
        crowd: in [0, 1]; 0 gives one of each, 1 the spread of the real layouts (up to 30 cabinets).
    """
    counts = {}
    for kind in rng.sample(list(lex.PLACES), min(kinds, len(lex.PLACES))):
        most = lex.PLACES[kind]
        if rng.random() > crowd:
            counts[kind] = 1
        elif most >= 16 and rng.random() < 0.4:
            counts[kind] = rng.randint(4, most)
        else:
            counts[kind] = rng.randint(1, min(most, 4))
    return counts


def draw_room(
    rng: random.Random,
    kind: Kind,
    bindings: Bindings,
    kinds: int,
    crowd: float,
    like: Goal | None = None,
) -> Room:
    """A room with a goal of `kind` in it, solvable by the bindings."""
    counts = draw_counts(rng, kinds, crowd)
    carriers = list(counts)
    for p in bindings.properties:
        counts.setdefault(p.appliance, 1)
    closed = frozenset(k for k in counts if (k in lex.CLOSED) != (rng.random() < 0.06))
    tools = {op.thing for r in bindings.routines for op in r.ops if op.name in ("tool", "bring")}
    target = rng.choice([o for o in lex.OBJECTS if o not in tools])
    goal = draw_goal(rng, kind, bindings, target, rng.choice(carriers), like)
    places = numbered(counts)
    holds: dict[str, list[str]] = {place: [] for place in places}
    treated = (
        [p.appliance for p in bindings.properties]
        if any(op.name == "apply" for op in goal.ops)
        else []
    )
    others = [o for o in lex.OBJECTS if o != target and o not in tools]
    spread = min(len(others), max(1, round(len(places) * rng.uniform(0.2, 0.9))))
    for thing in [target, *sorted(tools), *rng.sample(others, spread)]:
        allowed = [k for k in counts if thing not in (target, *tools) or k != goal.destination]
        # In a routine's room there is one of the target: what a second one would be for is never
        # shown.
        for i in range(
            1 if thing == target and kind == "routine" else rng.choice((1, 1, 2, 2, 3)), 0, -1
        ):
            at = rng.choice(allowed or list(counts))
            if thing == target and treated and rng.random() < 0.3:
                at = rng.choice(
                    treated
                )  # on the right appliance or on another one: only reading tells which it is
            holds[f"{at} {rng.randint(1, counts[at])}"].append(f"{thing} {i}")
    for op in goal.ops:
        if op.name == "use" and not any(f"{op.thing} 1" in things for things in holds.values()):
            holds[_home(rng, places, closed, holds, target)].append(f"{op.thing} 1")
    for things in holds.values():
        things.sort(key=lambda name: (name.split()[0], -int(name.split()[1])))
    return Room(bindings, goal, places, holds, closed)


def _home(
    rng: random.Random,
    places: Sequence[str],
    closed: frozenset[str],
    holds: dict[str, list[str]],
    target: str,
) -> str:
    """Where a device stands: on something open; half the time where the search comes by before it
    finds the target."""
    homes = [place for place in places if place.split()[0] not in closed] or list(places)
    found = max(
        i for i, place in enumerate(places) if any(n.split()[0] == target for n in holds[place])
    )
    before = [place for place in homes if places.index(place) > found]
    return rng.choice(before if before and rng.random() < 0.5 else homes)
