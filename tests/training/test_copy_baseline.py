"""The copying baseline: on conversations of an invented domain, and whole episodes of the
household."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from relive.agent.collect import collect_demonstrations
from relive.agent.conversation import Conversation, Turn
from relive.agent.policy import words
from relive.agent.prompt import Demonstration, prompt_spec, system_text
from relive.agent.retriever import MemoryRetriever
from relive.agent.runner import Runner, play_all, spec_of
from relive.envs import ActionTemplate, get_suite
from relive.memory import Memory, Purpose, Retrieval
from relive.training.experiments.study.copy_baseline import (
    CopyPolicy,
    adapted,
    demonstrations_in,
    substitution,
)

TEMPLATES = (
    ActionTemplate("walk to {spot}", "move"),
    ActionTemplate("wait", "look"),
    ActionTemplate("open {spot}", "look"),
    ActionTemplate("grab {thing} off {spot}", "act"),
    ActionTemplate("zap {thing} at {spot}", "act"),
    ActionTemplate("poke {thing}", "act"),
    ActionTemplate("drop {thing} onto {spot}", "act"),
)
SPEC = prompt_spec("Do it.", [(t.text, t.kind) for t in TEMPLATES])
ZAPPED = Demonstration(
    "bring a shiny orb to altar",
    True,
    (
        ("walk to crate 2", "You are at crate 2. The crate 2 is closed."),
        ("open crate 2", "The crate 2 is open. There is a orb 1."),
        ("grab orb 1 off crate 2", "You have the orb 1."),
        ("walk to coil 1", "You are at coil 1. There is nothing."),
        ("zap orb 1 at coil 1", "You zap the orb 1."),
        ("walk to altar 1", "You are at altar 1. There is nothing."),
        ("drop orb 1 onto altar 1", "Done."),
    ),
)
NO = "That does not work."
Trace = list[tuple[str, str]]


def conversations(trace: Trace, *demos: Demonstration) -> list[Conversation]:
    """What stands before each action of a trace of (observation, action); `demos` closest first."""
    turns = [Turn("system", system_text(SPEC, demos))]
    prefixes = []
    for observation, action in trace:
        turns.append(Turn("user", observation))
        prefixes.append(tuple(turns))
        turns.append(Turn("assistant", action))
    return prefixes


def check(search: bool, trace: Trace, *demos: Demonstration) -> None:
    """Asserts that the policy does what the trace says at each of its observations."""
    policy = CopyPolicy(TEMPLATES, search)
    for conversation, (observation, action) in zip(
        conversations(trace, *demos), trace, strict=True
    ):
        assert policy.act([conversation])[0].text == action, observation


def initial_observation(places: str, goal: str) -> str:
    return f"Around you: {places}.\n\nYour task is to: {goal}."


# --- reading demonstrations
# ------------------------------------------------------------------------------------------


def test_demonstrations_are_read_back_as_they_were_written() -> None:
    failed = Demonstration(
        "find it. Soon", False, (("wait", "One.\n\nTwo."), ("wait", "Action is needed."))
    )
    bare = Demonstration("nothing", True, ())
    assert demonstrations_in(system_text(SPEC, (failed, bare, ZAPPED))) == (ZAPPED, bare, failed)
    assert demonstrations_in(system_text(SPEC)) == ()


@pytest.mark.parametrize(
    ("theirs", "own", "expected"),
    [
        ("put a cup in cabinet", "put a mug in shelf", {"cup": "mug", "cabinet": "shelf"}),
        ("put a cup in cup", "put a mug in shelf", {"cup": "mug"}),
        ("put a cup in cabinet", "put a cup in cabinet", {}),
        ("take the cup to desk", "take the mug away and then to shelf", {"desk": "shelf"}),
        ("take the cup to desk", "now take the mug to shelf", {"cup": "mug", "desk": "shelf"}),
        ("take cup", "entirely different words", {}),
    ],
)
def test_goals_are_aligned_word_by_word(theirs: str, own: str, expected: dict[str, str]) -> None:
    assert substitution(theirs, own) == expected


def test_numbers_are_kept_where_they_were_read() -> None:
    read = {"mug 3", "mug 12", "shelf 2", "shelf 1"}
    assert adapted("cup 12", {"cup": "mug"}, read) == "mug 12"
    assert adapted("cup 1", {"cup": "mug"}, read) == "mug 3"
    assert adapted("shelf 2", {"cup": "mug"}, read) == "shelf 2"
    assert adapted("door 7", {}, read) == "door 7"


# --- literal
# --------------------------------------------------------------------------------------------------


def test_literal_replays_with_the_objects_replaced_and_then_waits() -> None:
    start = initial_observation(
        "a crate 5, a crate 3, a coil 1, a shelf 1", "bring a shiny gem to shelf"
    )
    trace = [
        (start, "walk to crate 3"),
        ("You are at crate 3. The crate 3 is closed.", "open crate 3"),
        ("The crate 3 is open. There is a gem 4, and a gem 2.", "grab gem 2 off crate 3"),
        ("You have the gem 2.", "walk to coil 1"),
        ("You are at coil 1. There is nothing.", "zap gem 2 at coil 1"),
        (NO, "walk to shelf 1"),
        (NO, "drop gem 2 onto shelf 1"),
        (NO, "wait"),
        (NO, "wait"),
    ]
    check(False, trace, ZAPPED)


def test_the_closest_success_is_copied_whatever_else_is_shown() -> None:
    failure = Demonstration("bring a shiny gem to shelf", False, (("poke gem 1", NO),))
    far = Demonstration("bring a dull orb to altar", True, (("poke orb 1", "Ouch."),))
    start = initial_observation("a crate 2, a coil 1, a shelf 1", "bring a shiny gem to shelf")
    for search in (False, True):
        check(search, [(start, "walk to crate 2")], failure, ZAPPED, far)


@pytest.mark.parametrize("search", [False, True])
def test_without_a_demonstration_nothing_is_done(search: bool) -> None:
    failure = Demonstration("bring a shiny gem to shelf", False, (("poke gem 1", NO),))
    trace = [
        (initial_observation("a crate 2, a shelf 1", "bring a shiny gem to shelf"), "wait"),
        ("Nothing new.", "wait"),
    ]
    check(search, trace)
    check(search, trace, failure)
    policy = CopyPolicy(TEMPLATES, search)
    assert policy.act([(Turn("user", trace[0][0]),)])[0].text == "wait"
    with pytest.raises(ValueError, match="user turn"):
        policy.act([(Turn("system", "Do it."),)])


# --- with search
# --------------------------------------------------------------------------------------------------


def test_search_looks_for_the_thing_and_goes_on_with_the_one_found() -> None:
    start = initial_observation(
        "a crate 2, a crate 1, a coil 1, a shelf 3, a bench 1", "bring a shiny gem to shelf"
    )
    trace = [
        (start, "walk to crate 2"),
        ("You are at crate 2. The crate 2 is closed.", "open crate 2"),
        ("The crate 2 is open. There is a orb 1.", "walk to bench 1"),
        ("You are at bench 1. There is nothing.", "walk to shelf 3"),
        ("You are at shelf 3. There is nothing.", "walk to coil 1"),
        ("You are at coil 1. There is nothing.", "walk to crate 1"),
        ("You are at crate 1. The crate 1 is closed.", "open crate 1"),
        ("The crate 1 is open. There is a gem 4, and a gem 2.", "grab gem 4 off crate 1"),
        ("You have the gem 4.", "walk to coil 1"),
        ("You are at coil 1. There is nothing.", "zap gem 4 at coil 1"),
        ("You zap the gem 4.", "walk to shelf 3"),
        ("You are at shelf 3. The shelf 3 is closed.", "open shelf 3"),
        ("The shelf 3 is open. There is nothing.", "drop gem 4 onto shelf 3"),
        ("Done.", "wait"),
    ]
    check(True, trace, ZAPPED)


def test_search_comes_back_to_what_it_read_before() -> None:
    two = Demonstration(
        "bring two orb to altar",
        True,
        (
            ("walk to crate 1", "You are at crate 1. There is a orb 2."),
            ("grab orb 2 off crate 1", "You have the orb 2."),
            ("walk to altar 1", "You are at altar 1. There is nothing."),
            ("drop orb 2 onto altar 1", "You drop the orb 2."),
            ("walk to table 1", "You are at table 1. There is a orb 1."),
            ("grab orb 1 off table 1", "You have the orb 1."),
            ("walk to altar 1", "You are at altar 1. There is a orb 2."),
            ("drop orb 1 onto altar 1", "Done."),
        ),
    )
    trace = [
        (
            initial_observation("a table 1, a crate 1, a altar 1", "bring two gem to altar"),
            "walk to crate 1",
        ),
        ("You are at crate 1. There is a gem 3, and a gem 1.", "grab gem 3 off crate 1"),
        ("You have the gem 3.", "walk to altar 1"),
        ("You are at altar 1. There is nothing.", "drop gem 3 onto altar 1"),
        (
            "You drop the gem 3.",
            "walk to crate 1",
        ),  # not to the table, where the demonstration found its second one
        ("You are at crate 1. There is a gem 1.", "grab gem 1 off crate 1"),
        ("You have the gem 1.", "walk to altar 1"),
        ("You are at altar 1. There is a gem 3.", "drop gem 1 onto altar 1"),
    ]
    check(True, trace, two)


def test_the_place_of_the_find_stands_for_the_scripts_in_that_act_only() -> None:
    at_the_coil = Demonstration(
        ZAPPED.goal,
        True,
        (
            ("walk to coil 1", "You are at coil 1. There is a orb 1."),
            ("grab orb 1 off coil 1", "You have the orb 1."),
            ("zap orb 1 at coil 1", "You zap the orb 1."),
            *ZAPPED.steps[5:],
        ),
    )
    trace = [
        (
            initial_observation("a coil 1, a crate 1, a altar 1", "bring a shiny orb to altar"),
            "walk to coil 1",
        ),
        ("You are at coil 1. There is nothing.", "walk to altar 1"),
        ("You are at altar 1. There is nothing.", "walk to crate 1"),
        ("You are at crate 1. There is a orb 7.", "grab orb 7 off crate 1"),
        ("You have the orb 7.", "walk to coil 1"),
        ("You are at coil 1. There is nothing.", "zap orb 7 at coil 1"),
        ("You zap the orb 7.", "walk to altar 1"),
    ]
    check(True, trace, at_the_coil)


def test_a_thing_that_is_used_but_not_taken_is_searched_for_too() -> None:
    poked = Demonstration(
        "show orb the totem",
        True,
        (
            ("walk to crate 1", "You are at crate 1. There is a orb 1."),
            ("grab orb 1 off crate 1", "You have the orb 1."),
            ("walk to table 1", "You are at table 1. There is a totem 1."),
            ("poke totem 1", "Done."),
        ),
    )
    trace = [
        (
            initial_observation("a table 2, a niche 1, a nook 1", "show gem the idol"),
            "walk to nook 1",
        ),
        ("You are at nook 1. There is a idol 2.", "walk to niche 1"),
        ("You are at niche 1. There is a gem 1.", "grab gem 1 off niche 1"),
        ("You have the gem 1.", "walk to nook 1"),
        ("You are at nook 1. There is a idol 2.", "poke idol 2"),
    ]
    check(True, trace, poked)


def test_what_would_change_nothing_is_left_out_and_what_is_at_hand_comes_first() -> None:
    twice = Demonstration(
        "bring two orb to altar",
        True,
        (
            ("walk to crate 1", "You are at crate 1. There is a orb 2."),
            ("grab orb 2 off crate 1", "You have the orb 2."),
            ("walk to altar 1", "You are at altar 1. The altar 1 is closed."),
            ("open altar 1", "The altar 1 is open. There is nothing."),
            ("drop orb 2 onto altar 1", "You drop the orb 2."),
            ("walk to altar 1", NO),
            ("wait", "Nothing new."),
            ("drop orb 2 onto altar 1", NO),
            ("grab orb 1 off altar 1", "You have the orb 1."),
        ),
    )
    trace = [
        (initial_observation("a crate 1, a altar 1", "bring two gem to altar"), "walk to crate 1"),
        ("You are at crate 1. There is a gem 2, and a gem 1.", "grab gem 2 off crate 1"),
        ("You have the gem 2.", "walk to altar 1"),
        ("You are at altar 1. There is a gem 5.", "drop gem 2 onto altar 1"),  # open already
        ("You drop the gem 2.", "wait"),  # there already
        ("Nothing new.", "drop gem 2 onto altar 1"),
        (NO, "grab gem 5 off altar 1"),  # and not the gem 1 that was read first
    ]
    check(True, trace, twice)


def test_opening_can_be_all_there_is_to_do() -> None:
    steps = (
        ("walk to crate 2", "You are at crate 2. The crate 2 is closed."),
        ("open crate 2", "Done."),
    )
    trace = [
        (initial_observation("a chest 1, a altar 1", "look into chest"), "walk to chest 1"),
        ("You are at chest 1. The chest 1 is closed.", "open chest 1"),
    ]
    check(True, trace, Demonstration("look into crate", True, steps))


def test_places_are_what_the_opening_lists_and_things_are_not() -> None:
    numbered = Demonstration(
        "bring box 3 to altar", True, (("grab box 3 off crate 1", "You have the box 3."),)
    )
    trace = [
        (initial_observation("a niche 1, a box 1", "bring box 9 to niche"), "walk to box 1"),
        ("You are at box 1. There is a box 2.", "grab box 2 off box 1"),
    ]
    check(True, trace, numbered)


def test_search_ends_where_nothing_is_found_reached_or_opened() -> None:
    start = initial_observation("a niche 1, a crate 1, a shelf 1", "bring a shiny gem to shelf")
    trace = [
        (start, "walk to crate 1"),
        ("You are at crate 1. The crate 1 is closed.", "open crate 1"),
        ("The crate 1 is closed.", "walk to shelf 1"),
        (NO, "walk to niche 1"),
        (
            "You are at niche 1. There is nothing.",
            "walk to crate 1",
        ),  # the script's act, and what comes before it
        ("You are at crate 1. The crate 1 is closed.", "open crate 1"),
        ("The crate 1 is closed.", "grab gem 1 off crate 1"),
        (NO, "zap gem 1 at coil 1"),
        (NO, "drop gem 1 onto shelf 1"),
        (NO, "wait"),
    ]
    check(True, trace, ZAPPED)


def test_search_needs_templates_to_search_with() -> None:
    with pytest.raises(ValueError, match="'move'"):
        CopyPolicy(TEMPLATES[1:], search=True)
    with pytest.raises(ValueError, match="'open'"):
        CopyPolicy(TEMPLATES[:2], search=True)
    CopyPolicy((), search=False)


@pytest.mark.parametrize("search", [False, True])
def test_it_is_stateless(search: bool) -> None:
    places = "a crate 2, a crate 1, a coil 1, a shelf 3, a bench 1"
    goals = ("bring a shiny gem to shelf", "bring a shiny rock to crate")
    policy = CopyPolicy(TEMPLATES, search)
    asked = []
    for goal in goals:
        trace: Trace = [(initial_observation(places, goal), "")]
        for seen in (
            "You are at crate 2. There is a rock 1.",
            "You have the rock 1.",
            NO,
            "You are at coil 1.",
        ):
            trace.append((seen, ""))
        asked += conversations(trace, ZAPPED)
    alone = [policy.act([conversation])[0] for conversation in asked]
    assert len(set(alone)) > 4
    order = random.Random(0).sample(range(len(asked)), len(asked))
    assert policy.act([asked[i] for i in order]) == [alone[i] for i in order]
    assert CopyPolicy(TEMPLATES, search).act(asked, seeds=range(len(asked))) == alone


# --- whole episodes
# --------------------------------------------------------------------------------------------------


def test_household_episodes_are_copied_with_search_and_hardly_without(tmp_path: Path) -> None:
    suite = get_suite("household")
    types = ("pick_clean_then_place_in_recep", "pick_heat_then_place_in_recep")
    tasks = suite.tasks("valid", 4, types)
    won: Counter[bool] = Counter()
    with Memory(tmp_path / "m") as memory:
        collect_demonstrations(memory, suite, 12)
        retriever = MemoryRetriever(memory, spec_of(suite), words, Retrieval(k=2), Purpose.ACT)
        for search in (False, True):
            policy = CopyPolicy(suite.templates, search)
            episodes = play_all(Runner(suite, policy, retriever=retriever), tasks)
            assert not [e.outcome.detail for e in episodes if e.outcome.detail]
            won[search] = sum(e.success for e in episodes)
    assert won[True] >= 3
    assert won[False] < won[True]


def test_instructions_are_copied_word_for_word() -> None:
    spec = replace(SPEC, goal_form="instruction")
    told = Demonstration(
        "Cook a meal. Eat it.", True, (("open fridge", "It is open."), ("eat meal", "Done.")),
        goal_form="instruction",
    )  # fmt: skip
    text = system_text(spec, (told,))
    assert demonstrations_in(text) == (told,)
    conversation = (Turn("system", text), Turn("user", "You are hungry! Let's cook."))
    policy = CopyPolicy((), search=False)
    (first,) = policy.act([conversation])
    assert first.text == "open fridge"
    (second,) = policy.act([(*conversation, first.turn, Turn("user", "It is open."))])
    assert second.text == "eat meal"
