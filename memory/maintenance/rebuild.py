"""Caches made anew from the log: what to do when one of them is damaged, or not trusted."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..description import CACHES, DESCRIPTION, describe, identify, is_memory, own_embedder
from ..search.embed import AbsentEmbedder, Embedder, Vectors
from ..search.encode import check_embedder
from ..search.index import IndexSettings
from ..search.vectors import column_name
from ..state import State
from ..storage.durable import Corruption, refuse_links
from ..storage.lock import WriterLock
from .verify import all_damage

_STEP = 1024  # rows that go into a graph between two reports

OnProgress = Callable[[str, int, int], None]
"""Told what is done, how much of it is, and how much it will be (0: not known)."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was made."""

    episodes: int
    """Episodes in the log that were not deleted."""
    embedded: int
    """Vectors that were computed."""
    indexed: int
    """Rows in the graphs; 0 while so few are there that all are compared."""
    damage: tuple[Corruption, ...]
    """What of the log cannot be read: no cache mends that."""


def rebuild(
    path: str | os.PathLike[str],
    *,
    embedder: Embedder | None = None,
    reembed: bool = False,
    index: IndexSettings | None = None,
    on_progress: OnProgress | None = None,
) -> Rebuilt:
    """Throw the caches of a memory away and make them again.

    Args:
        path: the folder.
        embedder: as for ``Memory``; with `reembed`, one that is given becomes the memory's.
        reembed: the vectors, too, which takes longest; otherwise those that fit the log stay.
        index: as for ``Memory``.
        on_progress: told how it goes.

    Raises:
        FileNotFoundError: there is no memory.
        BlockingIOError: someone is writing it.
        ValueError: another embedder, or a format that this program does not read; nothing was
            thrown away.
    """
    folder, on_progress = Path(path), on_progress or _nobody
    # Only one that somebody named: the default must not take the place of a memory's own.
    another = reembed and embedder is not None
    embedder = own_embedder(folder) if embedder is None else embedder
    check_embedder(embedder)
    absent = isinstance(embedder, AbsentEmbedder)
    if reembed and absent:
        embedder.encode([])  # which says that it cannot, before the old vectors are gone
    if not is_memory(folder):
        raise FileNotFoundError(
            f"there is no memory in {folder} (no {DESCRIPTION}): check the path"
        )
    refuse_links(folder, ("log", *CACHES))
    with WriterLock(folder / "lock"):
        counted = _Counted(embedder, on_progress)
        index = index or IndexSettings()
        known = identify(folder, embedder, (), index.engine, reembed=another)
        unwanted = ["catalog/*", "index/*", "vectors/*.tmp"]
        if reembed:
            unwanted.append(
                f"vectors/{column_name(counted.identity)}*.vec"
            )  # those of other embedders are not in use
        for pattern in unwanted:
            for file in folder.glob(pattern):
                if file.is_dir() and not file.is_symlink():  # a table of a vector database
                    shutil.rmtree(file)
                else:
                    file.unlink()
        for name in CACHES:
            (folder / name).mkdir(exist_ok=True)
        on_progress("reading the log", 0, 0)
        state = State(
            folder,
            memory=known.memory,
            embedder=embedder if absent else counted,
            fields=known.fields,
            writable=True,
            index=replace(index, engine=known.engine),
        )
        try:
            state.load()
            describe(folder, embedder, known)
            for field, space in state.spaces.items():
                space.column.check_all()
                while space.grow(_STEP):
                    on_progress(f"building the index of {field}", space.covered, len(space.column))
                space.publish(state.position)
            indexed = sum(space.covered for space in state.spaces.values())
            return Rebuilt(
                state.catalog.alive, counted.count, indexed, (*known.damage, *all_damage(state))
            )
        finally:
            state.log.close()


class _Counted:
    """An embedder that says how far it is."""

    def __init__(self, embedder: Embedder, on_progress: OnProgress) -> None:
        self.count = 0
        self._embedder, self._on_progress = embedder, on_progress

    @property
    def identity(self) -> str:
        return self._embedder.identity

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """As the embedder, some at a time."""
        self.count += len(texts)
        self._on_progress("embedding", self.count, 0)
        return self._embedder.encode(texts)


def _nobody(what: str, done: int, total: int) -> None:
    """Nobody is told."""
