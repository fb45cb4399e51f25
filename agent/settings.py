"""Settings as frozen dataclasses: defaults, then a TOML file, then ``--set a.b=value``; unknown
keys are errors."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast, get_args, get_type_hints

from ..memory.plain import (
    LIST,
    OBJECT,
    SETTINGS,
    UnknownNameError,
    WrongKindError,
    decode,
    stored_name,
)
from ..memory.storage.payload import Unfit

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
    return build(kind, values, default)


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
    default: T | None = None,
    *,
    stored: bool = False,
) -> T:
    """A dataclass from plain values; see `load`.

    Args:
        kind, values: which, and what it is to hold.
        default: what holds where nothing is given.
        stored: the values are as `as_stored` makes them.
    """
    try:
        return cast(T, decode(kind, values, SETTINGS._replace(stored=stored), default))
    except UnknownNameError as error:
        name = error.path[1:]
        group = name.removesuffix(name.rpartition(".")[2])
        hint = f" Did you mean {group + error.closest!r}?" if error.closest else ""
        raise ValueError(
            f"unknown setting {name!r}.{hint} Known here: {', '.join(sorted(error.known))}"
        ) from None
    except WrongKindError as error:
        raise ValueError(f"setting {error.path[1:]!r} {_advice(error)}") from None
    except Unfit as error:
        raise ValueError(f"setting {error.path[1:]!r} {error}") from None


def _advice(error: WrongKindError) -> str:
    name = error.path[1:]
    if error.wanted == OBJECT:
        return f"is a group: write [{name}] in the file or --set {name}.key=value"
    if error.wanted == LIST and isinstance(error.value, Mapping):
        return f"is a list of groups: write [[{name}]] in the file, once for each"
    if error.wanted == LIST:
        return f"is a list: write {name}=['{error.value}']"
    return f"must be {error.wanted}, not {error.value!r}"


def as_toml(kind: type[Any], default: Any = None) -> str:
    """All settings of a kind with their defaults, as a file that `load` takes; those that have none
    are comments.

    Args:
        kind: as of `load`.
        default: as of `load`.
    """
    return "".join(f"{line}\n" for line in _toml_lines(kind, default, ""))


def _toml_lines(kind: type[Any], default: Any, group: str) -> Iterator[str]:
    kinds = get_type_hints(kind)
    for field in fields(kind):
        name = group + field.name
        if default is not None:
            value = getattr(default, field.name)
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        else:
            value = field.default
        parts = [part for part in get_args(kinds[field.name]) if is_dataclass(part)]
        if is_dataclass(value) and not isinstance(value, type):
            yield from _toml_lines(type(value), value, f"{name}.")
        elif parts and not value:
            known = ", ".join(one.name for one in fields(parts[0]))
            yield f"# [[{name}]] once for each, at the end of the file, with: {known}"
        elif value is None:
            yield f"# {name} ="
        else:
            yield f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(k)} = {_toml(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def as_stored(value: Any) -> Any:
    """Settings as they are stored: as `dataclasses.asdict`, under the names on disk. A field whose
    metadata say ``sparse`` is left out where it has its default: what was recorded before there was
    such a setting then reads the same, and a run that was begun goes on."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            stored_name(field): as_stored(held)
            for field in fields(value)
            for held in [getattr(value, field.name)]
            if not (field.metadata.get("sparse") and held == field.default)
        }
    if isinstance(value, Mapping):
        return {key: as_stored(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(as_stored(item) for item in value)
    return value
