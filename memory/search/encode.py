"""What an embedder makes, checked: whoever writes one gets an error that says what it did wrong,
and no row is stored that is not of unit length."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .embed import Embedder, Vectors

NEAR = 1e-4
"""Vectors whose length differs from 1 by no more than this are left exactly as they are."""


def check_embedder(embedder: Embedder) -> None:
    """Make sure that an embedder is one, and can be told from others.

    Raises:
        TypeError: it is none, its identity is no text, or its dimension no integer.
        ValueError: the identity is empty or cannot be written to a file, or the dimension is less
            than 1.
    """
    kind = type(embedder).__name__
    lacking = [one for one in ("identity", "dimension", "encode") if not hasattr(embedder, one)]
    if lacking or isinstance(embedder, type) or not callable(embedder.encode):
        hint = ""
        if isinstance(embedder, type):
            hint = f"; {embedder.__name__} is a class: make one, {embedder.__name__}(...)"
        elif isinstance(embedder, str | os.PathLike):
            hint = "; relive.memory.search.tuned.load_embedder gives the one of a name or folder"
        raise TypeError(
            f"{embedder!r:.80} is no embedder: that is an object with identity (a text), dimension "
            f"(an integer) and encode(texts), for example relive.memory.HashedEmbedder(){hint}"
        )
    identity, dimension = embedder.identity, embedder.dimension
    if not isinstance(identity, str):
        raise TypeError(
            f"the identity of the embedder {kind} is {identity!r}: return a text that names all "
            "its vectors depend on"
        )
    if not identity.strip() or any("\ud800" <= letter <= "\udfff" for letter in identity):
        raise ValueError(
            f"the identity of the embedder {kind} is {identity!r}: return a name that can be "
            "written to a file"
        )
    if not isinstance(dimension, int) or isinstance(dimension, bool):
        raise TypeError(
            f"the dimension of the embedder {identity} is {dimension!r}: return an integer, the "
            "length of its vectors"
        )
    if not 1 <= dimension <= 2**20:
        raise ValueError(
            f"the dimension of the embedder {identity} is {dimension}: it must be between 1 and "
            f"{2**20}"
        )


def unit_vectors(embedder: Embedder, texts: Sequence[str], dimension: int) -> Vectors:
    """The vectors of texts, shape (len(texts), dimension), of unit length; a copy, whatever the
    embedder does with its own array.

    Vectors of another length are normalised, in 64 bits.

    Raises:
        TypeError: it made something else than an array of numbers.
        ValueError: the array has another shape, or holds a vector that has no direction.
    """
    made: Any = embedder.encode(texts)
    right = (
        isinstance(made, np.ndarray)
        and made.dtype == np.float32
        and made.shape == (len(texts), dimension)
    )
    # The usual case, quickly. What is not finite is not near anything.
    if right and all(
        abs(square - 1) <= NEAR for square in np.einsum("ij,ij->i", made, made).tolist()
    ):
        return np.array(made)
    return _normalised(made, f"the embedder {embedder.identity}", len(texts), dimension)


def _normalised(made: object, name: str, count: int, dimension: int) -> Vectors:
    wanted = f"float32 of shape ({count}, {dimension})"
    if not isinstance(made, np.ndarray):
        raise TypeError(
            f"{name} made {_kind(made)} of {count} texts: return a numpy array, {wanted}"
        )
    if made.dtype.kind not in "fiu":
        raise TypeError(f"{name} made an array of {made.dtype} of {count} texts: return {wanted}")
    if made.shape != (count, dimension):
        raise ValueError(
            f"{name} made an array of shape {made.shape} of {count} texts: return {wanted}"
        )
    exact = np.array(made, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise ValueError(
            f"{name} made numbers that are not finite (nan or inf): return {wanted}, each row of "
            "unit length"
        )
    with np.errstate(over="ignore", under="ignore"):
        off = np.abs(_lengths(exact) - 1) > NEAR
        largest = np.abs(exact[off]).max(axis=1)
        if not largest.all():
            raise ValueError(
                f"{name} made a vector of zeros of a text, which has no direction: give such texts "
                "any vector of unit "
                "length"
            )
        scaled = exact[off] / largest[:, None]  # so that no square is too large or too small
        exact[off] = scaled / _lengths(scaled)[:, None]
        return exact.astype(np.float32)


def _lengths(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows)))


def _kind(value: object) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"
