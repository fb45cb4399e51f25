"""`check_env` passes what keeps the contract and catches each way of breaking it."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from relive.envs import check_env, get_suite
from relive.envs.base import ActionTemplate, Info
from relive.envs.toy import ToyEnv, ToyExpert, ToySuite
from relive.task import Task


@pytest.mark.parametrize("name", ["household", "household-renamed", "toy"])
def test_registered_suites_keep_the_contract(name: str) -> None:
    findings = check_env(get_suite(name), per_type=1)
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

    def expert(self, task: Task) -> ToyExpert:
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
        (Suite(Moody), "same actions", "went otherwise; step 1"),
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


def test_playing_nothing_is_no_check() -> None:
    with pytest.raises(ValueError, match="1 or more, not 0"):
        check_env(ToySuite(), per_type=0)


def test_a_suite_without_an_expert_can_pass() -> None:
    class Alone(Suite):
        expert_kind = ""

    assert [str(finding) for finding in check_env(Alone()) if not finding.ok] == []


class Overrated(ToyEnv):
    """Scores points, and more than there are."""

    def step(self, action: str) -> Step:
        observation, reward, terminated, truncated, info = super().step(action)
        score = 1.0 if info["success"] else 3.0 if self._held else 0.0
        return observation, reward, terminated, truncated, {**info, "score": score}


class SecondRandom(ToyEnv):
    """Tasks of the second type open differently each time."""

    count = itertools.count()

    def reset(self, **options: Any) -> tuple[str, Info]:
        observation, info = super().reset(**options)
        if info["task"].type == "wash":
            observation = observation.replace("It has", f"It is day {next(self.count)}. It has")
        return observation, info


class Remembering(ToyEnv):
    """What was washed stays clean over resets."""

    washed: str = ""

    def reset(self, **options: Any) -> tuple[str, Info]:
        answer = super().reset(**options)
        return answer

    def step(self, action: str) -> Step:
        observation, *rest = super().step(action)
        if action.startswith("wash"):
            known, self.washed = self.washed, self.washed + action
            observation += f" It has been washed {len(known)} times." if known else ""
        return (observation, *rest)  # type: ignore[return-value]


class LateNoise(ToyEnv):
    """Draws from the clock after the eighth step."""

    number = 0
    noise = itertools.count()

    def reset(self, **options: Any) -> tuple[str, Info]:
        self.number = 0
        return super().reset(**options)

    def step(self, action: str) -> Step:
        self.number += 1
        observation, *rest = super().step(action)
        late = f" ({next(self.noise)})" if self.number > 8 else ""
        return (observation + late, *rest)  # type: ignore[return-value]


class Repeating(Suite):
    """One game under many identities."""

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        listed = ToySuite().tasks(split, count, types, start)
        first = {kind: ToySuite().tasks(split, 1, (kind,))[0] for kind in self.types}
        return [
            dataclasses.replace(first[t.type], identity=t.identity, payload=str(t.seed))
            for t in listed
        ]


class Memorised(Suite):
    """Its test games are its train games, renamed."""

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        listed = ToySuite().tasks("train" if split == "test" else split, count, types, start)
        if split != "test":
            return listed
        return [
            dataclasses.replace(
                t, identity=t.identity[::-1], split="test", payload="test", room=f"new {t.room}"
            )
            for t in listed
        ]

    def make(self) -> ToyEnv:
        return Renaming()


class Renaming(ToyEnv):
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        told = (options or {}).get("task")
        if told is None or told.payload != "test":
            return super().reset(seed=seed, options=options)
        plain = dataclasses.replace(told, split="train")
        observation, info = super().reset(seed=seed, options={"task": plain})
        self._task = told
        return observation, {**info, "task": told}


class Watched(ToyEnv):
    newest: "Watched | None" = None

    def reset(self, **options: Any) -> tuple[str, Info]:
        Watched.newest = self
        return super().reset(**options)


class Spy:
    """Looks where the thing is."""

    def act(self, observation: str) -> str:
        env = Watched.newest
        assert env is not None
        thing, place = env._thing, env._where[env._thing]
        if env._held:
            if env._task is not None and env._task.type == "wash" and not env._clean:
                return f"wash {thing}" if env._here == "kitchen" else "go to kitchen"
            there = env._here == env._destination
            return f"put down {thing}" if there else f"go to {env._destination}"
        return f"take {thing}" if env._here == place else f"go to {place}"


class Spied(Suite):
    def make(self) -> ToyEnv:
        return Watched()

    def expert(self, task: Task) -> Any:
        return Spy()


class Constant(Suite):
    """One room and one goal for everything."""

    def tasks(
        self, split: str, count: int, types: Sequence[str] = (), start: int = 0
    ) -> list[Task]:
        listed = ToySuite().tasks(split, count, types, start)
        return [dataclasses.replace(t, room=f"the {split} house", goal="") for t in listed]

    def make(self) -> ToyEnv:
        return Aimless()


class Aimless(ToyEnv):
    def reset(self, **options: Any) -> tuple[str, Info]:
        observation, info = super().reset(**options)
        task = dataclasses.replace(info["task"], goal="win")
        return f"{observation} You want to win.", {**info, "task": task}


class Unlimited(Suite):
    """Says that there are ten tasks of a split and lists more."""

    def size(self, split: str, types: Sequence[str] = (), start: int = 0) -> int:
        return 10


@pytest.mark.parametrize(
    ("suite", "check", "message"),
    [
        (Suite(Overrated), "expert solves", "'score'] after step 'take"),
        (Suite(SecondRandom), "reset answers", "the opening: first"),
        (Suite(Remembering), "same actions", "times."),
        (Suite(LateNoise), "random actions", "step 9,"),
        (Repeating(), "listed twice", "the same game under two identities"),
        (Memorised(), "listed twice", "(test)"),
        (Spied(), "knows what it says", "visible text alone"),
        (Constant(), "can be reached", "same room and goal"),
        (Unlimited(), "tasks are listed", "though size('train') is 10"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Suite) else None,
)
def test_deliberate_faults_are_found(suite: Suite, check: str, message: str) -> None:
    failed = [finding for finding in check_env(suite) if not finding.ok]
    assert any(check in finding.check and message in finding.message for finding in failed), list(
        map(str, failed)
    )
