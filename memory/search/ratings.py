"""What people think of an entry, as far as it steers what is shown.

Two ratings do: ``human``, from -1 (wrong) over 0 (nothing said) to 1 (helpful), which is weighed;
and ``unsafe``, which above 0 keeps an entry from being shown whatever is asked. Others are kept and
steer nothing. All are read as of a log position, so a rating changes no search before it.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..storage.annotations import HUMAN, UNSAFE, Annotations
from ..storage.catalog import RATED, Catalog
from ..storage.rows import Numbers


def clipped(value: float) -> float:
    """A rating within [-1, 1]: what somebody gave on a larger scale is not believed more. 0 for
    what is no number."""
    return 0.0 if math.isnan(value) else max(-1.0, min(1.0, value))


class RatingHistory:
    """What people thought of entries at any log position.

    Args:
        catalog: of the log.
        annotations: what was said since the episodes were recorded.
        own: the ratings that an episode itself holds, by its ordinal; looked at only where it holds
            some.
    """

    def __init__(
        self,
        catalog: Catalog,
        annotations: Annotations,
        own: Callable[[int], Mapping[str, float]],
    ) -> None:
        self._catalog, self._annotations, self._own = catalog, annotations, own
        self._hidden: tuple[tuple[int, int], Numbers] | None = None

    def values(self, ordinals: Numbers, position: int) -> NDArray[np.float64]:
        """The rating ``human`` of entries, within [-1, 1], 0 without one; shape (n,)."""
        sequences = self._catalog.sequences[ordinals].tolist()
        rated = (self._catalog.column("flags")[ordinals] & RATED > 0).tolist()
        return np.array(
            [
                self._value(HUMAN, ordinal, sequence, position, own)
                for ordinal, sequence, own in zip(ordinals.tolist(), sequences, rated, strict=True)
            ],
            dtype=np.float64,
        )

    def unsafe(self, position: int) -> Numbers:
        """Ordinals of the entries that must not be shown at a log position, ascending."""
        marked = self._annotations.marked() | self._catalog.marked
        if not marked:
            return np.empty(0, dtype=np.int64)
        key = position, len(self._catalog.file)
        if self._hidden is None or self._hidden[0] != key:
            found = []
            for sequence in marked:
                ordinal = self._catalog.ordinal_at(sequence)
                own = sequence in self._catalog.marked
                if ordinal is None:
                    continue
                if self._value(UNSAFE, ordinal, sequence, position, own) > 0:
                    found.append(ordinal)
            self._hidden = key, np.array(sorted(found), dtype=np.int64)
        return self._hidden[1]

    def _value(self, name: str, ordinal: int, sequence: int, position: int, own: bool) -> float:
        try:
            value = self._annotations.last(sequence, name, position)
        except KeyError:
            # What the catalog says of the mark need not be read from the log, which may be damaged.
            if not own:
                return 0.0
            value = 1.0 if name == UNSAFE else self._own(ordinal).get(name)
        return 0.0 if value is None else clipped(value)
