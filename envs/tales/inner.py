"""The environments that TALES is put together from, and their tasks for its games."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...extras import needs
from ...task import Task, identity_of
from ..base import TextEnv
from ..registry import get_suite
from .games import REMADE, Game, folder_of, lists

Inner = tuple[Callable[[], TextEnv], Callable[[Game], Task]]
"""How to make the environment of a family, and what it is told to play a game."""


def recipe_of(level: str, seed: int) -> dict[str, Any]:
    """What `relive.envs.textworld.library` makes a cooking game from."""
    settings = dict(lists()["textworld"]["levels"][level])
    told = [f"{name}={settings[name]}" for name in sorted(settings)]
    return {
        "name": identity_of("tales", "tw-cooking", *told, str(seed)),
        "challenge": "tw-cooking",
        "settings": settings,
        "seed": seed,
    }


def _never(*_: Any) -> Task:
    raise ValueError("give the task to play: options={'task': task}")


def _stories() -> TextEnv:
    with needs("textworld"):
        from .stories import StoryEnv

    return StoryEnv(lambda task: Path(task.payload), _never)


def _story(game: Game) -> Task:
    return Task.of("", suite=game.family, payload=str(folder_of(game.family) / game.which))


def _remade(game: Game) -> Task:
    from ..textworld import library

    level = game.name.removeprefix("TWCookingLevel")
    path = library.game_file(recipe_of(level, int(game.which)))
    return Task.of("", suite=game.family, payload=str(path))


def _household() -> TextEnv:
    from ..alfworld.env import AlfworldEnv

    return AlfworldEnv(folder_of("alfworld"), _never)


def _household_game(game: Game) -> Task:
    from ..alfworld.env import SUITE
    from ..household.engine import read_game
    from ..household.generator import identity

    found = identity(read_game(folder_of("alfworld") / game.which).problem)
    return Task.of("", suite=SUITE, identity=found, payload=game.which)


def _express() -> TextEnv:
    from .express import ExpressEnv

    return ExpressEnv()


def _express_game(game: Game) -> Task:
    return Task.of("", suite=game.family, payload=f"{game.name} {game.which}")


def _science() -> TextEnv:
    return get_suite("scienceworld").make()


def _science_game(game: Game) -> Task:
    kind, split, number = game.which.split(" ")
    (task,) = get_suite("scienceworld").tasks(split, 1, (kind,), int(number))
    return task


INNER: Mapping[str, Inner] = {
    "textworld": (_stories, _story),
    REMADE: (_stories, _remade),
    "textworld_express": (_express, _express_game),
    "alfworld": (_household, _household_game),
    "scienceworld": (_science, _science_game),
    "jericho": (_stories, _story),
}
