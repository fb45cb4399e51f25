"""The loop and the runner, on the toy suite with scripted policies."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from relive.agent.collect import collect
from relive.agent.conversation import Action, Asked, Conversation, Turn
from relive.agent.evaluation.records import record
from relive.agent.load_policy import PolicySettings, load_policy
from relive.agent.policy import ExpertPolicy, ReplayPolicy, actor_of, words
from relive.agent.prompt import system_text
from relive.agent.retriever import (
    History,
    MemoryRetriever,
    RetrievedContext,
    first_steps,
    refreshed,
)
from relive.agent.run_episode import draw_seed
from relive.agent.runner import Runner, RunSettings, play_all, spec_of
from relive.envs import get_suite
from relive.envs.base import TextEnv
from relive.memory import Memory, Purpose, Retrieval
from relive.memory.episode import Actor, Episode, StopReason
from relive.memory.search.fields import query_text
from relive.task import Task

SUITE = get_suite("toy")


def runner(kind: str = "expert", **settings: int) -> Runner:
    made = load_policy(PolicySettings(kind=kind), SUITE)
    return Runner(SUITE, made, RunSettings(**settings))


def essence(episodes: Sequence[Episode]) -> list[tuple[object, ...]]:
    return [
        (
            e.task,
            [(s.observation, s.action, s.reward) for s in e.steps],
            e.final_observation,
            e.outcome,
        )
        for e in episodes
    ]


def test_the_expert_solves_and_every_task_is_played_once() -> None:
    tasks = SUITE.tasks("test", 12)
    episodes = play_all(runner(), tasks)
    assert [e.task.identity for e in episodes] == [t.identity for t in tasks]
    assert all(
        e.success and e.outcome.reason is StopReason.SOLVED and e.outcome.score == 1.0
        for e in episodes
    )
    assert {e.actor.policy for e in episodes} == {"expert"}


@pytest.mark.parametrize("kind", ["expert", "random"])
def test_results_do_not_depend_on_batch_or_workers(kind: str) -> None:
    tasks = SUITE.tasks("valid", 6)
    one = essence(play_all(runner(kind, batch=1, max_steps=8), tasks))
    assert essence(play_all(runner(kind, batch=4, max_steps=8), tasks)) == one
    assert essence(play_all(runner(kind, workers=2, max_steps=8), tasks)) == one


def test_the_step_limit_ends_an_episode() -> None:
    (episode,) = play_all(runner("random", max_steps=3), SUITE.tasks("train", 1))
    assert len(episode.steps) == 3
    assert episode.outcome.reason is StopReason.STEP_LIMIT
    assert not episode.success


class _Stubborn:
    """Says what it was told to say, over and over."""

    def __init__(self, *told: str) -> None:
        self.told = itertools.cycle(told)

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        return [Action(next(self.told)) for _ in asked]


@pytest.mark.parametrize(
    ("words_said", "steps", "reason"),
    [
        (("sing",), 4, StopReason.STUCK),
        (("sing", "dance"), 12, StopReason.STEP_LIMIT),  # never the same twice in a row
        (("sing", "sing", "sing", "dance"), 12, StopReason.STEP_LIMIT),
        (("look",), 12, StopReason.STEP_LIMIT),  # accepted, however often
    ],
)
def test_who_repeats_what_is_refused_is_stopped(
    words_said: tuple[str, ...], steps: int, reason: StopReason, tmp_path: Path
) -> None:
    run = RunSettings(batch=1, max_steps=12, give_up_after=4)
    (episode,) = play_all(Runner(SUITE, _Stubborn(*words_said), run), SUITE.tasks("train", 1))
    assert len(episode.steps) == steps
    assert episode.outcome.reason is reason
    assert not episode.success
    with Memory(tmp_path / "m") as memory:
        memory.add(episode)
        assert memory.get(episode.id).outcome == episode.outcome
    with Memory(tmp_path / "m", "r") as memory:
        assert memory.meta(episode.id).reason is reason


def test_nobody_is_stopped_unless_asked_for() -> None:
    run = RunSettings(batch=1, max_steps=12)
    (episode,) = play_all(Runner(SUITE, _Stubborn("sing"), run), SUITE.tasks("train", 1))
    assert len(episode.steps) == 12
    with pytest.raises(ValueError, match="give_up_after is -1"):
        RunSettings(give_up_after=-1)


def test_replay_repeats_recorded_episodes() -> None:
    tasks = SUITE.tasks("train", 4)
    recorded = play_all(runner(), tasks)
    replay = Runner(SUITE, ReplayPolicy(recorded))
    assert essence(play_all(replay, tasks)) == essence(recorded)
    with pytest.raises(LookupError, match="no recorded episode"):
        ReplayPolicy([]).act([(Turn("user", "hello"),)])


class _Moody:
    """Raises whenever one particular goal is in the batch."""

    def __init__(self, goal: str) -> None:
        self.goal = goal
        self.expert = ExpertPolicy(SUITE)

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        if any(self.goal in turn.text for one in asked for turn in one.conversation):
            raise ValueError("not this one")
        return self.expert.answer(asked)


def test_a_policy_that_raises_costs_one_episode() -> None:
    tasks = SUITE.tasks("train", 6)
    bad = tasks[2].goal
    episodes = play_all(Runner(SUITE, _Moody(bad)), tasks)
    for episode in episodes:
        if episode.task.goal == bad:
            assert episode.outcome.reason is StopReason.POLICY_ERROR
            assert "not this one" in episode.outcome.detail
        else:
            assert episode.success


def test_retrieval_reads_the_recorded_position_and_respects_the_holdout(tmp_path: Path) -> None:
    tasks = SUITE.tasks("train", 8)
    with Memory(tmp_path / "m") as memory:
        for episode in play_all(runner(), tasks[:4]):
            memory.add(episode)
        position = memory.position
        retriever = MemoryRetriever(
            memory, spec_of(SUITE), words, Retrieval(k=3), Purpose.ACT, position
        )
        before = retriever(tasks[0])
        for episode in play_all(runner(), tasks[4:]):
            memory.add(episode)
        assert retriever(tasks[0]) == before
        assert 1 <= len(before.retrieved) <= 3
        own = {e.episode_id for e in memory.entries() if e.task.identity == tasks[0].identity}
        assert not own & {r.episode for r in before.retrieved}
        made = ExpertPolicy(SUITE)
        (episode,) = play_all(Runner(SUITE, made, retriever=retriever), tasks[:1])
        assert episode.steps[0].retrieved == before.retrieved
        assert episode.memory_position == position


class _Shown:
    """A policy that notes which system turns it was shown, and plays as the expert does."""

    def __init__(self) -> None:
        self.systems: list[str] = []
        self.expert = ExpertPolicy(SUITE)

    def answer(self, asked: Sequence[Asked]) -> list[Action]:
        self.systems += [one.conversation[0].text for one in asked]
        return self.expert.answer(asked)


class _Counted:
    """Retrieval that notes how long the history was each time it was asked."""

    def __init__(self, retriever: MemoryRetriever) -> None:
        self.retriever, self.position, self.due = retriever, retriever.position, retriever.due
        self.asked: list[int] = []

    def frozen(self) -> "_Counted":
        return self

    def __call__(self, task: Task, history: History = (), *, opening: str = "") -> RetrievedContext:
        self.asked.append(len(history))
        return self.retriever(task, history, opening=opening)


def test_dynamic_retrieval_asks_at_every_step_and_keeps_the_conversation(tmp_path: Path) -> None:
    tasks = SUITE.tasks("train", 12)
    (task,) = SUITE.tasks("valid", 1)
    with Memory(tmp_path / "m") as memory:
        for episode in play_all(runner(), tasks):
            memory.add(episode)
        played = {}
        for query in ("static", "dynamic"):
            settings = Retrieval(k=1, query=query)
            counted = _Counted(
                MemoryRetriever(memory, spec_of(SUITE), words, settings, Purpose.EVALUATE)
            )
            policy = _Shown()
            (episode,) = play_all(Runner(SUITE, policy, retriever=counted), [task])
            assert episode.success
            assert len(policy.systems) == len(episode.steps)
            played[query] = (counted.asked, episode, policy.systems)
        asked, episode, systems = played["static"]
        assert asked == [0]
        assert len(set(systems)) == 1
        asked, episode, systems = played["dynamic"]
        assert asked == list(range(len(episode.steps)))
        assert all(len(step.retrieved) == 1 for step in episode.steps)
        # What the prompt showed at each step is what was recorded as retrieved for it.
        for step, system in zip(episode.steps, systems, strict=True):
            assert f"Your task is to: {memory.get(step.retrieved[0].episode).task.goal}." in system


def test_memory_can_be_asked_once_more_after_some_steps(tmp_path: Path) -> None:
    (task,) = SUITE.tasks("valid", 1)
    with Memory(tmp_path / "m", fields=("goal", "window")) as memory:
        for episode in play_all(runner(), SUITE.tasks("train", 12)):
            memory.add(episode)
        settings = Retrieval(k=1, refresh_after=2, fields=("goal", "window"))
        counted = _Counted(
            MemoryRetriever(memory, spec_of(SUITE), words, settings, Purpose.EVALUATE)
        )
        policy = _Shown()
        (episode,) = play_all(Runner(SUITE, policy, retriever=counted), [task])
        assert counted.asked == [0, 2]
        told = [len(step.retrieved) for step in episode.steps]
        assert told == [1, 0, 1] + [0] * (len(told) - 3)
        later = memory.get(episode.steps[2].retrieved[0].episode).task.goal
        assert all(f"Your task is to: {later}." in system for system in policy.systems[2:])
        assert len(set(policy.systems[:2])) == 1
        # What is kept of it speaks of what was shown from then on.
        kept = record(episode, {}, memory, counted.retriever, words)
        assert kept["retrieved"] == [
            [memory.meta(r.episode).task.identity, memory.meta(r.episode).task.type]
            for r in episode.steps[2].retrieved
        ]
        (demo,) = counted.retriever(task, first_steps(episode, 2)).demonstrations
        assert kept["memory_tokens"] == words(demo.text)
        # Also where there is but one step after it; an episode that ended before has the first.
        once = replace(counted.retriever.settings, refresh_after=1)
        asking = MemoryRetriever(memory, spec_of(SUITE), words, once, Purpose.EVALUATE)
        cut = [replace(episode, steps=episode.steps[:count]) for count in (1, 2, 3)]
        assert [refreshed(one, asking) for one in cut] == [0, 1, 1]
        dynamic = replace(once, refresh_after=0, query="dynamic")
        asking = MemoryRetriever(memory, spec_of(SUITE), words, dynamic, Purpose.EVALUATE)
        assert [refreshed(one, asking) for one in cut] == [0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"refresh_after": 2}, "add 'window'"),
        ({"refresh_after": -1, "fields": ("goal", "window")}, "must not be negative"),
        ({"refresh_after": 1.5}, "must be an int"),
        ({"refresh_after": 2, "query": "dynamic", "fields": ("window",)}, "use one of them"),
    ],
)
def test_asking_once_more_needs_what_it_compares(settings: dict[str, object], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        Retrieval(**settings)  # type: ignore[arg-type]


def test_what_is_retrieved_does_not_depend_on_how_episodes_were_scheduled(tmp_path: Path) -> None:
    shown = []
    for batch in (16, 3):
        with Memory(tmp_path / str(batch)) as memory:
            made = ExpertPolicy(SUITE)
            for episode in Runner(SUITE, made, RunSettings(batch=batch)).run(
                SUITE.tasks("train", 60)
            ):
                memory.add(episode)
            retriever = MemoryRetriever(memory, spec_of(SUITE), words, Retrieval(k=3), Purpose.ACT)
            found = [retriever(task).retrieved for task in SUITE.tasks("test", 30)]
            shown.append([[memory.meta(r.episode).task.identity for r in hits] for hits in found])
    assert shown[0] == shown[1]


def test_seeds_depend_on_run_task_and_step() -> None:
    seeds = {draw_seed(r, t, s) for r in (0, 1) for t in ("a", "b") for s in (0, 1)}
    assert len(seeds) == 8
    assert draw_seed(0, "a", 0) == draw_seed(0, "a", 0)


def test_a_query_holds_the_goal_and_the_latest_steps() -> None:
    history = [(f"go to shelf {i}", f"You arrive at shelf {i}.") for i in range(6)]
    assert query_text("put a cup in shelf", ()) == "put a cup in shelf"
    text = query_text("put a cup in shelf", history)
    assert text.startswith("put a cup in shelf")
    assert "go to shelf 5" in text
    assert "go to shelf 1" not in text
    with pytest.raises(ValueError, match="'static', 'opening' or 'dynamic'"):
        Retrieval(query="always")


def test_admissible_commands_are_asked_of_who_lists_them() -> None:
    class Silent(type(SUITE.make())):  # type: ignore[misc]
        admissible = TextEnv.admissible

    class Quiet(type(SUITE)):  # type: ignore[misc]
        def make(self) -> TextEnv:
            return Silent()

    quiet = Quiet()
    settings = RunSettings(admissible=True)
    asked = Runner(quiet, load_policy(PolicySettings(kind="random"), quiet), settings)
    with pytest.raises(ValueError, match="does not list admissible commands"):
        play_all(asked, quiet.tasks("test", 1))


class Named:
    """A policy that says which weights it has."""

    def __init__(self, weights: str, model: str = "m") -> None:
        self.actor = Actor("local", model=model, weights=weights)

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        return [Action("look") for _ in conversations]


def test_what_another_model_played_was_not_played_yet(tmp_path: Path) -> None:
    tasks, short = SUITE.tasks("train", 3), RunSettings(max_steps=1)
    with Memory(tmp_path / "m") as memory:
        for policy, new in (
            (Named("a"), 3), (Named("a", "moved"), 0), (Named("b"), 3), (Named("", "m"), 0),
            (Named("", "n"), 3),
        ):  # fmt: skip
            assert len(list(collect(memory, Runner(SUITE, policy, short), tasks))) == new


def test_past_episodes_are_shown_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    spec, task = spec_of(SUITE), SUITE.tasks("test", 1)[0]
    with Memory(tmp_path / "m") as memory:
        memory.add_many(play_all(runner(), SUITE.tasks("train", 20)))

        def shown(order: str, task: Task = task) -> list[str]:
            asked = Retrieval(k=4, max_tokens=10_000, order=order)
            found = MemoryRetriever(memory, spec, words, asked, Purpose.EVALUATE)(task)
            names = [demo.episode for demo in found.demonstrations]
            assert names == [one.episode for one in found.retrieved]
            read = system_text(spec, found.demonstrations).split("\n\nSuccess.")[1:]
            texts = [demo.text.removeprefix("Success.") for demo in found.demonstrations]
            assert read == texts[::-1]
            return names

        closest = shown("closest-last")
        assert shown("closest-first") == closest[::-1]
        lengths = [len(memory.get(name).steps) for name in shown("shortest-last")]
        assert shown("shortest-last") == shown("longest-last")[::-1] or len(set(lengths)) < 4
        assert sorted(shown("random")) == sorted(closest)
        assert shown("random") == shown("random")
        # It is drawn anew for every task, whatever is the closest there.
        places = set()
        for other in SUITE.tasks("test", 12):
            near = shown("closest-last", other)
            places.add(tuple(near.index(name) for name in shown("random", other)))
        assert len(places) > 3
    with pytest.raises(ValueError, match=r"retrieval\.order"):
        Retrieval(order="upside down")
    # What is not asked for leaves no mark on records.
    assert "order" not in actor_of(None, Retrieval()).settings
    assert actor_of(None, Retrieval(order="random")).settings["order"] == "random"
