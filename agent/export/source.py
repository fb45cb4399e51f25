"""What is exported: the memory in a folder, be it one or a run's, episode by episode."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...memory import Memory
from ...memory.description import is_memory
from ...memory.episode import Episode
from ...memory.storage.durable import Corruption
from ..rundir import recorded

_OWN = ("episodes", "memory")
"""Where a run keeps what it measured, or what it learnt from."""
_LISTED = 10
"""Memories that are named where it is not clear which one is meant."""


def memory_in(path: Path) -> Path:
    """The folder of the memory that is meant by a folder: of a memory, or of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several, and none of them is the run's own; the message names them.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: give that of a run or of a memory")
    if is_memory(path):
        return path
    of_run = recorded(path, "memory")  # where `relive learn --memory` has it
    for own in (*(path / name for name in _OWN), Path(of_run) if isinstance(of_run, str) else None):
        if own is not None and is_memory(own):
            return own
    inside = sorted({log.parent for log in path.glob("**/log") if is_memory(log.parent)})
    if not inside:
        raise FileNotFoundError(
            f"{path} holds no episodes: give the folder of a run or of a memory"
        )
    if len(inside) > 1:
        names = ", ".join(str(one) for one in inside[:_LISTED])
        more = f" and {len(inside) - _LISTED} more" if len(inside) > _LISTED else ""
        raise ValueError(f"{path} holds several memories: give one of {names}{more}")
    return inside[0]


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

    def __iter__(self) -> Iterator[Episode]:
        for episode in self.memory.iterate(self.position):
            wanted = not self.split or episode.task.split == self.split
            if wanted and (episode.success or not self.successes):
                yield episode

    def damage(self) -> list[Corruption]:
        """What could not be read so far, and is missing from the export."""
        return [one for one in self.memory.stats().damage if one.file.startswith("log/")]
