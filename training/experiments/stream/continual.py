"""Measures of continual learning, from the matrix of success after each stage on the tasks of each
stage.

``R[i][j]`` is the success rate on held-out tasks of stage j after learning stages 0 to i, in the
order in which they are met; ``b[j]`` that of an agent that has learnt nothing. Everything is in [0,
1] or a difference of such rates.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = Sequence[Sequence[float]] | NDArray[np.float64]


def average_success(matrix: Matrix) -> float:
    """Mean over all stages after the last one: ACC of Lopez-Paz and Ranzato, "Gradient Episodic
    Memory", NeurIPS 2017."""
    return float(_square(matrix)[-1].mean())


def backward_transfer(matrix: Matrix) -> float:
    """Mean over all stages but the last of what later stages did to it, ``R[T-1][j] - R[j][j]``:
    BWT of Lopez-Paz and Ranzato."""
    r = _square(matrix)
    return float((r[-1] - r.diagonal())[:-1].mean()) if len(r) > 1 else 0.0


def forward_transfer(matrix: Matrix, untaught: Sequence[float]) -> float:
    """Mean over all stages but the first of what earlier stages did for it, ``R[j-1][j] - b[j]``:
    FWT of Lopez-Paz and Ranzato.

    Args:
        matrix: R, shape (T, T).
        untaught: b, shape (T,).
    """
    r, b = _square(matrix), np.asarray(untaught, dtype=np.float64)
    return float(np.mean([r[j - 1][j] - b[j] for j in range(1, len(r))])) if len(r) > 1 else 0.0


def forgetting(matrix: Matrix) -> float:
    """Mean over all stages but the last of the best it ever was before the last stage, less what it
    is at the end.

    Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, equation 3. Negative
    where a stage got better.
    """
    r = _square(matrix)
    return float((r[:-1].max(axis=0) - r[-1])[:-1].mean()) if len(r) > 1 else 0.0


def learning_curve_area(matrix: Matrix) -> float:
    """Mean over the stages of the mean success on all stages met so far: the average incremental
    accuracy of Rebuffi et al., "iCaRL", CVPR 2017; the area under the curve of success on what was
    met, on an axis of stages scaled to 1. (Lopez-Paz' curves, and ours, show success on all stages,
    met or not.)"""
    r = _square(matrix)
    return float(np.mean([r[i][: i + 1].mean() for i in range(len(r))]))


MEASURES = (
    "average_success",
    "forward_transfer",
    "backward_transfer",
    "forgetting",
    "learning_curve_area",
)


def measures(matrix: Matrix, untaught: Sequence[float] | None) -> Mapping[str, float]:
    """All of them, by name; without what an untaught agent does there is no forward transfer."""
    return {
        "average_success": average_success(matrix),
        **({} if untaught is None else {"forward_transfer": forward_transfer(matrix, untaught)}),
        "backward_transfer": backward_transfer(matrix),
        "forgetting": forgetting(matrix),
        "learning_curve_area": learning_curve_area(matrix),
    }


def _square(matrix: Matrix) -> NDArray[np.float64]:
    r = np.asarray(matrix, dtype=np.float64)
    if r.ndim != 2 or r.shape[0] != r.shape[1] or not r.size:
        raise ValueError(
            f"success after each stage on each stage must be a square matrix, got shape {r.shape}"
        )
    return r
