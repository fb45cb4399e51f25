"""Which games TALES has, and which of them can be played here.

The lists are in ``games.json``, with the files and commits of TALES' repository that they were read
from. Two of its five families need nothing but their packages (TextWorldExpress and ScienceWorld);
of the others it downloads files, which are looked for where it keeps them.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..registry import get_suite

FAMILIES = ("textworld", "textworld_express", "alfworld", "scienceworld", "jericho")
"""The five families of TALES, by the names that it gives them."""
REMADE = "textworld_remade"
"""Cooking games made again from seeds and settings, where TALES' own files are not there: the same
recipes and points, in other words. Not TALES' games, and listed only when asked for."""
SPLITS = ("train", "valid", "test")
"""TALES reports on ``test``: one game of each environment. What it does not report on is ``train``.
It has no validation split; ``valid`` is the one of the packages, which it leaves untouched."""
VARIABLE = "TALES_CACHE_HOME"

_FILES = ("textworld", "alfworld", "jericho")

_FIRST_SEED: Mapping[str, int] = {"train": 0, "valid": 10_000, "test": 20_000}
"""Of a split of TextWorldExpress, which has a thousand seeds in each."""
_EXPRESS_SEEDS = 1000


class MissingGamesError(ValueError):
    """TALES' files of a family are not there; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Game:
    """One game of one environment of TALES."""

    family: str
    name: str
    """The environment, as TALES calls it, for example ``TWXSorting``."""
    which: str
    """The game: a seed, a task with a split and the variation's place in it, or a path below the
    family's folder."""


@cache
def lists() -> Any:
    """What is in ``games.json``."""
    text = files(__package__).joinpath("games.json").read_text(encoding="utf-8")
    return json.loads(text)


def cache_home() -> Path:
    """Where TALES keeps its files: ``$TALES_CACHE_HOME``, or the folder it takes without it."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "tales"


def folder_of(family: str) -> Path:
    """The folder that a family's files lie in, and that `Game.which` is relative to."""
    if family == "textworld":
        return cache_home() / "textworld" / "tw-cooking"
    if family == "alfworld":
        own = cache_home() / "alfworld"
        named = os.environ.get("ALFWORLD_DATA")
        return Path(named).expanduser() if named and not own.is_dir() else own
    return cache_home() / family


def games_of(family: str, split: str) -> Sequence[Game]:
    """The games of a family in a split, each environment in turn; nothing where its files are not
    there."""
    return _LISTED[family](split)


def available() -> tuple[str, ...]:
    """The families whose games are there, in TALES' order; of those that need no files nothing is
    asked before they are played."""
    return tuple(f for f in FAMILIES if f not in _FILES or games_of(f, "test"))


def missing(family: str) -> MissingGamesError:
    """What to say of a family whose files are not there."""
    folder = folder_of(family)
    get = {
        "textworld": (
            "unpack the folders test/ of GATA's rl.0.2.zip there (its address is in TALES' "
            "tales/textworld/textworld_data.py), or play the same recipes made again: "
            f"--types {REMADE}"
        ),
        "alfworld": (
            "alfworld-download gets them into $ALFWORLD_DATA, which is looked at, too; TALES plays "
            "those of json_2.1.3_tw-pddl.zip"
        ),
        "jericho": (
            "TALES' own command gets them: python -c 'from tales.jericho import download; "
            "download()'"
        ),
    }[family]
    return MissingGamesError(
        f"suite 'tales' finds no games of {family!r} in {folder} (${VARIABLE} is the folder above "
        f"it): {get}"
    )


def _express(split: str) -> Sequence[Game]:
    count = 1 if split == "test" else _EXPRESS_SEEDS
    first = _FIRST_SEED[split]
    return [
        Game("textworld_express", f"TWX{game['name']}", str(seed))
        for seed in range(first, first + count)
        for game in lists()["textworld_express"]
    ]


def _science(split: str) -> Sequence[Game]:
    suite = get_suite("scienceworld")
    sizes = {kind: suite.count(suite.split_of(split), (kind,)) for kind in suite.types}
    # One variation of each task in turn; the first of the test split is the one that is reported.
    most = 1 if split == "test" else max(sizes.values())
    return [
        Game("scienceworld", _science_name(kind), f"{kind} {suite.split_of(split)} {number}")
        for number in range(most)
        for kind, size in sizes.items()
        if number < size
    ]


def _science_name(kind: str) -> str:
    return f"ScienceWorld{kind.title().replace('-', '')}"


def _cooking(split: str) -> Sequence[Game]:
    folder = folder_of("textworld")
    found = {
        level: sorted(p.name for p in (folder / "test" / f"difficulty_level_{level}").glob("*.z8"))
        for level in lists()["textworld"]["levels"]
    }
    chosen = _first_or_rest(found, split)
    return [
        Game("textworld", f"TWCookingLevel{level}", f"test/difficulty_level_{level}/{name}")
        for level, name in chosen
    ]


def _remade(split: str) -> Sequence[Game]:
    told = lists()["textworld"]
    seeds = {level: [str(seed) for seed in told["seeds"]] for level in told["levels"]}
    return [
        Game(REMADE, f"TWCookingLevel{level}", seed) for level, seed in _first_or_rest(seeds, split)
    ]


def _alfworld(split: str) -> Sequence[Game]:
    folder = folder_of("alfworld")
    found: dict[str, list[str]] = {}
    for seen in ("seen", "unseen"):
        for kind in lists()["alfworld"]:
            # As TALES looks for them: nothing is left out, and two folders lie above a file.
            paths = folder.glob(f"json_2.1.1/valid_{seen}/{kind}*/*/*.tw-pddl")
            name = f"ALFWorld{kind.replace('_', ' ').title().replace(' ', '')}{seen.title()}"
            found[name] = sorted(path.relative_to(folder).as_posix() for path in paths)
    return [Game("alfworld", name, path) for name, path in _first_or_rest(found, split)]


def _jericho(split: str) -> Sequence[Game]:
    if split != "test":
        return []
    folder = folder_of("jericho")
    there = {path.stem: path.name for path in folder.glob("*.z[1-8]")}
    return [
        Game("jericho", f"JerichoEnv{name.title()}", there[name])
        for name in lists()["jericho"]
        if name in there
    ]


_LISTED: Mapping[str, Callable[[str], Sequence[Game]]] = {
    "textworld": _cooking,
    REMADE: _remade,
    "textworld_express": _express,
    "alfworld": _alfworld,
    "scienceworld": _science,
    "jericho": _jericho,
}


def _first_or_rest(found: Mapping[str, Sequence[str]], split: str) -> list[tuple[str, str]]:
    """Of several games of each environment, the first by name is for tests, the others for
    training; one of each environment in turn."""
    if split == "valid":
        return []
    kept = {name: games[:1] if split == "test" else games[1:] for name, games in found.items()}
    most = max((len(games) for games in kept.values()), default=0)
    return [
        (name, games[number])
        for number in range(most)
        for name, games in kept.items()
        if number < len(games)
    ]
