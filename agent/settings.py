"""Settings as frozen dataclasses: defaults, then a TOML file, then ``--set a.b=value``; unknown
keys are errors."""

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")


def load(
    kind: type[T],
    file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] = MappingProxyType({}),
    default: T | None = None,
) -> T:
    """Settings of a kind.

    Args:
        kind: a dataclass all of whose fields have defaults; fields may be such dataclasses
            themselves.
        file: TOML; a table per nested dataclass.
        overrides: ``key=value`` with dots for nesting, for example ``lora.rank=16``. Values are
            read as TOML, and as text where they are not TOML.
        flags: dotted names and their values, which come last.
        default: what holds where nothing is said; by default what the kind says.

    Raises:
        ValueError: unknown key, wrong type, a value that the settings refuse, or a file that is no
            TOML.
        OSError: there is no such file, or it cannot be read.
    """
    values: dict[str, Any] = {}
    if file:
        if not file.exists():
            raise FileNotFoundError(f"no settings file {file}: check the path given to --config")
        try:
            values = tomllib.loads(text_of(file, "settings file"))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ValueError(f"settings file {file} is not TOML: {error}") from error
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ValueError(
                f"--set {override!r} has no '=': write --set key=value, for example --set "
                "retrieval.k=4"
            )
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except (tomllib.TOMLDecodeError, RecursionError):
            value = text
        _put(values, key.strip(), value, f"--set {override!r}")
    for key, value in flags.items():
        _put(values, key, value, key)
    return build(kind, values, default=default)


def _put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    *path, last = key.split(".")
    table = values
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ValueError(f"{where}: {part!r} is a value, not a group of settings")
    table[last] = value


def text_of(file: Path, what: str) -> str:
    """The text of a file.

    Raises:
        ValueError: it is not UTF-8; names the file as what it is.
        OSError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8-sig")  # some editors put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {file} is not UTF-8 text (byte {error.start})") from None


def json_of(file: Path, what: str) -> Any:
    """The JSON in a file; errors name it, as those of `text_of`."""
    try:
        return json.loads(text_of(file, what))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{what} {file} is damaged, or is no JSON: {error}") from error


def build(
    kind: type[T],
    values: Mapping[str, Any],
    where: str = "",
    default: T | None = None,
    *,
    stored: bool = False,
) -> T:
    """A dataclass from plain values; see `load`.

    Args:
        kind, values: which, and what it is to hold.
        where: how its place is named in errors.
        default: what holds where nothing is given.
        stored: the values are as :func:`plain` makes them.
    """
    hints = typing.get_type_hints(kind)
    known = {
        stored_name(field) if stored else field.name: field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]  # T is a dataclass by contract
    }
    ready = {}
    for key, value in values.items():
        name = where + key
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {where + close[0]!r}?" if close else ""
            raise ValueError(
                f"unknown setting {name!r}.{hint} Known here: {', '.join(sorted(known))}"
            )
        mine = known[key]
        ready[mine] = _value(hints[mine], value, name, _default(kind, mine), stored)
    return (
        kind(**ready)
        if default is None
        else dataclasses.replace(typing.cast("Any", default), **ready)
    )


def stored_name(field: "dataclasses.Field[Any]") -> str:
    """The name of a setting on disk. Some got a better name after files with the old one existed;
    they say so: ``field(..., metadata={"stored": "budget"})``."""
    return str(field.metadata.get("stored", field.name))


def plain(value: Any) -> Any:
    """Settings as they are stored: as `dataclasses.asdict`, under the names on disk."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = dataclasses.fields(value)
        return {stored_name(field): plain(getattr(value, field.name)) for field in held}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def _default(kind: Any, name: str) -> Any:
    """Default of a field; None if it has none."""
    (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _value(hint: Any, value: Any, name: str, default: Any = None, stored: bool = False) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(
                f"setting {name!r} is a group: write [{name}] in the file or --set {name}.key=value"
            )
        # A group's defaults are those of the settings that it is part of.
        return build(typing.cast("type[Any]", hint), value, f"{name}.", default, stored=stored)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, Mapping):
            raise ValueError(
                f"setting {name!r} is a list of groups: write [[{name}]] in the file, once for each"
            )
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"setting {name!r} is a list: write {name}=['{value}']")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, v, name, stored=stored) for v in value)
    if origin in (typing.Union, types.UnionType):
        wanted = [t for t in typing.get_args(hint) if t is not type(None)]
        return _value(wanted[0], value, name, stored=stored)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        raise ValueError(f"setting {name!r} must be {hint.__name__}, not {value!r}")
    return value
