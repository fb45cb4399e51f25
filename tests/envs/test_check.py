"""`check_env` passes what keeps the contract and catches each way of breaking it."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from relive.envs import check_env, get_suite, suite_names
from relive.envs.base import ActionTemplate, Info
from relive.envs.toy import ToyEnv, ToyExpert, ToySuite
from relive.task import Task


@pytest.mark.parametrize("name", suite_names())
def test_registered_suites_keep_the_contract(name: str) -> None:
    findings = check_env(get_suite(name))
    assert len(findings) >= 12
    assert [str(finding) for finding in findings if not finding.ok] == []


class Suite(ToySuite):
    """A toy suite with one thing broken: tasks pass through `change`, environments are of
    `kind`."""

    def __init__(
        self, kind: type[ToyEnv] = ToyEnv, change: Callable[[list[Task]], list[Task]] = list
    ) -> None:
        self._kind, self._change = kind, change

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        return self._change(super().tasks(split, count, types, start))

    def make(self) -> ToyEnv:
        return self._kind()


def every(**changes: Any) -> Callable[[list[Task]], list[Task]]:
    return lambda tasks: [dataclasses.replace(task, **changes) for task in tasks]


def unstable() -> Callable[[list[Task]], list[Task]]:
    counter = itertools.count()
    return lambda tasks: [dataclasses.replace(task, seed=next(counter)) for task in tasks]


Step = tuple[str, float, bool, bool, Info]


class Forgetful(ToyEnv):
    """Counts its resets and shows it."""

    count = 0

    def reset(self, **options: Any) -> tuple[str, Info]:
        self.count += 1
        observation, info = super().reset(**options)
        return f"{observation} Game {self.count}.", info


class Hidden(ToyEnv):
    def reset(self, **options: Any) -> tuple[str, Info]:
        _, info = super().reset(**options)
        return "You are somewhere.", info


class Informing(ToyEnv):
    """Gives another `info`."""

    def told(self, info: Info) -> Info:
        raise NotImplementedError

    def reset(self, **options: Any) -> tuple[str, Info]:
        observation, info = super().reset(**options)
        return observation, self.told(info)

    def step(self, action: str) -> Step:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, self.told(info)


class Poor(Informing):
    def told(self, info: Info) -> Info:
        del info["success"]
        return info


class Boastful(Informing):
    def told(self, info: Info) -> Info:
        return {**info, "score": 1.0}


class Leaky(Informing):
    def told(self, info: Info) -> Info:
        return {**info, "admissible_commands": list(self.admissible())}


class Chatty(Informing):
    """Leaks under an innocent name."""

    def told(self, info: Info) -> Info:
        return {**info, "hints": ("go to kitchen",)}


class FourValues(ToyEnv):
    def step(self, action: str) -> Any:
        return super().step(action)[:4]


class Lenient(Informing):
    def told(self, info: Info) -> Info:
        return {**info, "invalid": False}


class Fragile(ToyEnv):
    def step(self, action: str) -> Step:
        if action.strip() not in self.admissible():
            raise ValueError(action)
        return super().step(action)


class Drifting(ToyEnv):
    """Invalid actions move the agent."""

    def step(self, action: str) -> Step:
        answer = super().step(action)
        if answer[4]["invalid"]:
            self._places = ()
        return answer


class Moody(ToyEnv):
    mood = itertools.count()

    def step(self, action: str) -> Step:
        observation, *rest = super().step(action)
        return (f"{observation} ({next(self.mood)})", *rest)  # type: ignore[return-value]


class Endless(ToyEnv):
    def step(self, action: str) -> Step:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info


class Random(ToyEnv):
    """Draws its task from a generator of its own."""

    numbers = itertools.count(1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        return super().reset(
            seed=None if seed is None else seed + next(self.numbers), options=options
        )


class TestPlayer(ToyEnv):
    """Trains on the test split."""

    __test__ = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        return super().reset(seed=seed, options=options or {"task": ToySuite().tasks("test", 1)[0]})


class Sticky(ToyEnv):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise OSError("already closed")
        self.closed = True


class Lost(ToyExpert):
    def act(self, observation: str) -> str:
        return "look"


class Unguided(Suite):
    """Its expert solves nothing."""

    def expert(self) -> ToyExpert:
        return Lost()


class Mislabelled(Suite):
    templates = (ActionTemplate("look", "gaze"),)


class Misgrouped(Suite):
    groups = {"easy": ("fetch", "fly")}  # noqa: RUF012


class OneForAll(Suite):
    """The same games in every split."""

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        return [
            dataclasses.replace(task, split=split)
            for task in ToySuite().tasks("train", count, types, start)
        ]


class NoStart(Suite):
    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        return ToySuite().tasks(split, count, types)


@pytest.mark.parametrize(
    ("suite", "check", "message"),
    [
        (Mislabelled(), "describes itself", "gaze"),
        (Misgrouped(), "describes itself", "fly"),
        (Suite(change=lambda tasks: tasks[:1]), "tasks are listed", "gave 1"),
        (Suite(change=lambda tasks: tasks[:1] * len(tasks)), "tasks are listed", "twice"),
        (Suite(change=every(version="0")), "tasks are listed", "version"),
        (
            Suite(
                change=lambda tasks: [
                    dataclasses.replace(t, identity=f"game {t.seed}") for t in tasks
                ]
            ),
            "tasks are listed",
            "16 hex",
        ),
        (Suite(change=every(goal="win.")), "tasks are listed", "full stop"),
        (Suite(change=unstable()), "lists are stable", "differs"),
        (NoStart(), "lists are stable", "start"),
        (OneForAll(), "splits share", "share"),
        (Suite(Forgetful), "reset answers", "different observations"),
        (Suite(Hidden), "reset answers", "goal"),
        (Suite(Poor), "reset answers", "'success'"),
        (Suite(Boastful), "reset answers", "score"),
        (Suite(Random), "follows its seed", "two different games"),
        (Suite(TestPlayer), "follows its seed", "only train"),
        (Suite(FourValues), "five values", "five"),
        (Suite(Lenient), "invalid action", "is False after"),
        (Suite(Fragile), "invalid action", "raised ValueError"),
        (Suite(Drifting), "invalid action", "do nothing"),
        (Suite(Moody), "same actions", "different transcripts"),
        (Suite(Leaky), "admissible", "admissible_commands"),
        (Suite(Chatty), "admissible", "hints"),
        (Suite(Endless), "expert solves", "terminated"),
        (Unguided(), "expert solves", "not won"),
        (Suite(Sticky), "closing", "already closed"),
    ],
    ids=lambda value: (
        getattr(value, "_kind", type(value)).__name__ if isinstance(value, Suite) else None
    ),
)
def test_each_breakage_is_caught(suite: Suite, check: str, message: str) -> None:
    failed = [finding for finding in check_env(suite) if not finding.ok]
    assert any(check in finding.check and message in finding.message for finding in failed), list(
        map(str, failed)
    )


def test_a_suite_without_an_expert_can_pass() -> None:
    class Alone(Suite):
        def expert(self) -> ToyExpert:
            raise NotImplementedError

    assert [str(finding) for finding in check_env(Alone()) if not finding.ok] == []
