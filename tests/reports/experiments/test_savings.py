"""Epochs and images saved: hand-made curves, clients that never arrive."""

from __future__ import annotations

import pandas as pd
import pytest

from reports.experiments.savings import (
    Saving,
    converged,
    steps_to_accuracy,
    to_level,
    to_scratch_final,
)

FAST = [(1, 0.5), (5, 0.62), (10, 0.71)]
A, B, C = ((0, 0, client) for client in range(3))
SLOW = [(1, 0.3), (5, 0.4), (10, 0.6), (25, 0.7)]
NEVER = [(1, 0.2), (5, 0.3), (10, 0.4), (25, 0.45)]


def frame(curves: dict) -> pd.DataFrame:
    """A client a row, an effort a column."""
    index = pd.MultiIndex.from_tuples(curves, names=["seed", "shard_seed", "client"])
    values = pd.DataFrame([dict(curve) for curve in curves.values()], index=index)
    return values.sort_index(axis="columns")


def level(ours: dict, scratch: dict, accuracy: float) -> Saving:
    return to_level(frame(ours), frame(scratch), accuracy)


def effort_to(curve: list, accuracy: float) -> float | None:
    return steps_to_accuracy(frame({A: curve}), accuracy).astype(object).where(pd.notna, None)[A]


def test_effort_is_a_measured_point_and_none_where_the_level_is_never_reached() -> None:
    assert effort_to(FAST, 0.6) == 5  # between 1 and 5 nothing was measured
    assert effort_to(SLOW, 0.6) == 10  # at the level counts
    assert effort_to(NEVER, 0.6) is None and effort_to([], 0.1) is None


def test_savings_are_paired_and_count_who_never_arrived() -> None:
    saving = level({A: FAST, B: FAST, C: NEVER}, {C: NEVER, B: NEVER, A: SLOW}, 0.6)
    assert saving.saved.to_dict() == {A: 5} and saving.shares.to_dict() == {A: 0.5}
    assert saving.not_reached == (1, 2)


def test_curves_of_other_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="same clients"):
        level({A: FAST, B: FAST}, {A: SLOW}, 0.6)


def test_a_client_that_needs_more_with_the_learngene_counts_against_it() -> None:
    assert level({A: SLOW}, {A: FAST}, 0.6).saved.to_dict() == {A: -5}


def test_nothing_needed_from_scratch_has_no_share() -> None:
    saving = level({A: [(0, 0.9)]}, {A: [(0, 0.9)]}, 0.6)
    assert saving.saved.to_dict() == {A: 0} and saving.shares.to_dict() == {}


def test_epochs_saved_are_to_where_scratch_ends() -> None:
    ours = [(0, 0.69), (1, 0.75)]
    saved = to_scratch_final(frame({A: ours}), frame({A: SLOW})).saved.to_dict()
    assert saved == {A: 25}  # 0.69 is within a point of 0.70
    assert to_scratch_final(frame({A: NEVER}), frame({A: SLOW})).not_reached == (1, 0)


def test_a_curve_has_converged_within_a_point_of_its_own_end() -> None:
    assert converged(frame({A: [(0, 0.2), (10, 0.695), (20, 0.7)], B: FAST})).to_dict() == {
        A: 10,
        B: 10,
    }
    # Training takes something away: it has not converged before it is there.
    assert converged(frame({A: [(0, 0.8), (10, 0.71), (20, 0.7)], B: FAST}))[A] == 10
