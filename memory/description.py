"""``memory.json``: what a memory's folder says about itself.

It is written when a memory is made, and when its embedder changes. Losing it costs nothing but the
name of the embedder: the id stands in every segment of the log.
"""

import json
import os
import re
import uuid
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from .search.embed import AbsentEmbedder, Embedder
from .search.fields import FIELDS
from .search.index import ENGINES
from .search.tuned import keep_embedder, kept_embedder
from .storage.durable import Corruption, read_file, replace_file, sync_folder
from .storage.lock import is_label
from .storage.segments import memory_id, segments

FORMAT = 2
"""Format number of a memory's folder, written and read."""
DESCRIPTION = "memory.json"
CACHES = {"catalog": ("*.rows",), "vectors": ("*.vec",), "index": ("*.hnsw", "*.json")}
"""Folders of a memory that are made from its log, and the files in them."""

_OURS = re.compile("hashed-[0-9]+-[0-9]+|tuned-[0-9]+-[0-9a-f]{12}-.+", re.DOTALL)


def is_memory(folder: Path) -> bool:
    """Whether there is a memory in ``folder``, be it a damaged one."""
    return (folder / DESCRIPTION).exists() or bool(segments(folder / "log"))


def place_of(path: str | os.PathLike[str], mode: str) -> Path:
    """The folder at a path where there is a memory, or can be made where `mode` is ``create``.

    Raises:
        FileExistsError: a memory would be made among files of somebody else.
        FileNotFoundError: there is none to be opened, or the path is a link that leads nowhere.
        NotADirectoryError: it is a file.
        ValueError: the path is empty, or the mode unknown.
    """
    if mode not in ("r", "w", "create"):
        raise ValueError(
            f"unknown mode {mode!r}: use 'r' to read, 'w' to add, 'create' to add and make it if "
            "need be"
        )
    if not os.fspath(path):
        raise ValueError("the path of a memory is empty: name a folder ('.' is the current one)")
    folder = Path(path)
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file, and a memory is a folder")
    if folder.is_symlink() and not folder.exists():
        raise FileNotFoundError(
            f"{folder} is a symbolic link to {os.readlink(folder)}, where nothing is: make that "
            "folder, or remove the link"
        )
    if mode != "create" and not is_memory(folder):
        nothing = "nothing is there; mode='create' makes one, and so does relive run"
        hint = "check the path" if folder.exists() else nothing
        raise FileNotFoundError(f"there is no memory in {folder} (no {DESCRIPTION}): {hint}")
    # In this order: another process may be making it.
    if (foreign := _foreign(folder)) and not is_memory(folder):
        raise FileExistsError(
            f"{folder} is no memory (no {DESCRIPTION}), and a memory would put its own files where "
            f"{foreign} is: give it a folder of its own"
        )
    return folder


def _foreign(folder: Path) -> str:
    """What lies in a folder where a memory's files would, and is nothing that making one leaves
    behind when it is killed; empty if there is none."""
    for name in ("log", *CACHES):
        place = folder / name
        if place.is_symlink():
            continue  # nothing is written through one
        if place.is_dir():
            for found in sorted(os.listdir(place))[:1]:
                return f"{name}/{found}"
        elif place.exists():
            return name
    return "" if is_label(folder / "lock") else "lock"


def own_embedder(folder: Path, anew: bool = False) -> Embedder:
    """The embedder of the memory in a folder, as far as it can be had: a hashed one, or a tuned one
    that the memory keeps; otherwise what stands for it, or the default one where everything is
    embedded anew.

    Raises:
        ValueError: as :func:`relive.memory.search.tuned.kept_embedder`.
    """
    try:
        description = json.loads(read_file(folder / DESCRIPTION))
        identity, dimension = str(description["embedder"]), int(description["dimension"])
        valid = description.get("checksum") == _checksum(description)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        AttributeError,
        RecursionError,
    ):
        identity, dimension, valid = "", 0, False  # no memory yet, or what `identify` will report
    found = kept_embedder(folder, identity)
    # Of another version of an embedder of ours the vectors are stale: that is to be said at once.
    ours = _OURS.fullmatch(identity) is not None
    return found if ours or anew or not valid else AbsentEmbedder(identity, dimension)


@dataclass(frozen=True, slots=True)
class Description:
    """What a memory is."""

    memory: bytes
    """Its id."""
    fields: tuple[str, ...]
    """What its episodes can be found by, in the order of
    :data:`relive.memory.search.fields.FIELDS`."""
    engine: str
    """Kind of its index, of :data:`relive.memory.search.index.ENGINES`."""
    damage: tuple[Corruption, ...]
    """What was wrong with its file."""
    stale: bool
    """Whether its file says something else, or is not there: see :func:`describe`."""


def identify(
    folder: Path,
    embedder: Embedder,
    fields: Collection[str],
    engine: str,
    reembed: bool,
) -> Description:
    """What the memory in a folder is, or is to be: with `fields` added to those that it has, and
    the `engine` of its index where one is given. Nothing is written.

    Raises:
        ValueError: a format that this program does not read, another embedder and not
            ``reembed``, or a field to add whose texts nobody here can embed.
    """
    path = folder / DESCRIPTION
    damage = []
    try:
        text = read_file(path)
    except FileNotFoundError:
        text = b""
    try:
        description = json.loads(text)
        if description.get("checksum", description.get("format") != FORMAT) not in (
            True,
            _checksum(description),
        ):
            # A wrong id, embedder or field looks as good as a right one, and would keep the memory
            # from opening.
            raise ValueError("its checksum does not hold")
        number, memory = int(description["format"]), bytes.fromhex(description["id"])
        known, dimension = str(description["embedder"]), int(description["dimension"])
        had = {str(field) for field in description.get("keys", ["goal"])}
        indexed = str(description.get("index", ENGINES[0]))
        if indexed not in ENGINES:  # of a later version; a cache, so any will do
            indexed = ENGINES[0]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        # Everything it says can be found out again, except which embedder and fields were meant.
        memory = memory_id(folder / "log") or uuid.uuid4().bytes
        number, known, dimension, had = 0, embedder.identity, embedder.dimension, {"goal"}
        indexed = ENGINES[0]
        if text or segments(folder / "log"):
            detail = f"missing or damaged; {embedder.identity} is taken for its embedder"
            damage.append(Corruption(DESCRIPTION, 0, len(text), detail))
    if number not in (0, FORMAT):
        raise ValueError(
            f"{path}: format {number}; this program reads {FORMAT}: use the version that wrote it"
        )
    if (known, dimension) != (embedder.identity, embedder.dimension) and not reembed:
        raise ValueError(
            f"the memory in {folder} was embedded with {known} ({dimension} dimensions), not with "
            f"{embedder.identity} ({embedder.dimension}): open it with its own embedder, or with "
            "reembed=True to "
            "embed everything again"
        )
    wanted = tuple(field for field in FIELDS if field in had or field in fields or field == "goal")
    more = [field for field in wanted if field not in had]
    if more and isinstance(embedder, AbsentEmbedder):
        raise ValueError(
            f"the memory in {folder} has no field {', '.join(more)}, and cannot be given one "
            f"without its embedder {known}: open it with embedder=..., or with the fields it has"
        )
    engine = engine or indexed
    now = (FORMAT, embedder.identity, set(wanted), engine)
    stale = (number, known, had, indexed) != now
    return Description(memory, wanted, engine, tuple(damage), stale)


def describe(folder: Path, embedder: Embedder, known: Description) -> None:
    """Write what a memory is, if its file says something else. To be called once all vectors are
    there: an embedder that fails must leave a memory that opens as before.

    Raises:
        OSError: it cannot be written.
    """
    if not known.stale:
        return
    keep_embedder(folder, embedder)  # first: the description that names it must not be alone
    description: dict[str, object] = {
        "format": FORMAT,
        "id": known.memory.hex(),
        "embedder": embedder.identity,
        "dimension": embedder.dimension,
        "keys": list(known.fields),
    }
    if known.engine != ENGINES[0]:  # memories made before there was a choice say nothing
        description["index"] = known.engine
    description["checksum"] = _checksum(description)
    replace_file(folder / DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode())
    sync_folder(folder.parent)


def _checksum(description: dict[str, object]) -> int:
    """CRC-32 of a description without its checksum."""
    body = {name: value for name, value in description.items() if name != "checksum"}
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
