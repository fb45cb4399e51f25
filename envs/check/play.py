"""Episodes that a check plays, whole and more than once, and what differs between two of them."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...task import Task
from ..base import Info, Suite, TextEnv
from ..wander import random_action
from .tasks import need

WANDERED = 20
"""Random actions of a wandering episode."""
EXPLORED = 60
"""Actions of an exploring one."""
_INFO_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "task": Task,
    "success": bool,
    "invalid": bool,
    "score": (int, float),
}


@dataclass(slots=True)
class Played:
    """One episode: what was read and done, and how it went."""

    task: Task
    """As the environment told it at reset."""
    opening: str
    steps: list[tuple[str, str, float, bool]] = field(default_factory=list)
    """Action, what followed, reward, and whether it was refused."""
    success: bool = False

    @property
    def observations(self) -> list[str]:
        """All that was read."""
        return [self.opening, *(step[1] for step in self.steps)]

    @property
    def actions(self) -> list[str]:
        """All that was done."""
        return [step[0] for step in self.steps]

    @property
    def name(self) -> str:
        """The task, for a message."""
        return f"task {self.task.identity} ({self.task.type}, seed {self.task.seed})"


def difference(first: Played, second: Played) -> str:
    """Where two episodes that should be the same differ first; empty where they do not."""
    if first.opening != second.opening:
        return f"the opening: {apart(first.opening, second.opening)}"
    for number, (one, other) in enumerate(zip(first.steps, second.steps, strict=False), 1):
        if one[0] != other[0]:
            return f"step {number}: first {one[0]!r} was done, then {other[0]!r}"
        if one[1] != other[1]:
            return f"step {number}, {one[0]!r}: {apart(one[1], other[1])}"
        if one[2:] != other[2:]:
            return f"step {number}, {one[0]!r}: reward and refusal were {one[2:]}, then {other[2:]}"
    if len(first.steps) != len(second.steps):
        return f"the length: {len(first.steps)} steps, then {len(second.steps)}"
    return ""


def apart(one: str, other: str) -> str:
    """Two texts around the place where they part."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    start = max(0, (min(len(one), len(other)) if same is None else same) - 30)
    return f"first …{one[start : start + 90]!r}, then …{other[start : start + 90]!r}"


def start(env: TextEnv, task: Task) -> tuple[str, Info]:
    """Reset, with its answer checked for its form."""
    answer = env.reset(options={"task": task})
    need(
        isinstance(answer, tuple) and len(answer) == 2,
        f"reset must return (observation, info), not {answer!r:.80}",
    )
    return answer


def check_info(info: Any, task: Task | None, where: str, over: bool = False) -> None:
    """An info says what it must, and nothing that contradicts itself.

    Args:
        info: of reset or step.
        task: that is played; None for any.
        where: for the message.
        over: whether the episode has ended.
    """
    need(isinstance(info, dict), f"info after {where} must be a dict, not {type(info).__name__}")
    for key, kind in _INFO_KEYS.items():
        need(key in info, f"info after {where} lacks {key!r}: see relive.envs.base.TextEnv")
        need(
            isinstance(info[key], kind),
            f"info[{key!r}] after {where} is a {type(info[key]).__name__}",
        )
    need(
        task is None or info["task"].identity == task.identity,
        f"info['task'] after {where} is not the task being played",
    )
    lowest = -1.0 if over else 0.0
    need(
        lowest <= info["score"] <= 1.0,
        f"info['score'] after {where} is {info['score']}: keep it in [0, 1] (an episode that is "
        "lost for good may go down to -1)",
    )
    need(
        (info["score"] == 1.0) == info["success"],
        f"after {where}, score is {info['score']} but success is {info['success']}",
    )


def check_answer(answer: Any, task: Task, action: str) -> tuple[str, float, bool, bool, Info]:
    """What `step` returned, checked."""
    need(
        isinstance(answer, tuple) and len(answer) == 5,
        "step must return five values, as Gymnasium's do",
    )
    observation, reward, terminated, truncated, info = answer
    need(
        isinstance(observation, str),
        f"the observation after step is a {type(observation).__name__}, not a text",
    )
    need(isinstance(reward, int | float), f"the reward is a {type(reward).__name__}, not a number")
    need(
        isinstance(terminated, bool) and isinstance(truncated, bool),
        "terminated and truncated must be bool",
    )
    check_info(info, task, f"step {action!r} of task {task.identity}", terminated or truncated)
    need(
        terminated or not info["success"],
        "the episode goes on after it was won: terminated must be True",
    )
    return observation, float(reward), terminated, truncated, info


def play(suite: Suite, env: TextEnv, task: Task) -> Played:
    """The expert's episode, to its end or the task's limit."""
    observation, info = start(env, task)
    played, expert = Played(info["task"], observation), suite.expert(task)
    for _ in range(suite.limit(task)):
        if _step(env, task, expert.act(observation), played):
            break
        observation = played.steps[-1][1]
    return played


def wander(suite: Suite, env: TextEnv, task: Task) -> Played:
    """An episode of random actions, the same each time."""
    observation, info = start(env, task)
    played, rng = Played(info["task"], observation), random.Random(task.identity)
    for _ in range(WANDERED):
        if _step(env, task, random_action(suite, rng, played.observations), played):
            break
    return played


def explore(suite: Suite, env: TextEnv, task: Task) -> Played:
    """A longer one, of commands that the environment would accept, where it lists them; it is the
    same for all tasks that look alike."""
    observation, info = start(env, task)
    played, rng = Played(info["task"], observation), random.Random("explore")
    for _ in range(EXPLORED):
        try:
            action = rng.choice(list(env.admissible()) or ["look"])
        except NotImplementedError:
            action = random_action(suite, rng, played.observations)
        if _step(env, task, action, played):
            break
    return played


def _step(env: TextEnv, task: Task, action: str, played: Played) -> bool:
    """One step; whether the episode is over."""
    answer = check_answer(env.step(action), task, action)
    observation, reward, terminated, truncated, info = answer
    played.steps.append((action, observation, reward, info["invalid"]))
    played.success = info["success"]
    return terminated or truncated


def check_knowledge(suite: Suite, played: Played, task: Task) -> None:
    """An expert decides by what `Suite.expert_kind` says: shown the same observations again, while
    nothing is being played, it does the same.

    Args:
        suite: whose expert.
        played: an episode of it.
        task: as it was listed.
    """
    told = task
    if suite.expert_kind == "reads text":  # what it may not know is another task's
        told = Task(task.suite, "0" * 16, task.type, task.split, "", 0, task.version, "")
    expert = suite.expert(told)
    for number, (seen, action) in enumerate(zip(played.observations, played.actions, strict=False)):
        again = expert.act(seen)
        need(
            again == action,
            f"the expert of {played.name} was shown the same again, and at step {number + 1} said "
            f"{again!r} instead of {action!r}: it must decide by "
            + (
                "the visible text alone (expert_kind 'reads text')"
                if suite.expert_kind == "reads text"
                else "the task and the visible text, and not look into a running environment"
            ),
        )
