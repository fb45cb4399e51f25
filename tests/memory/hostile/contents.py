"""Episodes with anything in them: whatever the types allow, and in each field what they do not."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from relive.memory import Actor, Episode, Outcome, Retrieved, Step, StopReason, Task

LEAST, MOST = -(2**63), 2**64 - 1
"""Integers that fit into a record."""

# Lone surrogates, zero bytes and everything else that a model may say.
text = st.one_of(
    st.text(st.characters(codec=None, exclude_categories=()), max_size=12),
    st.sampled_from(
        [
            "",
            "\0",
            "\ud83d",
            "\ude00\ud83d",
            "a\0",
            "x" * 49,
            "\u200b",
            "\x1b[2J",
            "e\u0301",
            "\r\n",
        ]
    ),
)
number = st.floats(width=64)
whole = st.one_of(st.integers(LEAST, MOST), st.sampled_from([LEAST, MOST, 0, -1, 2**32, 2**63]))
setting = st.one_of(text, whole, number, st.booleans())
# What a task cannot be without: something that is no space in any form of it.
needed = text.map("n{}".format)
retrieved = st.builds(Retrieved, text, number)
steps = st.builds(
    Step,
    text,
    text,
    number,
    st.booleans(),
    st.lists(whole, max_size=4).map(tuple),
    st.lists(retrieved, max_size=3).map(tuple),
)
tasks = st.builds(Task, text, needed, text, needed, text, whole, text, text)
outcomes = st.builds(Outcome, st.booleans(), number, st.sampled_from(StopReason), text)
actors = st.builds(Actor, text, text, text, text, text, st.dictionaries(text, setting, max_size=3))
numbers = st.dictionaries(text, number, max_size=3)
episodes = st.builds(
    Episode,
    needed,
    tasks,
    st.lists(steps, max_size=3).map(tuple),
    text,
    outcomes,
    actors,
    whole,
    number,
    numbers,
    numbers,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the type and the last bit of a number; NaN is the same as
    itself."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(
            same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
        )
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return str(one) == str(other)  # of the shortest text, which tells zeros apart, and not NaNs
    return bool(one == other)


def paired(value: Any) -> Any:
    """What JSON makes of text: a high surrogate that a low one follows is the character that they
    make together."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if isinstance(value, Mapping):
        return {paired(name): paired(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(paired, value))
    if is_dataclass(value):
        return replace(
            value, **{field.name: paired(getattr(value, field.name)) for field in fields(value)}
        )  # type: ignore[type-var]
    return value


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


GOOD = Episode(
    "good",
    Task("suite", "task", "type", "train", "room", 1, "1", "put a mug on the shelf"),
    (
        Step("You see a mug.", "take mug", 0.5, True, (1, 2), (Retrieved("other", 0.5),)),
        Step("Taken.", "stop"),
    ),
    "Done.",
    Outcome(True, 1.0, StopReason.SOLVED, "detail"),
    Actor("policy", "model", "weights", "adapter", "prompt", {"k": 2}),
    3,
    1.5,
    {"total": 1.0},
    {"human": 0.5},
)


class Strange:
    """Something that no record can hold."""


_NO_TEXT: tuple[Any, ...] = (
    None,
    b"bytes",
    bytearray(b"x"),
    5,
    1.5,
    True,
    ["text"],
    ("text",),
    {"a": 1},
    Strange(),
    Strange,
    {"s"},
)
_NO_NUMBER: tuple[Any, ...] = (
    None,
    "1",
    b"1",
    [1.0],
    {},
    1j,
    Strange(),
    10**400,
    np.array([1.0, 2.0]),
)
_NO_WHOLE: tuple[Any, ...] = (*_NO_NUMBER, 1.5, math.nan, math.inf, MOST + 1, LEAST - 1)
_NO_TRUTH: tuple[Any, ...] = (None, "true", b"", 2, 0.5, [], Strange(), np.array([True, False]))
_NO_TEXT_KEYS: tuple[Any, ...] = ({1: 1.0}, {None: 1.0}, {b"a": 1.0}, {("a",): 1.0})
_NO_NUMBERS: tuple[Any, ...] = (
    None,
    5,
    "text",
    [("a", 1.0)],
    {"a": None},
    {"a": "1"},
    {"a": [1.0]},
    {"a": 10**400},
    *_NO_TEXT_KEYS,
)
_NO_SETTINGS: tuple[Any, ...] = (
    *(None, 5, "text", [("a", 1)], [], *_NO_TEXT_KEYS),
    *(
        {"a": bad}
        for bad in (None, b"x", [1], (1,), {}, Strange(), 1j, MOST + 1, LEAST - 1, np.zeros(2))
    ),
)
_NO_TOKENS: tuple[Any, ...] = (
    None,
    5,
    "12",
    b"12",
    {"a": 1},
    (None,),
    ("1",),
    (1.5,),
    (math.nan,),
    ((1,),),
    (MOST + 1,),
    (LEAST - 1,),
)
_NO_RETRIEVED: tuple[Any, ...] = (
    None,
    5,
    "other",
    ("other",),
    (None,),
    (("other", 0.5),),
    ({"episode": "other"},),
    (Strange(),),
)
_NO_STEPS: tuple[Any, ...] = (
    None,
    5,
    "text",
    b"x",
    ("text",),
    (None,),
    (("a", "b"),),
    ({"observation": "a"},),
    (Strange(),),
)
_NO_PART: tuple[Any, ...] = (None, 5, "text", {}, (), Strange())

_OF_TYPE: dict[str, tuple[Any, ...]] = {
    "text": _NO_TEXT,
    "float": _NO_NUMBER,
    "int": _NO_WHOLE,
    "bool": _NO_TRUTH,
}
_FIELDS = {
    "id": "text", "final_observation": "text", "memory_position": "int", "started": "float",
    "task.suite": "text", "task.identity": "text", "task.type": "text", "task.split": "text",
    "task.room": "text",
    "task.seed": "int", "task.version": "text", "task.goal": "text",
    "outcome.success": "bool", "outcome.score": "float", "outcome.detail": "text",
    "outcome.best": "float", "task.payload": "text",
    "actor.policy": "text", "actor.model": "text", "actor.weights": "text", "actor.adapter": "text",
    "actor.prompt": "text",
    "steps.observation": "text", "steps.action": "text", "steps.reasoning": "text",
    "steps.said": "text",
    "steps.reward": "float",
    "steps.invalid": "bool",
    "steps.retrieved.episode": "text", "steps.retrieved.score": "float",
}  # fmt: skip
WRONG: dict[str, tuple[Any, ...]] = {name: _OF_TYPE[kind] for name, kind in _FIELDS.items()} | {
    "task": _NO_PART,
    "outcome": _NO_PART,
    "actor": _NO_PART,
    "steps": _NO_STEPS,
    "steps.tokens": _NO_TOKENS,
    "steps.retrieved": _NO_RETRIEVED,
    "outcome.reason": (None, 5, "no such reason", "", b"solved", ["solved"], Strange()),
    "actor.settings": _NO_SETTINGS,
    "timings": _NO_NUMBERS,
    "ratings": _NO_NUMBERS,
    "usage": _NO_NUMBERS,
}
"""By field, what it must not hold. What is merely another spelling (an integer for a float, a list
for a tuple, a subclass) is not here."""


def all_fields(kind: Any = Episode, before: str = "") -> Iterator[str]:
    """Names of all fields of an episode and of what is in it, as in :data:`WRONG`."""
    inside = {
        "task": Task,
        "outcome": Outcome,
        "actor": Actor,
        "steps": Step,
        "retrieved": Retrieved,
    }
    for field in fields(kind):
        yield before + field.name
        if field.name in inside:
            yield from all_fields(inside[field.name], f"{before}{field.name}.")


def with_field(value: Any, name: str, held: Any) -> Any:
    """An episode, or a part of one, with something else in one field; of steps and what was
    retrieved, in the last one."""
    first, _, rest = name.partition(".")
    if not rest:
        return replace(value, **{first: held})
    inner = getattr(value, first)
    if isinstance(inner, tuple):
        return replace(value, **{first: (with_field(inner[0], rest, held), *inner[1:])})
    return replace(value, **{first: with_field(inner, rest, held)})
