"""Generate ``docs/RESULTS.md`` from kept runs.

The ledger holds ``DATASET/EXPERIMENT/RUN/results.json`` (compact, see ``reports.ledger.compact``)
and beside the runs of an experiment its table and figure; runs of no experiment lie under ``main``.
The page depends on these files alone: no clock, no path of the machine.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from learngene.utils.files import write_atomically
from reports.client_rows import write_clients_csv
from reports.experiments import registry, table
from reports.figures.run import accuracy_over_epochs
from reports.figures.style import Shown, reason_undrawn
from reports.ledger import compact
from reports.ledger.page import page
from reports.runs import GatherError, read_runs
from reports.schema import Results
from reports.variants import RunGroup, experiment_of, group_runs, is_repetition

MAIN_JOB = "main"  # the folder of runs that name no experiment
FIGURE = f"{table.NAME}.png"
OF_MAPS = "fig5_gradcam"  # the experiment whose figure is not drawn from kept runs


def add_runs(folders: Sequence[Path], ledger: Path) -> None:
    """Copy the small results of every run at or below the folders into the ledger. A repetition
    replaces the run that was kept, also where a younger setting gives it another folder's name.

    Nothing is written unless all of it fits: to what is kept, and into its size.

    Raises:
        GatherError: a folder holds no results, or its experiment's runs do not fit together.
        TooLargeError: a run's results are too large to be kept.
    """
    added: dict[Path, Results] = {}
    contents: dict[Path, bytes] = {}
    for folder, results in read_runs(folders):
        home = _home(ledger, results)
        try:
            contents[home] = compact.content(results)
        except compact.TooLargeError as error:
            raise compact.TooLargeError(f"{folder}: {error}") from error
        added[home] = results
    replaced: list[Path] = []
    for place in {home.parent for home in added}:
        new = [run for home, run in added.items() if home.parent == place]
        homes = sorted({file.parent for file in place.glob("*/results.json")} - added.keys())
        others = []
        for home, run in read_runs(homes) if homes else ():
            if any(is_repetition(run, each) for each in new):
                replaced.append(home)
            else:
                others.append(run)
        if place.name != MAIN_JOB:
            group_runs([*others, *new])
    for home, results in added.items():
        write_atomically(home / "results.json", contents[home])
        if home.parent.name == MAIN_JOB:
            write_clients_csv(results, home / "clients.csv")
        elif home.parent.name == OF_MAPS and not results.get("kept"):
            _draw(registry.draw, group_runs([results]), home.parent / FIGURE)
    for home in replaced:
        shutil.rmtree(home)


def redraw(
    ledger: Path, runs: Sequence[Results], experiments: Mapping[tuple[str, str], RunGroup]
) -> None:
    """Every figure, from what is kept, so that none is older than the rules that it is drawn by.

    Maps of Grad-CAM are too large to be kept: figure 5 is drawn from the run that is added.
    """
    for results in runs:
        figure = _home(ledger, results) / "accuracy_over_epochs.png"
        _draw(accuracy_over_epochs, results, figure)
    for (name, data), group in experiments.items():
        if name != OF_MAPS:
            _draw(registry.draw, group, ledger / data / name / FIGURE)


def _draw(draw: Callable[[Shown, Path], Path], shown: Shown, figure: Path) -> None:
    """Draw it; where the runs do not hold what it shows, there is none, and it is said why."""
    if reason := reason_undrawn(draw, shown, figure):
        print(f"{figure.parent}: the figure was not drawn: {reason}", file=sys.stderr)


def _home(ledger: Path, results: Results) -> Path:
    """Where a run is kept."""
    name = experiment_of(results) or MAIN_JOB
    return ledger / results["data"]["name"] / name / compact.name_of(results)


def load(ledger: Path) -> tuple[list[Results], dict[tuple[str, str], RunGroup]]:
    """The main job's runs, and every experiment's by (experiment, dataset).

    Raises:
        GatherError: there is no such folder, one of it holds no run, or runs do not fit together.
    """
    if not ledger.is_dir():
        raise GatherError(f"{ledger}: no such folder. Name the ledger (docs/results)")
    main, experiments = [], {}
    for place in sorted(p for p in ledger.glob("*/*") if p.is_dir()):
        if not any(place.glob("*/results.json")):
            raise GatherError(f"{place}: no run is kept there. Remove the folder")
        runs = [results for _, results in read_runs([place])]
        if place.name == MAIN_JOB:
            main += runs
        else:
            experiments[place.name, place.parent.name] = group_runs(runs)
    return main, experiments


def write_ledger(ledger: Path, out: Path) -> None:
    """Write figures, tables and the page: all follow the rules of today.

    Raises:
        GatherError: as ``load`` does; nothing is written then.
    """
    runs, experiments = load(ledger)
    redraw(ledger, runs, experiments)
    tables = {key: registry.rows(group) for key, group in experiments.items()}
    for (name, data), rows in tables.items():
        table.write_rows(rows, ledger / data / name)
    drawn = {path.relative_to(ledger).as_posix() for path in ledger.rglob("*.png")}
    base = os.path.relpath(ledger, out.parent)
    write_atomically(out, page(runs, experiments, tables, drawn, base).encode())
