"""``docs/RESULTS.md``, generated from kept runs and never edited.

    python -m server.ledger docs/results -o docs/RESULTS.md [--add RUN_DIR...]

The folder holds ``DATASET/EXPERIMENT/RUN/results.json`` (slim, see ``server.slim``) and beside the
runs of an experiment its table and figure; runs of no experiment lie under ``main``. ``--add``
copies runs in. The page depends on these files alone: no clock, no path of the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from learngene.files import write_atomically
from server import comparison, figures_paper, slim
from server.arms import Gathered, GatherError, experiment_of, gather, read
from server.figures import accuracy_over_epochs
from server.ledger_page import page
from server.plotting import NoDataError
from server.results import write_clients_csv
from server.wording import Results

TABLES = ("csv", "json")  # of an experiment, written anew with the page
MAIN_JOB = "main"  # the folder of runs that name no experiment


def add(folders: Sequence[Path], ledger: Path) -> list[Path]:
    """Copy the small results of runs into the ledger and renew what lies beside them.

    Raises:
        GatherError: a folder holds no results, or its experiment's runs do not fit together.
        TooLargeError: a run's results are too large to be kept.
    """
    touched: dict[Path, list[Results]] = {}
    for folder, results in zip(folders, read(folders), strict=True):
        place = ledger / results["data"]["name"] / (experiment_of(results) or MAIN_JOB)
        home = place / slim.name_of(results)
        try:
            slim.write(results, home / "results.json")
        except slim.TooLargeError as error:
            raise slim.TooLargeError(f"{folder}: {error}") from error
        if place.name == MAIN_JOB:
            write_clients_csv(results, home / "clients.csv")
            accuracy_over_epochs(results, home)
        touched.setdefault(place, []).append(results)
    for place, added in touched.items():
        _renew(place, added)
    return list(touched)


def _renew(place: Path, added: Sequence[Results]) -> None:
    """The figure of an experiment, from all its kept runs.

    Maps of Grad-CAM are too large to be kept: figure 5 is drawn from the run that is added.
    """
    if place.name == MAIN_JOB:  # rows of the page, one a run, each with a figure of its own
        return
    gathered = gather(kept(place))
    source = gather(added[:1]) if gathered.experiment == "fig5_gradcam" else gathered
    figure = place / f"{comparison.NAME}.png"
    try:
        figures_paper.draw(source, figure)
    except NoDataError as reason:
        figure.unlink(missing_ok=True)
        print(f"{place}: the figure was not drawn: {reason}", file=sys.stderr)


def kept(place: Path) -> list[Results]:
    """The runs under a folder, by name."""
    return read(sorted(path.parent for path in place.glob("*/results.json")))


def load(ledger: Path) -> tuple[list[Results], dict[tuple[str, str], Gathered]]:
    """The main job's runs, and every experiment's by (experiment, world)."""
    main, experiments = [], {}
    for place in sorted(p for p in ledger.glob("*/*") if p.is_dir()):
        found = kept(place)
        if place.name == MAIN_JOB:
            main += found
        else:
            experiments[place.name, place.parent.name] = gather(found)
    return main, experiments


def main(arguments: list[str]) -> int:
    """Add runs and write the page; the exit code is 2 where something cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m server.ledger")
    parser.add_argument("ledger", type=Path, help="docs/results")
    parser.add_argument("-o", "--out", type=Path, required=True, help="docs/RESULTS.md")
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="RUN_DIR")
    asked = parser.parse_args(arguments)
    try:
        if asked.add:
            add(asked.add, asked.ledger)
        runs, experiments = load(asked.ledger)
    except (GatherError, slim.TooLargeError) as error:
        print(f"server.ledger: {error}", file=sys.stderr)
        return 2
    for (name, data), gathered in experiments.items():  # tables follow the rules of today
        comparison.write(gathered, asked.ledger / data / name, endings=TABLES)
    drawn = {path.relative_to(asked.ledger).as_posix() for path in asked.ledger.rglob("*.png")}
    base = os.path.relpath(asked.ledger, asked.out.parent)
    write_atomically(asked.out, page(runs, experiments, drawn, base).encode())
    print(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
