"""``report.html``: the run's answer first, then everything that it rests on.

One file and no request; its one script (``report_script``) sorts the table of clients.
``python -m reports report RUN_DIR`` draws figures and report anew from a run's ``results.json``.
"""

from __future__ import annotations

from pathlib import Path

from learngene.utils.files import write_atomically
from reports.experiments import registry
from reports.experiments import table as comparison
from reports.experiments.table import NAME
from reports.figures.captions import CAPTIONS, alt_text
from reports.figures.run import draw_figures
from reports.figures.style import NoDataError
from reports.html.page import image, page, paragraph, section, table, text
from reports.html.sections import SECTIONS
from reports.results import read_results
from reports.runs import GatherError
from reports.schema import Results
from reports.summary import failed, footnotes, headline, left_out, many, method_rows, over, setting
from reports.variants import RunGroup, experiment_of, group_runs

REPORT = "report.html"
FIGURES = "figures"
MAIN_FIGURE = "accuracy_over_epochs"


def write_report(results: Results, run_dir: Path) -> Path:
    """Draws the figures into ``run_dir/figures`` and writes ``run_dir/report.html``.

    Args:
        results: as :func:`reports.results.build_results` makes them.

    Returns:
        the report's path.
    """
    run_dir = Path(run_dir)
    drawn, skipped = draw_figures(results, run_dir / FIGURES)
    images = {
        name: image(path, alt_text(name, results), CAPTIONS[name]) for name, path in drawn.items()
    }
    # A figure that is not drawn leaves its reason in its place: no gap goes unexplained.
    images |= {
        name: paragraph(f"The figure {name}.png was not drawn: {reason}.", "note")
        for name, reason in skipped.items()
    }
    chapters = [(anchor, title, build(results, images)) for anchor, title, build in SECTIONS]
    main = [images[MAIN_FIGURE]]
    if experiment_of(results) is not None:
        # What was asked is the experiment: its answer and its figure come first.
        group = group_runs([results])
        shown, said, found = _experiment(group, run_dir)
        told = f"Beside the paper: {comparison.title_of(group)}"
        chapters.insert(0, ("paper", told, [*found, *main]))
        main = [*map(paragraph, said), shown]
    links = "".join(f'<a href="#{anchor}">{text(title)}</a>' for anchor, title, _ in chapters)
    body = [
        _first_screen(results, "\n".join(main), links),
        "<main>",
        *(section(anchor, title, *parts) for anchor, title, parts in chapters),
        "</main>",
    ]
    title = text(f"Learngene: {setting(results)}")
    html = page(title, "\n".join(body))
    write_atomically(run_dir / REPORT, html.encode())
    return run_dir / REPORT


def _experiment(group: RunGroup, run_dir: Path) -> tuple[str, list[str], list[str]]:
    """Of a run that belongs to an experiment: its figure, as the paper drew it; sentences on the
    paper's numbers; and what its section has, a table beside them. Figure and table are also
    written into the run's folder."""
    path = run_dir / FIGURES / f"{NAME}.png"
    try:
        drawn: Path | None = registry.draw(group, path)
        shown = image(path, comparison.alt(group), comparison.CAPTION)
    except NoDataError as reason:
        path.unlink(missing_ok=True)  # it would show another run
        drawn = None
        shown = paragraph(f"The figure {path.name} was not drawn: {reason}.", "note")
    comparison.write(group, run_dir, drawn)
    found = registry.rows(group)
    said = comparison.answers(group.experiment, found)
    return shown, said, [comparison.html(found), paragraph(comparison.KEY, "note")]


def _first_screen(results: Results, figure: str, links: str) -> str:
    """The answer in a sentence, the main figure, the summary table."""
    several, rows = many(results), []
    for row in method_rows(results):
        found = (row.lead, row.ahead, row.p_holm) if several else (row.gain, row.wins, row.p)
        rows.append((row.name, row.accuracy, *found, row.kb_down, row.seconds))
    headings = (
        *("method", "accuracy"),
        *(
            ("lead of the learngene, points", "learngene better", "p")
            if several
            else ("gain over scratch, points", "better than scratch", "p")
        ),
        *("received, KB per client", "time, s per client"),
    )
    return "\n".join(
        [
            "<header>",
            paragraph(setting(results), "setting"),
            f"<h1>{text(headline(results))}</h1>",
            *_alerts(results),
            figure,
            table(headings, rows, numbers=range(1, 7)),
            paragraph(
                "Accuracy is that of the last epoch, never the best one. ± is the 95 % interval "
                f"over {over(results)} (Student's t); gains are paired by these; p is Wilcoxon's "
                "signed-rank test, two-sided"
                + (", with Holm's correction over the methods" if several else "")
                + ". 1 KB is 1,000 bytes.",
                "note",
            ),
            *(paragraph(each.removesuffix(".") + ".", "note") for each in footnotes(results)),
            f'<nav aria-label="Contents">{links}</nav>',
            "</header>",
        ]
    )


def _alerts(results: Results) -> list[str]:
    """What takes from the answer's worth must stand beside it."""
    alerts, lost = [], failed(results)
    if lost:
        names = ", ".join(str(client["id"]) for client in lost)
        alerts.append(
            f"Failed and left out of every mean: {len(lost)} of {len(results['clients'])} clients "
            f"({names}). The reasons are under Clients."
        )
    for name, reason in left_out(results).items():
        alerts.append(f"The method {name} is left out: {reason}")
    if not (results["data"].get("leakage") or {"passed": True})["passed"]:
        alerts.append("The leakage check failed: do not trust these numbers. See under Data.")
    return [paragraph(alert, "alert") for alert in alerts]


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
