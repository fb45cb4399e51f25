"""What `relive run` and `relive eval` are told: who plays which tasks, with what in view."""

from dataclasses import dataclass, field

from ...memory import Retrieval
from ..cluster.settings import RaySettings
from ..load_policy import PolicySettings
from ..runner import RunSettings
from .options import ALL


@dataclass(frozen=True, slots=True)
class PlaySettings:
    """Everything that decides what a run of tasks does."""

    suite: str = "household"
    split: str = "train"
    types: tuple[str, ...] = ()
    """Task types or groups; all by default."""
    tasks: int = 60
    """Number of tasks, spread over the types; -1 for all."""
    start: int = 0
    """Tasks of each type to skip."""
    policy: PolicySettings = field(default_factory=PolicySettings)
    retrieval: Retrieval = field(default_factory=Retrieval, metadata={"stored": "recall"})
    run: RunSettings = field(default_factory=RunSettings)
    ray: RaySettings = field(default_factory=RaySettings)
    """Of a cluster, with ``--on``."""

    def __post_init__(self) -> None:
        if self.tasks < 1 and self.tasks != ALL:
            raise ValueError(f"tasks is {self.tasks}; it must be at least 1, or {ALL} for all")
        if self.start < 0:
            raise ValueError(f"start is {self.start}; it must not be negative")
