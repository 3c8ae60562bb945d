"""How many epochs, or images, the learngene saves: a client at a time, never on mean curves.

A mean curve crosses 60 % where half of the clients have not. Here every client has its own
crossing, the difference is taken within a client, and clients that never cross are counted and not
guessed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Curve = Sequence[tuple[float, float]]  # (effort, accuracy as a fraction), rising effort
TOLERANCE = 0.01  # of accuracy: this near to its last value a curve has converged


@dataclass(frozen=True)
class Saving:
    """Effort to reach a level with the learngene and from scratch, over clients."""

    ours: list[float | None]  # a client each; None = never reached
    scratch: list[float | None]

    @property
    def saved(self) -> list[float]:
        """Scratch's effort less the learngene's, of the clients where both arrived."""
        return [b - a for a, b in self._both()]

    @property
    def shares(self) -> list[float]:
        """The same as a share of scratch's effort; clients where scratch needed none left out."""
        return [(b - a) / b for a, b in self._both() if b > 0]

    @property
    def never(self) -> tuple[int, int]:
        """Clients that never arrived, with the learngene and from scratch."""
        return sum(x is None for x in self.ours), sum(x is None for x in self.scratch)

    def _both(self) -> list[tuple[float, float]]:
        pairs = zip(self.ours, self.scratch, strict=True)
        return [(a, b) for a, b in pairs if a is not None and b is not None]

    def words(self) -> str:
        """Who never arrived: a saving needs both."""
        ours, scratch = self.never
        return f"never with the learngene {ours}, never from scratch {scratch}"


def effort_to(curve: Curve, level: float) -> float | None:
    """The smallest measured effort with at least ``level`` accuracy; None where there is none.

    Nothing is interpolated: the answer is a point that was measured.
    """
    return next((effort for effort, accuracy in curve if accuracy >= level), None)


def to_level(ours: Sequence[Curve], scratch: Sequence[Curve], level: float) -> Saving:
    """Effort of each client to reach a fixed accuracy; the curves in the same order of clients."""
    pairs = list(zip(ours, scratch, strict=True))
    return Saving([effort_to(a, level) for a, _ in pairs], [effort_to(b, level) for _, b in pairs])


def to_where_scratch_ends(ours: Sequence[Curve], scratch: Sequence[Curve]) -> Saving:
    """Effort of each client to come within ``TOLERANCE`` of where its scratch curve ends."""
    pairs = [(a, b, b[-1][1] - TOLERANCE) for a, b in zip(ours, scratch, strict=True)]
    return Saving(
        [effort_to(a, level) for a, _, level in pairs],
        [effort_to(b, level) for _, b, level in pairs],
    )


def converged(curves: Sequence[Curve]) -> list[float]:
    """Effort at which each curve first comes within ``TOLERANCE`` of its own last value."""
    return [found for c in curves if (found := effort_to(c, c[-1][1] - TOLERANCE)) is not None]
