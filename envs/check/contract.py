"""The contract of a suite and its environments, as a function that anyone can call on their own.

>>> from relive.envs import check_env, get_suite
>>> all(finding.ok for finding in check_env(get_suite("toy")))
True
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ...task import Task
from ..base import Suite, TextEnv, has_expert
from .play import (
    Played,
    apart,
    check_answer,
    check_info,
    check_knowledge,
    difference,
    explore,
    play,
    start,
    wander,
)
from .tasks import (
    Broken,
    check_description,
    check_disjoint,
    check_listing,
    check_pickling,
    check_reachable,
    check_stable,
    need,
)

_NONSENSE = ("xyzzy the frobnicator", "", "é\n¿")
_MOST_OPENINGS = 240
"""Openings of a split that are compared at most."""


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


def check_env(
    suite: Suite, per_type: int = 2, tell: Callable[[Finding], object] | None = None
) -> list[Finding]:
    """Check a suite against the contract in `relive.envs.base`.

    It plays in this process: whole episodes of the expert, and random ones, of several tasks of
    each type, each more than once, with others in between.

    Args:
        suite: what to check; an instance.
        per_type: tasks of each type that are played; twice as many openings are compared.
        tell: called with each finding as soon as it is there.

    Returns:
        One finding per check, in a fixed order. A check that cannot run because of an earlier
        failure fails too, with the error it met.

    Raises:
        TypeError: it is no object of a suite.
        ValueError: `per_type` is below 1, with which nothing would be played.
    """
    checks: list[tuple[str, Callable[[Suite, int], object]]] = [
        ("the suite describes itself", lambda suite, _: check_description(suite)),
        ("tasks are listed", check_listing),
        ("task lists are stable", check_stable),
        ("splits share no task, seed or room", check_disjoint),
        ("tasks survive pickling", check_pickling),
        ("reset answers as it should", _check_reset),
        ("reset without a task follows its seed", _check_seed),
        ("step answers with five values", _check_step),
        ("an invalid action is marked and changes nothing", _check_invalid),
        ("the same actions give the same episode", _check_deterministic),
        ("random actions are answered, and the same each time", _check_wandering),
        ("no game is listed twice, nor in two splits", _check_games),
        ("experience of the same type can be reached", _check_reachable),
        ("no admissible commands leak to the policy", _check_no_leak),
        ("the expert solves listed tasks", _check_expert),
        ("the expert knows what it says it knows", _check_knowledge),
        ("closing is possible at any time", _check_close),
    ]
    if not isinstance(suite, Suite):
        raise TypeError(f"check_env takes an object of a suite, not {suite!r:.80}")
    if per_type < 1:
        raise ValueError(f"check_env plays per_type tasks of each type: 1 or more, not {per_type}")
    findings: list[Finding] = []
    try:
        suite.check_ready()
        for split in suite.splits:
            suite.size(split)
    except (OSError, ImportError, RuntimeError) as error:  # then there is nothing to check
        findings.append(Finding("the suite can be played here", False, str(error)))
        checks = []
        if tell:
            tell(findings[-1])
    except Exception:  # which the check of listings is for
        pass
    for name, check in checks:
        findings.append(_run(name, check, suite, per_type))
        if tell:
            tell(findings[-1])
    return findings


def _run(name: str, check: Callable[[Suite, int], object], suite: Suite, per_type: int) -> Finding:
    try:
        check(suite, per_type)
    except Broken as broken:
        return Finding(name, False, str(broken))
    except Exception as error:
        return Finding(
            name, False, f"raised {type(error).__name__}: {error}; it must not raise here"
        )
    return Finding(name, True, "")


@contextmanager
def _made(suite: Suite) -> Iterator[TextEnv]:
    """An environment, closed afterwards."""
    env = suite.make()
    try:
        yield env
    finally:
        with suppress(Exception):  # closing has its own check
            env.close()


def _played(suite: Suite, per_type: int) -> list[Task]:
    """So many tasks of each type of the train split; of the first split that has any, where a suite
    has no train games (files of which only some are there)."""
    for split in sorted(suite.splits, key=lambda name: name != "train"):
        if tasks := _tasks(suite, split, per_type):
            return tasks
    raise Broken("no split has a task")


def _tasks(suite: Suite, split: str, per_type: int) -> list[Task]:
    """So many tasks of each type, where there are so many."""
    return [
        task for kind in suite.types for task in suite.up_to(split, per_type, (kind,))
    ]  # by type, so that neighbours are alike


def _check_reset(suite: Suite, per_type: int) -> None:
    with _made(suite) as env:
        first: dict[str, str] = {}
        tasks = _played(suite, per_type)
        for task in tasks:
            observation, info = start(env, task)
            where = f"the opening of task {task.identity} ({task.type}, seed {task.seed})"
            need(isinstance(observation, str) and observation, f"{where} is {observation!r}")
            need(observation == observation.strip(), f"{where} has blanks around it: strip it")
            check_info(info, task, "reset")
            goal = info["task"].goal
            need(goal, f"info['task'] after reset of task {task.identity} has no goal")
            need(
                not task.goal or goal == task.goal,
                f"task {task.identity} is listed with the goal {task.goal!r} and played with "
                f"{goal!r}",
            )
            need(goal in observation, f"{where} does not state the goal {goal!r}")
            need(not info["success"], f"task {task.identity} is won before the first action")
            need(info["invalid"] is False, "info['invalid'] after reset must be False")
            first[task.identity] = observation
        for task in reversed(tasks):  # with others in between
            again = Played(task, start(env, task)[0])
            before = Played(task, first[task.identity])
            need(
                not difference(before, again),
                f"two resets of {again.name} gave different observations, "
                f"{difference(before, again)}: use the seed only",
            )


def _check_seed(suite: Suite, per_type: int) -> None:
    if suite.size("train") == 0:
        return
    with _made(suite) as env:
        first = env.reset(seed=5)
        second = env.reset(seed=5)
    check_info(first[1], None, "reset(seed=5)")
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


def _check_step(suite: Suite, per_type: int) -> None:
    with _made(suite) as env:
        for task in _played(suite, 1):
            observation, _ = start(env, task)
            for action in _some_actions(suite, task, observation):
                if any(check_answer(env.step(action), task, action)[2:4]):
                    break


def _some_actions(suite: Suite, task: Task, observation: str) -> Sequence[str]:
    """A sensible action where there is an expert, else words of a template; all should be answered,
    not raise."""
    actions = [suite.templates[0].text.format_map(_Anything())] if suite.templates else ["look"]
    if has_expert(suite):
        actions.insert(0, suite.expert(task).act(observation))
    return actions


class _Anything(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "thing 1"


def _check_invalid(suite: Suite, per_type: int) -> None:
    with _made(suite) as env:
        for task in _played(suite, 1):
            actions = _some_actions(suite, task, start(env, task)[0])
            # The text after nonsense must be as if nonsense had not been said.
            expected = check_answer(env.step(actions[0]), task, actions[0])[0]
            start(env, task)
            for nonsense in _NONSENSE:
                answer = check_answer(env.step(nonsense), task, nonsense)
                _, reward, terminated, truncated, info = answer
                need(
                    info["invalid"],
                    f"info['invalid'] is False after {nonsense!r}, which no game understands",
                )
                need(
                    reward == 0 and not terminated and not truncated,
                    f"{nonsense!r} was rewarded or ended the episode",
                )
            observation, _, _, _, info = check_answer(env.step(actions[0]), task, actions[0])
            need(
                observation == expected,
                f"after invalid actions, {actions[0]!r} gives another answer in task "
                f"{task.identity} ({task.type}, seed {task.seed}): they must do nothing; "
                f"{apart(expected, observation)}",
            )
            need(
                len(actions) == 1 or not info["invalid"],
                f"info['invalid'] is True after the expert's action {actions[0]!r}",
            )


def _check_deterministic(suite: Suite, per_type: int) -> None:
    if not has_expert(suite):
        return
    tasks = _played(suite, per_type)
    with _made(suite) as env:
        first = [play(suite, env, task) for task in tasks]
        for task in tasks[:: max(1, per_type)]:
            wander(suite, env, task)  # which leaves everything in disorder
        for before, task in reversed(list(zip(first, tasks, strict=True))):
            told = difference(before, play(suite, env, task))
            need(
                not told,
                f"{before.name} played again, after others, went otherwise; {told}: nothing of an "
                "episode may be left behind, and nothing may be drawn but by the task's seed",
            )
    with _made(suite) as env:
        for before, task in list(zip(first, tasks, strict=True))[:: max(1, per_type)]:
            told = difference(before, play(suite, env, task))
            need(not told, f"{before.name} went otherwise in a fresh environment; {told}")


def _check_wandering(suite: Suite, per_type: int) -> None:
    tasks = _played(suite, per_type)
    with _made(suite) as env:
        first = [wander(suite, env, task) for task in tasks]
        for before, task in reversed(list(zip(first, tasks, strict=True))):
            told = difference(before, wander(suite, env, task))
            need(
                not told,
                f"random actions in {before.name}, done again after others, were answered "
                f"otherwise; {told}",
            )


def _check_games(suite: Suite, per_type: int) -> None:
    count = max(2, min(2 * per_type, _MOST_OPENINGS // max(1, len(suite.types))))
    seen: dict[str, list[Task]] = {}
    with _made(suite) as env:
        for split in suite.splits:
            for task in _tasks(suite, split, count):
                if task.type in suite.repeats:
                    continue
                opening = start(env, task)[0]
                for other in seen.setdefault(opening, []):
                    same = other.type == task.type and _same_game(suite, env, task, other)
                    need(
                        not same,
                        f"tasks {other.identity} ({other.split}) and {task.identity} "
                        f"({task.split}), seeds {other.seed} and {task.seed}, are the same game "
                        "under two identities: make the identity a hash of what makes the game, "
                        "and list it once",
                    )
                seen[opening].append(task)


def _same_game(suite: Suite, env: TextEnv, task: Task, other: Task) -> bool:
    """Whether neither the expert nor random actions find a difference between two tasks."""
    pairs: list[tuple[Played, Played]] = []
    if has_expert(suite):
        pairs.append((play(suite, env, task), play(suite, env, other)))
    pairs.append((explore(suite, env, task), explore(suite, env, other)))
    return not any(difference(one, two) for one, two in pairs)


def _check_reachable(suite: Suite, per_type: int) -> None:
    with _made(suite) as env:
        told = [start(env, task)[1]["task"] for task in _played(suite, max(2, per_type))]
    check_reachable(told)


def _check_no_leak(suite: Suite, per_type: int) -> None:
    with _made(suite) as env:
        task = _played(suite, 1)[0]
        observation, info = start(env, task)
        action = _some_actions(suite, task, observation)[0]
        infos = [info, check_answer(env.step(action), task, action)[4]]
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


def _check_expert(suite: Suite, per_type: int) -> None:
    if not has_expert(suite):
        return
    lost: list[str] = []
    with _made(suite) as env:
        tasks = _played(suite, per_type)
        # Who makes tasks can leave out what the expert does not solve; a benchmark's list is given.
        most = 0 if suite.size(tasks[0].split) is None else len(tasks) // 10
        for task in tasks:
            played = play(suite, env, task)
            lost += [] if played.success else [played.name]
            need(
                len(lost) <= most,
                f"the expert's episode of {', '.join(lost)} is not won in {suite.limit(task)} "
                "steps: list only what it solves",
            )
            need(
                not start(env, task)[1]["success"],
                f"reset after the expert's episode of {played.name} still says success",
            )


def _check_knowledge(suite: Suite, per_type: int) -> None:
    if not has_expert(suite):
        return
    with _made(suite) as env:
        tasks = _played(suite, 1)
        for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
            played = play(suite, env, task)
            start(env, other)  # whoever looks into the environment sees another game
            check_knowledge(suite, played, task)


def _check_close(suite: Suite, per_type: int) -> None:
    suite.make().close()
    env = suite.make()
    start(env, _played(suite, 1)[0])
    env.close()
    env.close()
