"""Measures on the accuracy matrix, by hand."""

from __future__ import annotations

import pytest

from learngene.collective.forgetting import (
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    forgetting,
    measures,
)

# Task 1 is at its best only after task 2: forgetting and backward transfer part there.
MATRIX = [[0.9], [0.6, 0.5], [0.7, 0.8, 0.4], [0.3, 0.6, 0.1, 1.0]]


def test_by_hand():
    assert average_accuracy(MATRIX) == pytest.approx((0.3 + 0.6 + 0.1 + 1.0) / 4)
    assert forgetting(MATRIX) == pytest.approx(((0.9 - 0.3) + (0.8 - 0.6) + (0.4 - 0.1)) / 3)
    expected = ((0.3 - 0.9) + (0.6 - 0.5) + (0.1 - 0.4)) / 3
    assert backward_transfer(MATRIX) == pytest.approx(expected)
    assert average_incremental_accuracy([0.9, 0.55, 0.6, 0.5]) == pytest.approx(2.55 / 4)


def test_the_last_task_itself_is_no_best_to_fall_from():
    """The maximum is over the tasks before the last: what rises at the end counts as negative."""
    assert forgetting([[0.2], [0.5, 0.9]]) == pytest.approx(-0.3)
    assert backward_transfer([[0.2], [0.5, 0.9]]) == pytest.approx(0.3)


def test_one_task_can_neither_be_forgotten_nor_transferred_to():
    assert forgetting([[0.7]]) is None and backward_transfer([[0.7]]) is None
    assert average_accuracy([[0.7]]) == 0.7


@pytest.mark.parametrize("measure", [average_accuracy, forgetting, backward_transfer])
@pytest.mark.parametrize("rows", [[], [[0.5], [0.5]], [[0.5, 0.1], [0.5, 0.2]]])
def test_what_is_no_lower_triangle_is_refused(measure, rows):
    with pytest.raises(ValueError, match="rows of 1, 2, 3"):
        measure(rows)
    with pytest.raises(ValueError, match="no task"):
        average_incremental_accuracy([])


def test_all_measures_of_a_life():
    accuracies = [0.9, 0.55, 0.6, 0.5]
    assert measures(MATRIX, accuracies) == {
        "matrix": MATRIX,
        "average_accuracy": average_accuracy(MATRIX),
        "average_incremental_accuracy": average_incremental_accuracy(accuracies),
        "forgetting": forgetting(MATRIX),
        "backward_transfer": backward_transfer(MATRIX),
    }
