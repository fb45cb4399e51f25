"""Made-up worlds: rooms, objects and procedures whose words are bound afresh every time.

A `Lore` says what the words of one world mean: which verb and which appliance an adjective stands for, which verb switches a
device on. The draws are independent and uniform over pools that contain the household's own words, so the corpus carries no
information about what "hot" means in the real household (``tests/training/test_corpus.py`` measures that). Texts are those
of TextWorld's ALFRED grammar, letter by letter. Rooms are invented; no real layout is used.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from training import lexicon as lex

Step = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Property:
    """An adjective and what it takes to make it true."""

    adjective: str
    verb: str
    appliance: str


@dataclass(frozen=True, slots=True)
class Lore:
    """What the words of one world mean."""

    properties: tuple[Property, ...]
    devices: tuple[tuple[str, str], ...]
    """(device, the verb that switches it on)."""
    templates: tuple[str, ...]
    """All action templates of this world, in the order in which the prompt lists them."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be done in one room."""

    text: str
    target: str
    destination: str = ""
    properties: tuple[Property, ...] = ()
    device: tuple[str, str] | None = None
    by_verb: bool = False
    """The wording names the verbs instead of the adjectives."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode of the privileged solver: it knows the lore, but searches like anyone."""

    goal: str
    opening: str
    steps: tuple[Step, ...]
    slips: frozenset[int] = frozenset()
    """Indices of actions that were wrong on purpose; they are never a training target."""
    success: bool = True


HOUSEHOLD = Lore(
    (Property("hot", "heat", "microwave"), Property("cool", "cool", "fridge"), Property("clean", "clean", "sinkbasin")),
    (("desklamp", "use"), ("floorlamp", "use")),
    (
        *(text for text, _ in lex.TEMPLATES),
        "use {object}",
        *(f"{verb} {{object}} with {{receptacle}}" for verb in ("clean", "heat", "cool")),
    ),
)
"""The true bindings. Used only to measure, never to train the base model."""


def draw_lore(rng: random.Random) -> Lore:
    """Bindings of a new world: adjective, verb and appliance of each property are drawn independently."""
    n = rng.randint(2, 4)
    verbs = rng.sample(lex.VERBS, n + 2)
    adjectives, appliances = rng.sample(lex.ADJECTIVES, n), rng.sample(lex.APPLIANCES, n)
    properties = tuple(Property(a, v, p) for a, v, p in zip(adjectives, verbs, appliances, strict=False))
    devices = tuple(zip(rng.sample(lex.DEVICES, 2), verbs[n:], strict=True))
    own = [f"{v} {{object}} with {{receptacle}}" for v in verbs[:n]] + [f"{v} {{object}}" for v in verbs[n:]]
    rng.shuffle(own)
    return Lore(properties, devices, (*(text for text, _ in lex.TEMPLATES), *own))


def draw_goal(
    rng: random.Random, kind: str, lore: Lore, target: str, destination: str, like: Goal | None = None
) -> Goal:
    """A goal of a kind: ``put``, ``device``, ``property`` or ``composed`` (two properties). Never two objects.

    With `like`, the goal asks for the same procedure as that one.
    """
    first = rng.random() < 0.5
    if kind == "put":
        text = f"put a {target} in {destination}" if first else f"put some {target} on {destination}"
        return Goal(text, target, destination)
    if kind == "device":
        device = like.device if like and like.device else rng.choice(lore.devices)
        text = f"look at {target} under the {device[0]}" if first else f"examine the {target} with the {device[0]}"
        return Goal(text, target, device=device)
    wanted = like.properties if like else tuple(rng.sample(lore.properties, 2 if kind == "composed" else 1))
    if like and rng.random() < 0.85:
        first = not like.by_verb
    if first:
        words = " and ".join(p.adjective for p in wanted)
        return Goal(f"put a {words} {target} in {destination}", target, destination, wanted)
    words = " and ".join(p.verb for p in wanted)
    return Goal(f"{words} some {target} and put it in {destination}", target, destination, wanted, by_verb=True)


def kind_of(goal: Goal) -> str:
    """The kind that `draw_goal` made it from."""
    if goal.device:
        return "device"
    return ("put", "property", "composed")[len(goal.properties)]


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

    lore: Lore
    goal: Goal
    places: list[str]
    inside: dict[str, list[str]]
    closed: frozenset[str]
    """Kinds of places that start closed."""
    opened: set[str] = field(default_factory=set)
    home: str = ""
    """Where the device stands."""

    @property
    def opening(self) -> str:
        """The first observation."""
        return (
            f"You are in the middle of a room. Looking quickly around you, you see {several(self.places)}.\n\n"
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
            rng: for slips.
            slip: chance of a refused action before each one ("Nothing happens."), marked so that it is never a target.
            wrong: use wrong appliances, so that the episode fails.
        """
        steps: list[Step] = []
        slips: set[int] = set()

        def do(action: str, seen: str) -> None:
            if rng.random() < slip:
                # The slips of a learner: the right thing with the wrong verb. After "Nothing happens." comes the right one.
                verb, rest = (
                    ("take", action[6:]) if action.startswith("go to ") else ("go to", action.split(maxsplit=1)[1])
                )
                slips.add(len(steps))
                steps.append((f"{verb} {rest}", "Nothing happens."))
            steps.append((action, seen))

        def go(place: str, enter: bool) -> None:
            do(f"go to {place}", f"You arrive at {place}. {self.contents(place)}")
            if enter and self.shut(place):
                self.opened.add(place)
                do(f"open {place}", f"You open the {place}. {self.contents(place)}")

        goal, here, item, lamp_at = self.goal, "", "", ""
        todo = list(reversed(self.places))
        while todo and not item:
            here = todo.pop(0)
            go(here, enter=True)
            found = [name for name in self.inside[here] if name.split()[0] == goal.target]
            if here == self.home:
                lamp_at = here
            if found:
                item = found[0]
                self.inside[here].remove(item)
                do(f"take {item} from {here}", f"You pick up the {item} from the {here}.")
        if goal.device:
            device, verb = goal.device
            while not lamp_at and todo:
                here = todo.pop(0)
                go(here, enter=True)
                lamp_at = here if here == self.home else ""
            if here != lamp_at:
                go(lamp_at, enter=False)
            said = "turn on" if verb == "use" else verb
            do(f"{verb} {device} 1", f"You {said} the {device} 1.")
            return Trajectory(goal.text, self.opening, tuple(steps), frozenset(slips))
        for wanted in goal.properties:
            appliance = f"{self._wrong(rng, wanted) if wrong else wanted.appliance} 1"
            if here != appliance:
                here = appliance
                go(here, enter=False)
            done = f"You {wanted.verb} the {item} using the {appliance}."
            do(f"{wanted.verb} {item} with {appliance}", "Nothing happens." if wrong else done)
        if wrong:
            return Trajectory(goal.text, self.opening, tuple(steps), frozenset(slips), success=False)
        destination = f"{goal.destination} 1"
        if here != destination:
            go(destination, enter=True)
        elif self.shut(destination):
            self.opened.add(destination)
            do(f"open {destination}", f"You open the {destination}. {self.contents(destination)}")
        do(f"move {item} to {destination}", f"You move the {item} to the {destination}.")
        return Trajectory(goal.text, self.opening, tuple(steps), frozenset(slips))

    def _wrong(self, rng: random.Random, wanted: Property) -> str:
        return rng.choice(sorted({name.split()[0] for name in self.places} - {wanted.appliance}))


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


def draw_room(rng: random.Random, kind: str, lore: Lore, kinds: int, crowd: float, like: Goal | None = None) -> Room:
    """A room with a goal of `kind` in it, solvable by the lore."""
    counts = draw_counts(rng, kinds, crowd)
    carriers = list(counts)
    for p in lore.properties:
        counts.setdefault(p.appliance, 1)
    closed = frozenset(k for k in counts if (k in lex.CLOSED) != (rng.random() < 0.06))
    target, destination = rng.choice(lex.OBJECTS), rng.choice(carriers)
    goal = draw_goal(rng, kind, lore, target, destination, like)
    places = numbered(counts)
    holds: dict[str, list[str]] = {place: [] for place in places}
    spread = min(len(lex.OBJECTS) - 1, max(1, round(len(places) * rng.uniform(0.2, 0.9))))
    kinds_of_thing = [target, *rng.sample([o for o in lex.OBJECTS if o != target], spread)]
    for thing in kinds_of_thing:
        allowed = [k for k in counts if thing != target or k != destination] or list(counts)
        for i in range(rng.choice((1, 1, 2, 2, 3)), 0, -1):
            at = rng.choice(allowed)
            holds[f"{at} {rng.randint(1, counts[at])}"].append(f"{thing} {i}")
    home = ""
    if goal.device:
        home = rng.choice([p for p in places if p.split()[0] not in closed] or places)
        holds[home].append(f"{goal.device[0]} 1")
    for things in holds.values():
        things.sort(key=lambda name: (name.split()[0], -int(name.split()[1])))
    return Room(lore, goal, places, holds, closed, home=home)
