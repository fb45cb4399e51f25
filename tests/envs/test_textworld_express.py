"""The suite `textworld-express`: listing, playing, refusals, solutions, and its Java process."""

import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relive.envs import EnvPool, TextEnv, check_env
from relive.envs.textworld_express import TextWorldExpressSuite
from relive.envs.textworld_express.env import TextWorldExpressEnv
from relive.envs.textworld_express.games import FOLDS, LIMITS
from relive.task import Task

SUITE = TextWorldExpressSuite()


@pytest.fixture(scope="module")
def env() -> Iterator[TextWorldExpressEnv]:
    env = SUITE.make()
    yield env
    env.close()


def first(game: str, split: str = "train") -> Task:
    return SUITE.tasks(split, 1, [game])[0]


def play(env: TextEnv, task: Task) -> list[tuple[str, str, float]]:
    """(action, observation, reward) of the expert's episode, which has to be won."""
    observation, info = env.reset(options={"task": task})
    expert, steps = SUITE.expert(task), [("", observation, 0.0)]
    while not info["success"]:
        action = expert.act(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        steps.append((action, observation, reward))
        assert (info["invalid"], truncated) == (False, False), (task, action, observation)
        assert terminated == info["success"], (task, action, observation)
        assert len(steps) <= SUITE.limit(task), task
    assert info["score"] == 1.0
    assert sum(reward for *_, reward in steps) == pytest.approx(1.0)
    return steps


def follow(env: TextEnv, task: Task, actions: list[str]) -> list[str]:
    """What is read when these actions are done, to the end of the episode."""
    told = [env.reset(options={"task": task})[0]]
    for action in actions:
        observation, _, terminated, _, _ = env.step(action)
        told.append(observation)
        if terminated:
            break
    return told


def wander(env: TextEnv, task: Task, steps: int = 30) -> list[tuple[str, str, float]]:
    """A random episode of admissible commands."""
    rng, told = random.Random(task.identity), [("", env.reset(options={"task": task})[0], 0.0)]
    for _ in range(steps):
        action = rng.choice([*env.admissible(), "take everything"])
        observation, reward, terminated, _, info = env.step(action)
        assert -1 <= info["score"] <= 1
        assert terminated or info["score"] >= 0
        told.append((action, observation, reward))
        if terminated:
            break
    return told


# --- listing
# --------------------------------------------------------------------------------------------------


def test_each_fold_has_a_thousand_games_of_each_type() -> None:
    assert SUITE.splits == ("train", "dev", "test")
    assert SUITE.split_of("valid") == "dev"
    for split, seeds in FOLDS.items():
        assert SUITE.size(split) == 8000
        assert SUITE.size(split, ["coin", "twc"], start=990) == 20
        tasks = SUITE.tasks(split, 8000)
        assert {task.seed for task in tasks} == set(seeds)
    every = [task for split in SUITE.splits for task in SUITE.tasks(split, 8000)]
    assert len({task.identity for task in every}) == 24_000
    assert set(SUITE.groups["houses"]) | set(SUITE.groups["puzzles"]) == set(SUITE.types)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("valid", 1), "calls its split 'dev'"),
        (("train", 8001), "8000 tasks"),
        (("train", 1, ["coins"]), "Did you mean 'coin'"),
        (("train", 1, ["coin"], 1000), "0 tasks"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SUITE.tasks(*arguments)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task.of("eat", suite="toy"), "is none of suite 'textworld-express'"),
        (Task("textworld-express", "0" * 32, "coin", "train", "", 20_000, "1", ""), "is none of"),
        (Task("textworld-express", "0" * 32, "coin", "train", "", 3, "1", ""), "list the tasks"),
    ],
)
def test_a_task_that_is_not_ours_is_refused(
    env: TextWorldExpressEnv, task: Task, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        env.reset(options={"task": task})


# --- playing
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", SUITE.types)
def test_the_solution_wins_and_the_opening_says_what_to_do(
    env: TextWorldExpressEnv, game: str
) -> None:
    for split in SUITE.splits:
        task = first(game, split)
        opening, info = env.reset(options={"task": task})
        assert info["task"].goal
        assert f"Task: {info['task'].goal}" in opening
        assert set(info) == {"task", "success", "invalid", "score"}
        play(env, task)
        with pytest.raises(RuntimeError, match="call reset first"):
            env.step("look around")
        assert env.admissible() == []


def test_what_was_played_before_makes_no_difference(env: TextWorldExpressEnv) -> None:
    tasks = SUITE.tasks("train", 16)
    before = {task.identity: (play(env, task), wander(env, task)) for task in tasks}
    random.Random(0).shuffle(tasks)
    for task in tasks:
        assert (play(env, task), wander(env, task)) == before[task.identity], task
    fresh = SUITE.make()
    try:
        for task in tasks[::-1][:8]:
            told = wander(fresh, task), play(fresh, task)
            assert told[::-1] == before[task.identity], task
    finally:
        fresh.close()


def test_two_environments_do_not_take_each_others_things(env: TextWorldExpressEnv) -> None:
    """In one Java process they would: the package has objects in static fields."""
    task, other = first("sorting", "test"), SUITE.make()
    try:
        alone = play(env, task)
        env.reset(options={"task": task})
        other.reset(options={"task": task})
        for action, observation, reward in alone[1:]:
            assert env.step(action)[:2] == (observation, reward)
            other.step(action)
    finally:
        other.close()


def test_solutions_are_the_same_in_another_process(env: TextWorldExpressEnv) -> None:
    """The package draws those of two games by the clock."""
    program = """
import json, sys
from relive.envs.textworld_express.java import JavaGames
java = JavaGames()
print(json.dumps([java.solution(g, "test", s) for g in ("coin", "twc") for s in (20003, 20001)]))
java.close()
"""
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    for (game, index), solution in zip(
        [("coin", 3), ("coin", 1), ("twc", 3), ("twc", 1)], json.loads(told), strict=True
    ):
        expert = SUITE.expert(SUITE.tasks("test", 1, [game], start=index)[0])
        assert [expert.act("") for _ in solution] == solution
        assert expert.act("") == "look around"


@pytest.mark.parametrize(
    "action",
    ["xyzzy the frobnicator", "", "é\n¿", "take moon", "LOOK AROUND", "\x00", "\ud800", "x" * 9999],
)
def test_what_is_refused_is_marked_and_changes_nothing(
    env: TextWorldExpressEnv, action: str
) -> None:
    for game in ("cookingworld", "simonsays"):
        task = first(game)
        steps = play(env, task)
        env.reset(options={"task": task})
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated) == (0.0, False, False)
        assert info["invalid"], observation
        for done, seen, gained in steps[1:]:
            assert env.step(done)[:2] == (seen, gained)


def test_what_does_not_work_is_a_refusal_too(env: TextWorldExpressEnv) -> None:
    task = first("cookingworld")
    env.reset(options={"task": task})
    refused = set()
    rng = random.Random(0)
    for _ in range(300):
        commands = env.admissible()
        action = rng.choice(
            [c for c in commands if c.split()[0] in {"open", "close", "take", "move"}]
        )
        observation, _, _, _, info = env.step(action)
        if info["invalid"]:
            refused.add(observation[:20])
    assert {"That is already clos", "That is already open", "You can't move there"} <= refused
    assert any(text.startswith("Your inventory") for text in refused)


def test_who_does_what_simon_did_not_say_has_lost(env: TextWorldExpressEnv) -> None:
    task = first("simonsays")
    opening, _ = env.reset(options={"task": task})
    wrong = next(command for command in env.admissible() if f"'{command}'" not in opening)
    _, reward, terminated, _, info = env.step(wrong)
    assert (reward, terminated, info["success"], info["score"]) == (-1.0, True, False, -1.0)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step(wrong)


def test_help_tells_the_task_and_is_no_move(env: TextWorldExpressEnv) -> None:
    task = first("peckingorder")
    _, info = env.reset(options={"task": task})
    observation, reward, terminated, _, told = env.step("help")
    assert observation == f"{info['task'].goal}."
    assert (reward, terminated, told["invalid"]) == (0.0, False, False)


def test_names_have_their_counts_and_what_simon_names() -> None:
    names = SUITE.names(
        "You see 6 pineapples, 19ml of aluminum, and a math problem. Simon says, 'slice grape'."
    )
    assert {"6 pineapples", "19ml of aluminum", "math problem", "grape"} <= set(names)


def test_reset_without_a_task_draws_one_of_the_train_split(env: TextWorldExpressEnv) -> None:
    one, other = env.reset(seed=5), env.reset(seed=5)
    assert one == other
    drawn = {env.reset(seed=seed)[1]["task"].type for seed in range(40)}
    assert len(drawn) > 4
    assert one[1]["task"].split == "train"


# --- the Java process
# --------------------------------------------------------------------------------------------------


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process is gone, or goes within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")


@needs_proc
def test_closing_ends_java_and_a_killed_one_is_replaced() -> None:
    env = SUITE.make()
    task = first("coin")
    env.reset(options={"task": task})
    assert env._java is not None
    killed = env._java.pid
    os.kill(killed, signal.SIGKILL)
    assert gone(killed)
    with pytest.raises(RuntimeError, match="has ended"):
        env.step("look around")
    opening, _ = env.reset(options={"task": task})
    assert opening
    assert env._java is not None
    ended = env._java.pid
    assert ended != killed
    env.close()
    env.close()
    assert gone(ended)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "parent", "parent by Ctrl-C"])
def test_no_java_outlives_who_started_it(victim: str) -> None:
    program = """
import os, sys, time
from relive.envs import EnvPool
from relive.envs.textworld_express import TextWorldExpressSuite
suite = TextWorldExpressSuite()
task, = suite.tasks("train", 1, ["coin"])
with EnvPool(suite, workers=2) as pool:
    for worker in range(2):
        pool.reset(worker, task)
    suite.expert(task).act("")
    print(*(w.process.pid for w in pool._workers), flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    java = {pid: children(pid) for pid in [*workers, parent.pid]}
    machines = {pid for pids in java.values() for pid in pids if is_java(pid)}
    assert len(machines) == 3
    if victim == "worker":
        os.kill(workers[0], signal.SIGKILL)
        assert all(gone(pid) for pid in java[workers[0]])
        assert not any(gone(pid, 0.2) for pid in machines - set(java[workers[0]]))
        parent.kill()
    elif victim == "parent":
        parent.kill()
    else:
        os.killpg(parent.pid, signal.SIGINT)
    parent.wait()
    assert all(gone(pid) for pid in machines)


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def is_java(pid: int) -> bool:
    return "java" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]


def test_a_pool_plays_it_and_the_suite_can_be_sent() -> None:
    assert pickle.loads(pickle.dumps(SUITE)).tasks("dev", 3) == SUITE.tasks("dev", 3)
    task = first("mapreader")
    with EnvPool(SUITE, workers=1) as pool:
        info, expert = pool.reset(0, task).info, SUITE.expert(task)
        while not info["success"]:
            info = pool.step(0, expert.act("")).info


@pytest.mark.slow
def test_what_the_package_repeats_is_declared(env: TextWorldExpressEnv) -> None:
    """Games of two seeds that begin alike are played by one solution; see `Suite.repeats`."""
    alike = []
    for game in ("coin", "twc"):
        by_opening: dict[str, list[Task]] = {}
        for task in SUITE.tasks("test", 500, [game]):
            by_opening.setdefault(env.reset(options={"task": task})[0], []).append(task)
        for same in by_opening.values():
            for task, other in itertools.pairwise(same):
                expert = SUITE.expert(task)
                actions = [expert.act("") for _ in range(40)]
                told, others = (follow(env, t, actions) for t in (task, other))
                alike += [game] if told == others else []
    assert set(alike) <= set(SUITE.repeats)
    assert alike


@pytest.mark.slow
def test_the_expert_wins_test_games_of_every_type(env: TextWorldExpressEnv) -> None:
    for task in SUITE.tasks("test", 20 * len(LIMITS)):
        play(env, task)


@pytest.mark.slow
def test_the_suite_passes_the_check() -> None:
    assert [str(finding) for finding in check_env(SUITE, 1) if not finding.ok] == []
