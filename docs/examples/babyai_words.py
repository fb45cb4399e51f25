"""BabyAI in words (`pip install minigrid`): its mission, what is seen, and actions.

relive.Agent(policy).run(lambda: BabyAIWords("BabyAI-PickupLoc-v0"), tasks=5, workers=2)
"""

import os

import gymnasium
from gymnasium import spaces

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import minigrid  # noqa: F401  (registers the levels)

ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done")


class BabyAIWords(gymnasium.Wrapper):
    """One level of BabyAI, for whoever reads and writes."""

    def __init__(self, level: str = "BabyAI-GoToLocal-v0") -> None:
        super().__init__(gymnasium.make(level, disable_env_checker=True))
        self.action_space = self.observation_space = spaces.Text(2000)

    def reset(self, *, seed=None, options=None):
        """Begin the level of a seed."""
        self.env.reset(seed=seed)
        mission = self.unwrapped.mission
        return f"{self.in_words()}\n\nYour task is to: {mission}.", {"goal": mission}

    def step(self, action):
        """Do what one of `ACTIONS` says; nothing happens for any other."""
        if action not in ACTIONS:
            told = f"You can do this: {', '.join(ACTIONS)}."
            return told, 0.0, False, False, {"invalid": True, "success": False}
        _, reward, ended, out_of_time, _ = self.env.step(ACTIONS.index(action))
        success = ended and reward > 0
        return self.in_words(), float(reward), ended, out_of_time, {"success": success}

    def in_words(self) -> str:
        """What is seen, in steps, nearest first, and what is carried."""
        grid, visible = self.unwrapped.gen_obs_grid()
        middle, bottom = grid.width // 2, grid.height - 1  # the agent stands there and looks up
        seen = []
        for x, y in zip(*visible.nonzero(), strict=True):
            thing, ahead, aside = grid.get(x, y), bottom - y, x - middle
            if thing is None or (ahead, aside) == (0, 0):
                continue
            if thing.type == "wall" and ahead and aside:
                continue  # only the walls that one would walk into
            name = thing.type if thing.type == "wall" else f"{thing.color} {thing.type}"
            if thing.type == "door":
                name = f"{'open' if thing.is_open else 'locked' * thing.is_locked or 'shut'} {name}"
            steps = ((ahead, "forward"), (-aside, "left"), (aside, "right"))
            where = " and ".join(f"{n} {way}" for n, way in steps if n > 0)
            seen.append((ahead + abs(aside), f"a {name} {where}"))
        carried = self.unwrapped.carrying
        hands = f" You carry a {carried.color} {carried.type}." if carried else ""
        return (
            f"You see (in steps) {', '.join(text for _, text in sorted(seen)) or 'nothing'}.{hands}"
        )
