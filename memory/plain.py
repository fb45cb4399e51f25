"""Data classes as plain values (those that JSON has), and back with every value checked.

The fields, types and defaults of the class say everything; a field that is added to an episode
needs nothing here.
"""

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from .storage.payload import Read, Unfit, inside


def plain(value: Any) -> Any:
    """A data class of :mod:`relive.memory.episode` as an object; fields that have their default are
    left out.

    A number that is not finite, which JSON does not have, becomes ``{"float": "nan"}``.
    """
    if is_dataclass(value):
        held = ((field, getattr(value, field.name)) for field in fields(value))
        return {
            field.name: plain(item)
            for field, item in held
            if _required(field) or not _is_default(item, field)
        }
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return str(value) if isinstance(value, StrEnum) else value


def read_as(kind: Any, value: object, name: str = "") -> Any:
    """A plain value as a type; what else an object holds is passed over.

    Args:
        kind: a data class, ``tuple[X, ...]``, ``Mapping[str, X]``, a ``StrEnum``, ``str``, ``int``,
            ``float``, ``bool``, or a union of the last four.
        value: may be anything.
        name: what it is called in messages.

    Raises:
        ValueError: it is no such thing; the message names the place in it.
    """
    try:
        return _reader(kind)(value)
    except Unfit as error:
        raise ValueError(f"{(name + error.path).lstrip('.') or 'it'} {error}") from None


def counted(count: int, noun: str) -> str:
    """``1 episode``, ``2 episodes``; for messages."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def described(value: object) -> str:
    """A value in a few words."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:60]}…"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "a list" if isinstance(value, list) else "an object"


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: "Field[Any]") -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _wrong(wanted: str, value: object) -> Unfit:
    return Unfit(f"should be {wanted} and is {described(value)}")


def _is_default(value: object, field: "Field[Any]") -> bool:
    default = _default(field)
    return value == default and not (value == 0 and str(value) != str(default))  # -0.0 is not 0.0


@cache
def _reader(kind: Any) -> Read:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _object_reader(kind)
    if origin is tuple:
        return _list_reader(_reader(get_args(kind)[0]))
    if origin in (Union, types.UnionType):
        return _setting
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _map_reader(_reader(get_args(kind)[1]))
    if issubclass(kind, StrEnum):
        return _name_reader(kind)
    return {str: _text, int: _integer, float: _number, bool: _truth}[kind]


def _object_reader(kind: Any) -> Read:
    hints = get_type_hints(kind)
    parts = [(field.name, _reader(hints[field.name]), _required(field)) for field in fields(kind)]

    def read(value: object) -> Any:
        if not isinstance(value, dict):
            raise _wrong("an object", value)
        made = {}
        for name, part, required in parts:
            if name in value:
                made[name] = inside(part, value[name], f".{name}")
            elif required:
                raise Unfit("is missing", path=f".{name}")
        return kind(**made)

    return read


def _list_reader(item: Read) -> Read:
    def read(value: object) -> Any:
        if not isinstance(value, list):
            raise _wrong("a list", value)
        return tuple(inside(item, one, f"[{i}]") for i, one in enumerate(value))

    return read


def _map_reader(item: Read) -> Read:
    def read(value: object) -> Any:
        if not isinstance(value, dict):
            raise _wrong("an object", value)
        return {name: inside(item, one, f"[{described(name)}]") for name, one in value.items()}

    return read


def _name_reader(kind: type[StrEnum]) -> Read:
    names = {str(name): name for name in kind}

    def read(value: object) -> Any:
        if not isinstance(value, str) or value not in names:
            raise _wrong(f"one of {', '.join(names)}", value)
        return names[value]

    return read


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong("text", value)
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong("an integer", value)
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def _number(value: object) -> float:
    text = value.get("float") if isinstance(value, dict) else None
    try:
        if isinstance(text, str):
            return float(text)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):  # an integer of hundreds of digits
        pass
    raise _wrong("a number", value)


def _setting(value: object) -> str | int | float | bool:
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return _number(value)
    raise _wrong("text, a number, true or false", value)
