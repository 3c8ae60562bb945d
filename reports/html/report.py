"""Write ``report.html``: the run's answer first, then everything that it rests on.

One file and no request; its one script sorts the table of clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from learngene.utils.files import write_atomically
from reports import summary
from reports.collective import depth_label
from reports.experiments import registry
from reports.experiments import table as comparison
from reports.figures.captions import alt_text, caption
from reports.figures.run import draw_figures
from reports.figures.style import NoDataError
from reports.html import rows
from reports.html.page import Figure, render
from reports.results import read_results
from reports.runs import GatherError
from reports.schema import Results
from reports.traffic import statement
from reports.variants import RunGroup, experiment_of, group_runs

REPORT = "report.html"
FIGURES = "figures"


def write_report(
    results: Results,
    run_dir: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Path:
    """Draw the figures into ``run_dir/figures`` and write ``run_dir/report.html``.

    Args:
        results: as :func:`reports.results.build_results` makes them.
        progress: is told of each figure.

    Returns:
        the report's path.
    """
    run_dir = Path(run_dir)
    drawn, skipped = draw_figures(results, run_dir / FIGURES, progress)
    figures: dict[str, Figure | str] = dict(skipped)
    for name, path in drawn.items():
        figures[name] = Figure.read(path, alt_text(name, results), caption(name))
    context = None
    if experiment_of(results) is not None:
        group = group_runs([results])
        figures[comparison.NAME] = _write_comparison(group, run_dir)
        context = comparison.template_context(group, registry.rows(group))
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
        rows=rows,
        depth=depth_label([results]),
        statement=statement,
    )


def _write_comparison(group: RunGroup, run_dir: Path) -> Figure | str:
    """Write the figure as the paper drew it, and the table beside the paper's numbers; the figure,
    or the reason why there is none."""
    path = run_dir / FIGURES / f"{comparison.NAME}.png"
    try:
        registry.draw(group, path)
    except NoDataError as reason:
        path.unlink(missing_ok=True)  # it would show another run
        comparison.write(group, run_dir)
        return str(reason)
    comparison.write(group, run_dir, path)
    return Figure.read(path, comparison.alt(group), comparison.CAPTION)


def rewrite_report(run_dir: Path) -> Path:
    """Draw figures and report anew from ``run_dir/results.json``; returns the report's path.

    Raises:
        GatherError: the results cannot be read, or are compact ones of the ledger.
    """
    path = run_dir / "results.json"
    try:
        results = read_results(path)
    except OSError as error:
        raise GatherError(
            f"RUN_DIR={run_dir}: cannot read {error.filename}: {error.strerror}. Name the folder "
            "that a run wrote."
        ) from error
    except ValueError as error:
        raise GatherError(f"RUN_DIR={run_dir}: {path} is not a run's results: {error}") from error
    if results.get("kept"):
        raise GatherError(
            f"{path}: results of the ledger, which hold what tables need and no whole report. "
            "Compare them: python -m reports compare RUN_DIR -o DIR"
        )
    return write_report(results, run_dir)
