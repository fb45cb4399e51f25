"""PDDL to what the engine runs on, translated once per game and kept in memory and on disk.

The translator of `fast_downward` takes 0.2-0.4 s per game, more than a whole episode of steps. It
also overwrites `sys.argv` and swaps `sys.stdout`, is not thread-safe, and is called four times per
game by stock TextWorld.
"""

import gc
import hashlib
import json
import os
import sys
import tempfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...caches import cache_folder

CACHE_FORMAT = 1
"""Bump when `Translation` or the translator's options change; older files are then ignored."""

_MEMORY = 16  # games, about 1 MB each; reading one from disk takes 4 ms
_lock = threading.Lock()
_recent: OrderedDict[str, "Translation"] = OrderedDict()


@dataclass(frozen=True, slots=True)
class Translation:
    """A game as the planner's library and the text side need it. Plain data."""

    sas: str
    """Planning task in SAS format, for the C library."""
    parameters: Mapping[str, list[tuple[str, str]]]
    """Action -> its parameters as (name, type)."""
    facts: list[tuple[str, ...]]
    """What holds at the start, static facts included: (predicate, arguments...)."""


def translate(domain: str, problem: str) -> Translation:
    """Translate a game, from memory or disk where it was translated before.

    Raises:
        ValueError: the domain or the problem is not PDDL that the translator understands.
    """
    key = hashlib.sha256(f"{CACHE_FORMAT}\0{domain}\0{problem}".encode()).hexdigest()[:32]
    with _lock:
        if key in _recent:
            _recent.move_to_end(key)
            return _recent[key]
        path = cache_folder("household") / f"v{CACHE_FORMAT}" / key[:2] / key
        translation = _load(path)
        if translation is None:
            translation = translate_anew(domain, problem)
            _save(path, translation)
        _recent[key] = translation
        while len(_recent) > _MEMORY:
            _recent.popitem(last=False)
        return translation


def clear_memory() -> None:
    """Forget the translations in memory (for measurements); those on disk stay."""
    with _lock:
        _recent.clear()


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Undo what the translator does to the process: it replaces `sys.argv` and, on an error, keeps
    `sys.stdout`."""
    argv, stdout = sys.argv, sys.stdout
    try:
        yield
    finally:
        sys.argv, sys.stdout = argv, stdout


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause garbage collection: looking for cycles among millions of small objects is a quarter of
    a translation."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def translate_anew(domain: str, problem: str) -> Translation:
    """Translate a game without looking at any cache. Raises like `translate`."""
    import fast_downward
    from fast_downward.translate import pddl

    try:
        with process_state_kept(), _collector_paused():
            task, sas = fast_downward.pddl2sas(domain, problem)
    except (Exception, SystemExit) as error:  # the translator exits on what it cannot parse
        raise ValueError(
            f"the game's PDDL cannot be translated ({type(error).__name__}: {error})"
        ) from error
    facts = [
        (atom.predicate, *atom.args)
        for atom in task.init
        if isinstance(atom, pddl.conditions.Atom) and atom.predicate != "="
    ]
    parameters = {
        a.name: [(p.name.strip("?"), p.type_name) for p in a.parameters] for a in task.actions
    }
    return Translation(sas, parameters, sorted(set(facts)))


def _load(path: Path) -> Translation | None:
    """A translation from disk; None when it is missing or damaged (it is only a cache)."""
    try:
        data: dict[str, Any] = json.loads(
            zlib.decompress(path.read_bytes())
        )  # zlib carries a checksum
        return Translation(
            sas=data["sas"],
            parameters={
                name: [(p, t) for p, t in pairs] for name, pairs in data["parameters"].items()
            },
            facts=[tuple(fact) for fact in data["facts"]],
        )
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def _save(path: Path, translation: Translation) -> None:
    """Write a translation so that others see all of it or nothing. A full or read-only disk costs
    only time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(zlib.compress(json.dumps(asdict(translation)).encode(), 1))
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
