"""Continual learning: an agent lives through stages one after the other, and is measured on all of
them after each.

A run is one arm (what of it learns), one order of the stages and one seed. In each stage it gathers
experience, the scripted expert's or its own, forgets what does not fit into a bounded memory,
fine-tunes, and then plays held-out tasks of every stage with its memory read-only. What it is after
a stage, a log position and an adapter, is kept and can be restored. Arms play the same tasks in the
same order. Whatever is done is found again after a kill, with the same numbers.
"""

import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ....agent.collect import collect_whole
from ....agent.conversation import AnyPolicy
from ....agent.ensemble.explorer import Explorer
from ....agent.evaluation.records import Record, read, record, write
from ....agent.events import OnEvent, ignore
from ....agent.llm.local import LocalModel
from ....agent.llm.weights import find_model, hash_weights
from ....agent.load_policy import PolicySettings, load_model
from ....agent.policy import ExpertPolicy
from ....agent.prompt import PROMPT_VERSION, PromptSpec
from ....agent.retriever import MemoryRetriever
from ....agent.rundir import RunDirectory, measure, versions
from ....agent.runner import Runner, spec_of
from ....agent.settings import as_stored
from ....envs import get_suite
from ....memory import Memory, Purpose
from ....memory.episode import Episode
from ....memory.plain import read_as
from ....memory.storage.lock import WriterLock
from ...examples import ContextRates
from ...pretraining.rehearsal import rehearsal
from ...select import SelectSettings, select
from ...tune import tune
from ..jobs import commit, run_jobs
from .plan import ARMS, StreamSettings, held_out_tasks, order_of, suite_of, training_tasks


@dataclass(frozen=True, slots=True)
class RunKey:
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
    """Episodes that it can retrieve."""
    stored: int
    """Episodes that it keeps, to retrieve or to learn from again."""
    tokens: int
    """Supervised tokens that this stage's fine-tuning learnt from."""
    seconds: float
    """Wall time of playing it and of fine-tuning; measuring, and what a kill destroyed,
    excluded."""


class StreamRun:
    """One life in a stream's folder."""

    def __init__(self, path: Path, settings: StreamSettings, life: RunKey) -> None:
        self.path, self.settings, self.life = path, settings, life
        self.arm, self.numbers = ARMS[life.arm], order_of(settings, life.order)
        self.stages = [settings.stages[number] for number in self.numbers]
        self.folder = path / "lives" / life.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.directory = RunDirectory(path, folder_settings(settings))
        self.local = load_model(PolicySettings(model=settings.model), settings.run.batch)
        self.bare: LocalModel | None = None
        """The base without an adapter, for an arm that explores."""
        self.states = [
            read_as(StageState, s, "states.json")
            for s in self.directory.read(self._file("states.json")) or []
        ]

    def _file(self, name: str) -> str:
        return f"lives/{self.life.name}/{name}"

    def run(self) -> None:
        """Plays the stages that it has not played yet, and measures after each."""
        with Memory(self.folder / "memory", fields=self.settings.retrieval.fields) as memory:
            for number in range(len(self.stages)):
                if number == len(self.states):
                    self.states.append(self._stage(number, memory))
                    self.directory.write(
                        self._file("states.json"), [asdict(state) for state in self.states]
                    )
                self._measure(number, memory)

    def _stage(self, number: int, memory: Memory) -> StageState:
        plan = self.directory.read(self._file(f"stage-{number}.json"))
        if plan is None:
            plan = {"position": memory.position, "lived": False, "seconds": 0.0}
            self.directory.write(self._file(f"stage-{number}.json"), plan)
        if (self.arm.memory or self.arm.adapter) and not plan["lived"]:
            began = time.monotonic()
            try:
                self._gather(number, memory, plan["position"])
                plan["lived"] = True
            finally:  # what was stopped took its time, too
                plan["seconds"] += time.monotonic() - began
                self.directory.write(self._file(f"stage-{number}.json"), plan)
        if self.arm.evict:
            total = sum(stage.tasks for stage in self.stages)
            capacity = max(1, round(self.settings.capacity * total))
            keep = self.settings.keep_per_type
            memory.evict(
                capacity=capacity, by=self.arm.evict, keep_per_type=keep, seed=self.life.seed
            )
        read_at = self._read_at(number, memory.position)
        adapter, manifest = (
            self._tune(number, memory, plan["position"], read_at) if self.arm.adapter else ("", {})
        )
        return StageState(
            stage=number,
            name=self.stages[number].name,
            position=memory.position,
            read=read_at,
            adapter=adapter,
            memory_size=len(memory.entries(at=read_at)) if self.arm.memory else 0,
            stored=len(memory),
            tokens=manifest.get("supervised_tokens", 0),
            seconds=round(plan["seconds"] + manifest.get("seconds", 0.0), 1),
        )

    def _read_at(self, number: int, position: int) -> int:
        """The log position at which a stage's agent reads its memory."""
        return self.states[0].read if self.arm.frozen and number else position

    def _gather(self, number: int, memory: Memory, position: int) -> None:
        """Lives through a stage's training tasks, in waves that are added whole and in the order of
        the tasks."""
        s, stage = self.settings, self.stages[number]
        tasks = training_tasks(s, self.numbers[number], self.life.seed)
        for first in range(0, len(tasks), s.run.batch):
            if s.experience == "expert":
                suite = suite_of(s, stage)
                runner = Runner(suite, ExpertPolicy(suite), s.run)
            else:
                runner = self._runner(
                    number, memory, number - 1, self._read_at(number, position), Purpose.ACT
                )
                runner = replace(
                    runner, settings=replace(s.run, seed=1000 * self.life.seed + number)
                )
            chunk = tasks[first : first + s.run.batch]
            collect_whole(memory, runner, chunk, since=position)

    def _runner(
        self, number: int, memory: Memory, state: int, position: int, purpose: Purpose
    ) -> Runner:
        """A runner for the tasks of a stage, with the adapter of an earlier one (-1: none yet)."""
        s, stage = self.settings, self.stages[number]
        adapter = self.states[state].adapter if state >= 0 else ""
        self.local.set_adapter(
            self.folder / "adapters" / adapter if adapter else None, adapter or None
        )
        self.local.temperature = s.temperature if purpose is Purpose.ACT else 0.0
        suite = suite_of(s, stage)
        retriever = (
            self._retriever(memory, spec_of(suite), position, purpose) if self.arm.memory else None
        )
        policy: AnyPolicy = self.local
        if self.arm.explores and adapter:
            bare = self.bare = self.bare or self.local.twin()
            bare.temperature = self.local.temperature
            policy = Explorer(self.local, bare)
        return Runner(suite, policy, s.run, retriever)

    def _retriever(
        self, memory: Memory, spec: PromptSpec, position: int, purpose: Purpose
    ) -> MemoryRetriever:
        # One life in several suites: what was learnt under other names counts.
        asked = replace(self.settings.retrieval, across=True)
        if not self.arm.memory:
            asked = replace(asked, k=0)
        if self.arm.explores:
            asked = replace(asked, min_score=self.settings.known_above)
        return MemoryRetriever(memory, spec, self.local.count_tokens, asked, purpose, position)

    def _tune(
        self, number: int, memory: Memory, since: int, read_at: int
    ) -> tuple[str, dict[str, Any]]:
        """Fine-tunes the stage's adapter unless it exists; its name and its manifest."""
        s, name = self.settings, f"stage-{number}"
        folder, last = (
            self.folder / "adapters" / name,
            self.states[-1].adapter if self.states else "",
        )
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
                return last, {}
            seed = 100 * self.life.seed + number
            by_spec: dict[PromptSpec, list[Episode]] = {}
            for episode in learnt:
                by_spec.setdefault(spec_of(get_suite(episode.task.suite)), []).append(episode)
            start = self.folder / "adapters" / last if last and s.tune != "restart" else None
            lora = replace(s.lora.resolved(s.model == "bundled"), seed=s.lora.seed + seed)
            tune(
                self.local,
                by_spec,
                lambda spec: self._retriever(memory, spec, read_at, Purpose.TRAIN),
                s.context if self.arm.memory else ContextRates(0.0, 0.0),
                lora,
                folder,
                parent=last,
                seed=seed,
                rehearsal=rehearsal(lora.seed) if s.model == "bundled" else None,
                extra={"life": asdict(self.life)},
                start=start,
            )
        return name, self.directory.read(self._file(f"adapters/{name}/manifest.json")) or {}

    def _measure(self, number: int, memory: Memory) -> None:
        """Plays held-out tasks of every stage as the agent is after a stage, and writes their
        records."""
        s, state = self.settings, self.states[number]
        for name, index in {
            stage.name: i for i, stage in reversed(list(enumerate(self.stages)))
        }.items():
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
            played = measure(
                self.directory, self._file(f"evaluated/{number}-{name}"), runner, tasks
            )
            write(
                file,
                [
                    record(episode, place, memory if self.arm.memory else None, runner.retriever)
                    for episode in played
                ],
            )


def records_file(path: Path, life: RunKey, stage: int, evaluated: str) -> Path:
    """Where the records of one cell of the matrix lie."""
    return path / "records" / life.name / f"{stage}-{evaluated}.jsonl.gz"


def live(path: Path, settings: StreamSettings, life: RunKey) -> None:
    """A life, in a process of its own with one thread."""
    import torch

    torch.set_num_threads(1)
    StreamRun(path, settings, life).run()


def folder_settings(settings: StreamSettings) -> dict[str, Any]:
    """What a stream's folder belongs to; how many jobs there are and which arms are wanted may
    change on the way."""
    deciding = {
        k: v for k, v in as_stored(settings).items() if k not in ("jobs", "arms", "orders", "seeds")
    }
    weights = hash_weights(find_model(settings.model))
    suites = {stage.suite or settings.suite for stage in settings.stages}
    return {
        "stream": deciding,
        "weights": weights,
        "suites": {name: get_suite(name).version for name in sorted(suites)},
        "prompt": PROMPT_VERSION,
    }


class Stream:
    """A resumable stream in a run directory.

    Args:
        path: the run directory.
        settings: what to do.
        on_event: told about progress.

    Raises:
        ValueError: the directory holds a stream with other settings.
    """

    def __init__(self, path: Path, settings: StreamSettings, on_event: OnEvent = ignore) -> None:
        self.path, self.settings, self.on_event = path, settings, on_event
        self.directory = RunDirectory(path, folder_settings(settings))

    def lives(self) -> list[RunKey]:
        """All runs, order by order. An agent that learns nothing is the same in every order."""
        s = self.settings
        return [
            RunKey(arm, order, seed)
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
            run_jobs(self.directory, "lives", jobs, self.settings.jobs, self.on_event)
            return self.records()

    def records(self) -> list[Record]:
        """The records of all finished lives."""
        return [
            r
            for life in self.lives()
            if self._done(life)
            for file in self._files(life)
            for r in read(file)
        ]

    def states(self, life: RunKey) -> list[StageState]:
        """What an agent was after each stage; `relive eval --memory … --at READ --adapter …`
        measures it again."""
        return [
            read_as(StageState, s, "states.json")
            for s in self.directory.read(f"lives/{life.name}/states.json") or []
        ]

    def summary(self) -> dict[str, Any]:
        """What a published result says of how it was made."""
        seconds = self.directory.read("seconds.json") or {}
        return {
            "commit": commit(),
            "settings": as_stored(self.settings),
            "weights_sha256": folder_settings(self.settings)["weights"],
            "versions": versions(),
            "job_seconds": round(sum(seconds.values())),
        }

    def _files(self, life: RunKey) -> list[Path]:
        names = dict.fromkeys(stage.name for stage in self.settings.stages)
        return [
            records_file(self.path, life, number, name)
            for number in range(len(self.settings.stages))
            for name in names
        ]

    def _done(self, life: RunKey) -> bool:
        return all(file.exists() for file in self._files(life))
