"""One writer: a lock that names its holder and does not outlive it.

The kernel holds the lock (``flock``), so a killed writer leaves none behind. The file's text is only there to tell
people who has it.
"""

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from memory.durable import write_all


class WriterLock:
    """Exclusive right to write a memory; held from construction to :meth:`release`.

    Raises:
        BlockingIOError: another writer has it; the message names its process, host and start.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _describe(os.pread(self._descriptor, 4096, 0))
            os.close(self._descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise BlockingIOError(
                f"{path.parent} is being written by {holder}; wait for it to end, close it, or open with mode='r'",
            ) from None
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        try:
            os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, text.encode())
        except OSError:
            # A full disk must not keep anyone from opening: the lock holds, only its label is missing.
            pass

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two writers lock two different files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "WriterLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _describe(text: bytes) -> str:
    """Who holds the lock, in words, from what the holder wrote."""
    try:
        info = json.loads(text)
        pid, host, since = int(info["pid"]), str(info["host"]), str(info["since"])
    except (ValueError, KeyError, TypeError):
        return "a process that left no name"
    if pid == os.getpid() and host == socket.gethostname():
        return f"another ExperienceMemory of this very process (pid {pid}, since {since})"
    words = f"process {pid} on {host} since {since}"
    if host == socket.gethostname() and not _alive(pid):
        # The lock lives as long as any copy of its descriptor, and a fork copies descriptors.
        words = f"a child of {words} (which itself has ended)"
    return words


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
