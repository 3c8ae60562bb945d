"""The paper's claims held against what was measured: a verdict by one rule, not by opinion.

*In direction*: what the claim is about has the paper's sign, with an interval off zero (for a
table: the learngene leads each of the eight opponents so), of a paired difference also with that
for new classes. ``holds``: in direction, where there is no number, or a control's bound is met.
``holds by construction (epoch 0)``: in direction, but what it says of training is there at most of
the clients before any, so training shows nothing. ``reproduced``: in direction, and the
paper's number lies within our 95 % interval and the paper's own ±, the two half-widths combined as
the root of the sum of their squares, ours being at most half of the paper's number (a wide interval
reproduces nothing); or, where it is a bound, our mean itself meets it. ``in direction only``: in
direction, but the number is another. ``censored``: it would be one of these two, but fewer than 90
% of the clients arrived at the level that the claim is about (60 % accuracy, say), for its number
or for its direction: means are of those that did, and would be others with the rest. ``too few
runs``: it would be in direction, but has no interval. ``not``: not in direction. ``not run``: no
run says anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

from reports.experiments.base import Claim, PaperNumber, Row
from reports.statistics import wider

REPRODUCED, DIRECTION, CENSORED = "reproduced", "in direction only", "censored"
HOLDS, BY_CONSTRUCTION = "holds", "holds by construction (epoch 0)"
NOT, NOT_RUN, TOO_FEW = "not", "not run", "too few runs"
PRECISE = 0.5  # of the paper's number: a wider interval is no estimate of it


@dataclass(frozen=True)
class Judged:
    """What one group of runs says of a claim."""

    label: str  # settings that tell these runs from others of the experiment; empty = no others
    row: Row
    verdict: str


def verdicts(claim: Claim, paper: PaperNumber | None, rows: Sequence[Row]) -> list[Judged]:
    """The verdict on a claim for one data set, once for every setting that the runs differ in.

    Args:
        paper: the claim's number for that data set, None where it has none.
        rows: the experiment's table there; empty where nothing was run.
    """
    judged = []
    for row in rows:
        if row.name == claim.quantity:
            prefix = row.quantity.removesuffix(row.name)
            signs = [r for r in rows if r.quantity in {prefix + name for name in claim.signs}]
            complete = len(signs) == len(claim.signs)
            met = verdict(claim.bound, paper, row, signs, complete)
            met = HOLDS if claim.control and met == REPRODUCED else met
            judged.append(Judged(prefix.removesuffix(": "), row, met))
    return judged


def verdict(
    bound: str, paper: PaperNumber | None, row: Row, signs: Sequence[Row], complete: bool
) -> str:
    """The rule at the head of this file; ``complete``: every row of the direction is there."""
    if not (signs and complete and all(_above_zero(sign) for sign in signs)):
        return NOT
    if any(sign.ours.ci95 is None or sign.ours.too_few for sign in signs):
        return TOO_FEW
    if any(measured.censored for measured in (row, *signs)):
        return CENSORED
    if any(measured.by_construction for measured in (row, *signs)):
        return BY_CONSTRUCTION
    if paper is None:
        return HOLDS
    return REPRODUCED if _met(bound, paper, row) else DIRECTION


def _met(bound: str, paper: PaperNumber, row: Row) -> bool:
    """Whether our number is the paper's; nothing was measured where the mean is missing."""
    mean = row.ours.mean
    if mean is None:
        return False
    if bound == "at most":
        return mean <= paper.value
    if bound == "at least":
        return mean >= paper.value
    ours = row.ours.ci95 or 0.0
    precise = ours <= PRECISE * abs(paper.value)
    return precise and abs(mean - paper.value) <= hypot(ours, paper.spread or 0.0)


def _above_zero(row: Row) -> bool:
    """Off zero by the wider of its intervals."""
    ours = row.ours
    return ours.mean is not None and ours.mean > wider(ours.ci95, ours.ci95_classes)
