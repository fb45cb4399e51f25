"""The prompt format is frozen: these tests hold its bytes."""

from dataclasses import replace

from relive.agent.conversation import Action
from relive.agent.prompt import (
    Demonstration,
    PromptSpec,
    begin,
    condense,
    extend,
    fit,
    prompt_spec,
    system_text,
)

SPEC = prompt_spec(
    "Do it.",
    [
        ("go to {place}", "move"),
        ("open {place}", "look"),
        ("look", "look"),
        ("take {thing} from {place}", "act"),
    ],
)
STEPS = (
    ("go to shelf 1", "Nothing there."),
    ("go to drawer 1", "It is closed."),
    ("open drawer 1", "Empty."),
    ("look", "A drawer."),
    ("go to desk 1", "A pen 1."),
    ("take pen 1 from desk 1", "Taken."),
)


def test_without_demonstrations_the_prompt_is_that_of_an_agent_without_memory() -> None:
    assert system_text(SPEC, ()) == system_text(SPEC)
    assert (
        system_text(SPEC)
        == "Do it.\nActions: go to {place}, open {place}, look, take {thing} from {place}"
    )


def test_memory_block_is_written_as_frozen() -> None:
    near = Demonstration("find the pen", True, (("take pen 1 from desk 1", "Taken."),))
    far = Demonstration("find the cup", False, (("look", "No cup."),))
    assert system_text(SPEC, (near, far)) == (
        system_text(SPEC) + "\n\nExperience:"
        "\n\nFailure. Your task is to: find the cup.\nAction: look\nObservation: No cup."
        "\n\nSuccess. Your task is to: find the pen.\nAction: take pen 1 from desk 1\nObservation: "
        "Taken."
    )


def test_a_demonstration_reads_the_same_wherever_it_stands() -> None:
    one, two = Demonstration("a", True, (("x", "y"),)), Demonstration("b", True, (("z", "w"),))
    assert one.text in system_text(SPEC, (one, two))
    assert one.text in system_text(SPEC, (two, one))


def test_condense_leaves_out_visits_that_led_to_nothing_and_nothing_else() -> None:
    assert condense(SPEC, STEPS) == STEPS[4:]
    opened_for_a_reason = (*STEPS[1:3], ("take cup 1 from drawer 1", "Taken."))
    assert condense(SPEC, opened_for_a_reason) == opened_for_a_reason


def test_condense_shows_repeats_once_and_keeps_the_last_visit() -> None:
    refused = ("take sun from sky", "Nothing happens.")
    assert condense(SPEC, (refused, refused, STEPS[0])) == (refused, STEPS[0])


def test_fit_passes_over_what_is_too_long_and_keeps_the_order() -> None:
    demos = [Demonstration("g", True, (("a", "b" * n),)) for n in (10, 500, 20)]
    assert fit(demos, 150, len, 3) == (demos[0], demos[2])
    assert fit(demos, 150, len, 1) == (demos[0],)
    assert fit(demos, 150, len, 0) == ()
    assert fit(demos, 0, len, 3) == ()


LONG = Demonstration(
    "win", True, tuple((f"go {n}", f"room {n} " + "x " * 150) for n in range(30)), "e"
)


def test_a_long_demonstration_is_shortened_and_says_what_is_missing() -> None:
    (shown,) = fit([LONG], 2000, len, 1)
    assert len(shown.text) <= 2000
    assert shown.steps[0][0] == "go 0"
    assert shown.steps[-1][0] == "go 29"
    (gap,) = [seen for action, seen in shown.steps if not action]
    kept = len(shown.steps) - 1
    assert gap == f"[{30 - kept} actions left out]"
    assert f"\n{gap}\n" in shown.text
    assert all(seen.endswith(" …") for action, seen in shown.steps if action)
    assert fit([LONG], 2000, len, 1, shorten=False) == ()
    assert fit([LONG], 200, len, 1) == ()  # not even two steps
    assert fit([LONG, LONG], 3000, len, 2)[1].text != ""  # each gets its share


def test_a_dynamic_window_begins_at_what_is_at_hand() -> None:
    (shown,) = fit([LONG], 2000, len, 1, latest="go 17 room 17")
    actions = [action for action, _ in shown.steps if action]
    assert actions[0] == "go 17"
    assert shown.steps[0] == ("", "[17 actions left out]")
    (shown,) = fit([LONG], 2000, len, 1, latest="go 29 room 29")
    assert shown.steps[-1][0] == "go 29"
    assert len([action for action, _ in shown.steps if action]) > 2


def test_what_is_not_shown_is_not_counted() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    huge = Demonstration("win", True, tuple((f"go {n}", "x " * 5000) for n in range(500)))
    (shown,) = fit([huge] * 9, 1000, count, 1)
    assert len(shown.text) <= 1000
    assert len(counted) < 20
    nothing = Demonstration("win", False, ())
    assert fit([nothing], 8, len, 1, latest="look A room.") == ()


def test_goals_that_are_instructions() -> None:
    spec = replace(SPEC, goal_form="instruction", condense_by="changes")
    steps = (("look", "A room."), ("eat it", "No."), ("look", "A room."), ("go east", "Hall."))
    assert condense(spec, steps, [1]) == (steps[0], steps[3])
    back = (*steps, ("go west", "Kitchen."), ("go east", "Hall."))
    assert condense(spec, back, [1]) == (steps[0], *back[3:])  # every passage is shown
    demo = Demonstration("Find the coin. Then rest.", True, (), goal_form="instruction")
    assert demo.text == "Success. Task: Find the coin. Then rest."


def test_conversations_only_grow() -> None:
    start = begin(SPEC, "You see a desk 1.")
    later = extend(start, Action("look", (7, 8)), "A desk.")
    assert later[: len(start)] == start
    assert [turn.role for turn in later] == ["system", "user", "assistant", "user"]
    assert later[2].tokens == (7, 8)


def test_moves_and_looks_come_from_the_templates() -> None:
    assert (
        PromptSpec(
            "Do it.",
            ("go to {place}", "open {place}", "look", "take {thing} from {place}"),
            ("go to",),
            ("open", "look"),
        )
        == SPEC
    )
