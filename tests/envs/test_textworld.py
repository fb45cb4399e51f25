"""The suite `textworld`: listing, making, playing, refusals, and games from files."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relive.envs import EnvPool, TextEnv, check_env
from relive.envs.base import Info
from relive.envs.textworld import library
from relive.envs.textworld.engine import Engine, UnplayableError
from relive.envs.textworld.files import suite_of
from relive.envs.textworld.recipes import KINDS, recipe_of
from relive.envs.textworld.suite import TextWorldSuite
from relive.task import Task

SUITE = TextWorldSuite()
CAVE = Path(__file__).parent / "data" / "cave.inf"


def coin() -> Task:
    return SUITE.tasks("train", 1, ["coin-easy"])[0]


def treasure() -> Task:
    return SUITE.tasks("train", 1, ["treasure-easy"])[0]


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    """The games that quick tests play, made at once."""
    SUITE.prepare([coin(), treasure()])


@pytest.fixture
def env() -> Iterator[TextEnv]:
    env = SUITE.make()
    yield env
    env.close()


@pytest.fixture(scope="module")
def cave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A story for the Z-machine that TextWorld has nothing to do with."""
    import textworld.generator.inform7.world2inform7 as inform

    compiler = Path(inform.I7_DEFAULT_PATH) / "share" / "inform7" / "Compilers" / "inform6"
    path = tmp_path_factory.mktemp("cave") / "cave.z5"
    subprocess.run([compiler, "-v5wS", CAVE, path], check=True, capture_output=True)
    return path


def play(env: TextEnv, task: Task, suite: TextWorldSuite = SUITE) -> list[tuple[str, str, float]]:
    """(action, observation, reward) of the expert's episode, which has to be won."""
    observation, info = env.reset(options={"task": task})
    expert, steps = suite.expert(task), []
    while not info["success"]:
        action = expert.act(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        steps.append((action, observation, reward))
        assert not truncated
        assert not info["invalid"], (task, action)
        assert terminated == info["success"]
        assert len(steps) <= suite.limit(task) // 2, task
    assert info["score"] == 1.0
    assert sum(reward for *_, reward in steps) == pytest.approx(1.0)
    return steps


# --- listing
# --------------------------------------------------------------------------------------------------


def test_a_thousand_tasks_are_listed_without_making_a_game() -> None:
    started = time.perf_counter()
    listed = {split: SUITE.tasks(split, 1000) for split in SUITE.splits}
    assert time.perf_counter() - started < 2
    every = [task for tasks in listed.values() for task in tasks]
    assert len({task.identity for task in every}) == 3000
    assert len({task.seed for task in every}) == 3000  # no world of one type is another's, too
    assert not {path.stem for path in library.folder().iterdir()} & {
        t.identity for t in listed["test"]
    }
    assert SUITE.size("train") is None


def test_a_group_names_types_and_foods_are_held_out() -> None:
    assert SUITE.groups["cooking"] == ("cooking-1", "cooking-2", "cooking-3", "cooking-4")
    assert set(SUITE.groups["easy"]) < set(SUITE.types)
    for kind, made_of in KINDS.items():
        for split in SUITE.splits:
            settings = recipe_of(kind, split, 0)["settings"]
            assert settings.get("split", split) == split
            assert settings.get("test", split == "test") == (split == "test")
        assert SUITE.limit(SUITE.tasks("train", 1, [kind])[0]) == made_of.limit


def test_reset_without_a_task_draws_one_of_the_train_split(env: TextEnv) -> None:
    import numpy as np

    from relive.envs.textworld.suite import _draw

    drawn = [_draw(np.random.default_rng(seed)) for seed in range(60)]
    assert {task.split for task in drawn} == {"train"}
    assert len({task.type for task in drawn}) > 8
    assert _draw(np.random.default_rng(7)) == drawn[7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dev", 1), "no split 'dev'"),
        (("train", 1, ["cooking-5"]), "Did you mean 'cooking-"),
        (("train", -1), "must not be negative"),
        (("train", 2, ["coin-easy"], 999_999), "1 tasks"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SUITE.tasks(*arguments)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task.of("eat", suite="toy"), "is none of suite 'textworld'"),
        (Task("textworld", "0" * 32, "coin-easy", "train", "", 3, "textworld-0", ""), "list the"),
    ],
)
def test_a_task_that_is_not_ours_is_refused(env: TextEnv, task: Task, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        env.reset(options={"task": task})


# --- playing
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [coin(), treasure()], ids=lambda task: task.type)
def test_the_walkthrough_wins_and_the_opening_says_what_to_do(env: TextEnv, task: Task) -> None:
    opening, info = env.reset(options={"task": task})
    assert info["task"].goal in opening
    assert not task.goal
    assert len(info["task"].goal) > 20
    assert "$$" not in opening  # the banner
    assert ">" not in opening
    assert opening == opening.strip()
    assert set(info) == {"task", "success", "invalid", "score"}
    steps = play(env, task)
    assert "*** The End ***" in steps[-1][1]
    assert "RESTART" not in steps[-1][1]
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step("look")
    assert play(env, task) == steps


def test_textworlds_own_environment_gives_the_same_answers(env: TextEnv) -> None:
    import textworld

    for task in (coin(), treasure()):
        stock = textworld.start(
            str(library.game_file(recipe_of(task.type, "train", task.seed))),
            textworld.EnvInfos(facts=True, won=True, lost=True, max_score=True, score=True),
        )
        opening, info = env.reset(options={"task": task})
        state = stock.reset()
        whole = words(re.sub(r">\s{20,}.*", "", state.feedback))  # and the status line
        assert words(opening) == whole[-len(words(opening)) :]
        expert, score = SUITE.expert(task), 0.0
        for action in ["look", "go up", "examine wall", "inventory", "take", "dance", *["?"] * 50]:
            action = expert.act(opening) if action == "?" else action
            observation, reward, terminated, _, info = env.step(action)
            state, points, done = stock.step(action)
            assert words(observation) == words(state.feedback)[: len(words(observation))], action
            score += reward
            assert score == pytest.approx(points / state.max_score)
            assert (terminated, info["success"]) == (done, state.won)
            if terminated:
                break
        assert info["success"]
        stock.close()


def words(text: str) -> list[str]:
    return [word for word in text.replace(">", " ").split() if word.strip("|\\/_$")]


def test_taking_the_wrong_thing_loses(env: TextEnv) -> None:
    """Treasure hunters lose when they take the other thing; the walk-through goes past it."""
    env.reset(options={"task": treasure()})
    expert, rng, over = SUITE.expert(treasure()), random.Random(0), False
    right = {expert.act("") for _ in range(10)}
    for _ in range(300):
        commands = env.admissible()
        wrong = [c for c in commands if c.startswith("take ") and c not in right]
        moves = [c for c in commands if c.startswith("go ")]
        _, reward, over, _, info = env.step(rng.choice(wrong or moves))
        if over:
            break
    assert over
    assert (info["success"], info["score"], reward) == (False, 0.0, 0.0)


def test_admissible_commands_follow_the_episode_and_do_not_touch_it(env: TextEnv) -> None:
    task = coin()
    steps = play(env, task)
    env.reset(options={"task": task})
    for action, observation, reward in steps:
        commands = list(env.admissible())
        assert action in commands
        assert commands == sorted(commands)
        assert "look" in commands
        assert env.step(action)[:2] == (observation, reward)
        assert env.render() == observation
    assert env.admissible() == []


@pytest.mark.parametrize(
    "action",
    [
        "xyzzy the frobnicator",
        "",
        "   ",
        "é\n¿",
        "go up",
        "take moon",
        "open door",
        "eat me",
        "drop coin",
        "restart",
        "RESTART",
        "quit",
        "save",
        "undo",
        "oops restart",
        "look. quit",
        "look then restart",
        "transcript on",
        "tw-print facts",
        "tw-trace-actions",
        "x" * 500,
        "look\x00quit",
        "\ud800",
    ],
)
def test_what_is_refused_is_marked_and_changes_nothing(env: TextEnv, action: str) -> None:
    steps = play(env, coin())
    env.reset(options={"task": coin()})
    observation, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["invalid"], observation
    assert observation
    for done, seen, gained in steps[:-1]:
        assert env.step(done)[:2] == (seen, gained)
    last = env.step(steps[-1][0])
    assert last[4]["success"]


def test_a_question_is_no_refusal(env: TextEnv) -> None:
    env.reset(options={"task": coin()})
    observation, _, _, _, info = env.step("take")
    assert observation == "What do you want to take?"
    assert not info["invalid"]
    assert not env.step("look")[4]["invalid"]


def test_two_workers_play_it_without_textworld_in_them() -> None:
    with EnvPool("textworld" if registered() else SUITE, workers=2) as pool:
        for worker, task in enumerate((coin(), treasure())):
            info: Info = pool.reset(worker, task).info
            expert = SUITE.expert(task)
            while not info["success"]:
                info = pool.step(worker, expert.act("")).info
            assert info["score"] == 1.0


def registered() -> bool:
    from relive.envs import suite_names

    return "textworld" in suite_names()


# --- making
# --------------------------------------------------------------------------------------------------


def test_what_is_made_is_found_again_and_nothing_else_is_left() -> None:
    started = time.perf_counter()
    assert SUITE.prepare([coin(), treasure()]) == 0
    assert time.perf_counter() - started < 0.5
    names = {path.name for path in library.folder().iterdir()}
    assert {f"{coin().identity}.z8", f"{coin().identity}.json"} <= names
    assert not [name for name in names if name.startswith(".making-")]


def test_abandoned_drafts_are_removed_and_fresh_ones_are_not() -> None:
    old, fresh = library.folder() / ".making-old", library.folder() / ".making-fresh"
    for draft in (old, fresh):
        draft.mkdir()
        (draft / "game.ni").touch()
    os.utime(old, (0, 0))
    library._sweep()
    assert (old.exists(), fresh.exists()) == (False, True)
    shutil.rmtree(fresh)


@pytest.mark.slow
def test_games_made_by_two_processes_at_once_are_whole_and_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELIVE_CACHE", str(tmp_path))
    told: list[tuple[int, int]] = []
    program = "from relive.envs.textworld.suite import *; s = TextWorldSuite(); " + (
        "s.prepare(s.tasks('train', 1, ['coin-easy']))"
    )
    other = subprocess.Popen([sys.executable, "-c", program])
    assert SUITE.prepare([coin()], tell=lambda made, of: told.append((made, of))) == 1
    assert other.wait() == 0
    assert told == [(1, 1)]
    assert sorted(path.suffix for path in library.folder().iterdir()) == [".json", ".z8"]
    again = Engine(library.folder() / f"{coin().identity}.z8").reset().text
    monkeypatch.undo()
    assert again == Engine(library.folder() / f"{coin().identity}.z8").reset().text


def test_what_cannot_be_made_says_why() -> None:
    recipe = {"name": "no-game", "challenge": "tw-coin_collector", "settings": {"level": 999}}
    with pytest.raises(library.CompileError, match=r"no-game.*level.*\[1-300\]"):
        library.game_file({**recipe, "seed": 1})
    assert not list(library.folder().glob("no-game*"))


def test_a_line_says_how_far_it_is_on_a_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert library._line(1000) is None  # standard error is no terminal here
    line = library._Line(sys.stderr)
    line.write(3, 40)
    line.end()
    assert "3 of 40" in capsys.readouterr().err


# --- files
# --------------------------------------------------------------------------------------------------


def game_of(task: Task) -> Path:
    return library.game_file(recipe_of(task.type, task.split, task.seed))


def test_a_generated_file_is_played_without_its_description(tmp_path: Path) -> None:
    file = shutil.copy(game_of(coin()), tmp_path / "coin.z8")
    suite = suite_of(str(file))
    assert suite.splits == ("train",)
    assert suite.split_of("test") == "train"
    assert suite.size("train") == 1
    assert suite.expert_kind == ""
    (task,) = suite.tasks("train", 1)
    with pytest.raises(NotImplementedError, match="no expert"):
        suite.expert(task)
    steps = play(SUITE.make(), coin())
    env = suite.make()
    opening, info = env.reset(options={"task": task})
    assert info["task"].goal in opening
    assert [env.step(action)[:2] for action, *_ in steps] == [step[1:] for step in steps]
    with pytest.raises(RuntimeError):
        env.step("look")
    env.reset(seed=3)
    with pytest.raises(NotImplementedError, match="nobody knows what is admissible"):
        env.admissible()


def test_folders_are_splits_and_types_and_bring_experts(tmp_path: Path) -> None:
    for task, folder in ((coin(), "train/coins"), (treasure(), "test/hunts/old")):
        (tmp_path / folder).mkdir(parents=True)
        for file in (game_of(task), game_of(task).with_suffix(".json")):
            shutil.copy(file, tmp_path / folder / f"a{file.suffix}")
    (tmp_path / "test" / "b.ulx").write_bytes(b"Glul")
    (tmp_path / "extra").mkdir()
    shutil.copy(game_of(coin()), tmp_path / "extra" / "c.z8")
    with (
        pytest.warns(UserWarning, match=r"b\.ulx.*Glulx"),
        pytest.warns(UserWarning, match=r"1 games .* left out, extra/c\.z8 .* train, test"),
    ):
        suite = suite_of(str(tmp_path))
    assert suite.splits == ("train", "test")
    assert suite.types == ("coins", "hunts")
    assert [suite.size(split) for split in suite.splits] == [1, 1]
    assert suite.expert_kind == "scripted"
    (task,) = suite.tasks("test", 1)
    assert (task.type, task.split, Path(task.payload).name) == ("hunts", "test", "a.z8")
    with EnvPool(suite, workers=1) as pool:  # which gets it by cloudpickle
        info, expert = pool.reset(0, task).info, suite.expert(task)
        while not info["success"]:
            info = pool.step(0, expert.act("")).info
    with pytest.raises(ValueError, match="has 1 tasks"):
        suite.tasks("train", 2)


def test_a_story_that_is_not_textworlds_is_won_lost_and_scored(cave: Path) -> None:
    suite = suite_of(str(cave))
    (task,) = suite.tasks("train", 1)
    env = suite.make()
    opening, info = env.reset(options={"task": task})
    assert opening.endswith(
        "Task: Play this game to its good end, and score as many points as you can."
    )
    dice = env.step("dice")[0]
    assert env.step("gold")[1:3] == (0.5, False)
    assert env.step("frotz")[4]["invalid"]
    assert env.step("quit")[4]["invalid"]
    observation, reward, terminated, _, info = env.step("out")
    assert (reward, terminated, info["success"], info["score"]) == (0.5, True, True, 1.0)
    assert observation.startswith("You walk into the sun.")
    env.reset(options={"task": task})
    assert env.step("dice")[0] == dice  # not by the clock
    env.step("gold")
    _, reward, terminated, _, info = env.step("down")
    assert (reward, terminated, info["success"], info["score"]) == (0.0, True, False, 0.5)


def test_files_that_cannot_be_played_are_named(tmp_path: Path, cave: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing at .*nowhere"):
        suite_of(str(tmp_path / "nowhere"))
    with pytest.raises(UnplayableError, match="holds no file of a game"):
        suite_of(str(tmp_path))
    for name, content, message in (
        ("a.ulx", b"Glul" + bytes(100), "Glulx game"),
        ("a.z8", b"no game at all, but long enough to be looked at" * 3, "no game for the Z-mach"),
        ("a.txt", bytes(100), "no game for the Z-machine"),
        ("a.z5", cave.read_bytes()[:-900] + bytes(900), "checksum is wrong"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnplayableError, match=message):
            suite_of(str(tmp_path / name))


def test_a_game_in_two_splits_and_a_changed_file_are_refused(tmp_path: Path, cave: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        shutil.copy(cave, tmp_path / split / f"{split}.z5")
    with pytest.raises(ValueError, match="the same game is in train and in test"):
        suite_of(str(tmp_path))
    (tmp_path / "test" / "test.z5").unlink()
    shutil.move(tmp_path / "test", tmp_path / "valid")
    shutil.move(tmp_path / "train" / "train.z5", tmp_path / "valid" / "test.z5")
    (tmp_path / "train").rmdir()
    with pytest.raises(ValueError, match="no folder train"):
        suite_of(str(tmp_path))
    file = tmp_path / "game.z5"
    shutil.copy(cave, file)
    suite = suite_of(str(file))
    file.unlink()
    shutil.copy(game_of(coin()), file.with_suffix(".z8"))
    (task,) = suite.tasks("train", 1)
    with pytest.raises(FileNotFoundError, match=r"no game file .*game\.z5"):
        suite.make().reset(options={"task": task})


# --- slow
# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_expert_wins_games_of_all_types_and_no_two_are_the_same(env: TextEnv) -> None:
    played = [play(env, t) for split in ("train", "test") for t in SUITE.tasks(split, 26)]
    assert len({tuple(observation for _, observation, _ in steps) for steps in played}) == 52


@pytest.mark.slow
def test_a_game_is_the_same_under_another_hash_seed(tmp_path: Path) -> None:
    program = """
import json, sys
from relive.envs.textworld.suite import TextWorldSuite
suite = TextWorldSuite()
tasks = suite.tasks("valid", 3, ["cooking-2", "coin-medium", "simple-easy"])
if sys.argv[1] == "last first":
    suite.prepare(tasks[::-1])
env, told = suite.make(), []
for task in tasks:
    observation, info = env.reset(options={"task": task})
    expert = suite.expert(task)
    told += [task.identity, observation]
    while not info["success"]:
        told.append(expert.act(observation))
        observation, _, _, _, info = env.step(told[-1])
        told.append(observation)
print(json.dumps(told))
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", program, order],
            env={**os.environ, "PYTHONHASHSEED": seed, "RELIVE_CACHE": str(tmp_path / seed)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, order in (("1", "one by one"), ("2", "last first"))
    ]
    assert told[0] == told[1]
    assert len(json.loads(told[0])) > 40


@pytest.mark.slow
def test_cooking_holds_out_foods() -> None:
    from textworld.challenges.tw_cooking.cooking import FOODS_SPLITS

    for split, others in (("train", ("valid", "test")), ("valid", ("test",)), ("test", ("valid",))):
        for task in SUITE.tasks(split, 3, ["cooking-1", "cooking-2", "cooking-3"]):
            metadata = dict(json.loads(game_of(task).with_suffix(".json").read_text())["metadata"])
            foods = {food for food, _, _ in metadata["ingredients"]}
            for other in others:
                assert not foods & set(FOODS_SPLITS[other]), task


@pytest.mark.slow
def test_the_suite_and_a_folder_pass_the_check(tmp_path: Path) -> None:
    assert [str(finding) for finding in check_env(SUITE, 1) if not finding.ok] == []
    for task in SUITE.tasks("train", 3, ["coin-easy"]):
        for file in (game_of(task), game_of(task).with_suffix(".json")):
            shutil.copy(file, tmp_path / file.name)
    findings = check_env(suite_of(str(tmp_path)), 2)
    assert [str(finding) for finding in findings if not finding.ok] == []
