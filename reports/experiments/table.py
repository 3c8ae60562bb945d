"""Write the table of an experiment as CSV, JSON, Markdown and HTML, with its figure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from learngene.utils.files import write_atomically, write_csv
from reports.experiments.base import Row
from reports.experiments.registry import draw, experiment, rows
from reports.figures.style import reason_undrawn
from reports.form import common_form
from reports.format import NONE, format_number
from reports.html.page import Figure, render
from reports.summary import footnotes, left_out
from reports.units import Measured
from reports.variants import RunGroup

NAME = "comparison"  # of the files, and of the figure beside them
FIELDS = (  # of a row in CSV and JSON
    *("quantity", "unit", "paper", "paper_spread", "where"),
    *("ours", "ci95", "ci95_classes", "difference", "n", "arrived", "arrived_of"),
    *("note", "command"),
)
HEADINGS = ("quantity", "unit", "paper", "ours", "difference", "n", "note", "command")


def format_row(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of ``HEADINGS`` but for the command; the note stands behind how
    many clients arrived where not every client does."""
    paper = row.paper and number(row.paper.value, row.paper.spread, unit=row.unit)
    difference = number(row.difference, sign=True, unit=row.unit)
    ours = format_measured(row.ours, row.unit)
    note = "; ".join(filter(None, (str(row.reached or ""), row.note)))
    return row.quantity, row.unit, paper or NONE, ours, difference, row.ours.n, note


def ours_in_units(row: Row) -> str:
    """What was measured of a row, with its intervals and, where it has one, its unit."""
    return f"{format_measured(row.ours, row.unit)} {row.unit}".rstrip()


def format_measured(ours: Measured, unit: str) -> str:
    """A mean with its interval; of a paired difference also with that for new classes."""
    return number(ours.mean, ours.ci95, unit=unit, new_classes=ours.ci95_classes)


def number(
    value: float | None,
    spread: float | None = None,
    sign: bool = False,
    unit: str = "",
    new_classes: float | None = None,
) -> str:
    """A number with its intervals: ``58.9 ± 3.1``, ``17.4 ± 1.8; ± 3.6``. Ones below 1 keep three
    digits, unless they are percent or points."""
    if value is None:
        return NONE
    coarse = unit in ("%", "points") or value == 0 or (spread or 0) >= 1
    digits = 1 if coarse or round(abs(value), 6) >= 1 else 3
    shown = format_number(value, digits, sign=sign)
    spreads = [f"± {format_number(s, digits)}" for s in (spread, new_classes) if s is not None]
    return f"{shown} {'; '.join(spreads)}".rstrip()


def notes(group: RunGroup) -> list[str]:
    """On what terms the methods of the table were compared: the sentences under the table of each
    run, once; those that not all runs have say which have them."""
    runs_of: dict[str, list[str]] = {}
    for variant in group.variants:
        for run in variant.runs:
            name = ", ".join(filter(None, (variant.label, f"seed {run['run']['seed']}")))
            absent = (f"{n}: left out, {reason}" for n, reason in left_out(run).items())
            for note in (*footnotes(run), *absent):
                runs_of.setdefault(note.removesuffix(".") + ".", []).append(name)
    everywhere = len(group.runs)
    form = common_form(group.runs)
    return [
        *([f"Every individual: {form}."] if form else []),
        *(
            note if len(runs) == everywhere else f"{'; '.join(runs)}: {note}"
            for note, runs in runs_of.items()
        ),
    ]


def write_rows(table: Sequence[Row], folder: Path) -> None:
    """``comparison.csv`` and ``.json`` in ``folder``."""
    values = [row_to_json(row) for row in table]
    write_csv(folder / f"{NAME}.csv", [FIELDS, *(row.values() for row in values)])
    text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / f"{NAME}.json", text.encode())


def write(group: RunGroup, table: Sequence[Row], folder: Path, figure: Figure | str) -> None:
    """``comparison.csv``, ``.json``, ``.md`` and ``.html`` of the group's rows in ``folder``."""
    write_rows(table, folder)
    text = f"# {title_of(group)}\n\n{overview(group)}{markdown(table, (*notes(group), KEY))}"
    write_atomically(folder / f"{NAME}.md", text.encode())
    figures = {NAME: figure} if isinstance(figure, Figure) else {}
    context = template_context(group, table, notes(group))
    page = render("comparison.html.j2", figures=figures, comparison=context)
    write_atomically(folder / f"{NAME}.html", page.encode())


def write_comparison(group: RunGroup, folder: Path, path: Path) -> tuple[Figure | str, list[Row]]:
    """Write the experiment's figure to ``path`` and the table ``comparison.*`` into ``folder``;
    returns the figure, or the reason why there is none, and the table."""
    table = rows(group)
    figure = reason_undrawn(draw, group, path) or Figure.read(
        path, alt(group, table), caption(group)
    )
    write(group, table, folder, figure)
    return figure, table


def row_to_json(row: Row) -> dict[str, Any]:
    """A row as JSON has it: ten digits of a number, since the last ones are the processor's own
    and files that are kept must come out byte-equal on any machine."""
    paper, reached = row.paper, row.reached
    values = (
        *(row.quantity, row.unit),
        *((paper.value, paper.spread, paper.where) if paper else (None, None, None)),
        *map(_digits, (row.ours.mean, row.ours.ci95, row.ours.ci95_classes, row.difference)),
        row.ours.n,
        *((reached.clients, reached.of) if reached else (None, None)),
        *(row.note, "\n".join(row.commands)),
    )
    return dict(zip(FIELDS, values, strict=True))


def overview(group: RunGroup) -> str:
    """The experiment's own table in Markdown, with an empty line below; empty where it has none."""
    headings, *cells = experiment(group.experiment).overview(group) or [()]
    return markdown_table(headings, cells) + "\n" if headings else ""


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.10g}")


def markdown(table: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The rows as a Markdown table, ``notes`` and, since they are long, the commands below it: the
    column has their numbers."""
    cells, commands = _shown(table)
    below = [line for note in notes for line in ("", note)]
    return markdown_table(HEADINGS, cells) + "\n".join([*below, "", _block(commands)]) + "\n"


def with_commands(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose last column, of commands, has numbers, with the commands below."""
    commands = _numbered(dict.fromkeys(row[-1] for row in rows))
    cells = [(*row[:-1], str(commands[row[-1]])) for row in rows]
    return f"{markdown_table(headings, cells)}\n{_block(commands)}\n"


def _numbered(commands: Iterable[str]) -> dict[str, int]:
    return {command: number for number, command in enumerate(commands, start=1)}


def _block(commands: Mapping[str, int]) -> str:
    """Numbered commands as a block of code in Markdown."""
    return textwrap.indent(_listed(commands), "    ")


def _listed(commands: Mapping[str, int]) -> str:
    """Numbered commands, a line each."""
    width = len(str(len(commands)))
    return "\n".join(f"{number:>{width}}  {command}" for command, number in commands.items())


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, with the line end of its last row."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells), ""])


def _shown(table: Sequence[Row]) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    """The rows as text, in the order of ``HEADINGS``; and the commands that their last column has
    the numbers of."""
    numbers = _numbered(dict.fromkeys(command for row in table for command in row.commands))
    cells = [(*format_row(row), format_ranges([numbers[c] for c in row.commands])) for row in table]
    return cells, numbers


def format_ranges(numbers: Sequence[int]) -> str:
    """Whole numbers in their order, runs of three and more as first to last: ``1, 3 to 5``."""
    ordered = np.sort(numbers)
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1)
    return ", ".join(
        f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def template_context(
    group: RunGroup, table: Sequence[Row], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What the templates of reports/html show of the rows."""
    cells, commands = _shown(table)
    return {
        "title": title_of(group),
        "overview": experiment(group.experiment).overview(group),
        "answers": answers(group.experiment, table),
        "headings": HEADINGS,
        "rows": cells,
        "commands": _listed(commands),
        "notes": notes,
        "key": KEY,
    }


def answers(name: str | None, table: Sequence[Row]) -> list[str]:
    """A sentence for each number of the paper's text that was measured: ours beside it."""
    sentences = []
    for row in table:
        claim = experiment(name).claim_of(row)
        if row.paper is None or claim is None or row.ours.mean is None:
            continue
        paper = number(row.paper.value, row.paper.spread, unit=row.unit)
        bound = "" if claim.bound == "about" else f"{claim.bound} "
        note = f" ({row.reached})" if row.censored else ""
        sentences.append(
            f"The paper: {claim.words}. {row.quantity}: {ours_in_units(row)} here{note}, "
            f"{bound}{paper} there."
        )
    return sentences


def alt(group: RunGroup, table: Sequence[Row]) -> str:
    """The figure in words: the rows that it is drawn from."""
    shown = "; ".join(f"{row.quantity} {ours_in_units(row)}" for row in table)
    return f"Figure of the experiment {group.experiment}: {shown}."


def title_of(group: RunGroup) -> str:
    """What stands above the table."""
    return f"{group.experiment or 'no experiment'} on {group.data}"


def caption(group: RunGroup) -> str:
    """What stands below the experiment's figure: by itself what its bands and bars are."""
    if (own := experiment(group.experiment).caption) is not None:
        return own
    over = f"over seeds where there are three or more, else over {group.variants[0].unit}s"
    return f"Bands and bars are 95 % intervals, {over}."


KEY = (
    "± is the 95 % Student-t interval, over seeds where there are three or more, else over "
    "clients, which share one division of the classes and its images: it speaks for further "
    "clients, not for other classes. A second ±, of paired differences, does: it is of a mixed "
    "model of the clients with random effects of their classes (`reports/statistics.py`, "
    "`class_interval`). The paper's ± is as printed. Accuracies are those of the last "
    "epoch. The difference is ours less the paper's. p is Wilcoxon's signed-rank test of the lead, "
    "two-sided, over clients (over draws of classes in table 2), with Holm's correction over the "
    "methods of a setting."
)
