"""An embedder that was tuned: a linear map over the vectors of another one.

How such a map is learnt is in :mod:`relive.training.retriever`. Here it is applied, kept and read:
a memory that was embedded with one keeps it in its own folder (``embedders/``), so that whoever
opens the memory later need not know of it.
"""

import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..storage.durable import read_file, refuse_links, replace_file
from .embed import Embedder, HashedEmbedder, Vectors
from .encode import check_embedder, unit_vectors

FORMAT = 1
"""Format number of a tuned embedder's folder, written and read."""
DESCRIPTION = "embedder.json"
MATRIX = "matrix.npz"
KEPT = "embedders"
"""Folder of a memory with the tuned embedders that it was embedded with."""
_UNREADABLE = (
    ValueError, TypeError, KeyError, EOFError, MemoryError, OverflowError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise, depending on where a file is damaged."""
_HASHED = re.compile(r"hashed-1-([0-9]{1,7})")


class TunedEmbedder:
    """The vectors of another embedder, mapped and brought to unit length again.

    Args:
        base: the other one.
        matrix: what its rows are multiplied with, shape (dimension of `base`, own dimension).

    Raises:
        TypeError, ValueError: the base does not say what it is, or the matrix is none of numbers,
            of another shape, or not finite.
    """

    def __init__(self, base: Embedder, matrix: NDArray[np.floating]) -> None:
        check_embedder(base)
        if not isinstance(matrix, np.ndarray) or matrix.dtype.kind != "f":
            raise TypeError("the matrix of a tuned embedder must be a numpy array of floats")
        if matrix.ndim != 2 or matrix.shape[0] != base.dimension or not matrix.shape[1]:
            raise ValueError(
                f"the matrix of a tuned embedder has shape {matrix.shape}; the vectors of "
                f"{base.identity} need ({base.dimension}, n)"
            )
        if not np.isfinite(matrix).all():
            raise ValueError("the matrix of a tuned embedder holds numbers that are not finite")
        self.base = base
        """Whose vectors are mapped."""
        self.matrix: NDArray[np.float32] = np.ascontiguousarray(matrix, dtype="<f4")
        """Shape (dimension of `base`, own dimension)."""
        self._exact = self.matrix.astype(np.float64)
        told = f"{base.identity}\n{base.dimension}\n{self.matrix.shape}\n".encode()
        digest = hashlib.sha256(told + self.matrix.tobytes()).hexdigest()[:12]
        self._identity = f"tuned-{FORMAT}-{digest}-{base.identity}"

    @property
    def identity(self) -> str:
        """``tuned-<format>-<hash of the matrix and the base>-<identity of the base>``."""
        return self._identity

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return int(self.matrix.shape[1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 rows of unit length, shape (len(texts), dimension)."""
        rows = np.empty((len(texts), self.dimension), dtype=np.float64)
        for row, vector in zip(
            rows, unit_vectors(self.base, texts, self.base.dimension), strict=True
        ):
            # One by one: the last bits of a product of matrices depend on how many rows it has.
            row[:] = vector.astype(np.float64) @ self._exact
            norm = np.sqrt(row @ row)
            if norm > 1e-12:
                row /= norm
            else:  # what the map makes nothing of must be a unit row, too
                row[:] = 0
                row[0] = 1
        return rows.astype(np.float32)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write it into a folder, which is made if need be.

        Raises:
            OSError: it cannot be written.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, matrix=self.matrix)
        replace_file(path / MATRIX, buffer.getvalue())
        described = {
            "format": FORMAT,
            "identity": self.identity,
            "base": self.base.identity,
            "base_dimension": self.base.dimension,
        }
        # Last: a folder that has it is complete.
        replace_file(path / DESCRIPTION, (json.dumps(described, indent=1) + "\n").encode())


def load_embedder(name: str | os.PathLike[str], base: Embedder | None = None) -> Embedder:
    """An embedder by its name, or out of a folder.

    Args:
        name: ``hashed``, ``hashed-1-<dimension>``, or the folder of a tuned embedder.
        base: whose vectors the tuned one maps; by default the hashed embedder that it names.

    Raises:
        FileNotFoundError: there is no such folder, or no tuned embedder in it.
        ValueError: its files are damaged or of another format, or it maps the vectors of another
            embedder than `base`.
    """
    if str(name) == "hashed":
        return HashedEmbedder()
    if known := _HASHED.fullmatch(str(name)):
        return HashedEmbedder(int(known[1]))
    folder = Path(name)
    try:
        text = read_file(folder / DESCRIPTION)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"there is no tuned embedder in {folder} (no {DESCRIPTION}): name a folder that relive "
            "train-retriever wrote, or hashed"
        ) from None
    try:
        described = json.loads(text)
        number, identity = int(described["format"]), str(described["identity"])
        wanted, dimension = str(described["base"]), int(described["base_dimension"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(folder / DESCRIPTION, str(error)) from None
    if number != FORMAT:
        raise ValueError(
            f"{folder / DESCRIPTION}: format {number}; this program reads {FORMAT}: use the "
            "version that wrote it"
        )
    if base is None:
        hashed = _HASHED.fullmatch(wanted)
        if hashed is None:
            raise ValueError(
                f"the embedder in {folder} maps the vectors of {wanted}, which no file holds: "
                f"load_embedder({str(folder)!r}, base=...) with that embedder"
            )
        base = HashedEmbedder(int(hashed[1]))
    if (base.identity, base.dimension) != (wanted, dimension):
        raise ValueError(
            f"the embedder in {folder} maps the vectors of {wanted} ({dimension} dimensions), not "
            f"of {base.identity} ({base.dimension}): give it its own base"
        )
    try:
        with np.load(io.BytesIO(read_file(folder / MATRIX)), allow_pickle=False) as arrays:
            made = TunedEmbedder(base, arrays["matrix"])
    except FileNotFoundError:
        raise _damaged(folder / MATRIX, "it is missing") from None
    except _UNREADABLE as error:
        raise _damaged(folder / MATRIX, str(error)) from None
    if made.identity != identity:
        raise _damaged(folder / MATRIX, f"it makes {made.identity}, and {identity} was saved")
    return made


def keep_embedder(memory: Path, embedder: Embedder) -> None:
    """Put a tuned embedder into the folder of a memory that is embedded with it; any other leaves
    nothing there.

    Raises:
        OSError: it cannot be written.
    """
    if isinstance(embedder, TunedEmbedder):
        refuse_links(memory, (KEPT,))
        embedder.save(_kept(memory, embedder.identity))


def kept_embedder(memory: Path, identity: str) -> Embedder:
    """The tuned embedder of an identity that a memory keeps, or the hashed one of an identity; the
    default one where it is of neither.

    Raises:
        ValueError: what it keeps is damaged, or maps the vectors of an embedder that no file holds.
    """
    folder = _kept(memory, identity)
    if identity.startswith("tuned-") and (folder / DESCRIPTION).exists():
        return load_embedder(folder)
    hashed = _HASHED.fullmatch(identity)
    return HashedEmbedder(int(hashed[1])) if hashed else HashedEmbedder()


def _kept(memory: Path, identity: str) -> Path:
    """Where: named by a hash, as an identity may hold what no file name may."""
    return memory / KEPT / hashlib.sha256(identity.encode()).hexdigest()[:16]


def _damaged(file: Path, why: str) -> ValueError:
    return ValueError(
        f"{file} is damaged ({why}): copy the folder again, or train the embedder again with "
        "relive train-retriever"
    )
