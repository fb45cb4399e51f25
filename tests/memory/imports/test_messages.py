"""Conversations become episodes: what was done and seen, the goal, and what has no place."""

import re
from typing import Any

import pytest

from relive.memory import Outcome, Step, StopReason
from relive.memory.imports.messages import parse
from relive.memory.imports.parsed import Labels, Parsed

ASK = {"role": "user", "content": "Reset my password."}
ANSWER = {"role": "assistant", "content": "unlock account"}


def read(*messages: Any, labels: Labels | None = None, **fields: Any) -> Parsed:
    return parse({"messages": list(messages), **fields}, labels or Labels())


def test_turns_become_steps_and_turns_of_one_kind_are_joined() -> None:
    """Users and tools are what is seen; the system turn is kept apart, and not shown."""
    parsed = read(
        {"role": "system", "content": "You are a clerk."},
        ASK,
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "It is urgent."},
                {"type": "text", "text": "Please."},
            ],
        },
        {"role": "assistant", "content": "look up"},
        {"role": "assistant", "content": "unlock"},
        {"role": "tool", "content": "done"},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "close"},
        success=True,
    )
    assert parsed.episode.steps == (
        Step("Reset my password.\nIt is urgent.\nPlease.", "look up\nunlock"),
        Step("done\nThanks.", "close"),
    )
    assert parsed.episode.final_observation == ""
    assert parsed.episode.outcome == Outcome(True, 1.0, StopReason.SOLVED)
    assert parsed.notes == ("System turn: You are a clerk.",)
    assert parsed.kept["system turns, in notes (they are not shown to agents)"] == 1
    assert parsed.left_out == ()


def test_what_comes_after_the_last_action_is_the_final_observation() -> None:
    parsed = read(ANSWER, {"role": "tool", "content": "unlocked"}, goal="reset a password")
    assert parsed.episode.steps == (Step("", "unlock account"),)
    assert parsed.episode.final_observation == "unlocked"


def test_tool_calls_are_actions_and_the_text_beside_them_is_reasoning() -> None:
    calls = [
        {
            "id": "1",
            "type": "function",
            "function": {"name": "find", "arguments": '{"user": "ann"}'},
        },
        {
            "id": "2",
            "type": "function",
            "function": {"name": "unlock", "arguments": {"user": "ann", "é": 1}},
        },
        {"function": {"name": "stop"}},
    ]
    parsed = read(
        ASK,
        {"role": "assistant", "content": "Who is it?", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": None},
        {"role": "assistant", "content": None, "tool_calls": calls[2:]},
    )
    assert parsed.episode.steps == (
        Step(
            "Reset my password.",
            'find {"user": "ann"}\nunlock {"user": "ann", "é": 1}\nstop',
            reasoning="Who is it?",
        ),
        Step("", "stop"),
    )
    assert parsed.left_out == (("'tool_call_id' of a message", "an episode has no place for it"),)


def test_roles_and_calls_as_openai_has_and_had_them() -> None:
    call = {"name": "find", "arguments": '{"user": "ann"}'}
    parsed = read(
        {"role": "developer", "content": "You are a clerk."},
        ASK,
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "find", "content": "locked"},
        {"role": "assistant", "content": "unlock", "function_call": None},
    )
    assert parsed.episode.steps == (
        Step("Reset my password.", 'find {"user": "ann"}'),
        Step("locked", "unlock"),
    )
    assert parsed.notes == ("System turn: You are a clerk.",)
    assert parsed.left_out == (("'name' of a message", "an episode has no place for it"),)
    with pytest.raises(
        ValueError, match=r"messages\[1\]\.function_call has no function with a name"
    ):
        read(ASK, {"role": "assistant", "content": None, "function_call": "auto"})


def test_thoughts_are_reasoning_and_no_part_of_the_action() -> None:
    parsed = read(
        ASK,
        {
            "role": "assistant",
            "content": "<think>\nLocked?\n</think>\n\nunlock",
            "reasoning_content": "Hm.",
        },
        {"role": "assistant", "content": "close", "reasoning": "Done."},
        {"role": "user", "content": "ok"},
        {"role": "assistant", "content": "say <think>x</think>", "reasoning": {"steps": 2}},
    )
    first, second = parsed.episode.steps
    assert (first.action, first.reasoning) == ("unlock\nclose", "Hm.\nLocked?\nDone.")
    assert (second.action, second.reasoning) == ("say <think>x</think>", "")
    assert parsed.kept["thoughts, as reasoning of their action"] == 1
    assert parsed.left_out == (("'reasoning' of a message", "should be text"),)


@pytest.mark.parametrize(
    ("fields", "first", "goal"),
    [
        ({"goal": " a ", "task": "b"}, "c", "a"),
        ({"goal": "  ", "instruction": "b", "prompt": "a"}, "c", "b"),
        ({"prompt": [{"role": "user"}]}, " c\nd ", "c\nd"),
        (
            {},
            "For example:\nYour task is to: cool a.\n\nRoom.\nYour task is to: heat b. \nGo.",
            "heat b",
        ),
    ],
)
def test_where_the_goal_comes_from(fields: dict[str, Any], first: str, goal: str) -> None:
    parsed = read({"role": "user", "content": first}, ANSWER, **fields)
    assert parsed.episode.task.goal == goal
    assert parsed.episode.steps[0].observation == first


def test_all_fields_that_have_a_place() -> None:
    parsed = read(
        ASK, ANSWER, ASK, ANSWER, id=17, task_id="t1", type="reset", split="test", suite="desk",
        model="m", success=False, score=0.25, reward=-1, metadata={"b": "é", "a": 1},
    )  # fmt: skip
    episode, task = parsed.episode, parsed.episode.task
    assert (episode.id, task.type, task.split, task.suite, episode.actor.model) == (
        "17",
        "reset",
        "test",
        "desk",
        "m",
    )
    assert episode.outcome == Outcome(False, 0.25, StopReason.FAILED)
    assert [step.reward for step in episode.steps] == [0.0, -1.0]
    assert parsed.notes == ('Metadata: {"a": 1, "b": "é"}',)
    assert parsed.left_out == ()
    same = read(ASK, ANSWER, task_id="t1", suite="desk").episode
    assert same.task.identity == task.identity
    assert read(ASK, ANSWER, task_id="t1").episode.task.identity != task.identity


def test_unknown_is_not_success() -> None:
    """Neither a full score nor a reward says that the goal was reached; 0 and 1 of "success" do."""
    parsed = read(ASK, ANSWER, score=1.0, reward=1.0)
    assert not parsed.success_known
    assert parsed.episode.outcome == Outcome(
        False, 0.0, StopReason.FAILED, "the line does not say whether the goal was reached"
    )
    assert parsed.left_out == (
        ("field 'score'", "1 is the score of successes, and of nothing else"),
    )
    assert [read(ASK, ANSWER, success=value).episode.success for value in (1, 0)] == [True, False]
    assert read(ASK, ANSWER, success=True, score=0.5).left_out == parsed.left_out


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("success", "yes", "should be true or false"),
        ("success", 2, "should be true or false"),
        ("reward", True, "should be a finite number"),
        ("reward", float("nan"), "should be a finite number"),
        ("score", 10**400, "should be a finite number"),
        ("score", 1.5, "should lie in [0, 1]"),
        ("id", ["x"], "should be text or an integer"),
        ("type", 3, "should be text"),
        ("split", {}, "should be text"),
        ("task", {"goal": "x"}, "should be text"),
        ("dataset", "x", "an episode has no place for it"),
    ],
)
def test_fields_that_are_not_taken_are_named(name: str, value: Any, why: str) -> None:
    """The episode is taken without them."""
    parsed = read(ASK, ANSWER, **{name: value})
    assert parsed.left_out == ((f"field {name!r}", why),)
    assert parsed.episode.steps == (Step("Reset my password.", "unlock account"),)


def test_parts_that_are_no_text_are_named() -> None:
    image = {"type": "image_url", "image_url": {"url": "x"}}
    parsed = read({"role": "user", "content": [image, {"type": "text", "text": "see"}]}, ANSWER)
    assert parsed.episode.steps[0].observation == "see"
    assert parsed.left_out == (("part of type 'image_url'", "only text is taken"),)


def test_ids_follow_from_the_content() -> None:
    """The same line has the same one in every file; other content or other labels, another."""
    made = read(ASK, ANSWER, success=True).episode
    assert made.id.startswith("messages-")
    assert read(ASK, ANSWER, success=True, metadata="said, not done").episode == made
    other = [
        read(ASK, ANSWER, success=False),
        read(ASK, {**ANSWER, "content": "unlock"}, success=True),
        read(ASK, ANSWER, success=True, labels=Labels(split="test")),
    ]
    assert len({made.id, *(parsed.episode.id for parsed in other)}) == 4


def test_labels_go_before_what_the_line_says() -> None:
    task = read(ASK, ANSWER, suite="a", split="b", labels=Labels("s", "p")).episode.task
    assert (task.suite, task.split) == ("s", "p")
    task = read(ASK, ANSWER).episode.task
    assert (task.suite, task.split) == ("imported", "train")
    with pytest.raises(ValueError, match="the split to label imported episodes with is blank"):
        Labels(split=" ")


@pytest.mark.parametrize(
    ("messages", "detail"),
    [
        ("hello", "messages should be a list and is 'hello'"),
        (None, "messages should be a list and is null"),
        ([], "messages is empty"),
        ([ASK], "no assistant turn"),
        ([{"role": "system", "content": "x"}], "no assistant turn"),
        ([ASK, 7], "messages[1] should be an object and is 7"),
        ([{"role": "robot", "content": "x"}], "[0].role should be system, user, assistant or tool"),
        ([{"content": "x"}], "messages[0].role should be system, user, assistant or tool and"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role should be"),
        ([{"role": "user", "content": 7}], "content should be text or a list of parts"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0] should be an object and is"),
        ([ASK, {"role": "assistant", "content": " "}], "content is empty and there is no tool"),
        ([ASK, {**ANSWER, "tool_calls": "x"}], "messages[1].tool_calls should be a list and is"),
        ([ASK, {**ANSWER, "tool_calls": [{"name": "x"}]}], "tool_calls[0] has no function"),
        ([ANSWER, ASK], "no goal: add a field 'goal'"),
        ([{"role": "user", "content": " "}, ANSWER], "no goal: add a field 'goal'"),
    ],
)  # fmt: skip
def test_what_is_no_conversation(messages: Any, detail: str) -> None:
    with pytest.raises(ValueError, match=re.escape(detail)):
        parse({"messages": messages}, Labels())


def test_a_line_that_is_no_object() -> None:
    with pytest.raises(
        ValueError, match="not a conversation: a list instead of an object with messages"
    ):
        parse([ASK, ANSWER], Labels())
