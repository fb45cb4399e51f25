"""Data classes as plain values (those that JSON and TOML have), and back with every value checked:
the one decoder of stored records and of settings.

The fields, types and defaults of the class say everything; a field that is added to an episode or
to settings needs nothing here. Some settings got a better name after files with the old one
existed; they say so: ``field(..., metadata={"stored": "budget"})``.
"""

import difflib
import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from enum import StrEnum
from functools import cache, partial
from types import NoneType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

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


class Mode(NamedTuple):
    """How objects are read."""

    strict: bool = False
    """Settings: a name that the class does not have is an error, and what a group leaves out is as
    in the defaults of the settings that it is part of. Otherwise data: other names are passed over,
    for a later version may have written them, and what is left out is as the class says."""
    stored: bool = False
    """Names are those on disk (:func:`stored_name`)."""


DATA, SETTINGS = Mode(), Mode(strict=True)
OBJECT, LIST = "an object", "a list"
"""What is wanted where an object or a list should be."""


class WrongKindError(Unfit):
    """A value is of another kind than it should be.

    Args:
        wanted: what it should be, in a few words.
        value: what it is.
    """

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(f"should be {wanted} and is {described(value)}")
        self.wanted, self.value = wanted, value


class UnknownNameError(Unfit):
    """An object has a name that nothing of its class is called.

    Args:
        name: the name.
        known: names of the class.
    """

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__("is unknown", path=f".{name}")
        self.known = tuple(known)
        self.closest = next(iter(difflib.get_close_matches(name, known, 1)), "")


def read_as(kind: Any, value: object, name: str = "") -> Any:
    """A plain value as a type; what else an object holds is passed over.

    Args:
        kind: see :func:`decode`.
        value: may be anything.
        name: what it is called in messages.

    Raises:
        ValueError: it is no such thing; the message names the place in it.
    """
    try:
        return decode(kind, value)
    except Unfit as error:
        raise ValueError(f"{(name + error.path).lstrip('.') or 'it'} {error}") from None


def decode(kind: Any, value: object, mode: Mode = DATA, default: Any = None) -> Any:
    """A plain value as a type.

    Args:
        kind: a data class, ``tuple[X, ...]``, ``Mapping[str, X]``, ``X | None``, a ``StrEnum``,
            ``str``, ``int``, ``float``, ``bool``, or a union of the last four, or of these and a
            tuple.
        value: may be anything.
        mode: how objects are read.
        default: an object of the class, for what is left out of settings.

    Raises:
        Unfit: it is no such thing; its path names the place in it.
        ValueError: the class refuses the values.
    """
    if is_dataclass(kind):
        return _object(kind, mode, value, default)
    return _reader(kind, mode)(value)


def stored_name(field: "Field[Any]") -> str:
    """The name of a field on disk."""
    return str(field.metadata.get("stored", field.name))


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
    return "a list" if isinstance(value, list | tuple) else "an object"


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: "Field[Any]") -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is_default(value: object, field: "Field[Any]") -> bool:
    default = _default(field)
    return value == default and not (value == 0 and str(value) != str(default))  # -0.0 is not 0.0


@cache
def _reader(kind: Any, mode: Mode) -> Read:
    origin = get_origin(kind)
    if kind is Any:
        return lambda value: value
    if is_dataclass(kind):
        return lambda value: _object(kind, mode, value, None)
    if origin is tuple:
        return _list_reader(_reader(get_args(kind)[0], mode))
    if origin in (Union, types.UnionType):
        some = [one for one in get_args(kind) if one is not NoneType]
        lists = [one for one in some if get_origin(one) is tuple]
        if len(some) == 1:
            return _optional_reader(_reader(some[0], mode))
        return _either_reader(_reader(lists[0], mode)) if lists else _setting
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _map_reader(_reader(get_args(kind)[1], mode))
    if issubclass(kind, StrEnum):
        return _name_reader(kind)
    return {str: _text, int: _integer, float: _number, bool: _truth}[kind]


@cache
def _parts(kind: Any, mode: Mode) -> tuple[tuple[str, "Field[Any]", Any], ...]:
    """(name in the object, field, type) of each field."""
    hints = get_type_hints(kind)
    return tuple(
        (stored_name(field) if mode.stored else field.name, field, hints[field.name])
        for field in fields(kind)
    )


def _object(kind: Any, mode: Mode, value: object, default: Any) -> Any:
    if not isinstance(value, Mapping):
        raise WrongKindError(OBJECT, value)
    parts = _parts(kind, mode)
    if mode.strict:
        known = [name for name, _, _ in parts]
        for name in value:
            if name not in known:
                raise UnknownNameError(str(name), known)
    made = {}
    for name, field, hint in parts:
        if name in value:
            group = mode.strict and is_dataclass(hint)
            base = _of_group(field, default) if group else None
            read = partial(decode, hint, mode=mode, default=base)
            made[field.name] = inside(read, value[name], f".{name}")
        elif _required(field) and default is None:
            raise Unfit("is missing", path=f".{name}")
    return kind(**made) if default is None else replace(default, **made)


def _of_group(field: "Field[Any]", default: Any) -> Any:
    """What a group of settings is where nothing is said."""
    if default is not None:
        return getattr(default, field.name)
    return None if _required(field) else _default(field)


def _list_reader(item: Read) -> Read:
    def read(value: object) -> Any:
        if not isinstance(value, list | tuple):
            raise WrongKindError(LIST, value)
        return tuple(inside(item, one, f"[{i}]") for i, one in enumerate(value))

    return read


def _either_reader(read: Read) -> Read:
    """Of a list, and of a single value."""
    return lambda value: read(value) if isinstance(value, list | tuple) else _setting(value)


def _optional_reader(read: Read) -> Read:
    return lambda value: None if value is None else read(value)


def _map_reader(item: Read) -> Read:
    def read(value: object) -> Any:
        if not isinstance(value, dict):
            raise WrongKindError(OBJECT, value)
        return {name: inside(item, one, f"[{described(name)}]") for name, one in value.items()}

    return read


def _name_reader(kind: type[StrEnum]) -> Read:
    names = {str(name): name for name in kind}

    def read(value: object) -> Any:
        if not isinstance(value, str) or value not in names:
            raise WrongKindError(f"one of {', '.join(names)}", value)
        return names[value]

    return read


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise WrongKindError("text", value)
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongKindError("an integer", value)
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongKindError("true or false", value)
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
    raise WrongKindError("a number", value)


def _setting(value: object) -> str | int | float | bool:
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return _number(value)
    raise WrongKindError("text, a number, true or false", value)
