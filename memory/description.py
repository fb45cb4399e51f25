"""``memory.json``: what a memory's folder says about itself.

It is written when a memory is made, and when its embedder changes. Losing it costs nothing but the name of the
embedder: the id stands in every segment of the log.
"""

import json
import uuid
from pathlib import Path

from memory.durable import replace_file, sync_folder
from memory.embed import Embedder
from memory.log import Damage, memory_id, segments

FORMAT = 1
"""Format number of a memory's folder, written and read."""
DESCRIPTION = "memory.json"


def is_memory(folder: Path) -> bool:
    """Whether there is a memory in ``folder``, be it a damaged one."""
    return (folder / DESCRIPTION).exists() or bool(segments(folder / "log"))


def identify(folder: Path, embedder: Embedder, *, writable: bool, reembed: bool) -> tuple[bytes, list[Damage]]:
    """Id of the memory, and what was wrong with its description; a writer makes what is missing.

    Raises:
        ValueError: a format that this program does not read, or another embedder and not ``reembed``.
    """
    path = folder / DESCRIPTION
    damage = []
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        text = b""
    try:
        description = json.loads(text)
        number, memory = int(description["format"]), bytes.fromhex(description["id"])
        known, dimension = str(description["embedder"]), int(description["dimension"])
    except (ValueError, KeyError, TypeError):
        # Everything it says can be found out again, except which embedder was meant.
        memory = memory_id(folder / "log") or uuid.uuid4().bytes
        number, known, dimension = FORMAT, embedder.identity, embedder.dimension
        if text or segments(folder / "log"):
            detail = f"missing or damaged; {embedder.identity} is taken for its embedder"
            damage.append(Damage(DESCRIPTION, 0, len(text), detail))
        if writable:
            _describe(folder, memory, embedder)
            return memory, damage
    if number != FORMAT:
        raise ValueError(f"{path}: format {number}; this program reads format {FORMAT}: use the version that wrote it")
    if (known, dimension) != (embedder.identity, embedder.dimension):
        if not reembed:
            raise ValueError(
                f"the memory in {folder} was embedded with {known} ({dimension} dimensions), not with "
                f"{embedder.identity} ({embedder.dimension}): open it with its own embedder, or with reembed=True to "
                "embed everything again"
            )
        if writable:
            _describe(folder, memory, embedder)
    return memory, damage


def _describe(folder: Path, memory: bytes, embedder: Embedder) -> None:
    description = {
        "format": FORMAT,
        "id": memory.hex(),
        "embedder": embedder.identity,
        "dimension": embedder.dimension,
    }
    replace_file(folder / DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode())
    sync_folder(folder.parent)
