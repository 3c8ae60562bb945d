"""Find the experiments: the modules below this folder that have an ``EXPERIMENT``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # drawing and statistics are seconds that only an experiment's run pays
    from reports.experiments.base import Claim, Experiment, Row
    from reports.variants import RunGroup

SECTIONS = ("Inheriting", "Experiments", "Discussion", "table")  # of the paper, then its tables


def experiment(name: str | None) -> Experiment:
    """The experiment of a name; one without a module compares what its variants gain."""
    module = _modules().get(name or "")
    if module is not None:
        declared: Experiment | None = getattr(import_module(module), "EXPERIMENT", None)
        if declared is not None:
            return declared
    from reports.experiments.base import Experiment

    return Experiment(name or "no experiment")


def compared_methods(name: str | None) -> tuple[str, ...]:
    """The methods without which an experiment has nothing to show."""
    return experiment(name).methods if _known(name) else ()


def needs_collective(name: str | None) -> bool:
    """Whether an experiment shows a collective, which a run of a saved learngene has not."""
    return _known(name) and experiment(name).needs_collective


def claims() -> list[tuple[Experiment, Claim]]:
    """The paper's claims in its own order, then our controls, each with the experiment that
    measures it."""
    pairs = [(owner, claim) for owner in map(experiment, _modules()) for claim in owner.claims]
    return sorted(pairs, key=lambda pair: (pair[1].control, _section(pair[1])))


def rows(group: RunGroup) -> list[Row]:
    """The table of the runs' experiment."""
    return experiment(group.experiment).table(group)


def draw(group: RunGroup, path: Path) -> Path:
    """Draw the figure of the runs' experiment.

    Raises:
        NoDataError: the runs do not hold what it shows.
    """
    return experiment(group.experiment).draw(group, path)


def _section(claim: Claim) -> int:
    return 0 if claim.control else SECTIONS.index(claim.where.partition(",")[0].partition(" ")[0])


def _known(name: object) -> bool:  # what a configuration holds may be anything
    return isinstance(name, str) and name in _modules()


def _modules() -> dict[str, str]:
    """The modules of this folder and of ``paper/``, by name: where each is imported from."""
    folders = import_module(__package__).__path__
    names = {
        module.name: f"{package}.{module.name}"
        for package, below in ((__package__, ""), (f"{__package__}.paper", "/paper"))
        for module in iter_modules([f"{folder}{below}" for folder in folders])
    }
    return dict(sorted(names.items()))
