"""``report.html``: the run's answer first, then everything that it rests on.

One file and no request; its one script (``report_script``) sorts the table of clients.
``python -m server.report RUN_DIR`` draws figures and report anew from a run's ``results.json``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from learngene.files import write_atomically
from server.captions import CAPTIONS, alt_text
from server.figures import draw_figures
from server.report_page import image, page, paragraph, section, table, text
from server.report_sections import SECTIONS
from server.results import read_results
from server.wording import (
    Results,
    failed,
    headline,
    left_out,
    many,
    method_rows,
    setting,
    terms,
)

REPORT = "report.html"
FIGURES = "figures"
MAIN_FIGURE = "accuracy_over_epochs"


def write_report(results: Results, run_dir: Path) -> Path:
    """Draws the figures into ``run_dir/figures`` and writes ``run_dir/report.html``.

    Args:
        results: as :func:`server.results.build_results` makes them.

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
    chapters = [
        section(anchor, title, *build(results, images)) for anchor, title, build in SECTIONS
    ]
    links = "".join(f'<a href="#{anchor}">{text(title)}</a>' for anchor, title, _ in SECTIONS)
    body = [_first_screen(results, images[MAIN_FIGURE], links), *chapters]
    title = text(f"Learngene: {setting(results)}")
    html = page(title, "\n".join(body))
    write_atomically(run_dir / REPORT, html.encode())
    return run_dir / REPORT


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
    conditions = terms(results)
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
                "over clients (Student's t); gains are paired by client; p is Wilcoxon's "
                "signed-rank test, two-sided"
                + (", with Holm's correction over the methods" if several else "")
                + ". 1 KB is 1,000 bytes."
                + (f" Factory training of {conditions}." if conditions else ""),
                "note",
            ),
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


def main(arguments: list[str]) -> int:
    """Redraws a run's figures and report; the exit code is 2 where there are no usable results."""
    if len(arguments) != 1:
        print("usage: python -m server.report RUN_DIR", file=sys.stderr)
        return 2
    path = Path(arguments[0]) / "results.json"
    try:
        results = read_results(path)
    except OSError as error:
        reason = f"{error.strerror}. Name the folder that a run wrote"
        print(f"RUN_DIR={arguments[0]}: cannot read {path}: {reason}.", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"RUN_DIR={arguments[0]}: {path} is not a run's results: {error}", file=sys.stderr)
        return 2
    print(write_report(results, path.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
