"""``docs/RESULTS.md``, generated from kept runs and never edited.

    python -m reports.ledger.ledger docs/results -o docs/RESULTS.md [--add RUN_DIR...]

The folder holds ``DATASET/EXPERIMENT/RUN/results.json`` (slim, see ``reports.ledger.compact``) and beside the
runs of an experiment its table and figure; runs of no experiment lie under ``main``. ``--add``
copies runs in. The page depends on these files alone: no clock, no path of the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from learngene.utils.files import write_atomically
from reports.client_rows import write_clients_csv
from reports.experiments import drawing, table
from reports.figures.run import accuracy_over_epochs
from reports.figures.style import NoDataError
from reports.ledger import compact
from reports.ledger.page import page
from reports.runs import OutputError, writing
from reports.schema import Results
from reports.variants import Gathered, GatherError, experiment_of, gather, read, read_runs

TABLES = ("csv", "json")  # of an experiment, written anew with the page
MAIN_JOB = "main"  # the folder of runs that name no experiment
OF_MAPS = "fig5_gradcam"  # the experiment whose figure is not drawn from kept runs


def add(folders: Sequence[Path], ledger: Path) -> None:
    """Copy the small results of every run at or below the folders into the ledger.

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
    for place in {home.parent for home in added}:
        if place.name != MAIN_JOB:
            kept = [run for home in _homes(place) if home not in added for run in read([home])]
            gather([*kept, *(run for home, run in added.items() if home.parent == place)])
    for home, results in added.items():
        write_atomically(home / "results.json", contents[home])
        if home.parent.name == MAIN_JOB:
            write_clients_csv(results, home / "clients.csv")
        elif home.parent.name == OF_MAPS and not results.get("kept"):
            draw_experiment(home.parent, gather([results]))


def redraw(
    ledger: Path, runs: Sequence[Results], experiments: Mapping[tuple[str, str], Gathered]
) -> None:
    """Every figure, from what is kept, so that none is older than the rules that it is drawn by.

    Maps of Grad-CAM are too large to be kept: figure 5 is drawn from the run that is added.
    """
    for results in runs:
        home = _home(ledger, results)
        _draw(home / "accuracy_over_epochs.png", partial(accuracy_over_epochs, results, home))
    for (name, data), gathered in experiments.items():
        if name != OF_MAPS:
            draw_experiment(ledger / data / name, gathered)


def draw_experiment(place: Path, gathered: Gathered) -> None:
    """The figure of an experiment."""
    figure = place / f"{table.NAME}.png"
    _draw(figure, partial(drawing.draw, gathered, figure))


def _draw(figure: Path, draw: Callable[[], Path]) -> None:
    """Draw it; where the runs do not hold what it shows, there is none, and it is said why."""
    try:
        draw()
    except NoDataError as reason:
        figure.unlink(missing_ok=True)
        print(f"{figure.parent}: the figure was not drawn: {reason}", file=sys.stderr)


def _home(ledger: Path, results: Results) -> Path:
    """Where a run is kept."""
    name = experiment_of(results) or MAIN_JOB
    return ledger / results["data"]["name"] / name / compact.name_of(results)


def _homes(place: Path) -> list[Path]:
    """The folders of the runs under a folder, by name."""
    return sorted(path.parent for path in place.glob("*/results.json"))


def load(ledger: Path) -> tuple[list[Results], dict[tuple[str, str], Gathered]]:
    """The main job's runs, and every experiment's by (experiment, world).

    Raises:
        GatherError: it is no ledger, a folder of it holds no run, or runs do not fit together.
    """
    if not any(ledger.glob("*/*/*/results.json")):
        raise GatherError(
            f"{ledger}: no run is kept there as DATASET/EXPERIMENT/RUN/results.json. Name the "
            "ledger (docs/results), or runs to --add"
        )
    main, experiments = [], {}
    for place in sorted(p for p in ledger.glob("*/*") if p.is_dir()):
        if not _homes(place):
            raise GatherError(f"{place}: no run is kept there. Remove the folder")
        found = read(_homes(place))
        if place.name == MAIN_JOB:
            main += found
        else:
            experiments[place.name, place.parent.name] = gather(found)
    return main, experiments


def main(arguments: list[str]) -> int:
    """Add runs and write the page; the exit code is 2 where something cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m reports.ledger.ledger")
    parser.add_argument("ledger", type=Path, help="docs/results")
    parser.add_argument("-o", "--out", type=Path, required=True, help="docs/RESULTS.md")
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="RUN_DIR")
    asked = parser.parse_args(arguments)
    try:
        if asked.add:
            with writing(asked.ledger):
                add(asked.add, asked.ledger)
        runs, experiments = load(asked.ledger)
        with writing(asked.out):
            _write(asked.ledger, asked.out, runs, experiments)
    except (GatherError, OutputError, compact.TooLargeError) as error:
        print(f"reports.ledger.ledger: {error}", file=sys.stderr)
        return 2
    print(asked.out)
    return 0


def _write(
    ledger: Path,
    out: Path,
    runs: Sequence[Results],
    experiments: Mapping[tuple[str, str], Gathered],
) -> None:
    """Figures, tables and the page: all follow the rules of today."""
    redraw(ledger, runs, experiments)
    for (name, data), gathered in experiments.items():
        table.write(gathered, ledger / data / name, endings=TABLES)
    drawn = {path.relative_to(ledger).as_posix() for path in ledger.rglob("*.png")}
    base = os.path.relpath(ledger, out.parent)
    write_atomically(out, page(runs, experiments, drawn, base).encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
