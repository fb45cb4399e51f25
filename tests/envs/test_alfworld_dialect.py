"""ALFWorld's two dialects as texts: which one an episode speaks, and the same in the other; also on
real agents' logs where they are there."""

import gzip
import json
import re
from pathlib import Path

import pytest

from relive.envs.alfworld.dialect import (
    Dialect,
    Step,
    dialect_of,
    translate_action,
    translate_observation,
    translate_steps,
)
from relive.envs.household.suite import HouseholdSuite

LOGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "alfworld_logs"
REFUSED = "Nothing happens."

MOVE: list[Step] = [
    ("go to desk 1", "You arrive at desk 1. On the desk 1, you see a mug 1, and a pen 2."),
    ("take mug 1 from desk 1", "You pick up the mug 1 from the desk 1."),
    ("go to safe 2", "You arrive at safe 2. The safe 2 is closed."),
    ("open safe 2", "You open the safe 2. The safe 2 is open. In it, you see nothing."),
    ("put mug 1 in/on safe 2", REFUSED),
    ("move mug 1 to safe 2", "You move the mug 1 to the safe 2."),
    ("examine safe 2", "The safe 2 is open. In it, you see a mug 1."),
    ("go to safe 2", REFUSED),
]
PUT: list[Step] = [
    ("go to desk 1", "On the desk 1, you see a mug 1, and a pen 2."),
    ("take mug 1 from desk 1", "You pick up the mug 1 from the desk 1."),
    ("go to safe 2", "The safe 2 is closed."),
    ("open safe 2", "You open the safe 2. The safe 2 is open. In it, you see nothing."),
    ("move mug 1 to safe 2", REFUSED),
    ("put mug 1 in/on safe 2", "You put the mug 1 in/on the safe 2."),
    ("examine safe 2", "The safe 2 is open. In it, you see a mug 1."),
    ("go to safe 2", REFUSED),
]


def test_an_episode_in_the_other_dialect_and_back() -> None:
    assert dialect_of(MOVE) == "move"
    assert dialect_of(PUT) == "put"
    assert translate_steps(MOVE, "put") == PUT
    assert translate_steps(PUT, "move") == MOVE
    assert translate_steps(PUT, "put") == PUT
    assert translate_steps(MOVE, "move") == MOVE
    numbered = [("go to desk 1", "You arrive at loc 12. On the desk 1, you see a mug 1."), *PUT[1:]]
    assert translate_steps(numbered, "move")[0] == (
        "go to desk 1",
        "You arrive at desk 1. On the desk 1, you see a mug 1.",
    )


@pytest.mark.parametrize(
    ("steps", "dialect"),
    [
        ([], ""),
        ([("look", "You are facing the desk 1. Next to it, you see nothing.")], ""),
        ([("", "You are in the middle of a room.")], ""),
        ([("go to desk 1", "You arrive at loc 3. On the desk 1, you see nothing.")], "put"),
        ([("go to desk 1", "You arrive at desk 1. On the desk 1, you see nothing.")], "move"),
        ([("go to desk 1", "On the desk 1, you see nothing.")], "put"),
        ([("examine desk 1", "On the desk 1, you see nothing.")], ""),
        ([("put mug 1 in/on desk 1", "")], "put"),
        ([("move mug 1 to desk 1", "")], "move"),
        ([("move mug 1 to desk 1", REFUSED)], ""),
        ([("move mug 1 to desk 1", REFUSED), ("put mug 1 in/on desk 1", "Well done.")], "put"),
        ([("", "You move the mug 1 to the desk 1.")], "move"),
        ([("put mug 1 in/on desk 1", ""), ("move mug 1 to desk 1", "")], ""),
    ],
)
def test_detection(steps: list[Step], dialect: str) -> None:
    assert dialect_of(steps) == dialect


@pytest.mark.parametrize(
    ("text", "to", "expected"),
    [
        ("put apple 1 in/on fridge 1", "move", "move apple 1 to fridge 1"),
        ("move apple 1 to fridge 1", "put", "put apple 1 in/on fridge 1"),
        ("put apple 1 in/on fridge 1", "put", "put apple 1 in/on fridge 1"),
        # None of these is an action of either dialect.
        ("put apple 1 in fridge 1", "move", "put apple 1 in fridge 1"),
        ("put hot apple 1 in/on fridge 1", "move", "put hot apple 1 in/on fridge 1"),
        ("put task on hold", "move", "put task on hold"),
        ("go to fridge 1", "move", "go to fridge 1"),
        ("", "put", ""),
    ],
)
def test_actions(text: str, to: Dialect, expected: str) -> None:
    assert translate_action(text, to) == expected


@pytest.mark.parametrize(
    ("text", "to", "action", "expected"),
    [
        (
            "You arrive at loc 4. The safe 1 is closed.",
            "move",
            "",
            "You arrive at safe 1. The safe 1 is closed.",
        ),
        ("You arrive at loc 4.", "move", "go to bed 1", "You arrive at bed 1."),
        ("You arrive at loc 4.", "move", "", "You arrive at loc 4."),
        ("You arrive at safe 1. The safe 1 is closed.", "put", "", "The safe 1 is closed."),
        (
            "You arrive at loc 4. The safe 1 is closed.",
            "put",
            "go to safe 1",
            "You arrive at loc 4. The safe 1 is closed.",
        ),
        ("The safe 1 is closed.", "move", "close safe 1", "The safe 1 is closed."),
        ("The safe 1 is closed.", "move", "go to safe 2", "The safe 1 is closed."),
        (REFUSED, "move", "go to safe 1", REFUSED),
    ],
)
def test_observations(text: str, to: Dialect, action: str, expected: str) -> None:
    assert translate_observation(text, to, action) == expected


def logged() -> dict[str, list[Step]]:
    """Episodes of real agents: name -> (action, answer) pairs, thoughts left out."""
    texts = {
        name: str(text)
        for name, text in json.loads((LOGS / "react_3prompts.json").read_text()).items()
    }
    for file in sorted(LOGS.glob("*.jsonl.gz")):
        for number, line in enumerate(gzip.decompress(file.read_bytes()).decode().splitlines()):
            texts[f"{file.name}/{number}"] = json.loads(line)["traj"]
    episodes: dict[str, list[Step]] = {}
    for name, text in texts.items():
        steps: list[tuple[str, list[str]]] = []
        for line in text.split("\n"):
            if line.startswith(">"):
                steps.append((line[1:].strip(), []))
            elif steps:
                steps[-1][1].append(line)
        episodes[name] = [
            (said, "\n".join(answer).strip())
            for said, answer in steps
            if not re.match(r"think:|actionpath:", said, re.IGNORECASE)
        ]
    return episodes


@pytest.mark.skipif(not LOGS.is_dir(), reason="the logs are not part of the package")
def test_real_logs_fit_the_forms_of_current_games_once_translated() -> None:
    forms = "|".join(
        re.sub(r"\\\{\w+\\\}", r"[a-z]+ \\d+", re.escape(template.text))
        for template in HouseholdSuite.templates
    )
    episodes = logged()
    assert len(episodes) == 510 + 218 + 36
    fitting_before = 0
    for name, steps in episodes.items():
        assert dialect_of(steps) in ("put", ""), name
        new = translate_steps(steps, "move")
        done = [(a, b) for (a, answer), (b, _) in zip(steps, new, strict=True) if answer != REFUSED]
        assert [b for _, b in done if not re.fullmatch(forms, b)] == [], name
        fitting_before += all(re.fullmatch(forms, a) for a, _ in done)
        assert translate_steps(new, "put") == steps, name
        assert translate_steps(new, "move") == new, name
        assert dialect_of(steps) == "" or dialect_of(new) == "move", name
    assert fitting_before < 450
    assert sum(dialect_of(steps) == "put" for steps in episodes.values()) > 750
