"""The composed types of the household: sealed, made of the six types' parts, and the same in engine
and simulation.

Games of the test split are counted and hashed here, never played where a failure would print them.
"""

import hashlib
import random
from collections.abc import Iterator

import pytest

from relive.envs.base import SPLITS, types_of
from relive.envs.household import assets, env, generator, goals
from relive.envs.household.engine import REFUSED, Engine
from relive.envs.household.expert import HouseholdExpert, parse_goal
from relive.envs.household.generator import World, generate
from relive.envs.household.rooms import (
    ALL_TYPES,
    COMPOSED_SEEDS,
    COMPOSED_TYPES,
    GROUPS,
    SEEDS,
    TASK_TYPES,
    seeds_of,
    task_seed,
)
from relive.envs.household.simulate import Simulation
from relive.envs.household.suite import HouseholdSuite
from relive.envs.household.tasks import world_of
from tests.envs.stock import StockEngine

SUITE = HouseholdSuite()
HEAT_TWO, CLEAN_COOL = COMPOSED_TYPES
BANNER = "-= Welcome to TextWorld, ALFRED! =-"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


class Both:
    """A game in the engine and in the simulation at once; fails where they differ."""

    def __init__(self, engine: Engine | StockEngine, world: World) -> None:
        self.engine, self.simulation = engine, Simulation(world)
        engine.load(generator.game(world))
        self.initial_observation = engine.reset().replace(BANNER, "", 1).strip()
        assert self.initial_observation == self.simulation.initial_observation()
        assert not engine.won()

    def step(self, command: str) -> str:
        answer = self.engine.step(command).strip()
        assert answer == self.simulation.step(command), command
        assert self.engine.won() == self.simulation.won(), command
        return answer

    def at(self, place: str, command: str) -> bool:
        """Do something at a place, going there and opening it; whether the game is won then."""
        if self.step(f"go to {place}").endswith("is closed."):  # refused when already there
            self.step(f"open {place}")
        assert self.step(command) != REFUSED, command
        return self.engine.won()

    def fetch(self, thing: str) -> None:
        place = self.simulation.where[thing]
        self.at(place, f"take {thing} from {place}")

    def put(self, thing: str, place: str) -> bool:
        return self.at(place, f"move {thing} to {place}")

    def treat(self, thing: str, verb: str) -> None:
        appliance = {"clean": "sinkbasin 1", "heat": "microwave 1", "cool": "fridge 1"}[verb]
        self.at(appliance, f"{verb} {thing} with {appliance}")

    def targets(self, world: World) -> list[str]:
        return [
            name for name, thing in self.simulation.things.items() if thing.kind == world.target
        ]

    def destinations(self, world: World) -> list[str]:
        return [
            name
            for name, place in self.simulation.places.items()
            if place.kind == world.destination
        ]


# --- sealed
# --------------------------------------------------------------------------------------------------


def test_only_who_asks_by_name_gets_a_composed_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SUITE.types == TASK_TYPES
    assert not set(TASK_TYPES) & set(COMPOSED_TYPES)
    assert set(ALL_TYPES) == {t for types in GROUPS.values() for t in types}
    assert set(goals.COMPOSITIONS) == set(COMPOSED_TYPES) == set(GROUPS["composed"])
    for split in SPLITS:
        assert {task.type for task in SUITE.tasks(split, 30)} == set(TASK_TYPES)
        assert set(SUITE.left_out(split, 1)) == set(TASK_TYPES)
        assert [t.type for t in SUITE.tasks(split, 3, types_of(SUITE, ["composed"]))] == [
            *COMPOSED_TYPES,
            HEAT_TWO,
        ]
    # An environment that is left to choose does not choose them either.
    drawn, task = [], SUITE.tasks("train", 1)[0]

    def only_noted(split: str, task_type: str, index: int) -> Iterator[object]:
        drawn.append(task_type)
        return iter([task])

    monkeypatch.setattr(env, "solvable_from", only_noted)
    player = SUITE.make()
    for seed in range(60):
        player.reset(seed=seed)
    player.close()
    assert set(drawn) == set(TASK_TYPES)


def test_seeds_of_composed_types_are_their_own() -> None:
    ranges = [*SEEDS.values(), *COMPOSED_SEEDS.values()]
    assert all(a.stop <= b.start or b.stop <= a.start for a in ranges for b in ranges if a is not b)
    for split in SPLITS:
        # Of one range, types take every n-th seed from different starts.
        own = [seeds_of(split, t) for t in COMPOSED_TYPES]
        assert {(seeds.start - COMPOSED_SEEDS[split].start, seeds.step) for seeds in own} == {
            (0, 2),
            (1, 2),
        }
        assert all(seeds[-1] in COMPOSED_SEEDS[split] for seeds in own)
        assert task_seed(split, HEAT_TWO, 5) in COMPOSED_SEEDS[split]
    with pytest.raises(ValueError, match="outside the seeds"):
        task_seed("valid", CLEAN_COOL, 50_000_000)


@pytest.mark.parametrize(
    ("task_type", "digest"), [(HEAT_TWO, "fb15f5f90dc82408"), (CLEAN_COOL, "63b20166a764c1cd")]
)
def test_the_sealed_games_stay_as_they_are(task_type: str, digest: str) -> None:
    listed = [task.identity for split in SPLITS for task in SUITE.tasks(split, 60, [task_type])]
    assert len(set(listed)) == 180
    assert hashlib.sha256(" ".join(listed).encode()).hexdigest()[:16] == digest, (
        "not the games that were sealed"
    )


@pytest.mark.parametrize("split", SPLITS)
def test_few_composed_games_are_left_out(split: str) -> None:
    shares = SUITE.left_out(split, 100, COMPOSED_TYPES)
    assert set(shares) == set(COMPOSED_TYPES)
    assert max(shares.values()) <= 0.1


# --- what they ask for
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_type", "treatment"),
    [
        ("pick_clean_then_place_in_recep", goals.CLEAN),
        ("pick_heat_then_place_in_recep", goals.HEAT),
        ("pick_cool_then_place_in_recep", goals.COOL),
    ],
)
def test_goals_are_composed_as_the_library_composes_its_own(
    task_type: str, treatment: goals.Treatment
) -> None:
    def conditions(template: str) -> list[str]:
        return sorted(template.split("\n"))

    derived = goals.with_conditions(assets.goal("pick_and_place_simple")[0], (treatment,))
    assert conditions(derived) == conditions(assets.goal(task_type)[0])
    assert goals.goal(task_type) == assets.goal(task_type)


def test_composed_goals_state_every_condition_of_every_object() -> None:
    two, once = (" ".join(goals.goal(t)[0].split()) for t in COMPOSED_TYPES)
    for name in ("?o1", "?o2"):
        assert two.count(f"(isHot {name})") == two.count(f"(inReceptacle {name} ?r)") == 1
    assert "(not (= ?o1 ?o2))" in two
    assert [
        once.count(condition)
        for condition in ("(isClean ?o)", "(isCool ?o)", "(inReceptacle ?o ?r)")
    ] == [1, 1, 1]
    assert all(
        goal.count(")") - goal.count("(") == 1 for goal in (two, once)
    )  # it closes the problem, as in the library


@pytest.mark.parametrize("task_type", COMPOSED_TYPES)
def test_composed_games_combine_the_rules_of_their_parts(task_type: str) -> None:
    treatments = goals.treatments(task_type)
    assert treatments == {HEAT_TWO: (goals.HEAT,), CLEAN_COOL: (goals.CLEAN, goals.COOL)}[task_type]
    assert goals.room_kinds(task_type) == {"Kitchen"}
    for index in range(60):
        world = generate(task_type, task_seed("train", task_type, index), "train")
        assert all(
            world.target in assets.affordances()[treatment.affordance] for treatment in treatments
        )
        appliances = {treatment.appliance for treatment in treatments}
        assert appliances <= {receptacle.kind for receptacle in world.receptacles}
        assert world.destination not in appliances
        goal = parse_goal(world.goal)
        assert (goal.target, goal.destination) == (world.target.lower(), world.destination.lower())
        assert goal.verbs == tuple(treatment.verb for treatment in treatments)


# --- engine, simulation and expert
# ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task_type", COMPOSED_TYPES)
def test_the_expert_wins_the_same_way_in_engine_and_simulation(
    engine: Engine, task_type: str
) -> None:
    for split in ("train", "valid"):
        for task in SUITE.tasks(split, 2, [task_type], start=2):
            both, expert = Both(engine, world_of(task)), HouseholdExpert()
            observation, actions = both.initial_observation, list[str]()
            while not engine.won():
                assert len(actions) < SUITE.max_steps
                actions.append(expert.act(observation))
                observation = both.step(actions[-1])
            verbs = [
                action.split()[0] for action in actions if action.split()[0] not in ("go", "open")
            ]
            assert verbs == {
                HEAT_TWO: ["take", "heat", "move", "take", "heat", "move"],
                CLEAN_COOL: ["take", "clean", "cool", "move"],
            }.get(task_type)


@pytest.mark.parametrize("task_type", COMPOSED_TYPES)
def test_the_stock_engine_agrees(task_type: str) -> None:
    task = SUITE.tasks("train", 1, [task_type], start=5)[0]
    both, expert = Both(StockEngine(), world_of(task)), HouseholdExpert()
    observation = both.initial_observation
    for _ in range(SUITE.max_steps):
        if not both.engine.won():
            observation = both.step(expert.act(observation))
    assert both.engine.won()


@pytest.mark.parametrize("task_type", COMPOSED_TYPES)
def test_wandering_reads_the_same_in_engine_and_simulation(engine: Engine, task_type: str) -> None:
    known = ("go", "open", "take", "move", "clean", "heat", "cool")
    for task in SUITE.tasks("train", 2, [task_type], start=10):
        both, rng, moved = Both(engine, world_of(task)), random.Random(task.seed), 0
        for _ in range(60):
            commands = [c for c in engine.admissible() if c.split()[0] in known]
            doing = [c for c in commands if not c.startswith("go ")]
            command = rng.choice(doing if doing and rng.random() < 0.6 else commands)
            moved += command.startswith("move")
            both.step(command)
        assert moved


def test_two_hot_objects_must_both_be_hot_and_in_one_place(engine: Engine) -> None:
    for task in SUITE.tasks("train", 40, [HEAT_TWO]):
        world = world_of(task)
        if [receptacle.kind for receptacle in world.receptacles].count(world.destination) > 1:
            break
    else:
        pytest.fail("no game with two destinations")
    both = Both(engine, world)
    (first, second, *_), (here, there, *_) = both.targets(world), both.destinations(world)
    both.fetch(first)
    both.treat(first, "heat")
    assert not both.put(first, here)
    both.fetch(second)
    assert not both.put(second, here)  # cold
    both.fetch(second)
    both.treat(second, "heat")
    assert not both.put(second, there)  # apart
    both.fetch(second)
    both.treat(second, "cool")
    assert not both.put(second, here)  # hot no more
    both.fetch(second)
    both.treat(second, "heat")
    assert both.put(second, here)


def test_clean_and_cool_may_come_in_any_order_and_heating_undoes_only_cooling(
    engine: Engine,
) -> None:
    for task in SUITE.tasks("train", 40, [CLEAN_COOL]):
        world = world_of(task)
        if world.target in assets.affordances()["Heatable"] and world.destination != "Microwave":
            break
    else:
        pytest.fail("no game with an object that can be heated")
    both = Both(engine, world)
    thing, place = both.targets(world)[0], both.destinations(world)[0]
    both.fetch(thing)
    both.treat(thing, "cool")
    assert not both.put(thing, place)  # not clean
    both.fetch(thing)
    both.treat(thing, "heat")
    both.treat(thing, "clean")
    assert not both.put(thing, place)  # cool no more
    both.fetch(thing)
    both.treat(thing, "cool")
    assert both.put(thing, place)  # still clean


def test_expert_heats_two_and_takes_them_to_the_same_place() -> None:
    expert = HouseholdExpert()
    opening = (
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a "
        "cabinet 1, "
        "a microwave 1, and a shelf 1.\n\nYour task is to: put two hot mug in cabinet."
    )
    script = [
        (opening, "go to shelf 1"),
        (
            "You arrive at shelf 1. On the shelf 1, you see a mug 2, and a mug 1.",
            "take mug 2 from shelf 1",
        ),
        ("You pick up the mug 2 from the shelf 1.", "go to microwave 1"),
        ("You arrive at microwave 1. The microwave 1 is closed.", "heat mug 2 with microwave 1"),
        ("You heat the mug 2 using the microwave 1.", "go to cabinet 1"),
        ("You arrive at cabinet 1. The cabinet 1 is closed.", "open cabinet 1"),
        (
            "You open the cabinet 1. The cabinet 1 is open. In it, you see nothing.",
            "move mug 2 to cabinet 1",
        ),
        ("You move the mug 2 to the cabinet 1.", "go to shelf 1"),
        ("You arrive at shelf 1. On the shelf 1, you see a mug 1.", "take mug 1 from shelf 1"),
        ("You pick up the mug 1 from the shelf 1.", "go to microwave 1"),
        ("You arrive at microwave 1. The microwave 1 is closed.", "heat mug 1 with microwave 1"),
        ("You heat the mug 1 using the microwave 1.", "go to cabinet 1"),
        (
            "You arrive at cabinet 1. The cabinet 1 is open. In it, you see a mug 2.",
            "move mug 1 to cabinet 1",
        ),
    ]
    for observation, action in script:
        assert expert.act(observation) == action


def test_expert_cleans_then_cools() -> None:
    expert = HouseholdExpert()
    opening = (
        "You are in the middle of a room. Looking quickly around you, you see a fridge 1, a shelf "
        "1, and a sinkbasin 1."
        "\n\nYour task is to: clean and cool some pan and put it in shelf."
    )
    script = [
        (opening, "go to sinkbasin 1"),
        (
            "You arrive at sinkbasin 1. On the sinkbasin 1, you see a pan 1.",
            "take pan 1 from sinkbasin 1",
        ),
        ("You pick up the pan 1 from the sinkbasin 1.", "clean pan 1 with sinkbasin 1"),
        ("You clean the pan 1 using the sinkbasin 1.", "go to fridge 1"),
        ("You arrive at fridge 1. The fridge 1 is closed.", "cool pan 1 with fridge 1"),
        ("You cool the pan 1 using the fridge 1.", "go to shelf 1"),
        ("You arrive at shelf 1. On the shelf 1, you see nothing.", "move pan 1 to shelf 1"),
    ]
    for observation, action in script:
        assert expert.act(observation) == action
