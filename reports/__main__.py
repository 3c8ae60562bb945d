"""Run everything that comes after a run: ``python -m reports COMMAND --help``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from learngene.errors import InputError
from learngene.utils.files import expand_user
from reports.runs import GatherError, OutputError, read_runs, writing

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What can be made of runs that have ended. A run is the folder that sim.py wrote, which "
    "holds results.json; of a multirun, name the folder above.",
)
# A shell gives ``~`` its meaning where a word begins with it, not behind ``--out=``.
HOME = re.compile(r"\A(--[\w-]+=)?(~.*)", re.DOTALL)
Runs = Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Runs, or folders of runs.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write.")]


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="One run.")]) -> None:
    """Draw one run's figures and report.html anew.

    All is read from its results.json.

    \b
    Example:
      python -m reports report outputs/2025-01-31/12-00-00
    """
    from reports.html.report import rewrite_report

    with writing(run):
        print(rewrite_report(run))


@app.command()
def compare(runs: Runs, out: Out) -> None:
    """Put runs of one experiment into one table and one figure.

    Runs that differ in their seeds alone are averaged; those with other
    settings stand beside each other, and beside the paper's numbers. Writes
    comparison.html, .md, .csv, .json and .png.

    \b
    Example:
      python sim.py -m shots=1,5,10,20 seed=0,1,2
      python -m reports compare multirun/DATE/TIME -o shots
    """
    from reports.experiments.table import NAME, write_comparison
    from reports.variants import group_runs

    group = group_runs([results for _, results in read_runs(runs)])
    with writing(out):
        figure, _ = write_comparison(group, out, out / f"{NAME}.png")
    if isinstance(figure, str):
        print(f"the figure was not drawn: {figure}", file=sys.stderr)
    print(out / f"{NAME}.html")


@app.command()
def frontier(runs: Runs, out: Out = Path("frontier")) -> None:
    """Draw accuracy against bytes received, and its Pareto front.

    Runs may be of several experiments, and differ in the learngene's
    layers, number format and methods. Writes frontier.png and frontier.csv.

    \b
    Example:
      python sim.py -m learngene.depth=4,7 learngene.precision=fp32,int8
      python -m reports frontier multirun/DATE/TIME -o frontier
    """
    from reports.experiments.frontier import write_frontier
    from reports.format import format_bytes, percent

    with writing(out):
        best = write_frontier(runs, out)
    print(out / "frontier.png")
    for p in best:
        print(f"{p.label}: {percent(p.accuracy, p.ci95)} for {format_bytes(p.bytes)}")


@app.command()
def bound(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Three runs or more.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Where to write; default: above the runs."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Fit the form of theorem 1 to runs that differ in shots.

    Writes bound.json and bound.png, and prints the constants with their intervals.

    \b
    Example:
      python sim.py -m experiment=bound shots=1,2,5,10,20,40 hydra.sweep.dir=multirun/bound
      python -m reports bound multirun/bound/*/
    """
    from reports.experiments.paper.bound import write_bound

    folder = out or Path(os.path.commonpath([run.resolve() for run in runs]))
    with writing(folder):
        print(write_bound(runs, folder, seed))
    print(f"\n{folder / 'bound.json'}\n{folder / 'bound.png'}")


@app.command()
def ledger(
    folder: Annotated[
        Path, typer.Argument(metavar="LEDGER", help="Folder of kept runs: docs/results.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The page: docs/RESULTS.md.")
    ],
    add: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN_DIR", help="Copy a run in first; may be repeated."),
    ] = None,
) -> None:
    """Generate docs/RESULTS.md, tables and figures from kept runs.

    \b
    Example:
      python -m reports ledger docs/results -o docs/RESULTS.md --add multirun/table3
    """
    from reports.ledger.ledger import add_runs, write_ledger

    if add:
        with writing(folder):
            add_runs(add, folder)
    with writing(out):
        write_ledger(folder, out)
    print(out)


@app.command()
def release(runs: Runs, out: Out = Path("release")) -> None:
    """Write learngenes to take away, in 8 bits a weight, each with its card.

    Runs of learngene.precision=int8; of several that differ in their seeds
    the first one's learngene, with the accuracy of all. Writes a folder for
    each setting with learngene.safetensors, learngene.json and README.md,
    and SHA256SUMS.

    \b
    Example:
      python sim.py learngene.precision=int8 hydra.run.dir=outputs/int8
      python -m reports release outputs/int8 -o release
    """
    from reports.ledger.release import release as write_release

    with writing(out):
        for path in write_release(runs, out):
            print(f"{path} ({path.stat().st_size:,} bytes)")


def _home(word: re.Match[str]) -> str:
    return f"{word[1] or ''}{expand_user(word[2])}"


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code, 2 where runs cannot be used."""
    try:
        app([HOME.sub(_home, word) for word in arguments], prog_name="python -m reports")
    except SystemExit as end:
        return int(end.code or 0)
    except (GatherError, OutputError, InputError) as error:
        print(f"reports {arguments[0]}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
