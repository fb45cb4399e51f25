"""The index of ALFWorld's games: what lists need to know of each file, read once and kept.

Reading thousands of games takes seconds; the index is kept in the cache and only files that are new
or have changed are read again. It holds every game that could be played, and which of them are
listed is decided by the rules of the official loader (`AlfredTWEnv.collect_game_files`).
"""

import json
import os
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...caches import cache_folder
from ...task import identity_of
from ..household.engine import read_game_file
from ..household.generator import identity
from ..household.rooms import TASK_TYPES
from .data import SPLITS, TRAJECTORY, Found, games_in, missing
from .forms import dialect_named, forms_of

INDEX_FORMAT = 1
"""Bump when `Entry` changes or is made in another way; older files are then ignored."""
_SHOWN_EVERY = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of a game."""

    type: str
    """As its trajectory says, or else the name of its folder."""
    solvable: bool | None
    """None where the file does not say."""
    identity: str
    goal: str
    forms: dict[str, str]
    """See `relive.envs.alfworld.forms`."""


@dataclass(frozen=True, slots=True)
class Game:
    """A listed game."""

    file: Found
    entry: Entry


class Index:
    """The listed games of a data folder.

    Args:
        folder: the data folder (``$ALFWORLD_DATA``).

    Raises:
        MissingDataError: there are no games in it.
        ValueError: a file cannot be read, or games of two dialects are mixed; the message says
            which and what to do.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = [file for split in SPLITS for file in games_in(folder, split)]
        if not found:
            raise missing(folder)
        entries = _entries(folder, found)
        pairs = [Game(file, entries[file.path]) for file in found]
        # A folder for which this is False has no game that the official loader would take.
        self.checked = any(_is_complete(game) for game in pairs)
        """Whether games have all that the official loader asks for: a trajectory, and the note that
        they were found solvable. Where none has, these two are not asked for."""
        reasons = [self._reason(game) for game in pairs]
        self.left_out: Mapping[str, int] = Counter(reason for reason in reasons if reason)
        """Why games are not listed, with their number."""
        self._games: dict[tuple[str, str], list[Game]] = {}
        for game, reason in zip(pairs, reasons, strict=True):
            if not reason:
                self._games.setdefault((game.file.split, game.entry.type), []).append(game)
        self.forms = self._forms_of_all()
        """The action forms that all listed games share."""

    def games(self, split: str, task_type: str) -> Sequence[Game]:
        """The games of a split and type, in the order of their paths."""
        return self._games.get((split, task_type), [])

    def _reason(self, game: Game) -> str:
        """Why the official loader would leave a game out; empty where it would not."""
        if game.entry.type not in TASK_TYPES:
            return "of another type"
        if game.entry.solvable is False:
            return "not solvable"
        if self.checked and not game.file.has_trajectory:
            return f"no {TRAJECTORY}"
        if self.checked and game.entry.solvable is None:
            return "not checked for being solvable"
        return ""

    def _forms_of_all(self) -> dict[str, str]:
        first: dict[str, Game] = {}  # by form, as text
        numbers: Counter[str] = Counter()
        for games in self._games.values():
            for game in games:
                key = json.dumps(game.entry.forms, sort_keys=True)
                first.setdefault(key, game)
                numbers[key] += 1
        if len(first) > 1:
            some = "; ".join(
                f"{numbers[key]} say {dialect_named(game.entry.forms)!r} ({game.file.path})"
                for key, game in first.items()
            )
            raise ValueError(
                f"games of different dialects are mixed in {self.folder}: {some}. A prompt can "
                "list one dialect only: keep them in folders of their own, and set "
                "ALFWORLD_DATA to one of them"
            )
        return next((game.entry.forms for game in first.values()), {})


def _is_complete(game: Game) -> bool:
    return game.file.has_trajectory and game.entry.solvable is not None


def _entries(folder: Path, found: Sequence[Found]) -> dict[str, Entry]:
    """Path -> entry, from the cache where the files are still the same."""
    cache = _cache_file(folder)
    kept = _load(cache)
    entries: dict[str, Entry] = {}
    fresh = []
    for file in found:
        state, entry = kept.get(file.path, ((), None))
        if entry is not None and state == file.state:
            entries[file.path] = entry
        else:
            fresh.append(file)
    with _Progress(len(fresh)) as progress:
        for file in fresh:
            entries[file.path] = read_entry(folder, file)
            progress.step()
    if fresh or len(kept) != len(found):
        _save(cache, {file.path: (file.state, entries[file.path]) for file in found})
    return entries


def read_entry(folder: Path, file: Found) -> Entry:
    """Read a game and its trajectory.

    Raises:
        ValueError: one of them is damaged.
    """
    path = folder / file.path
    try:
        game, data = read_game_file(path)
        forms = forms_of(game.grammar)
        task_type = file.task_folder.partition("-")[0]
        if file.has_trajectory:
            task_type = str(json.loads(path.with_name(TRAJECTORY).read_bytes())["task_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"a game of ALFWorld cannot be read, {path.parent}: {type(error).__name__}: {error}. "
            "Get it anew (alfworld-download -f), or remove its folder"
        ) from error
    return Entry(
        task_type,
        bool(data["solvable"]) if "solvable" in data else None,
        identity(game.problem),
        game.goal,
        forms,
    )


def _cache_file(folder: Path) -> Path:
    name = identity_of(str(folder.resolve()))
    return cache_folder("alfworld") / f"index-v{INDEX_FORMAT}" / f"{name}.json.z"


def _load(path: Path) -> dict[str, tuple[tuple[int, ...], Entry]]:
    """What was kept; nothing where it is missing or damaged (it is only a cache)."""
    try:
        data: Any = json.loads(zlib.decompress(path.read_bytes()))
        forms = data["forms"]
        return {
            name: (tuple(state), Entry(**{**fields, "forms": forms[fields["forms"]]}))
            for name, (state, fields) in data["games"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, zlib.error):
        return {}


def _save(path: Path, kept: Mapping[str, tuple[tuple[int, ...], Entry]]) -> None:
    """Write the index so that others see all of it or nothing. A full or read-only disk costs only
    time."""
    forms: list[dict[str, str]] = []
    games = {}
    for name, (state, entry) in kept.items():
        if entry.forms not in forms:
            forms.append(entry.forms)
        games[name] = (state, {**asdict(entry), "forms": forms.index(entry.forms)})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(zlib.compress(json.dumps({"forms": forms, "games": games}).encode(), 1))
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise


class _Progress:
    """One line on a terminal's standard error while files are read; nothing anywhere else."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._shown = total >= _SHOWN_EVERY and sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> "_Progress":
        return self

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._shown and self._done % _SHOWN_EVERY == 0:
            self._show(f"reading ALFWorld's games, once: {self._done}/{self._total}")

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._show("")

    @staticmethod
    def _show(text: str) -> None:
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()
