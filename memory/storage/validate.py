"""What may be stored: data classes that hold what their fields declare, checked before anything is
written.

What is the same value in another type is taken and stored as the declared one: a list for a tuple,
any mapping for a dict, numpy's numbers and truth values, an integer for a float that holds it
exactly, a text of a subclass of ``str``, the text of a name for the name. Everything else is
refused, with the place of what does not fit: 1.5 is no token, a truth value no number, None no
text. Numbers that are not finite are floats like others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from itertools import chain
from operator import attrgetter
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from .payload import Read, Unfit, inside

T = TypeVar("T")

LEAST, MOST = -(2**63), 2**64 - 1
"""The integers that can be stored."""


def validated(kind: type[T], value: object, name: str, *, quick: bool = True) -> T:
    """The value with exactly the types that its class declares; the very same object if it has
    them.

    Args:
        kind: a data class whose fields are data classes, ``tuple[X, ...]``, ``Mapping[str, X]``, a
            ``StrEnum``, ``str``, ``int``, ``float``, ``bool``, or a union of the last four.
        value: may be anything.
        name: what it is called in messages.
        quick: leave it to msgpack whether integers that are of the right type fit into 64 bits.

    Raises:
        TypeError: it holds something of another type; the message names the place.
        ValueError: it holds something of the right type that cannot be stored.
    """
    if quick and type(value) is kind and _are_plain(cast(Any, kind))((value,)):
        return value
    try:
        return cast(T, _check(cast(Any, kind))(value))
    except Unfit as error:
        where = error.path.lstrip(".") or "it"
        raise error.kind(f"{name} cannot be stored: {where} {error}") from None


def _described(value: object) -> str:
    """The type of a value, and the value where it is short."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"{type(value).__name__} of {value.bit_length()} bits"
    text = f" {value!r}" if isinstance(value, str | int | float | bytes | np.generic) else ""
    return type(value).__name__ + (text if len(text) <= 60 else f"{text[:60]}…")


def _unfit(wanted: str, value: object, kind: type[Exception] = TypeError) -> Unfit:
    return Unfit(f"should be {wanted} and is {_described(value)}", kind)


Plain = Callable[[Sequence[Any]], bool]
"""Whether values that have the right type hold nothing but that, too. It looks at many at once:
this runs for each step."""


@cache
def _are_plain(kind: Any) -> Plain:
    origin = get_origin(kind)
    if origin is None:
        return _are_plain_objects(kind)
    if origin is tuple:
        return _are_plain_items(get_args(kind)[0], chain.from_iterable)
    held = _are_plain_items(
        get_args(kind)[1], lambda column: chain.from_iterable(map(dict.values, column))
    )
    return lambda column: (
        not any(column) or (set(map(type, chain.from_iterable(column))) <= {str} and held(column))
    )


def _are_plain_objects(kind: Any) -> Plain:
    hints = dict(_all_fields(kind))
    values, types = attrgetter(*hints), tuple(map(_held_as, hints.values()))
    parts = [
        (i, _are_plain(hint))
        for i, hint in enumerate(hints.values())
        if get_origin(hint) is not None
    ]

    def are_plain(column: Sequence[Any]) -> bool:
        try:
            rows = list(map(values, column))
        except AttributeError:  # None for a task, which has no goal
            return False
        for row in rows:
            if tuple(map(type, row)) != types:
                return False
        return all(part([row[i] for row in rows]) for i, part in parts)

    return are_plain


def _all_fields(kind: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and types of all fields of a data class, and of the data classes in it."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        yield before + field.name, hints[field.name]
        if is_dataclass(hints[field.name]):
            yield from _all_fields(hints[field.name], f"{before}{field.name}.")


def _are_plain_items(kind: Any, items_of: Callable[[Sequence[Any]], Iterable[Any]]) -> Plain:
    types = set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {_held_as(kind)}
    part = _are_plain(cast(Any, kind)) if is_dataclass(kind) else None

    def are_plain(column: Sequence[Any]) -> bool:
        if not any(column):
            return True
        items = list(items_of(column))
        return set(map(type, items)) <= types and (part is None or part(items))

    return are_plain


def _held_as(kind: Any) -> type:
    """The type of a value that is stored as it is."""
    origin = get_origin(kind)
    return kind if origin is None else tuple if origin is tuple else dict


@cache
def _check(kind: Any) -> Read:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _object_check(kind)
    if origin is tuple:
        return _tuple_check(get_args(kind)[0])
    if origin in (Union, UnionType):
        return _setting
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _map_check(get_args(kind)[1])
    if issubclass(kind, StrEnum):
        return _name_check(kind)
    return {str: _text, int: _integer, float: _number, bool: _truth}[kind]


def _object_check(kind: Any) -> Read:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    parts = [(name, _check(hints[name])) for name in names]
    wanted = f"an {kind.__name__}" if kind.__name__[0] in "AEIOU" else f"a {kind.__name__}"

    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise _unfit(wanted, value)
        return kind(
            **{name: inside(part, getattr(value, name), f".{name}") for name, part in parts}
        )

    return check


def _tuple_check(kind: Any) -> Read:
    part = _check(kind)

    def check(value: object) -> Any:
        if not isinstance(value, tuple | list):
            raise _unfit("a tuple", value)
        return tuple([inside(part, item, f"[{i}]") for i, item in enumerate(value)])

    return check


def _map_check(kind: Any) -> Read:
    part = _check(kind)

    def check(value: object) -> Any:
        if not isinstance(value, Mapping):
            raise _unfit("a mapping", value)
        taken = {}
        for name, item in value.items():
            if not isinstance(name, str):
                raise Unfit(f"should have texts for names and has {_described(name)}", TypeError)
            taken[_text(name)] = inside(part, item, f"[{name!r}]")
        if len(taken) != len(value):
            raise Unfit("should have each name once", ValueError)
        return taken

    return check


def _name_check(kind: type[StrEnum]) -> Read:
    names = {str(name): name for name in kind}

    def check(value: object) -> Any:
        if not isinstance(value, str) or value not in names:
            raise _unfit(
                f"one of {', '.join(names)}",
                value,
                ValueError if isinstance(value, str) else TypeError,
            )
        return names[value]

    return check


def _text(value: object) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise _unfit("text", value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _unfit("true or false", value)
    return value if type(value) is bool else bool(value)


def _integer(value: object) -> int:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        number = (
            value
            if type(value) is int
            else int.__index__(value)
            if isinstance(value, int)
            else int(value)
        )
        if LEAST <= number <= MOST:
            return number
        raise _unfit("an integer of 64 bits", value, ValueError)
    raise _unfit("an integer", value)


def _number(value: object) -> float:
    if type(value) is float:
        return value
    if isinstance(value, float | np.floating):
        number = float.__float__(value) if isinstance(value, float) else float(value)
        if number == value or value != value:  # or it is nan
            return number
        raise _unfit("a number that 64 bits hold exactly", value, ValueError)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        whole = _integer(value)
        if int(float(whole)) == whole:
            return float(whole)
        raise _unfit("a number that 64 bits hold exactly", value, ValueError)
    raise _unfit("a number", value)


def _setting(value: object) -> str | int | float | bool:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool | np.bool_):
        return _truth(value)
    if isinstance(value, int | np.integer):
        return _integer(value)
    if isinstance(value, float | np.floating):
        return _number(value)
    raise _unfit("text, a number, true or false", value)
