"""The prompt format is frozen: these tests hold its bytes."""

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
    assert fit(demos, 150, len) == (demos[0], demos[2])
    assert fit(demos, 0, len) == ()


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
