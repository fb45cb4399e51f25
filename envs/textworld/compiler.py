"""Makes TextWorld games. A program of its own, run by `relive.envs.textworld.library`.

Cooking games differ by the order of Python's sets, so a game is the same everywhere only where
PYTHONHASHSEED is; and the generators change settings of their library that the next game would
see. A process of its own, with that variable set, rules out both. It imports nothing of this
package, which would only make it slower.

Usage: ``python -P compiler.py FOLDER < recipes.json``, a list of objects with ``name``,
``challenge``, ``settings`` and ``seed``. Writes ``FOLDER/name.z8`` and ``FOLDER/name.json``, and
one line of JSON on standard output for each game: ``{"name": …, "error": …}``.
"""

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ATTEMPTS = 5
"""Seeds tried for a game whose generator gives up, or whose walk-through does not win."""
_STRIDE = 900_000_011
"""From one attempt's seed to the next: outside of the seeds that the suite lists."""
_WON = "*** The End ***"


class GivenUp(Exception):
    """No attempt gave a game."""


def make(recipe: dict[str, Any], folder: Path) -> None:
    """Write one game into a folder: first ``name.json``, then ``name.z8``, each in one piece.

    Raises:
        GivenUp: no attempt gave a game that its own walk-through wins.
    """
    reason = ""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as workshop:
        draft = Path(workshop) / "game.z8"
        for attempt in range(ATTEMPTS):
            reason = _attempt(recipe, (recipe["seed"] + attempt * _STRIDE) % 2**32, draft)
            if not reason:
                break
        else:
            raise GivenUp(reason)
        for suffix in (".json", ".z8"):  # who finds the .z8 finds both
            os.replace(draft.with_suffix(suffix), folder / f"{recipe['name']}{suffix}")


def _attempt(recipe: dict[str, Any], seed: int, path: Path) -> str:
    """Generate and compile with a seed; returns why that gave no game, or nothing."""
    import textworld
    from textworld.challenges import CHALLENGES
    from textworld.generator import compile_game
    from textworld.generator.chaining import QuestGenerationError
    from textworld.generator.inform7 import CouldNotCompileGameError

    options = textworld.GameOptions()
    options.seeds, options.path, options.force_recompile = seed, str(path), True
    try:
        game = CHALLENGES[recipe["challenge"]][1](dict(recipe["settings"]), options)
        compile_game(game, options)
    except (QuestGenerationError, CouldNotCompileGameError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if _won_by(game.metadata["walkthrough"], path) else "its walk-through does not win it"


def _won_by(commands: list[str], path: Path) -> bool:
    import jericho

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not know the game, and need not
        game = jericho.FrotzEnv(str(path), seed=1)
        game.reset()
    return any(_WON in game.step(command)[0] for command in commands)


def main() -> None:
    """Make what standard input asks for."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever the libraries print is no answer
    folder = Path(sys.argv[1])
    for recipe in json.load(sys.stdin):
        error = ""
        try:
            make(recipe, folder)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        print(json.dumps({"name": recipe["name"], "error": error}), file=answers)


if __name__ == "__main__":
    main()
