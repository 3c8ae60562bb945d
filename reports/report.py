"""Draw a run's report anew, or gather several runs of one experiment.

``python -m reports.report RUN_DIR`` draws figures and report anew from a run's ``results.json``;
``python -m reports.report RUNS... -o DIR`` gathers several runs of one experiment: its figure with
bands over seeds, and its table beside the paper's numbers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.experiments import drawing
from reports.experiments import table as comparison
from reports.experiments.table import NAME
from reports.figures.style import NoDataError
from reports.html.report import write_report
from reports.results import read_results
from reports.runs import OutputError, writing
from reports.variants import Gathered, GatherError, gather, read


def write_gathered(gathered: Gathered, folder: Path) -> Path:
    """``comparison.png`` and the table ``comparison.*`` of several runs; returns the page."""
    try:
        figure: Path | None = drawing.draw(gathered, folder / f"{NAME}.png")
    except NoDataError as reason:
        print(f"the figure was not drawn: {reason}", file=sys.stderr)
        figure = None
    return comparison.write(gathered, folder, figure)


def main(arguments: list[str]) -> int:
    """Redraws a run's report, or gathers several; the exit code is 2 without usable results."""
    parser = argparse.ArgumentParser(prog="python -m reports.report")
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN_DIR")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="gather the runs into DIR")
    asked = parser.parse_args(arguments)
    if not asked.runs:
        parser.print_usage(sys.stderr)
        return 2
    if asked.out is None and len(asked.runs) > 1:
        print("several runs are gathered into a folder: add -o DIR", file=sys.stderr)
        return 2
    try:
        if asked.out is not None:
            gathered = gather(read(asked.runs))
            with writing(asked.out):
                print(write_gathered(gathered, asked.out))
        else:
            path = asked.runs[0] / "results.json"
            results = read_results(path)
            if results.get("kept"):
                raise GatherError(
                    f"{path}: results of the ledger, which hold what tables need and no whole "
                    "report. Gather them: add -o DIR"
                )
            print(write_report(results, path.parent))
    except OSError as error:
        reason = f"{error.strerror}. Name the folder that a run wrote"
        print(f"RUN_DIR={asked.runs[0]}: cannot read {error.filename}: {reason}.", file=sys.stderr)
        return 2
    except (GatherError, OutputError) as error:
        print(f"reports.report: {error}", file=sys.stderr)
        return 2
    except ValueError as error:
        where = asked.runs[0] / "results.json"
        print(f"RUN_DIR={asked.runs[0]}: {where} is not a run's results: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
