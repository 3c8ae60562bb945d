"""Write the table of an experiment as CSV, JSON, Markdown and HTML, with its figure."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
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
FIELDS = (  # of a row in CSV and JSON
    *("quantity", "unit", "paper", "paper_spread", "where"),
    *("ours", "ci95", "difference", "n", "arrived", "arrived_of", "note", "command"),
)
HEADINGS = ("quantity", "unit", "paper", "ours", "difference", "n", "note", "command")


def format_row(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of ``HEADINGS`` but for the command."""
    paper = row.paper and number(row.paper.value, row.paper.spread, unit=row.unit)
    difference = number(row.difference, sign=True, unit=row.unit)
    return (
        row.quantity,
        row.unit,
        paper or NONE,
        format_ours(row),
        difference,
        row.ours.n,
        note_of(row),
    )


def format_ours(row: Row) -> str:
    """What was measured, with its interval."""
    return number(row.ours.mean, row.ours.ci95, unit=row.unit)


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
    table = rows(group)
    texts: dict[str, Callable[[], str]] = {
        "csv": lambda: _csv(table),
        "json": lambda: _json(table),
        "md": lambda: f"# {title_of(group)}\n\n{markdown(table, (*notes(group), KEY))}",
        "html": lambda: _page(group, table, figure),
    }
    path = folder
    for ending in endings:
        path = folder / f"{NAME}.{ending}"
        write_atomically(path, texts[ending]().encode())
    return path


def write_comparison(group: RunGroup, folder: Path) -> Path:
    """``comparison.png`` and the table ``comparison.*`` of several runs; returns the page."""
    try:
        figure: Path | None = draw(group, folder / f"{NAME}.png")
    except NoDataError as reason:
        print(f"the figure was not drawn: {reason}", file=sys.stderr)
        figure = None
    return write(group, folder, figure)


def row_to_json(row: Row) -> dict[str, Any]:
    """A row as JSON has it: ten digits of a number, since the last ones are the processor's own
    and files that are kept must come out byte-equal on any machine."""
    paper, reached = row.paper, row.reached
    values = (
        *(row.quantity, row.unit),
        *((paper.value, paper.spread, paper.where) if paper else (None, None, None)),
        *(_digits(row.ours.mean), _digits(row.ours.ci95), _digits(row.difference), row.ours.n),
        *((reached.clients, reached.of) if reached else (None, None)),
        *(row.note, "\n".join(row.commands)),
    )
    return dict(zip(FIELDS, values, strict=True))


def _digits(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.10g}")


def markdown(table: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The rows as a Markdown table, ``notes`` and, since they are long, the commands below it: the
    column has their numbers."""
    shown, commands = _shown(table)
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(map(_cell, cells)) + " |" for cells in shown]
    lines += [line for note in notes for line in ("", note)]
    return "\n".join([*lines, "", *(f"    {command}" for command in commands)]) + "\n"


def _shown(table: Sequence[Row]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The rows as text, in the order of ``HEADINGS``; and the commands that their last column has
    the numbers of."""
    commands = list(dict.fromkeys(command for row in table for command in row.commands))
    numbers = {command: number for number, command in enumerate(commands, start=1)}
    width = len(str(len(commands)))
    return (
        [(*format_row(row), format_ranges([numbers[c] for c in row.commands])) for row in table],
        [f"{number:>{width}}  {command}" for command, number in numbers.items()],
    )


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
    group: RunGroup, table: Sequence[Row], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What the templates of reports/html show of the rows."""
    shown, commands = _shown(table)
    return {
        "title": title_of(group),
        "answers": answers(group.experiment, table),
        "headings": HEADINGS,
        "rows": shown,
        "commands": "\n".join(commands),
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
            f"The paper: {claim.words}. {row.quantity}: {format_ours(row)} {row.unit} here{note}, "
            f"{bound}{paper} there."
        )
    return sentences


def alt(group: RunGroup) -> str:
    """The figure in words: the rows that it is drawn from."""
    shown = "; ".join(f"{row.quantity} {format_ours(row)} {row.unit}" for row in rows(group))
    return f"Figure of the experiment {group.experiment}: {shown}."


def title_of(group: RunGroup) -> str:
    """What stands above the table."""
    return f"{group.experiment or 'no experiment'} on {group.data}"


def _csv(table: Sequence[Row]) -> str:
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row_to_json(row) for row in table)
    return written.getvalue()


def _json(table: Sequence[Row]) -> str:
    return json.dumps([row_to_json(row) for row in table], indent=1, ensure_ascii=False) + "\n"


def _page(group: RunGroup, table: Sequence[Row], figure: Path | None) -> str:
    figures = {NAME: Figure.read(figure, alt(group), CAPTION)} if figure else {}
    context = template_context(group, table, notes(group))
    return render("comparison.html.j2", figures=figures, comparison=context)


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
