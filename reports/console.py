"""What the terminal shows: progress while a run goes on, then one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from rich.status import Status
from rich.table import Table
from rich.text import Text

from protocol.callbacks import RunCallback
from reports.schema import Results
from reports.summary import (
    ROUND_HEADINGS,
    failures,
    footnotes,
    has_opponents,
    interval_note,
    interval_scope,
    left_out,
    round_rows,
    safeguard_line,
    setting,
    summary_rows,
)

if TYPE_CHECKING:  # they bring torch, seconds before the first line
    from learngene.collective.trainer import CollectiveTrainer
    from learngene.data.dataset import ImageDataset
    from server.factory import FactoryResult


class Console(RunCallback):
    """The terminal of one run; quiet bars where it is no terminal."""

    def __init__(self) -> None:
        self._console = rich.console.Console()
        self._status: Status | None = None
        self._progress: Progress | None = None
        self._bar: TaskID | None = None

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A line that changes while something is under way, and then is gone."""
        with self._console.status(f"  {what}") as self._status:
            yield
        self._status = None

    @contextmanager
    def bar(self, description: str | None = None) -> Iterator[None]:
        """One bar for what is under way; without a description it comes with the first step."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as self._progress:
            self._bar = None
            if description is not None:
                self._bar = self._progress.add_task(description, total=None)
            yield
        self._progress = None

    def _show(self, description: str, done: int, total: int | None) -> None:
        if self._progress is None:
            return
        if self._bar is None:
            self._bar = self._progress.add_task(description, total=total)
        self._progress.update(self._bar, description=description, completed=done, total=total)

    def on_note(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False, markup=False)

    def on_progress(self, text: str) -> None:
        if self._status is not None:
            self._status.update(f"  {text}")

    def on_step(self, done: int, steps: int, loss: float) -> None:
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, completed=done, total=steps)

    def on_task_end(self, trainer: CollectiveTrainer, restored: bool) -> None:
        done, tasks, stage = len(trainer.stages), len(trainer.tasks), trainer.stages[-1]
        light = "" if stage.light_accuracy is None else f", light path {stage.light_accuracy:.3f}"
        self.on_note(
            f"{done} of {tasks} tasks were done by an earlier run: not trained again"
            if restored
            else f"task {done}/{tasks}: {stage.known_classes} classes known, "
            f"accuracy {stage.accuracy:.3f}{light}, {stage.seconds:.0f} s"
        )
        self._show(f"collective, task {done + 1}", 0, None)

    def on_cycle_end(self, record: Mapping[str, Any], restored: bool) -> None:
        self.on_note(cycle_line(record, restored))

    def on_method_step(self, method: str, done: int, steps: int) -> None:
        self._show(method, done, steps)

    def on_round_end(self, method: str, done: int, rounds: int) -> None:
        self._show(f"{method}, federated rounds", done, rounds)

    def on_clients_begin(self, due: int) -> None:
        self._show("clients", 0, due)

    def on_reply(self, client: int, ok: bool) -> None:
        if self._progress is not None and self._bar is not None:
            self._progress.advance(self._bar)

    def dataset(self, dataset: ImageDataset, leakage: Mapping[str, Any], seconds: float) -> None:
        images = len(dataset.train_labels) + len(dataset.test_labels)
        split = dataset.class_split
        self.on_note(
            f"dataset: {images:,} images {dataset.image_shape[1]}x{dataset.image_shape[2]}, "
            f"classes {len(split.base)} base, {len(split.open_world)} open-world, "
            f"{len(split.novel)} novel; {dataset.duplicates_dropped} duplicates dropped; "
            f"leakage check passed over {leakage['images_checked']:,} images, {seconds:.1f} s"
        )

    def problem(self, text: str) -> None:
        self._console.print(f"[bold red]{text}")

    def result(self, result: FactoryResult) -> None:
        card = result.gene.card
        extra = card.bytes / card.top_layers_bytes - 1
        self.on_note(
            f"learngene: layers {card.layers}, stem {card.stem}, {card.bytes / 1e6:.2f} MB "
            f"({extra:+.1%} over the top layers alone), sha256 {card.sha256[:12]}"
        )

    def summary(self, written: tuple[Mapping[str, Any], Path]) -> None:
        results, report = written
        print_summary(results, report, self._console)


def cycle_line(record: Mapping[str, Any], restored: bool) -> str:
    """A cycle in one line for the terminal."""
    return (
        f"open-world cycle {record['cycle']}{' (done by an earlier run)' if restored else ''}: "
        f"{record['called_unknown']} of {record['images']} images called unknown, "
        f"{record['labels_spent']} labels spent ({record['known_sent']} on known classes), "
        f"{len(record['added'])} classes taken in, {record['known_classes']} known; accuracy "
        f"{record['accuracy']:.3f}"
    )


def announce(console: Console, config: Mapping[str, Any]) -> None:
    """The first line: what this run is."""
    console.on_note(
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
    notes = [setting(results), interval_note(results), interval_scope(results), *footnotes(results)]
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


def print_summary(
    results: Results, report: Path | None, console: rich.console.Console | None = None
) -> None:
    """Prints the table, the clients that failed and why, and where the report lies."""
    console = console or rich.console.Console()
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
