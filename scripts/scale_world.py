"""A world of any size for measuring: tasks without end, an environment that costs nothing, and a
policy that decides by a seed.

What is measured with it is everything else, and that is the real code: the runner, the prompt, the
retriever, the memory. Goals are drawn from some hundred thousand texts, so that a memory of a
million holds most of them several times, as that of an agent does which plays a listed set of games
again and again; episodes have as many steps, and about as many bytes, as those of the household.
"""

import random
from collections.abc import Sequence
from typing import Any

from relive.agent.conversation import Action, Conversation
from relive.envs.base import ActionTemplate, Info, Suite, TextEnv
from relive.memory.episode import Actor
from relive.task import Task

SYLLABLES = "ba de fi go lu ma ne pi ro su ta ve wi xo zu ka le mi no pu".split()
VERBS = ("heat", "cool", "clean", "examine")
STEPS = 8
"""Actions until the environment says how it went."""
ROOMS = 2000
SUCCESS = 0.6
SHARE_OF_FIRST = 0.8
"""Of all tasks, in the first of two suites."""
SUITES = ("scale-a", "scale-b")


def word(number: int) -> str:
    """A made-up word, another for each number below 8,000."""
    parts = []
    for _ in range(3):
        number, rest = divmod(number, len(SYLLABLES))
        parts.append(SYLLABLES[rest])
    return "".join(parts)


def task_of(number: int, split: str = "train") -> Task:
    """The task with a number; the same one in every process."""
    rng = random.Random(f"scale/{split}/{number}")
    verb, thing, place = rng.choice(VERBS), word(rng.randrange(400)), word(4000 + rng.randrange(90))
    suite = SUITES[rng.random() >= SHARE_OF_FIRST]
    return Task(
        suite, f"game-{split}-{number}", verb, split, f"room-{rng.randrange(ROOMS)}", number, "1",
        f"{verb} a {thing} and put it in the {place}",
    )  # fmt: skip


class ScaleEnv(TextEnv):
    """Some rooms' worth of text; whether it ends well is in the action."""

    _task: Task | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Starts a task."""
        super().reset(seed=seed)
        self._task = (options or {}).get("task") or task_of(int(seed or 0))
        self._steps = 0
        goal = self._task.goal
        return (
            f"You are in a room. You see {self._list()}.\n\nYour task is to: {goal}.",
            self._info(),
        )

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """One more."""
        self._steps += 1
        over = self._steps == STEPS
        info = self._info() | {"success": over and action.startswith("finish")}
        return (
            f"You go on to {self._list()}.", float(info["success"]), over, False, info,
        )  # fmt: skip

    def _list(self) -> str:
        assert self._task is not None
        base = self._task.seed * STEPS + self._steps
        return ", ".join(f"{word((base * 7 + i * 131) % 8000)} {i}" for i in range(6))

    def _info(self) -> Info:
        return {"task": self._task, "success": False, "invalid": False, "score": 0.0}


class ScaleSuite(Suite):
    """One of the two suites; the environments of both are the same."""

    splits = ("train", "valid", "test")
    types = VERBS
    templates = (ActionTemplate("open {object}", "act"), ActionTemplate("finish {object}", "act"))
    instructions = "You act in a house. Answer with your next action and nothing else."
    version = "scale-1"

    def __init__(self, name: str = SUITES[0]) -> None:
        self.name = name

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        """The first `count` tasks of this suite from a number on."""
        found: list[Task] = []
        number = start
        while len(found) < count:
            task = task_of(number, split)
            if task.suite == self.name and (not types or task.type in types):
                found.append(task)
            number += 1
        return found

    def make(self) -> TextEnv:
        """An environment."""
        return ScaleEnv()


class SeededPolicy:
    """Acts by its seed alone: six of ten episodes succeed."""

    actor = Actor("local", "seeded", adapter="v1")

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """One action each."""
        chosen = seeds or [0] * len(conversations)
        return [Action(self._text(seed)) for seed in chosen]

    def _text(self, seed: int) -> str:
        verb = "finish" if seed % 1000 < 1000 * SUCCESS else "open"
        return f"{verb} {word(seed % 8000)}"
