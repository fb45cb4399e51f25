"""Continual learning: an agent lives through stages one after the other, and is measured on all of them after each.

A run is one arm (what of it learns), one order of the stages and one seed. In each stage it gathers experience, the scripted
expert's or its own, forgets what does not fit into a bounded memory, fine-tunes, and then plays held-out tasks of every
stage with its memory read-only. What it is after a stage, a log position and an adapter, is kept and can be restored. Arms play the
same tasks in the same order. Whatever is done is found again after a kill, with the same numbers.
"""

import random
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.assemble import BUNDLED, PolicySettings, actor_of, assemble
from agent.prompt import PROMPT_VERSION
from agent.recall import Recall, RecallSettings
from agent.records import Record, read, record, write
from agent.rundir import Announce, RunDirectory, measure, silent, versions
from agent.runner import Runner, RunSettings, play_all, spec_of
from agent.weights import find_model, hash_weights
from envs import Suite, Task, get_suite
from envs.base import types_of
from memory import ExperienceMemory, Purpose
from memory.evict import POLICIES
from memory.lock import WriterLock
from training.examples import ContextRates, build_examples
from training.jobs import commit, run_jobs
from training.lora import LoraSettings, train_adapter
from training.select import SelectSettings, select, tasks_of


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
    """Goals of one wording only, on both sides: ``put`` for those that begin with it, ``other`` for the rest."""
    tasks: int = 40
    """Training tasks that are lived through."""

    def __post_init__(self) -> None:
        if self.wording not in ("", "put", "other") or self.rooms not in (-1, 0, 1) or self.tasks < 1:
            raise ValueError(
                f"stage {self.name!r} needs wording '', 'put' or 'other', rooms -1, 0 or 1, and at least one task"
            )


@dataclass(frozen=True, slots=True)
class Arm:
    """What of an agent learns."""

    memory: bool = False
    adapter: bool = False
    frozen: bool = False
    """Retrieval sees nothing that came after the first stage."""
    evict: str = ""
    """Policy by which a bounded memory forgets; empty for an unbounded one."""


ARMS: dict[str, Arm] = {
    "none": Arm(),
    "memory": Arm(memory=True),
    "adapter": Arm(adapter=True),
    "both": Arm(memory=True, adapter=True),
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
    arms: tuple[str, ...] = tuple(ARMS)
    orders: int = 3
    """The first is that of `stages`, the others are drawn."""
    seeds: int = 2
    """Each with its own training tasks, held-out tasks, adapter initialisation and rehearsal."""
    experience: str = "expert"
    """``expert``: what the scripted expert does. ``own``: what the agent itself does, failures kept and labelled."""
    temperature: float = 0.5
    """Of its own experience, for exploring."""
    capacity: float = 0.25
    """Of a bounded memory: share of all the stream's episodes."""
    keep_per_type: int = 2
    """Successes per task type that eviction spares."""
    tune: str = "restart"
    """``restart``: each stage's adapter from the base, on all that is remembered. ``continue``: from the last adapter, on the new stage
    alone. ``replay``: from the last adapter, on the new stage and a sample of what is remembered of the others."""
    replay: float = 1.0
    """With ``replay``: episodes of earlier stages per episode of the new one."""
    jobs: int = 2
    """Processes of one thread each."""
    model: str = "bundled"
    lora: LoraSettings = field(default_factory=lambda: LoraSettings(steps=80, batch_examples=5, rehearsal=0.5))
    context: ContextRates = field(default_factory=lambda: ContextRates(0.2, 0.2))
    recall: RecallSettings = field(default_factory=RecallSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if not self.stages or any(not stage.name for stage in self.stages):
            raise ValueError("a stream needs stages, each with a name: [[stages]] in the settings file")
        if self.experience not in ("expert", "own"):
            raise ValueError(f"stream.experience is {self.experience!r}; use 'expert' or 'own'")
        if self.tune not in ("restart", "continue", "replay"):
            raise ValueError(f"stream.tune is {self.tune!r}; use 'restart', 'continue' or 'replay'")
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown:
            raise ValueError(f"unknown arms {unknown}: use some of {', '.join(ARMS)}")
        if min(self.orders, self.seeds, self.held_out, self.jobs) < 1 or not 0 < self.capacity <= 1:
            raise ValueError("a stream needs orders, seeds, held_out and jobs of at least 1, and a capacity in (0, 1]")


@dataclass(frozen=True, slots=True)
class Life:
    """One run: an arm, an order of the stages, a seed."""

    arm: str
    order: int = 0
    seed: int = 0

    @property
    def name(self) -> str:
        """A folder name of its own."""
        return f"{self.arm}-o{self.order}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class StageState:
    """What an agent is after a stage: enough to go on from there."""

    stage: int
    """Index in the order in which this life meets the stages."""
    name: str
    position: int
    """Log position of its memory."""
    read: int
    """Position at which it reads its memory; less than `position` where the memory is frozen."""
    adapter: str
    """Name of its adapter; empty for the bare model."""
    memory_size: int
    tokens: int
    """Supervised tokens that this stage's fine-tuning learnt from."""
    seconds: float
    """Wall time of the stage, measuring excluded."""


def order_of(settings: StreamSettings, order: int) -> list[int]:
    """Indices of the stages in the order with that number."""
    numbers = list(range(len(settings.stages)))
    if order:
        random.Random(f"order/{order}").shuffle(numbers)
    return numbers


def suite_of(settings: StreamSettings, stage: StageSettings) -> Suite:
    """The suite of a stage."""
    return get_suite(stage.suite or settings.suite)


def training_tasks(settings: StreamSettings, number: int, seed: int) -> list[Task]:
    """Training tasks of the stage with an index, whatever the order; no task belongs to two seeds.

    Stages of one distribution (rounds) have tasks of their own, one after the other.

    Raises:
        ValueError: the suite has too few tasks of the kind.
    """
    stage = settings.stages[number]
    same = [
        i for i, s in enumerate(settings.stages) if replace(s, name="", tasks=1) == replace(stage, name="", tasks=1)
    ]
    before = sum(settings.stages[i].tasks for i in same if i < number)
    total = sum(settings.stages[i].tasks for i in same)
    return _listed(settings, stage, "train", seed * total + before, stage.tasks)


def held_out_tasks(settings: StreamSettings, number: int, seed: int) -> list[Task]:
    """Held-out tasks of a stage's distribution; raises as :func:`training_tasks`."""
    return _listed(settings, settings.stages[number], settings.split, seed * settings.held_out, settings.held_out)


def _listed(settings: StreamSettings, stage: StageSettings, split: str, start: int, count: int) -> list[Task]:
    """The first tasks of a stage's distribution after `start` of them."""
    suite = suite_of(settings, stage)
    types = types_of(suite, stage.types or suite.types)
    found: list[Task] = []
    read, want = 0, start + count
    while len(found) < want and read < 50 * want + 200:
        more = suite.tasks(split, len(types) * 20, types, start=read)
        found += [task for task in more if _accepted(stage, task, split)]
        read += 20
    if len(found) < want:
        raise ValueError(f"stage {stage.name!r} finds {len(found)} of {want} tasks of split {split!r}: ask for fewer")
    return found[start:want]


def _accepted(stage: StageSettings, task: Task, split: str) -> bool:
    if stage.wording and task.goal.startswith("put") != (stage.wording == "put"):
        return False
    half = sum(task.room.encode()) % 2
    return stage.rooms < 0 or split != "train" or half == stage.rooms


class Living:
    """One life in a stream's folder."""

    def __init__(self, path: Path, settings: StreamSettings, life: Life) -> None:
        self.path, self.settings, self.life = path, settings, life
        self.arm, self.numbers = ARMS[life.arm], order_of(settings, life.order)
        self.stages = [settings.stages[number] for number in self.numbers]
        self.folder = path / "lives" / life.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.directory = RunDirectory(path, described(settings))
        self.made = assemble(PolicySettings(model=settings.model), get_suite(settings.suite), settings.run.batch)
        assert self.made.local is not None
        self.local = self.made.local
        self.states = [StageState(**s) for s in self.directory.read(self._file("states.json")) or []]

    def _file(self, name: str) -> str:
        return f"lives/{self.life.name}/{name}"

    def run(self) -> None:
        """Lives through what it has not lived through yet, and measures after each stage."""
        with ExperienceMemory.open(self.folder / "memory", mode="create") as memory:
            for number in range(len(self.stages)):
                if number == len(self.states):
                    self.states.append(self._stage(number, memory))
                    self.directory.write(self._file("states.json"), [asdict(state) for state in self.states])
                self._measure(number, memory)

    def _stage(self, number: int, memory: ExperienceMemory) -> StageState:
        began, stage = time.monotonic(), self.stages[number]
        plan = self.directory.read(self._file(f"stage-{number}.json"))
        if plan is None:
            plan = {"position": memory.position, "lived": False, "seconds": 0.0}
            self.directory.write(self._file(f"stage-{number}.json"), plan)
        learns = self.arm.memory or self.arm.adapter
        if learns and not plan["lived"]:
            self._gather(number, memory, plan["position"])
            self.directory.write(self._file(f"stage-{number}.json"), {**plan, "lived": True})
        if self.arm.evict:
            total = sum(stage.tasks for stage in self.stages)
            capacity = max(1, round(self.settings.capacity * total))
            memory.evict(capacity=capacity, by=self.arm.evict, keep_per_type=self.settings.keep_per_type)
        read_at = self.states[0].read if self.arm.frozen and number else memory.position
        adapter, tokens = self._tune(number, memory, plan["position"], read_at) if self.arm.adapter else ("", 0)
        return StageState(
            stage=number,
            name=stage.name,
            position=memory.position,
            read=read_at,
            adapter=adapter,
            memory_size=len(memory) if self.arm.memory else 0,
            tokens=tokens,
            seconds=round(time.monotonic() - began, 1),
        )

    def _gather(self, number: int, memory: ExperienceMemory, position: int) -> None:
        """Lives through a stage's training tasks, in waves that are added whole and in the order of the tasks."""
        s, stage = self.settings, self.stages[number]
        tasks = training_tasks(s, self.numbers[number], self.life.seed)
        known = {entry.task.identity for entry in memory.entries() if entry.position >= position}
        for first in range(0, len(tasks), s.run.batch):
            wave = [task for task in tasks[first : first + s.run.batch] if task.identity not in known]
            if s.experience == "expert":
                suite = suite_of(s, stage)
                expert = assemble(PolicySettings(kind="expert"), suite)
                runner = Runner(suite, expert.policy, expert.actor, s.run)
            else:
                runner = self._runner(number, memory, number - 1, position, Purpose.ACT)
                runner = replace(runner, settings=replace(s.run, seed=1000 * self.life.seed + number))
            memory.add_many(play_all(runner, wave))

    def _runner(self, number: int, memory: ExperienceMemory, state: int, position: int, purpose: Purpose) -> Runner:
        """A runner for the tasks of a stage, with the adapter of an earlier one (-1: none yet)."""
        s, stage = self.settings, self.stages[number]
        adapter = self.states[state].adapter if state >= 0 else ""
        self.local.set_adapter(self.folder / "adapters" / adapter if adapter else None, adapter or None)
        self.local.temperature = s.temperature if purpose is Purpose.ACT else 0.0
        noted: dict[str, str | int | float | bool] = {"arm": self.life.arm, "temperature": self.local.temperature}
        recall = self._recall(memory, position, purpose) if self.arm.memory else None
        return Runner(suite_of(s, stage), self.local, actor_of(self.local, s.model, noted), s.run, recall)

    def _recall(self, memory: ExperienceMemory, position: int, purpose: Purpose) -> Recall:
        asked = self.settings.recall if self.arm.memory else replace(self.settings.recall, k=0)
        spec = spec_of(get_suite(self.settings.suite))
        return Recall(memory, spec, self.made.count, asked, purpose, position)

    def _tune(self, number: int, memory: ExperienceMemory, since: int, read_at: int) -> tuple[str, int]:
        """Fine-tunes the stage's adapter unless it exists; its name and the tokens that it learnt from."""
        s, name = self.settings, f"stage-{number}"
        folder, last = self.folder / "adapters" / name, self.states[-1].adapter if self.states else ""
        if not (folder / "manifest.json").exists():
            remembered = select(memory, SelectSettings(policies=("expert", "local")))
            new = {entry.episode_id for entry in memory.entries() if entry.position >= since}
            fresh = [episode for episode in remembered if episode.id in new]
            old = [episode for episode in remembered if episode.id not in new]
            if s.tune == "replay":
                draw = random.Random(f"replay/{self.life.seed}/{number}")
                old = draw.sample(old, min(len(old), round(s.replay * len(fresh))))
            learnt = fresh if s.tune == "continue" else [*old, *fresh]
            if not learnt:
                return last, 0
            rates = s.context if self.arm.memory else ContextRates(0.0, 0.0)
            seed = 100 * self.life.seed + number
            examples = build_examples(learnt, self._recall(memory, read_at, Purpose.TRAIN), rates, seed)
            start = self.folder / "adapters" / last if last and s.tune != "restart" else None
            folder.parent.mkdir(exist_ok=True)
            described = {"version": name, "parent": last, "life": asdict(self.life), "tasks": tasks_of(learnt)}
            lora = replace(s.lora, seed=s.lora.seed + seed)
            train_adapter(self.local.folder, self.local.encoder, examples, lora, folder, described, start=start)
        manifest = self.directory.read(self._file(f"adapters/{name}/manifest.json")) or {}
        return name, int(manifest.get("supervised_tokens", 0))

    def _measure(self, number: int, memory: ExperienceMemory) -> None:
        """Plays held-out tasks of every stage as the agent is after a stage, and writes their records."""
        s, state = self.settings, self.states[number]
        for name, index in {stage.name: i for i, stage in reversed(list(enumerate(self.stages)))}.items():
            file = records_file(self.path, self.life, number, name)
            if file.exists():
                continue
            if number and not (self.arm.memory or self.arm.adapter):
                # Nothing was learnt, so it does what it did.
                before = read(records_file(self.path, self.life, 0, name))
                write(file, [{**r, "stage": number, "learnt": state.name} for r in before])
                continue
            tasks = held_out_tasks(s, self.numbers[index], self.life.seed)
            runner = self._runner(index, memory, number, state.read, Purpose.EVALUATE)
            place = {**asdict(self.life), "stage": number, "learnt": state.name, "evaluated": name}
            played = measure(self.directory, self._file(f"evaluated/{number}-{name}"), runner, tasks)
            write(file, [record(episode, place, memory if self.arm.memory else None) for episode in played])


def records_file(path: Path, life: Life, stage: int, evaluated: str) -> Path:
    """Where the records of one cell of the matrix lie."""
    return path / "records" / life.name / f"{stage}-{evaluated}.jsonl.gz"


def live(path: Path, settings: StreamSettings, life: Life) -> None:
    """A life, in a process of its own with one thread."""
    import torch

    torch.set_num_threads(1)
    Living(path, settings, life).run()


def described(settings: StreamSettings) -> dict[str, Any]:
    """What a stream's folder belongs to; how many jobs there are and which arms are wanted may change on the way."""
    plain = {k: v for k, v in asdict(settings).items() if k not in ("jobs", "arms", "orders", "seeds")}
    weights = hash_weights(find_model(BUNDLED if settings.model == "bundled" else settings.model))
    suites = {stage.suite or settings.suite for stage in settings.stages}
    return {
        "stream": plain,
        "weights": weights,
        "suites": {name: get_suite(name).version for name in sorted(suites)},
        "prompt": PROMPT_VERSION,
    }


class Stream:
    """A resumable stream in a run directory.

    Args:
        path: the run directory.
        settings: what to do.
        announce: told about progress.

    Raises:
        ValueError: the directory holds a stream with other settings.
    """

    def __init__(self, path: Path, settings: StreamSettings, announce: Announce = silent) -> None:
        self.path, self.settings, self.announce = path, settings, announce
        self.directory = RunDirectory(path, described(settings))

    def lives(self) -> list[Life]:
        """All runs, order by order. An agent that learns nothing is the same in every order."""
        s = self.settings
        return [
            Life(arm, order, seed)
            for order in range(s.orders)
            for seed in range(s.seeds)
            for arm in s.arms
            if arm != "none" or order == 0
        ]

    def run(self) -> list[Record]:
        """Does what is not done yet and returns all records.

        Raises:
            BlockingIOError: another process works on this stream.
        """
        with WriterLock(self.path / "lock"):
            todo = [life for life in self.lives() if not self._done(life)]
            jobs = [(life.name, live, (self.path, self.settings, life)) for life in todo]
            run_jobs(self.directory, "lives", jobs, self.settings.jobs, self.announce)
            return self.records()

    def records(self) -> list[Record]:
        """The records of all finished lives."""
        return [r for life in self.lives() if self._done(life) for file in self._files(life) for r in read(file)]

    def states(self, life: Life) -> list[StageState]:
        """What an agent was after each stage; `relive eval --memory … --at READ --adapter …` measures it again."""
        return [StageState(**s) for s in self.directory.read(f"lives/{life.name}/states.json") or []]

    def summary(self) -> dict[str, Any]:
        """What a published result says of how it was made."""
        seconds = self.directory.read("seconds.json") or {}
        return {
            "commit": commit(),
            "settings": asdict(self.settings),
            "weights_sha256": described(self.settings)["weights"],
            "versions": versions(),
            "job_seconds": round(sum(seconds.values())),
        }

    def _files(self, life: Life) -> list[Path]:
        names = dict.fromkeys(stage.name for stage in self.settings.stages)
        return [
            records_file(self.path, life, number, name) for number in range(len(self.settings.stages)) for name in names
        ]

    def _done(self, life: Life) -> bool:
        return all(file.exists() for file in self._files(life))
