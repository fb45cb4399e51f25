"""The suite `alfworld`: finding, filtering and indexing game files, both dialects, and the real
fixture. Other games are the household's, laid out as the official ones."""

import contextlib
import dataclasses
import gzip
import json
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relive.envs import EnvPool
from relive.envs.alfworld import index as index_module
from relive.envs.alfworld.data import MissingDataError
from relive.envs.alfworld.expert import AlfworldExpert
from relive.envs.alfworld.forms import dialect_named, forms_of
from relive.envs.alfworld.suite import AlfworldSuite
from relive.envs.household import assets, generator
from relive.envs.household.engine import REFUSED, Engine, read_game
from relive.envs.household.rooms import TASK_TYPES, task_seed
from relive.envs.household.suite import HouseholdSuite
from relive.task import Task
from tests.envs.stock import StockEngine

Data = dict[str, Any]

OFFICIAL: Data = json.loads(
    gzip.decompress((Path(__file__).parent / "data" / "official_game.tw-pddl.gz").read_bytes())
)
TRIAL = "pick_heat_then_place_in_recep-Potato-None-SinkBasin-14/trial_T20190908_231731_054988"
HEAT = "pick_heat_then_place_in_recep"


def as_put(data: Data) -> Data:
    """A game as json_2.1.1 has it: what the official script that made json_2.1.2 changed
    (patch_tw-pddl.py of alfworld), undone."""
    grammar = data["grammar"]
    for new, old in (
        ("You arrive at {r.name}.", "You arrive at {lend.name}."),
        ("move {o} to {r}", "put {o} in/on {r}"),
        ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
    ):
        assert new in grammar
        grammar = grammar.replace(new, old)
    domain = data["pddl_domain"]
    return {
        **data,
        "grammar": grammar[: grammar.index("action help {")],
        "pddl_domain": domain[: domain.index("(:action help")].rstrip() + "\n)\n",
    }


def patched(data: Data) -> Data:
    """A game as the official script turns a json_2.1.1 one into json_2.1.2: its help is a text in
    the action itself."""
    old = as_put(data)
    grammar = old["grammar"]
    for before, after in (
        ("You arrive at {lend.name}.", "You arrive at {r.name}."),
        ("put {o} in/on {r}", "move {o} to {r}"),
        ("You put the {o.name} in/on the {r.name}.", "You move the {o.name} to the {r.name}."),
    ):
        grammar = grammar.replace(before, after)
    grammar += (
        '\n\naction help {\n    template :: "help";\n    feedback :: "\\nAvailable commands:\\n'
        '  look:    look around\\n  move (object) to (receptacle):  place an object\\n";\n}\n'
    )
    start, end = old["pddl_domain"].rsplit(")", 1)
    help_action = (
        "(:action help\n :parameters (?a - agent)\n :precondition ()\n"
        " :effect (and (checked ?a))\n)\n"
    )
    return {**old, "grammar": grammar, "pddl_domain": f"{start}{help_action}){end}"}


def with_shared_spots(problem: str) -> str:
    """A generated problem in which places stand at the real rooms' spots, some of which they
    share, as in the official games."""
    problem = re.sub(r"(loc(?:_bar_(?:_minus_)?\d+){4})_bar_\d+", r"\1", problem)
    objects, rest = problem.split("(:init", 1)
    return "\n".join(dict.fromkeys(objects.split("\n"))) + "\n(:init" + rest


def household_game(task_type: str, number: int, split: str = "train") -> tuple[str, Data]:
    """Folder of the task, and content of its game file."""
    world = generator.generate(task_type, task_seed(split, task_type, number), split)
    game = generator.game(world)
    folder = f"{task_type}-{world.target}-None-{world.destination or world.lamp}-{world.room}"
    return folder, {
        "pddl_domain": game.domain,
        "grammar": game.grammar.replace(assets.GOAL_PLACEHOLDER, game.goal),
        "pddl_problem": game.problem,
        "solvable": True,
        "walkthrough": [],
    }


def lay(root: Path, split: str, trial: str, data: Data | str, task_type: str | None = HEAT) -> Path:
    """Write a game where the official data have it; `task_type` None: without a trajectory."""
    folder = root / "json_2.1.1" / split / trial
    folder.mkdir(parents=True)
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / "game.tw-pddl").write_text(text)
    if task_type is not None:
        (folder / "traj_data.json").write_text(json.dumps({"task_type": task_type}))
    return folder


def lay_household(
    root: Path, split: str, count: int, change: Callable[[Data], Data] = dict, start: int = 0
) -> None:
    """Lay out generated games, the types in turn."""
    source = {"train": "train", "valid_seen": "valid", "valid_unseen": "test"}[split]
    for number in range(start, start + count):
        task_type = TASK_TYPES[number % 6]
        folder, data = household_game(task_type, number // 6, source)
        lay(root, split, f"{folder}/trial_T{number:05d}", change(data), task_type)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> AlfworldSuite:
    """The fixture alone, as a game of valid_unseen."""
    root = tmp_path_factory.mktemp("official")
    lay(root, "valid_unseen", TRIAL, OFFICIAL)
    return AlfworldSuite(root)


@pytest.fixture(scope="module")
def official_put(tmp_path_factory: pytest.TempPathFactory) -> AlfworldSuite:
    """The same in the older dialect."""
    root = tmp_path_factory.mktemp("official_put")
    lay(root, "valid_unseen", TRIAL, as_put(OFFICIAL))
    return AlfworldSuite(root)


@pytest.fixture(scope="module")
def household(tmp_path_factory: pytest.TempPathFactory) -> AlfworldSuite:
    """Generated games in all three splits."""
    root = tmp_path_factory.mktemp("household")
    lay_household(root, "train", 13)
    lay_household(root, "valid_seen", 3)
    lay_household(root, "valid_unseen", 7)
    return AlfworldSuite(root)


def play(suite: AlfworldSuite, task: Task) -> list[tuple[str, str]]:
    """(action, answer) of the expert's episode, which must be won."""
    env = suite.make()
    try:
        observation, info = env.reset(options={"task": task})
        assert info == {"task": task, "success": False, "invalid": False, "score": 0.0}
        assert observation.endswith(f"\n\nYour task is to: {task.goal}.")
        expert, steps = suite.expert(task), []
        for _ in range(suite.limit(task)):
            action = expert.act(observation)
            observation, reward, terminated, truncated, info = env.step(action)
            steps.append((action, observation))
            assert not truncated
            if terminated:
                assert (reward, info["success"], info["score"]) == (1.0, True, 1.0)
                return steps
            assert (reward, info["score"]) == (0.0, 0.0)
    finally:
        env.close()
    pytest.fail(f"the expert did not win {task}: {steps}")


# --- the real game, in both dialects
# --------------------------------------------------------------------------------------------------


def test_the_official_game_is_listed_as_it_is(official: AlfworldSuite) -> None:
    assert [official.size(split) for split in official.splits] == [0, 0, 1]
    (task,) = official.tasks("valid_unseen", 1)
    assert (task.type, task.room, task.goal) == (
        HEAT,
        "FloorPlan14",
        "put a hot potato in sinkbasin",
    )
    assert task.payload == f"json_2.1.1/valid_unseen/{TRIAL}/game.tw-pddl"
    assert task.identity == generator.identity(OFFICIAL["pddl_problem"])
    assert task.version == official.version == "alfworld-1-textworld-1.7.0-move"
    assert official.templates == HouseholdSuite.templates
    assert official.index.checked
    assert pickle.loads(pickle.dumps(task)) == task
    with pytest.raises(ValueError, match="has 0 tasks of"):
        official.tasks("train", 1)


def test_the_expert_wins_the_official_game_in_18_steps_in_both_dialects(
    official: AlfworldSuite, official_put: AlfworldSuite
) -> None:
    new = play(official, official.tasks("valid_unseen", 1)[0])
    old = play(official_put, official_put.tasks("valid_unseen", 1)[0])
    assert len(new) == len(old) == 18
    assert [a for a, _ in new[:-1]] == [a for a, _ in old[:-1]]
    assert new[0][1] == "You arrive at toaster 1. On the toaster 1, you see nothing."
    assert old[0][1] == "You arrive at loc 23. On the toaster 1, you see nothing."
    assert new[-1] == (
        "move potato 2 to sinkbasin 1",
        "You move the potato 2 to the sinkbasin 1.",
    )
    assert old[-1] == (
        "put potato 2 in/on sinkbasin 1",
        "You put the potato 2 in/on the sinkbasin 1.",
    )


def test_an_episode_in_the_words_of_these_games(
    official: AlfworldSuite, official_put: AlfworldSuite
) -> None:
    new = play(official, official.tasks("valid_unseen", 1)[0])
    old = play(official_put, official_put.tasks("valid_unseen", 1)[0])
    assert official.reworded(old) == new
    assert official.reworded(new) == new
    told = [(action, re.sub(r"^You arrive at loc \d+\. ", "", answer)) for action, answer in old]
    assert official_put.reworded(new) == told


def test_the_words_of_the_other_dialect_are_refused(
    official: AlfworldSuite, official_put: AlfworldSuite
) -> None:
    said = {"move": "move mug 2 to countertop 2", "put": "put mug 2 in/on countertop 2"}
    for suite in (official, official_put):
        env = suite.make()
        env.reset(options={"task": suite.tasks("valid_unseen", 1)[0]})
        env.step("go to countertop 2")
        env.step("take mug 2 from countertop 2")
        for dialect, action in sorted(said.items(), key=lambda item: item[0] == suite.dialect):
            answer, reward, terminated, _, info = env.step(action)
            assert (answer == REFUSED) is info["invalid"] is (dialect != suite.dialect)
            assert (reward, terminated) == (0.0, False)
        assert (env.step("help")[0] == REFUSED) is (suite.dialect == "put")
        assert suite.dialect in ("put", "move")
        env.close()


@pytest.fixture(scope="module")
def stock() -> StockEngine:
    return StockEngine()


@pytest.mark.slow
@pytest.mark.parametrize("change", [as_put, patched])
def test_other_grammars_play_as_in_the_stock_engine(
    change: Callable[[Data], Data], stock: StockEngine, tmp_path: Path
) -> None:
    # The current grammar is compared in test_engine.py.
    game = read_game(lay(tmp_path, "train", TRIAL, change(OFFICIAL)) / "game.tw-pddl")
    engine, rng = Engine(), random.Random(3)
    engine.load(game)
    stock.load(game)
    assert engine.reset() == stock.reset()
    seen: set[str] = set()
    for step in range(40):
        commands = engine.admissible()
        assert commands == stock.admissible()
        # Of each kind, or going about would be most of it.
        kinds = sorted({command.split()[0] for command in commands} - seen) or ["go"]
        kind = rng.choice(kinds) if step % 2 else "go"
        command = rng.choice([c for c in commands if c.split()[0] == kind])
        seen.add(kind)
        assert engine.step(command) == stock.step(command), command
        assert engine.won() == stock.won()
    put = "put" if change is as_put else "move"
    assert seen >= {"go", "look", "inventory", "examine", "open", "take", put}
    assert ("help" in seen) is (change is patched)
    engine.close()


def test_forms_are_read_from_the_grammar() -> None:
    forms = forms_of(as_put(OFFICIAL)["grammar"])
    assert forms["GotoLocation"] == "go to {receptacle}"
    assert forms["SliceObject"] == "slice {object} with {object}"
    assert forms["PutObject"] == "put {object} in/on {receptacle}"
    assert dialect_named(forms) == "put"
    assert dialect_named(forms_of(patched(OFFICIAL)["grammar"])) == "move"
    own = OFFICIAL["grammar"].replace("move {o} to {r}", "lay {o} down on {r}")
    assert dialect_named(forms_of(own)) == "lay"
    with pytest.raises(ValueError, match="no action with a template"):
        forms_of("grammar :: ...")


def test_a_dialect_that_nobody_foresaw_is_played_in_its_own_words(tmp_path: Path) -> None:
    grammar = OFFICIAL["grammar"].replace("move {o} to {r}", "lay {o} down on {r}")
    lay(tmp_path, "valid_seen", TRIAL, {**OFFICIAL, "grammar": grammar})
    suite = AlfworldSuite(tmp_path)
    assert suite.templates[7].text == "lay {object} down on {receptacle}"
    steps = play(suite, suite.tasks("valid_seen", 1)[0])
    assert steps[-1][0] == "lay potato 2 down on sinkbasin 1"
    old = [("put potato 2 in/on sinkbasin 1", "You put the potato 2 in/on the sinkbasin 1.")]
    assert suite.reworded(old) == old  # there is no translation into it


# --- lists
# --------------------------------------------------------------------------------------------------


def test_lists_take_the_types_in_turn_and_are_finite(household: AlfworldSuite) -> None:
    assert [household.size(split) for split in household.splits] == [13, 3, 7]
    tasks = household.tasks("train", 13)
    assert [task.type for task in tasks] == [*TASK_TYPES, *TASK_TYPES, TASK_TYPES[0]]
    assert len({task.identity for task in tasks}) == 13
    paths = [task.payload for task in tasks if task.type == TASK_TYPES[0]]
    assert paths == sorted(paths)
    assert all(
        re.search(rf"-{task.room.removeprefix('FloorPlan')}/", task.payload) for task in tasks
    )
    assert household.tasks("train", 6, start=1) == tasks[6:12]
    assert household.tasks("valid_seen", 3) == household.tasks("valid_seen", 3)
    assert household.size("train", [TASK_TYPES[0]], start=1) == 2
    assert household.size("train", household.groups["hard"]) == 6
    assert set(household.groups) == {"easy", "hard"}
    for count in (14, -1):
        with pytest.raises(ValueError, match="train"):
            household.tasks("train", count)
    with pytest.raises(ValueError, match="calls its split 'valid_unseen', not 'test'"):
        household.tasks("test", 1)
    assert household.split_of("test") == "valid_unseen"
    assert household.split_of("valid") == "valid_seen"


def test_the_expert_wins_generated_games_of_all_types(household: AlfworldSuite) -> None:
    for task in household.tasks("valid_unseen", 6):
        play(household, task)


@pytest.mark.parametrize("change", [dict, as_put])
def test_places_that_share_a_spot(change: Callable[[Data], Data], tmp_path: Path) -> None:
    # Of 20 drawn games this is one in which the expert meets a refusal on its way.
    folder, data = household_game(TASK_TYPES[4], 1)
    data["pddl_problem"] = with_shared_spots(data["pddl_problem"])
    lay(tmp_path, "train", f"{folder}/trial_1", change(data), TASK_TYPES[4])
    suite = AlfworldSuite(tmp_path)
    steps = play(suite, suite.tasks("train", 1)[0])
    refused = [i for i, (_, answer) in enumerate(steps) if answer == REFUSED]
    assert refused
    for i in refused:
        action, place = steps[i][0], steps[i][0].removeprefix("go to ")
        assert action.startswith("go to ")
        assert steps[i + 1][0] == f"examine {place}"
        assert place in steps[i + 1][1]
    actions = [action for action, _ in steps]
    assert len({actions[i] for i in refused}) == len(refused)  # each is learnt once


def test_the_expert_does_not_go_where_it_is() -> None:
    opening = (
        "You are in the middle of a room. Looking quickly around you, you see a shelf 2, a shelf 1."
        "\n\nYour task is to: put some mug on shelf."
    )
    expert = AlfworldExpert("put {thing} in/on {place}")
    answers = {
        "go to shelf 1": "You arrive at loc 4. On the shelf 1, you see nothing.",
        "go to shelf 2": REFUSED,
        "examine shelf 2": "On the shelf 2, you see a mug 7.",
        "take mug 7 from shelf 2": "You pick up the mug 7 from the shelf 2.",
    }
    actions, observation = [], opening
    for _ in range(5):
        actions.append(expert.act(observation))
        observation = answers.get(actions[-1], "")
    assert actions == [*answers, "put mug 7 in/on shelf 1"]
    answers["examine shelf 2"] = "On the shelf 2, you see nothing."
    expert, observation = AlfworldExpert(), opening
    for _ in range(6):  # there is no mug: it must not look for it for ever within one answer
        action = expert.act(observation)
        observation = answers.get(action, "")
    assert action == "look"


# --- what is left out
# --------------------------------------------------------------------------------------------------


def test_filters_are_those_of_the_official_loader(tmp_path: Path) -> None:
    potato = f"{HEAT}-Potato-None-SinkBasin-14"
    unchecked = {name: value for name, value in OFFICIAL.items() if name != "solvable"}
    trials: list[tuple[str, Data, str | None]] = [
        (f"{potato}/trial_1", OFFICIAL, HEAT),
        (f"{potato}/trial_2", {**OFFICIAL, "solvable": False}, HEAT),
        (f"{potato}/trial_3", unchecked, HEAT),
        (f"{potato}/trial_4", OFFICIAL, None),
        (f"{HEAT}-PotatoSliced-None-SinkBasin-14/trial_5", OFFICIAL, HEAT),
        ("pick_and_place_with_movable_recep-Egg-Pan-Fridge-3/trial_6", OFFICIAL, HEAT),
        (f"{potato}/trial_7", OFFICIAL, "pick_and_place_with_movable_recep"),
        (f"{potato}/trial_8", OFFICIAL, "look_at_obj_in_light"),
        ("a/b/c/trial_9", OFFICIAL, HEAT),
    ]
    for trial, data, task_type in trials:
        lay(tmp_path, "valid_unseen", trial, data, task_type)
    (tmp_path / "json_2.1.1" / "valid_unseen" / potato / "trial_0").mkdir()
    suite = AlfworldSuite(tmp_path)
    listed = {
        (Path(t.payload).parent.name, t.type)
        for t in suite.tasks("valid_unseen", suite.size("valid_unseen"))
    }
    assert listed == {("trial_1", HEAT), ("trial_8", "look_at_obj_in_light"), ("trial_9", HEAT)}
    assert suite.index.left_out == {
        "not solvable": 1,
        "not checked for being solvable": 1,
        "no traj_data.json": 1,
        "of another type": 1,
    }
    assert listed == {(Path(path).parent.name, kind) for path, kind in officially_listed(tmp_path)}
    with pytest.raises(ValueError, match=r"left out: 1 not solvable, .*has 3 tasks "):
        suite.tasks("valid_unseen", 4)


_OFFICIALLY = """
import json, os, sys
from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv
folder = sys.argv[1]
config = {"env": {"goal_desc_human_anns_prob": 0, "task_types": [1, 2, 3, 4, 5, 6]}, "dataset": {
    "eval_ood_data_path": folder, "num_eval_games": -1}}
games = AlfredTWEnv(config, "eval_out_of_distribution").game_files
types = [json.load(open(os.path.dirname(g) + "/traj_data.json"))["task_type"] for g in games]
print("\\n" + json.dumps([[g, t] for g, t in zip(games, types)]))
"""


def officially_listed(root: Path) -> list[tuple[str, str]]:
    """(path, type) of what ALFWorld's own loader lists in valid_unseen."""
    done = subprocess.run(
        [sys.executable, "-c", _OFFICIALLY, str(root / "json_2.1.1" / "valid_unseen")],
        env={**os.environ, "ALFWORLD_DATA": str(root)},  # or it makes a folder in the home folder
        capture_output=True,
        text=True,
        check=True,
    )
    return [(path, kind) for path, kind in json.loads(done.stdout.splitlines()[-1])]


def test_data_that_the_official_loader_would_find_empty_are_listed(tmp_path: Path) -> None:
    """Games that nobody checked, without trajectories: the folder's name says the type."""
    data = {name: OFFICIAL[name] for name in ("pddl_domain", "grammar", "pddl_problem")}
    lay(tmp_path, "train", f"{HEAT}-Potato-None-SinkBasin/trial_1", data, None)
    lay(
        tmp_path,
        "train",
        f"{HEAT}-Potato-None-SinkBasin/trial_2",
        {**data, "solvable": False},
        None,
    )
    suite = AlfworldSuite(tmp_path)
    (task,) = suite.tasks("train", 1)
    assert (task.type, task.room) == (HEAT, "")
    assert not suite.index.checked
    assert suite.index.left_out == {"not solvable": 1}


def test_mixed_dialects_are_an_error(tmp_path: Path) -> None:
    lay(tmp_path, "train", f"{HEAT}-Potato-None-SinkBasin-14/trial_1", OFFICIAL)
    lay(tmp_path, "valid_seen", f"{HEAT}-Potato-None-SinkBasin-14/trial_2", as_put(OFFICIAL))
    with pytest.raises(ValueError, match=r"dialects are mixed.*1 say 'move'.*1 say 'put'.*trial_2"):
        AlfworldSuite(tmp_path).size("train")


def test_without_data_the_error_has_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    suite = AlfworldSuite()
    assert (suite.dialect, suite.templates) == ("move", HouseholdSuite.templates)
    for ask in (lambda: suite.size("train"), lambda: suite.tasks("train", 1), lambda: suite.index):
        with pytest.raises(MissingDataError, match=f"is {tmp_path}.*&& alfworld-download;"):
            ask()
    (tmp_path / "json_2.1.1" / "train").mkdir(parents=True)
    with pytest.raises(MissingDataError):
        suite.size("train")
    monkeypatch.delenv("ALFWORLD_DATA")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "nobody")
    with pytest.raises(MissingDataError, match=r"ALFWORLD_DATA is not set, in .*\.cache.alfworld"):
        suite.size("train")
    assert not (tmp_path / "nobody").exists()


def test_the_variable_is_read_when_the_suite_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "nothing"))
    suite = AlfworldSuite()
    lay(tmp_path / "json_2.1.1", "train", TRIAL, as_put(OFFICIAL))
    for folder in (tmp_path / "json_2.1.1", tmp_path / "json_2.1.1" / "json_2.1.1"):
        monkeypatch.setenv("ALFWORLD_DATA", str(folder))  # either folder will do
        assert suite.size("train") == 1
    assert suite.dialect == "put"
    assert suite.templates[7].text == "put {object} in/on {receptacle}"
    assert suite.tasks("train", 1)[0].version == suite.version


# --- the index
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the trials that were read."""
    names: list[str] = []
    original = index_module.read_entry

    def reading(folder: Path, file: Any) -> Any:
        names.append(Path(file.path).parent.name)
        return original(folder, file)

    monkeypatch.setattr(index_module, "read_entry", reading)
    return names


def test_only_new_and_changed_files_are_read(tmp_path: Path, read: list[str]) -> None:
    lay_household(tmp_path, "train", 4)
    first = AlfworldSuite(tmp_path).tasks("train", 4)
    assert len(read) == 4
    read.clear()
    assert AlfworldSuite(tmp_path).tasks("train", 4) == first
    assert read == []
    lay_household(tmp_path, "train", 1, start=4)
    changed = tmp_path / first[0].payload
    data = json.loads(changed.read_text())
    changed.write_text(json.dumps({**data, "solvable": False}))
    trajectory = (tmp_path / first[1].payload).with_name("traj_data.json")
    trajectory.write_text(json.dumps({"task_type": HEAT, "more": True}))
    gone = tmp_path / first[2].payload
    gone.unlink()
    suite = AlfworldSuite(tmp_path)
    assert suite.size("train") == 3
    assert sorted(read) == ["trial_T00000", "trial_T00001", "trial_T00004"]
    assert suite.size("train", [HEAT]) == 2
    assert first[3] in suite.tasks("train", 3)
    read.clear()
    assert AlfworldSuite(tmp_path).size("train") == 3
    assert read == []


@pytest.mark.parametrize("damage", [b"", b"nonsense"])
def test_a_damaged_index_is_made_again(
    damage: bytes, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELIVE_CACHE", str(tmp_path / "cache"))
    lay(tmp_path, "train", TRIAL, OFFICIAL)
    assert AlfworldSuite(tmp_path).size("train") == 1
    (kept,) = (tmp_path / "cache" / "alfworld").rglob("*.z")
    kept.write_bytes(damage)
    assert AlfworldSuite(tmp_path).size("train") == 1
    assert len(read) == 2
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]  # nothing half written


@pytest.mark.parametrize(
    ("game", "trajectory", "match"),
    [
        ('{"pddl_domain": ', None, "not a game.tw-pddl file"),
        (json.dumps({**OFFICIAL, "grammar": "no goal"}), None, "no readable goal"),
        (json.dumps(OFFICIAL), "{}", "KeyError: 'task_type'"),
    ],
)
def test_a_damaged_game_is_named(
    game: str, trajectory: str | None, match: str, tmp_path: Path
) -> None:
    folder = lay(tmp_path, "train", TRIAL, game)
    if trajectory:
        (folder / "traj_data.json").write_text(trajectory)
    with pytest.raises(ValueError, match=rf"trial_T20190908.*{match}.*alfworld-download -f"):
        AlfworldSuite(tmp_path).size("train")


def test_progress_is_shown_on_terminals_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index_module, "_SHOWN_EVERY", 2)
    lay_household(tmp_path, "train", 5)
    AlfworldSuite(tmp_path).size("train")
    assert capsys.readouterr().err == ""
    for file in tmp_path.rglob("game.tw-pddl"):
        os.utime(file)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    AlfworldSuite(tmp_path).size("train")
    shown = capsys.readouterr().err
    assert "2/5" in shown
    assert "4/5" in shown
    assert shown.endswith("\r\x1b[K")


# --- the environment
# --------------------------------------------------------------------------------------------------


def test_tasks_of_elsewhere_and_changed_files_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, "train", TRIAL, OFFICIAL)
    suite = AlfworldSuite(tmp_path)
    (task,) = suite.tasks("train", 1)
    env = suite.make()
    env.reset(options={"task": task})
    env.step("look")
    with pytest.raises(ValueError, match="belongs to suite 'household'"):
        env.reset(options={"task": dataclasses.replace(task, suite="household")})
    with pytest.raises(RuntimeError, match=r"AlfworldEnv\.step outside an episode"):
        env.step("look")
    file = tmp_path / task.payload
    problem = OFFICIAL["pddl_problem"].replace("(isHot ?o)", "(isClean ?o)")
    file.write_text(json.dumps({**OFFICIAL, "pddl_problem": problem}))
    with pytest.raises(ValueError, match="the file has changed"):
        env.reset(options={"task": task})
    file.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        env.reset(options={"task": task})
    env.close()


def test_without_a_task_a_train_game_is_drawn(
    household: AlfworldSuite, official: AlfworldSuite
) -> None:
    env = household.make()
    drawn = [env.reset(seed=seed)[1]["task"] for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert {task.split for task in drawn} == {"train"}
    env.close()
    with pytest.raises(ValueError, match="no games of split 'train'"):
        official.make().reset(seed=1)


def test_nonsense_is_invalid_and_changes_nothing(official: AlfworldSuite) -> None:
    env = official.make()
    env.reset(options={"task": official.tasks("valid_unseen", 1)[0]})
    for action in ("fly", "", "é\n¿", "go to loc 23", "Look"):
        answer, reward, terminated, _, info = env.step(action)
        assert (answer, reward, terminated, info["invalid"]) == (REFUSED, 0.0, False, True)
    assert not env.step("go to toaster 1")[4]["invalid"]
    env.close()


def test_numbers_of_spots_are_no_names(official: AlfworldSuite) -> None:
    text = "You arrive at loc 12. On the desk 1, you see a mug 2."
    assert official.names(text) == ["desk 1", "mug 2"]


@pytest.mark.slow
def test_workers_play_it(household: AlfworldSuite) -> None:
    tasks = household.tasks("train", 4)
    with EnvPool(household, workers=2) as pool:
        for task in tasks:
            pool.submit_reset(0, task)
            ((_, reply),) = pool.wait()
            assert task.goal in reply.observation  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("change", [dict, as_put])
@pytest.mark.parametrize("shared", [False, True])
def test_the_expert_wins_100_generated_games(
    change: Callable[[Data], Data], shared: bool, tmp_path: Path
) -> None:
    def laid_out(data: Data) -> Data:
        problem = data["pddl_problem"]
        return change({**data, "pddl_problem": with_shared_spots(problem) if shared else problem})

    lay_household(tmp_path, "valid_unseen", 102, laid_out)
    suite, won = AlfworldSuite(tmp_path), 0
    for task in suite.tasks("valid_unseen", 102):
        with contextlib.suppress(pytest.fail.Exception):
            won += bool(play(suite, task))
    assert won >= 97
