"""How many epochs, or images, the learngene saves: a client at a time, never on mean curves.

A mean curve crosses 60 % where half of the clients have not. Here every client has its own
crossing, the difference is taken within a client, and clients that never cross are counted and not
guessed at. Curves are frames with a row a client (seed, tasks, client) and a column an effort,
rising; values are accuracies as fractions.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from reports.experiments.base import ReachedLevel

TOLERANCE = 0.01  # of accuracy: this near to its last value a curve has converged


@dataclass(frozen=True)
class Saving:
    """Effort to reach a level with the learngene and from scratch, over the same clients."""

    ours: pd.Series  # missing = never reached
    scratch: pd.Series

    def __post_init__(self) -> None:
        if set(self.ours.index) != set(self.scratch.index):
            raise ValueError("the learngene's and scratch's curves are not of the same clients")

    @property
    def saved(self) -> pd.Series:
        """Scratch's effort less the learngene's, of the clients where both arrived."""
        return (self.scratch - self.ours).dropna()

    @property
    def shares(self) -> pd.Series:
        """The same as a share of scratch's effort; clients where scratch needed none left out."""
        needed = self.scratch[self.scratch > 0]
        return (self.saved / needed).dropna()

    @property
    def not_reached(self) -> tuple[int, int]:
        """Clients that never arrived, with the learngene and from scratch."""
        return int(self.ours.isna().sum()), int(self.scratch.isna().sum())

    @property
    def reached(self) -> ReachedLevel:
        """Clients that arrived with the learngene and from scratch."""
        return reached_level(self.ours, self.scratch)

    @property
    def note(self) -> str:
        ours, scratch = self.not_reached
        return f"never with the learngene {ours}, never from scratch {scratch}"


def steps_to_accuracy(curves: pd.DataFrame, level: float | pd.Series) -> pd.Series:
    """The smallest measured effort with at least ``level`` accuracy, of each client; missing where
    there is none. Nothing is interpolated: the answer is a point that was measured."""
    efforts = curves.mul(float("nan"))
    for effort in curves:
        efforts[effort] = float(effort)
    return efforts.where(curves.ge(level, axis="index")).min(axis="columns")


def to_level(ours: pd.DataFrame, scratch: pd.DataFrame, level: float | pd.Series) -> Saving:
    """Effort of each client to reach an accuracy, fixed or one a client.

    Raises:
        ValueError: the curves are not of the same clients.
    """
    return Saving(steps_to_accuracy(ours, level), steps_to_accuracy(scratch, level))


def to_scratch_final(ours: pd.DataFrame, scratch: pd.DataFrame) -> Saving:
    """Effort of each client to come within ``TOLERANCE`` of where its scratch curve ends.

    Where the learngene starts above that, its effort is 0, and what is saved is all of scratch's.
    """
    return to_level(ours, scratch, _last(scratch) - TOLERANCE)


def to_converge(ours: pd.DataFrame, scratch: pd.DataFrame) -> Saving:
    """Effort of each client until each of its two curves has converged, at a level of its own."""
    return Saving(converged(ours), converged(scratch))


def converged(curves: pd.DataFrame) -> pd.Series:
    """Effort at which each curve first comes within ``TOLERANCE`` of its own last value, from
    below or, where training takes something away, from above."""
    away = curves.sub(_last(curves), axis="index").abs().round(9)  # a point away is not more
    return steps_to_accuracy(-away, -TOLERANCE)


def reached_level(*efforts: pd.Series) -> ReachedLevel:
    """Clients that arrived; one that several collectives have has to arrive with each."""
    arrived = pd.concat([effort.notna() for effort in efforts], axis=1).all(axis="columns")
    by_task = arrived.groupby(level=[1, 2], sort=False).all()
    return ReachedLevel(int(by_task.sum()), len(by_task))


def _last(curves: pd.DataFrame) -> pd.Series:
    """Where each curve ends."""
    return curves.ffill(axis="columns").T.tail(1).sum()  # of one number; nobody may have answered
