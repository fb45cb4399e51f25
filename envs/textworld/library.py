"""Where made games are kept, and how they come there: each is compiled once and then found."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ...caches import cache_folder
from .recipes import TEXTWORLD

_ABANDONED = 3600.0
"""Seconds after which a half-made game is nobody's any more."""
_MANY = 3
"""From so many games on it is said how far it is."""


class CompileError(RuntimeError):
    """TextWorld could not make a game; the message says which and why."""


def folder() -> Path:
    """Where games are kept, about 0.5 MB each; below `relive.caches.cache_folder`."""
    return cache_folder("textworld") / TEXTWORLD


def game_file(recipe: dict[str, Any]) -> Path:
    """The file of a game, made now if it is not there (some seconds).

    Raises:
        CompileError: it cannot be made.
    """
    path = _path(recipe)
    if not path.exists():
        compile_games([recipe])
    return path


def compile_games(
    recipes: Iterable[dict[str, Any]],
    processes: int = 1,
    tell: Callable[[int, int], object] | None = None,
) -> int:
    """Make the games that are not there yet. Several processes may do it at once: a game appears in
    one piece, and one that is made twice is the same.

    Args:
        recipes: of games, see `relive.envs.textworld.recipes.recipe_of`.
        processes: games made at a time, a core for each.
        tell: called with (made, of how many) after each. By default a line on standard error says
            it, where that is a terminal and there are more than a few.

    Returns:
        How many were made.

    Raises:
        CompileError: one cannot be made; the others were.
    """
    missing = {recipe["name"]: recipe for recipe in recipes if not _path(recipe).exists()}
    if not missing:
        return 0
    folder().mkdir(parents=True, exist_ok=True)
    _sweep()
    line = None if tell else _line(len(missing))
    tell = tell or (line.write if line else None)
    made, failed = 0, list[str]()
    try:
        for answer in _made(list(missing.values()), max(1, processes)):
            made += 1
            if answer["error"]:
                failed.append(f"{answer['name']} ({missing[answer['name']]}): {answer['error']}")
            if tell:
                tell(made, len(missing))
    finally:
        if line:
            line.end()
    if failed:
        raise CompileError(
            f"TextWorld {TEXTWORLD} could not make {len(failed)} of {len(missing)} games: "
            f"{failed[0]:.600}"
        )
    return made


def _path(recipe: dict[str, Any]) -> Path:
    return folder() / f"{recipe['name']}.z8"


def _made(recipes: Sequence[dict[str, Any]], processes: int) -> Iterator[dict[str, str]]:
    """The compilers' answers, one a game, as they come."""
    with tempfile.TemporaryFile() as errors:
        shares = [recipes[number::processes] for number in range(processes)]
        running = [(_start(share, errors), len(share)) for share in shares if share]
        try:
            yield from _answers(running, errors)
        finally:
            for process, _ in running:
                process.kill()
                process.wait()


def _answers(
    running: list[tuple["subprocess.Popen[str]", int]], errors: IO[bytes]
) -> Iterator[dict[str, str]]:
    while running:
        for entry in list(running):
            process, expected = entry
            assert process.stdout is not None
            line = process.stdout.readline()
            running.remove(entry)
            if line.endswith("\n"):  # a whole one
                yield json.loads(line)
                if expected > 1:
                    running.append((process, expected - 1))
                    continue
            code = process.wait()
            if not line.endswith("\n"):
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()
                raise CompileError(
                    f"the program that makes TextWorld's games ended with exit code {code} "
                    f"before {expected} of them were made: {said[-500:] or 'it said nothing'}"
                )


def _start(recipes: Sequence[dict[str, Any]], errors: IO[bytes]) -> "subprocess.Popen[str]":
    program = Path(__file__).with_name("compiler.py")
    process = subprocess.Popen(
        [sys.executable, "-P", str(program), str(folder())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        env={
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PYTHONUTF8": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        json.dump(list(recipes), process.stdin)
    return process


def _sweep() -> None:
    """Remove what compilers left behind that were killed."""
    for draft in folder().glob(".making-*"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _ABANDONED:
                shutil.rmtree(draft, ignore_errors=True)


class _Line:
    """A line on a terminal that says how far it is."""

    def __init__(self, terminal: IO[str]) -> None:
        self._terminal = terminal

    def write(self, made: int, of: int) -> None:
        self._terminal.write(f"\rmaking TextWorld games, kept for later: {made} of {of}")
        self._terminal.flush()

    def end(self) -> None:
        self._terminal.write("\n")


def _line(games: int) -> _Line | None:
    return _Line(sys.stderr) if games > _MANY and sys.stderr.isatty() else None
