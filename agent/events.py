"""What is told while something takes long: one kind of event each, for whoever shows progress."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..memory.episode import Episode


@dataclass(frozen=True, slots=True)
class Phase:
    """Something else begins."""

    title: str


@dataclass(frozen=True, slots=True)
class TasksPlanned:
    """So many episodes are to be run now."""

    count: int


@dataclass(frozen=True, slots=True)
class EpisodeEnded:
    """An episode is over, and stored where it is to be stored."""

    episode: Episode
    entries: int | None = None
    """Episodes in the memory that is read, or added to; None where there is none."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """The optimiser made a step."""

    step: int
    """From 1."""
    of: int
    loss: float


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """A round of the learning cycle is over."""

    round: int
    summary: str
    """What came of it, in one line for a person."""
    results: Mapping[str, float] = field(default_factory=dict)
    """The same as numbers, by name."""


@dataclass(frozen=True, slots=True)
class JobEnded:
    """Another process finished a part of an experiment."""

    experiment: str
    name: str
    number: int
    """How many are finished, this one included."""
    of: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ResultsKnown:
    """What an experiment came to, as numbers by name."""

    number: int
    """From 1: of the stage after which it was measured, where there are stages."""
    values: Mapping[str, float]


Event = Phase | TasksPlanned | EpisodeEnded | TrainingStep | RoundEnded | JobEnded | ResultsKnown
OnEvent = Callable[[Event], object]


def ignore(event: Event) -> None:
    """Tells nobody."""
