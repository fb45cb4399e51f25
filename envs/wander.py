"""Acting at random: templates filled with names of what was read. For the random policy, which is
the floor of comparisons, and for checks, which want to see what no expert does."""

import random
import re
from collections.abc import Sequence

from .base import Suite

_USUAL = [
    "look", "inventory", "north", "south", "east", "west", "up", "down", "take {thing}",
    "drop {thing}", "open {thing}", "close {thing}", "examine {thing}", "go to {thing}",
]  # fmt: skip
_BLANK = re.compile(r"\{\w+\}")


def random_action(suite: Suite, rng: random.Random, observations: Sequence[str]) -> str:
    """A random template with random names; where a suite lists none, what most text games know.

    Args:
        suite: whose templates, and whose way of finding names.
        rng: chooses.
        observations: what was read so far, oldest first. What was read last counts three times: it
            is likeliest to be at hand.
    """
    forms = [template.text for template in suite.templates] or _USUAL
    last = list(observations[-1:])
    names = [n for text in [*observations, *last, *last] for n in suite.names(text)]
    parts = _BLANK.split(rng.choice(forms))
    filled = [part + rng.choice(names or ["it"]) for part in parts[:-1]]
    return "".join([*filled, parts[-1]])
