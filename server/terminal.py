"""The table that ends a run in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.footnotes import footnotes, interval
from server.wording import (
    ROUND_HEADINGS,
    Results,
    failures,
    left_out,
    many,
    method_rows,
    round_rows,
    safeguard_line,
    setting,
)


def summary_table(results: Results) -> Table:
    """One row a method; its gain, wins and p are against scratch, on the same clients. With more
    methods than these two, the learngene's lead over each of them stands in their place.

    Units: accuracy percent, gain percentage points, both with their 95 % interval;
    KB (1,000 bytes) received and seconds per client, means. At most 80 columns wide.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    # Text, not str: a name from the data must not be read as rich's markup.
    several = many(results)
    notes = [setting(results), interval(results), *footnotes(results)]
    table.caption = Text("\n".join(notes))
    table.add_column("method", overflow="fold", min_width=9)
    compared = (
        ("lead of\nlearngene", "ahead", "p") if several else ("gain over\nscratch", "wins", "p")
    )
    for heading in (
        "accuracy\n%",
        *compared,
        "received\nKB/client",
        "time\ns/client",
    ):
        # Folded, not cut: on a very narrow terminal a number breaks over two lines.
        table.add_column(heading, justify="right", overflow="fold")
    for row in method_rows(results):
        accuracy = row.accuracy.removesuffix(" %")
        found = (row.lead, row.ahead, row.p_holm) if several else (row.gain, row.wins, row.p)
        cells = (accuracy, *found, row.kb_down, row.seconds)
        table.add_row(Text(row.name), *cells)
    return table


def evolution_table(results: Results) -> Table:
    """One row a round: how the same clients fare as the collective evolves."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    table.title = "learngene, by the collective's evolution"
    for heading in ROUND_HEADINGS:
        table.add_column(heading, justify="right", overflow="fold")
    for row in round_rows(results):
        table.add_row(*row)
    return table


def print_summary(results: Results, report: Path | None, console: Console | None = None) -> None:
    """Prints the table, the clients that failed and why, and where the report lies."""
    console = console or Console()
    if results.get("rounds"):
        console.print(evolution_table(results))
    console.print(summary_table(results))
    if (line := safeguard_line(results)) is not None:
        console.print(Text(line))
    for name, reason in left_out(results).items():
        console.print(Text(f"{name} is left out: {reason}", style="red"))
    for who, reason in failures(results):
        console.print(Text(f"{who} failed: {reason}", style="red"))
    if report is not None:
        # Unwrapped: a path that is broken over two lines cannot be copied or clicked.
        console.print(Text(f"Report: {report}"), soft_wrap=True)
