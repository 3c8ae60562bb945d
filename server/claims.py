"""The paper's claims held against what was measured: a verdict by one rule, not by opinion.

``reproduced``: the paper's number lies within our 95 % interval, widened by the paper's own ±; or,
where it is a bound, ours meets it up to the interval. ``in direction only``: it does not, but what
the claim is about has the paper's sign, with an interval off zero (for a table: the learngene leads
each of the eight opponents so). ``not``: neither. ``not run``: no run says anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.paper import Claim, Quoted
from server.rows import Row

REPRODUCED, DIRECTION, NOT, NOT_RUN = "reproduced", "in direction only", "not", "not run"


@dataclass(frozen=True)
class Judged:
    """What one group of runs says of a claim."""

    label: str  # settings that tell these runs from others of the experiment; empty = no others
    row: Row
    verdict: str


def judge(claim: Claim, quoted: Quoted, rows: Sequence[Row]) -> list[Judged]:
    """The verdict on a claim for one world, once for every setting that the runs differ in.

    Args:
        quoted: the claim's number for that world.
        rows: the experiment's table there; empty where nothing was run.
    """
    found = []
    for row in rows:
        label, ours = _split(row.quantity, claim.quantity)
        if ours:
            prefix = f"{label}: " if label else ""
            signs = [r for r in rows for name in claim.direction if r.quantity == prefix + name]
            complete = len(signs) == len(claim.direction)
            found.append(Judged(label, row, verdict(claim.bound, quoted, row, signs, complete)))
    return found


def verdict(bound: str, quoted: Quoted, row: Row, signs: Sequence[Row], complete: bool) -> str:
    """The rule at the head of this file; ``complete``: every row of the direction is there."""
    mean = row.ours.mean
    if mean is not None:
        slack = (row.ours.ci95 or 0.0) + (quoted.spread or 0.0)
        low, high = mean - slack, mean + slack
        met = {
            "about": low <= quoted.value <= high,
            "at most": low <= quoted.value,
            "at least": high >= quoted.value,
        }
        if met[bound]:
            return REPRODUCED
    return DIRECTION if complete and all(_above_zero(sign) for sign in signs) else NOT


def _above_zero(row: Row) -> bool:
    """Without an interval (one client) a direction is not known."""
    mean, ci95 = row.ours.mean, row.ours.ci95
    return mean is not None and ci95 is not None and mean - ci95 > 0


def _split(quantity: str, wanted: str) -> tuple[str, bool]:
    """The settings in front of a row's quantity, and whether it is the one that is wanted."""
    if quantity == wanted:
        return "", True
    label, _, rest = quantity.rpartition(": ")
    return label, bool(label) and rest == wanted
