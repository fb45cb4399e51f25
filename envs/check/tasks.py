"""The part of a suite's contract that needs no environment: what it says of itself and the tasks
that it lists. Each check raises :class:`Broken` where the contract is."""

import pickle
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations

from ...task import Task
from ..base import Suite

_KINDS = ("move", "look", "act")
_IDENTITY = re.compile(r"[0-9a-f]{16,}")


class Broken(Exception):
    """A check found the contract broken."""


def need(condition: object, message: str) -> None:
    """Raise :class:`Broken` unless the condition holds."""
    if not condition:
        raise Broken(message)


def check_description(suite: Suite) -> None:
    """A suite says what it is."""
    for name in ("name", "version", "types", "groups", "templates", "instructions", "max_steps"):
        need(hasattr(suite, name), f"attribute {name!r} is missing: see relive.envs.base.Suite")
    for name in ("name", "version", "instructions"):
        value = getattr(suite, name)
        need(isinstance(value, str) and value, f"{name} must be a non-empty string, not {value!r}")
    need(
        suite.types and len(set(suite.types)) == len(suite.types),
        "types must name each task type once",
    )
    for group, types in suite.groups.items():
        for task_type in types:
            need(
                _lists(suite, task_type),
                f"group {group!r} names a type that the suite lacks: {task_type!r}",
            )
    need("train" in suite.splits, f"splits must name 'train', and are {suite.splits}")
    for role in ("valid", "test"):
        suite.split_of(role)
    for name, allowed in (
        ("expert_kind", ("", "reads text", "scripted")),
        ("goal_form", ("phrase", "instruction")),
        ("condense_by", ("visits", "changes")),
    ):
        value = getattr(suite, name)
        need(value in allowed, f"{name} is {value!r}: use one of {allowed}")
    for template in suite.templates:
        need(
            template.kind in _KINDS,
            f"template {template.text!r} has kind {template.kind!r}: use one of {_KINDS}",
        )
    need(
        isinstance(suite.max_steps, int) and suite.max_steps > 0,
        "max_steps must be a positive number",
    )


def _lists(suite: Suite, task_type: str) -> bool:
    """Whether a suite has a type: among its `types`, or listed when asked for by name."""
    if task_type in suite.types:
        return True
    with suppress(ValueError):
        return {task.type for task in suite.tasks("train", 1, (task_type,))} == {task_type}
    return False


def check_listing(suite: Suite, per_type: int) -> None:
    """As many tasks as are asked for, or as there are, each once, of the right split and type."""
    for split in suite.splits:
        size = suite.size(split)
        need(size is None or size >= 0, f"size({split!r}) is {size}")
        count = per_type * len(suite.types) if size is None else min(size, 2 * len(suite.types))
        tasks = suite.tasks(split, count)
        need(
            len(tasks) == count,
            f"tasks({split!r}, {count}) gave {len(tasks)}: generate more, or say in size() how "
            "many there are",
        )
        need(
            len({t.identity for t in tasks}) == count,
            f"tasks({split!r}, {count}) lists a game twice",
        )
        for task in tasks:
            _check_task(suite, split, task)
        if size is not None:
            try:
                suite.tasks(split, size + 1)
            except ValueError:
                continue
            raise Broken(
                f"tasks({split!r}, {size + 1}) gives something, though size({split!r}) is {size}: "
                "raise a ValueError (relive.envs.listing.spread does)"
            )
    for task_type in suite.types:
        size = suite.size("train", (task_type,))
        types = {t.type for t in suite.up_to("train", 2, (task_type,))}
        need(
            types == {task_type} or size == 0,
            f"tasks('train', 2, ({task_type!r},)) gave types {types}",
        )
    there = {kind for kind in suite.types if suite.size("train", (kind,)) != 0}
    types = {task.type for task in suite.up_to("train", len(there))}
    need(
        types == there,
        f"tasks('train', {len(there)}) covers only {types}: spread over all types",
    )


def _check_task(suite: Suite, split: str, task: Task) -> None:
    where = f"tasks({split!r}, ...) gave {task}"
    need(task.suite == suite.name, f"{where}: suite must be {suite.name!r}")
    need(task.split == split, f"{where}: split must be {split!r}")
    need(task.type in suite.types, f"{where}: its type is not among the suite's {suite.types}")
    need(task.version == suite.version, f"{where}: version must be {suite.version!r}")
    need(
        _IDENTITY.fullmatch(task.identity),
        f"{where}: identity must be a hash, 16 hex digits or more, of the game",
    )
    need(
        not task.goal.endswith(".") or suite.goal_form == "instruction",
        f"{where}: goal must be a sentence without its full stop",
    )
    limit = suite.limit(task)
    need(isinstance(limit, int) and limit > 0, f"{where}: limit() is {limit!r}, not a number >= 1")


def check_stable(suite: Suite, per_type: int) -> None:
    """The same tasks every time, and further ones behind them."""
    for split in suite.splits:
        types = len(suite.types)
        first = suite.up_to(split, per_type * types)
        need(
            first == suite.up_to(split, per_type * types),
            f"tasks({split!r}, {per_type * types}) differs between two calls: use the seed",
        )
        every = [kind for kind in suite.types if suite.size(split, (kind,), 1) != 0]
        if not every:
            continue
        both = suite.tasks(split, 2 * len(every), every)
        parts = [
            *suite.tasks(split, len(every), every),
            *suite.tasks(split, len(every), every, start=1),
        ]
        need(
            {t.identity for t in both} == {t.identity for t in parts},
            f"tasks({split!r}, ..., start=1) does not continue the list: start skips that many "
            "tasks per type",
        )


def check_disjoint(suite: Suite, per_type: int) -> None:
    """No task or seed in two splits; nor a room, but for splits that declare it."""
    count = max(2 * per_type, 4) * len(suite.types)
    listed = {split: suite.up_to(split, count) for split in suite.splits}
    for first, second in combinations(suite.splits, 2):
        shared = first == "train" and second in suite.rooms_shared
        for what in ("identity", "seed") if shared else ("identity", "seed", "room"):
            a, b = ({_part(t, what) for t in listed[split]} for split in (first, second))
            found = sorted({values[-1] for values in a & b if values[-1] != ""})
            need(
                not found,
                f"splits {first} and {second} share {what} {', '.join(found[:3])}: keep them apart",
            )


def _part(task: Task, what: str) -> tuple[str, ...]:
    # A seed makes a game together with the type and what else the suite has written down.
    if what == "seed":
        return (task.type, task.payload, str(task.seed))
    return (str(getattr(task, what)),)


def check_pickling(suite: Suite, per_type: int) -> None:
    """A task is the same in another process."""
    for task in suite.up_to("train", per_type * len(suite.types)):
        copy = pickle.loads(pickle.dumps(task))
        need(
            copy == task, f"{task} is not the same after pickling: workers get their tasks that way"
        )


def check_reachable(tasks: Sequence[Task]) -> None:
    """No type of which every task is a near-duplicate of every other: the strict policy would never
    show its experience.

    Args:
        tasks: at least two of each type, as they were told at reset.
    """
    by_type: dict[str, list[Task]] = {}
    for task in tasks:
        by_type.setdefault(task.type, []).append(task)
    for kind, some in by_type.items():
        near = {(task.room, task.goal) for task in some}
        need(
            len(some) < 2 or len(near) > 1 or not some[0].room,
            f"all tasks of type {kind!r} have the same room and goal, so that each is held out as "
            "a near-duplicate of all others: leave the room empty where there are none",
        )
