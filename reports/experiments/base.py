"""A row of an experiment's table: one quantity, ours beside the paper's.

A row that the paper has no number for is kept, with an empty cell: what it rests on should be
seen. Accuracies are percent, differences percentage points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.experiments.paper import CLAIMS, COMPARED, Claim, Quoted
from reports.results import MAIN, REFERENCE
from reports.summary import method_names
from reports.units import Measured, accuracies, differences
from reports.variants import Arm, Gathered, experiment_of

ENOUGH = 0.9  # of the clients must have arrived where a mean is of a level that they reach


@dataclass(frozen=True)
class Arrived:
    """How many clients reached what is measured; a mean is over these alone."""

    clients: int
    of: int

    @property
    def share(self) -> float:
        return self.clients / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.clients} of {self.of} arrived"


@dataclass(frozen=True)
class Row:
    """One quantity."""

    quantity: str
    unit: str
    ours: Measured
    commands: tuple[str, ...]  # of the runs that it was measured in
    paper: Quoted | None = None
    note: str = ""
    arrived: Arrived | None = None  # None: a quantity that every client has

    @property
    def censored(self) -> bool:
        """Whether too few clients arrived for a mean over them to speak for all."""
        return self.arrived is not None and self.arrived.share < ENOUGH

    @property
    def difference(self) -> float | None:
        """Ours less the paper's; none where ours is of a selection."""
        if self.paper is None or self.ours.mean is None or self.censored:
            return None
        return self.ours.mean - self.paper.value


def row(
    arm: Arm,
    quantity: str,
    unit: str,
    ours: Measured,
    *,
    quoted: Quoted | None = None,
    note: str = "",
    told: Sequence[str] = (),
    arrived: Arrived | None = None,
    arms: Sequence[Arm] = (),
) -> Row:
    """A row; the paper's number is ``quoted``, or that of its claim about this quantity.

    Args:
        arms: all that it was measured in; none: ``arm`` alone.
        arrived: of a level that not every client reaches.
        told: settings that ``quantity`` already tells (``*`` for all: a quantity of all arms
            together); the others stand in front of it, so that no two rows have one name.
    """
    run = arm.runs[0]
    if quoted is None:
        quoted = quoted_of(experiment_of(run), quantity, run["data"]["name"])
    label = "" if "*" in told else arm.label_without(told)
    named = f"{label}: {quantity}" if label else quantity
    commands = tuple(each.command for each in arms or (arm,))
    return Row(named, unit, ours, commands, quoted, note, arrived)


def quoted_of(experiment: str | None, quantity: str, data: str) -> Quoted | None:
    """What the paper's text says of a quantity; None where it says nothing for this world."""
    claim = claim_of(experiment, quantity)
    return claim.numbers.get(data) if claim else None


def claim_of(experiment: str | None, quantity: str) -> Claim | None:
    """The claim of the paper's text that is about a quantity of an experiment's table."""
    found = (c for c in CLAIMS if (c.experiment, c.quantity) == (experiment, quantity))
    return next(found, None)


def any_rows(gathered: Gathered) -> list[Row]:
    """Accuracy of every method and the learngene's gain over scratch, for each arm."""
    found = []
    for arm in gathered.arms:
        for name in methods(arm):
            found.append(row(arm, name, "%", arm.measured(accuracies(name))))
        if {MAIN, REFERENCE} <= set(methods(arm)):
            gain = arm.measured(differences(MAIN, REFERENCE))
            found.append(row(arm, "gain over scratch", "points", gain, note=wins(arm)))
    return found


def methods(arm: Arm) -> list[str]:
    """The methods that were compared."""
    return method_names(arm.runs[0])


def lacking(gathered: Gathered) -> list[str]:
    """The methods that the experiment compares and that a run of it has not."""
    due = COMPARED.get(gathered.experiment or "", ())
    return [name for name in due if any(name not in methods(arm) for arm in gathered.arms)]


def wins(arm: Arm) -> str:
    """On how many clients (or draws) the learngene is better than scratch."""
    gains = arm.pooled(differences(MAIN, REFERENCE)).values()
    return f"better on {sum(gain > 0 for gain in gains)} of {len(gains)} {arm.unit}s"
