"""Environments that nobody wrote for this project: by object, by id, and those of
`docs/examples`."""

import importlib.util
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

import relive
from relive.envs import Task
from relive.envs.adapt import GymnasiumSuite, as_suite, gymnasium_suite
from relive.envs.registry import UnknownSuiteError
from relive.memory.episode import Episode, StopReason

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
Answer = tuple[str, float, bool, bool, dict[str, Any]]


class Bell(gymnasium.Env[str, str]):
    """Ring a bell; what it answers to is for each test to say."""

    observation_space = action_space = spaces.Text(1000)
    opening = "There is a bell.\nYour task is to: ring the bell."
    start: dict[str, Any] = {}  # noqa: RUF012
    answer: Any = ("Ding.", 1.0, True, False, {"success": True})
    otherwise: Any = ("Nothing.", 0.0, False, False, {"success": False})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.given = options
        return self.opening, dict(self.start)

    def step(self, action: str) -> Answer:
        answer: Answer = self.answer if action == "ring" else self.otherwise
        return answer


def bell(**different: Any) -> Bell:
    env = Bell()
    for name, value in different.items():
        setattr(env, name, value)
    return env


def ring(messages: list[dict[str, str]]) -> str:
    return "ring"


def play(env: Any, **settings: Any) -> Episode:
    """The episode of an agent that rings the bell."""
    (episode,) = relive.Agent(ring).run(env, **settings)
    return episode


# What is read off the answers


@pytest.mark.parametrize(
    ("start", "opening", "goal", "told"),
    [
        ({}, "A bell.\nYour task is to: ring it.", "ring it", ""),
        ({}, "  Ring the bell.\n", "Ring the bell.", ""),
        ({"goal": "ring it."}, "A bell.", "ring it", "\n\nYour task is to: ring it."),
        ({"goal": "Ring. Then wait."}, "A bell.", "Ring. Then wait", "\n\nTask: "),
        ({"goal": "ring it"}, "A bell. Please ring it!", "ring it", ""),
        ({"goal": " "}, "A bell.", "A bell.", ""),
        ({"goal": "ring it"}, "", "ring it", "Your task is to: ring it."),
    ],
)  # fmt: skip
def test_the_goal_is_found_and_told(
    start: dict[str, Any], opening: str, goal: str, told: str
) -> None:
    episode = play(bell(start=start, opening=opening))
    assert episode.task.goal == goal
    seen = episode.steps[0].observation
    assert seen.startswith(opening.strip() + told)
    assert goal in seen
    assert seen == seen.strip()


def test_an_environment_that_says_nothing_at_all_is_an_error() -> None:
    with pytest.warns(UserWarning, match="nothing says what is to be done"):
        episode = play(bell(opening=" \n"))
    assert episode.outcome.reason is StopReason.ENVIRONMENT_ERROR
    assert "nothing says what is to be done" in episode.outcome.detail


@pytest.mark.parametrize("name", ["success", "won", "is_success"])
@pytest.mark.parametrize("value", [True, np.True_, np.int64(1), 1])
def test_success_is_understood_in_all_its_forms(name: str, value: Any) -> None:
    said = ("Ding.", np.float32(0.5), np.True_, np.False_, {name: value})
    episode = play(bell(answer=said))
    assert episode.success
    assert episode.outcome.score == 1
    assert type(episode.steps[0].reward) is float


def test_points_become_a_share_and_the_best_of_them_is_kept() -> None:
    class Points(Bell):
        def step(self, action: str) -> Answer:
            self.points = [0, 40, -10, 20][int(action)]
            info = {"score": np.int64(self.points), "max_score": 50, "won": False}
            return "Hm.", 0.0, action == "3", False, info

    (episode,) = relive.Agent(lambda m: str(len(m) // 2)).run(Points)
    assert episode.outcome.reason is StopReason.FAILED
    assert episode.outcome.score == pytest.approx(0.4)
    assert episode.outcome.best == pytest.approx(0.8)


def test_a_loss_may_cost_points() -> None:
    lost = ("It breaks.", -1.0, True, False, {"score": -100, "max_score": 100, "won": np.False_})
    episode = play(bell(answer=lost))
    assert (episode.success, episode.outcome.score, episode.outcome.best) == (False, -1.0, 0.0)


def test_numbers_reach_whoever_asks_as_they_were_given() -> None:
    info = {"score": 7, "max_score": 7, "success": None, "extra": np.float64(0.25)}
    env = bell(answer=("Ding.", 0.0, True, False, info))
    assert play(env, success=lambda reply: reply.info["score"] == reply.info["max_score"]).success
    suite = as_suite(env)
    adapted = suite.make()
    adapted.reset(options={"task": suite.tasks("train", 1)[0]})
    told = adapted.step("ring")[4]
    assert told["extra"] == 0.25
    assert type(told["extra"]) is float
    assert told["score"] == told["max_score"] == 7


def test_commands_are_for_those_who_ask_and_not_in_info() -> None:
    info = {"admissible_commands": ["wait", "ring"], "success": False}
    suite = as_suite(bell(start=info, otherwise=("No.", 0.0, False, False, info)))
    env = suite.make()
    _, told = env.reset(options={"task": suite.tasks("train", 1)[0]})
    assert "admissible_commands" not in told
    assert list(env.admissible()) == ["ring", "wait"]
    assert "admissible_commands" not in env.step("shout")[4]
    silent = as_suite(Bell()).make()
    silent.reset(seed=1)
    with pytest.raises(NotImplementedError, match="does not list"):
        silent.admissible()


def test_limits_are_those_of_the_environment() -> None:
    assert as_suite(Bell).max_steps == 100
    assert as_suite(TimeLimit(Bell(), 7)).max_steps == 7
    episode = play(TimeLimit(bell(answer=Bell.otherwise), 7))
    assert (episode.outcome.reason, len(episode.steps)) == (StopReason.STEP_LIMIT, 7)
    cut = bell(answer=("It gets dark.", 0.0, False, np.True_, {"success": False}))
    assert play(cut).outcome.reason is StopReason.STEP_LIMIT


def test_a_reset_without_a_task_follows_its_seed() -> None:
    env = as_suite(Bell()).make()
    first, again, other = (env.reset(seed=seed)[1]["task"] for seed in (5, 5, 6))
    assert first == again != other
    assert first.split == "train"


# What cannot be used says what to do


class OldReset(Bell):
    def reset(self) -> str:  # type: ignore[override]
        return "There is a bell."


class NoOptions(Bell):
    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:  # type: ignore[override]
        return super().reset(seed=seed)


def test_an_environment_without_seeds_is_refused() -> None:
    for env in (OldReset, OldReset(), lambda: TimeLimit(OldReset(), 5)):
        with pytest.raises(
            TypeError, match=r"OldReset\.reset takes no seed.*def reset\(self, \*, "
        ):
            as_suite(env)


def test_an_environment_without_options_plays_seeds_and_no_goals() -> None:
    episode = play(NoOptions)
    assert episode.success
    assert play(NoOptions, tasks=[episode.task]).success  # its goal was read, not asked for
    refused = play(NoOptions, tasks=["ring the bell"])
    assert refused.outcome.reason is StopReason.ENVIRONMENT_ERROR
    assert "takes no options" in refused.outcome.detail
    env = Bell()
    play(env, tasks=["ring the bell"])
    assert env.given == {"goal": "ring the bell"}


@pytest.mark.parametrize(
    ("different", "message"),
    [
        ({"answer": ("Ding.", 1.0, True, {})}, r"five|terminated, truncated.*before 0\.26"),
        ({"answer": "Ding."}, r"step must return \(observation"),
        ({"answer": (b"Ding.", 1.0, True, False, {})}, "must be text, not bytes"),
        ({"answer": ("Ding.", None, True, False, {})}, "reward of step must be a number"),
        ({"answer": ("Ding.", float("nan"), True, False, {})}, "reward of step must be a number"),
        ({"answer": ("Ding.", 1.0, "yes", False, {})}, "terminated of step must be True or False"),
        ({"opening": None}, "must be text, not NoneType"),
        ({"start": {"goal": 7}}, r"info\['goal'\] of reset must be text, not 7"),
    ],
)
def test_answers_of_another_form_are_errors(different: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        outcome = play(bell(**different)).outcome
    assert outcome.reason is StopReason.ENVIRONMENT_ERROR
    assert re.search(message, outcome.detail), outcome.detail


def test_old_answers_inside_a_wrapper_are_told_apart_from_other_errors() -> None:
    outcome = play(TimeLimit(bell(answer=("Ding.", 1.0, True, {})), 5)).outcome
    assert "before 0.26" in outcome.detail

    class Broken(Bell):
        def step(self, action: str) -> Answer:
            raise ValueError("the rope tore")

    assert "raised ValueError in step: the rope tore" in play(Broken).outcome.detail


def test_more_seeds_than_a_split_has_are_refused() -> None:
    suite = as_suite(Bell)
    for count, start in ((-1, 0), (1, -1), (2, 999_999)):
        with pytest.raises(ValueError, match="a split has 1000000 seeds"):
            suite.tasks("train", count, start=start)


# By id


@pytest.fixture
def registered() -> Iterator[str]:
    gymnasium.register("bells/Bell-v3", entry_point=Bell, max_episode_steps=9)
    yield "bells/Bell-v3"
    del gymnasium.registry["bells/Bell-v3"]


def test_an_id_makes_a_suite(registered: str) -> None:
    suite = gymnasium_suite(registered)
    assert (suite.name, suite.max_steps) == ("gymnasium:bells/Bell-v3", 9)
    assert play(suite).success
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    try:
        assert list(relive.Agent(ring).run(suite, tasks=2, workers=1))[1].success
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_suite_of_this_project_has_an_id() -> None:
    suite = gymnasium_suite("relive/toy-v0")
    env = suite.make()
    task = suite.tasks("train", 1)[0]
    observation, info = env.reset(options={"task": task})
    assert info["task"].goal in observation
    assert info["task"].suite == "toy"  # with its splits, types and expert
    assert suite is relive.envs.get_suite("toy")
    assert isinstance(env.step("look")[4]["invalid"], bool)


def test_a_module_is_imported_for_its_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_bells.py").write_text(
        "import gymnasium\nfrom gymnasium import spaces\n"
        "class Bell(gymnasium.Env):\n"
        "    observation_space = action_space = spaces.Text(99)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        return 'Ring the bell.', {}\n"
        "    def step(self, action):\n"
        "        return 'Ding.', 1.0, True, False, {'success': action == 'ring'}\n"
        "gymnasium.register('MyBell-v0', entry_point=Bell)\n"
    )
    monkeypatch.chdir(tmp_path)  # as an installed command finds it
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert play(gymnasium_suite("my_bells:MyBell-v0")).success


@pytest.mark.parametrize(
    ("identifier", "error", "message"),
    [
        ("bells/Bel-v3", UnknownSuiteError, r"Close ones: bells/Bell-v3.*gymnasium:MODULE:ID"),
        ("Bell-v3", UnknownSuiteError, "Close ones: bells/Bell-v3"),
        ("bells/Bell-v4", UnknownSuiteError, "Close ones: bells/Bell-v3"),
        ("no_such_module_here:Bell-v3", ImportError, "there is no module 'no_such_module_here'"),
        ("a:b:c", ImportError, "there is no module 'a:b'"),
        (" ", UnknownSuiteError, "needs an id"),
        ("CartPole-v1", TypeError, "not text: wrap it"),
    ],
)
def test_an_id_that_cannot_be_used_says_so(
    registered: str, identifier: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        gymnasium_suite(identifier)
    assert re.search(message, str(raised.value)), raised.value


def test_a_suite_made_by_id_is_pickled_with_what_it_makes(registered: str) -> None:
    suite = pickle.loads(pickle.dumps(gymnasium_suite(registered)))
    del gymnasium.registry[registered]  # another process has never heard of it
    try:
        assert suite.make().reset(seed=0)[1]["task"].goal == "ring the bell"
    finally:
        gymnasium.register(registered, entry_point=Bell, max_episode_steps=9)


# The examples


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_examples_are_short() -> None:
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 60, file.name


HANOI = ("A C", "[A B]", "C B", "[A C]", "B A", "B C", "A C")


def solve_hanoi(messages: list[dict[str, str]]) -> str:
    return HANOI[len(messages) // 2 - 1]


def guess(messages: list[dict[str, str]]) -> str:
    low, high = 1, 20
    for said, told in zip(messages[2::2], messages[3::2], strict=False):
        number = int(said["content"])
        if "higher" in told["content"].lower():
            low = number + 1
        else:
            high = number - 1
    return str((low + high) // 2)


def test_textarena_is_played(tmp_path: Path) -> None:
    pytest.importorskip("textarena")
    games = example("textarena_games")
    with relive.Memory(tmp_path / "memory") as memory:
        agent = relive.Agent(solve_hanoi, memory)
        played = [*agent.run(lambda: games.TextArenaGame("TowerOfHanoi-v0"), tasks=2)]
        assert all(episode.success and len(episode.steps) == 7 for episode in played)
        assert played[0].task.goal == "win a game of Tower Of Hanoi"
        assert played[1].retrieved
    won = relive.Agent(guess).run(
        lambda: games.TextArenaGame("GuessTheNumber-v0"), tasks=4, workers=2, timeout=120
    )
    assert all(episode.success for episode in won)


def test_textarena_games_follow_their_seeds_and_lose() -> None:
    pytest.importorskip("textarena")
    games = example("textarena_games")
    for name in games.GAMES:
        one, two = games.TextArenaGame(name), games.TextArenaGame(name)
        first = one.reset(seed=3)
        two.reset(seed=4)  # draws, and must not disturb the other
        assert two.reset(seed=3) == first
        for env in (one, two):
            _, _, ended, _, info = env.step("nonsense")
            assert (ended, info["invalid"]) == (False, True), name
        assert [env.step("nonsense")[2] for env in (one, two)] == [True, True]
    lake = play(lambda: games.TextArenaGame("FrozenLake-v0"))
    assert lake.outcome.reason is StopReason.FAILED
    assert 0 <= lake.outcome.score < 1


def test_babyai_is_played_by_its_bot_in_words() -> None:
    pytest.importorskip("minigrid")
    words = example("babyai_words")
    from minigrid.utils.baby_ai_bot import BabyAIBot

    env = words.BabyAIWords("BabyAI-GoToLocal-v0")
    bot: Any = None

    def ask_the_bot(messages: list[dict[str, str]]) -> str:
        nonlocal bot
        if len(messages) == 2:
            bot = BabyAIBot(env.unwrapped)
            return str(words.ACTIONS[bot.replan(None)])
        return str(words.ACTIONS[bot.replan(words.ACTIONS.index(messages[-2]["content"]))])

    episodes = list(relive.Agent(ask_the_bot).run(env, tasks=5))
    assert all(episode.success for episode in episodes)
    assert episodes[0].task.goal.startswith("go to ")
    result = relive.evaluate(
        lambda messages: "go forward", lambda: words.BabyAIWords("BabyAI-GoToObj-v0"), tasks=4
    )
    assert 0 <= result.success < 1


def test_babyai_says_what_is_there() -> None:
    pytest.importorskip("minigrid")
    words = example("babyai_words")
    from minigrid.core.world_object import Ball, Door

    env = words.BabyAIWords("BabyAI-GoToLocal-v0")
    env.reset(seed=3)
    inner = env.unwrapped
    for x in range(1, inner.width - 1):
        for y in range(1, inner.height - 1):
            inner.grid.set(x, y, None)
    inner.agent_pos, inner.agent_dir = (3, 5), 3  # looks up
    inner.grid.set(2, 3, Ball("red"))
    inner.grid.set(3, 2, Door("blue", is_locked=True))
    assert "a red ball 2 forward and 1 left" in env.in_words()
    assert "a locked blue door 3 forward" in env.in_words()
    inner.grid.set(3, 4, Ball("green"))
    env.step("pick up")
    assert env.in_words().endswith("You carry a green ball.")
    told, _, ended, _, info = env.step("fly")
    assert (ended, info["invalid"]) == (False, True)
    assert "pick up" in told


def test_tasks_of_an_environment_are_its_seeds() -> None:
    suite = GymnasiumSuite(Bell, goal_form="instruction")
    tasks = {split: suite.tasks(split, 3) for split in suite.splits}
    assert [task.seed for task in tasks["valid"]] == [1_000_000, 1_000_001, 1_000_002]
    assert len({task.identity for listed in tasks.values() for task in listed}) == 9
    assert all(isinstance(task, Task) for task in tasks["test"])
    assert suite.goal_form == "instruction"
