"""Read finished runs from folders, and put them into one tidy table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learngene.data.class_lists import LISTS
from reports.results import read_results
from reports.schema import Results
from reports.summary import answered

if TYPE_CHECKING:
    import pandas as pd

RESULTS = "results.json"
COLUMNS = (
    *("run", "seed", "tasks", "client", "unit", "method"),
    *("epoch", "accuracy", "last", "bytes", "seconds", "train_accuracy"),
)


class GatherError(ValueError):
    """The runs cannot be put into one picture; the message says why."""


class OutputError(ValueError):
    """A file cannot be written; the message says where and why."""


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn what the disk refuses into one message about the place that was named.

    Raises:
        OutputError: a file could not be written.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or out
        raise OutputError(
            f"{out}: cannot write {where}: {error.strerror}. Name a place that can be written"
        ) from error


def read_runs(folders: Sequence[Path]) -> list[tuple[Path, Results]]:
    """Every run at or below the folders (a multirun has one in each of its own), with its results.

    Raises:
        GatherError: no folder was named, or one holds no run or results that cannot be used.
    """
    if not folders:
        raise GatherError("no run was named: name folders that runs wrote")
    runs: dict[Path, Results] = {}
    for folder in folders:
        files = [folder / RESULTS] if (folder / RESULTS).exists() else sorted(folder.rglob(RESULTS))
        if not files:
            raise GatherError(
                f"{folder}: no {RESULTS} there or in any folder below. Name what a run wrote"
            )
        for file in files:
            try:
                results = read_results(file)
            except (OSError, ValueError) as error:
                raise GatherError(f"{file}: no usable results: {error}") from error
            if not results["run"].get("config"):
                raise GatherError(f"{file}: the results hold no configuration; run it again")
            runs[file.parent.resolve()] = results
    return list(runs.items())


def check_equal(what: str, values: Mapping[Any, Any]) -> None:
    """Hold that all runs have the same value, by their folders, or all methods by their names.

    Raises:
        GatherError: two have not.
    """
    (first, expected), *others = values.items()
    for name, value in others:
        if value != expected:
            raise GatherError(
                f"{what} is {expected} in {first} and {value} in {name}: one picture would "
                "compare what cannot be compared"
            )


def seeds_of(run: Results) -> tuple[int, int]:
    """The seed of everything and that of the shards."""
    return run["run"]["seed"], run["run"]["shard_seed"]


def class_seed(run: Results) -> int | None:
    """The seed that drew the images (glyphs) or divided their classes (an image folder): two seeds
    have another ``data.sha256`` and no task in common. None: images and classes are published."""
    return None if run["data"]["name"] in LISTS else run["run"]["seed"]


def origin_of(run: Results) -> tuple[int, int | str]:
    """The first levels of every index of clients: the seed, which makes the collective, and what
    the tasks were drawn by (``tasks``): the shard seed, with the seed where that draws classes."""
    seed, shard_seed = seeds_of(run)
    return seed, shard_seed if class_seed(run) is None else f"{shard_seed} of seed {seed}"


def runs_table(runs: Iterable[Results]) -> pd.DataFrame:
    """One row a run, client that answered, method and recorded epoch; ``COLUMNS``.

    ``accuracy`` is a fraction; ``last`` marks the last epoch, whose accuracy is the result;
    ``bytes`` (received), ``seconds`` and ``train_accuracy`` (missing where it was not measured) are
    of the whole method; ``seed`` and ``tasks`` are ``origin_of``. ``unit`` is what means are over:
    the client, or in table 2's protocol the draw of classes, which clients with the same remainder
    share (``labelled.draws``). Draws overlap, too (five of 16 classes each), so they are not quite
    independent either.
    """
    import pandas as pd  # half a second, which a run of no experiment saves

    rows = []
    for number, run in enumerate(runs):
        draws = (run.get("labelled") or {}).get("draws")
        for client in answered(run):
            name = client["id"]
            unit = name % draws if draws else name
            for method, answer in client["methods"].items():
                *earlier, (last, _) = answer["accuracy_by_epoch"]
                curve = [
                    *((epoch, y, False) for epoch, y in earlier),
                    (last, answer["accuracy"], True),
                ]
                whole = answer["bytes_down"], answer["seconds"], answer.get("train_accuracy")
                rows += [
                    (number, *origin_of(run), name, unit, method, *point, *whole) for point in curve
                ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
