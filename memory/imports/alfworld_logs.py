"""Logs of other people's agents in ALFWorld: ``{"name": game, "result": bool, "traj": text}``.

Everything stands in one text: what was seen, then lines that begin with ``>``, which are what the
agent said, each followed by the answer. Agents that think say their thoughts in the same place, in
two dialects:

* ReAct (Yao et al. 2023): ``> think: …``, answered with ``OK.``
* KnowAgent (Zhu et al. 2024): ``> Think: …`` and ``> ActionPath: …``, with no answer

Thoughts become the reasoning of the step that follows. A path restates the actions so far and has
no place in a step: paths are kept as a note, and so are thoughts after the last action. Actions are
left as they are (``put … in/on …``). ALFWorld answers what it refuses with "Nothing happens."; such
steps are marked invalid.

A file of prompts, an object of such texts by names like ``react_put_0``, is read as well. Its texts
are demonstrations and count as successes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...task import Task, goal_line, identity_of
from ..episode import Actor, Episode, Outcome, Step, StopReason
from ..plain import described
from ..storage.payload import MAX_ITEMS
from .parsed import (
    DEFAULT_SPLIT,
    POLICY,
    Labels,
    Parsed,
    with_content_id,
)

SUITE = "alfworld"
"""Suite of what is imported, unless it is labelled otherwise."""

_SAID = re.compile(r">\s?(.*)")
_THOUGHT = re.compile(r"think:\s*(.*)", re.IGNORECASE)
_PATH = re.compile(r"actionpath:\s*(.*)", re.IGNORECASE)
_REPLY = "OK."
_REFUSED = "Nothing happens."
_GAME = re.compile(r"([a-z_]+)-\w*-\w*-\w*-(\d+)(?:/|$)")
_PROMPT = re.compile(r"(?:re)?act_(put|clean|heat|cool|puttwo|examine)_\d+")
_PROMPT_TYPES = {
    "put": "pick_and_place_simple",
    "clean": "pick_clean_then_place_in_recep",
    "heat": "pick_heat_then_place_in_recep",
    "cool": "pick_cool_then_place_in_recep",
    "puttwo": "pick_two_obj_and_place",
    "examine": "look_at_obj_in_light",
}


@dataclass(frozen=True, slots=True)
class _Trajectory:
    """A text, taken apart."""

    steps: tuple[Step, ...]
    final: str
    thoughts: int
    paths: tuple[str, ...]
    closing: tuple[str, ...]
    """Thoughts after the last action."""
    replies: int
    """How many thoughts were answered with "OK."."""


def fits(value: object) -> bool:
    """Whether a value looks like a log, or like a file of prompts."""
    return isinstance(value, dict) and ("traj" in value or _is_prompts(value))


def parts(value: object) -> Sequence[object]:
    """The logs in a value: itself, or each text of a file of prompts."""
    if isinstance(value, dict) and _is_prompts(value):
        return [{"name": name, "result": True, "traj": text} for name, text in value.items()]
    return (value,)


def parse(value: object, labels: Labels) -> Parsed:
    """The episode in a log.

    Raises:
        ValueError: it is none; the message says why.
    """
    if not isinstance(value, dict):
        raise ValueError(
            f"not a log: {described(value)} instead of an object with name, result and traj"
        )
    name, result, text = value.get("name", ""), value.get("result"), value.get("traj")
    if not isinstance(text, str) or not isinstance(name, str):
        wrong, found = ("traj", text) if isinstance(name, str) else ("name", name)
        raise ValueError(f"not a log: {wrong} should be text and is {described(found)}")
    about = f"the log of {described(name)} has" if name else "the log has"
    if text.count("\n") > MAX_ITEMS:
        raise ValueError(f"{about} {text.count(chr(10))} lines; the limit is {MAX_ITEMS}")
    found = _taken_apart(text)
    if not found.steps:
        raise ValueError(
            f"{about} no action (a line that begins with > and is no thought): nothing was done"
        )
    opening = found.steps[0].observation
    goal = goal_line(opening)
    if not goal:
        raise ValueError(
            f"{about} no line 'Your task is to: …' before its first action: put it there"
        )
    known = isinstance(result, bool | int) and result in (0, 1)
    kind, room = _type_and_room(name)
    success = known and bool(result)
    episode = Episode(
        id="",
        task=Task(
            suite=labels.suite or SUITE,
            identity=identity_of(SUITE, name) if name else identity_of(goal, opening),
            type=kind,
            split=labels.split or DEFAULT_SPLIT,
            room=room,
            seed=0,
            version="",
            goal=goal,
        ),
        steps=found.steps,
        final_observation=found.final,
        outcome=_outcome(success, known, result),
        actor=Actor(POLICY),
    )
    return Parsed(
        with_content_id(SUITE, episode),
        success_known=known,
        notes=_notes(found),
        kept={
            "thoughts, as reasoning of the action that follows": found.thoughts
            - len(found.closing),
            "thoughts after the last action, in notes": len(found.closing),
            "action paths, in notes (a path that the next one continues is part of it)": len(
                found.paths
            ),
            "actions that were refused, marked as invalid": sum(
                step.invalid for step in found.steps
            ),
        },
        left_out=_left_out(value, found, known),
        otherwise=(
            _outcome(True, True, True), _outcome(False, True, False), _outcome(False, True, 0),
            _outcome(False, False, None),
        ),
    )  # fmt: skip


def _is_prompts(value: dict[str, object]) -> bool:
    # By their names: a text under any other may be the log of a failure.
    return bool(value) and all(
        _PROMPT.fullmatch(name) and isinstance(text, str) and goal_line(text)
        for name, text in value.items()
    )


def _taken_apart(text: str) -> _Trajectory:
    steps: list[tuple[str, str, str]] = []  # what was seen, said, thought before
    seen: list[str] = []
    thoughts: list[str] = []
    paths: list[str] = []
    count = replies = 0
    thinking = False  # whether the line before was a thought or a path
    for line in text.replace("\r\n", "\n").split("\n"):
        said = _SAID.match(line)
        thought, path = (pattern.match(said[1]) if said else None for pattern in (_THOUGHT, _PATH))
        if thought:
            thoughts.append(thought[1])
            count += 1
        elif path:
            paths.append(path[1])
        elif said:
            steps.append(("\n".join(seen).strip("\n"), said[1], "\n".join(thoughts)))
            seen, thoughts = [], []
        elif thinking and line.strip() == _REPLY:
            replies += 1
        else:
            seen.append(line)
        thinking = thought is not None or path is not None
    final = "\n".join(seen).strip("\n")
    answers = [observation for observation, _, _ in (*steps, (final, "", ""))][1:]
    return _Trajectory(
        tuple(
            Step(observation, action, invalid=answer.strip() == _REFUSED, reasoning=reasoning)
            for (observation, action, reasoning), answer in zip(steps, answers, strict=True)
        ),
        final,
        count,
        tuple(paths),
        tuple(thoughts),
        replies,
    )


def _type_and_room(name: str) -> tuple[str, str]:
    """From the name of a game, ``type-Object-Part-Place-scene/trial``, or of a prompt.

    Both are empty where the name does not say.
    """
    if game := _GAME.match(name):
        return game[1], f"FloorPlan{game[2]}"
    prompt = _PROMPT.fullmatch(name)
    return (_PROMPT_TYPES[prompt[1]] if prompt else "", "")


def _outcome(success: bool, known: bool, result: object) -> Outcome:
    if success:
        return Outcome(True, 1.0, StopReason.SOLVED)
    detail = (
        f"the log says {described(result)} and no more"
        if known
        else "the log does not say how it ended"
    )
    return Outcome(False, 0.0, StopReason.FAILED, detail)


def _notes(found: _Trajectory) -> tuple[str, ...]:
    # Most paths are continued by the next one, which then says all that they say.
    pairs = zip(found.paths, (*found.paths[1:], ""), strict=True) if found.paths else ()
    paths = [path for path, following in pairs if not following.startswith(path)]
    notes = ("Action path: " + "\n".join(paths),) if paths else ()
    if found.closing:
        notes = (*notes, "Thoughts after the last action: " + "\n".join(found.closing))
    return notes


def _left_out(
    value: dict[str, object], found: _Trajectory, known: bool
) -> tuple[tuple[str, str], ...]:
    left = [("'OK.' after a thought", "the environment says nothing with it")] * found.replies
    if not known and value.get("result") is not None:
        left.append(("field 'result'", "should be true or false"))
    others = [name for name in value if name not in ("name", "result", "traj")]
    return (
        *left,
        *((f"field {described(name)}", "an episode has no place for it") for name in others),
    )
