"""What is to be done: the one record of a task, which environments make and memories keep.

It stands above both: the memory knows nothing of environments, and they nothing of it.
"""

import hashlib
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """One task. Equal identity means the same task, whatever the other fields say."""

    suite: str
    """Name of the suite, for example ``household``."""
    identity: str
    """Hash of what defines the task; two tasks are the same if and only if this is the same."""
    type: str
    """Task type within the suite. For reports only: retrieval never filters on it."""
    split: str
    """One of the suite's splits. ``train`` is what may be learnt from; every other one is treated
    as held out."""
    room: str
    """Room, scene or map; empty when the suite has none."""
    seed: int
    """With `type` and `split`, enough for the suite to make the task again."""
    version: str
    """Version of the environment that plays it."""
    goal: str
    """The goal as the agent reads it, without a trailing full stop; empty in a listing where only
    the environment knows it, which then states it at reset."""
    payload: str = ""
    """Whatever else the suite needs to make the task again, for example the path of a game file.
    Nobody else looks at it."""

    @classmethod
    def of(
        cls,
        goal: str,
        *,
        suite: str = "",
        identity: str = "",
        type: str = "",
        split: str = "train",
        room: str = "",
        seed: int = 0,
        version: str = "",
        payload: str = "",
    ) -> "Task":
        """A task of which little more than the goal is known.

        Args:
            goal: what is to be done.
            identity: by default a hash of all other fields, so that tasks that differ in any of
                them are different tasks.
            suite, type, split, room, seed, version, payload: see the fields.
        """
        if not identity:
            parts = [suite, type, split, room, str(seed), version, goal]
            identity = identity_of(*parts, *([payload] if payload else []))
        return cls(suite, identity, type, split, room, seed, version, goal, payload)


def identity_of(*parts: str) -> str:
    """Hash of what defines a task, 32 hex digits; the same on every machine."""
    return hashlib.blake2b(
        "\n".join(parts).encode(errors="surrogatepass"), digest_size=16
    ).hexdigest()


_GOAL = re.compile(r"Your task is to:(.*)")


def goal_line(text: str) -> str:
    """The goal in the last line "Your task is to: …" without its full stop; empty if there is none.

    The last one, since prompts often begin with examples that have such a line, too.
    """
    found = _GOAL.findall(text)
    return str(found[-1]).strip().removesuffix(".").rstrip() if found else ""
