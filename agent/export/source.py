"""What is exported of a memory, episode by episode."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...memory import Memory
from ...memory.episode import Episode
from ...memory.storage.durable import Corruption


@dataclass(frozen=True, slots=True)
class Source:
    """Which episodes of a memory are exported; the same ones each time they are read, whatever is
    added meanwhile."""

    memory: Memory
    position: int
    """Log position; what lies behind it is not exported."""
    successes: bool = False
    """Only episodes that reached their goal."""
    split: str = ""
    """Only episodes of tasks of this split; empty for all."""

    def __post_init__(self) -> None:
        splits = {entry.task.split for entry in self.memory.entries(self.position)}
        if self.split and self.split not in splits:
            known = ", ".join(sorted(repr(split) for split in splits)) or "no episodes"
            raise ValueError(f"no episode is of split {self.split!r}: the memory has {known}")

    def __iter__(self) -> Iterator[Episode]:
        for episode in self.memory.iterate(self.position):
            wanted = not self.split or episode.task.split == self.split
            if wanted and (episode.success or not self.successes):
                yield episode

    def damage(self) -> list[Corruption]:
        """What could not be read so far, and is missing from the export."""
        return [one for one in self.memory.stats().damage if one.file.startswith("log/")]
