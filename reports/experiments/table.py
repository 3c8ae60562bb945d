"""Write the table of an experiment as CSV, JSON, Markdown and HTML, with its figure."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from learngene.utils.files import write_atomically
from reports.experiments.base import Row
from reports.experiments.registry import draw, experiment, rows
from reports.figures.style import NoDataError
from reports.format import NONE, rounded
from reports.html.page import Figure, render
from reports.schema import Results
from reports.summary import footnotes
from reports.variants import RunGroup, Variant

NAME = "comparison"  # of the files, and of the figure beside them
ENDINGS = ("csv", "json", "md", "html")
HEADINGS = ("quantity", "unit", "paper", "ours", "difference", "n", "note", "command")


def format_row(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of ``HEADINGS`` but for the command."""
    paper = NONE
    if row.paper is not None:
        paper = number(row.paper.value, row.paper.spread, unit=row.unit)
    return (
        *(row.quantity, row.unit, paper, number(row.ours.mean, row.ours.ci95, unit=row.unit)),
        *(number(row.difference, sign=True, unit=row.unit), row.ours.n, note_of(row)),
    )


def note_of(row: Row) -> str:
    """The note, behind how many clients arrived where not every client does."""
    return "; ".join(filter(None, (str(row.reached) if row.reached else "", row.note)))


def number(
    value: float | None, spread: float | None = None, sign: bool = False, unit: str = ""
) -> str:
    """A number with its interval: ``58.9 ± 3.1``. Ones below 1 keep three digits, unless they are
    percent or points."""
    if value is None:
        return NONE
    coarse = unit in ("%", "points") or value == 0 or (spread or 0) >= 1
    digits = 1 if coarse or round(abs(value), 6) >= 1 else 3
    shown = rounded(value, digits, sign=sign)
    return shown if spread is None else f"{shown} ± {rounded(spread, digits)}"


def notes(group: RunGroup) -> list[str]:
    """On what terms the methods of the table were compared: the sentences under the table of each
    run, once; those that not all runs have say which have them."""
    runs_of: dict[str, list[str]] = {}
    for variant in group.variants:
        for run in variant.runs:
            for note in footnotes(run):
                runs_of.setdefault(note.removesuffix(".") + ".", []).append(_run_name(variant, run))
    everywhere = len(group.runs)
    return [
        note if len(runs) == everywhere else f"{'; '.join(runs)}: {note}"
        for note, runs in runs_of.items()
    ]


def _run_name(variant: Variant, run: Results) -> str:
    """A run by its variant and seed."""
    return ", ".join(filter(None, (variant.label, f"seed {run['run']['seed']}")))


def write(
    group: RunGroup, folder: Path, figure: Path | None = None, endings: Sequence[str] = ENDINGS
) -> Path:
    """``comparison.csv``, ``.json``, ``.md`` and ``.html`` in ``folder``; returns the last one."""
    found, title = rows(group), title_of(group)
    path = folder
    for ending in endings:
        path = folder / f"{NAME}.{ending}"
        write_atomically(path, _FILES[ending](group, found, title, figure).encode())
    return path


def write_comparison(group: RunGroup, folder: Path) -> Path:
    """``comparison.png`` and the table ``comparison.*`` of several runs; returns the page."""
    figure: Path | None = folder / f"{NAME}.png"
    try:
        draw(group, folder / f"{NAME}.png")
    except NoDataError as reason:
        print(f"the figure was not drawn: {reason}", file=sys.stderr)
        figure = None
    return write(group, folder, figure)


def row_to_json(row: Row) -> dict[str, Any]:
    """A row as JSON has it: ten digits of a number, since the last ones are the processor's own
    and files that are kept must come out byte-equal on any machine."""
    paper = row.paper
    return {
        "quantity": row.quantity,
        "unit": row.unit,
        "paper": None if paper is None else paper.value,
        "paper_spread": None if paper is None else paper.spread,
        "where": None if paper is None else paper.where,
        "ours": _digits(row.ours.mean),
        "ci95": _digits(row.ours.ci95),
        "difference": _digits(row.difference),
        "n": row.ours.n,
        "arrived": row.reached and row.reached.clients,
        "arrived_of": row.reached and row.reached.of,
        "note": row.note,
        "command": "\n".join(row.commands),
    }


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.10g}")


def markdown(found: Sequence[Row], said: Sequence[str] = ()) -> str:
    """The rows as a Markdown table, ``notes`` and, since they are long, the commands below it: the
    column has their numbers."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    numbers = numbered(found)
    lines += ["| " + " | ".join(map(_cell, shown)) + " |" for shown in _shown(found, numbers)]
    lines += [line for note in said for line in ("", note)]
    return "\n".join([*lines, "", *(f"    {line}" for line in _listed(numbers))]) + "\n"


def numbered(found: Sequence[Row]) -> dict[str, int]:
    """The commands of the rows, each with its number."""
    every = dict.fromkeys(command for row in found for command in row.commands)
    return {command: number for number, command in enumerate(every, start=1)}


def _listed(numbers: Mapping[str, int]) -> list[str]:
    return [f"{number:>{len(str(len(numbers)))}}  {command}" for command, number in numbers.items()]


def _shown(found: Sequence[Row], numbers: Mapping[str, int]) -> list[tuple[str, ...]]:
    """The rows as text, in the order of ``HEADINGS``."""
    return [
        (*format_row(row), format_ranges([numbers[command] for command in row.commands]))
        for row in found
    ]


def format_ranges(numbers: Sequence[int]) -> str:
    """Whole numbers in their order, runs of three and more as first to last: ``1, 3 to 5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def template_context(
    group: RunGroup, found: Sequence[Row], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What the templates of reports/html show of the rows."""
    numbers = numbered(found)
    return {
        "title": title_of(group),
        "answers": answers(group.experiment, found),
        "headings": HEADINGS,
        "rows": _shown(found, numbers),
        "commands": "\n".join(_listed(numbers)),
        "notes": notes,
        "key": KEY,
    }


def answers(name: str | None, found: Sequence[Row]) -> list[str]:
    """A sentence for each number of the paper's text that was measured: ours beside it."""
    said = []
    for row in found:
        claim = experiment(name).claim_of(row)
        if row.paper is None or claim is None or row.ours.mean is None:
            continue
        ours = number(row.ours.mean, row.ours.ci95, unit=row.unit)
        paper = number(row.paper.value, row.paper.spread, unit=row.unit)
        bound = "" if claim.bound == "about" else f"{claim.bound} "
        note = f" ({row.reached})" if row.censored else ""
        said.append(
            f"The paper: {claim.words}. {row.quantity}: {ours} {row.unit} here{note}, "
            f"{bound}{paper} there."
        )
    return said


def alt(group: RunGroup) -> str:
    """The figure in words: the rows that it is drawn from."""
    said = [
        f"{row.quantity} {number(row.ours.mean, row.ours.ci95, unit=row.unit)} {row.unit}"
        for row in rows(group)
    ]
    return f"Figure of the experiment {group.experiment}: {'; '.join(said)}."


def title_of(group: RunGroup) -> str:
    """What stands above the table."""
    return f"{group.experiment or 'no experiment'} on {group.data}"


def _csv(found: Sequence[Row]) -> str:
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, _FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row_to_json(row) for row in found)
    return written.getvalue()


_FIELDS = (
    *("quantity", "unit", "paper", "paper_spread", "where"),
    *("ours", "ci95", "difference", "n", "arrived", "arrived_of", "note", "command"),
)


def _page(group: RunGroup, found: Sequence[Row], title: str, figure: Path | None) -> str:
    figures = {NAME: Figure.read(figure, alt(group), CAPTION)} if figure else {}
    context = template_context(group, found, notes(group))
    return render("comparison.html.j2", figures=figures, comparison=context)


_FILES: dict[str, Callable[[RunGroup, Sequence[Row], str, Path | None], str]] = {
    "csv": lambda group, found, title, figure: _csv(found),
    "json": lambda group, found, title, figure: _json(found),
    "md": lambda group, found, title, figure: _text(group, found, title),
    "html": _page,
}


def _text(group: RunGroup, found: Sequence[Row], title: str) -> str:
    return f"# {title}\n\n{markdown(found, (*notes(group), KEY))}"


def _json(found: Sequence[Row]) -> str:
    return json.dumps([row_to_json(row) for row in found], indent=1, ensure_ascii=False) + "\n"


CAPTION = (
    "Bands and bars are 95 % intervals, over seeds where there are three or more, else over "
    "clients."
)
KEY = (
    "± is the 95 % Student-t interval, over seeds where there are three or more, else over "
    "clients; the paper's ± is as printed. Accuracies are those of the last epoch. The difference "
    "is ours less the paper's. p is Wilcoxon's signed-rank test of the lead, two-sided, over "
    "clients (over draws of classes in table 2), with Holm's correction over the methods of a "
    "setting."
)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
