"""Acting at random: templates filled with names of what was read. For the random policy, which is
the floor of comparisons, and for checks, which want to see what no expert does."""

import random
import re
from collections.abc import Sequence

from .base import Suite

_BLANK = re.compile(r"\{\w+\}")


def random_action(suite: Suite, rng: random.Random, observations: Sequence[str]) -> str:
    """A random template with random names.

    Args:
        suite: whose templates, and whose way of finding names.
        rng: chooses.
        observations: what was read so far, oldest first. What was read last counts three times: it
            is likeliest to be at hand.

    Raises:
        ValueError: the suite lists no templates.
    """
    if not suite.templates:
        raise ValueError(
            f"suite {suite.name!r} lists no action templates to choose from: choose among "
            "admissible commands (run.admissible) where it can list them"
        )
    last = list(observations[-1:])
    names = [n for text in [*observations, *last, *last] for n in suite.names(text)]
    parts = _BLANK.split(rng.choice(suite.templates).text)
    filled = [part + rng.choice(names or ["it"]) for part in parts[:-1]]
    return "".join([*filled, parts[-1]])
