"""Files that are either there in full or not there at all."""

import os
from pathlib import Path

TEMPORARY = ".tmp"
"""Suffix of files that are being written; whatever carries it after a crash may be deleted."""


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable: a new file survives a power cut only after its folder was synced too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data``; ``os.write`` may stop short, which a nearly full disk does on purpose."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: nothing was changed at ``path``; the temporary file is removed where that is still possible.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        publish_file(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def publish_file(temporary: Path, path: Path) -> None:
    """Rename a file that is complete and synced to its final name, durably."""
    os.replace(temporary, path)
    sync_folder(path.parent)
