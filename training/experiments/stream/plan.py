"""What a continual-learning stream is: its stages, arms, orders and tasks, all of them decided by
the settings."""

import itertools
import math
import random
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ....agent.runner import RunSettings
from ....envs import Suite, Task, get_suite
from ....envs.base import types_of
from ....memory import Retrieval
from ....memory.holdout import TRAIN
from ....memory.maintenance.evict import POLICIES
from ...examples import ContextRates
from ...lora import LoraSettings


@dataclass(frozen=True, slots=True)
class StageSettings:
    """A stretch of the stream with one distribution of tasks."""

    name: str = ""
    """Stages of one name are measured on the same held-out tasks."""
    suite: str = ""
    """Another suite than the stream's, for example ``household-renamed``."""
    types: tuple[str, ...] = ()
    """Task types or groups; empty for all of the suite."""
    rooms: int = -1
    """Of training tasks: 0 or 1 for one half of the rooms each; -1 for all."""
    wording: str = ""
    """Goals of one wording only, on both sides: ``put`` for those that begin with it, ``other`` for
    the rest."""
    tasks: int = 40
    """Training tasks that are played."""

    @property
    def distribution(self) -> "StageSettings":
        """What its held-out tasks are drawn from; the same for stages that differ in name, rooms
        and length alone."""
        return replace(self, name="", rooms=-1, tasks=1)

    def __post_init__(self) -> None:
        if (
            self.wording not in ("", "put", "other")
            or self.rooms not in (-1, 0, 1)
            or self.tasks < 1
        ):
            raise ValueError(
                f"stage {self.name!r} needs wording '', 'put' or 'other', rooms -1, 0 or 1, and at "
                "least one task"
            )


@dataclass(frozen=True, slots=True)
class Arm:
    """What of an agent learns."""

    memory: bool = False
    adapter: bool = False
    frozen: bool = False
    """Retrieval sees nothing that came after the first stage."""
    explores: bool = False
    """Where memory knows nothing the bare base acts (:mod:`relive.agent.ensemble.explorer`)."""
    evict: str = ""
    """Policy by which a bounded memory forgets; empty for an unbounded one."""


ARMS: dict[str, Arm] = {
    "none": Arm(),
    "memory": Arm(memory=True),
    "adapter": Arm(adapter=True),
    "both": Arm(memory=True, adapter=True),
    "both-exploring": Arm(memory=True, adapter=True, explores=True),
    "frozen-memory": Arm(memory=True, adapter=True, frozen=True),
    **{f"bounded-{policy}": Arm(memory=True, adapter=True, evict=policy) for policy in POLICIES},
}


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Everything that decides a stream's numbers."""

    suite: str = "household"
    stages: tuple[StageSettings, ...] = ()
    split: str = "test"
    """Of the held-out tasks; ``valid`` while designing."""
    held_out: int = 24
    """Held-out tasks per stage name and seed."""
    arms: tuple[str, ...] = tuple(arm for arm in ARMS if not ARMS[arm].explores)
    orders: int = 3
    """The first is that of `stages`, the others are drawn (:func:`order_of`)."""
    seeds: int = 2
    """Each with its own training tasks, held-out tasks, adapter initialisation and rehearsal."""
    experience: str = "expert"
    """``expert``: what the scripted expert does. ``own``: what the agent itself does, failures kept
    and labelled."""
    temperature: float = 0.5
    """Of its own experience, for exploring."""
    known_above: float = field(default=0.7, metadata={"sparse": True})
    """Similarity above which memory knows something, for an arm that explores: nothing below is
    shown to it."""
    capacity: float = 0.25
    """Of a bounded memory: share of all the stream's episodes."""
    keep_per_type: int = 2
    """Successes per task type that eviction spares."""
    tune: str = "restart"
    """``restart``: each stage's adapter from the base, on all that is remembered. ``continue``:
    from the last adapter, on the new stage alone. ``replay``: from the last adapter, on the new
    stage and a sample of what is remembered of the others."""
    replay: float = 1.0
    """With ``replay``: episodes of earlier stages per episode of the new one."""
    jobs: int = 2
    """Processes of one thread each."""
    model: str = "bundled"
    lora: LoraSettings = field(
        default_factory=lambda: LoraSettings(steps=80, batch_examples=5, rehearsal=0.5)
    )
    context: ContextRates = field(default_factory=lambda: ContextRates(0.2, 0.2))
    retrieval: Retrieval = field(default_factory=Retrieval, metadata={"stored": "recall"})
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if not self.stages or any(not stage.name for stage in self.stages):
            raise ValueError(
                "a stream needs stages, each with a name: [[stages]] in the settings file"
            )
        for a, b in itertools.combinations(self.stages, 2):
            if a.name == b.name and a.distribution != b.distribution:
                raise ValueError(
                    f"two stages {a.name!r} differ in suite, types or wording, but stages of one "
                    "name share their held-out tasks: "
                    "give them different names"
                )
        if self.split == TRAIN:
            raise ValueError(
                "stream.split is 'train', which is what is learnt from; measure on 'valid' or "
                "'test'"
            )
        if self.experience not in ("expert", "own"):
            raise ValueError(f"stream.experience is {self.experience!r}; use 'expert' or 'own'")
        if self.tune not in ("restart", "continue", "replay"):
            raise ValueError(f"stream.tune is {self.tune!r}; use 'restart', 'continue' or 'replay'")
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown or not self.arms or len(set(self.arms)) < len(self.arms):
            raise ValueError(
                f"stream.arms is {list(self.arms)}: use some of {', '.join(ARMS)}, each once"
            )
        if min(self.orders, self.seeds, self.held_out, self.jobs) < 1 or not 0 < self.capacity <= 1:
            raise ValueError(
                "a stream needs orders, seeds, held_out and jobs of at least 1, and a capacity in "
                "(0, 1]"
            )
        if min(self.replay, self.temperature, self.keep_per_type) < 0:
            raise ValueError(
                "stream.replay, stream.temperature and stream.keep_per_type must not be negative"
            )
        if self.orders > math.factorial(len(self.stages)):
            raise ValueError(
                f"{len(self.stages)} stages cannot be put into {self.orders} different orders: ask "
                "for fewer"
            )
        if self.retrieval.query == "dynamic" and any(ARMS[arm].adapter for arm in self.arms):
            raise ValueError(
                "an episode is trained on under one memory block: use retrieval.query = 'static' "
                "or 'opening'"
            )


def order_of(settings: StreamSettings, order: int) -> list[int]:
    """Indices of the stages in the order with that number: that of the settings, then drawn ones.

    No order comes twice, and none begins as an earlier one while there are stages that none began
    with.
    """
    orders = [list(range(len(settings.stages)))]
    for number in range(1, order + 1):
        drawn, rng = list(range(len(settings.stages))), random.Random(f"order/{number}")
        first = {earlier[0] for earlier in orders}
        rng.shuffle(drawn)
        while drawn in orders or (len(first) < len(drawn) and drawn[0] in first):
            rng.shuffle(drawn)
        orders.append(drawn)
    return orders[order]


def suite_of(settings: StreamSettings, stage: StageSettings) -> Suite:
    """The suite of a stage."""
    return get_suite(stage.suite or settings.suite)


def training_tasks(settings: StreamSettings, number: int, seed: int) -> Sequence[Task]:
    """Training tasks of the stage with an index, whatever the order; no task belongs to two stages
    or two seeds.

    Raises:
        ValueError: the suite has too few tasks of the kind.
    """
    return _allocated(settings.suite, settings.stages, TRAIN, seed)[number]


def held_out_tasks(settings: StreamSettings, number: int, seed: int) -> Sequence[Task]:
    """Held-out tasks of a stage; stages of one name share them, others and other seeds do not.
    Raises as :func:`training_tasks`."""
    names = [stage.name for stage in settings.stages]
    number = names.index(names[number])
    stages = tuple(replace(stage, tasks=settings.held_out) for stage in settings.stages)
    return _allocated(settings.suite, stages, settings.split, seed)[number]


@lru_cache(maxsize=8)
def _allocated(
    suite: str, stages: tuple[StageSettings, ...], split: str, seed: int
) -> dict[int, list[Task]]:
    """By index, tasks of the stages for the last of seeds 0 to `seed`, one stage after the other,
    without what was given away."""
    given: set[tuple[str, str]] = set()
    found: dict[int, list[Task]] = {}
    supplies: dict[StageSettings, _Supply] = {}
    names = [stage.name for stage in stages]
    for _ in range(seed + 1):
        for number, stage in enumerate(stages):
            if split != TRAIN and names.index(stage.name) < number:
                continue
            home = stage.suite or suite
            of = replace(stage, name="", tasks=1, rooms=stage.rooms if split == TRAIN else -1)
            supply = supplies.setdefault(of, _Supply(home, of, split))
            found[number] = []
            for _ in range(stage.tasks):
                task = supply.take(given)
                if task is None:
                    raise ValueError(
                        f"stage {stage.name!r} finds {len(found[number])} of {stage.tasks} tasks "
                        f"of split {split!r} that no other "
                        "stage or seed has: ask for fewer"
                    )
                found[number].append(task)
    return found


class _Supply:
    """Tasks of a distribution in the order in which the suite lists them; one that is given away
    already is replaced by the next one of its type, so that the share of each type stays."""

    def __init__(self, suite: str, stage: StageSettings, split: str) -> None:
        self._suite = suite
        self._types = (task.type for task in _listed(suite, stage, split))
        self._tasks = _listed(suite, stage, split)
        self._waiting: dict[str, deque[Task]] = defaultdict(deque)

    def take(self, given: set[tuple[str, str]]) -> Task | None:
        """The next task, which is added to `given`; None if there is none."""
        kind = next(self._types, None)
        if kind is None:
            return None
        for _ in range(5000):
            while not self._waiting[kind]:
                task = next(self._tasks, None)
                if task is None:
                    return None
                self._waiting[task.type].append(task)
            task = self._waiting[kind].popleft()
            if (self._suite, task.identity) not in given:
                given.add((self._suite, task.identity))
                return task
        return None


def _listed(suite: str, stage: StageSettings, split: str) -> Iterator[Task]:
    """Tasks of a stage's distribution; ends when many were looked at and none fitted."""
    chosen = get_suite(suite)
    types = types_of(chosen, stage.types or chosen.types)
    idle = 0
    for start in itertools.count(0, 20):
        fitting = [
            task
            for task in chosen.tasks(split, len(types) * 20, types, start=start)
            if _accepted(stage, task)
        ]
        idle = 0 if fitting else idle + 1
        if idle == 50:
            return
        yield from fitting


def _accepted(stage: StageSettings, task: Task) -> bool:
    if stage.wording and task.goal.startswith("put") != (stage.wording == "put"):
        return False
    return stage.rooms < 0 or sum(task.room.encode()) % 2 == stage.rooms
