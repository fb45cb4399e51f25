"""The corpus carries no information about the household's true bindings, and is written in the
frozen format."""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from relive.agent.llm.chat import ChatEncoder
from relive.agent.runner import spec_of
from relive.envs import get_suite
from relive.training.pretraining import corpus
from relive.training.pretraining import lexicon as lex
from relive.training.pretraining.bindings import HOUSEHOLD, Kind, draw_bindings, draw_goal
from relive.training.pretraining.pretrain import (
    PretrainSettings,
    chat_text,
    encode,
    pool_batches,
    with_kinds,
)
from relive.training.pretraining.tokenizer import build_tokenizer
from relive.training.pretraining.worlds import draw_room

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = [corpus.draw(1, i, p) for p in (0.05, 0.2, 0.9) for i in range(250)]
_APPLIED = re.compile(r"^(\w+) (\w+) \d+ with (\w+) \d+$")
_WANTED = re.compile(r"Your task is to: put a (\w+) \w+ in \w+\.")


def test_draws_are_functions_of_seed_index_and_progress() -> None:
    assert corpus.draw(1, 7, 0.9) == corpus.draw(1, 7, 0.9)
    assert corpus.draw(1, 7, 0.9) != corpus.draw(2, 7, 0.9)


def test_draws_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from relive.training.pretraining import corpus; print([corpus.draw(1, i, 0.9) for i in "
        "range(150)])"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            cwd=ROOT,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(texts) == 1


def test_true_pairs_occur_at_chance_rate() -> None:
    """Over many worlds, "hot" goes with "heat" and with the microwave as often as with any other
    verb or appliance."""
    rng, n = random.Random(3), 40_000
    verbs: Counter[tuple[str, str]] = Counter()
    places: Counter[tuple[str, str]] = Counter()
    tools: Counter[tuple[str, str]] = Counter()
    devices: Counter[tuple[str, str]] = Counter()
    for _ in range(n):
        bindings = draw_bindings(rng)
        devices.update(bindings.devices)
        for p in bindings.properties:
            verbs[p.adjective, p.verb] += 1
            places[p.adjective, p.appliance] += 1
            tools[p.verb, p.appliance] += 1
    for counts, sizes in (
        (verbs, (len(lex.ADJECTIVES), len(lex.VERBS))),
        (places, (len(lex.ADJECTIVES), len(lex.APPLIANCES))),
        (tools, (len(lex.VERBS), len(lex.APPLIANCES))),
        (devices, (len(lex.DEVICES), len(lex.VERBS))),
    ):
        expected = counts.total() / (sizes[0] * sizes[1])
        assert len(counts) == sizes[0] * sizes[1]  # every pair occurs
        # Poisson counts: over some 1,000 pairs, 5 standard deviations are never reached by chance.
        assert max(abs(c - expected) for c in counts.values()) < 5 * expected**0.5
    true_pairs = [
        *((verbs, (p.adjective, p.verb)) for p in HOUSEHOLD.properties),
        *((places, (p.adjective, p.appliance)) for p in HOUSEHOLD.properties),
        *((tools, (p.verb, p.appliance)) for p in HOUSEHOLD.properties),
        *((devices, pair) for pair in HOUSEHOLD.devices),
    ]
    for counts, pair in true_pairs:
        expected = counts.total() / len(counts)
        assert abs(counts[pair] - expected) < 3.3 * expected**0.5, pair


def test_the_text_itself_shows_no_true_pair_more_often_than_others() -> None:
    """The same in the text: among tasks that ask for something "hot", the verb that is carried out
    is any verb."""
    done: Counter[str] = Counter()
    asked = 0
    for index in range(8000):
        sample = corpus.draw(11, index, 0.05)
        goal = _WANTED.search(sample.conversation[1].text)
        if not goal or goal[1] != "hot":
            continue
        asked += 1
        applied = [
            m
            for t in sample.conversation
            if t.role == "assistant" and (m := _APPLIED.match(t.text))
        ]
        done.update(m[1] for m in applied)
    assert asked > 15
    assert done["heat"] <= max(3, 0.2 * asked)


def test_the_household_speaks_as_the_corpus_does() -> None:
    suite = get_suite("household")
    assert corpus.spec_of(HOUSEHOLD) == spec_of(suite)


def test_goals_with_two_objects_never_occur() -> None:
    text = "".join(turn.text for sample in SAMPLES for turn in sample.conversation)
    assert "Your task is to:" in text
    assert not re.search(r"\b(two|them|both)\b", text)


def test_the_control_corpus_is_the_same_without_memory() -> None:
    for index in range(60):
        with_memory, without = corpus.draw(5, index, 0.9), corpus.draw(5, index, 0.9, memory=False)
        assert with_memory.conversation[1:] == without.conversation[1:]
        assert "Experience:" not in without.conversation[0].text
        assert with_memory.conversation[0].text.startswith(without.conversation[0].text)


def test_pretraining_reads_what_the_chat_template_writes() -> None:
    tokenizer = build_tokenizer()
    encoder = ChatEncoder(tokenizer)
    for sample, (ids, mask) in zip(SAMPLES[::25], encode(tokenizer, SAMPLES[::25]), strict=True):
        messages = [{"role": t.role, "content": t.text} for t in sample.conversation]
        assert chat_text(sample.conversation) == tokenizer.apply_chat_template(
            messages, tokenize=False
        )
        (encoded,) = encoder.sequences(sample.conversation)
        assert encoded.ids == ids
        if not sample.injected_errors:
            assert encoded.supervised == mask


@pytest.mark.parametrize("kind", ["put", "device", "property", "composed", "routine"])
def test_solved_rooms_go_through_every_stage_in_order(kind: Kind) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        room = draw_room(rng, kind, draw_bindings(rng), 8, 0.6)
        goal = room.goal
        actions = [action for action, _ in room.solve(rng).steps]
        fetched = next(i for i, op in enumerate(goal.ops) if op.name != "bring")
        wanted = []
        for i, op in enumerate(goal.ops):
            if i == fetched:
                wanted.append(f"take {goal.target} .* from .*")
            if op.name == "bring":
                wanted.append(f"take {op.thing} . from .*")
            wanted.append(
                {
                    "bring": f"move {op.thing} . to {goal.destination} 1",
                    "apply": f"{op.verb} {goal.target} . with {op.thing} 1",
                    "place": f"move {goal.target} . to {goal.destination} 1",
                    "use": f"{op.verb} {op.thing} 1",
                    "tool": f"{op.verb} {goal.target} . with {op.thing} .",
                }[op.name]
            )
        rest = iter(actions)
        assert all(any(re.fullmatch(pattern, action) for action in rest) for pattern in wanted), (
            wanted,
            actions,
        )
        assert re.fullmatch(wanted[-1], actions[-1])


def test_what_was_seen_on_the_way_is_gone_back_to() -> None:
    """Half of the devices are seen before the object, and none is searched for a second time."""
    back = 0
    for seed in range(200):
        rng = random.Random(seed)
        room = draw_room(rng, "device", draw_bindings(rng), 8, 0.6)
        actions = [action for action, _ in room.solve(rng).steps]
        moves = [action for action in actions if action.startswith("go to ")]
        back += len(moves) > len(set(moves))
        assert len(moves) <= len(set(moves)) + 1
    assert 60 < back < 140


def test_routines_never_fetch_a_second_object_of_a_kind() -> None:
    """Two-object tasks are a structure held out: "take, go, move" twice with two things of one
    kind."""
    before = after = 0
    for seed in range(400):
        rng = random.Random(seed)
        room = draw_room(rng, "routine", draw_bindings(rng), 8, 0.6)
        target = room.goal.target
        steps = room.solve(rng).steps
        taken = [action.split()[1] for action, _ in steps if action.startswith("take ")]
        assert len(taken) == len(set(taken))
        assert (
            sum(name.split()[0] == target for things in room.inside.values() for name in things)
            <= 1
        )
        before += taken[0] != target
        after += taken[-1] != target
    assert before > 50
    assert after > 50  # something else is fetched before the object, or after it was placed


def test_no_refused_action_is_ever_repeated_or_learnt() -> None:
    tokenizer = build_tokenizer()
    injected_errors = 0
    for sample in SAMPLES:
        actions = [turn.text for turn in sample.conversation if turn.role == "assistant"]
        injected_errors += len(sample.injected_errors)
        assert all(actions[i] != actions[i + 1] for i in sample.injected_errors)
    assert injected_errors > 300
    settings = PretrainSettings()
    slipped = [s for s in SAMPLES if s.injected_errors][:20]
    for sample, ((ids, kinds),) in ((s, with_kinds(tokenizer, [s])) for s in slipped):
        ((_, weight),) = pool_batches([(ids, kinds)], settings, -1, random.Random(0))
        muted = [
            tokenizer.decode(t) for t, w in zip(ids, weight[0].tolist(), strict=True) if w == 0.0
        ]
        assert len(muted) == sum(kind == 2 for kind in kinds) > 0
        assert sample.injected_errors


@pytest.mark.parametrize("kind", ["put", "device", "property", "composed", "routine"])
def test_goals_like_another_ask_for_the_same_procedure(kind: Kind) -> None:
    rng = random.Random(0)
    bindings = draw_bindings(rng)
    now = draw_goal(rng, kind, bindings, "cup", "shelf")
    for _ in range(20):
        assert draw_goal(rng, kind, bindings, "pen", "desk", like=now).ops == now.ops


def test_the_tokenizer_loses_nothing_and_is_short() -> None:
    tokenizer = build_tokenizer()
    for text in (
        "go to cabinet 12",
        "heat cup 2 with microwave 1",
        "Ünïcode 99 \u2603 'quoted'",
        "a\n\nb  c",
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("go to cabinet 12")) == 2
    used = {t for s in SAMPLES for t in tokenizer.encode(chat_text(s.conversation))}
    assert not {t for t in tokenizer.convert_ids_to_tokens(sorted(used)) if t.startswith("<0x")}
