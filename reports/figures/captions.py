"""A figure's caption and its text alternative, from the templates in ``words``."""

from __future__ import annotations

from reports.collective import depth_label, layer_names
from reports.figures import pareto
from reports.figures.run import mean_curve
from reports.schema import Results
from reports.summary import MOST_LINES, answered, method_names, method_rows
from reports.text import sentence


def caption(name: str, results: Results) -> str:
    """How to read the figure."""
    return _say(name, "caption", results)


def alt_text(name: str, results: Results) -> str:
    """What the figure shows, in words and numbers, for those who do not see it.

    Only for figures that were drawn: the others' data is absent.
    """
    return _say(name, "alt", results)


def _say(name: str, macro: str, results: Results) -> str:
    clients = answered(results)
    return sentence(
        f"figures/words/{name}.j2",
        macro,
        results=results,
        clients=clients,
        a_line_each=len(clients) <= MOST_LINES,
        methods=method_names(results),
        method_rows=method_rows(results),
        layers=layer_names(results),
        depth=depth_label([results]),
        mean_curve=mean_curve,
        pareto=pareto,
    )
