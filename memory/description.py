"""``memory.json``: what a memory's folder says about itself.

It is written when a memory is made, and when its embedder changes. Losing it costs nothing but the
name of the embedder: the id stands in every segment of the log.
"""

import json
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
from .storage.segments import memory_id, segments

FORMAT = 2
"""Format number of a memory's folder, written and read."""
DESCRIPTION = "memory.json"


def is_memory(folder: Path) -> bool:
    """Whether there is a memory in ``folder``, be it a damaged one."""
    return (folder / DESCRIPTION).exists() or bool(segments(folder / "log"))


def own_embedder(folder: Path, anew: bool = False) -> Embedder:
    """The embedder of the memory in a folder, as far as it can be had: the default one, or a tuned
    one that the memory keeps; otherwise what stands for it, or the default one where everything is
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
    ours = identity.partition("-")[0] in {
        own.partition("-")[0] for own in (found.identity, "tuned-")
    }
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


def identify(
    folder: Path,
    embedder: Embedder,
    fields: Collection[str],
    engine: str,
    writable: bool,
    reembed: bool,
) -> Description:
    """What the memory in a folder is; a writer makes what is missing, adds `fields` to those that
    it has, and notes the `engine` of its index where one is given.

    Raises:
        ValueError: a format that this program does not read, or another embedder and not
            ``reembed``.
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
    engine = engine or indexed
    now = (FORMAT, embedder.identity, set(wanted), engine)
    if writable and (number, known, had, indexed) != now:
        keep_embedder(folder, embedder)  # first: the description that names it must not be alone
        _describe(folder, memory, embedder, wanted, engine)
    return Description(memory, wanted, engine, tuple(damage))


def _describe(
    folder: Path, memory: bytes, embedder: Embedder, fields: tuple[str, ...], engine: str
) -> None:
    description: dict[str, object] = {
        "format": FORMAT,
        "id": memory.hex(),
        "embedder": embedder.identity,
        "dimension": embedder.dimension,
        "keys": list(fields),
    }
    if engine != ENGINES[0]:  # memories made before there was a choice say nothing
        description["index"] = engine
    description["checksum"] = _checksum(description)
    replace_file(folder / DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode())
    sync_folder(folder.parent)


def _checksum(description: dict[str, object]) -> int:
    """CRC-32 of a description without its checksum."""
    body = {name: value for name, value in description.items() if name != "checksum"}
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
