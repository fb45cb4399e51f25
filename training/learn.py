"""The cycle: live, remember, fine-tune, and keep the new adapter only if it is no worse.

A round plays training tasks until enough new successes are in the memory, then fine-tunes a new
adapter from the bare model on all of the agent's successes so far, each under the context that
retrieval gives it, and plays the same validation tasks with the old policy and with the new one.
The new adapter is adopted unless it loses more than the margin; either way it keeps its version,
its manifest and its results. Within a round the memory is read at one position and the policy does
not change, so a round can be killed anywhere and resumed: what is done is found again, what is
missing is done.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..agent.cluster.executor import IN_PROCESS, Executor
from ..agent.cluster.settings import RaySettings
from ..agent.collect import collect, collect_demonstrations, played
from ..agent.evaluation.evaluate import content_of
from ..agent.evaluation.metrics import paired
from ..agent.evaluation.statistics import PairedDifference
from ..agent.events import OnEvent, Phase, RoundEnded, ignore
from ..agent.llm.local import LocalModel
from ..agent.load_policy import PolicySettings
from ..agent.prompt import PROMPT_VERSION, PromptSpec
from ..agent.retriever import MemoryRetriever
from ..agent.rundir import RunDirectory, measure
from ..agent.runner import Runner, RunSettings, spec_of
from ..agent.settings import as_stored
from ..envs import Suite
from ..envs.base import has_expert, types_of
from ..memory import Memory, Purpose, Retrieval
from ..memory.episode import Episode
from ..memory.plain import read_as
from .examples import ContextRates, Example
from .lora import LoraSettings
from .select import SelectSettings, of_suite, training_tasks
from .tune import NothingToLearnError, train_on_memory

DEMONSTRATIONS = 120
"""Expert episodes that a memory starts with, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """Everything that decides what a run of `learn` does."""

    suite: str = "household"
    rounds: int = 3
    successes: int = 40
    """New successes that trigger fine-tuning."""
    most_episodes: int = 120
    """Episodes of one round at most, however few succeed."""
    types: tuple[str, ...] = ()
    """Task types or groups that are played for training; empty for the suite's easy ones (all,
    where there is no such group)."""
    demonstrations: int | None = None
    """Expert episodes that the memory starts with, spread over all task types, from train rooms; 0
    for none. By default 120, and none where the suite has no expert."""
    temperature: float = 0.3
    """Of training rollouts, for exploring. Everything that is measured is greedy."""
    validation: int = 60
    """Paired validation tasks of the gate, over all task types."""
    margin: float = 0.05
    """A new adapter is adopted unless its validation success is more than this below the old
    policy's, or nothing at all."""
    policy: PolicySettings = field(default_factory=PolicySettings)
    retrieval: Retrieval = field(default_factory=Retrieval, metadata={"stored": "recall"})
    context: ContextRates = field(default_factory=ContextRates)
    select: SelectSettings = field(default_factory=SelectSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    run: RunSettings = field(default_factory=RunSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    """Of a cluster, where episodes are played on one."""

    def __post_init__(self) -> None:
        if (
            self.rounds < 0
            or self.successes < 1
            or self.most_episodes < 1
            or (self.demonstrations or 0) < 0
        ):
            raise ValueError(
                "learn needs rounds >= 0, successes >= 1, most_episodes >= 1 and demonstrations >= "
                "0"
            )
        if self.temperature < 0:
            raise ValueError(f"learn.temperature is {self.temperature}; it must not be negative")
        if self.validation < 1 or not 0 <= self.margin <= 1:
            raise ValueError("learn needs validation >= 1 and a margin between 0 and 1")

    def demonstrations_of(self, suite: Suite) -> int:
        """How many expert episodes the memory starts with.

        Raises:
            ValueError: some are asked for, and the suite has no expert.
        """
        expert = has_expert(suite)
        if self.demonstrations and not expert:
            raise ValueError(
                f"suite {suite.name!r} has no expert to give {self.demonstrations} demonstrations: "
                "set demonstrations to 0, or fill the memory yourself"
            )
        return (DEMONSTRATIONS if expert else 0) if self.demonstrations is None else (
            self.demonstrations
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to."""

    round: int
    episodes: int
    """Training episodes played."""
    success: float
    """Share of them that succeeded."""
    memory_size: int
    """Episodes in the memory at its end."""
    candidate: str
    """Adapter version that was trained; empty when there was nothing to train on."""
    adopted: bool
    adapter: str
    """Version in force after the round; empty for the bare model."""
    validation: float | None
    """Validation success of the policy in force after the round; None before any was measured."""
    gate: dict[str, float] = field(default_factory=dict)
    """Paired difference of the candidate, its 95 % interval, and both success rates."""

    @property
    def results(self) -> dict[str, float]:
        """The round in numbers; those of the gate begin with ``gate_``."""
        known = {} if self.validation is None else {"validation": self.validation}
        gate = {f"gate_{name}": value for name, value in self.gate.items()}
        done = {"episodes": self.episodes, "success": self.success, "memory_size": self.memory_size}
        return {**done, "adopted": float(self.adopted), **known, **gate}

    @property
    def line(self) -> str:
        """The round in one line, for a person."""
        verdict = (
            "adopted"
            if self.adopted
            else "not adopted, for it solved no validation task"
            if self.gate.get("candidate") == 0
            else "rolled back"
            if self.candidate
            else "nothing to learn from"
        )
        gate = (
            f" ({100 * self.gate['difference']:+.1f} points on {self.gate['n']:.0f} tasks)"
            if self.gate
            else ""
        )
        return (
            f"round {self.round}: {100 * self.success:.1f} % of {self.episodes} training tasks "
            "solved, "
            f"memory {self.memory_size}; {self.candidate or 'no adapter'} {verdict}{gate}"
        )


CHUNK = 16
"""Training tasks that are played before counting successes again."""


class Learner:
    """A resumable run of the cycle in a run directory.

    Args:
        path: the run directory.
        settings: what to do; its suite and policy are not looked at, but recorded.
        suite: whose tasks are played.
        model: who learns; without an adapter, since the cycle makes its own. It acts with other
            adapters and temperatures while the cycle runs, and is as it was afterwards.
        memory: open for writing; by default one in the run directory, open until `close`.
        on_event: told about progress.
        rehearsal: from a seed to endless examples that are rehearsed; None for none.
        executor: where episodes are played; by default in this process.

    Raises:
        ValueError: the directory holds a run with other settings, or the suite cannot give what is
            asked.
    """

    def __init__(
        self,
        path: Path,
        settings: LearnSettings,
        suite: Suite,
        model: LocalModel,
        memory: Memory | None = None,
        on_event: OnEvent = ignore,
        rehearsal: Callable[[int], Iterator[Example]] | None = None,
        executor: Executor = IN_PROCESS,
    ) -> None:
        self.settings, self.on_event, self.rehearsal = settings, on_event, rehearsal
        self.executor = executor
        self.suite, self.model = suite, model
        self.spec = spec_of(suite, model)
        if model.adapter is not None:
            raise ValueError(
                "learn starts from the bare model and makes its own adapters: give it the model "
                f"without {model.adapter!r} (model.set_adapter(None), or an empty policy.adapter)"
            )
        if memory is not None and not isinstance(memory, Memory):
            raise TypeError(f"memory must be a relive.Memory, not {memory!r}: relive.Memory(path)")
        if memory is not None and not memory.writable:
            raise ValueError(
                f"the memory in {memory.path} is open for reading, and learn adds to it"
            )
        self.types = types_of(
            suite, settings.types or (["easy"] if "easy" in suite.groups else suite.types)
        )
        suite.tasks("train", 1, self.types)  # a type that does not exist is found out now
        of_suite(settings.select, suite)
        held = suite.validation_split
        if held not in suite.splits or held == "train" or not suite.up_to(held, 1):
            raise ValueError(
                f"suite {suite.name!r} has no validation tasks here (split {held!r}), by which an "
                "adapter is adopted or not: get its games, or fine-tune without a gate (relive "
                "train)"
            )
        self.demonstrations = settings.demonstrations_of(suite)
        record = {
            # How many rounds there are to be may change on the way, and where they are played.
            "learn": {k: v for k, v in as_stored(settings).items() if k not in ("rounds", "ray")},
            "memory": str(memory.path) if memory is not None else "memory",
            **(content_of(memory) if memory is not None else {}),
            "weights": model.base_sha256,
            "suite": suite.version,
            "prompt": PROMPT_VERSION,
        }
        self.directory = RunDirectory(path, record)
        self.rounds: list[Round] = [
            read_as(Round, r, "rounds.json") for r in self.directory.read("rounds.json") or []
        ]
        self._own = memory is None
        if memory is None:
            memory = executor.memory(path / "memory", settings.retrieval.fields)
        self.memory = memory

    def __enter__(self) -> "Learner":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the run's own memory."""
        if self._own:
            self.memory.close()

    def run(self) -> list[Round]:
        """Runs all rounds that are not done yet and returns all of them."""
        temperature = self.model.temperature
        try:
            self.collect_demonstrations()
            for number in range(len(self.rounds) + 1, self.settings.rounds + 1):
                self.rounds.append(self._round(number))
                self.directory.write("rounds.json", self.rounds)
                done = self.rounds[-1]
                self.on_event(RoundEnded(number, done.line, done.results))
        finally:
            self.model.temperature = temperature
            if self.model.adapter is not None:
                self.model.set_adapter(None)
        return self.rounds

    def collect_demonstrations(self) -> None:
        """Fills the memory with the expert's episodes, before the first round."""
        if self.demonstrations and not self.rounds:
            collect_demonstrations(
                self.memory, self.suite, self.demonstrations, self.settings.run, self.on_event,
                executor=self.executor,
            )  # fmt: skip

    @property
    def adapter(self) -> str:
        """Version in force; empty for the bare model."""
        return self.rounds[-1].adapter if self.rounds else ""

    def adapter_folder(self, version: str) -> Path | None:
        """Where a version lies; None for the bare model."""
        return self.directory.path / "adapters" / version if version else None

    def runner(
        self, version: str, position: int, purpose: Purpose, *, remember: bool = True
    ) -> Runner:
        """A runner with an adapter version, greedy when it evaluates, reading the memory at a
        position, or no memory at all."""
        if (self.model.adapter or "") != version:
            self.model.set_adapter(self.adapter_folder(version), version or None)
        s = self.settings
        self.model.temperature = s.temperature if purpose is Purpose.ACT else 0.0
        retriever = self._retriever(self.spec, position, purpose) if remember else None
        return self.executor.runner(self.suite, self.model, s.run, retriever)

    def _retriever(self, spec: PromptSpec, position: int, purpose: Purpose) -> MemoryRetriever:
        return MemoryRetriever(
            self.memory, spec, self.model.count_tokens, self.settings.retrieval, purpose, position
        )

    def _round(self, number: int) -> Round:
        """One round; everything in it is found again after a kill."""
        plan = self.directory.read(f"round-{number}.json")
        if plan is None:
            plan = {"position": self.memory.position, "adapter": self.adapter}
            self.directory.write(f"round-{number}.json", plan)
        position, incumbent = plan["position"], plan["adapter"]
        played, won = self._rollouts(number, incumbent, position)
        version = f"v{number}"
        done: dict[str, Any] = {
            "round": number, "episodes": played, "success": won / played if played else 0.0,
            "memory_size": len(self.memory),
        }  # fmt: skip
        if not self._finetune(number, version, incumbent):
            last = self.rounds[-1].validation if self.rounds else None
            return Round(**done, candidate="", adopted=False, adapter=incumbent, validation=last)
        gate, candidate_rate, incumbent_rate = self._gate(version, incumbent, position)
        # Two policies that solve nothing are alike, which is no evidence for either.
        adopted = gate.difference >= -self.settings.margin and candidate_rate > 0
        return Round(
            **done, candidate=version, adopted=adopted,
            adapter=version if adopted else incumbent,
            validation=candidate_rate if adopted else incumbent_rate,
            gate={
                "difference": gate.difference, "low": gate.low, "high": gate.high, "n": gate.n,
                "candidate": candidate_rate, "incumbent": incumbent_rate,
            },
        )  # fmt: skip

    def _rollouts(self, number: int, version: str, position: int) -> tuple[int, int]:
        """Plays training tasks until there are enough new successes; returns episodes and
        successes."""
        s = self.settings
        self.on_event(Phase(f"round {number}: playing training tasks"))
        tasks = training_tasks(self.suite, self.types, self.demonstrations, s.most_episodes, number)
        if not tasks:
            self.on_event(Phase(f"round {number}: no training tasks are left to play"))
        runner = self.runner(version, position, Purpose.ACT)
        runner = replace(runner, settings=replace(s.run, seed=s.run.seed + number))
        done: list[bool] = []
        # In chunks of one size, so that which tasks are played depends neither on what ends first
        # nor on a restart.
        for first in range(0, len(tasks), CHUNK):
            if sum(done) >= s.successes:
                break
            chunk = tasks[first : first + CHUNK]
            new = collect(self.memory, runner, chunk, since=position, on_event=self.on_event)
            now = {episode.task.identity: episode.success for episode in new}
            known = {**played(self.memory, runner.actor, position), **now}
            done += [known[task.identity] for task in chunk]
        return len(done), sum(done)

    def _finetune(self, number: int, version: str, parent: str) -> bool:
        """Trains the round's adapter unless it exists; False when there is nothing to learn
        from."""
        folder = self.adapter_folder(version)
        assert folder is not None
        if folder.exists():
            return True
        s = self.settings
        settings = replace(
            s,
            select=replace(s.select, types=s.select.types or self.types),
            lora=replace(s.lora, seed=s.lora.seed + number),
        )
        try:
            train_on_memory(
                settings, self.suite, self.model, self.memory, folder,
                parent=parent, on_event=self.on_event, rehearsal=self.rehearsal,
            )  # fmt: skip
        except NothingToLearnError:
            return False
        return True

    def _gate(
        self, candidate: str, incumbent: str, position: int
    ) -> tuple[PairedDifference, float, float]:
        """Plays the validation tasks with both policies on the same memory; (difference,
        candidate's, incumbent's rate)."""
        tasks = self.suite.up_to(self.suite.validation_split, self.settings.validation)
        both: list[list[Episode]] = []
        for version in (candidate, incumbent):
            self.on_event(Phase(f"gate: validating {version or 'the bare model'}"))
            runner = self.runner(version, position, Purpose.EVALUATE)
            name = f"gate/{candidate}-{version or 'base'}"
            both.append(measure(self.directory, name, runner, tasks, self.on_event))
        rates = [sum(e.success for e in episodes) / max(1, len(episodes)) for episodes in both]
        return paired(both[0], both[1]), rates[0], rates[1]
