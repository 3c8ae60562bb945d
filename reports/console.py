"""What the terminal shows: progress while a run goes on, then one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich.console
from rich import box
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from learngene.collective.trainer import Evolution
from learngene.data.dataset import World
from reports.schema import Results
from reports.summary import (
    ROUND_HEADINGS,
    failures,
    footnotes,
    has_opponents,
    interval_note,
    left_out,
    round_rows,
    safeguard_line,
    setting,
    summary_rows,
)
from server.factory import Product


class _Collective:
    """Progress of the collective: one line a task, a bar inside the task."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar = progress.add_task("collective, task 1", total=None)

    def step(self, done: int, steps: int, loss: float) -> None:
        self._progress.update(self._bar, completed=done, total=steps)

    def task(self, evolution: Evolution, reused: bool) -> None:
        done, stage = len(evolution.stages), evolution.stages[-1]
        light = "" if stage.light_accuracy is None else f", light path {stage.light_accuracy:.3f}"
        said = (
            f"{done} of {len(evolution.tasks)} tasks were done by an earlier run: not trained again"
            if reused
            else f"task {done}/{len(evolution.tasks)}: {stage.known_classes} classes known, "
            f"accuracy {stage.accuracy:.3f}{light}, {stage.seconds:.0f} s"
        )
        self._progress.console.print(f"  {said}", highlight=False)
        self._progress.update(
            self._bar, description=f"collective, task {done + 1}", completed=0, total=None
        )


class _Methods:
    """Progress of the factory halves: one bar, named after the method under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar: TaskID | None = None

    def step(self, name: str, done: int, steps: int) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task(name, total=steps)
        self._progress.update(self._bar, description=name, completed=done, total=steps)


class _Federated:
    """Progress of training among the clients: one bar, named after the method under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar: TaskID | None = None

    def round(self, name: str, done: int, rounds: int) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task(name, total=rounds)
        said = f"{name}, federated rounds"
        self._progress.update(self._bar, description=said, completed=done, total=rounds)


class _Clients:
    def __init__(self, progress: Progress, clients: int) -> None:
        self._progress = progress
        self._bar = progress.add_task("clients", total=clients)

    def reply(self, client: int, ok: bool) -> None:
        self._progress.advance(self._bar)


class Console:
    """The terminal of one run; quiet bars where it is no terminal."""

    def __init__(self) -> None:
        self._console = rich.console.Console()

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False, markup=False)

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[str], None]]:
        """A line that changes while something is under way, and then is gone."""
        with self._console.status(f"  {what}") as status:
            yield lambda text: status.update(f"  {text}")

    def world(self, world: World, leakage: Mapping[str, Any], seconds: float) -> None:
        images = len(world.train_labels) + len(world.test_labels)
        division = world.division
        self.note(
            f"world: {images:,} images {world.image_shape[1]}x{world.image_shape[2]}, classes "
            f"{len(division.base)} base, {len(division.open_world)} open-world, "
            f"{len(division.novel)} novel; {world.duplicates_dropped} duplicates dropped; leakage "
            f"check passed over {leakage['images_checked']:,} images, {seconds:.1f} s"
        )

    def problem(self, text: str) -> None:
        self._console.print(f"[bold red]{text}")

    def product(self, product: Product) -> None:
        card = product.gene.card
        extra = card.bytes / card.top_layers_bytes - 1
        self.note(
            f"learngene: layers {card.layers}, stem {card.stem}, {card.bytes / 1e6:.2f} MB "
            f"({extra:+.1%} over the top layers alone), sha256 {card.sha256[:12]}"
        )

    @contextmanager
    def _progress(self) -> Iterator[Progress]:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield progress

    @contextmanager
    def collective(self) -> Iterator[_Collective]:
        with self._progress() as progress:
            yield _Collective(progress)

    @contextmanager
    def methods(self) -> Iterator[_Methods]:
        with self._progress() as progress:
            yield _Methods(progress)

    @contextmanager
    def federated(self) -> Iterator[_Federated]:
        with self._progress() as progress:
            yield _Federated(progress)

    @contextmanager
    def clients(self, count: int) -> Iterator[_Clients]:
        with self._progress() as progress:
            yield _Clients(progress, count)

    def summary(self, written: tuple[Mapping[str, Any], Path]) -> None:
        results, report = written
        print_summary(results, report, self._console)


def announce(console: Console, config: Mapping[str, Any]) -> None:
    """The first line: what this run is."""
    console.note(
        f"learngene: data {config['data']['name']}, {config['num_clients']} clients, "
        f"{config['ways']}-way {config['shots']}-shot, seed {config['seed']}, "
        f"runtime {config['runtime']['name']}"
    )


def summary_table(results: Results) -> Table:
    """One row a method; its gain, wins and p are against scratch, on the same clients. With more
    methods than these two, the learngene's lead over each of them stands in their place.

    Units: accuracy percent, gain percentage points, both with their 95 % interval;
    KB (1,000 bytes) received and seconds per client, means. At most 80 columns wide.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    # Text, not str: a name from the data must not be read as rich's markup.
    notes = [setting(results), interval_note(results), *footnotes(results)]
    table.caption = Text("\n".join(notes))
    table.add_column("method", overflow="fold", min_width=9)
    difference = ("lead of\nlearngene", "ahead")
    if not has_opponents(results):
        difference = ("gain over\nscratch", "wins")
    for heading in ("accuracy\n%", *difference, "p", "received\nKB/client", "time\ns/client"):
        # Folded, not cut: on a very narrow terminal a number breaks over two lines.
        table.add_column(heading, justify="right", overflow="fold")
    for name, accuracy, *cells in summary_rows(results):
        table.add_row(Text(name), accuracy.removesuffix(" %"), *cells)
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
