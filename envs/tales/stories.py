"""Files of text adventures, with the points that TALES counts."""

from dataclasses import replace

from ..textworld.engine import Answer
from ..textworld.env import TextWorldEnv

_ALMOST = 0.999
"""Score of who has all points and has not won."""


class StoryEnv(TextWorldEnv):
    """Plays the file that a task's payload names. Where a game is won with fewer points than there
    are, its score stays below 1, and `success` is True all the same."""

    def _normalised(self, answer: Answer) -> float:
        share = super()._normalised(replace(answer, won=False))
        complete = answer.score is None or share >= _ALMOST
        return 1.0 if answer.won and complete else min(_ALMOST, share)
