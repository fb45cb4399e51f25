"""Payloads: maps to bytes, and maps out of untrusted bytes, whose values are checked as they are
taken out. The only door to msgpack.

Each payload carries an integer format version. Within a version fields are only ever added: a
reader skips names it does not know and fills in what is missing where the data class has a default.
Anything else needs a new version.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgpack  # type: ignore[import-untyped]

T = TypeVar("T")

VERSION = 1
"""Format version written by this code."""
SUPPORTED = (1,)
"""Format versions that this code reads."""
MAX_BYTES = 64 * 2**20
"""Longest payload written or read. An episode is a few kilobytes; this keeps a forged length from
taking all memory."""
MAX_ITEMS = 2**20
"""Longest array or map inside a payload."""


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


def pack(head: Mapping[str, object], what: str, *more: object) -> bytes:
    """A map, and what follows it, as a payload; raises `ValueError` if it is too large."""
    try:
        # surrogatepass: a model may sample half a character; that must not cost the episode.
        packed = b"".join(
            bytes(msgpack.packb(part, use_bin_type=True, unicode_errors="surrogatepass"))
            for part in (head, *more)
        )
    except ValueError as error:  # a text of gigabytes
        raise ValueError(f"{what} cannot be stored: {error}") from error
    if len(packed) > MAX_BYTES:
        raise ValueError(f"{what} takes {len(packed)} bytes; the limit is {MAX_BYTES}")
    return packed


def unpacker_of(payload: bytes) -> Any:
    """Reads one object of a payload after the other. Raises :class:`CodecError` if that is too
    large."""
    if len(payload) > MAX_BYTES:
        raise CodecError(f"the payload takes {len(payload)} bytes; the limit is {MAX_BYTES}")
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        unicode_errors="surrogatepass",
        max_buffer_size=MAX_BYTES,
        max_str_len=MAX_BYTES,
        max_bin_len=MAX_BYTES,
        max_array_len=MAX_ITEMS,
        max_map_len=MAX_ITEMS,
        max_ext_len=0,
    )
    unpacker.feed(payload)
    return unpacker


def next_object(unpacker: Any, what: str) -> object:
    """The next object of a payload. Raises :class:`CodecError`, which names it as `what`."""
    try:
        return unpacker.unpack()
    except msgpack.OutOfData:
        raise CodecError(f"the payload ends before {what} does") from None
    except (ValueError, msgpack.UnpackException, RecursionError, TypeError) as error:
        raise CodecError(f"{what} cannot be read: {type(error).__name__}: {error}") from error


def versioned(value: object, what: str) -> Fields:
    """A map out of a payload. Raises :class:`CodecError` if its version is not supported."""
    fields = Fields(value, what)
    version = fields.get("v", integer)
    if version not in SUPPORTED:
        raise CodecError(
            f"{what} of format version {version}; this program reads "
            f"{', '.join(map(str, SUPPORTED))}: "
            "a newer version of it wrote this, use that one"
        )
    return fields


def single(payload: bytes, what: str) -> Fields:
    """The map that is all of a payload; raises as :func:`versioned`."""
    return versioned(next_object(unpacker_of(payload), what), what)
