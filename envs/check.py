"""The contract of a suite and its environments, as a function that anyone can call on their own.

>>> from relive.envs import check_env, get_suite
>>> all(finding.ok for finding in check_env(get_suite("toy")))
True
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..task import Task
from .base import Info, Suite, TextEnv
from .check_tasks import (
    Broken,
    check_description,
    check_disjoint,
    check_listing,
    check_pickling,
    check_stable,
    need,
)

_INFO_KEYS: dict[str, type | tuple[type, ...]] = {
    "task": Task,
    "success": bool,
    "invalid": bool,
    "score": (int, float),
}
_NONSENSE = "xyzzy the frobnicator"
_STEPS_COMPARED = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """What was checked."""
    ok: bool
    message: str
    """What is wrong, where, and what to do; empty when all is well."""

    def __str__(self) -> str:
        return f"ok    {self.check}" if self.ok else f"FAIL  {self.check}: {self.message}"


def check_env(suite: Suite, tasks_per_split: int = 4) -> list[Finding]:
    """Check a suite against the contract in `relive.envs.base`.

    Args:
        suite: what to check; an instance.
        tasks_per_split: number of tasks listed per split; the expert plays those of the train
            split.

    Returns:
        One finding per check, in a fixed order. A check that cannot run because of an earlier
        failure fails too, with the error it met; nothing is raised.
    """
    checks: list[tuple[str, Callable[[], None]]] = [
        ("the suite describes itself", lambda: check_description(suite)),
        ("tasks are listed", lambda: check_listing(suite, tasks_per_split)),
        ("task lists are stable", lambda: check_stable(suite, tasks_per_split)),
        ("splits share no task, seed or room", lambda: check_disjoint(suite, tasks_per_split)),
        ("tasks survive pickling", lambda: check_pickling(suite, tasks_per_split)),
        ("reset answers as it should", lambda: _with_env(suite, _check_reset)),
        ("reset without a task follows its seed", lambda: _with_env(suite, _check_seed)),
        ("step answers with five values", lambda: _with_env(suite, _check_step)),
        (
            "an invalid action is marked and changes nothing",
            lambda: _with_env(suite, _check_invalid),
        ),
        ("the same actions give the same episode", lambda: _with_env(suite, _check_deterministic)),
        ("no admissible commands leak to the policy", lambda: _with_env(suite, _check_no_leak)),
        (
            "the expert solves listed tasks",
            lambda: _with_env(suite, lambda s, e: _check_expert(s, e, tasks_per_split)),
        ),
        ("closing is possible at any time", lambda: _check_close(suite)),
    ]
    return [_run(name, check) for name, check in checks]


def _run(name: str, check: Callable[[], None]) -> Finding:
    try:
        check()
    except Broken as broken:
        return Finding(name, False, str(broken))
    except Exception as error:
        return Finding(
            name, False, f"raised {type(error).__name__}: {error}; it must not raise here"
        )
    return Finding(name, True, "")


def _with_env(suite: Suite, check: Callable[[Suite, TextEnv], None]) -> None:
    env = suite.make()
    try:
        check(suite, env)
    finally:
        with suppress(Exception):  # closing has its own check
            env.close()


def _first_task(suite: Suite) -> Task:
    return suite.tasks("train", 1)[0]


def _start(env: TextEnv, task: Task) -> tuple[str, Info]:
    answer = env.reset(options={"task": task})
    need(
        isinstance(answer, tuple) and len(answer) == 2,
        f"reset must return (observation, info), not {answer!r:.80}",
    )
    return answer


def _check_info(info: Any, task: Task | None, where: str) -> None:
    need(isinstance(info, dict), f"info after {where} must be a dict, not {type(info).__name__}")
    for key, kind in _INFO_KEYS.items():
        need(key in info, f"info after {where} lacks {key!r}: see relive.envs.base.TextEnv")
        need(
            isinstance(info[key], kind),
            f"info[{key!r}] after {where} is a {type(info[key]).__name__}",
        )
    need(
        task is None or info["task"] == task,
        f"info['task'] after {where} is not the task being played",
    )
    need(
        0.0 <= info["score"] <= 1.0,
        f"info['score'] after {where} is {info['score']}: keep it in [0, 1]",
    )
    need(
        (info["score"] == 1.0) == info["success"],
        f"after {where}, score is {info['score']} but success is {info['success']}",
    )


def _check_reset(suite: Suite, env: TextEnv) -> None:
    task = _first_task(suite)
    observation, info = _start(env, task)
    need(
        isinstance(observation, str) and observation,
        f"the observation after reset is {observation!r}, not a text",
    )
    need(
        observation == observation.strip(),
        "the observation after reset has blanks around it: strip it",
    )
    need(task.goal in observation, f"the initial observation does not state the goal {task.goal!r}")
    _check_info(info, task, "reset")
    need(not info["success"], f"task {task.identity} is won before the first action")
    need(info["invalid"] is False, "info['invalid'] after reset must be False")
    again, _ = _start(env, task)
    need(
        again == observation,
        f"two resets of task {task.identity} gave different observations: use the seed only",
    )


def _check_seed(suite: Suite, env: TextEnv) -> None:
    first = env.reset(seed=5)
    second = env.reset(seed=5)
    _check_info(first[1], None, "reset(seed=5)")
    same = first[0] == second[0] and first[1]["task"] == second[1]["task"]
    need(
        same,
        "reset(seed=5) gave two different games: draw the task from self.np_random after "
        "super().reset(seed)",
    )
    split = first[1]["task"].split
    need(
        split == "train",
        f"reset(seed=5) plays a task of split {split!r}: without a task, only train is allowed",
    )


def _check_answer(answer: Any, task: Task) -> tuple[str, float, bool, bool, Info]:
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
    _check_info(info, task, "step")
    need(
        terminated or not info["success"],
        "the episode goes on after it was won: terminated must be True",
    )
    return observation, float(reward), terminated, truncated, info


def _check_step(suite: Suite, env: TextEnv) -> None:
    task = _first_task(suite)
    observation, _ = _start(env, task)
    for action in _some_actions(suite, observation):
        observation, *_ = _check_answer(env.step(action), task)


def _some_actions(suite: Suite, observation: str) -> Sequence[str]:
    """A sensible action where there is an expert, else words of a template; all should be answered,
    not raise."""
    actions = [suite.templates[0].text.format_map(_Anything())]
    with suppress(NotImplementedError):
        actions.insert(0, suite.expert().act(observation))
    return actions


class _Anything(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "thing 1"


def _check_invalid(suite: Suite, env: TextEnv) -> None:
    task = _first_task(suite)
    initial_observation, _ = _start(env, task)
    # The text after nonsense must be as if nonsense had not been said.
    actions = _some_actions(suite, initial_observation)
    expected = _check_answer(env.step(actions[0]), task)[0]
    _start(env, task)
    for nonsense in (_NONSENSE, "", "é\n¿"):
        _, reward, terminated, truncated, info = _check_answer(env.step(nonsense), task)
        need(
            info["invalid"],
            f"info['invalid'] is False after {nonsense!r}, which no game understands",
        )
        need(
            reward == 0 and not terminated and not truncated,
            f"{nonsense!r} was rewarded or ended the episode",
        )
    observation, _, _, _, info = _check_answer(env.step(actions[0]), task)
    need(
        observation == expected,
        f"after invalid actions, {actions[0]!r} gives another answer: they must do nothing",
    )
    need(
        len(actions) == 1 or not info["invalid"],
        f"info['invalid'] is True after the expert's action {actions[0]!r}",
    )


def _transcript(
    suite: Suite, env: TextEnv, task: Task, steps: int
) -> Iterator[tuple[str, str, float]]:
    """(action, observation, reward) of the expert; raises `NotImplementedError` without one."""
    observation, _ = _start(env, task)
    expert = suite.expert()
    for _ in range(steps):
        action = expert.act(observation)
        observation, reward, terminated, truncated, _ = _check_answer(env.step(action), task)
        yield action, observation, reward
        if terminated or truncated:
            return


def _check_deterministic(suite: Suite, env: TextEnv) -> None:
    task, *others = suite.tasks("train", 2)
    with suppress(NotImplementedError):
        first = list(_transcript(suite, env, task, _STEPS_COMPARED))
        for other in others:  # another game in between must leave no trace
            list(_transcript(suite, env, other, _STEPS_COMPARED))
        second = list(_transcript(suite, env, task, _STEPS_COMPARED))
        need(
            first == second,
            f"task {task.identity} played twice the same way gave two different transcripts",
        )
        fresh = suite.make()
        try:
            third = list(_transcript(suite, fresh, task, _STEPS_COMPARED))
        finally:
            fresh.close()
        need(first == third, f"task {task.identity} reads differently in a fresh environment")


def _check_no_leak(suite: Suite, env: TextEnv) -> None:
    task = _first_task(suite)
    observation, info = _start(env, task)
    infos = [info, _check_answer(env.step(_some_actions(suite, observation)[0]), task)[4]]
    for info in infos:
        for key, value in info.items():
            listing = isinstance(value, list | tuple | set | frozenset) and any(
                isinstance(v, str) for v in value
            )
            telling = any(
                word in key.lower()
                for word in ("admissible", "valid_", "commands", "expert", "plan")
            )
            need(
                not listing and not telling,
                f"info[{key!r}] tells the policy what to do: leave it out of info",
            )


def _check_expert(suite: Suite, env: TextEnv, count: int) -> None:
    try:
        suite.expert()
    except NotImplementedError:
        return
    for task in suite.tasks("train", max(count, len(suite.types))):
        transcript = list(_transcript(suite, env, task, suite.max_steps))
        rewards = [reward for _, _, reward in transcript]
        where = f"the expert's episode of task {task.identity} ({task.type}, seed {task.seed})"
        need(
            rewards and rewards[-1] > 0,
            f"{where} is not won in {suite.max_steps} steps: list only what it solves",
        )
        answer_after = env.reset(options={"task": task})[1]
        need(not answer_after["success"], f"reset after {where} still says success")


def _check_close(suite: Suite) -> None:
    suite.make().close()
    env = suite.make()
    _start(env, _first_task(suite))
    env.close()
    env.close()
