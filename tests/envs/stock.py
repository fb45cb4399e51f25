"""TextWorld's own engine with ALFWorld's names, as they come: the oracle that the fast engine is
compared with.

Slow (50-100 ms per step, a second or two per game) and used by nothing but tests, the script that
writes the golden transcripts, and the benchmark.
"""

import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relive.envs.household import assets
from relive.envs.household.generator import Game
from relive.envs.household.translate import process_state_kept


class StockEngine:
    """The same interface as `relive.envs.household.engine.Engine`."""

    def __init__(self) -> None:
        import textworld
        from textworld.envs import PddlEnv

        with _alfworld_data_elsewhere():
            alfred: Any = importlib.import_module("alfworld.agents.environment.alfred_tw_env")
        infos = textworld.EnvInfos(admissible_commands=True, won=True)
        self._env: Any = alfred.AlfredDemangler(PddlEnv(infos), shuffle=False)
        self._state: Any = None

    def load(self, game: Game) -> None:
        """Take up a game."""
        grammar = game.grammar.replace(assets.GOAL_PLACEHOLDER, game.goal)
        with process_state_kept():
            self._env.load(
                {"pddl_domain": game.domain, "grammar": grammar, "pddl_problem": game.problem}
            )

    def reset(self) -> str:
        """Start the loaded game; returns its opening text."""
        with process_state_kept():
            self._state = self._env.reset()
        return str(self._state.feedback)

    def step(self, command: str) -> str:
        """Carry out a command; returns the feedback."""
        self._state, _, _ = self._env.step(command)
        return str(self._state.feedback)

    def won(self) -> bool:
        """Whether the goal holds now."""
        return bool(self._state["won"])

    def admissible(self) -> list[str]:
        """All commands that would be carried out now, sorted."""
        return list(self._state["admissible_commands"])


@contextmanager
def _alfworld_data_elsewhere() -> Iterator[None]:
    """Import alfworld without leaving a folder in the user's cache, which it makes on import."""
    before = os.environ.get("ALFWORLD_DATA")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALFWORLD_DATA"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["ALFWORLD_DATA"]
            else:
                os.environ["ALFWORLD_DATA"] = before
