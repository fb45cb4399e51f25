"""What a study is told: everything that decides its numbers."""

from dataclasses import dataclass, field
from pathlib import Path

from ....agent.runner import RunSettings
from ....memory import Retrieval
from ...examples import ContextRates
from ...lora import LoraSettings
from .arms import Cell


@dataclass(frozen=True, slots=True)
class CurveSettings:
    """Which arms' learning curves are measured (on valid rooms, seed 0), and where. See
    `relive.training.experiments.study.curve`."""

    arms: tuple[str, ...] = ("rag-lora", "rag-lora-rehearsal")
    steps: tuple[int, ...] = (25, 50, 100, 200, 400, 800)
    """Checkpoints of one training at constant rate; step 0, the frozen base, is always measured."""
    per_tier: int = 30
    """Rollouts per tier."""
    forced: int = 40
    """Expert episodes for the loss (easy tier) and for reading (binding tier), each."""


@dataclass(frozen=True, slots=True)
class MethodSettings:
    """What is compared under one name."""

    name: str
    """Of the method."""
    baseline: str
    """Condition that the variants are compared with."""
    variants: tuple[str, ...]
    """Conditions."""

    def __post_init__(self) -> None:
        for condition in self.conditions:
            Cell.of(condition)  # which says what is wrong with it
        if len(set(self.conditions)) != len(self.variants) + 1:
            raise ValueError(f"method {self.name!r} names a condition twice")

    @property
    def conditions(self) -> tuple[str, ...]:
        """All of them, the baseline first."""
        return (self.baseline, *self.variants)


@dataclass(frozen=True, slots=True)
class StudySettings:
    """Everything that decides a study's numbers."""

    suite: str = "household"
    easy: tuple[str, ...] = ()
    """Types, or groups of types, that are trained on; empty, with `hard`, for the suite's tiers."""
    hard: tuple[str, ...] = ()
    """Types that are only ever in the memory."""
    name: str = ""
    """Results are published as ``study-<name>``; empty for the suite's name."""
    split: str = "test"
    """``valid`` while designing; ``test`` once per base version."""
    seeds: int = 3
    """Each with its own demonstrations, training sample, adapter initialisation, order and test
    tasks; more can be added to a study."""
    first_seed: int = field(default=0, metadata={"sparse": True})
    """The first of them: tasks of earlier seeds were looked at while designing."""
    demonstrations: int = 600
    """Expert episodes in the memory of a seed, spread over all task types; the easy half is what
    trainings see."""
    per_tier: int = 102
    """Tasks per tier and seed, spread over its types."""
    own_temperature: float = 0.3
    """Of the rollouts that fill the agent's own memory."""
    control: str = ""
    """Folder of the control base; empty leaves its cells out."""
    conditions: tuple[str, ...] = ()
    """Only cells whose condition is one of these, in the shell's wildcards (``none/*``); empty for
    all, or, where there are `methods`, for theirs alone. What is named without wildcards and is
    none of the usual cells is measured, too (:class:`.arms.Cell`)."""
    methods: tuple[MethodSettings, ...] = ()
    """What is compared in one table of methods."""
    jobs: int = 2
    """Processes of one thread each; with 1 everything happens in this process."""
    model: str = "bundled"
    """``bundled``, a transformers folder, a GGUF file, or a hub name."""
    full_tokens: int = 0
    """Tokens of memory where as many episodes are shown as fit; 0 for two thirds of the model's
    context."""
    lora: LoraSettings = field(
        default_factory=lambda: LoraSettings(steps=200, batch_examples=8, rehearsal=0.5)
    )
    robust: ContextRates = field(default_factory=lambda: ContextRates(0.2, 0.2))
    retrieval: Retrieval = field(default_factory=Retrieval, metadata={"stored": "recall"})
    """Budget, outcomes, and by what is asked; k is the cell's own, and so is a dynamic query."""
    run: RunSettings = field(default_factory=RunSettings)
    curve: CurveSettings = field(default_factory=CurveSettings)

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.per_tier < 1 or self.demonstrations < 1 or self.jobs < 1:
            raise ValueError("study needs seeds, per_tier, demonstrations and jobs of at least 1")
        if self.first_seed < 0:
            raise ValueError(f"study.first_seed is {self.first_seed}; it must not be negative")
        if self.lora.rehearsal is None:
            raise ValueError(
                "study needs lora.rehearsal as a number: the share that arms with rehearsal use; "
                "0, without such arms, for other models than the bundled one"
            )
        if len({method.name for method in self.methods}) != len(self.methods):
            raise ValueError("two methods of the study have one name")
        if bool(self.easy) != bool(self.hard) or set(self.easy) & set(self.hard):
            raise ValueError(
                f"study needs easy and hard types, and none that is both: got {list(self.easy)} "
                f"and {list(self.hard)}"
            )

    @property
    def model_name(self) -> str:
        """What the model is called in results: of a file or a folder, its own name."""
        return Path(self.model).stem if Path(self.model).exists() else self.model
