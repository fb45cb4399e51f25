"""The cycle: live, remember, fine-tune, and keep the new adapter only if it is no worse.

A round plays training tasks until enough new successes are in the memory, then fine-tunes a new
adapter from the bare model on all of the agent's successes so far, each under the context that
retrieval gives it, and plays the same validation tasks with the old policy and with the new one.
The new adapter is adopted unless it loses more than the margin; either way it keeps its version,
its manifest and its results. Within a round the memory is read at one position and the policy does
not change, so a round can be killed anywhere and resumed: what is done is found again, what is
missing is done.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..agent.assemble import Assembled, PolicySettings, actor_of, assemble
from ..agent.demonstrate import demonstrate
from ..agent.evaluation.metrics import paired
from ..agent.evaluation.statistics import PairedDifference
from ..agent.prompt import PROMPT_VERSION
from ..agent.recall import Recall, RecallSettings
from ..agent.rundir import Announce, RunDirectory, measure, silent
from ..agent.runner import Runner, RunSettings, spec_of
from ..envs import Suite, get_suite
from ..envs.base import types_of
from ..memory import ExperienceMemory, Purpose
from ..memory.episode import Episode, StopReason
from .examples import ContextRates, build_examples
from .lora import LoraSettings, train_adapter
from .select import SelectSettings, select, tasks_of


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
    demonstrations: int = 120
    """Expert episodes that the memory starts with, spread over all task types, from train rooms; 0
    for none."""
    temperature: float = 0.3
    """Of training rollouts, for exploring. Everything that is measured is greedy."""
    validation: int = 60
    """Paired validation tasks of the gate, over all task types."""
    margin: float = 0.05
    """A new adapter is adopted unless its validation success is more than this below the old
    policy's."""
    policy: PolicySettings = field(default_factory=PolicySettings)
    recall: RecallSettings = field(default_factory=RecallSettings)
    context: ContextRates = field(default_factory=ContextRates)
    select: SelectSettings = field(default_factory=SelectSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if (
            self.rounds < 0
            or self.successes < 1
            or self.most_episodes < 1
            or self.demonstrations < 0
        ):
            raise ValueError(
                "learn needs rounds >= 0, successes >= 1, most_episodes >= 1 and demonstrations >= "
                "0"
            )
        if self.validation < 1 or not 0 <= self.margin <= 1:
            raise ValueError("learn needs validation >= 1 and a margin between 0 and 1")


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
    """Paired difference of the candidate and its 95 % interval."""

    @property
    def line(self) -> str:
        """The round in one line, for a person."""
        verdict = (
            "adopted"
            if self.adopted
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


class NothingToLearnError(LookupError):
    """A memory holds no episode that qualifies for fine-tuning."""


WAVE = 16
"""Training tasks that are played before counting successes again."""


class Learner:
    """A resumable run of the cycle in a run directory.

    Args:
        path: the run directory; holds ``memory/`` unless another is given.
        settings: what to do.
        memory: folder of an existing memory to go on with.
        announce: told about progress.

    Raises:
        ValueError: the directory holds a run with other settings, or the suite cannot give what is
            asked.
    """

    def __init__(
        self,
        path: Path,
        settings: LearnSettings,
        memory: Path | None = None,
        announce: Announce = silent,
    ) -> None:
        self.settings, self.announce = settings, announce
        self.suite: Suite = get_suite(settings.suite)
        self.memory_path = memory or path / "memory"
        self._made = assemble(settings.policy, self.suite, settings.run.batch)
        if self._made.local is None:
            raise ValueError(
                f"learn fine-tunes a language model; policy {settings.policy.kind!r} has no "
                "weights: use 'local'"
            )
        if settings.policy.adapter:
            raise ValueError(
                "learn starts from the bare model and makes its own adapters: leave policy.adapter "
                "empty"
            )
        self.local = self._made.local
        self.types = types_of(
            self.suite,
            settings.types or (["easy"] if "easy" in self.suite.groups else self.suite.types),
        )
        self.suite.tasks(
            "train", 1, self.types
        )  # a type that does not exist is found out now, not after an hour
        described = {
            "learn": asdict(settings),
            "memory": str(memory or "memory"),
            "weights": self.local.base_sha256,
            "suite": self.suite.version,
            "prompt": PROMPT_VERSION,
        }
        self.directory = RunDirectory(path, described)
        self.rounds: list[Round] = [Round(**r) for r in self.directory.read("rounds.json") or []]

    def run(self) -> list[Round]:
        """Runs all rounds that are not done yet and returns all of them."""
        with ExperienceMemory(self.memory_path) as memory:
            self.demonstrate(memory)
            for number in range(len(self.rounds) + 1, self.settings.rounds + 1):
                self.rounds.append(self._round(number, memory))
                self.directory.write("rounds.json", self.rounds)
                self.announce("round", self.rounds[-1])
        return self.rounds

    @property
    def adapter(self) -> str:
        """Version in force; empty for the bare model."""
        return self.rounds[-1].adapter if self.rounds else ""

    def adapter_folder(self, version: str) -> Path | None:
        """Where a version lies; None for the bare model."""
        return self.directory.path / "adapters" / version if version else None

    def runner(
        self, version: str, memory: ExperienceMemory | None, position: int, purpose: Purpose
    ) -> Runner:
        """A runner with an adapter version, greedy when it evaluates, reading the memory at a
        position."""
        if (self.local.adapter or "") != version:
            self.local.set_adapter(self.adapter_folder(version), version or None)
        s = self.settings
        self.local.temperature = s.temperature if purpose is Purpose.ACT else 0.0
        noted: dict[str, str | int | float | bool] = {
            "temperature": self.local.temperature, "dtype": s.policy.dtype, "k": s.recall.k,
            "budget": s.recall.budget, "seed": s.run.seed,
        }  # fmt: skip
        actor = actor_of(self.local, s.policy.model, noted)
        recall = None
        if memory is not None:
            recall = Recall(
                memory, spec_of(self.suite), self._made.count, s.recall, purpose, position
            )
        return Runner(self.suite, self.local, actor, s.run, recall)

    def demonstrate(self, memory: ExperienceMemory) -> None:
        """Fills the memory with the expert's episodes, before the first round."""
        if self.settings.demonstrations and not self.rounds:
            demonstrate(
                memory, self.suite, self.settings.demonstrations, self.settings.run, self.announce
            )

    def _round(self, number: int, memory: ExperienceMemory) -> Round:
        """One round; everything in it is found again after a kill."""
        plan = self.directory.read(f"round-{number}.json")
        if plan is None:
            plan = {"position": memory.position, "adapter": self.adapter}
            self.directory.write(f"round-{number}.json", plan)
        position, incumbent = plan["position"], plan["adapter"]
        played, won = self._rollouts(number, memory, incumbent, position)
        version = f"v{number}"
        done: dict[str, Any] = {
            "round": number, "episodes": played, "success": won / played if played else 0.0,
            "memory_size": len(memory),
        }  # fmt: skip
        if not self._finetune(number, version, incumbent, memory):
            last = self.rounds[-1].validation if self.rounds else None
            return Round(**done, candidate="", adopted=False, adapter=incumbent, validation=last)
        gate, candidate_rate, incumbent_rate = self._gate(version, incumbent, memory, position)
        adopted = gate.difference >= -self.settings.margin
        return Round(
            **done,
            candidate=version,
            adopted=adopted,
            adapter=version if adopted else incumbent,
            validation=candidate_rate if adopted else incumbent_rate,
            gate={"difference": gate.difference, "low": gate.low, "high": gate.high, "n": gate.n},
        )

    def _rollouts(
        self, number: int, memory: ExperienceMemory, version: str, position: int
    ) -> tuple[int, int]:
        """Plays training tasks until there are enough new successes; returns episodes and
        successes."""
        s = self.settings
        self.announce("phase", f"round {number}: playing training tasks")
        # Behind the demonstrations' tasks and those of earlier rounds: no training task is played
        # twice.
        start = _per_type(s.demonstrations, self.suite.types) + (number - 1) * _per_type(
            s.most_episodes, self.types
        )
        tasks = self.suite.tasks("train", s.most_episodes, self.types, start=start)
        known = {
            e.task.identity: e.success
            for e in memory.entries()
            if e.position >= position
            and e.policy == "local"
            and e.reason is not StopReason.ENVIRONMENT_ERROR
        }
        done: list[bool] = []
        # In waves of one size, so that which tasks are played depends neither on what ends first
        # nor on a restart.
        for first in range(0, len(tasks), WAVE):
            if sum(done) >= s.successes:
                break
            wave = tasks[first : first + WAVE]
            todo = [task for task in wave if task.identity not in known]
            self.announce("tasks", len(todo))
            runner = self.runner(version, memory, position, Purpose.ACT)
            runner = replace(runner, settings=replace(s.run, seed=s.run.seed + number))
            for episode in runner.run(todo):
                memory.add(episode)
                known[episode.task.identity] = episode.success
                self.announce("episode", episode)
            done += [known[task.identity] for task in wave]
        return len(done), sum(done)

    def _finetune(self, number: int, version: str, parent: str, memory: ExperienceMemory) -> bool:
        """Trains the round's adapter unless it exists; False when there is nothing to learn
        from."""
        folder = self.adapter_folder(version)
        assert folder is not None
        if folder.exists():
            return True
        s = self.settings
        s = replace(
            s,
            select=replace(s.select, types=s.select.types or self.types),
            lora=replace(s.lora, seed=s.lora.seed + number),
        )
        folder.parent.mkdir(exist_ok=True)
        try:
            _train(
                s,
                self.suite,
                self._made,
                memory,
                folder,
                {"version": version, "parent": parent},
                self.announce,
            )
        except NothingToLearnError:
            return False
        return True

    def _gate(
        self, candidate: str, incumbent: str, memory: ExperienceMemory, position: int
    ) -> tuple[PairedDifference, float, float]:
        """Plays the validation tasks with both policies on the same memory; (difference,
        candidate's, incumbent's rate)."""
        tasks = self.suite.tasks("valid", self.settings.validation)
        both: list[list[Episode]] = []
        for version in (candidate, incumbent):
            self.announce("phase", f"gate: validating {version or 'the bare model'}")
            runner = self.runner(version, memory, position, Purpose.EVALUATE)
            name = f"gate/{candidate}-{version or 'base'}"
            both.append(measure(self.directory, name, runner, tasks, self.announce))
        rates = [sum(e.success for e in episodes) / max(1, len(episodes)) for episodes in both]
        return paired(both[0], both[1]), rates[0], rates[1]


def _per_type(count: int, types: Sequence[str]) -> int:
    """How many tasks of each type a list of `count` takes at most."""
    return -(-count // len(types))


def train_from_memory(
    settings: LearnSettings, memory: Path, out: Path, announce: Announce = silent
) -> dict[str, Any]:
    """Fine-tunes one adapter on the successes in a memory, each under its retrieved context;
    returns the manifest.

    Raises:
        FileNotFoundError: there is no such memory.
        NothingToLearnError: nothing in it qualifies.
    """
    suite = get_suite(settings.suite)
    made = assemble(settings.policy, suite)
    if made.local is None:
        raise ValueError(
            f"fine-tuning needs a language model; policy {settings.policy.kind!r} has no weights: "
            "use 'local'"
        )
    with ExperienceMemory(memory, "r") as opened:
        return _train(
            settings, suite, made, opened, out, {"version": out.name, "parent": ""}, announce
        )


def _train(
    settings: LearnSettings,
    suite: Suite,
    made: Assembled,
    memory: ExperienceMemory,
    out: Path,
    manifest: dict[str, Any],
    announce: Announce,
) -> dict[str, Any]:
    """Selects episodes, builds their contexts, trains an adapter of the bare model."""
    assert made.local is not None
    position = memory.position
    episodes = select(memory, settings.select, position)
    if not episodes:
        raise NothingToLearnError(
            f"{memory.path} holds no success of {', '.join(settings.select.policies)} to fine-tune "
            "on: "
            "play tasks first (relive run), or also learn from the expert: --set "
            '\'select.policies=["local", "expert"]\''
        )
    announce("phase", f"fine-tuning {out.name} on {len(episodes)} successes")
    recall = Recall(memory, spec_of(suite), made.count, settings.recall, Purpose.TRAIN, position)
    examples = build_examples(episodes, recall, settings.context, settings.lora.seed)
    described = {
        **manifest,
        "base_model": settings.policy.model,
        "base_sha256": made.local.base_sha256,
        "memory_position": position,
        "context": asdict(settings.context),
        "recall": asdict(settings.recall),
        "tasks": tasks_of(episodes),
        "episodes": [e.id for e in episodes],
    }
    # Made-up worlds are rehearsed by the model that was pretrained on them, not by others.
    lora = settings.lora.resolved(settings.policy.model)
    return train_adapter(
        made.local.folder, made.local.encoder, examples, lora, out, described,
        lambda step, loss: announce("step", (step, lora.steps, loss)),
    )  # fmt: skip
