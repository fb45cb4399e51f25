"""The measures of continual learning, against numbers worked out by hand."""

import numpy as np
import pytest

from relive.training.experiments.stream.continual import (
    average_success,
    backward_transfer,
    forgetting,
    forward_transfer,
    learning_curve_area,
)

R = [[0.5, 0.1, 0.2], [0.9, 0.6, 0.4], [0.7, 0.8, 1.0]]
B = [0.0, 0.2, 0.1]


def test_by_hand() -> None:
    assert average_success(R) == pytest.approx((0.7 + 0.8 + 1.0) / 3)
    assert backward_transfer(R) == pytest.approx(((0.7 - 0.5) + (0.8 - 0.6)) / 2)
    assert forward_transfer(R, B) == pytest.approx(((0.1 - 0.2) + (0.4 - 0.1)) / 2)
    assert forgetting(R) == pytest.approx(((0.9 - 0.7) + (0.6 - 0.8)) / 2)
    assert learning_curve_area(R) == pytest.approx(
        (0.5 + (0.9 + 0.6) / 2 + (0.7 + 0.8 + 1.0) / 3) / 3
    )


def test_a_single_stage_has_nothing_to_forget() -> None:
    assert average_success([[0.4]]) == learning_curve_area([[0.4]]) == pytest.approx(0.4)
    assert (
        backward_transfer([[0.4]]) == forgetting([[0.4]]) == forward_transfer([[0.4]], [0.1]) == 0.0
    )


def test_only_square_matrices() -> None:
    with pytest.raises(ValueError, match=r"square matrix, got shape \(1, 2\)"):
        average_success(np.zeros((1, 2)))
