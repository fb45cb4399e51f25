"""The pretraining corpus: what the base model reads, in which order of difficulty.

Order matters more than size: bare procedures (a task line, the appliance, the verb) teach reading
from context within a million tokens, where whole rooms alone taught none of it after two. So the
corpus starts with bare procedures, tiny rooms and small searches and grows into full rooms. Every
sample is a conversation in the frozen prompt format, a pure function of (seed, index, progress);
the control corpus is the same without the memory block.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...agent.conversation import Conversation, Turn
from ...agent.prompt import Demonstration, PromptSpec, begin, condense, prompt_spec
from . import lexicon as lex
from .bindings import HOUSEHOLD, Bindings, Goal, Kind, draw_bindings, draw_goal
from .worlds import Trajectory, draw_room


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation and which of its assistant turns are not to be learnt (wrong on purpose)."""

    conversation: Conversation
    injected_errors: frozenset[int] = frozenset()
    """Indices among the assistant turns."""
    kind: str = ""


def spec_of(bindings: Bindings) -> PromptSpec:
    """The prompt spec of a world."""
    kinds = dict(lex.TEMPLATES)
    return prompt_spec(
        lex.INSTRUCTIONS, [(text, kinds.get(text, "act")) for text in bindings.templates]
    )


def as_sample(
    spec: PromptSpec, trajectory: Trajectory, demos: Sequence[Demonstration], kind: str
) -> Sample:
    """An episode under its memory block."""
    turns = list(begin(spec, trajectory.initial_observation, demos))
    for i, (action, seen) in enumerate(trajectory.steps):
        turns.append(Turn("assistant", action))
        if i + 1 < len(trajectory.steps):
            turns.append(Turn("user", seen))
    return Sample(tuple(turns), trajectory.injected_errors, kind)


def shown(spec: PromptSpec, trajectory: Trajectory) -> Demonstration:
    """An episode as a demonstration."""
    return Demonstration(trajectory.goal, trajectory.success, condense(spec, trajectory.steps))


def _bare_steps(rng: random.Random, goal: Goal, wrong: bool = False) -> Trajectory:
    """Only the procedure, the object already at hand: the shortest text in which reading experience
    pays."""
    item, place = f"{goal.target} {rng.randint(1, 3)}", f"{goal.destination} 1"
    steps: list[tuple[str, str]] = []
    here = ""

    def go(to: str) -> None:
        nonlocal here
        if to != here:
            here = to
            shut = to.split()[0] in lex.CLOSED
            seen = f"The {to} is closed." if shut else f"On the {to}, you see nothing."
            steps.append((f"go to {to}", f"You arrive at {to}. {seen}"))

    for op in goal.ops:
        if op.name == "apply":
            appliance = f"{rng.choice(lex.APPLIANCES) if wrong else op.thing} 1"
            go(appliance)
            done = (
                "Nothing happens." if wrong else f"You {op.verb} the {item} using the {appliance}."
            )
            steps.append((f"{op.verb} {item} with {appliance}", done))
        elif wrong:
            break
        elif op.name == "place":
            go(place)
            steps.append((f"move {item} to {place}", f"You move the {item} to the {place}."))
    initial_observation = f"You are carrying: a {item}.\n\nYour task is to: {goal.text}."
    return Trajectory(goal.text, initial_observation, tuple(steps), success=not wrong)


def bare(rng: random.Random, memory: bool = True) -> Sample:
    """A bare procedure with 0 to 4 demonstrations of it or of others."""
    bindings = draw_bindings(rng)
    # Without a room there is nothing to search for.
    short = tuple(
        r for r in bindings.routines if not {op.name for op in r.ops} & {"use", "tool", "bring"}
    )
    bindings = replace(bindings, routines=short)
    spec = spec_of(bindings)

    def goal(like: Goal | None = None, routines: float = 0.0, composed: float = 0.0) -> Goal:
        u = rng.random()
        kind: Kind = "property"
        if like:
            kind = like.kind
        elif u < routines and bindings.routines:
            kind = "routine"
        elif u > 1 - composed:
            kind = "composed"
        return draw_goal(
            rng, kind, bindings, rng.choice(lex.OBJECTS), rng.choice(list(lex.PLACES)), like
        )

    now = goal(routines=0.4, composed=0.2)
    count = rng.choices((0, 1, 2, 3, 4), (5, 30, 40, 15, 10))[0]
    demos = []
    for i in range(count):
        alike = i == 0 or rng.random() < 0.6
        other = goal(like=now) if alike else goal(routines=0.2, composed=0.2)
        if i and rng.random() < 0.1:
            demos.append(shown(spec, _bare_steps(rng, goal(like=now), wrong=True)))
        else:
            demos.append(shown(spec, _bare_steps(rng, other)))
    rng.shuffle(demos)
    return as_sample(spec, _bare_steps(rng, now), demos if memory else (), "bare")


def spot(rng: random.Random) -> Sample:
    """Two to four places and a few things, no appliances: is what is wanted among what is seen, and
    where was the lamp?"""
    bindings = replace(draw_bindings(rng), properties=(), routines=())
    kind: Kind = "device" if rng.random() < 0.35 else "put"
    tiny = draw_room(rng, kind, bindings, rng.randint(2, 4 if kind == "device" else 3), 0.0)
    return as_sample(spec_of(bindings), tiny.solve(rng, slip=SLIP), (), "spot")


def search(rng: random.Random, kinds: int, crowd: float) -> Sample:
    """Only searching and putting, no memory."""
    bindings = draw_bindings(rng)
    room = draw_room(rng, "put", bindings, rng.randint(2, kinds), crowd)
    return as_sample(spec_of(bindings), room.solve(rng, slip=SLIP), (), "search")


SLIP = 0.08
"""Chance that an action is preceded by a refused one, which is never a target: so that refusals are
recovered from."""

KINDS: tuple[Kind, ...] = ("property", "put", "device", "composed", "routine")


def room(
    rng: random.Random,
    kinds: int,
    crowd: float,
    memory: bool = True,
    bindings: Bindings | None = None,
    kind: Kind | None = None,
    k: int = -1,
) -> Sample:
    """A whole episode in a room, with a memory block of the same world's episodes.

    Matching memory three times out of four, none or beside the point otherwise, now and then with a
    failed attempt. `bindings`, `kind` and `k` fix what is otherwise drawn (for measurements).
    """
    fixed = k >= 0
    bindings = bindings or draw_bindings(rng)
    spec = spec_of(bindings)
    kind = kind or rng.choices(KINDS, (40, 12, 15, 4, 29))[0]
    now = draw_room(rng, kind, bindings, rng.randint(3, kinds), crowd)
    demos: list[Demonstration] = []
    count = k if fixed else rng.choices((0, 1, 2, 3, 4), (13, 25, 42, 12, 8))[0]
    beside_the_point = not fixed and rng.random() < 0.12
    for i in range(count):
        if not beside_the_point and (fixed or i == 0 or rng.random() < 0.85):
            other = draw_room(rng, kind, bindings, rng.randint(3, 8), crowd, like=now.goal)
        else:
            other = draw_room(
                rng, rng.choices(KINDS, (33, 22, 22, 2, 21))[0], bindings, rng.randint(3, 8), crowd
            )
        wrong = not fixed and i > 0 and kind in ("property", "composed") and rng.random() < 0.1
        demos.append(
            shown(
                spec, other.solve(rng, wrong=wrong and other.goal.kind in ("property", "composed"))
            )
        )
    rng.shuffle(demos)
    slip = 0.0 if fixed else SLIP
    return as_sample(
        spec, now.solve(rng, slip=slip), demos if memory else (), f"{kind}-{count if memory else 0}"
    )


def draw(seed: int, index: int, progress: float, memory: bool = True) -> Sample:
    """Sample `index` of the corpus.

    Args:
        seed: of the corpus.
        index: of the sample.
        progress: share of the training that is done, in [0, 1]: it decides how hard the sample is.
        memory: False for the control corpus: the same episodes, never a memory block.
    """
    rng = random.Random(f"{seed}/{index}")
    u = rng.random()
    if progress < 0.15:
        bares, spots, searches, size, crowd = 0.35, 0.70, 0.80, 4, 0.1
    elif progress < 0.35:
        bares, spots, searches, size, crowd = 0.12, 0.25, 0.45, 8, 0.4
    elif progress < 0.55:
        bares, spots, searches, size, crowd = 0.08, 0.20, 0.40, 11, 0.6
    else:
        bares, spots, searches, size, crowd = 0.05, 0.13, 0.22, 15, 1.0
    if u < bares:
        return bare(rng, memory)
    if u < spots:
        return spot(rng)
    return search(rng, size + 1, crowd) if u < searches else room(rng, size, crowd, memory)


def probe(adjective: str, k: int, count: int, seed: int = 5000) -> list[Sample]:
    """Full rooms with the household's *true* bindings, for measuring only.

    Args:
        adjective: ``hot``, ``cool``, ``clean``; ``put`` or ``device`` for tasks without a property;
            ``routine`` for those of synthetic worlds, since the household has none.
        k: number of matching demonstrations.
        count: number of samples.
        seed: of the first one.
    """
    kinds: dict[str, Kind] = {"put": "put", "device": "device", "routine": "routine"}
    kind = kinds.get(adjective, "property")
    props = tuple(sorted(HOUSEHOLD.properties, key=lambda p: p.adjective != adjective))
    known = replace(HOUSEHOLD, properties=props[:1] if kind == "property" else props)
    bindings = None if kind == "routine" else known
    return [
        room(random.Random(f"probe/{seed + i}"), 12, 0.7, bindings=bindings, kind=kind, k=k)
        for i in range(count)
    ]
