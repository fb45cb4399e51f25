"""ScienceWorld: thirty tasks, listed without Java and played the same each time."""

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scienceworld")

from relive.envs import EnvPool, check_env
from relive.envs.scienceworld import ScienceWorldSuite, gold
from relive.envs.scienceworld.classfile import renamed, with_hash_of
from relive.envs.scienceworld.env import ScienceWorldEnv
from relive.envs.scienceworld.games import SPLITS, games, task_of
from relive.envs.scienceworld.simulator import Simulator, SimulatorError, _hurried
from relive.task import Task

SUITE = ScienceWorldSuite()
POWER = task_of("power-component", "test", 15)
LIFE = task_of("lifespan-longest-lived", "test", 93)
PLANT = task_of("grow-plant", "train", 0)
PAINT = task_of("chemistry-mix-paint-secondary-color", "test", 27)


@pytest.fixture(scope="module")
def env() -> Iterator[ScienceWorldEnv]:
    env = SUITE.make()
    yield env
    env.close()
    gold.close()


def _played(env: ScienceWorldEnv, task: Task, actions: list[str] | None = None) -> list[Any]:
    """An episode of the expert, or of given actions: its opening, then what each step answered."""
    observation, info = env.reset(options={"task": task})
    told: list[Any] = [observation, info["score"]]
    expert = SUITE.expert(task) if actions is None else None
    for number in range(SUITE.limit(task)):
        if actions is not None and number == len(actions):
            break
        action = actions[number] if actions is not None else expert.act(observation)  # type: ignore[union-attr]
        observation, reward, over, _, info = env.step(action)
        told.append((action, observation, reward, info["invalid"], info["score"]))
        if over:
            break
    return told


def test_tasks_are_those_of_the_paper() -> None:
    assert len(SUITE.types) == 30
    assert {group: len(types) for group, types in SUITE.groups.items()} == {"easy": 17, "hard": 13}
    assert [SUITE.size(split) for split in SPLITS] == [3592, 1796, 1819]
    assert SUITE.size("test", SUITE.groups["hard"]) == 636
    assert SUITE.split_of("valid") == "dev"
    assert len({t.identity for split in SPLITS for t in SUITE.up_to(split, 10_000)}) == 7207
    for game in games().values():
        assert game.limit == min(300, max(50, math.ceil(game.longest * 1.3 / 10) * 10))


def test_listing_starts_no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert [t.type for t in SUITE.tasks("test", 30)] == list(SUITE.types)
    with pytest.raises(RuntimeError, match="apt install default-jre-headless"):
        SUITE.make().reset(options={"task": POWER})


def test_tasks_of_others_are_refused(env: ScienceWorldEnv) -> None:
    for task in (
        Task.of("sleep", suite="toy"),
        Task("scienceworld", POWER.identity, "power-component", "train", "", 15, "", ""),
        Task("scienceworld", "0" * 32, "power-component", "test", "", 15, "scienceworld-0", ""),
    ):
        with pytest.raises(ValueError, match=task.identity):
            env.reset(options={"task": task})


def test_opening_states_the_goal_as_a_phrase(env: ScienceWorldEnv) -> None:
    observation, info = env.reset(options={"task": POWER})
    goal = info["task"].goal
    assert goal.startswith("turn on the electric motor. First, focus on")
    assert observation.endswith(f"\n\nYour task is to: {goal}.")
    assert observation.startswith("This room is called the workshop.")
    assert info["score"] == 0.07  # for being where the motor is
    assert not info["invalid"]


def test_expert_wins_the_same_way_whatever_was_played_before(env: ScienceWorldEnv) -> None:
    first = _played(env, POWER)
    assert first[-1][-1] == 1.0
    assert first[1] + sum(step[2] for step in first[2:]) == pytest.approx(1.0)
    _played(env, PAINT)
    assert _played(env, POWER) == first


def test_wrong_focus_loses(env: ScienceWorldEnv) -> None:
    env.reset(options={"task": POWER})
    _, reward, over, truncated, info = env.step("focus on table")
    assert (over, truncated, info["score"], info["success"]) == (True, False, -1, False)
    assert reward == pytest.approx(-1.07)
    with pytest.raises(RuntimeError, match="reset"):
        env.step("look around")


def test_nonsense_is_marked_and_no_time_passes(env: ScienceWorldEnv) -> None:
    actions = ["open door to hallway", "wait1", "look around"]
    first = _played(env, POWER, actions)
    env.reset(options={"task": POWER})
    for number, action in enumerate(actions):
        assert env._simulator is not None
        moves = env._simulator.moves()
        for nonsense in ("xyzzy", "", "é\n\ud800", "7", "focus on the moon", "go to mars"):
            answer = env.step(nonsense)
            assert answer[1:4] == (0, False, False)
            assert answer[4]["invalid"], answer[0]
        assert env._simulator.moves() == moves
        assert env.step(action)[0] == first[number + 2][1]


def test_refusals_are_marked(env: ScienceWorldEnv) -> None:
    env.reset(options={"task": POWER})
    for refused in ("go to hallway", "eat table", "activate table", "read table"):
        assert env.step(refused)[4]["invalid"], refused
    assert not env.step("open door to hallway")[4]["invalid"]
    assert env.step("open door to hallway")[4]["invalid"]


def _until_asked(env: ScienceWorldEnv) -> str:
    """Plays until the simulator asks which of several things is meant."""
    observation, _ = env.reset(options={"task": PLANT})
    expert = SUITE.expert(PLANT)
    while not observation.startswith("Ambiguous request"):
        observation, _, over, _, _ = env.step(expert.act(observation))
        assert not over
    return observation


def test_questions_are_answered_with_a_number(env: ScienceWorldEnv) -> None:
    question = _until_asked(env)
    assert "Please enter the number" in question
    assert not env._info(refused=False)["invalid"]
    assert env.admissible()[:2] == ["0", "1"]
    observation, _, _, _, info = env.step(" 0 ")
    assert observation.startswith("You move the")
    assert not info["invalid"]


@pytest.mark.parametrize("answer", ["99", "look around", "", "one"])
def test_anything_else_cancels_and_no_time_passes(env: ScienceWorldEnv, answer: str) -> None:
    _until_asked(env)
    assert env._simulator is not None
    moves = env._simulator.moves()
    observation, reward, _, _, info = env.step(answer)
    assert "cancelled" in observation
    assert info["invalid"]
    assert (reward, env._simulator.moves()) == (0, moves)
    assert env.step("look around")[0].startswith("This room is called")


def test_listing_commands_changes_nothing(env: ScienceWorldEnv) -> None:
    actions = ["open door to hallway", "go to hallway", "look around", "wait", "look around"]
    task = task_of("find-animal", "test", 225)
    first = _played(env, task, actions)
    env.reset(options={"task": task})
    for number, action in enumerate(actions):
        commands = env.admissible()
        assert commands == env.admissible()
        assert commands == sorted(set(commands))
        assert env.step(action)[0] == first[number + 2][1]


def test_reset_without_a_task_follows_the_seed(env: ScienceWorldEnv) -> None:
    tasks = [env.reset(seed=seed)[1]["task"] for seed in (3, 4, 3)]
    assert tasks[0] == tasks[2] != tasks[1]
    assert {task.split for task in tasks} == {"train"}


def test_names_are_as_commands_call_them() -> None:
    seen = (
        "This room is called the kitchen. In it, you see:\n\tthe agent\n\ta substance called air\n"
        "\ta counter. On the counter is: a bowl (containing a red apple, a banana), a drawer.\n"
        "\ta fridge. The fridge door is closed.\n\ta stove, which is turned off\n"
        "You also see:\n\tA door to the living room (that is closed)"
    )
    names = SUITE.names(seen)
    assert {
        "kitchen", "counter", "bowl", "red apple", "banana", "fridge", "stove", "living room",
        "door to living room",
    } <= set(names)  # fmt: skip
    assert not {"agent", "air"} & set(names)


def test_solutions_are_kept(env: ScienceWorldEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gold.solution(POWER)

    def _none() -> Simulator:
        raise AssertionError("a solution that is kept needs no Java")

    monkeypatch.setattr(gold, "_started", _none)
    assert gold.solution(POWER) == first
    kept = gold._file(POWER)
    kept.write_text(kept.read_text()[:5])
    with pytest.raises(AssertionError, match="kept"):
        gold.solution(POWER)
    kept.unlink()


def test_templates_cover_what_the_expert_does(env: ScienceWorldEnv) -> None:
    forms = [re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(t.text))) for t in SUITE.templates]
    for task in (POWER, PAINT, LIFE):
        for action in gold.solution(task):
            assert any(form.fullmatch(action) for form in forms), action


def test_long_looks_are_waits() -> None:
    looks = ["go"] + ["look at plane"] * 25 + ["look at box", "wait1", "wait1"]
    assert _hurried(looks) == [
        "go", "wait", "wait", *["look at plane"] * 3, "look at box", "wait1", "wait1",
    ]  # fmt: skip


def test_a_simulator_that_is_gone_is_an_error_and_the_next_reset_starts_another(
    env: ScienceWorldEnv,
) -> None:
    before, _ = env.reset(options={"task": POWER})
    assert env._simulator is not None
    os.kill(env._simulator.pid, signal.SIGKILL)
    with pytest.raises(SimulatorError, match="gone"):
        env.step("look around")
    assert env.reset(options={"task": POWER})[0] == before  # a process that has played nothing


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="no Java class"):
        with_hash_of(b"PK\x03\x04", "uuid")
    with pytest.raises(ValueError, match="cannot be called"):
        renamed(b"\xca\xfe\xba\xbe", "a/Random", "b/Random")


@pytest.mark.slow
def test_table_is_the_packages_own() -> None:
    simulator = Simulator()
    try:
        assert set(simulator.kinds()) == set(SUITE.types)
        for kind, game in games().items():
            sizes = tuple(len(game.variations[split]) for split in SPLITS)
            assert simulator.variations(kind) == sizes, kind
    finally:
        simulator.close()


@pytest.mark.slow
def test_sixty_recorded_episodes_are_the_same_in_another_order_and_another_process() -> None:
    tasks = SUITE.tasks("test", 30) + SUITE.tasks("train", 30)
    env, other = SUITE.make(), SUITE.make()
    try:
        first = {task: _played(env, task) for task in tasks}
        won = sum(episode[-1][-1] == 1 for episode in first.values())
        assert won >= 59
        for task in reversed(tasks):
            assert _played(env, task) == first[task], task
        for task in tasks[::7] + tasks[::-3]:
            assert _played(other, task) == first[task], task
    finally:
        env.close()
        other.close()


@pytest.mark.slow
def test_it_keeps_the_contract() -> None:
    failed = [str(finding) for finding in check_env(SUITE, per_type=1) if not finding.ok]
    gold.close()
    assert not failed


def _javas() -> set[int]:
    """Java processes with this simulator."""
    told = subprocess.run(["ps", "-ww", "-eo", "pid=,stat=,args="], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in told.stdout.splitlines()]
    return {
        int(r[0]) for r in rows if len(r) == 3 and r[1][0] != "Z" and "scienceworld.jar" in r[2]
    }


@pytest.mark.slow
def test_workers_that_are_killed_leave_no_java_behind() -> None:
    before = _javas()
    with EnvPool(SUITE, workers=2) as pool:
        for number in range(2):
            pool.submit_reset(number, POWER)
        for _ in range(2):
            pool.wait()
        ours = _javas() - before
        assert len(ours) == 2
        process = pool._workers[0].process
        assert process is not None
        process.kill()
        _wait_for(lambda: len(_javas() - before) == 1)
    _wait_for(lambda: not _javas() - before)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_program_that_is_killed_leaves_no_java_behind(
    how: signal.Signals, tmp_path: Path
) -> None:
    before = _javas()
    program = (
        "from relive.envs import EnvPool\n"
        "from relive.envs.scienceworld import ScienceWorldSuite\n"
        "import time\n"
        "suite = ScienceWorldSuite()\n"
        "task = suite.tasks('train', 8)[7]\n"
        "suite.expert(task)\n"
        "with EnvPool(suite, workers=2) as pool:\n"
        "    for number in range(2): pool.submit_reset(number, task)\n"
        "    for number in range(2): pool.wait()\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # Nothing is cached there, so that the expert needs a process of its own, too.
        env={**os.environ, "RELIVE_CACHE": str(tmp_path)},
    )
    try:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        assert len(_javas() - before) == 3
        os.killpg(run.pid, how) if how == signal.SIGINT else run.kill()
        run.wait(20)
        _wait_for(lambda: not _javas() - before)
    finally:
        run.kill()


def _wait_for(condition: Any, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.1)
