"""Write ``report.html``: the run's answer first, then everything that it rests on.

One file and no request; its one script sorts the table of clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from learngene.utils.files import write_atomically
from reports import summary
from reports.collective import depth_label
from reports.experiments import table as comparison
from reports.figures.captions import alt_text, caption
from reports.figures.run import draw_figures, mean_curve
from reports.html.page import Figure, render
from reports.runs import GatherError, read_runs
from reports.schema import Results
from reports.traffic import statement
from reports.variants import command_of, experiment_of, flatten, group_runs, without_folder

REPORT = "report.html"
FIGURES = "figures"


def write_report(
    results: Results,
    run_dir: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Path:
    """Draw the figures into ``run_dir/figures``, of each of which ``progress`` is told, and write
    ``run_dir/report.html``; returns its path."""
    folder = run_dir / FIGURES
    figures: dict[str, Figure | str] = {}
    for name, reason in draw_figures(results, folder, progress).items():
        figures[name] = reason or Figure.read(
            folder / f"{name}.png", alt_text(name, results), caption(name, results)
        )
    context = None
    if experiment_of(results) is not None:
        group = group_runs([results])
        figures[comparison.NAME], table = comparison.write_comparison(
            group, run_dir, folder / f"{comparison.NAME}.png"
        )
        context = comparison.template_context(group, table)
    write_atomically(run_dir / REPORT, render_report(results, figures, context).encode())
    return run_dir / REPORT


def render_report(
    results: Results,
    figures: Mapping[str, Figure | str],
    comparison: Mapping[str, object] | None = None,
) -> str:
    """The report as HTML.

    Args:
        figures: by name; a text is the reason why there is no such figure.
        comparison: of a run of an experiment, as ``table.template_context`` makes it.
    """
    return render(
        "report.html.j2",
        results=results,
        figures=figures,
        comparison=comparison,
        summary=summary,
        command=command_of(results),
        settings=[(n, without_folder(v)) for n, v in flatten(results["run"]["config"])],
        mean_curve=mean_curve,
        depth=depth_label([results]),
        statement=statement,
    )


def rewrite_report(run_dir: Path) -> Path:
    """Draw figures and report anew from ``run_dir/results.json``; returns the report's path.

    Raises:
        GatherError: the results cannot be read, are of several runs, or compact ones of the ledger.
    """
    (folder, results), *others = read_runs([run_dir])
    if others:
        raise GatherError(f"{run_dir}: holds {1 + len(others)} runs. Name the folder of one")
    if results.get("kept"):
        raise GatherError(
            f"{folder}: results of the ledger, which hold what tables need and no whole report. "
            "Compare them: python -m reports compare RUN_DIR -o DIR"
        )
    return write_report(results, folder)
