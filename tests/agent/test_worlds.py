"""What worlds need that are not the household: scores, long conversations, constant goals, several
suites in one memory, commands that are listed, policies from a file."""

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import relive
from relive.agent.cli import main
from relive.agent.conversation import (
    Action,
    Asked,
    ContextOverflow,
    Conversation,
    Turn,
    without_oldest,
)
from relive.agent.evaluation.metrics import table
from relive.agent.evaluation.remarks import remarks
from relive.agent.load_policy import PolicySettings, load_policy
from relive.agent.policy import RandomPolicy, as_policy, words
from relive.agent.retriever import MemoryRetriever
from relive.agent.run_episode import stated_score
from relive.agent.runner import Runner, RunSettings, UnfitModelWarning, play_all, spec_of
from relive.envs import Reply, TextEnv, get_suite, names, register, registry
from relive.envs.base import Info, Suite
from relive.envs.toy import ToyEnv, ToySuite
from relive.memory import Memory, Purpose, Retrieval
from relive.memory.episode import Episode
from relive.task import Task
from tests.agent.text_world import Safe

SUITE = get_suite("toy")


def reply(**info: Any) -> Reply:
    return Reply("seen", 0.0, False, False, info, 0.0)


@pytest.mark.parametrize(
    ("info", "score"),
    [
        ({}, 0.0),
        ({"score": 0.4}, 0.4),
        ({"score": -1}, -1.0),
        ({"score": -0.25}, -0.25),
        ({"score": 35}, 0.0),
        ({"score": 35, "max_score": 350}, 0.1),
        ({"score": -10, "max_score": 5}, -1.0),
        ({"score": 7, "max_score": 0}, 0.0),
        ({"score": True}, 0.0),
        ({"score": "1"}, 0.0),
        ({"score": float("nan")}, 0.0),
        ({"score": float("nan"), "max_score": 5}, 0.0),
        ({"score": float("inf"), "max_score": 5}, 0.0),
    ],
)
def test_a_stated_score_is_a_share(info: dict[str, Any], score: float) -> None:
    assert stated_score(reply(**info)) == score


class Losing(ToyEnv):
    """Half of the way is worth 0.5; looking loses everything."""

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        if action == "look":
            return "Lost.", -1.0, True, False, {**self._info(False), "score": -1.0}
        observation, reward, over, cut, info = super().step(action)
        return observation, reward, over, cut, {**info, "score": 1.0 if over else 0.5}


class LosingSuite(ToySuite):
    def make(self) -> ToyEnv:
        return Losing()


class Walks:
    def __init__(self, *actions: str) -> None:
        self.actions = actions

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        return [Action(self.actions[len(c) // 2 - 1]) for c in conversations]


def test_a_lost_episode_keeps_its_sign_and_its_best_score(tmp_path: Path) -> None:
    suite = LosingSuite()
    walk = Walks("go to kitchen", "look")
    with Memory(tmp_path / "m") as memory:
        for one in Runner(suite, walk).run(suite.tasks("train", 1)):
            memory.add(one)
        (episode,) = memory.iterate()
    assert (episode.outcome.score, episode.outcome.best, episode.success) == (-1.0, 0.5, False)
    row = table([episode], {}, {})[-1]
    assert (row.score, row.best) == (0.0, 0.5)


def conversation(answers: int) -> Conversation:
    turns = [Turn("system", "S"), Turn("user", "opening")]
    for n in range(answers):
        turns += [Turn("assistant", f"a{n}"), Turn("user", f"o{n}")]
    return tuple(turns)


def test_the_older_half_goes_and_the_opening_says_so() -> None:
    found = without_oldest(conversation(5), "opening", 0)
    assert found is not None
    shorter, gone = found
    assert gone == 2
    assert [turn.text for turn in shorter[2:]] == ["a2", "o2", "a3", "o3", "a4", "o4"]
    assert shorter[1].text == ("opening\n\n[The first 2 actions and their answers are not shown.]")
    again = without_oldest(shorter, "opening", gone)
    assert again is not None
    assert again[1] == 3
    assert again[0][1].text.count("[") == 1
    assert without_oldest(conversation(1), "opening", 0) is None


class Forgetful:
    """Takes conversations of so many turns, and notes their lengths."""

    def __init__(self, turns: int) -> None:
        self.turns, self.seen = turns, list[int]()

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        for one in conversations:
            if len(one) > self.turns:
                raise ContextOverflow("too long")
            self.seen.append(len(one))
        return [Action("look") for _ in conversations]


def test_a_conversation_that_outgrows_the_context_goes_on_without_its_oldest_turns() -> None:
    policy = Forgetful(10)
    (episode,) = play_all(Runner(SUITE, policy), SUITE.tasks("train", 1))
    assert len(episode.steps) == SUITE.max_steps
    assert str(episode.outcome.reason) == "step limit"
    assert max(policy.seen) == 10
    assert min(policy.seen[5:]) >= 6  # half of it stays
    assert episode.usage["dropped"] > 4
    assert any("outgrew" in remark for remark in remarks([episode]))
    (episode,) = play_all(Runner(SUITE, Forgetful(1)), SUITE.tasks("train", 1))
    assert str(episode.outcome.reason) == "policy error"


def test_admissible_commands_are_shown_only_where_asked_for() -> None:
    tasks = SUITE.tasks("train", 6)
    plain = play_all(Runner(SUITE, RandomPolicy(SUITE)), tasks)
    settings = RunSettings(admissible=True, workers=2)
    listed = play_all(Runner(SUITE, RandomPolicy(SUITE), settings), tasks)
    assert not any(step.invalid for e in listed for step in e.steps)
    # What is shown is not stored: memory and training are as without.
    assert not any("Admissible" in seen for e in [*plain, *listed] for seen in e.observations)
    assert listed[0].actor.settings["admissible"] is True
    assert listed == sorted(
        listed, key=lambda e: [t.identity for t in tasks].index(e.task.identity)
    )
    seen: list[str] = []

    def reads(messages: list[dict[str, str]]) -> str:
        seen.append(messages[-1]["content"])
        return "look"

    play_all(Runner(SUITE, as_policy(reads), RunSettings(admissible=True)), tasks[:1])
    assert all("\n\nAdmissible commands: go to " in text for text in seen)
    expert = load_policy(PolicySettings("expert"), SUITE)
    won = play_all(Runner(SUITE, expert, RunSettings(admissible=True)), tasks)
    assert all(episode.success for episode in won)
    here = play_all(Runner(SUITE, RandomPolicy(SUITE), RunSettings(admissible=True)), tasks)
    assert [[s.action for s in e.steps] for e in here] == [
        [s.action for s in e.steps] for e in listed
    ]


def test_the_random_policy_finds_names_in_any_text() -> None:
    text = (
        "This room is called the hallway. In it, you see: \n\ta picture\n\ta substance called air\n"
        "You also see: \n\tA door to the green house (that is open)\nOn the desk 1 is a mug 2."
    )
    found = names.names_in(text)
    assert {"picture", "desk 1", "mug 2", "door", "green house", "hallway"} <= set(found)
    assert not any(word in found for word in ("the", "is", "in"))
    played = play_all(Runner(SUITE, RandomPolicy(SUITE)), SUITE.tasks("train", 20))
    steps = [step for e in played for step in e.steps]
    assert sum(not step.invalid for step in steps) > len(steps) / 10  # a floor, not nothing


class SameGoal(Suite):
    """Tasks whose goals all read alike; what is to be done stands in the opening."""

    name, version, types, max_steps = "same", "same-1", ("any",), 2

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        first = 1000 * self.splits.index(split) + start
        about = {"suite": "same", "version": "same-1", "type": "any", "split": split}
        return [Task.of("do it", seed=n, **about) for n in range(first, first + count)]

    def make(self) -> TextEnv:
        return SameEnv()


class SameEnv(TextEnv):
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        self.task = (options or {})["task"]
        self.colour = ("red", "blue", "green", "yellow")[self.task.seed % 4]
        text = f"You see the {self.colour} lever of a {self.colour} machine.\n\nTask: do it"
        return text, self.info(False)

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        won = action == f"pull {self.colour}"
        return "Done." if won else "No.", float(won), won, False, self.info(won)

    def info(self, won: bool) -> Info:
        return {"task": self.task, "success": won, "invalid": False, "score": float(won)}


def test_constant_goals_are_told_apart_by_the_opening(tmp_path: Path) -> None:
    suite = SameGoal()

    def pulls(messages: list[dict[str, str]]) -> str:
        return "pull " + messages[1]["content"].split()[3]

    with Memory(tmp_path / "m", fields=("first",)) as memory:
        agent = relive.Agent(pulls, memory, Retrieval(k=0))
        assert all(e.success for e in agent.run(suite, 8))
        right = {}
        for query, fields in (("static", ("goal",)), ("opening", ("first",))):
            asked = Retrieval(k=2, query=query, fields=fields)
            result = relive.evaluate(pulls, suite, memory, tasks=8, retrieval=asked)
            shown = [
                memory.get(r.episode).task.seed % 4 == e.task.seed % 4
                for e in result.episodes
                for r in e.retrieved
            ]
            right[query] = sum(shown) / len(shown)
    assert right["opening"] == 1.0
    assert right["static"] < 1.0
    with pytest.raises(ValueError, match=r"use retrieval.fields \['first'\]"):
        Retrieval(query="opening")


def test_a_memory_of_several_suites_shows_each_its_own_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    (task,) = SUITE.tasks("test", 1)
    with Memory(tmp_path / "m") as memory:
        for episode in play_all(
            Runner(SUITE, load_policy(PolicySettings("expert"), SUITE)), SUITE.tasks("train", 4)
        ):
            memory.add(episode)
            other = replace(episode.task, suite="elsewhere", identity=f"{episode.task.identity}0")
            memory.add(replace(episode, id=f"{episode.id}0", task=other))

        def suites(settings: Retrieval) -> set[str]:
            retriever = MemoryRetriever(memory, spec_of(SUITE), words, settings, Purpose.EVALUATE)
            return {memory.get(r.episode).task.suite for r in retriever(task).retrieved}

        assert suites(Retrieval(k=8)) == {"toy"}
        assert suites(Retrieval(k=8, across=True)) == {"toy", "elsewhere"}
        # An agent in an environment that is no suite sees whatever there is.
        (seen,) = relive.Agent(lambda _: "dial 1", memory, Retrieval(k=8)).run(Safe, 1, max_steps=1)
        assert len(seen.retrieved) == 8


def test_the_next_hit_is_shown_where_one_does_not_fit(tmp_path: Path) -> None:
    (task,) = SUITE.tasks("test", 1)
    expert = load_policy(PolicySettings("expert"), SUITE)
    with Memory(tmp_path / "m") as memory:
        played = play_all(Runner(SUITE, expert), SUITE.tasks("train", 6))
        for n, episode in enumerate(played):
            long = replace(episode, final_observation="word " * (400 if n < 5 else 3))
            memory.add(replace(long, task=replace(episode.task, goal=task.goal)))

        def shown(**settings: Any) -> list[Episode]:
            asked = Retrieval(k=1, max_tokens=200, **settings)
            retriever = MemoryRetriever(memory, spec_of(SUITE), words, asked, Purpose.EVALUATE)
            return [memory.get(r.episode) for r in retriever(task).retrieved]

        (short,) = shown(long="skip")
        assert short.task.identity == played[5].task.identity
        (first,) = shown()
        assert first.task.identity != short.task.identity
        empty = Retrieval(k=1, max_tokens=5)
        result = relive.evaluate(lambda _: "look", SUITE, memory, tasks=2, retrieval=empty)
        assert result.rows[-1].shown == 0
        assert "2 of 2 episodes were shown nothing of the memory" in str(result)


def test_a_policy_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_policies.py").write_text(
        textwrap.dedent(
            """
            def walks(messages):
                return "look"

            class Object:
                def act(self, conversations, seeds=None):
                    return ["look" for _ in conversations]
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("walks", "Object"):
        out = tmp_path / name
        status = main(
            ["eval", "--suite", "toy", "--policy", f"my_policies:{name}", "--tasks", "2",
             "--out", str(out)]
        )  # fmt: skip
        assert status == 0
        memory = tmp_path / "m"
        assert main(
            ["run", "--suite", "toy", "--policy", f"my_policies:{name}", "--tasks", "2",
             "--memory", str(memory)]
        ) == 0  # fmt: skip
    with Memory(memory, "r") as played:  # each its own, though both are somebody's
        assert len(played) == 4
        assert {entry.policy for entry in played.entries()} == {
            "my_policies:walks", "my_policies:Object",
        }  # fmt: skip
    with pytest.raises(ValueError, match=r"policy\.temperature is for models that relive loads"):
        load_policy(PolicySettings("my_policies:walks", temperature=0.5), SUITE)
    with pytest.raises(ValueError, match="suite 'same' has no expert"):
        load_policy(PolicySettings("expert"), SameGoal())
    with pytest.raises(ImportError, match="no 'nobody': correct the entry 'my_policies:nobody'"):
        load_policy(PolicySettings("my_policies:nobody"), SUITE)
    with pytest.raises(ValueError, match="module:object for one of your own"):
        PolicySettings("expret")


def test_a_broken_plug_in_is_listed_and_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a_broken_suite.py").write_text("raise RuntimeError('on purpose')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    register("a-broken-one", "a_broken_suite:Suite")
    register("no-suite", "builtins:dict")
    assert main(["envs", "list"]) == 0
    told = capsys.readouterr().out
    assert "a-broken-one: broken, RuntimeError: on purpose" in told
    assert "no-suite: broken, TypeError: the entry 'builtins:dict' makes {}" in told
    assert "toy (toy-1), 15 steps at most, expert reads text" in told


def test_numbers_of_tasks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["eval", "--suite", "toy", "--policy", "expert", "--tasks", "all",
                 "--out", str(tmp_path / "a")]) == 2  # fmt: skip
    assert "makes as many tasks as are asked for" in capsys.readouterr().err
    assert main(["eval", "--suite", "toy", "--policy", "expert", "--tasks", "2", "--split", "tset",
                 "--out", str(tmp_path / "b")]) == 2  # fmt: skip
    assert "has no split 'tset': use one of train, valid, test" in capsys.readouterr().err


class Bundled:
    model_name = "bundled"

    def act(self, conversations: Sequence[Conversation], seeds: Any = None) -> list[Action]:
        return [Action("take take take") for _ in conversations]


def test_the_bundled_model_elsewhere_is_warned_of() -> None:
    with pytest.warns(UnfitModelWarning, match=r"knows nothing of toy: use a language model"):
        Runner(SUITE, Bundled())


def test_refusals_are_remarked_on() -> None:
    played = play_all(Runner(SUITE, Bundled()), SUITE.tasks("train", 2))  # type: ignore[arg-type]
    assert any("100 % of all actions were refused" in remark for remark in remarks(played))
    random = play_all(Runner(SUITE, RandomPolicy(SUITE)), SUITE.tasks("train", 2))
    assert not any("refused" in remark for remark in remarks(random))


def test_an_expert_is_made_once_for_an_episode_and_told_its_task() -> None:
    made: list[str] = []

    class Counting(ToySuite):
        def expert(self, task: Task) -> Any:
            made.append(task.identity)
            return super().expert(task)

    suite = Counting()
    tasks = suite.tasks("train", 5)
    expert = load_policy(PolicySettings("expert"), suite)
    played = play_all(Runner(suite, expert, RunSettings(batch=5)), tasks)
    assert all(e.success for e in played)
    assert sorted(made) == sorted(t.identity for t in tasks)
    (task,) = tasks[:1]
    turn = (Turn("system", ""), Turn("user", played[0].observations[0]))
    answer = expert.answer  # type: ignore[union-attr]
    first = answer([Asked(turn, 0, task)])[0].text
    assert answer([Asked(turn, 0, task)])[0].text == first  # read anew, not one step further


class Unmade(ToySuite):
    def prepare(self, tasks: Sequence[Task], processes: int = 1) -> int:
        raise RuntimeError("one of them cannot be compiled")


def test_what_cannot_be_prepared_costs_nothing_by_itself() -> None:
    suite = Unmade()
    expert = load_policy(PolicySettings("expert"), suite)
    with pytest.warns(UserWarning, match="cannot be compiled"):
        played = play_all(Runner(suite, expert), suite.tasks("train", 2))
    assert all(episode.success for episode in played)


class Apart(ToySuite):
    processes = 2


def test_one_episode_at_a_time_stays_one_where_processes_are_needed(tmp_path: Path) -> None:
    suite = Apart()
    expert = load_policy(PolicySettings("expert"), suite)
    with Memory(tmp_path / "m") as memory:
        played = list(relive.Agent(expert, memory).run(suite, 4))
    assert [episode.memory_position for episode in played] == [0, 1, 2, 3]


def test_a_lost_game_with_all_points_is_no_success() -> None:
    class Rich(ToyEnv):
        def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
            return "Lost.", 1.0, True, False, {**self._info(False), "score": 9, "max_score": 9}

    class RichSuite(ToySuite):
        def make(self) -> ToyEnv:
            return Rich()

    (episode,) = play_all(Runner(RichSuite(), Walks("look")), SUITE.tasks("train", 1))
    assert not episode.success
    assert 0.99 < episode.outcome.score < 1
    assert episode.outcome.best == episode.outcome.score


def test_nothing_is_played_or_stored_where_nothing_can_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    memory = tmp_path / "m"
    status = main(
        ["run", "--suite", "scienceworld", "--policy", "random", "--tasks", "2",
         "--memory", str(memory)]
    )  # fmt: skip
    assert status == 2
    assert "apt install default-jre-headless" in capsys.readouterr().err
    with Memory(memory, "r") as stored:
        assert len(stored) == 0
    main(["envs", "list"])
    assert "scienceworld: not available here, scienceworld runs on Java" in capsys.readouterr().out


class Shouting(ToySuite):
    """Another dialect: everything in capitals."""

    def reworded(self, steps: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(action.upper(), seen.upper()) for action, seen in steps]


def test_another_dialect_is_said_and_translated_on_request(tmp_path: Path) -> None:
    suite = Shouting()
    expert = load_policy(PolicySettings("expert"), suite)
    seen: list[str] = []

    def reads(messages: list[dict[str, str]]) -> str:
        seen.append(messages[0]["content"])
        return "look"

    with Memory(tmp_path / "m") as memory:
        list(relive.Agent(expert, memory, Retrieval(k=0)).run(suite, 4))
        plain = relive.evaluate(reads, suite, memory, tasks=2)
        assert "past episodes shown were lived in another dialect" in str(plain)
        assert "Action: go to" in seen[-1]
        translated = relive.evaluate(
            reads, suite, memory, tasks=2, retrieval=Retrieval(translate=True)
        )
        assert "dialect" not in str(translated)
        assert "Action: GO TO" in seen[-1]
