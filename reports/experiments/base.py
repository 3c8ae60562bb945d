"""What an experiment is: its rows, its figure, and what the paper says of it.

A row is one quantity, ours beside the paper's (Wang et al., *Learngene: From Open-World to Your
Learning Task*, AAAI 2022). One that the paper has no number for stays, with an empty cell: what it
rests on should be seen. Accuracies are percent, differences percentage points. The paper's ± is as
printed; the paper does not say what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib

from reports.figures.measured import draw_variants
from reports.figures.style import STYLE, NoDataError
from reports.form import common_form, nearly_joint
from reports.format import p_value
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.statistics import holm, paired_gain
from reports.summary import answered
from reports.units import Measured, mean_by_task, mean_over_runs
from reports.variants import CONTROLS, RunGroup, Variant, paired_difference

CIFAR, IMAGENET = "cifar100", "imagenet100"
OVER_RANDOM, OVER_PLAIN = "inherited less random layers", "projection less none"
OVER_RANDOM_FLAGS = "flagged images less random ones"
AHEAD = {  # setting that makes a control: what the others are ahead of it by
    "learngene.control": OVER_RANDOM,
    "learngene.projection": OVER_PLAIN,
    "labelled.flags": OVER_RANDOM_FLAGS,
}
OPPONENTS = (  # of the paper's tables, in their order
    *("maml", "fomaml", "protonet", "proto_maml", "matchingnet"),
    *("finetune", "finetune_pp", "deepemd"),
)
MOST = 0.5  # of the clients: what these have at epoch 0 is no matter of training
ENOUGH = 0.9  # of the clients must have arrived where a mean is of a level that they reach


@dataclass(frozen=True)
class PaperNumber:
    """A number of the paper."""

    value: float
    spread: float | None  # the paper's ±
    where: str


def table_cells(
    where: str,
    columns: Sequence[tuple[Any, ...]],
    rows: Mapping[str, Sequence[tuple[float, float]]],
) -> dict[tuple[Any, ...], PaperNumber]:
    """A table of the paper: its number with its ± by (row, *column)."""
    return {
        (name, *column): PaperNumber(*cell, where)
        for name, cells in rows.items()
        for column, cell in zip(columns, cells, strict=True)
    }


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or a control that stands beside it.

    ``bound`` says how its number is meant: ``about`` is an estimate, ``at least`` and ``at most``
    are met by anything beyond. Where there is no number, the direction alone is the claim.
    """

    name: str
    words: str
    quantity: str  # the row that measures it
    direction: tuple[str, ...] = ()  # the rows of ``signs`` where these are others
    numbers: Mapping[str, PaperNumber] = field(default_factory=dict)  # by data set; or our bar
    unit: str = "points"  # %, points, epochs, images, share; empty: a correlation
    bound: str = "about"  # about | at least | at most
    said_in: str = ""  # where the paper says it; empty: where its numbers stand
    control: bool = False  # not the paper's: what must fail where the claim is to mean something

    @property
    def where(self) -> str:
        return self.said_in or next(iter(self.numbers.values())).where

    @property
    def signs(self) -> tuple[str, ...]:
        """The rows that are all above zero where the effect has the paper's sign."""
        return self.direction or (self.quantity,)


@dataclass(frozen=True)
class ReachedLevel:
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

    # behind the settings that tell its runs from others, and what they are called that keep more
    # than definition 1 has: ``shots=10: learngene``, ``nearly joint: learngene``
    quantity: str
    unit: str
    ours: Measured
    commands: tuple[str, ...]  # of the runs that it was measured in
    paper: PaperNumber | None = None
    note: str = ""
    reached: ReachedLevel | None = None  # None: a quantity that every client has
    form: str = ""  # what the individuals are made of (``reports.form``)
    untrained: ReachedLevel | None = None  # where it holds before any training; None: not known
    of_control: bool = False  # measured in a control alone: no number of the paper's, no verdict

    @property
    def name(self) -> str:
        """The quantity without settings."""
        return self.quantity.rpartition(": ")[2]

    @property
    def censored(self) -> bool:
        """Whether too few clients arrived for a mean over them to speak for all."""
        return self.reached is not None and self.reached.share < ENOUGH

    @property
    def by_construction(self) -> bool:
        """Whether what is measured of training is there without any, at most of the clients."""
        return self.untrained is not None and self.untrained.share >= MOST

    @property
    def difference(self) -> float | None:
        """Ours less the paper's; none where ours is of a selection."""
        if self.paper is None or self.ours.mean is None or self.censored:
            return None
        return self.ours.mean - self.paper.value


def row(
    variant: Variant,
    quantity: str,
    unit: str,
    ours: Measured,
    *,
    paper: PaperNumber | None = None,
    note: str = "",
    hide_settings: Sequence[str] = (),
    reached: ReachedLevel | None = None,
    untrained: ReachedLevel | None = None,
    variants: Sequence[Variant] = (),
) -> Row:
    """A row of a variant.

    Args:
        paper: the paper's number, where it is not that of a claim about this quantity.
        hide_settings: settings that ``quantity`` already tells (``*`` for all: a quantity of all
            variants together); the others stand in front of it, so that no two rows have one name.
        reached: of a level that not every client reaches.
        untrained: the clients of which it holds at epoch 0, of a quantity that is about training.
        variants: all that it was measured in; none: ``variant`` alone.
    """
    label = "" if "*" in hide_settings else variant.label_without(hide_settings)
    measured_in = variants or (variant,)
    commands = tuple(each.command for each in measured_in)
    runs = [run for each in measured_in for run in each.runs]
    front = ", ".join(filter(None, (label, nearly_joint(runs))))
    named = f"{front}: {quantity}" if front else quantity
    form, of_control = common_form(runs), variant.is_control
    paper = None if of_control else paper
    return Row(
        named, unit, ours, commands, paper, note, reached, form, untrained, of_control=of_control
    )


def client_rows(group: RunGroup) -> list[Row]:
    """Accuracy of every method and the learngene's gain over scratch, for each variant."""
    rows = []
    for variant in group.variants:
        for name in variant.methods:
            mean, note = variant.accuracy(name), rank_note(variant, name)
            rows.append(row(variant, name, "%", mean, note=note))
        if {MAIN, REFERENCE} <= set(variant.methods):
            rows.append(gain_row(variant, "gain over scratch"))
    return rows


def rank_note(variant: Variant, method: str) -> str:
    """Whether a method is below scratch, on the mean over the same units."""
    if method == REFERENCE or REFERENCE not in variant.methods:
        return ""
    mean = variant.mean(variant.differences(method, REFERENCE)).mean
    return "below scratch" if mean is not None and mean < 0 else ""


def gain_row(variant: Variant, quantity: str, hide_settings: Sequence[str] = ()) -> Row:
    """What the learngene gains over scratch, and on how many clients (or draws) it is better."""
    gains = variant.differences(MAIN, REFERENCE)
    by_task = mean_by_task(gains)
    note = f"better on {(by_task > 0).sum()} of {len(by_task)} {variant.unit}s"
    mean = variant.mean_difference(gains)
    return row(variant, quantity, "points", mean, note=note, hide_settings=hide_settings)


def collective_row(
    variant: Variant,
    runs: Sequence[Results],
    quantity: str,
    unit: str,
    values: Sequence[float | None],
    note: str = "",
) -> list[Row]:
    """The row of one value a run, or none where no run has one. Accuracies and their differences
    come as fractions. An interval needs seeds: runs of one have one collective."""
    scale = 100 if unit in ("%", "points") else 1
    known = [(run, scale * x) for run, x in zip(runs, values, strict=True) if x is not None]
    return [row(variant, quantity, unit, mean_over_runs(known), note=note)] if known else []


def lead_rows(
    variant: Variant, prefix: str = "", hide_settings: Sequence[str] = ("shots",)
) -> list[Row]:
    """The learngene's lead over every other method; the note has Wilcoxon's p over the variant's
    clients (or draws), with Holm's correction over these methods, as a run's own table has it."""
    if MAIN not in variant.methods:
        return []
    leads = {n: variant.differences(MAIN, n) for n in variant.methods if n != MAIN}
    tests = [
        paired_gain(by_task.tolist(), [0.0] * len(by_task))
        for by_task in map(mean_by_task, leads.values())
    ]
    corrected = holm([test["p_value"] for test in tests])
    return [
        row(
            variant,
            f"{prefix}lead over {name}",
            "points",
            variant.mean_difference(lead),
            note=f"p {p_value(p)}; ahead on {test['wins']} of {test['n']} {variant.unit}s",
            hide_settings=hide_settings,
        )
        for (name, lead), test, p in zip(leads.items(), tests, corrected, strict=True)
    ]


def control_rows(group: RunGroup) -> list[Row]:
    """What the learngene is ahead by of each control among the runs, on the same clients."""
    return [
        row(
            variant,
            quantity,
            "points",
            paired_difference(variant, control, MAIN),
            hide_settings=[setting],
            variants=(variant, control),
        )
        for setting, quantity in AHEAD.items()
        for part in group.split_by_others(setting)
        for control in part.variants
        if control.settings.get(setting) == CONTROLS[setting]
        for variant in part.variants
        if variant is not control and MAIN in variant.methods and MAIN in control.methods
    ]


@dataclass(frozen=True)
class Experiment:
    """One experiment; its module is ``reports/experiments/NAME.py``, what it runs is
    ``conf/experiment/NAME.yaml``."""

    name: str
    methods: tuple[str, ...] = ()  # without these its rows and its figure have nothing to show
    rows: Callable[[RunGroup], list[Row]] = client_rows
    figure: Callable[[RunGroup, Path], Path] = draw_variants
    claims: tuple[Claim, ...] = ()
    needs_collective: bool = False  # it shows one; a saved learngene has none
    caption: str | None = None  # below its figure; None: that bands and bars are intervals
    whole_curves: bool = False  # its rows are of what lies between the ends of the clients' curves
    # A table of its own, above that of the rows, in text: headings, then cells.
    overview: Callable[[RunGroup], list[tuple[str, ...]]] = lambda group: []

    def missing_methods(self, group: RunGroup) -> list[str]:
        """The methods that it compares and that a run has not."""
        return [n for n in self.methods if any(n not in v.methods for v in group.variants)]

    def claim_of(self, measured: Row) -> Claim | None:
        """The claim of the paper's text that is about a row."""
        return next((claim for claim in self.claims if claim.quantity == measured.name), None)

    def table(self, group: RunGroup) -> list[Row]:
        """Its rows with the paper's numbers; runs without a method that it compares get those of
        any run."""
        if self.missing_methods(group):
            return client_rows(group)
        return [
            replace(measured, paper=claim.numbers.get(group.data))
            if not (measured.paper or measured.of_control) and (claim := self.claim_of(measured))
            else measured
            for measured in (*self.rows(group), *control_rows(group))
        ]

    def draw(self, group: RunGroup, path: Path) -> Path:
        """Draw its figure.

        Raises:
            NoDataError: the runs do not hold what it shows.
        """
        if not any(answered(run) for run in group.runs):
            raise NoDataError("no client answered")
        if missing := self.missing_methods(group):
            raise NoDataError(f"{self.name} compares {missing[0]}, which a run has not")
        with matplotlib.rc_context(STYLE):
            return self.figure(group, path)
