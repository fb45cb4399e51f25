"""Values whose types are checked: maps out of untrusted bytes, and the error that says where in a
value something is wrong."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class CodecError(ValueError):
    """The bytes are no payload that this code can read; the message says why."""


class Unfit(Exception):
    """A value is not what it should be; `path` says where it is, and grows from the inside out."""

    def __init__(self, detail: str, kind: type[Exception] = ValueError, path: str = "") -> None:
        super().__init__(detail)
        self.kind, self.path = (
            kind,
            path,
        )  # what is raised for it in the end, and where it was found


Read = Callable[[object], Any]
"""Gives a value as what it should be; raises :class:`Unfit` if it is not."""


def inside(read: Read, value: object, path: str) -> Any:
    """A value that is part of another one, at `path` in it."""
    try:
        return read(value)
    except Unfit as error:
        error.path = path + error.path
        raise


_REQUIRED: Any = object()


class Fields:
    """A map out of a payload, whose values are checked as they are taken out."""

    __slots__ = ("_values", "_what")

    def __init__(self, values: object, what: str) -> None:
        if not isinstance(values, dict):
            raise CodecError(f"not {what}: a map was expected, {kind_of(values)} found")
        self._values = values
        self._what = what

    def get(self, name: str, check: Callable[[object], T], default: T = _REQUIRED) -> T:
        """A field as `check` gives it; without a default it must be there. Raises
        :class:`CodecError`."""
        value = self._values.get(name, _REQUIRED)
        if value is _REQUIRED:
            if default is _REQUIRED:
                raise CodecError(f"not {self._what}: {name!r} is missing")
            return default
        try:
            return check(value)
        except TypeError as error:
            raise CodecError(f"not {self._what}: {name!r} {error}") from None

    def text(self, name: str, default: str = _REQUIRED) -> str:
        """A field that is text."""
        return self.get(name, text, default)


def kind_of(value: object) -> str:
    """What a value is, in a word or two."""
    return f"{len(value)} of them" if isinstance(value, list) else f"{type(value).__name__}"


def wrong(value: object, wanted: str) -> TypeError:
    """The error for a value that is something else than wanted."""
    return TypeError(f"should be {wanted} and is {type(value).__name__}")


def anything(value: object) -> object:
    """The value, whatever it is."""
    return value


def text(value: object) -> str:
    """The value if it is text; as all that follow, raises `TypeError` if not."""
    if type(value) is not str:
        raise wrong(value, "text")
    return value


def boolean(value: object) -> bool:
    """The value if it is true or false."""
    if type(value) is not bool:
        raise wrong(value, "true or false")
    return value


def integer(value: object) -> int:
    """The value if it is an integer."""
    if type(value) is not int:
        raise wrong(value, "an integer")
    return value


def number(value: object) -> float:
    """The value if it is a number."""
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    raise wrong(value, "a number")


def count(value: object) -> int:
    """The value if it is an integer that is not negative."""
    if integer(value) < 0:
        raise TypeError(f"should be a count and is {value}")
    return integer(value)


def integers(value: object) -> tuple[int, ...]:
    """The value if it is a list of integers."""
    if not isinstance(value, list):
        raise wrong(value, "a list of integers")
    return tuple(integer(item) for item in value)


def texts(value: object) -> tuple[str, ...]:
    """The value if it is a list of texts."""
    if not isinstance(value, list):
        raise wrong(value, "a list of texts")
    return tuple(text(item) for item in value)


def numbers(value: object) -> Mapping[str, float]:
    """The value if it is a map of numbers."""
    if not isinstance(value, dict):
        raise wrong(value, "a map of numbers")
    return {text(name): number(item) for name, item in value.items()}


def settings(value: object) -> Mapping[str, str | int | float | bool]:
    """The value if it is a map of plain settings."""
    if not isinstance(value, dict):
        raise wrong(value, "a map of settings")
    for item in value.values():
        if type(item) not in (str, int, float, bool):
            raise wrong(item, "plain settings: one of them")
    return {text(name): item for name, item in value.items()}
