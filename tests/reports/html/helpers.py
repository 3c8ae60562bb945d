"""A single section of the report, for tests of what it says."""

from __future__ import annotations

from reports.figures.run import FIGURES
from reports.html.page import Figure
from reports.html.report import render_report
from reports.schema import Results

PICTURE = Figure("data:,", "its alternative", "its caption")


def section_html(results: Results, anchor: str) -> str:
    """The section with the given anchor; every figure is :data:`PICTURE`."""
    html = render_report(results, dict.fromkeys(FIGURES, PICTURE))
    return html.split(f'<section id="{anchor}">')[1].split("</section>")[0]
