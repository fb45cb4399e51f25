"""One writer: a lock that names its holder and does not outlive it.

The kernel holds the lock (``flock``), so a killed writer leaves none behind, and a fork of the
writer gives its copy away at once. The file's text is only there to tell people who has it.
"""

import errno
import fcntl
import gc
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from weakref import WeakSet

from .durable import closing, open_file, read_file, write_all

_held: "WeakSet[WriterLock]" = WeakSet()  # by this process
_LONGEST = 80  # characters of a host's name or a time that are shown


class WriterLock:
    """Exclusive right to write a memory; held from construction to :meth:`release`, or until nobody
    knows this object any more.

    Raises:
        BlockingIOError: another writer has it; the message names its process, host and start.
        OSError: `path` is a symbolic link, or no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
        # Closing gives the lock back, here alone: a fork closes only its own copy.
        self._close = closing(self, self._descriptor)
        try:
            taken = self._take()
            if not taken and self._is_held_here():
                gc.collect()  # perhaps by a memory that was dropped without being closed
                taken = self._take()
            if not taken:
                holder = _describe(os.pread(self._descriptor, 4096, 0), self._is_held_here())
                raise BlockingIOError(
                    f"{path.parent} is being written by {holder}; wait for it to end, close it, or "
                    "open with mode='r'",
                )
        except OSError:
            self.release()
            raise
        _held.add(self)
        if os.fstat(self._descriptor).st_nlink > 1:
            return  # its contents are those of another file, too
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        try:
            os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, text.encode())
        except OSError:
            # A full disk must not keep anyone from opening: the lock holds, only its label is
            # missing.
            pass

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two writers lock two different
        files."""
        if self._descriptor >= 0:
            self._close()
            self._descriptor = -1

    def _take(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            return False
        return True

    def _is_held_here(self) -> bool:
        """Whether the lock on this file is held by this process, and not by a copy in another
        one."""
        mine = os.fstat(self._descriptor)
        others = [os.fstat(lock._descriptor) for lock in _held if lock._descriptor >= 0]
        return any(os.path.samestat(mine, other) for other in others)

    def __enter__(self) -> "WriterLock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _release_copies() -> None:
    """In a fork: the lock is its parent's, and must be free as soon as that one gives it back."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_copies)


def is_label(path: Path) -> bool:
    """Whether a file is a lock's, empty, or not there; of what cannot be read :class:`WriterLock`
    says why."""
    try:
        text = read_file(path)
    except OSError:
        return True
    return not text or text.startswith(b'{"pid": ')


def _describe(text: bytes, held_here: bool) -> str:
    """Who holds the lock, in words, from what the holder wrote."""
    try:
        info = json.loads(text)
        pid, host, since = int(info["pid"]), _shown(info["host"]), _shown(info["since"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "a process that left no name"
    here = host == socket.gethostname()
    if here and pid == os.getpid() and held_here:
        return f"another Memory of this very process (pid {pid}, since {since})"
    words = f"process {pid} on {host} since {since}"
    if here and pid == os.getpid():
        return f"a child of {words} (which is this one, and has closed it)"
    if here and not _alive(pid):
        # The lock lives as long as any copy of its descriptor, and a fork copies descriptors.
        words = f"a child of {words} (which itself has ended)"
    return words


def _shown(value: object) -> str:
    """A text that somebody left in a file, for a message: no control characters, not endless."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))[:_LONGEST]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
