"""Files that are either there in full or not there at all, and never somewhere else; and what is
said of those that are damaged.

A folder may come from anywhere, with symbolic links in it that lead out, or with pipes that wait
for ever. Nothing is written through a link, and nothing but regular files is opened.
"""

import errno
import os
import stat
import uuid
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""Suffix of files that are being written; whatever carries it after a crash may be deleted."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """Something that could not be read, or was cut off."""

    file: str
    """Name of the file inside the memory's folder."""
    offset: int
    """First byte of it."""
    length: int
    """Bytes skipped or cut."""
    detail: str
    """What was found and what was done about it."""

    @property
    def place(self) -> tuple[str, int, int]:
        """Where it is, whatever the generation of the file is."""
        return self.file.split(".")[0], self.offset, self.length

    def __str__(self) -> str:
        return f"{self.file}, byte {self.offset}, {self.length} bytes: {self.detail}"


class RolledBackError(RuntimeError):
    """What had been read is no longer there: it never was durable and its writer took it back, or
    it was compacted."""


def gone(folder: Path) -> FileNotFoundError:
    """What is raised where a memory that is open was deleted."""
    return FileNotFoundError(
        f"the memory in {folder} is gone: its folder was deleted or renamed while it was open; "
        "close it, and open it where it is now"
    )


def beside(target: Path) -> Path:
    """A name to write under until a file is complete, which nobody else has: what is called like
    the file itself and `TEMPORARY` may be somebody's."""
    return target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}{TEMPORARY}")


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable: a new file survives a power cut only after its folder
    was synced too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data``; ``os.write`` may stop short, which a nearly full disk does on
    purpose."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def open_file(path: Path, flags: int) -> int:
    """Descriptor of a regular file; one that is written, or made, is not looked for behind a
    symbolic link.

    Raises:
        OSError: as `os.open`, or it is a link or no regular file.
    """
    if flags & (os.O_WRONLY | os.O_RDWR):
        flags |= os.O_NOFOLLOW
    try:
        # Not blocking: opening a pipe waits for its other end.
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _link(path) from None
        if error.errno != errno.ENXIO:
            raise
        raise _irregular(path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path)
    return descriptor


def closing(owner: object, descriptor: int) -> Callable[[], object]:
    """What closes a descriptor, once. It is called when its owner is gone, unless somebody called
    it before; in a fork it closes the fork's copy."""
    close = weakref.finalize(owner, os.close, descriptor)
    close.atexit = False  # the kernel does
    return close


def _link(path: Path) -> OSError:
    detail = (
        "a symbolic link, and nothing is written through one: put what it leads to in its place"
    )
    return OSError(errno.ELOOP, detail, str(path))


def _irregular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "no regular file: move it away", str(path))


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Make sure that folders in `folder` are no symbolic links.

    Raises:
        OSError: one of them is.
    """
    for name in names:
        if (folder / name).is_symlink():
            raise _link(folder / name)


def open_to_read(path: Path) -> BinaryIO:
    """A regular file, open for reading; raises as :func:`open_file`."""
    return _opened(open_file(path, os.O_RDONLY), "rb")


def read_file(path: Path) -> bytes:
    """All bytes of a regular file; raises as :func:`open_file`."""
    with open_to_read(path) as file:
        return file.read()


def create_file(path: Path) -> BinaryIO:
    """A new file, open for writing; what was there before is removed, never written to. Raises as
    :func:`open_file`."""
    path.unlink(missing_ok=True)
    return _opened(open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def _opened(descriptor: int, mode: str) -> BinaryIO:
    try:
        return os.fdopen(descriptor, mode)  # type: ignore[return-value]
    except OSError:
        os.close(descriptor)
        raise


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove files that something was writing when it died; of those with other names than these
    (patterns, without :data:`TEMPORARY`) somebody else knows what they are."""
    for name in names:
        for leftover in folder.glob(name + TEMPORARY):
            with suppress(IsADirectoryError):  # none of ours
                leftover.unlink()


def replace_file(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: nothing was changed at ``path``; the temporary file is removed where that is still
            possible.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        temporary.unlink(missing_ok=True)
        descriptor = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        publish_file(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def publish_file(temporary: Path, path: Path) -> None:
    """Rename a file that is complete and synced to its final name, durably."""
    os.replace(temporary, path)
    sync_folder(path.parent)
