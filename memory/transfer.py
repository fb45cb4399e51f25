"""Episodes as lines of JSON, out and in: to look at, to move, to merge, and to have when nothing
reads the log any more.

The first line says what the file is; every other line is one episode with all its fields, its
ratings and its notes (``docs/file-format.md``). Both ways go line by line, so a file may be larger
than the machine's memory. What is imported was written by somebody: every line is checked, and a
bad one is reported without losing the others.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from .episode import Episode
from .plain import described, plain, read_as
from .query import EpisodeNotFoundError
from .search.embed import AbsentEmbedder
from .storage.codec import valid_episode
from .storage.durable import beside, create_file, publish_file
from .storage.payload import MAX_BYTES
from .store import Memory

FORMAT = "relive-episodes"
"""What the first line calls the file."""
VERSION = 1
"""Format version of every line, written and read."""
MAX_LINE = 6 * MAX_BYTES
"""Longest line that is imported, in bytes: JSON writes a control character in six of them."""
BATCH = 64
"""Episodes that are added with one synchronisation of the disk."""
BATCH_BYTES = 16 * 2**20
"""Lines of a batch hold about so much at most: a few huge ones do not add up."""
LISTED = 100
"""Bad lines that are described; further ones are only counted."""
HEADER = {
    "format": FORMAT,
    "v": VERSION,
    "about": "one episode per line; relive memory import reads it",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was not imported."""

    file: str
    line: int
    """Counted from 1."""
    detail: str
    """What is wrong with it, and what to do where mending the line is not it."""

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the lines of a file."""

    added: int = 0
    """Episodes that are new."""
    there: int = 0
    """Episodes that were there already; ratings and notes that they did not have were added."""
    deleted: int = 0
    """Episodes that had been deleted here; they stay deleted."""
    bad: int = 0
    """Lines that were not imported."""
    problems: tuple[Problem, ...] = ()
    """The first of these, at most :data:`LISTED`."""


def export_lines(memory: Memory) -> Iterator[bytes]:
    """The lines of an export, each with its newline. Episodes that cannot be read are left out: see
    ``stats().damage``."""
    yield _line(HEADER)
    for episode in memory.iterate():
        try:
            notes = list(memory.notes(episode.id))
        except EpisodeNotFoundError:
            continue  # deleted since it was read
        yield _line({"v": VERSION, **plain(episode), "notes": notes})


def export_file(
    memory: Memory,
    path: str | os.PathLike[str],
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Write an export; it is there in full or not at all. Returns the number of episodes in it.

    Args:
        memory: what is exported.
        path: of the file, which must not exist.
        on_progress: told after each episode how many were written.

    Raises:
        FileExistsError: there is such a file.
        OSError: it could not be written; what was written of it is removed.
    """
    target = Path(path)
    if target.exists():
        raise FileExistsError(f"{target} is there already: give another name, or delete it first")
    temporary = beside(target)
    count = -1  # the first line is no episode
    try:
        with create_file(temporary) as file:
            for line in export_lines(memory):
                file.write(line)
                count += 1
                if on_progress is not None and count:
                    on_progress(count)
            file.flush()
            os.fsync(file.fileno())
        publish_file(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count


def import_lines(
    memory: Memory,
    file: BinaryIO,
    name: str,
    on_progress: Callable[[int], None] | None = None,
) -> Imported:
    """Add the episodes of an export to a memory. Interrupted, the same import goes on where it
    stopped.

    Args:
        memory: open for writing.
        file: of an export.
        name: of the file, for messages.
        on_progress: told after each line how many were read.

    Raises:
        ValueError: the file is no export, or of a version that this program does not read; or the
            memory is open for reading, or without the embedder that it was made with.
        OSError: the disk is full, for example; what was added so far is there.
    """
    memory.add_many([])  # says so if nothing can be added, before any line is blamed
    lines = lines_of(file)
    _, first = next(lines, (1, b""))
    check_header(first, name)
    importer = Importer(memory, name)
    for number, line in _up_to_damage(lines, importer):
        try:
            parsed = _parse(line)
        except ValueError as error:
            importer.refuse(number, str(error))
        else:
            if line is not None and parsed is not None:
                importer.take(number, *parsed, len(line))
        if on_progress is not None:
            on_progress(number)
    return importer.finish()


def _up_to_damage(
    lines: Iterator[tuple[int, bytes | None]], importer: "Importer"
) -> Iterator[tuple[int, bytes | None]]:
    number = 1
    try:
        for number, line in lines:
            yield number, line
    except DamagedFileError as error:
        importer.refuse(number + 1, str(error))


class DamagedFileError(ValueError):
    """A compressed file ends early or is damaged."""


def _by_line(problem: Problem) -> int:
    return problem.line


class Importer:
    """An import under way: episodes from the lines of a file go into a memory, in batches.

    Args:
        memory: open for writing.
        name: of the file, for messages.

    Raises:
        ValueError: the memory was opened without the embedder that it was made with.
    """

    def __init__(self, memory: Memory, name: str) -> None:
        if isinstance(memory.embedder, AbsentEmbedder):
            memory.embedder.encode([])  # which says so, before any line is blamed
        self.added = self.there = self.deleted = self.bad = 0
        self.problems: list[Problem] = []
        self._memory, self._name = memory, name
        self._waiting: dict[str, tuple[int, Episode, list[str]]] = {}
        self._bytes = 0

    def take(
        self,
        number: int,
        episode: Episode,
        notes: list[str],
        size: int,
        twins: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Add the episode of a line, unless it is there; what is said about it is added either way.

        Args:
            number: of the line.
            episode: with the ratings that were given to it.
            notes: remarks about it.
            size: of the line in bytes, about.
            twins: ids of the same steps with another outcome; where one of them is there, the
                episode is refused.
        """
        if episode.id in self._waiting:
            self.flush()
        if episode.id in self._memory:
            self._meet(number, episode, notes)
        elif _was_deleted(self._memory, episode.id):
            self.deleted += 1
        elif (twin := next(filter(self._has, twins()), None)) is not None:
            self.refuse(
                number,
                f"the same steps are there already with another outcome, as episode {twin!r}: "
                "delete that one first (relive memory delete); to have both, give this one another "
                "id (a log of ALFWorld: another name)",
            )
        else:
            self._waiting[episode.id] = number, episode, notes
            self._bytes += size
            if len(self._waiting) >= BATCH or self._bytes >= BATCH_BYTES:
                self.flush()

    def _has(self, episode_id: str) -> bool:
        return episode_id in self._waiting or episode_id in self._memory

    def refuse(self, number: int, detail: str) -> None:
        """Note that a line is not imported, and why."""
        self.bad += 1
        if len(self.problems) < LISTED:
            self.problems.append(Problem(self._name, number, detail))

    def finish(self) -> Imported:
        """Add what still waits; what became of all lines."""
        self.flush()
        problems = tuple(sorted(self.problems, key=_by_line))
        return Imported(self.added, self.there, self.deleted, self.bad, problems)

    def flush(self) -> None:
        """Add the episodes that wait, and then what is said about them."""
        waiting, self._waiting, self._bytes = list(self._waiting.values()), {}, 0
        if not waiting:
            return
        # Ratings are given afterwards, as they were: they count as ratings, and not as part of what
        # happened.
        bare = [replace(episode, ratings={}) for _, episode, _ in waiting]
        try:
            self._memory.add_many(bare)
            good = waiting
        except (ValueError, TypeError):
            good = [
                one
                for one, episode in zip(waiting, bare, strict=True)
                if self._add(one[0], episode)
            ]
        self.added += len(good)
        said = [
            (episode.id, episode.ratings, notes)
            for _, episode, notes in good
            if episode.ratings or notes
        ]
        if said:
            with ThreadPoolExecutor(
                len(said)
            ) as threads:  # who writes at the same time shares the synchronisation
                list(threads.map(self._append_annotation, *zip(*said, strict=True)))

    def _add(self, number: int, episode: Episode) -> bool:
        try:
            self._memory.add(episode)
        except (ValueError, TypeError) as error:
            self.refuse(number, str(error))
            return False
        return True

    def _meet(self, number: int, episode: Episode, notes: list[str]) -> None:
        """An id that is there: the same episode, then, which may lack ratings and notes (an import
        that was interrupted)."""
        try:
            here = self._memory.get(episode.id)
        except ValueError:
            self.refuse(
                number,
                f"episode {episode.id!r} is there, but damaged: delete it (relive memory delete), "
                "compact the memory "
                "(relive memory compact) and import the file again",
            )
            return
        ours, theirs = (plain(replace(one, ratings={})) for one in (here, episode))
        if ours != theirs and _carried(ours) != theirs:
            self.refuse(
                number,
                f"another episode {episode.id!r} is there already: give this one an id of its own "
                "to have both",
            )
            return
        self.there += 1
        lacking = Counter(notes) - Counter(_carried(self._memory.notes(episode.id)))
        missing = []
        for text in notes:
            if lacking[text] > 0:
                lacking[text] -= 1
                missing.append(text)
        # What was removed here stays removed, as what was deleted stays deleted.
        removed = self._memory.removed_ratings(episode.id)
        known = {*here.ratings, *removed, *_carried([*here.ratings, *removed])}
        self._append_annotation(
            episode.id, {k: v for k, v in episode.ratings.items() if k not in known}, missing
        )

    def _append_annotation(
        self, episode_id: str, ratings: Mapping[str, float], notes: list[str]
    ) -> None:
        for name, value in ratings.items():
            self._memory.rate(episode_id, name, value)
        for text in notes:
            self._memory.annotate(episode_id, text)


def _was_deleted(memory: Memory, episode_id: str) -> bool:
    try:
        memory.meta(episode_id)
    except EpisodeNotFoundError as error:
        return error.deleted
    return False


def _carried(value: Any) -> Any:
    """What an import reads of a value that was exported: halves of a character that stand side by
    side have become that character."""
    return json.loads(_line({"": value}))[""]


def _line(values: Mapping[str, object]) -> bytes:
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate has no UTF-8, and its backslash escape is exactly that of JSON.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Number and bytes of each line; None for one that is too long, which is passed over without
    being held."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) <= MAX_LINE or line.endswith(b"\n"):
            yield number, line
            continue
        while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
            pass
        yield number, None


def check_header(line: bytes | None, name: str) -> None:
    """Raise a `ValueError` unless a line is the first one of an export that this program reads."""
    try:
        header = json_of(line or b"")
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(
            f"{name} is no export of episodes: its first line must be "
            f"{_line(HEADER).decode().strip()} "
            "(put it there if the file is a part of one)"
        )
    try:
        _check_version(header)
    except ValueError as error:
        raise ValueError(f"{name} is {error}") from None


def _check_version(values: Mapping[str, object]) -> None:
    version = values.get("v")
    if type(version) is not int or version != VERSION:
        raise ValueError(
            f"of version {version!r} of the format; this program reads {VERSION}: import it with "
            "the version that wrote it"
        )


def _parse(line: bytes | None) -> tuple[Episode, list[str]] | None:
    """Episode and notes in a line.

    None for a blank one and for the first line of another export: files may be put one behind the
    other.
    """
    if line is not None and not line.strip():
        return None
    values = json_of(line)
    if not isinstance(values, dict):
        raise ValueError(f"not an episode: {described(values)} instead of an object")
    _check_version(values)
    if values.get("format") == FORMAT:
        return None
    try:
        episode, notes = (
            read_as(Episode, values),
            read_as(tuple[str, ...], values.get("notes", []), "notes"),
        )
    except ValueError as error:
        raise ValueError(f"not an episode: {error}") from None
    return valid_episode(episode), list(notes)


def json_of(line: bytes | None) -> object:
    """What a line from :func:`lines_of` holds; raises `ValueError` if it is no JSON."""
    if line is None:
        raise ValueError(f"longer than {MAX_LINE} bytes, the most that a line may have")
    try:
        return json.loads(line.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply to be an episode") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start} of the line)") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"no JSON, or cut off: {error.msg} at character {error.pos} of the line"
        ) from None
