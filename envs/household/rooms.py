"""Which rooms and which seeds belong to which split, and which task types are easy, hard or
composed. Data, not code.

Of each kind of 30 rooms, 18 are for training, 6 for validation and 6 for testing. The rooms of a
kind were sorted by their number of receptacles and dealt out in turn, so that the three splits have
rooms of the same sizes.
"""

from collections.abc import Mapping

ROOMS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "train": {
        "Kitchen": (2, 3, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 18, 19, 23, 24, 25, 28),
        "LivingRoom": (
            201,
            202,
            204,
            206,
            207,
            209,
            210,
            211,
            215,
            217,
            218,
            219,
            220,
            221,
            224,
            226,
            228,
            229,
        ),
        "Bedroom": (
            301,
            302,
            304,
            307,
            309,
            311,
            312,
            314,
            317,
            318,
            320,
            321,
            323,
            324,
            326,
            327,
            329,
            330,
        ),
        "Bathroom": (
            404,
            406,
            407,
            409,
            410,
            412,
            413,
            414,
            416,
            417,
            418,
            419,
            422,
            423,
            424,
            427,
            428,
            430,
        ),
    },
    "valid": {
        "Kitchen": (11, 17, 20, 22, 29, 30),
        "LivingRoom": (203, 212, 214, 216, 222, 227),
        "Bedroom": (303, 306, 308, 310, 316, 325),
        "Bathroom": (401, 402, 403, 411, 415, 429),
    },
    "test": {
        "Kitchen": (1, 8, 13, 21, 26, 27),
        "LivingRoom": (205, 208, 213, 223, 225, 230),
        "Bedroom": (305, 313, 315, 319, 322, 328),
        "Bathroom": (405, 408, 420, 421, 425, 426),
    },
}
"""Split -> kind of room -> numbers of AI2-THOR floor plans."""

SEEDS: Mapping[str, range] = {
    "train": range(0, 100_000_000),
    "valid": range(100_000_000, 200_000_000),
    "test": range(200_000_000, 300_000_000),
}
"""Split -> seeds of its games."""

COMPOSED_SEEDS: Mapping[str, range] = {
    "train": range(300_000_000, 400_000_000),
    "valid": range(400_000_000, 500_000_000),
    "test": range(500_000_000, 600_000_000),
}
"""Split -> seeds of its games of composed types: a range of their own, since sharing the first
would renumber it."""

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""ALFWorld's own names, in the order in which reports list them."""

COMPOSED_TYPES = ("pick_heat_two_obj_and_place", "pick_clean_then_cool_and_place")
"""Put together from two types each (`relive.envs.household.goals`). Sealed: no list holds them
unless they are asked for by name, so that nothing is ever tuned on them."""

ALL_TYPES = TASK_TYPES + COMPOSED_TYPES

GROUPS: Mapping[str, tuple[str, ...]] = {
    "easy": TASK_TYPES[:3],
    "hard": TASK_TYPES[3:],
    "composed": COMPOSED_TYPES,
}
"""Easy types are trained on; hard ones are only ever met at test time (Ferraz et al.,
arXiv:2603.18272), and composed ones only once what is tested is final."""


def seeds_of(split: str, task_type: str) -> range:
    """Seeds of a type's games in a split, in the order of the games; no two (split, type) share
    one."""
    types, seeds = (
        (COMPOSED_TYPES, COMPOSED_SEEDS) if task_type in COMPOSED_TYPES else (TASK_TYPES, SEEDS)
    )
    return seeds[split][types.index(task_type) :: len(types)]


def task_seed(split: str, task_type: str, index: int) -> int:
    """Seed of the `index`-th game of a type in a split; no two (split, type, index) share one.

    Raises:
        ValueError: `index` is negative or lies beyond the split's seeds.
    """
    seeds = seeds_of(split, task_type)
    if not 0 <= index < len(seeds):
        raise ValueError(
            f"game {index} of {task_type!r} is outside the seeds of split {split!r} ({seeds})"
        )
    return seeds[index]
