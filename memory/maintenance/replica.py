"""A memory's files, copied to another machine and kept up to date there.

Logs, catalogs and columns only grow, so what is sent is what follows the bytes that are there
already; everything else (graphs, the files of tables, descriptions) is small, written once or
replaced as a whole, and is sent whole when it changed. A copy is opened by readers like the memory
itself: its graphs are the writer's snapshots, and nothing is embedded again.

The order matters to whoever reads the copy meanwhile: vectors arrive before the records that they
are of, and rows of the catalog after them.
"""

import fcntl
import json
import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..storage.durable import TEMPORARY, open_file, open_to_read, write_all

CHUNK = 16 * 2**20
"""Bytes that are sent at once, at most; a few of them are in memory at a time."""
_GROWING = ("vectors/*.vec", "log/*.log", "catalog/*.rows")
_REPLACED = (
    "embedders/*/*", "index/*.hnsw", "index/*.lancedb/**/*", "index/*.json", "memory.json",
)  # fmt: skip
_ORDER = (_REPLACED[0], *_GROWING, *_REPLACED[1:])
"""Files of a memory, as they are sent; the description is last, since without it there is none."""
_TAIL = 4096  # bytes before its end by which a file is known to be the one that was copied
_STATE, _LOCK, _USERS = "copied.json", "lock", "users"


@dataclass(frozen=True, slots=True)
class Copied:
    """How much of a file is there."""

    inode: int
    changed: int
    """When the original was written, in nanoseconds; 0 for a file that grows."""
    size: int
    """Bytes that are there."""
    tail: int
    """CRC-32 of the last of them."""
    whole: bool
    """Whether it has all that the file held when it was copied; else it is not in place yet."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file."""

    name: str
    """Of the file inside the memory's folder."""
    inode: int
    changed: int
    offset: int
    data: bytes
    size: int
    """Of the file, when this was read."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a copy lacks, or the beginning of it."""

    parts: tuple[Part, ...]
    names: frozenset[str]
    """Files that there are; others were compacted away or replaced."""
    finished: bool
    """Whether nothing is missing after these parts."""


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    inode: int
    changed: int
    size: int


def changes(folder: Path, have: Mapping[str, Copied], most: int = CHUNK) -> Changes:
    """What was added to the memory in a folder since it was copied.

    Args:
        folder: of the memory. Somebody may be writing it.
        have: what the copy holds.
        most: bytes to send at most.
    """
    files = _files(folder)
    names = frozenset(file.name for file in files)
    parts: list[Part] = []
    for file in files:
        known = have.get(file.name)
        try:
            with open_to_read(folder / file.name) as opened:
                if os.fstat(opened.fileno()).st_ino != file.inode:
                    return Changes(tuple(parts), names, False)  # replaced meanwhile
                start = known.size if known and _continues(known, file, opened.fileno()) else 0
                if known and known.whole and start == known.size == file.size:
                    continue
                opened.seek(start)
                data = opened.read(min(most, file.size - start))
        except FileNotFoundError:
            return Changes(tuple(parts), names, False)
        parts.append(Part(file.name, file.inode, file.changed, start, data, file.size))
        most -= len(data)
        if most <= 0 or start + len(data) < file.size:
            return Changes(tuple(parts), names, False)
    return Changes(tuple(parts), names, True)


def _continues(known: Copied, file: _File, descriptor: int) -> bool:
    """Whether what is there is the beginning of a file: inodes are used again, and half a row at
    the end may have been written over."""
    if (known.inode, known.changed) != (file.inode, file.changed) or known.size > file.size:
        return False
    begin = max(0, known.size - _TAIL)
    return zlib.crc32(os.pread(descriptor, known.size - begin, begin)) == known.tail


def _files(folder: Path) -> Sequence[_File]:
    """The files of a memory in the order in which they are sent.

    They are looked at in the opposite order, catalog before log: a row of the copy's catalog must
    not be of a record that its log lacks.
    """
    found: list[list[_File]] = []
    for pattern in reversed(_ORDER):
        some: list[_File] = []
        for path in sorted(folder.glob(pattern)):
            if path.name.endswith(TEMPORARY):
                continue
            with suppress(FileNotFoundError):
                status = path.stat()
                if stat.S_ISDIR(status.st_mode):
                    continue
                changed = 0 if pattern in _GROWING else status.st_mtime_ns
                name = path.relative_to(folder).as_posix()
                some.append(_File(name, status.st_ino, changed, status.st_size))
        found.append(some)
    return [file for some in reversed(found) for file in some]


class Copy:
    """A copy of a memory that several processes of one machine use: each may bring it up to date,
    one at a time.

    Args:
        folder: where it is to lie, below a folder for copies alone; made if it is not there. The
            last user to close it removes it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.path = folder / "memory"
        """Where the memory can be opened for reading, after the first update."""
        self.path.mkdir(exist_ok=True)
        self._users = open_file(folder / _USERS, os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._users, fcntl.LOCK_SH)

    def update(self, fetch: Callable[[Mapping[str, Copied]], Changes]) -> None:
        """Brings the copy up to date.

        Args:
            fetch: asks for what is missing: :func:`changes`, on the machine that has the memory.
        """
        with self._alone():
            have = self._load()
            while True:
                brought = fetch(have)
                for part in brought.parts:
                    have[part.name] = self._take(part, have.get(part.name))
                    if have[part.name].whole:  # what is in place must not be taken for begun
                        self._save(have)
                if brought.parts:
                    self._save(have)
                if brought.finished:
                    break
            gone = have.keys() - brought.names
            for name in gone:
                (self.path / name).unlink(missing_ok=True)
                del have[name]
            if gone:
                self._save(have)

    def close(self) -> None:
        """Gives the copy up, and removes it if nobody else uses it."""
        if self._users < 0:
            return
        with suppress(BlockingIOError):
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._users)
        self._users = -1

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = open_file(self._folder / _LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # given back by the kernel if this is killed
            yield
        finally:
            os.close(descriptor)

    def _take(self, part: Part, known: Copied | None) -> Copied:
        """Puts bytes where they belong. Done again after a kill, it changes nothing; where what
        they go on from is not there, the file is sent again from its beginning."""
        path = self.path / part.name
        path.parent.mkdir(parents=True, exist_ok=True)
        begun = path.with_name(path.name + TEMPORARY)
        in_place = known is not None and known.whole and part.offset > 0
        target = path if in_place else begun
        flags = os.O_RDWR | os.O_CREAT | (0 if part.offset else os.O_TRUNC)
        descriptor = open_file(target, flags)
        try:
            if os.fstat(descriptor).st_size < part.offset:
                return Copied(part.inode, part.changed, 0, zlib.crc32(b""), False)
            os.lseek(descriptor, part.offset, os.SEEK_SET)
            write_all(descriptor, part.data)
            size = part.offset + len(part.data)
            begin = max(0, size - _TAIL)
            tail = zlib.crc32(os.pread(descriptor, size - begin, begin))
        finally:
            os.close(descriptor)
        whole = in_place or size >= part.size
        if whole and not in_place:
            os.replace(begun, path)  # whoever has the old one mapped keeps it
        return Copied(part.inode, part.changed, size, tail, whole)

    def _load(self) -> dict[str, Copied]:
        try:
            stored = json.loads((self._folder / _STATE).read_bytes())
            return {name: Copied(**known) for name, known in stored.items()}
        except (FileNotFoundError, ValueError, TypeError):
            return {}  # all is sent again

    def _save(self, have: Mapping[str, Copied]) -> None:
        temporary = self._folder / (_STATE + TEMPORARY)
        temporary.write_text(json.dumps({name: asdict(known) for name, known in have.items()}))
        os.replace(temporary, self._folder / _STATE)


def remove_unused(folder: Path) -> None:
    """Removes the copies in a folder that nobody uses: those whose users were killed."""
    for users in folder.glob(f"*/{_USERS}"):
        with suppress(OSError):
            descriptor = open_file(users, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(users.parent, ignore_errors=True)
            finally:
                os.close(descriptor)
