"""A memory on a cluster: one actor writes it, next to its folder; everybody reads for himself."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...extras import needs
from ...memory import Memory
from ...memory.episode import Episode
from ...memory.maintenance.replica import Changes, Copied, changes
from .calls import ActorLostError, answer, beside_driver, start

with needs("ray"):
    import ray

_LOCK_SECONDS = 20.0
"""How long the lock of a writer that was just killed may take to come free: its process has to be
found out to have lost its driver or its node."""


class MemoryFiles:
    """Serves the files of a memory that is only read. Its methods are called through Ray.

    Args:
        path: the folder.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def changes(self, have: Mapping[str, Copied]) -> Changes:
        """What a copy lacks."""
        return changes(self._path, have)


class MemoryWriter(MemoryFiles):
    """The one writer of a memory. Its methods are called through Ray, which starts it again where
    it was if it dies, and repeats what it had not answered.

    Args:
        path: the folder.
        fields: as of :class:`relive.memory.Memory`.
    """

    def __init__(self, path: str, fields: tuple[str, ...]) -> None:
        super().__init__(path)
        self._fields = fields
        # Started again, there must be one: an empty memory in its place would be a lost one.
        again = ray.get_runtime_context().was_current_actor_reconstructed
        self._mode = "w" if again else "create"
        self._memory: Memory | None = None

    def open(self) -> Memory:
        """Opens the memory, unless it is open.

        Raises:
            OSError, ValueError: as of :class:`relive.memory.Memory`.
        """
        until = time.monotonic() + _LOCK_SECONDS
        while self._memory is None:
            try:
                self._memory = Memory(self._path, self._mode, fields=self._fields)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        return self._memory

    def ready(self) -> None:
        """Opens the memory; errors as of :meth:`open`."""
        self.open()

    def add(self, episodes: Sequence[Episode], deduplicate: bool) -> int:
        """Stores episodes, those that are there already excepted: who asks again was never
        answered. Returns the log position; errors as of :meth:`relive.memory.Memory.add`."""
        memory = self.open()
        new = [episode for episode in episodes if episode.id not in memory]
        if new:
            memory.add_many(new, deduplicate=deduplicate)
        return memory.position

    def changes(self, have: Mapping[str, Copied]) -> Changes:
        """What a copy lacks."""
        self.open()  # started again, it first cuts what was only half written
        return super().changes(have)

    def close(self) -> None:
        """Gives the memory back."""
        if self._memory is not None:
            self._memory.close()


class ActorMemory(Memory):
    """A memory that is read here and written by an actor on this machine. Episodes are added to it,
    everything else about it is read-only.

    Args:
        path: the folder; made if it is not there.
        fields: as of :class:`relive.memory.Memory`.
        losses: how often its writer may be lost.
    """

    def __init__(self, path: Path, fields: Collection[str], losses: int) -> None:
        self.writer: Any = start(
            MemoryWriter, str(path.absolute()), tuple(fields),
            max_restarts=losses, max_task_retries=losses, **beside_driver(),
        )  # fmt: skip
        """The actor."""
        answer(self.writer.ready.remote())
        super().__init__(path, "r", fields=fields)

    @property
    def writable(self) -> bool:
        """Whether it can be added to."""
        return True

    def add_many(self, episodes: Sequence[Episode], *, deduplicate: bool = False) -> int:
        """As :meth:`relive.memory.Memory.add_many`; durable when this returns, whatever becomes of
        the writer meanwhile.

        Raises:
            OSError: the writer is lost for good. What was added before is there.
        """
        if isinstance(episodes, Episode):
            raise TypeError("add_many takes a list of episodes: add(episode) takes one")
        try:
            position: int = answer(self.writer.add.remote(list(episodes), deduplicate))
        except ActorLostError as error:
            raise OSError(
                f"the writer of {self.path} is lost ({error}); what was added is kept: the same "
                "command goes on"
            ) from error
        self.refresh()
        return position

    def close(self) -> None:
        """Closes files and ends the writer; may be called twice."""
        if not self._closed and ray.is_initialized():
            with suppress(ActorLostError):  # whose files are closed as well
                answer(self.writer.close.remote())
            ray.kill(self.writer)
        super().close()
