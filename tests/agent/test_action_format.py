"""What models write around an action is taken off; what is no action is told so."""

import pytest

from relive.agent.action_format import FORMATS, PLAIN, REACT, TAGGED, format_of
from relive.agent.policy import CallablePolicy
from relive.agent.prompt import begin, prompt_spec


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("go to desk 1", "go to desk 1"),
        ("  go to desk 1 \n", "go to desk 1"),
        ('"go to desk 1"', "go to desk 1"),
        ("'go to desk 1'.", "go to desk 1"),
        ("`go to desk 1`", "go to desk 1"),
        ("```\ngo to desk 1\n```", "go to desk 1"),
        ("```text\ngo to desk 1\n```", "go to desk 1"),
        ("Action: go to desk 1", "go to desk 1"),
        ("**Action:** go to desk 1", "go to desk 1"),
        ("action : `go to desk 1`.", "go to desk 1"),
        ("go to desk 1.", "go to desk 1"),
        ("**go to desk 1**", "go to desk 1"),
        ("```go to desk 1```", "go to desk 1"),
        ("go to desk 1\n\nThen I take the mug.", "go to desk 1"),
        ("I should look first.\nAction: look", "look"),
        ("put mug 1 in/on desk 1", "put mug 1 in/on desk 1"),
        ('say "hello" to "Bob"', 'say "hello" to "Bob"'),
        ("say Yes. I do.", "say Yes. I do."),
        ("x = 3.5", "x = 3.5"),
        ("don't", "don't"),
        ("actions speak", "actions speak"),
        ("", None),
        (" \n \n", None),
        ("```\n```", None),
    ],
)
def test_plain(answer: str, action: str | None) -> None:
    assert PLAIN.read(answer) == action


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("Thought: The mug is dirty.\nAction: clean mug 1", "clean mug 1"),
        ("Thought: a\nAction:\ngo to desk 1", "go to desk 1"),
        ("Action: look\nObservation: a room\nAction: open door", "look"),
        ("> Action: look", "look"),
        ("Thought: I look. Action: look", "look"),
        ("thought: x\n**Action**: `look`.", "look"),
        ("I will clean the mug.", None),
        ("Thought: what action to take? The action is clear.", None),
        ("Action:", None),
    ],
)
def test_react(answer: str, action: str | None) -> None:
    assert REACT.read(answer) == action


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("<action>look</action>", "look"),
        ("I look. <action> look </action> Done.", "look"),
        ("<ACTION>\n`look`\n</ACTION>", "look"),
        ("<action>look", "look"),
        ("<action></action>", None),
        ("look", None),
    ],
)
def test_tagged(answer: str, action: str | None) -> None:
    assert TAGGED.read(answer) == action


@pytest.mark.parametrize("name", list(FORMATS))
def test_what_is_written_is_read_again(name: str) -> None:
    known = FORMATS[name]
    for action in ("go to desk 1", "put mug 1 in/on desk 1", "look"):
        assert known.read(known.write(action)) == action
    assert known.action(known.write("look")).text == "look"


def test_an_answer_ends_with_its_action_and_not_before() -> None:
    assert not PLAIN.ends("\n\ngo")
    assert PLAIN.ends("go\n")
    assert not REACT.ends("Thought: x\n")
    assert not REACT.ends("Thought: x\nAction:\n")
    assert REACT.ends("Thought: x\nAction: look\n")
    assert not TAGGED.ends("<action>")
    assert TAGGED.ends("a <action>look</action>")


def test_the_prompt_shows_the_form_and_plain_stays_as_it_was() -> None:
    pairs = [("go to {place}", "move")]
    plain = begin(prompt_spec("Act.", pairs), "You see a door.")[0].text
    assert plain == "Act.\nActions: go to {place}"
    for known in (REACT, TAGGED):
        text = begin(prompt_spec("Act.", pairs, known), "You see a door.")[0].text
        assert text == f"{plain}\n{known.instruction}"
        example = known.instruction.split("like this:")[1].strip()
        assert known.read(example) == "look"


def test_a_function_reads_actions_too() -> None:
    own = format_of(lambda answer: answer.partition("DO ")[2] or None)
    assert own.action("I think. DO look").text == "look"
    problem = own.action("I think.").problem
    assert problem.startswith("There is no action in this answer")
    policy = CallablePolicy(lambda messages: "Thought: x\nAction: look", action_format="react")
    (action,) = policy.act([begin(prompt_spec("Act.", []), "You see a door.")])
    assert (action.text, action.said) == ("look", "Thought: x\nAction: look")
    assert policy.actor.settings == {"action_format": "react", "reads": True}
    with pytest.raises(ValueError, match="unknown action format 'json': use plain, react, tagged"):
        format_of("json")
    with pytest.raises(TypeError, match="must be plain, react, tagged, or a function"):
        format_of(3)  # type: ignore[arg-type]
