"""TextArena's games for one player, as an environment for `relive`.

    relive.Agent(policy).run(lambda: TextArenaGame("Mastermind-v0"), tasks=5, workers=2)

It needs `pip install textarena`.
"""

import random
import re

import gymnasium
import textarena
from gymnasium import spaces

GAMES = "FrozenLake-v0 GuessTheNumber-v0 Mastermind-v0 Sokoban-v0 TowerOfHanoi-v0".split()
"""Games that need nothing from outside; TextArena has more, and harder variants of these."""


class TextArenaGame(gymnasium.Env[str, str]):
    """One game of TextArena. An action may be written with or without its square brackets."""

    observation_space = action_space = spaces.Text(100_000, min_length=0)

    def __init__(self, game: str = "FrozenLake-v0") -> None:
        self._game = textarena.make(f"{game}-raw")  # without wrappers: each message once
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", game.split("-")[0])
        self._goal = f"win a game of {words}"

    def reset(self, *, seed=None, options=None):
        """Begin the game of a seed."""
        super().reset(seed=seed)
        # The games draw from Python's global generator: each keeps a state of its own.
        self._drawn = random.Random(seed).getstate()
        self._play(lambda: self._game.reset(num_players=1, seed=seed))
        return self._told(), {"goal": self._goal}

    def step(self, action):
        """Make a move. A first mistake is forgiven, a second one in a row loses."""
        move = action if "[" in action else f"[{action}]"
        done, _ = self._play(lambda: self._game.step(move))
        invalid = self._game.state.error_count > 0
        if not done:
            return self._told(), 0.0, False, False, {"success": False, "invalid": invalid}
        points = float(self._game.state.rewards[0])  # 1 for a win, less for a part of it
        told = f"{self._told()}\n{self._game.state.game_info[0]['reason']}"
        return told, points, True, False, {"success": points >= 1, "score": points}

    def _play(self, move):
        before = random.getstate()
        random.setstate(self._drawn)
        try:
            return move()
        finally:
            self._drawn = random.getstate()
            random.setstate(before)

    def _told(self) -> str:
        _, messages = self._game.get_observation()
        return "\n".join(text.strip() for sender, text, _ in messages if sender < 0)
