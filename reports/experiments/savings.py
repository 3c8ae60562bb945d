"""How many epochs, or images, the learngene saves: a client at a time, never on mean curves.

A mean curve crosses 60 % where half of the clients have not. Here every client has its own
crossing, the difference is taken within a client, and clients that never cross are counted and not
guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.units import Unit

Curve = Sequence[tuple[float, float]]  # (effort, accuracy as a fraction), rising effort
Curves = Mapping[Unit, Curve]  # a client each
TOLERANCE = 0.01  # of accuracy: this near to its last value a curve has converged


@dataclass(frozen=True)
class Saving:
    """Effort to reach a level with the learngene and from scratch, over the same clients."""

    ours: Mapping[Unit, float | None]  # None = never reached
    scratch: Mapping[Unit, float | None]

    @property
    def saved(self) -> dict[Unit, float]:
        """Scratch's effort less the learngene's, of the clients where both arrived."""
        return {unit: b - a for unit, a, b in self._both()}

    @property
    def shares(self) -> dict[Unit, float]:
        """The same as a share of scratch's effort; clients where scratch needed none left out."""
        return {unit: (b - a) / b for unit, a, b in self._both() if b > 0}

    @property
    def never(self) -> tuple[int, int]:
        """Clients that never arrived, with the learngene and from scratch."""
        return sum(x is None for x in self.ours.values()), sum(
            x is None for x in self.scratch.values()
        )

    def _both(self) -> list[tuple[Unit, float, float]]:
        pairs = [(unit, ours, self.scratch[unit]) for unit, ours in self.ours.items()]
        return [(unit, a, b) for unit, a, b in pairs if a is not None and b is not None]


def effort_to(curve: Curve, level: float) -> float | None:
    """The smallest measured effort with at least ``level`` accuracy; None where there is none.

    Nothing is interpolated: the answer is a point that was measured.
    """
    return next((effort for effort, accuracy in curve if accuracy >= level), None)


def to_level(ours: Curves, scratch: Curves, level: float) -> Saving:
    """Effort of each client to reach a fixed accuracy."""
    return _saving(ours, scratch, dict.fromkeys(ours, level))


def to_where_scratch_ends(ours: Curves, scratch: Curves) -> Saving:
    """Effort of each client to come within ``TOLERANCE`` of where its scratch curve ends.

    Where the learngene starts above that, its effort is 0, and what is saved is all of scratch's.
    """
    return _saving(ours, scratch, {unit: c[-1][1] - TOLERANCE for unit, c in scratch.items()})


def to_converge(ours: Curves, scratch: Curves) -> Saving:
    """Effort of each client until each of its two curves has converged, at a level of its own."""
    _same_clients(ours, scratch)
    return Saving(converged(ours), converged(scratch))


def converged(curves: Curves) -> dict[Unit, float]:
    """Effort at which each curve first comes within ``TOLERANCE`` of its own last value."""
    found = {unit: effort_to(c, c[-1][1] - TOLERANCE) for unit, c in curves.items()}
    return {unit: effort for unit, effort in found.items() if effort is not None}


def _saving(ours: Curves, scratch: Curves, levels: Mapping[Unit, float]) -> Saving:
    _same_clients(ours, scratch)
    a, b = ({unit: effort_to(of[unit], levels[unit]) for unit in of} for of in (ours, scratch))
    return Saving(a, b)


def _same_clients(ours: Curves, scratch: Curves) -> None:
    if set(ours) != set(scratch):
        raise ValueError("the learngene's and scratch's curves are not of the same clients")
