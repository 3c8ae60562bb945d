"""Results of several runs, found in folders, that may be put into one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reports.results import read_results
from reports.schema import Results

RESULTS = "results.json"


class GatherError(ValueError):
    """The runs cannot be put into one picture; the message says why."""


class OutputError(ValueError):
    """What was made of the runs cannot be written; the message says where and why."""


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


def find_runs(folders: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Every run at or below the folders (a multirun has one in each of its own), with its results.

    Raises:
        GatherError: a folder holds no run, or results that cannot be used.
    """
    found: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        files = [folder / RESULTS] if (folder / RESULTS).exists() else sorted(folder.rglob(RESULTS))
        if not files:
            raise GatherError(f"{folder}: no {RESULTS} there or in any folder below")
        for file in files:
            try:
                found[file.parent.resolve()] = read_results(file)
            except (OSError, ValueError) as error:
                raise GatherError(f"{file}: no usable results: {error}") from error
    return list(found.items())


def must_agree(
    runs: Sequence[tuple[Path, Results]], what: str, read: Callable[[Results], Any]
) -> None:
    """Hold that ``read`` gives the same of every run.

    Raises:
        GatherError: it does not.
    """
    (first, of), *others = runs
    for folder, results in others:
        if read(results) != read(of):
            raise GatherError(
                f"{what} is {read(of)} in {first} and {read(results)} in {folder}: one picture "
                "would compare what cannot be compared"
            )


def config(results: Results, *path: str) -> Any:
    """A setting of a run; None where the results do not hold it."""
    value: Any = results["run"].get("config")
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value
