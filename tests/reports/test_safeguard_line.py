"""The line that says how many clients fell back to scratch."""

from __future__ import annotations

from reports.summary import safeguard_line
from tests.reports.html.helpers import section_html
from tests.reports.test_console import shown


def test_the_safeguards_line(results):
    assert safeguard_line(results) is None and "Safeguard" not in shown(results)
    for number, client in enumerate(results["clients"]):
        client["methods"]["learngene"] |= {
            "safeguard_fell_back": int(number < 3),
            "safeguard_gene": 0.25 + 0.5 * (number >= 10),  # 20 clients: mean 0.5
            "safeguard_scratch": 0.125,
        }
    line = safeguard_line(results)
    assert line is not None and "3 of 20 clients fell back to scratch" in line
    assert "learngene has 50.0 %, scratch 12.5 %" in line
    assert "3 of 20 clients fell back" in shown(results, width=200)
    html = section_html(results, "clients").replace("\N{NO-BREAK SPACE}", " ")
    assert f"<p>{line}</p>" in html
