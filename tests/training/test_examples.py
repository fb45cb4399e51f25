"""What is learnt from, and under which context."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relive.agent.llm.chat import ChatEncoder, Encoded
from relive.agent.policy import ExpertPolicy, words
from relive.agent.retriever import MemoryRetriever, RetrievedContext
from relive.agent.runner import Runner, play_all, spec_of
from relive.envs import get_suite
from relive.memory import Memory, Purpose, Retrieval
from relive.memory.episode import Episode, Step
from relive.training.batches import Fading, encode_example, mixed
from relive.training.examples import ContextRates, Example, build_examples, example
from relive.training.pretraining.tokenizer import build_tokenizer
from relive.training.select import SelectSettings, select, tasks_of

SUITE = get_suite("toy")
SPEC = spec_of(SUITE)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    made = ExpertPolicy(SUITE)
    with Memory(tmp_path / "m") as opened:
        opened.add_many(play_all(Runner(SUITE, made), SUITE.tasks("train", 24)))
        yield opened


def retriever(memory: Memory, k: int = 2) -> MemoryRetriever:
    return MemoryRetriever(memory, SPEC, words, Retrieval(k=k), Purpose.TRAIN)


def test_context_is_what_the_agent_would_have_been_shown(memory: Memory) -> None:
    for episode in list(memory.iterate())[:5]:
        (made,) = build_examples([episode], retriever(memory), ContextRates(0, 0), seed=0)
        acting = MemoryRetriever(memory, SPEC, words, Retrieval(k=2), Purpose.ACT)(episode.task)
        assert made.conversation[:2] == example(SPEC, episode, acting).conversation[:2]
        assert [t.text for t in made.conversation if t.role == "assistant"] == [
            s.action for s in episode.steps
        ]
        assert made.conversation[-1].role == "assistant"


def test_an_example_is_under_what_was_shown_last(tmp_path: Path) -> None:
    settings = Retrieval(k=1, refresh_after=3, fields=("goal", "window"))
    with Memory(tmp_path / "m", fields=settings.fields) as memory:
        memory.add_many(play_all(Runner(SUITE, ExpertPolicy(SUITE)), SUITE.tasks("train", 24)))
        asking = MemoryRetriever(memory, SPEC, words, settings, Purpose.TRAIN)
        differ = 0
        for episode in memory.iterate():
            (made,) = build_examples([episode], asking, ContextRates(0, 0), seed=0)
            done = zip(episode.steps[:3], episode.observations[1:4], strict=True)
            history = [(step.action, seen) for step, seen in done]
            own = frozenset({episode.id})
            shown = asking(episode.task, history, own)
            assert made.conversation[0] == example(SPEC, episode, shown).conversation[0]
            differ += shown.demonstrations != asking(episode.task, (), own).demonstrations
        assert differ  # else the test would say nothing
        # A first step that was the last one is not asked about.
        short = replace(episode, steps=episode.steps[:2])
        (made,) = build_examples([short], asking, ContextRates(0, 0), seed=0)
        shown = asking(short.task, (), own)
        assert made.conversation[0] == example(SPEC, short, shown).conversation[0]


def test_the_episode_and_its_task_are_never_in_its_own_context(memory: Memory) -> None:
    episodes = list(memory.iterate())
    again = replace(episodes[0], id="same-task-again")
    memory.add(again)
    own = {episodes[0].id, again.id}
    found = retriever(memory, k=50)(episodes[0].task, exclude=frozenset({episodes[0].id}))
    assert found.retrieved
    assert not own & {r.episode for r in found.retrieved}


def test_rates_of_empty_and_irrelevant_context_are_kept(memory: Memory) -> None:
    episodes = [replace(e, id=f"{e.id}-{i}") for e in memory.iterate() for i in range(20)]
    made = build_examples(episodes, retriever(memory), ContextRates(0.2, 0.1), seed=1)
    share = {
        kind: sum(e.memory == kind for e in made) / len(made)
        for kind in ("empty", "irrelevant", "retrieved")
    }
    assert share["empty"] == pytest.approx(0.2, abs=0.06)
    assert share["irrelevant"] == pytest.approx(0.1, abs=0.05)
    for e in made:
        assert ("Experience:" in e.conversation[0].text) == (e.memory != "empty")
    assert made == build_examples(episodes, retriever(memory), ContextRates(0.2, 0.1), seed=1)


def test_irrelevant_context_is_from_the_far_half(memory: Memory) -> None:
    (episode, *_) = list(memory.iterate())
    everything = retriever(memory, k=100)(episode.task, exclude=frozenset({episode.id}))
    near = {d.text for d in everything.demonstrations[: len(everything.demonstrations) // 2]}
    (made,) = build_examples([episode], retriever(memory), ContextRates(0, 1), seed=0)
    assert made.memory == "irrelevant"
    assert not any(text in made.conversation[0].text for text in near)


def test_without_k_no_example_has_memory(memory: Memory) -> None:
    made = build_examples(
        list(memory.iterate()), retriever(memory, k=0), ContextRates(0, 0), seed=0
    )
    assert {e.memory for e in made} == {"empty"}


def test_held_out_tasks_are_refused(memory: Memory) -> None:
    with pytest.raises(ValueError, match="cannot be trained on"):
        retriever(memory)(SUITE.tasks("test", 1)[0])


def test_selection_takes_train_successes_of_the_named_policies(memory: Memory) -> None:
    (first, *_) = list(memory.iterate())
    local = replace(first.actor, policy="local")
    detour = replace(first, id="longer", actor=local, steps=(*first.steps, first.steps[-1]))
    memory.add(detour)
    memory.add(replace(first, id="shorter", actor=local))
    held_out = replace(
        first, id="held-out", actor=local, task=replace(first.task, split="test", identity="other")
    )
    memory.add(held_out)
    memory.add(
        replace(first, id="failed", actor=local, outcome=replace(first.outcome, success=False))
    )
    chosen = select(memory, SelectSettings())
    assert [e.id for e in chosen] == ["shorter"]
    assert tasks_of(chosen) == [first.task.identity]
    assert len(select(memory, SelectSettings(policies=("local", "expert")))) == 24
    assert select(memory, SelectSettings(types=("no such type",))) == []


def test_only_the_assistants_words_are_learnt_and_refused_actions_are_not(
    memory: Memory,
) -> None:
    tokenizer = build_tokenizer()
    encoder = ChatEncoder(tokenizer)
    episode: Episode = next(iter(memory.iterate()))
    slip = Step(episode.steps[0].observation, "open the sky", invalid=True)
    marred = replace(episode, steps=(slip, *episode.steps))
    ((ids, learn),) = encode_example(encoder, example(SPEC, marred, RetrievedContext()))
    own = [i for i, on in zip(ids, learn, strict=True) if on]
    learnt = str(tokenizer.decode(own, skip_special_tokens=True))
    assert learnt.replace(" ", "") == "".join(s.action for s in episode.steps).replace(" ", "")
    assert sum(learn) < len(learn)
    (every,) = encode_example(
        encoder, Example(example(SPEC, marred, RetrievedContext()).conversation)
    )
    assert sum(every[1]) > sum(learn)


def test_rates_must_be_shares() -> None:
    with pytest.raises(ValueError, match="at most 1 together"):
        ContextRates(0.7, 0.7)


def test_memory_fades_over_the_training(memory: Memory) -> None:
    episodes = list(memory.iterate())
    made = build_examples(episodes, retriever(memory), ContextRates(0, 0, fade=1.0), seed=0)
    plain = build_examples(episodes, retriever(memory, k=0), ContextRates(0, 0), seed=0)
    assert all(one.memory == "retrieved" for one in made)
    assert [one.fading for one in made] == [one.conversation for one in plain]
    encoded = [[([n], [True])] for n in range(len(made))]
    without = [[([-1], [True])] for _ in made]

    def fading(count: int) -> list[list[Encoded]]:
        told = Fading(without, 1.0)
        stream = mixed(encoded, None, (0, 1), 0, told)
        found = []
        for number in range(count):
            told.progress = number / count
            found.append(next(stream))
        return found

    faded = [one[0][0] == [-1] for one in fading(2400)]
    first, middle, last = (sum(faded[a : a + 400]) / 400 for a in (0, 1000, 2000))
    assert 0.02 < first < 0.15 < 0.4 < middle < 0.6 < 0.85 < last < 0.98
    # Those that keep their memory come as without a curriculum.
    same = itertools.islice(mixed(encoded, None, (0, 1), 0), 2400)
    assert all(a == b or b == without[0] for a, b in zip(same, fading(2400), strict=True))
    with pytest.raises(ValueError, match="fade must be"):
        ContextRates(fade=1.5)
