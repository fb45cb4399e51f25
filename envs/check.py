"""The contract of a suite and its environments, as a function that anyone can call on their own.

>>> from relive.envs import check_env, get_suite
>>> all(finding.ok for finding in check_env(get_suite("toy")))
True
"""

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..task import Task
from .base import SPLITS, Info, Suite, TextEnv

_INFO_KEYS: dict[str, type | tuple[type, ...]] = {
    "task": Task,
    "success": bool,
    "invalid": bool,
    "score": (int, float),
}
_NONSENSE = "xyzzy the frobnicator"
_KINDS = ("move", "look", "act")
_IDENTITY = re.compile(r"[0-9a-f]{16,}")
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


class _Broken(Exception):
    """A check found the contract broken."""


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
        ("the suite describes itself", lambda: _check_description(suite)),
        ("tasks are listed", lambda: _check_listing(suite, tasks_per_split)),
        ("task lists are stable", lambda: _check_stable(suite, tasks_per_split)),
        ("splits share no task, seed or room", lambda: _check_disjoint(suite, tasks_per_split)),
        ("tasks survive pickling", lambda: _check_pickling(suite, tasks_per_split)),
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
    except _Broken as broken:
        return Finding(name, False, str(broken))
    except Exception as error:
        return Finding(
            name, False, f"raised {type(error).__name__}: {error}; it must not raise here"
        )
    return Finding(name, True, "")


def _need(condition: object, message: str) -> None:
    if not condition:
        raise _Broken(message)


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
    _need(
        isinstance(answer, tuple) and len(answer) == 2,
        f"reset must return (observation, info), not {answer!r:.80}",
    )
    return answer


def _check_description(suite: Suite) -> None:
    for name in ("name", "version", "types", "groups", "templates", "instructions", "max_steps"):
        _need(hasattr(suite, name), f"attribute {name!r} is missing: see relive.envs.base.Suite")
    for name in ("name", "version", "instructions"):
        value = getattr(suite, name)
        _need(isinstance(value, str) and value, f"{name} must be a non-empty string, not {value!r}")
    _need(
        suite.types and len(set(suite.types)) == len(suite.types),
        "types must name each task type once",
    )
    for group, types in suite.groups.items():
        for task_type in types:
            _need(
                _lists(suite, task_type),
                f"group {group!r} names a type that the suite lacks: {task_type!r}",
            )
    _need(
        suite.templates, "templates must list the forms of actions, which are shown in the prompt"
    )
    for template in suite.templates:
        _need(
            template.kind in _KINDS,
            f"template {template.text!r} has kind {template.kind!r}: use one of {_KINDS}",
        )
    _need(
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


def _check_listing(suite: Suite, count: int) -> None:
    for split in SPLITS:
        tasks = suite.tasks(split, count)
        _need(
            len(tasks) == count,
            f"tasks({split!r}, {count}) gave {len(tasks)}: generate more or say why not",
        )
        _need(
            len({t.identity for t in tasks}) == count,
            f"tasks({split!r}, {count}) lists a game twice",
        )
        for task in tasks:
            where = f"tasks({split!r}, ...) gave {task}"
            _need(task.suite == suite.name, f"{where}: suite must be {suite.name!r}")
            _need(task.split == split, f"{where}: split must be {split!r}")
            _need(
                task.type in suite.types,
                f"{where}: its type is not among the suite's {suite.types}",
            )
            _need(task.version == suite.version, f"{where}: version must be {suite.version!r}")
            _need(
                _IDENTITY.fullmatch(task.identity),
                f"{where}: identity must be a hash, 16 hex digits or more, of the game",
            )
            _need(
                task.goal and not task.goal.endswith("."),
                f"{where}: goal must be a sentence without its full stop",
            )
    for task_type in suite.types:
        types = {task.type for task in suite.tasks("train", 2, (task_type,))}
        _need(types == {task_type}, f"tasks('train', 2, ({task_type!r},)) gave types {types}")
    types = {task.type for task in suite.tasks("train", len(suite.types))}
    _need(
        types == set(suite.types),
        f"tasks('train', {len(suite.types)}) covers only {types}: spread over all types",
    )


def _check_stable(suite: Suite, count: int) -> None:
    for split in SPLITS:
        first = suite.tasks(split, count)
        _need(
            first == suite.tasks(split, count),
            f"tasks({split!r}, {count}) differs between two calls: use the seed",
        )
        types = len(suite.types)
        both = suite.tasks(split, 2 * types)
        parts = [*suite.tasks(split, types), *suite.tasks(split, types, start=1)]
        same = {t.identity for t in both} == {t.identity for t in parts}
        _need(
            same,
            f"tasks({split!r}, ..., start=1) does not continue the list: start skips that many "
            "tasks per type",
        )


def _check_disjoint(suite: Suite, count: int) -> None:
    count = max(count, 4 * len(suite.types))
    listed = {split: suite.tasks(split, count) for split in SPLITS}
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for what in ("identity", "seed", "room"):
            a, b = ({getattr(t, what) for t in listed[split]} for split in (first, second))
            shared = sorted(str(value) for value in a & b if value != "")
            _need(
                not shared,
                f"splits {first} and {second} share {what} {', '.join(shared[:3])}: keep them "
                "apart",
            )


def _check_pickling(suite: Suite, count: int) -> None:
    for task in suite.tasks("train", count):
        copy = pickle.loads(pickle.dumps(task))
        _need(
            copy == task, f"{task} is not the same after pickling: workers get their tasks that way"
        )


def _check_info(info: Any, task: Task | None, where: str) -> None:
    _need(isinstance(info, dict), f"info after {where} must be a dict, not {type(info).__name__}")
    for key, kind in _INFO_KEYS.items():
        _need(key in info, f"info after {where} lacks {key!r}: see relive.envs.base.TextEnv")
        _need(
            isinstance(info[key], kind),
            f"info[{key!r}] after {where} is a {type(info[key]).__name__}",
        )
    _need(
        task is None or info["task"] == task,
        f"info['task'] after {where} is not the task being played",
    )
    _need(
        0.0 <= info["score"] <= 1.0,
        f"info['score'] after {where} is {info['score']}: keep it in [0, 1]",
    )
    _need(
        (info["score"] == 1.0) == info["success"],
        f"after {where}, score is {info['score']} but success is {info['success']}",
    )


def _check_reset(suite: Suite, env: TextEnv) -> None:
    task = _first_task(suite)
    observation, info = _start(env, task)
    _need(
        isinstance(observation, str) and observation,
        f"the observation after reset is {observation!r}, not a text",
    )
    _need(
        observation == observation.strip(),
        "the observation after reset has blanks around it: strip it",
    )
    _need(
        task.goal in observation, f"the opening observation does not state the goal {task.goal!r}"
    )
    _check_info(info, task, "reset")
    _need(not info["success"], f"task {task.identity} is won before the first action")
    _need(info["invalid"] is False, "info['invalid'] after reset must be False")
    again, _ = _start(env, task)
    _need(
        again == observation,
        f"two resets of task {task.identity} gave different observations: use the seed only",
    )


def _check_seed(suite: Suite, env: TextEnv) -> None:
    first = env.reset(seed=5)
    second = env.reset(seed=5)
    _check_info(first[1], None, "reset(seed=5)")
    same = first[0] == second[0] and first[1]["task"] == second[1]["task"]
    _need(
        same,
        "reset(seed=5) gave two different games: draw the task from self.np_random after "
        "super().reset(seed)",
    )
    split = first[1]["task"].split
    _need(
        split == "train",
        f"reset(seed=5) plays a task of split {split!r}: without a task, only train is allowed",
    )


def _check_answer(answer: Any, task: Task) -> tuple[str, float, bool, bool, Info]:
    _need(
        isinstance(answer, tuple) and len(answer) == 5,
        "step must return five values, as Gymnasium's do",
    )
    observation, reward, terminated, truncated, info = answer
    _need(
        isinstance(observation, str),
        f"the observation after step is a {type(observation).__name__}, not a text",
    )
    _need(isinstance(reward, int | float), f"the reward is a {type(reward).__name__}, not a number")
    _need(
        isinstance(terminated, bool) and isinstance(truncated, bool),
        "terminated and truncated must be bool",
    )
    _check_info(info, task, "step")
    _need(
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
    opening, _ = _start(env, task)
    # The text after nonsense must be as if nonsense had not been said.
    actions = _some_actions(suite, opening)
    expected = _check_answer(env.step(actions[0]), task)[0]
    _start(env, task)
    for nonsense in (_NONSENSE, "", "é\n¿"):
        _, reward, terminated, truncated, info = _check_answer(env.step(nonsense), task)
        _need(
            info["invalid"],
            f"info['invalid'] is False after {nonsense!r}, which no game understands",
        )
        _need(
            reward == 0 and not terminated and not truncated,
            f"{nonsense!r} was rewarded or ended the episode",
        )
    observation, _, _, _, info = _check_answer(env.step(actions[0]), task)
    _need(
        observation == expected,
        f"after invalid actions, {actions[0]!r} gives another answer: they must do nothing",
    )
    _need(
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
        _need(
            first == second,
            f"task {task.identity} played twice the same way gave two different transcripts",
        )
        fresh = suite.make()
        try:
            third = list(_transcript(suite, fresh, task, _STEPS_COMPARED))
        finally:
            fresh.close()
        _need(first == third, f"task {task.identity} reads differently in a fresh environment")


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
            _need(
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
        _need(
            rewards and rewards[-1] > 0,
            f"{where} is not won in {suite.max_steps} steps: list only what it solves",
        )
        answer_after = env.reset(options={"task": task})[1]
        _need(not answer_after["success"], f"reset after {where} still says success")


def _check_close(suite: Suite) -> None:
    suite.make().close()
    env = suite.make()
    _start(env, _first_task(suite))
    env.close()
    env.close()
