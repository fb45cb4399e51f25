"""Telling one function from another, so that a run is not gone on with by somebody else."""

import hashlib
from collections.abc import Iterator
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

_PLAIN = (str, bytes, int, float, complex, bool, type(None))


def fingerprint(value: object) -> str:
    """A hash of what a function, or an object that is called, does: its code, and the plain values
    that it holds. The same in another process; what it calls is not looked at."""
    return hashlib.sha256("\n".join(_parts(value, 0)).encode("utf-8", "replace")).hexdigest()[:16]


def _parts(value: Any, depth: int) -> Iterator[str]:
    if depth > 4:
        return
    if isinstance(value, _PLAIN):
        yield repr(value)
    elif isinstance(value, CodeType):
        yield f"{value.co_code!r} {value.co_names}"
        for constant in value.co_consts:
            yield from _parts(constant, depth)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _parts(item, depth + 1)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(repr, value)))
    elif isinstance(value, dict):
        for name in sorted(value, key=repr):
            yield repr(name)
            yield from _parts(value[name], depth + 1)
    elif isinstance(value, partial):
        yield from _parts((value.func, value.args, value.keywords), depth)
    elif isinstance(value, MethodType):
        yield from _parts((value.__func__, value.__self__), depth)
    elif isinstance(value, FunctionType):
        yield value.__qualname__
        held = [_held(cell) for cell in value.__closure__ or ()]
        yield from _parts((value.__code__, value.__defaults__, value.__kwdefaults__, held), depth)
    elif isinstance(value, type):
        yield f"{value.__module__}.{value.__qualname__}"
        own = [one for name, one in sorted(vars(value).items()) if isinstance(one, FunctionType)]
        yield from _parts(own, depth)
    else:
        yield from _parts((type(value), getattr(value, "__dict__", {})), depth)


def _held(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
