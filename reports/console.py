"""What the terminal shows: progress while a run goes on, then one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.console
from rich import box
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from protocol.callbacks import RunCallback
from reports.format import format_bytes
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
from runtime.streams import PLAIN

if TYPE_CHECKING:  # they bring torch, seconds before the first line
    from learngene.collective.trainer import CollectiveTrainer
    from learngene.data.dataset import ImageDataset
    from server.factory import FactoryResult


MOST_FAILURES = 20  # that are named one by one
MEASURED = "collective, how it tells unknown images"  # what comes after its last task


class _Terminal(rich.console.Console):
    """Text is measured as it will be shown where the terminal has no Unicode."""

    def render_str(self, text: str, **style: Any) -> Text:
        return super().render_str(text.encode(self.encoding, PLAIN).decode(self.encoding), **style)


class _Done(MofNCompleteColumn):
    """Done of all, and nothing as long as nobody knows how much all is."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total else Text()


class _Left(ProgressColumn):
    """How long what is under way will take yet, by its pace since it began."""

    max_refresh = 0.5  # seconds between two estimates

    def render(self, task: Task) -> Text:
        first, since = task.fields["began"]
        done = task.completed - first
        if not task.total or done <= 0:
            return Text()
        left = (task.total - task.completed) / done * (task.get_time() - since)
        return Text(f"{timedelta(seconds=round(left))} left")


class Console(RunCallback):
    """The terminal of one run: lines that stay, and bars that go with their stage (none where it is
    no terminal)."""

    def __init__(self) -> None:
        self._console = _Terminal()
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}  # of the stage, and of what goes on beside others
        self._answered, self._due = 0, 0
        self._trains = ""  # the task of the collective that is under way

    @contextmanager
    def bar(self, stage: str) -> Iterator[None]:
        """One bar for a stage of the run; it is gone when the stage is over."""
        described = TextColumn("  {task.description}")
        columns = (described, BarColumn(), _Done(), TimeElapsedColumn(), _Left())
        here, no_terminal = self._console, not self._console.is_terminal
        with Progress(*columns, console=here, transient=True, disable=no_terminal) as bars:
            self._progress, self._bars, self._trains = bars, {}, stage
            self._show(stage, 0, None)
            yield
        self._progress = None

    def _show(self, description: str, done: int, total: int | None, bar: str = "stage") -> None:
        """Say what is under way, in the stage's bar or in one of its own that goes when it ends."""
        bars = self._progress
        if bars is None:
            return
        if bar not in self._bars:
            self._bars[bar] = bars.add_task(description, began=(done, bars.get_time()))
        place = self._bars[bar]
        task = bars.tasks[bars.task_ids.index(place)]
        if (description, total) != (task.description, task.total) or done < task.completed:
            bars.update(place, began=(done, bars.get_time()))
        task.total = total  # here, since ``update`` takes None for what it was
        bars.update(place, description=description, completed=done)
        if bar != "stage" and done == total:
            bars.remove_task(self._bars.pop(bar))

    def on_note(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False, markup=False)

    def on_progress(self, what: str, done: int = 0, total: int | None = None) -> None:
        self._show(what, done, total)

    def on_step(self, done: int, steps: int, loss: float) -> None:
        self._show(self._trains, done, steps)

    def on_task_end(self, trainer: CollectiveTrainer, restored: bool) -> None:
        done, tasks, stage = len(trainer.stages), len(trainer.tasks), trainer.stages[-1]
        self.on_note(
            f"{done} of {tasks} tasks were done by an earlier run: not trained again"
            if restored
            else f"task {done}/{tasks}: {stage.known_classes} classes known, "
            f"accuracy {stage.accuracy:.3f}, {stage.seconds:.0f} s"
        )
        self._trains = f"collective, task {done + 1}" if done < tasks else MEASURED
        self._show(self._trains, 0, None)

    def on_cycle_end(self, record: Mapping[str, Any], restored: bool) -> None:
        self.on_note(
            f"open-world cycle {record['cycle']}{' (done by an earlier run)' if restored else ''}: "
            f"{record['called_unknown']} of {record['images']} images called unknown, "
            f"{record['labels_spent']} labels spent ({record['known_sent']} on known classes), "
            f"{len(record['added'])} classes taken in, {record['known_classes']} known; accuracy "
            f"{record['accuracy']:.3f}"
        )

    def on_method_step(self, method: str, done: int, steps: int) -> None:
        self._show(method, done, steps, bar=method)  # several at a time

    def on_round_end(self, method: str, done: int, rounds: int) -> None:
        self._show(f"{method}, federated rounds", done, rounds)

    def on_clients_begin(self, due: int) -> None:
        self._answered, self._due = 0, due
        self._show("clients", 0, due)

    def on_reply(self, client: int, ok: bool) -> None:
        self._answered += 1
        self._show("clients", self._answered, self._due)

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

    def result(self, result: FactoryResult, precision: str) -> None:
        card, sizes = result.gene.deepest.card, result.bytes_by_depth(precision)
        extra = card.bytes / card.top_layers_bytes - 1
        self.on_note(
            f"learngene: layers {card.layers}, stem {card.stem}, {card.bytes / 1e6:.2f} MB "
            f"({extra:+.1%} over the inherited layers alone), sha256 {result.gene.card.sha256[:12]}"
            + ("; control: random layers" if card.source.get("control") else "")
        )
        sent = [f"{depth}: {format_bytes(size)}" for depth, size in sizes.items()]
        self.on_note(f"sent in {precision}, by the number of layers: {', '.join(sent)}")

    def summary(self, results: Results, report: Path) -> None:
        print_summary(results, report, self._console)


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
        # A name of a second row, or one with a remark, is broken where it is put together.
        name = name.replace("+", "\n+").replace(" (", "\n(")
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
    lost = failures(results)
    for who, reason in lost[:MOST_FAILURES]:
        console.print(Text(f"{who} failed: {reason}", style="red"))
    if (further := len(lost) - MOST_FAILURES) > 0:
        console.print(Text(f"and {further:,} more failed: see results.json", style="red"))
    if report is not None:
        # Unwrapped: a path that is broken over two lines cannot be copied or clicked.
        console.print(Text(f"Report: {report}"), soft_wrap=True)
