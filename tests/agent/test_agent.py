"""The second door: an agent in an environment that nobody registered."""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from relive.agent.agent import Agent
from relive.agent.conversation import messages
from relive.agent.evaluation.evaluate import evaluate
from relive.agent.evaluation.fingerprint import fingerprint
from relive.agent.run_episode import SuccessUnknownError
from relive.envs import Reply, get_suite
from relive.memory import HashedEmbedder, Memory, Retrieval, StopReason
from relive.memory.maintenance.rebuild import rebuild
from tests.agent.text_world import CODES, Safe


def policy(messages: list[dict[str, str]]) -> str:
    """Does what worked before, else tries one number after the other."""
    goal = messages[1]["content"].splitlines()[-1]
    worked = re.search(
        rf"{goal}\n(?:.*\n)*?Action: (.*)\nObservation: It opens", messages[0]["content"]
    )
    return worked[1] if worked else f"dial {len(messages) // 2}"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "memory") as opened:
        yield opened


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_it_remembers_and_retrieves_from_the_second_episode_on(
    memory: Memory, workers: int
) -> None:
    agent = Agent(policy, memory=memory, retrieval=Retrieval(k=2))
    tries: dict[str, list[int]] = {}
    for number, episode in enumerate(agent.run(Safe, tasks=9, workers=workers)):
        assert episode.success
        assert memory.get(episode.id) == episode  # before it is yielded
        if workers < 2:  # of two at once, neither sees the other
            assert len(episode.retrieved) == min(number, 2)
        tries.setdefault(episode.task.goal, []).append(len(episode.steps))
    assert {goal: first for goal, (first, *_) in tries.items()} == {
        f"open the {colour} safe": code for colour, code in CODES
    }
    if workers < 2:
        assert all(later == [1, 1] for _, *later in tries.values())
    assert len(memory) == 9


def test_an_environment_a_class_and_a_function_are_the_same(tmp_path: Path) -> None:
    seen = []
    for name, environment in (("a", Safe()), ("b", Safe), ("c", lambda: Safe())):
        with Memory(tmp_path / name) as memory:
            agent = Agent(policy, memory)
            seen.append([
                (e.task, [(s.observation, s.action) for s in e.steps], len(e.retrieved))
                for e in agent.run(environment, tasks=5)
            ])  # fmt: skip
    assert seen[0] == seen[1] == seen[2]


def test_which_tasks(memory: Memory) -> None:
    agent = Agent(policy, memory)
    assert [e.task.seed for e in agent.run(Safe, tasks=[4, 1])] == [4, 1]
    listed = [e.task for e in agent.run(Safe, tasks=2)]
    assert [e.task for e in agent.run(Safe, tasks=listed)] == listed
    told: list[Any] = []

    class Told(Safe):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            told.append(options)
            return super().reset(seed=seed)

    (episode,) = agent.run(Told(), tasks=["open whatever is there"])
    assert told == [{"goal": "open whatever is there"}]
    assert episode.task.goal == "open whatever is there"
    for wrong in ("one", {"a": 1}, None, [None], [""], [True], 1.5):
        with pytest.raises(TypeError, match="tasks"):
            agent.run(Safe, tasks=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ask for 0 or more"):
        agent.run(Safe, tasks=-1)
    with pytest.raises(ValueError, match="lists its own tasks"):
        agent.run("toy", tasks=["fetch"])
    assert list(agent.run(Safe, tasks=0)) == []


def test_what_was_there_at_a_position_is_all_that_is_shown(memory: Memory) -> None:
    agent = Agent(policy, memory)
    list(agent.run(Safe, tasks=2))
    then = memory.position
    shown = [e.retrieved for e in agent.run(Safe, tasks=[0, 1, 2, 3, 4], at=then)]
    assert {r.episode for one in shown for r in one} == {
        e.episode_id for e in memory.entries(at=then)
    }
    assert all(len(one) == 2 for one in shown)


def test_without_a_memory_nothing_is_shown() -> None:
    assert [len(e.retrieved) for e in Agent(policy).run(Safe, tasks=3)] == [0, 0, 0]
    (nothing,) = Agent(policy, retrieval=Retrieval(k=0)).run(Safe, tasks=1)
    assert nothing.success


class Wordless(Safe):
    """Answers with an object where a text is needed."""

    def reset(self, **options: Any) -> Any:
        return {"text": super().reset(**options)[0]}, {}


def test_an_environment_that_always_fails_says_so_once() -> None:
    with pytest.warns(UserWarning, match="observation of reset must be text, not dict") as told:
        episodes = list(Agent(policy).run(Wordless, tasks=3))
    assert [e.outcome.reason for e in episodes] == [StopReason.ENVIRONMENT_ERROR] * 3
    assert len(told) == 1
    assert told[0].filename == __file__


class Silent(Safe):
    """Does not say whether the goal was reached."""

    def step(self, action: str) -> Any:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {}


def test_success_is_stated_once(memory: Memory) -> None:
    agent = Agent(policy, memory)
    with pytest.raises(SuccessUnknownError, match=r"reply\.terminated and reply\.reward > 0"):
        list(agent.run(Silent, tasks=1))
    (entry,) = memory.entries()  # not lost
    assert (entry.success, entry.reason) == (False, StopReason.ENVIRONMENT_ERROR)

    def rewarded(reply: Reply) -> bool:
        return reply.reward > 0

    assert [e.success for e in agent.run(Silent, tasks=2, success=rewarded)] == [True, True]
    measured = evaluate(policy, Silent, memory, tasks=3, success=rewarded)
    assert (measured.success, measured.n) == (1.0, 3)
    assert len(memory) == 3  # an evaluation adds nothing


@pytest.mark.parametrize("name", ["CartPole-v1", "FrozenLake-v1"])
def test_what_is_no_text_is_refused(memory: Memory, name: str) -> None:
    with pytest.raises(TypeError, match="not text: wrap it"):
        Agent(policy, memory).run(gymnasium.make(name))
    assert len(memory) == 0


def test_what_is_no_environment_is_refused(memory: Memory) -> None:
    agent = Agent(policy, memory)
    for wrong in (3, None, object(), lambda: 3, int):
        with pytest.raises(TypeError, match="no environment"):
            agent.run(wrong)
    with pytest.raises(LookupError, match="Did you mean 'household'"):
        agent.run("housold")


def test_mistakes_are_found_at_the_call(memory: Memory) -> None:
    """Not when the first episode is asked for."""
    agent = Agent(policy, memory)
    with pytest.raises(ValueError, match="cannot be played by workers"):
        agent.run(Safe(), workers=2)
    with pytest.raises(TypeError, match=r"must be a list of names: \['fetch'\]"):
        agent.run("toy", types="fetch")
    with pytest.raises(ValueError, match="Did you mean 'fetch'"):
        agent.run("toy", types=["fetchh"])
    with pytest.raises(ValueError, match="no split 'dev'"):
        agent.run("toy", split="dev")
    with pytest.raises(TypeError, match="has its own instructions"):
        agent.run("toy", instructions="be quick")


def test_what_cannot_act_is_refused(tmp_path: Path, memory: Memory) -> None:
    for wrong in (3, None, "gpt", Agent):
        with pytest.raises(TypeError, match=r"cannot act|give an object"):
            Agent(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"relive\.Memory"):
        Agent(policy, "experience")  # type: ignore[arg-type]
    with Memory(memory.path, "r") as reader, pytest.raises(ValueError, match="open for reading"):
        Agent(policy, reader)


def test_a_policy_that_fails_costs_its_episode(memory: Memory) -> None:
    def fails(messages: list[dict[str, str]]) -> str:
        if "blue" in messages[1]["content"]:
            raise RuntimeError("no answer from the server")
        return policy(messages)

    def number(messages: list[dict[str, str]]) -> str:
        return 3  # type: ignore[return-value]

    with pytest.warns(UserWarning, match="an error broke off an episode of Safe: RuntimeError"):
        episodes = list(Agent(fails, memory).run(Safe, tasks=3, batch=3))
    assert {e.task.goal: e.outcome.reason for e in episodes} == {
        "open the red safe": StopReason.SOLVED,
        "open the blue safe": StopReason.POLICY_ERROR,
        "open the green safe": StopReason.SOLVED,
    }
    assert any("no answer from the server" in e.outcome.detail for e in episodes)
    with pytest.warns(UserWarning, match="as text, not 3"):
        (episode,) = Agent(number, memory).run(Safe)
    assert "must return the next action as text, not 3" in episode.outcome.detail


def test_half_a_character_in_the_memory_is_shown_as_one_that_there_is(memory: Memory) -> None:
    memory.add(goal="open the red safe", steps=[("a hall", "fry \ud83d")], success=True)
    seen: list[str] = []

    class Reads:
        def act(self, conversations: Any, seeds: Any = None) -> list[str]:
            seen.extend(one["content"] for one in messages(conversations[0]))
            return ["dial \ud83d"]

    (episode,) = Agent(Reads(), memory).run(Safe, max_steps=2)
    assert (len(episode.retrieved), episode.outcome.reason) == (1, StopReason.STEP_LIMIT)
    assert "Action: fry \ufffd\n" in seen[0]
    assert seen[4] == "dial \ufffd"
    assert episode.steps[0].action == "dial \ud83d"


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_a_retrieval_that_fails_costs_its_episode(memory: Memory, error: type[Exception]) -> None:
    class Counts:
        def count_tokens(self, text: str) -> int:
            raise error("no such text")

        def act(self, conversations: Any, seeds: Any = None) -> list[str]:
            return ["dial 4"] * len(conversations)

    memory.add(goal="open the red safe", steps=[("a hall", "dial 4")], success=True)
    episodes = list(Agent(Counts(), memory).run(Safe, tasks=2))
    assert [e.outcome.reason for e in episodes] == [StopReason.POLICY_ERROR] * 2
    told = f"retrieval failed: {error.__name__}: no such text"
    assert told in episodes[0].outcome.detail


def test_a_run_that_is_given_up_keeps_what_it_yielded(memory: Memory) -> None:
    running = Agent(policy, memory).run(Safe, tasks=50)
    first = next(running)
    running.close()  # type: ignore[attr-defined]  # it is a generator
    assert [e.episode_id for e in memory.entries()] == [first.id]


def test_a_suite_is_played_under_the_strict_holdout(memory: Memory) -> None:
    suite = get_suite("toy")
    agent = Agent(lambda _: "look", memory, Retrieval(k=50, outcomes="all"))
    again = [list(agent.run(suite, tasks=4)) for _ in range(2)]
    for episode in again[1]:
        shown = {memory.get(r.episode).task.identity for r in episode.retrieved}
        assert episode.task.identity not in shown
        assert shown


def test_who_acted_is_derived(memory: Memory) -> None:
    (episode,) = Agent(policy, memory, Retrieval(k=3, max_tokens=90), seed=5).run(Safe)
    actor = episode.actor
    assert (actor.policy, actor.model) == ("callable", "policy")
    assert (actor.settings["k"], actor.settings["budget"], actor.settings["seed"]) == (3, 90, 5)


def test_points_and_strange_scores_end_no_run(memory: Memory) -> None:
    """Progress is a number in [0, 1]; whatever else a game calls score is passed over."""
    told: list[Any] = [None, "high", [1], 7.0, float("nan"), 0.25]

    class Scored(Safe):
        def step(self, action: str) -> Any:
            score = told.pop(0)
            return "x", 0.0, True, False, {"success": False, "score": score}

    episodes = list(Agent(policy, memory).run(Scored(), tasks=6))
    assert [e.outcome.score for e in episodes] == [0.0] * 5 + [0.25]
    assert {e.outcome.reason for e in episodes} == {StopReason.FAILED}


def test_a_limit_of_the_environment_is_a_step_limit(memory: Memory) -> None:
    (episode,) = Agent(lambda _: "wait", memory).run(
        lambda: gymnasium.wrappers.TimeLimit(Safe(), 3), tasks=1
    )
    assert (episode.outcome.reason, len(episode.steps)) == (StopReason.STEP_LIMIT, 3)


@pytest.mark.parametrize("said", ["no", float("nan"), [True], np.array([1, 1])])
def test_what_is_neither_true_nor_false_is_no_success(memory: Memory, said: Any) -> None:
    class Vague(Safe):
        def step(self, action: str) -> Any:
            return "x", 0.0, True, False, {"success": said}

    told = re.escape(f"info['success'] is {said!r}, neither True nor False")
    with pytest.raises(SuccessUnknownError, match=told):
        list(Agent(policy, memory).run(Vague()))


@pytest.mark.parametrize("said", ["failed", 0.3, [], float("nan"), np.array([True])])
def test_what_success_may_not_say_costs_its_episode(memory: Memory, said: Any) -> None:
    episodes = list(Agent(policy, memory).run(Safe, tasks=2, success=lambda reply: said))
    assert [e.outcome.reason for e in episodes] == [StopReason.ENVIRONMENT_ERROR] * 2
    assert f"must return True, False or None, not {said!r}" in episodes[0].outcome.detail
    assert len(memory) == 2


def test_an_error_in_success_costs_its_episode(memory: Memory) -> None:
    def broken(reply: Reply) -> bool:
        return bool(reply.info["reached"])

    episodes = list(Agent(policy, memory).run(Safe, tasks=2, success=broken))
    assert [len(e.steps) for e in episodes] == [1, 1]
    assert episodes[0].outcome.detail == "success= raised KeyError: 'reached'"
    assert len(memory) == 2


@pytest.mark.parametrize("true", [True, 1, np.bool_(True)])
def test_success_is_asked_after_each_step(memory: Memory, true: Any) -> None:
    said = [None, False, np.bool_(False), 0, true]
    (episode,) = Agent(lambda _: "wait", memory).run(Safe, success=lambda reply: said.pop(0))
    assert (episode.success, len(episode.steps)) == (True, 5)
    with pytest.raises(SuccessUnknownError, match="success= returned None"):
        list(Agent(policy, memory).run(Safe, success=lambda reply: None))


class Acts:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def act(self, conversations: Any, seeds: Any = None) -> Any:
        return self.answer


def test_an_object_that_acts_may_return_texts(memory: Memory) -> None:
    (episode,) = Agent(Acts(["dial 3"]), memory).run(Safe)
    assert episode.success
    for wrong in (["a", "b"], "dial 3", [3], None):
        (episode,) = Agent(Acts(wrong), memory).run(Safe)
        assert episode.outcome.reason == StopReason.POLICY_ERROR
        assert "act must return" in episode.outcome.detail


def test_an_evaluation_is_not_gone_on_with_by_another(memory: Memory, tmp_path: Path) -> None:
    """Functions are told apart by what they do, and what success means is part of a result."""
    out = tmp_path / "run"

    def good(messages: list[dict[str, str]]) -> str:
        return policy(messages)

    list(Agent(policy, memory).run(Safe, 3))
    assert evaluate(good, Safe, memory, tasks=3, out=out).success == 1.0
    assert evaluate(good, Safe, memory, tasks=3, out=out).success == 1.0  # read again
    others = (lambda messages: "dial 0", Acts(["dial 0"]), Acts(["dial 1"]))
    for other in others:
        with pytest.raises(ValueError, match="other settings"):
            evaluate(other, Safe, memory, tasks=3, out=out)
    with pytest.raises(ValueError, match="other settings"):
        evaluate(good, Safe, memory, tasks=3, out=out, success=lambda reply: False)
    # Nor with another memory in the same place, nor by other vectors.
    path = memory.path
    memory.close()
    rebuild(path, embedder=HashedEmbedder(16), reembed=True)
    with (
        Memory(path, "r", embedder=HashedEmbedder(16)) as changed,
        pytest.raises(ValueError, match="other settings"),
    ):
        evaluate(good, Safe, changed, tasks=3, out=out)
    shutil.rmtree(path)
    with Memory(path) as another:
        with pytest.raises(ValueError, match="it is another memory"):
            evaluate(good, Safe, another, tasks=3, out=out)
        list(Agent(policy, another).run(Safe, 9))
        with pytest.raises(ValueError, match="other settings"):
            evaluate(good, Safe, another, tasks=3, out=out)
    marks = {fingerprint(value) for value in (*others, good, policy, partial(policy, 3), Safe, 3)}
    assert len(marks) == 8
    assert fingerprint(partial(policy, 3)) == fingerprint(partial(policy, 3))


def test_an_evaluation_says_what_broke(memory: Memory) -> None:
    class Breaks(Safe):
        def step(self, action: str) -> Any:
            raise RuntimeError("the wire is cut")

    said = str(evaluate(policy, Breaks, memory, tasks=2))
    assert "2 broken off by errors" in said
    assert "the wire is cut" in said
    for wrong in ("experience", 3):
        with pytest.raises(TypeError, match=r"relive\.Memory"):
            evaluate(policy, Safe, wrong, tasks=1)  # type: ignore[arg-type]
