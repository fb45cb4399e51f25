"""Other people's ALFWorld logs: thoughts, paths and replies are told from actions."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from relive.memory import Outcome, Step, StopReason
from relive.memory.imports.alfworld_logs import fits, parse, parts
from relive.memory.imports.parsed import Labels
from relive.memory.storage.payload import MAX_ITEMS

DATA = Path(__file__).parent / "data"
KNOWAGENT = [json.loads(line) for line in (DATA / "knowagent.jsonl").read_text().splitlines()]
PROMPTS = json.loads((DATA / "react_prompts.json").read_text())
UNLABELLED = Labels()


def test_a_success_in_the_dialect_of_knowagent() -> None:
    """Thoughts become reasoning; the path, which says again what was done, a note."""
    parsed = parse(KNOWAGENT[0], UNLABELLED)
    episode, task = parsed.episode, parsed.episode.task
    assert (task.suite, task.type, task.split, task.room) == (
        "alfworld", "pick_and_place_simple", "train", "FloorPlan225",
    )  # fmt: skip
    assert task.goal == "put a pillow in armchair"
    assert episode.outcome == Outcome(True, 1.0, StopReason.SOLVED)
    opening = episode.steps[0].observation
    assert opening.startswith("You are in the middle of a room.")
    assert opening.endswith("\nYour task is to: put a pillow in armchair.")
    thoughts = [step.reasoning.splitlines() for step in episode.steps]
    assert [len(lines) for lines in thoughts] == [2, 1, 1, 1]
    assert thoughts[2] == [
        "Now I get a pillow (1). Next, I need to go to armchair 1 to continue with the task."
    ]
    assert [(step.observation, step.action, step.invalid) for step in episode.steps[1:]] == [
        ("On the sofa 1, you see a laptop 1, and a pillow 1.", "take pillow 1 from sofa 1", False),
        ("You pick up the pillow 1 from the sofa 1.", "go to armchair 1", False),
        ("On the armchair 1, you see a newspaper 2.", "put pillow 1 in/on armchair 1", False),
    ]
    assert episode.final_observation == "You put the pillow 1 in/on the armchair 1."
    assert parsed.notes == (
        "Action path: Start->Goto(sofa 1)->Take(pillow 1, from: sofa 1)->Goto(armchair 1)",
    )
    assert parsed.left_out == ()


def test_a_failure_with_refused_actions() -> None:
    """A word that begins like a thought, and was answered, was an action."""
    parsed = parse(KNOWAGENT[1], UNLABELLED)
    steps = parsed.episode.steps
    assert parsed.episode.outcome == Outcome(
        False, 0.0, StopReason.FAILED, "the log says false and no more"
    )
    assert [step.action for step in steps[-8:]] == ["put tomato 2 in/on fridge 1", *["think"] * 7]
    assert [step.invalid for step in steps] == [True] * 3 + [False] * 5 + [True] * 8
    assert parsed.kept["actions that were refused, marked as invalid"] == 11
    assert parsed.episode.final_observation == "Nothing happens."
    # Three paths that were given up, and the last one, which holds the others.
    (note,) = parsed.notes
    assert [len(path.split("->")) for path in note.removeprefix("Action path: ").splitlines()] == [
        2,
        2,
        2,
        6,
    ]


def test_an_episode_that_broke_off_in_a_thought() -> None:
    """What was thought last led to no action: it is kept as a note."""
    parsed = parse(KNOWAGENT[2], UNLABELLED)
    assert parsed.success_known
    assert parsed.episode.outcome == Outcome(
        False, 0.0, StopReason.FAILED, "the log says 0 and no more"
    )
    assert parsed.episode.steps[-1].action == "put keychain 2 in/on shelf 1"
    assert parsed.episode.final_observation == "You put the keychain 2 in/on the shelf 1."
    assert parsed.notes[1].splitlines() == [
        "Thoughts after the last action: Next, I need to check if I have completed the task.",
        "Yes, I have completed the task.",
        *["The end."] * 6,
    ]
    assert parsed.kept["thoughts after the last action, in notes"] == 8


def test_prompts_with_and_without_thoughts() -> None:
    """The dialect of ReAct: "OK." after a thought is no observation, even with a space behind."""
    put, examine, act = (parse(part, UNLABELLED) for part in parts(PROMPTS))
    assert [parsed.episode.task.type for parsed in (put, examine, act)] == [
        "pick_and_place_simple", "look_at_obj_in_light", "pick_and_place_simple",
    ]  # fmt: skip
    assert all(parsed.episode.success for parsed in (put, examine, act))
    assert put.episode.task.goal == act.episode.task.goal == "put some spraybottle on toilet"
    assert [(step.observation, step.action) for step in put.episode.steps] == [
        (step.observation, step.action) for step in act.episode.steps
    ]
    assert put.episode.final_observation == "You put the spraybottle 2 in/on the toilet 1."
    assert (
        put.episode.steps[3].reasoning == "Now I find a spraybottle (2). Next, I need to take it."
    )
    assert not any(step.reasoning for step in act.episode.steps)
    assert [len(parsed.left_out) for parsed in (put, examine, act)] == [3, 5, 0]
    assert examine.left_out[0] == ("'OK.' after a thought", "the environment says nothing with it")
    assert not any("OK." in seen for seen in examine.episode.observations)


@pytest.mark.parametrize("name", ["transcript", "text", "act_fly_0", "my_react_put_0"])
def test_a_text_by_another_name_is_no_prompt(name: str) -> None:
    """It may be the log of a failure, and unknown is not success."""
    value = {name: "A room.\nYour task is to: do it.\n> act\nFAILED"}
    assert not fits(value)
    assert not fits({**PROMPTS, **value})
    assert parts(value) == (value,)
    with pytest.raises(ValueError, match="not a log: traj should be text"):
        parse(value, UNLABELLED)


def log(traj: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "a game", "result": True, "traj": traj, **fields}


TEXT = "A room.\nYour task is to: do it.\n> act\nDone.\n"


def test_an_answer_to_a_thought_that_says_something_is_seen() -> None:
    """An action without an answer is one, too; lines may end as on Windows."""
    text = "Your task is to: do it.\n> think: a\nIt is warm.\n> go\n> stop\nTwo\nlines.\n\n"
    episode = parse(log(text.replace("\n", "\r\n")), UNLABELLED).episode
    assert episode.steps == (
        Step("Your task is to: do it.\nIt is warm.", "go", reasoning="a"),
        Step("", "stop"),
    )
    assert episode.final_observation == "Two\nlines."


def test_unknown_is_not_success() -> None:
    parsed = [parse(log(TEXT, result=result), UNLABELLED) for result in (None, "won", 2, 1.0)]
    assert [one.success_known for one in parsed] == [False] * 4
    assert {one.episode.outcome for one in parsed} == {
        Outcome(False, 0.0, StopReason.FAILED, "the log does not say how it ended")
    }
    assert [one.left_out for one in parsed] == [
        (),
        *[(("field 'result'", "should be true or false"),)] * 3,
    ]


def test_what_has_no_place_and_what_is_labelled() -> None:
    parsed = parse(log(TEXT, seconds=3), Labels("s", "p"))
    assert parsed.left_out == (("field 'seconds'", "an episode has no place for it"),)
    task = parsed.episode.task
    assert (task.suite, task.split, task.type, task.room) == ("s", "p", "", "")
    assert (
        task.identity == parse(log(TEXT + "\n> x"), UNLABELLED).episode.task.identity
    )  # the same game
    assert task.identity != parse(log(TEXT, name="b game"), UNLABELLED).episode.task.identity


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ("x", "not a log: 'x' instead of an object with name, result and traj"),
        (log(["a"]), "not a log: traj should be text and is a list"),
        ({"result": True}, "not a log: traj should be text and is null"),
        (log(TEXT, name=7), "not a log: name should be text and is 7"),
        (log("Your task is to: do it.\n> think: no"), "the log of 'a game' has no action"),
        (log(""), "the log of 'a game' has no action"),
        (
            log("A room.\n> act\nYour task is to: do it.", name=""),
            "the log has no line 'Your task is to: …' before",
        ),
        (log(TEXT + "\n" * MAX_ITEMS), f"has {MAX_ITEMS + 4} lines; the limit is {MAX_ITEMS}"),
    ],
    ids=range(8),
)
def test_what_is_no_log(value: Any, detail: str) -> None:
    with pytest.raises(ValueError, match=re.escape(detail)):
        parse(value, UNLABELLED)
