"""What to learn from: which of the remembered episodes become training examples, and which tasks a
round plays to get more of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..envs import Suite
from ..envs.base import types_of
from ..memory import Memory
from ..memory.episode import Episode
from ..memory.holdout import TRAIN
from ..memory.search.ratings import clipped
from ..memory.storage.annotations import HUMAN, UNSAFE
from ..task import Task


@dataclass(frozen=True, slots=True)
class SelectSettings:
    """Which episodes are learnt from."""

    policies: tuple[str, ...] = ("local",)
    """Who must have acted: the agent's own successes by default; add ``expert`` to imitate
    demonstrations as well."""
    types: tuple[str, ...] = ()
    """Task types; empty for all. Whoever knows the suite may name its groups: see `of_suite`."""
    per_task: int = 1
    """Episodes kept of each task, the shortest first."""
    min_rating: float | None = field(default=0.0, metadata={"sparse": True})
    """Least rating ``human``, in [-1, 1], of what is learnt from; nothing said counts as 0. So what
    a person rated wrong is left out unless told otherwise: whoever takes the trouble knows more
    than the outcome that the environment reported, and a memory that nobody rated is not changed.
    None learns from it all the same. What is rated ``unsafe`` is never learnt from."""

    variations: tuple[str, ...] = field(default=(), metadata={"sparse": True})
    """What else is learnt from each episode, of the suite's `variation_kinds`: in the household
    ``wordings`` (the goal in its other words), ``hindsight`` (another goal that was reached) and
    ``reversal`` (the way back); see :mod:`relive.training.augment`."""

    def __post_init__(self) -> None:
        if self.min_rating is not None and not -1 <= self.min_rating <= 1:
            raise ValueError(
                f"select.min_rating is {self.min_rating}; ratings are from -1 (wrong) to 1 "
                "(helpful)"
            )


def select(
    memory: Memory, settings: SelectSettings, position: int | None = None, suite: str = ""
) -> list[Episode]:
    """Successful episodes of the train split that the memory held at a position, ordered by task.

    Args:
        memory: where to look.
        settings: which.
        position: log position to read at; None for now.
        suite: only episodes of this suite, and those of none; empty for all.

    Nothing of another split is ever learnt from, nor what was rated unsafe by then. Of several
    successes at one task the shortest are kept: they are the ones with the fewest refused actions
    and detours.
    """
    by_task: dict[str, list[tuple[int, int, str]]] = {}
    for entry in memory.entries(at=position):
        wanted = entry.success and entry.task.split == TRAIN and entry.policy in settings.policies
        wanted = wanted and (not suite or entry.task.suite in ("", suite))
        wanted = wanted and (not settings.types or entry.task.type in settings.types)
        if wanted and _approved(memory.ratings(entry.episode_id, position), settings):
            by_task.setdefault(entry.task.identity, []).append(
                (entry.steps, entry.position, entry.episode_id)
            )
    # By task, not in the order of the log: that depends on which of several episodes ended first.
    kept = [
        shortest
        for _, found in sorted(by_task.items())
        for shortest in sorted(found)[: settings.per_task]
    ]
    return [memory.get(episode, at=position) for _, _, episode in kept]


def _approved(ratings: Mapping[str, float], settings: SelectSettings) -> bool:
    """Whether people think that this may be learnt from."""
    if ratings.get(UNSAFE, 0.0) > 0:
        return False
    least = settings.min_rating
    return least is None or clipped(ratings.get(HUMAN, 0.0)) >= least


def of_suite(settings: SelectSettings, suite: Suite) -> SelectSettings:
    """The same settings, with the types of the groups that they name.

    Raises:
        ValueError: a name is neither a type nor a group of the suite.
    """
    types = types_of(suite, settings.types)
    if types:
        suite.tasks("train", 0, types)
    return replace(settings, types=types)


def why_nothing(
    memory: Memory, settings: SelectSettings, position: int | None = None, suite: str = ""
) -> str:
    """Why `select` finds nothing, and what to do, for a person: the first condition that no episode
    meets."""
    won = [e for e in memory.entries(at=position) if e.success and e.task.split == TRAIN]
    who = ", ".join(settings.policies)
    others = sorted({entry.task.suite for entry in won} - {"", suite})
    here = [entry for entry in won if not suite or entry.task.suite in ("", suite)]
    if won and not here:
        return (
            f"{len(won)} successes, but none of suite {suite!r}: play it first (relive run), or "
            f"also learn from {', '.join(others)}: --set retrieval.across=true"
        )
    won = here
    if not won:
        return "no success at a task of the train split: play some first (relive run)"
    of_them = [entry for entry in won if entry.policy in settings.policies]
    if not of_them:
        others = sorted({entry.policy for entry in won})
        chosen = ", ".join(f'"{name}"' for name in dict.fromkeys([*settings.policies, *others]))
        return (
            f"{len(won)} successes, but none of {who}: play tasks first (relive run), or also "
            f"learn from {', '.join(others)}: --set 'select.policies=[{chosen}]'"
        )
    wanted = [e for e in of_them if not settings.types or e.task.type in settings.types]
    if wanted:
        return (
            f"{len(wanted)} successes of {who}, but people rated them unsafe or below "
            f"{settings.min_rating}: play other tasks (relive run), take ratings back "
            "(relive memory unrate), or learn from them all the same: "
            "--set select.min_rating=-1"
        )
    types = sorted({entry.task.type for entry in of_them})
    return (
        f"{len(of_them)} successes of {who}, but none at the task types asked for "
        f"({', '.join(settings.types)}): play such tasks first, or change select.types; there are "
        f"successes at {', '.join(types)}"
    )


def tasks_of(episodes: Sequence[Episode]) -> list[str]:
    """Identities of the tasks, without repeats, in order."""
    return list(dict.fromkeys(episode.task.identity for episode in episodes))


def training_tasks(
    suite: Suite, types: Sequence[str], demonstrated: int, most: int, number: int
) -> list[Task]:
    """The train tasks of a round, behind those of the demonstrations and of earlier rounds: none is
    played twice, nor one that was demonstrated.

    Args:
        suite: whose tasks.
        types: which are played; at least one.
        demonstrated: demonstrations at the start, spread over all types of the suite.
        most: tasks of a round at most; fewer, or none, where a suite has no more.
        number: of the round, from 1.
    """
    if suite.size("train") is None:
        start = _per_type(demonstrated, suite.types) + (number - 1) * _per_type(most, types)
        return suite.tasks("train", most, types, start=start)
    # Types have more or less to offer, so that lists are not cut at the same place in each.
    used = {task.identity for task in suite.up_to("train", demonstrated)}
    everything = suite.tasks("train", suite.count("train", types), types)
    left = [task for task in everything if task.identity not in used]
    return left[(number - 1) * most : number * most]


def _per_type(count: int, types: Sequence[str]) -> int:
    """How many tasks of each type a list of `count` takes at most."""
    return -(-count // len(types))
