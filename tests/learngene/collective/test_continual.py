"""Measures on the accuracy matrix, by hand."""

from __future__ import annotations

import pytest

from learngene.collective.forgetting import measures

# Task 1 is at its best only after task 2: forgetting and backward transfer part there.
MATRIX = [[0.9], [0.6, 0.5], [0.7, 0.8, 0.4], [0.3, 0.6, 0.1, 1.0]]


def test_by_hand():
    found = measures(MATRIX, [0.9, 0.55, 0.6, 0.5])
    assert found.pop("matrix") == MATRIX
    assert found == pytest.approx(
        {
            "average_accuracy": (0.3 + 0.6 + 0.1 + 1.0) / 4,
            "average_incremental_accuracy": 2.55 / 4,
            "forgetting": ((0.9 - 0.3) + (0.8 - 0.6) + (0.4 - 0.1)) / 3,
            "backward_transfer": ((0.3 - 0.9) + (0.6 - 0.5) + (0.1 - 0.4)) / 3,
        }
    )


def test_the_last_task_itself_is_no_best_to_fall_from():
    """The maximum is over the tasks before the last: what rises at the end counts as negative."""
    found = measures([[0.2], [0.5, 0.9]], [0.2, 0.7])
    assert found["forgetting"] == pytest.approx(-0.3)
    assert found["backward_transfer"] == pytest.approx(0.3)


def test_one_task_can_neither_be_forgotten_nor_transferred_to():
    found = measures([[0.7]], [0.7])
    assert found["forgetting"] is None and found["backward_transfer"] is None
    assert found["average_accuracy"] == 0.7


@pytest.mark.parametrize("rows", [[], [[0.5], [0.5]], [[0.5, 0.1], [0.5, 0.2]]])
def test_what_is_no_lower_triangle_is_refused(rows):
    with pytest.raises(ValueError, match="rows of 1, 2, 3"):
        measures(rows, [0.5] * len(rows))
