"""Files and folders that appear when they are complete, and never in place of something else."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...memory.storage.durable import TEMPORARY, beside, create_file, publish_file, sync_folder


def refuse_existing(path: Path) -> None:
    """Make sure that nothing is at a path.

    Raises:
        FileExistsError: something is, be it a link that leads nowhere.
    """
    if os.path.lexists(path):
        raise FileExistsError(f"{path} is there already: give another --out, or delete it first")


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is at its path when the block ends well, and nowhere otherwise.

    Raises:
        FileExistsError: there is something.
        OSError: it could not be written.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        with create_file(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish_file(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which is at its path when the block ends well, and nowhere otherwise.

    Raises:
        FileExistsError: there is something.
        OSError: it could not be written.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: what another export left when it was killed is nobody's to delete.
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=TEMPORARY, dir=path.parent))
    try:
        yield made
        for file in made.rglob("*"):
            _sync(file)
        made.chmod(0o777 & ~_umask())  # mkdtemp makes folders for their owner alone
        os.rename(made, path)
        sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
