"""Conversations: ``{"messages": [{"role": …, "content": …}, …], "success": true, …}``.

Turns of the assistant are actions; turns of the user and of tools (``tool``, or ``function``, as it
was called before) are observations. Turns of one kind that follow each other are joined, line by
line. What an agent was told to be is not what it saw: the system turn (``system``, or
``developer``, as newer models have it) is kept as a note and is not part of the episode, so it is
not shown where the episode serves as a demonstration.

A tool call is an action, written as the tool's name and its arguments in JSON (``function_call`` is
one of them); text beside it is the reasoning. So is what stands in ``reasoning_content`` or
``reasoning``, and a ``<think>`` block at the beginning of a turn.

The goal is the text of the first of the fields ``goal``, ``task``, ``instruction`` and ``prompt``
that has one, or else the last line "Your task is to: …" of the first user turn, or else that whole
turn. Only ``success`` says whether it was reached.

Further fields are ``id`` (of the episode; made from its content otherwise), ``task_id``, ``type``,
``split``, ``suite``, ``model``, ``score``, ``reward`` (of the whole episode: it goes to the last
step) and ``metadata``.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from ...task import Task, goal_line, identity_of
from ..episode import Actor, Episode, Outcome, Step, StopReason
from ..plain import described
from .parsed import (
    DEFAULT_SPLIT,
    POLICY,
    Labels,
    Parsed,
    with_content_id,
)

SUITE = "imported"
"""Suite of conversations that name none."""
GOALS = ("goal", "task", "instruction", "prompt")
"""Fields that may hold the goal."""

_THINK = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
_ROLES = {
    "system": "system", "developer": "system", "user": "user", "tool": "user", "function": "user",
    "assistant": "assistant",
}  # fmt: skip
"""What a message's role comes to."""
_NO_PLACE = "an episode has no place for it"
_UNTOLD = "the line does not say whether the goal was reached"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a message comes down to."""

    role: str
    """``system``, ``user`` (tools, too) or ``assistant``."""
    text: str
    reasoning: str = ""


def fits(value: object) -> bool:
    """Whether a value looks like a conversation."""
    return isinstance(value, dict) and "messages" in value


def parse(value: object, labels: Labels) -> Parsed:
    """The episode in a conversation.

    Raises:
        ValueError: it is none; the message says why.
    """
    if not isinstance(value, dict):
        raise ValueError(
            f"not a conversation: {described(value)} instead of an object with messages"
        )
    line = _Fields(value)
    turns = _turns(line.messages(), line.left_out)
    system = [turn.text for turn in turns if turn.role == "system"]
    steps, final = _steps(_joined(turn for turn in turns if turn.role != "system"))
    if not steps:
        raise ValueError("messages: no assistant turn, so nothing was done")
    goal = next(filter(None, (line.take(name, _text) for name in GOALS)), "") or _first_goal(turns)
    known = line.take("success", _truth)
    steps[-1] = replace(steps[-1], reward=line.take("reward", _number) or 0.0)
    suite = labels.suite or line.take("suite", _text) or SUITE
    game = line.take("task_id", _name)
    outcome, otherwise = _outcome(known, line)
    episode = Episode(
        id=line.take("id", _name) or "",
        task=Task(
            suite=suite,
            identity=identity_of(suite, game) if game else identity_of(goal, steps[0].observation),
            type=line.take("type", _text) or "",
            split=labels.split or line.take("split", _text) or DEFAULT_SPLIT,
            room="",
            seed=0,
            version="",
            goal=goal,
        ),
        steps=tuple(steps),
        final_observation=final,
        outcome=outcome,
        actor=Actor(POLICY, model=line.take("model", _text) or ""),
    )
    notes = [f"System turn: {text}" for text in system]
    metadata = line.take("metadata", _anything)
    if metadata is not None:
        notes.append(f"Metadata: {_json(metadata)}")
    return Parsed(
        episode if episode.id else with_content_id("messages", episode),
        success_known=known is not None,
        notes=tuple(notes),
        kept={
            "thoughts, as reasoning of their action": sum(bool(step.reasoning) for step in steps),
            "system turns, in notes (they are not shown to agents)": len(system),
            "metadata, in notes": int(metadata is not None),
        },
        left_out=(*line.left_out, *line.rest()),
        otherwise=() if episode.id else otherwise,
    )


class _Fields:
    """The fields of a line: each is taken if its type is right; what is not taken is noted."""

    def __init__(self, values: dict[str, object]) -> None:
        self._values = dict(values)
        self.left_out: list[tuple[str, str]] = []

    def messages(self) -> list[object]:
        """The messages; raises `ValueError` if there are none."""
        messages = self._values.pop("messages", None)
        if not isinstance(messages, list):
            raise ValueError(f"messages should be a list and is {described(messages)}")
        if not messages:
            raise ValueError("messages is empty")
        return messages

    def take(self, name: str, check: "Callable[[object], T]") -> T | None:
        """A field as `check` gives it; None if it is not there, or noted as not taken."""
        value = self._values.pop(name, None)
        if value is None:
            return None
        try:
            return check(value)
        except TypeError as error:
            self.left_out.append((f"field {name!r}", str(error)))
            return None

    def rest(self) -> list[tuple[str, str]]:
        """What nobody took."""
        left = (name for name, value in self._values.items() if value is not None)
        return [(f"field {described(name)}", _NO_PLACE) for name in left]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("should be text")
    return value.strip()


def _name(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise TypeError("should be text or an integer")
    return value.strip()


def _truth(value: object) -> bool:
    if not isinstance(value, bool | int) or value not in (0, 1):
        raise TypeError("should be true or false")
    return bool(value)


def _number(value: object) -> float:
    # Compared, since an integer of JSON may have more digits than a float takes.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e308 < value < 1e308:
        raise TypeError("should be a finite number")
    return float(value)


def _share(value: object) -> float:
    if not 0 <= _number(value) <= 1:
        raise TypeError("should lie in [0, 1]")
    return _number(value)


def _anything(value: object) -> object:
    return value


def _turns(messages: list[object], left_out: list[tuple[str, str]]) -> list[_Turn]:
    turns = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise ValueError(f"messages[{i}] should be an object and is {described(message)}")
        try:
            turns.append(_turn(message, left_out))
        except TypeError as error:
            raise ValueError(f"messages[{i}].{error}") from None
    return turns


def _turn(message: dict[str, object], left_out: list[tuple[str, str]]) -> _Turn:
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise TypeError(f"role should be system, user, assistant or tool and is {described(role)}")
    role = _ROLES[role]
    text = _content(message.get("content"), left_out)
    known = {"role", "content"}
    if role != "assistant":
        turn = _Turn(role, text)
    else:
        known |= {"tool_calls", "function_call", "reasoning_content", "reasoning"}
        thoughts = []
        for name in ("reasoning_content", "reasoning"):
            thought = message.get(name)
            if isinstance(thought, str):
                thoughts.append(thought)
            elif thought is not None:
                left_out.append((f"{name!r} of a message", "should be text"))
        if found := _THINK.match(text):
            thoughts.append(found[1])
            text = text[found.end() :]
        calls = _calls(message.get("tool_calls"))
        if (call := message.get("function_call")) is not None:
            calls.append(_action(call, "function_call"))
        if calls:
            thoughts.append(text)
            text = "\n".join(calls)
        if not text.strip():
            raise TypeError(
                "content is empty and there is no tool call: an assistant turn must do something"
            )
        turn = _Turn("assistant", text, "\n".join(filter(None, map(str.strip, thoughts))))
    others = (
        name for name, value in message.items() if name not in known and value not in (None, [])
    )
    left_out += [(f"{described(name)} of a message", _NO_PLACE) for name in others]
    return turn


def _content(content: object, left_out: list[tuple[str, str]]) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError(f"content should be text or a list of parts and is {described(content)}")
    texts = []
    for i, part in enumerate(content):
        if not isinstance(part, dict):
            raise TypeError(f"content[{i}] should be an object and is {described(part)}")
        text = part.get("text")
        if part.get("type") == "text" and isinstance(text, str):
            texts.append(text)
        else:
            left_out.append((f"part of type {described(part.get('type'))}", "only text is taken"))
    return "\n".join(texts)


def _calls(calls: object) -> list[str]:
    """Each tool call as its name and its arguments in JSON."""
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise TypeError(f"tool_calls should be a list and is {described(calls)}")
    actions = []
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        actions.append(_action(function, f"tool_calls[{i}]"))
    return actions


def _action(function: object, where: str) -> str:
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str):
        raise TypeError(f"{where} has no function with a name")
    arguments = function.get("arguments", "")
    if not isinstance(arguments, str):  # servers give them as a text that holds JSON
        arguments = _json(arguments)
    return f"{name} {arguments}".rstrip()


def _joined(turns: Iterable[_Turn]) -> list[_Turn]:
    joined: list[_Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            before = joined[-1]
            reasoning = "\n".join(filter(None, (before.reasoning, turn.reasoning)))
            joined[-1] = _Turn(turn.role, f"{before.text}\n{turn.text}", reasoning)
        else:
            joined.append(turn)
    return joined


def _steps(turns: Iterable[_Turn]) -> tuple[list[Step], str]:
    """Steps and the final observation, of turns that alternate."""
    steps: list[Step] = []
    observation = ""
    for turn in turns:
        if turn.role == "assistant":
            steps.append(Step(observation, turn.text, reasoning=turn.reasoning))
            observation = ""
        else:
            observation = turn.text
    return steps, observation


def _first_goal(turns: Iterable[_Turn]) -> str:
    first = next((turn for turn in turns if turn.role != "system"), None)
    text = first.text if first and first.role == "user" else ""
    goal = goal_line(text) or text.strip()
    if not goal:
        raise ValueError(
            f"no goal: add a field {GOALS[0]!r}, or begin with a user turn that says what to do"
        )
    return goal


def _outcome(success: bool | None, line: _Fields) -> tuple[Outcome, tuple[Outcome, ...]]:
    """How it ended, and how it would have ended if the line said otherwise."""
    score = line.take("score", _share)
    below = 0.0 if score is None or score == 1 else score
    if score is not None and (score == 1) != bool(success):
        line.left_out.append(("field 'score'", "1 is the score of successes, and of nothing else"))
    otherwise = [
        Outcome(False, points, StopReason.FAILED, detail)
        for points in dict.fromkeys((below, 0.0))
        for detail in ("", _UNTOLD)
    ]
    solved = Outcome(True, 1.0, StopReason.SOLVED)
    detail = "" if success is not None else _UNTOLD
    ended = solved if success else Outcome(False, below, StopReason.FAILED, detail)
    return ended, (solved, *otherwise)


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    except RecursionError:
        raise ValueError("nested too deeply to be an episode") from None
