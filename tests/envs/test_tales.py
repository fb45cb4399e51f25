"""TALES: its lists, its rules, and its games as far as they can be had."""

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import relive
from relive.envs import Task, TextEnv, get_suite
from relive.envs.steps import restart, termination, transition
from relive.envs.tales import env as tales_env
from relive.envs.tales import games
from relive.envs.tales.env import ONE_ACTION, RESTARTING, TalesEnv
from relive.envs.tales.games import FAMILIES, REMADE, Game, MissingGamesError, games_of, lists
from relive.envs.tales.inner import INNER, recipe_of
from relive.envs.tales.suite import TalesSuite
from relive.memory.episode import StopReason

DATA = Path(__file__).parent / "data"
OFFICIAL = gzip.decompress((DATA / "official_game.tw-pddl.gz").read_bytes())


@pytest.fixture(autouse=True)
def nothing_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of TALES' that holds nothing yet."""
    monkeypatch.setenv("TALES_CACHE_HOME", str(tmp_path / "tales"))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    return tmp_path / "tales"


def names(family: str, split: str = "test") -> list[str]:
    return [game.name for game in games_of(family, split)]


def lay(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# Lists


def test_what_needs_no_files_is_there() -> None:
    assert [game.which for game in games_of("textworld_express", "test")] == ["20000"] * 16
    assert len(set(names("textworld_express"))) == 16
    assert names("textworld_express")[0] == "TWXCookingWorld"
    assert len(games_of("textworld_express", "train")) == 16_000
    assert names(REMADE) == [f"TWCookingLevel{level}" for level in range(1, 11)]
    assert len(games_of(REMADE, "train")) == 190
    assert len(lists()["jericho"]) == 54


def test_of_files_the_first_by_name_is_played(nothing_downloaded: Path) -> None:
    top = nothing_downloaded / "textworld" / "tw-cooking" / "test"
    for level, name in ((1, "b"), (1, "a"), (1, "C"), (2, "x")):
        lay(top / f"difficulty_level_{level}" / f"tw-cooking-{name}.z8")
    listed = games_of("textworld", "test")
    assert [(game.name, game.which) for game in listed] == [
        ("TWCookingLevel1", "test/difficulty_level_1/tw-cooking-C.z8"),
        ("TWCookingLevel2", "test/difficulty_level_2/tw-cooking-x.z8"),
    ]
    rest = [game.which[-6:] for game in games_of("textworld", "train")]
    assert rest == ["g-a.z8", "g-b.z8"]
    assert games_of("textworld", "valid") == []


def test_alfworld_has_one_game_of_each_type_seen_and_unseen(nothing_downloaded: Path) -> None:
    top = nothing_downloaded / "alfworld" / "json_2.1.1"
    for seen in ("seen", "unseen"):
        for kind in [*lists()["alfworld"], "pick_and_place_with_movable_recep"]:
            for trial in ("trial_2", "trial_1"):
                lay(top / f"valid_{seen}" / f"{kind}-Mug-None-Desk-3" / trial / "game.tw-pddl")
    listed = games_of("alfworld", "test")
    assert len(listed) == 12
    assert listed[0].name == "ALFWorldPickAndPlaceSimpleSeen"
    assert listed[11].name == "ALFWorldPickTwoObjAndPlaceUnseen"
    assert all("trial_1" in game.which for game in listed)
    assert len(games_of("alfworld", "train")) == 12


def test_jericho_has_the_games_that_are_there(nothing_downloaded: Path) -> None:
    for name in ("zork1.z5", "905.z5", "hollywood.z3", "notes.txt"):
        lay(nothing_downloaded / "jericho" / name)
    assert names("jericho") == ["JerichoEnv905", "JerichoEnvZork1"]
    assert games_of("jericho", "train") == []


def test_families_without_files_say_what_to_do() -> None:
    suite = TalesSuite()
    assert set(suite.types) == {"textworld_express", "scienceworld"}
    for family in ("textworld", "alfworld", "jericho"):
        with pytest.raises(MissingGamesError, match=rf"no games of '{family}' in .*tales"):
            suite.tasks("test", 1, (family,))
    with pytest.raises(ValueError, match="Did you mean 'textworld_express'"):
        suite.tasks("test", 1, ("textworld_expres",))


def test_tasks_are_listed_in_turn_and_are_their_own() -> None:
    suite = TalesSuite()
    tasks = {split: suite.tasks(split, 40) for split in suite.splits}
    assert [task.type for task in tasks["test"][:2]] == list(suite.types)
    everything = [task for listed in tasks.values() for task in listed]
    assert len({task.identity for task in everything}) == 120
    assert len({task.seed for task in everything}) == 120
    assert suite.size("test", ("textworld_express",)) == 16
    assert suite.size("test") == 46
    assert suite.size("test", (REMADE,)) == 10
    with pytest.raises(ValueError, match="has 46 tasks"):
        suite.tasks("test", 47)
    assert suite.limit(tasks["test"][0]) == 100
    for task in everything:
        game = suite.game_of(task)
        assert (game.family, f"{game.name} {game.which}") == (task.type, task.payload)
    with pytest.raises(ValueError, match="list tasks anew"):
        suite.game_of(Task.of("sit", suite="toy"))


KNOWN = {
    "l3V9CZk9tPXLupdXIqKN": 7573,
    "eg2Qsaogs0vMip2aTKRv": 3058,
    "BNVaijeLTn3jcvneFBY2": 6916,
    "mNE9uoVkHoYjUr8eF3Wy": 9160,
    "gjklUVelc72LT7Jehp2m": 8891,
    "rBJBskJPCeOqcVDPcGxK": 8686,
    "vMVMtjdEuqpQfbjRUQe2": 7348,
    "O7yoUjMDtn8pSQK8IYYr": 73267,
}
"""Ends of names of GATA's files that are public, and the seeds in the scripts that made them; the
last one is a test game."""


def test_seeds_are_in_the_order_of_their_files() -> None:
    hashids = pytest.importorskip("hashids")
    import textworld

    code = hashids.Hashids(salt="TextWorld")

    def name_of(seed: int) -> str:
        options = textworld.GameOptions()
        options.seeds = seed
        return str(code.encode(*(options.seeds[k] for k in sorted(options.seeds)), seed))

    assert {name_of(seed): seed for seed in KNOWN.values()} == KNOWN
    seeds = lists()["textworld"]["seeds"]
    assert len(set(seeds)) == 20
    assert 73267 in seeds
    assert seeds == sorted(seeds, key=name_of)


PUBLISHED = {
    "1": ("carrot", "raw", "chopped", 3, "open fridge; take carrot from fridge"),
    "2": ("banana", "fried", "chopped", 4, "take banana from counter; cook banana with stove"),
}
"""Ingredient, points and way of the two games whose files are public (see ``games.json``)."""


@pytest.mark.slow
@pytest.mark.parametrize("level", ["1", "2"])
def test_games_made_again_have_the_recipes_of_the_published_ones(level: str) -> None:
    pytest.importorskip("textworld")
    import textworld
    from textworld.challenges import CHALLENGES

    *ingredient, points, way = PUBLISHED[level]
    recipe = recipe_of(level, 6916)
    options = textworld.GameOptions()
    options.seeds = recipe["seed"]
    told = CHALLENGES[recipe["challenge"]][1](recipe["settings"], options).metadata
    assert [list(part) for part in told["ingredients"]] == [ingredient]
    assert told["max_score"] == points
    assert told["walkthrough"] == [
        "inventory", "examine cookbook", *way.split("; "), "prepare meal", "eat meal",
    ]  # fmt: skip


# Rules, in a game that is quickly won and lost


class Ladder(TextEnv):
    """Three rungs, a third of the points each; whoever jumps falls."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        self.rung = 0
        task = Task.of("Climb the ladder", suite="ladder")
        return restart("A ladder. Climb the ladder.", task=task)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action == "jump":
            info = {"success": False, "invalid": False, "score": -1.0}
            return "You fall.", 0.0, True, False, info
        if action == "leave":
            info = {"success": True, "invalid": False, "score": self.rung / 3}
            return "You win, poorly.", 0.0, True, False, info
        if action != "up":
            return transition("What?", invalid=True, score=self.rung / 3)
        self.rung += 1
        if self.rung == 3:
            return termination("The top!", success=True)
        return transition("Higher.", score=self.rung / 3)


@pytest.fixture
def ladders(monkeypatch: pytest.MonkeyPatch) -> TalesSuite:
    """The suite, with nothing but ladders."""

    def listed(split: str) -> list[Game]:
        return [Game("jericho", "Ladder", "1")] if split == "test" else []

    monkeypatch.setattr(games, "_FILES", FAMILIES)
    monkeypatch.setattr(games, "_LISTED", {f: lambda _: [] for f in FAMILIES} | {"jericho": listed})
    inner = {**INNER, "jericho": (Ladder, lambda game: Task.of("Climb the ladder"))}
    monkeypatch.setattr(tales_env, "INNER", inner)
    suite = TalesSuite()
    suite.processes = 0  # others know nothing of it
    return suite


def started(suite: TalesSuite) -> TalesEnv:
    env = suite.make()
    env.reset(options={"task": suite.tasks("test", 1)[0]})
    return env


def test_a_lost_game_begins_again(ladders: TalesSuite) -> None:
    env = started(ladders)
    env.step("up")
    observation, reward, terminated, truncated, info = env.step("jump")
    assert observation == f"You fall.\n\n{RESTARTING}\nA ladder. Climb the ladder."
    assert (terminated, truncated, info["success"]) == (False, False, False)
    assert info["score"] == 0  # the highest counts from 0 on
    assert reward == pytest.approx(-1 / 3)
    assert info["restarts"] == 1
    assert env.step("up")[4]["score"] == pytest.approx(1 / 3)


def test_a_game_won_with_all_points_is_over(ladders: TalesSuite) -> None:
    env = started(ladders)
    for _ in range(2):
        env.step("up")
    observation, _, terminated, _, info = env.step("up")
    assert (observation, terminated, info["success"], info["score"]) == ("The top!", True, True, 1)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step("up")


def test_a_game_won_with_fewer_points_begins_again(ladders: TalesSuite) -> None:
    env = started(ladders)
    env.step("up")
    observation, _, terminated, _, info = env.step("leave")
    assert RESTARTING in observation
    assert (terminated, info["success"]) == (False, False)
    assert info["score"] == pytest.approx(1 / 3)


def test_several_lines_are_no_action(ladders: TalesSuite) -> None:
    env = started(ladders)
    observation, reward, terminated, _, info = env.step("up\nup")
    assert (observation, reward, terminated) == (ONE_ACTION, 0, False)
    assert (info["invalid"], info["score"]) == (True, 0)
    assert env.step("up\n")[0] == "Higher."


def test_the_best_score_is_kept_beside_the_last(ladders: TalesSuite) -> None:
    plan = ["up", "up", "jump", "up", "dance"]  # and on dancing

    def policy(messages: list[dict[str, str]]) -> str:
        return plan[min(len(messages) // 2, len(plan)) - 1]

    (episode,) = relive.Agent(policy).run(ladders, tasks=1, split="test")
    assert episode.outcome.reason is StopReason.STEP_LIMIT
    assert len(episode.steps) == 100
    assert episode.outcome.best == pytest.approx(2 / 3)
    assert episode.outcome.score == pytest.approx(1 / 3)
    assert episode.task.goal == "Climb the ladder"


def test_agents_are_told_no_forms_of_actions() -> None:
    assert TalesSuite().templates == ()


# Games


@pytest.fixture(scope="module")
def express() -> Iterator[TalesEnv]:
    pytest.importorskip("textworld_express")
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    env = TalesSuite().make()
    yield env
    env.close()


def express_task(name: str) -> Task:
    tasks = TalesSuite().tasks("test", 16, ("textworld_express",))
    return next(task for task in tasks if task.payload.startswith(f"TWX{name} "))


def solution(env: TalesEnv) -> list[str]:
    """Commands that win the game that was reset last; ends it."""
    inner: Any = env._kept["textworld_express"]
    player = inner._java._player(inner._name)
    player.generateNewGameJSON(20_000, "test", True)
    return [str(command) for command in player.getGoldActionSequence()]


def test_all_games_of_textworld_express_are_played_and_won(express: TalesEnv) -> None:
    suite = TalesSuite()
    lengths = {}
    for task in suite.tasks("test", 16, ("textworld_express",)):
        opening, info = express.reset(options={"task": task})
        assert opening.startswith(info["task"].goal)
        assert express.step("xyzzy")[4]["invalid"]
        helped, reward, terminated, _, _ = express.step("help")
        assert helped.startswith(info["task"].goal)
        assert (reward, terminated) == (0, False)
        commands = solution(express)
        again, info = express.reset(options={"task": task})
        assert again == opening
        steps = 0
        for command in commands:
            _, _, terminated, _, info = express.step(command)
            steps += 1
            if terminated:
                break
        lengths[suite.game_of(task).name] = steps
        assert info["success"], task
        assert info["score"] == 1
    assert lengths["TWXSimonSays100"] == 100  # not a step to spare
    assert lengths["TWXCoinCollector"] == 2
    assert max(lengths.values()) == 100


def test_a_wrong_move_at_sorting_begins_it_again(express: TalesEnv) -> None:
    task = express_task("Sorting")
    express.reset(options={"task": task})
    commands = solution(express)
    opening, _ = express.reset(options={"task": task})
    for command in commands[:2]:
        express.step(command)
    for command in commands[-2:]:  # the largest, long before its turn
        observation, _, terminated, _, info = express.step(command)
    assert not terminated
    assert observation.endswith(f"{RESTARTING}\n{opening}")
    assert info["restarts"] == 1
    for command in commands:
        info = express.step(command)[4]
    assert info["success"]


def test_points_are_whole_hundredths(express: TalesEnv) -> None:
    task = express_task("SimonSays10")
    express.reset(options={"task": task})
    commands = solution(express)
    express.reset(options={"task": task})
    scores = [express.step(command)[4]["score"] for command in commands[:4]]
    assert scores == [0.1, 0.2, 0.3, 0.4]
    assert list(express.admissible()) == sorted(express.admissible())


def test_alfworld_games_are_played(nothing_downloaded: Path) -> None:
    pytest.importorskip("alfworld")
    folder = "pick_heat_then_place_in_recep-Potato-None-SinkBasin-14/trial_1"
    lay(nothing_downloaded / "alfworld/json_2.1.1/valid_unseen" / folder / "game.tw-pddl", OFFICIAL)
    suite = TalesSuite()
    assert "alfworld" in suite.types
    (task,) = suite.tasks("test", 1, ("alfworld",))
    assert task.payload.startswith("ALFWorldPickHeatThenPlaceInRecepUnseen ")
    env = suite.make()
    observation, info = env.reset(options={"task": task})
    assert re.search(r"Your task is to: .*potato", observation)
    assert info["task"].goal in observation
    assert env.step("dance")[0] == "Nothing happens."
    assert env.step("go to sinkbasin 1")[0].startswith("You arrive at")
    env.close()


@pytest.mark.slow
def test_scienceworld_is_played_and_begun_again() -> None:
    pytest.importorskip("scienceworld")
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    listed = games_of("scienceworld", "test")
    assert len(listed) == 30
    assert {"ScienceWorldBoil", "ScienceWorldIdentifyLifeStages1"} <= {g.name for g in listed}
    suite = TalesSuite()
    tasks = {task.payload.split()[0]: task for task in suite.tasks("test", 30, ("scienceworld",))}
    env = suite.make()
    env.reset(options={"task": tasks["ScienceWorldMelt"]})
    assert env.step("xyzzy")[4]["invalid"]
    lost = env.step("focus on door to kitchen")
    assert lost[0].count(RESTARTING) == 1
    assert (lost[2], lost[4]["restarts"], lost[4]["score"]) == (False, 1, 0)
    opening, info = env.reset(options={"task": tasks["ScienceWorldFindNonLivingThing"]})
    assert info["task"].goal in opening
    assert info["restarts"] == 0
    inner = env._inner
    assert inner is not None
    expert, observation = get_suite("scienceworld").expert(inner), opening
    for _ in range(60):
        observation, _, terminated, _, info = env.step(expert.act(observation))
        if terminated:
            break
    assert info["success"]
    env.close()


@pytest.mark.slow
def test_cooking_games_are_played_from_tales_files_and_made_again(nothing_downloaded: Path) -> None:
    pytest.importorskip("textworld")
    suite = TalesSuite()
    again = suite.tasks("test", 10, (REMADE,))
    env = suite.make()
    for task, points in ((again[0], 3), (again[9], 11)):
        _, info = env.reset(options={"task": task})
        inner = env._inner
        assert inner is not None
        told = json.loads(Path(inner.payload).with_suffix(".json").read_text())["metadata"]
        assert dict(told)["max_score"] == points  # as TALES says of these levels
        assert dict(told)["settings"]["recipe_seed"] == 0
        for command in dict(told)["walkthrough"]:
            _, _, terminated, _, info = env.step(command)
        assert terminated
        assert info["success"]
    file = lay(
        nothing_downloaded / "textworld/tw-cooking/test/difficulty_level_1/tw-cooking-x.z8",
        Path(inner.payload).read_bytes(),
    )
    shutil.copy(Path(inner.payload).with_suffix(".json"), file.with_suffix(".json"))
    (task,) = TalesSuite().tasks("test", 1, ("textworld",))
    _, info = env.reset(options={"task": task})
    assert info["task"].goal.startswith("You are hungry!")
    env.close()
