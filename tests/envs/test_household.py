"""The household suite: its environment, its expert and its task lists."""

import dataclasses
import random
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from relive.envs import get_suite
from relive.envs.base import TextEnv
from relive.envs.household.expert import Goal, HouseholdExpert, parse_goal
from relive.envs.household.generator import World, generate
from relive.envs.household.rooms import ALL_TYPES, TASK_TYPES, task_seed
from relive.envs.household.simulate import Simulation, steps_to_solve
from relive.envs.household.suite import HouseholdSuite
from relive.envs.household.tasks import world_of
from relive.task import Task

SUITE = HouseholdSuite()


@pytest.fixture(scope="module")
def env() -> Iterator[TextEnv]:
    env = SUITE.make()
    yield env
    env.close()


# --- the environment
# -----------------------------------------------------------------------------------------------


def test_opening_has_no_banner_and_ends_with_the_task(env: TextEnv) -> None:
    task = SUITE.tasks("valid", 1, ["pick_heat_then_place_in_recep"])[0]
    observation, info = env.reset(options={"task": task})
    first, second = observation.split("\n\n")
    assert re.fullmatch(
        r"You are in the middle of a room\. Looking quickly around you, you see a .*, and a .*\.",
        first,
    )
    assert second == f"Your task is to: {task.goal}."
    assert info == {"task": task, "success": False, "invalid": False, "score": 0.0}


def test_refused_and_unknown_commands_are_invalid(env: TextEnv) -> None:
    env.reset(options={"task": SUITE.tasks("train", 1)[0]})
    for action in ("fly", "", "open fridge 99", "Look"):
        observation, reward, terminated, truncated, info = env.step(action)
        assert (observation, reward, terminated, truncated) == (
            "Nothing happens.",
            0.0,
            False,
            False,
        )
        assert info["invalid"]
    assert not env.step("look")[4]["invalid"]
    assert "look" in env.admissible()


def test_a_task_of_another_version_or_suite_is_refused(env: TextEnv) -> None:
    task = SUITE.tasks("train", 1)[0]
    with pytest.raises(ValueError, match="cannot be made again"):
        env.reset(options={"task": dataclasses.replace(task, identity="0" * 16)})
    with pytest.raises(ValueError, match="belongs to suite 'toy'"):
        env.reset(options={"task": get_suite("toy").tasks("train", 1)[0]})
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step("look")


def play(env: TextEnv, task: Task) -> list[tuple[str, str]]:
    """(action, observation) pairs of the expert's episode; fails when it is not won."""
    observation, _ = env.reset(options={"task": task})
    expert = SUITE.expert(SUITE.tasks("train", 1)[0])
    steps = []
    for _ in range(SUITE.max_steps):
        action = expert.act(observation)
        observation, reward, terminated, _, info = env.step(action)
        steps.append((action, observation))
        if terminated:
            assert reward == 1.0
            assert info["success"]
            assert info["score"] == 1.0
            with pytest.raises(RuntimeError, match="call reset first"):
                env.step("look")
            return steps
    pytest.fail(f"the expert did not win {task}")


# --- the expert
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_simulation_and_engine_give_the_expert_the_same_episode(
    env: TextEnv, task_type: str
) -> None:
    for split in ("train", "test"):
        task = SUITE.tasks(split, 1, [task_type], start=2)[0]
        world = world_of(task)
        real = play(env, task)
        simulation, expert = Simulation(world), HouseholdExpert()
        observation = simulation.initial_observation()
        for action, answer in real:
            assert not simulation.won()
            assert expert.act(observation) == action
            observation = simulation.step(action)
            assert observation == answer
        assert simulation.won()


@pytest.mark.parametrize("task_type", ALL_TYPES)
def test_expert_solves_at_least_85_percent_of_each_type(task_type: str) -> None:
    for split in ("train", "valid"):
        solved = [
            steps_to_solve(generate(task_type, task_seed(split, task_type, index), split), 50)
            is not None
            for index in range(60)
        ]
        assert sum(solved) / len(solved) >= 0.85, split


def revealing_episode(world: World, length: int = 0) -> tuple[list[str], list[set[str]]]:
    """The expert's actions, and for each the places whose contents had been read before it was
    chosen.

    Up to the win, or exactly `length` actions: a permuted game may be won by what nobody has seen.
    """
    simulation, expert = Simulation(world), HouseholdExpert()
    observation, read = simulation.initial_observation(), set[str]()
    actions, known = [], []
    for _ in range(length or 50):
        known.append(set(read))
        actions.append(expert.act(observation))
        observation = simulation.step(actions[-1])
        for on, inside in re.findall(
            r"On the ([a-z]+ \d+), you see|The ([a-z]+ \d+) is open\. In it", observation
        ):
            read.add(on or inside)
        if simulation.won() and not length:
            break
    return actions, known


@pytest.mark.parametrize("task_type", ALL_TYPES)
def test_what_has_not_been_seen_does_not_influence_the_expert(task_type: str) -> None:
    changed = 0
    for index in range(12):
        world = generate(task_type, task_seed("train", task_type, 300 + index), "train")
        actions, known = revealing_episode(world)
        ids = {name: receptacle.id for name, receptacle in Simulation(world).places.items()}
        rng = random.Random(index)
        for step, read in enumerate(known):
            read_ids = {ids[name] for name in read}
            hidden = sorted(set(ids.values()) - read_ids)
            shuffled = dict(zip(hidden, rng.sample(hidden, len(hidden)), strict=True))
            things = tuple(
                dataclasses.replace(t, receptacle=shuffled.get(t.receptacle, t.receptacle))
                for t in world.things
            )
            permuted, _ = revealing_episode(dataclasses.replace(world, things=things), len(actions))
            assert permuted[: step + 1] == actions[: step + 1], (index, step)
            changed += permuted != actions
    assert changed > 10  # the permutations did matter later on


def test_expert_searches_backwards_and_opens_what_is_closed() -> None:
    expert = HouseholdExpert()
    opening = (
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, a "
        "drawer 2, a drawer 1, "
        "and a shelf 1.\n\nYour task is to: put a cup in cabinet."
    )
    script = [
        (opening, "go to shelf 1"),
        (
            "You arrive at shelf 1. On the shelf 1, you see a book 1, and a bowl 1.",
            "go to drawer 1",
        ),
        ("You arrive at drawer 1. The drawer 1 is closed.", "open drawer 1"),
        ("You open the drawer 1. The drawer 1 is open. In it, you see nothing.", "go to drawer 2"),
        (
            "You arrive at drawer 2. The drawer 2 is open. In it, you see a cup 2, and a cup 1.",
            "take cup 2 from drawer 2",
        ),
        ("You pick up the cup 2 from the drawer 2.", "go to cabinet 1"),
        ("You arrive at cabinet 1. The cabinet 1 is closed.", "open cabinet 1"),
        (
            "You open the cabinet 1. The cabinet 1 is open. In it, you see a pan 1.",
            "move cup 2 to cabinet 1",
        ),
        ("Nothing happens.", "go to cabinet 2"),
    ]
    for observation, action in script:
        assert expert.act(observation) == action


def test_expert_goes_back_for_a_second_object_that_it_saw() -> None:
    expert = HouseholdExpert()
    opening = (
        "You are in the middle of a room. Looking quickly around you, you see a bed 1, a desk 1, "
        "and a shelf 1."
        "\n\nYour task is to: find two cd and put them in desk."
    )
    script = [
        (opening, "go to shelf 1"),
        (
            "You arrive at shelf 1. On the shelf 1, you see a cd 2, and a cd 1.",
            "take cd 2 from shelf 1",
        ),
        ("You pick up the cd 2 from the shelf 1.", "go to desk 1"),
        ("You arrive at desk 1. On the desk 1, you see nothing.", "move cd 2 to desk 1"),
        ("You move the cd 2 to the desk 1.", "go to shelf 1"),
        ("You arrive at shelf 1. On the shelf 1, you see a cd 1.", "take cd 1 from shelf 1"),
        ("You pick up the cd 1 from the shelf 1.", "go to desk 1"),
        ("You arrive at desk 1. On the desk 1, you see a cd 2.", "move cd 1 to desk 1"),
    ]
    for observation, action in script:
        assert expert.act(observation) == action


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("put some cd on drawer", Goal("cd", "drawer")),
        ("put a clean cup in shelf", Goal("cup", "shelf", ("clean",))),
        ("cool some pan and put it in stoveburner", Goal("pan", "stoveburner", ("cool",))),
        ("put a hot egg in fridge", Goal("egg", "fridge", ("heat",))),
        ("find two pen and put them in desk", Goal("pen", "desk")),
        ("put two pen in desk", Goal("pen", "desk")),
        ("put two hot mug in cabinet", Goal("mug", "cabinet", ("heat",))),
        ("heat two mug and put them in cabinet", Goal("mug", "cabinet", ("heat",))),
        ("put a clean and cool pan in shelf", Goal("pan", "shelf", ("clean", "cool"))),
        ("clean and cool some pan and put it in shelf", Goal("pan", "shelf", ("clean", "cool"))),
        ("look at book under the desklamp", Goal("book", lamp="desklamp")),
        ("examine the book with the floorlamp", Goal("book", lamp="floorlamp")),
    ],
)
def test_goals_are_read(text: str, goal: Goal) -> None:
    assert parse_goal(text) == goal


def test_every_generated_goal_is_read_and_a_strange_one_is_refused() -> None:
    for task_type in TASK_TYPES:
        for seed in range(40):
            world = generate(task_type, seed, "test")
            goal = parse_goal(world.goal)
            expected = (world.target.lower(), world.destination.lower(), world.lamp.lower())
            assert (goal.target, goal.destination, goal.lamp) == expected
    with pytest.raises(ValueError, match="does not understand"):
        parse_goal("make me a sandwich")


# --- task lists
# --------------------------------------------------------------------------------------------------


def test_360_tasks_are_listed_in_seconds_without_a_game_twice() -> None:
    started = time.perf_counter()
    tasks = HouseholdSuite().tasks("valid", 360)
    assert time.perf_counter() - started < 10
    assert len({task.identity for task in tasks}) == 360
    assert Counter(task.type for task in tasks) == dict.fromkeys(TASK_TYPES, 60)


def test_lists_hold_only_what_the_expert_solves_and_tell_what_is_left_out() -> None:
    task_type = "pick_two_obj_and_place"
    seeds = [task_seed("train", task_type, index) for index in range(200)]
    solved = [s for s in seeds if steps_to_solve(generate(task_type, s, "train"), 50) is not None]
    listed = SUITE.tasks("train", len(solved), [task_type])
    assert [task.seed for task in listed] == solved
    share = SUITE.left_out("train", 200, [task_type])
    assert share == {task_type: pytest.approx(1 - len(solved) / 200)}
    assert 0 < share[task_type] <= 0.15


def test_start_skips_per_type_and_uneven_counts_favour_the_first_types() -> None:
    assert SUITE.tasks("test", 12)[6:] == SUITE.tasks("test", 6, start=1)
    assert [task.type for task in SUITE.tasks("test", 8)] == [*TASK_TYPES, *TASK_TYPES[:2]]
    assert SUITE.tasks("test", 0) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dev", 1), "no split 'dev'"),
        (("train", 1, ["pick_two_obj"]), "Did you mean 'pick_two_obj_and_place'"),
        (("train", -1), "must not be negative"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SUITE.tasks(*arguments)
