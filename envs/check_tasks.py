"""The part of a suite's contract that needs no environment: what it says of itself and the tasks
that it lists. Each check raises :class:`Broken` where the contract is."""

import pickle
import re
from contextlib import suppress

from .base import SPLITS, Suite

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
    need(suite.templates, "templates must list the forms of actions, which are shown in the prompt")
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


def check_listing(suite: Suite, count: int) -> None:
    """As many tasks as are asked for, each once, of the right split and type."""
    for split in SPLITS:
        tasks = suite.tasks(split, count)
        need(
            len(tasks) == count,
            f"tasks({split!r}, {count}) gave {len(tasks)}: generate more or say why not",
        )
        need(
            len({t.identity for t in tasks}) == count,
            f"tasks({split!r}, {count}) lists a game twice",
        )
        for task in tasks:
            where = f"tasks({split!r}, ...) gave {task}"
            need(task.suite == suite.name, f"{where}: suite must be {suite.name!r}")
            need(task.split == split, f"{where}: split must be {split!r}")
            need(
                task.type in suite.types,
                f"{where}: its type is not among the suite's {suite.types}",
            )
            need(task.version == suite.version, f"{where}: version must be {suite.version!r}")
            need(
                _IDENTITY.fullmatch(task.identity),
                f"{where}: identity must be a hash, 16 hex digits or more, of the game",
            )
            need(
                task.goal and not task.goal.endswith("."),
                f"{where}: goal must be a sentence without its full stop",
            )
    for task_type in suite.types:
        types = {task.type for task in suite.tasks("train", 2, (task_type,))}
        need(types == {task_type}, f"tasks('train', 2, ({task_type!r},)) gave types {types}")
    types = {task.type for task in suite.tasks("train", len(suite.types))}
    need(
        types == set(suite.types),
        f"tasks('train', {len(suite.types)}) covers only {types}: spread over all types",
    )


def check_stable(suite: Suite, count: int) -> None:
    """The same tasks every time, and further ones behind them."""
    for split in SPLITS:
        first = suite.tasks(split, count)
        need(
            first == suite.tasks(split, count),
            f"tasks({split!r}, {count}) differs between two calls: use the seed",
        )
        types = len(suite.types)
        both = suite.tasks(split, 2 * types)
        parts = [*suite.tasks(split, types), *suite.tasks(split, types, start=1)]
        same = {t.identity for t in both} == {t.identity for t in parts}
        need(
            same,
            f"tasks({split!r}, ..., start=1) does not continue the list: start skips that many "
            "tasks per type",
        )


def check_disjoint(suite: Suite, count: int) -> None:
    """No task, seed or room in two splits."""
    count = max(count, 4 * len(suite.types))
    listed = {split: suite.tasks(split, count) for split in SPLITS}
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for what in ("identity", "seed", "room"):
            a, b = ({getattr(t, what) for t in listed[split]} for split in (first, second))
            shared = sorted(str(value) for value in a & b if value != "")
            need(
                not shared,
                f"splits {first} and {second} share {what} {', '.join(shared[:3])}: keep them "
                "apart",
            )


def check_pickling(suite: Suite, count: int) -> None:
    """A task is the same in another process."""
    for task in suite.tasks("train", count):
        copy = pickle.loads(pickle.dumps(task))
        need(
            copy == task, f"{task} is not the same after pickling: workers get their tasks that way"
        )
