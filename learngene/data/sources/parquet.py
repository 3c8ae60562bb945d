"""Images in tables: parquet with the hub's columns, or the hub itself, through ``datasets``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from learngene.data.class_split import class_list, paper_class_split, unusable
from learngene.data.dataset import SPLITS
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import BATCH, Source, hash_files
from learngene.errors import InputError

HUB = {"cifar100": "uoft-cs/cifar100", "imagenet100": "timm/mini-imagenet"}
COLUMNS = {"cifar100": ("img", "fine_label"), "imagenet100": ("image", "label")}


@dataclass(kw_only=True)
class TableSource(Source):
    """Encoded images in a column of tables that are read one batch at a time."""

    files: list[Path]  # what the tables are read from
    tables: Callable[[str], Iterator[pa.Table]]  # split -> tables of at most BATCH rows

    def content(self) -> str:
        return hash_files(self.files)

    def encoded(self, split: str) -> Iterator[list[tuple[bytes | Path, str]]]:
        row = 0
        try:
            for table in self.tables(split):
                column = table.column(0).combine_chunks().field("bytes")
                # An image without bytes is an empty one: it does not decode and is named.
                yield [
                    (b or b"", f"{split} row {row + i}") for i, b in enumerate(column.to_pylist())
                ]
                row += len(table)
        except Exception as error:  # Arrow, ``datasets`` and the disk each raise their own
            raise _unreadable(self.files[0].parent, f"{split} from row {row}: {error}") from error


def _unreadable(where: object, error: object) -> InputError:
    problem = f"not readable as parquet with images ({error})"
    return InputError("data.root", where, problem, "Fetch the file again")


@contextmanager
def _quiet() -> Iterator[None]:
    """``datasets`` logs the errors that it raises; the user should read one message, ours."""
    import datasets

    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)


def _stream(files: list[Path], columns: list[str]) -> Iterator[pa.Table]:
    """Tables of parquet files in order, without the second copy that ``datasets`` would cache."""
    import datasets

    # A cache of its own: ``datasets`` leaves lock files even where it keeps nothing else.
    with _quiet(), tempfile.TemporaryDirectory() as cache:
        names = [str(file) for file in files]
        rows: Any = datasets.IterableDataset.from_parquet(names, cache_dir=cache)
        yield from rows.select_columns(columns).with_format("arrow").iter(batch_size=BATCH)


def find_parquet(root: Path) -> dict[str, list[Path]]:
    """``train*.parquet`` and ``test*.parquet`` at ``root`` or in one folder below (data/)."""
    for folder in (root, *(f for f in sorted(root.iterdir()) if f.is_dir())):
        files = {split: sorted(folder.glob(f"{split}*.parquet")) for split in SPLITS}
        if any(files.values()):
            return files
    return {split: [] for split in SPLITS}


def _names(name: str, column: str, schema: pa.Schema, folder: Path) -> tuple[str, ...]:
    """Class names: the file's Hugging Face metadata, else ``meta.json``, else the known list."""
    card = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = card.get("info", {}).get("features", {}).get(column, {})
    if isinstance(feature, dict) and feature.get("names"):
        return tuple(feature["names"])
    meta = folder / "meta.json"
    names = json.loads(meta.read_text(encoding="utf-8")) if meta.is_file() else {}
    return tuple(names.get(f"{column}_names") or class_list(name))


def open_parquet(
    files: dict[str, list[Path]], settings: SeededDataSettings, size: int
) -> TableSource:
    """Local parquet of ``cifar100`` or ``imagenet100`` with the hub's columns.

    Raises:
        InputError: a split is missing, a file is damaged or lacks a column, or classes differ.
    """
    name = settings.name
    image_column, label_column = COLUMNS[name]
    labels: dict[str, NDArray[np.int64]] = {}
    names: tuple[str, ...] = ()
    for split in SPLITS:
        if not files[split]:
            problem = f"found no {split}*.parquet beside the other split"
            raise unusable(settings, problem, "Fetch both splits")
        columns = []
        for file in files[split]:
            try:
                schema = pq.read_schema(file)
                if lacking := [c for c in COLUMNS[name] if c not in schema.names]:
                    problem = f"lacks the column {lacking[0]}, it has {', '.join(schema.names)}"
                    fix = f"{name} needs {image_column} and {label_column}, as on the hub"
                    raise InputError("data.root", file, problem, fix)
                names = names or _names(name, label_column, schema, file.parent)
                columns.append(pq.read_table(file, columns=[label_column]).column(0).to_numpy())
            except (pa.ArrowException, OSError, json.JSONDecodeError) as error:
                raise _unreadable(file, error) from error
        labels[split] = np.concatenate(columns).astype(np.int64)
    return _table_source(
        settings,
        size,
        names,
        labels,
        files["train"] + files["test"],
        lambda split: _stream(files[split], [image_column]),
    )


def open_hub(settings: SeededDataSettings, size: int) -> TableSource:
    """The data set from the Hugging Face hub; ``datasets`` keeps the download.

    Raises:
        InputError: the hub cannot be reached, or what it gave lacks a column or class.
    """
    import datasets

    name = settings.name
    image_column, label_column = COLUMNS[name]
    try:
        with _quiet():
            splits: Any = {s: datasets.load_dataset(HUB[name], split=s) for s in SPLITS}
            labels = {
                s: np.asarray(splits[s].with_format("numpy")[label_column][:], np.int64)
                for s in SPLITS
            }
            names = tuple(splits["train"].features[label_column].names)
            files = [Path(entry["filename"]) for s in SPLITS for entry in splits[s].cache_files]
    except Exception as error:  # network, disk, hub and format errors are all the same to the user
        problem = f"could not get {HUB[name]} from the hub ({type(error).__name__}: {error})"
        fix = "Check the network, or give the files with data.root=DIR"
        raise unusable(settings, problem, fix) from error

    def tables(split: str) -> Iterator[pa.Table]:
        rows = splits[split].select_columns([image_column]).with_format("arrow")
        return iter(rows.iter(batch_size=BATCH))

    return _table_source(settings, size, names, labels, files, tables)


def _table_source(
    settings: SeededDataSettings,
    size: int,
    names: tuple[str, ...],
    labels: dict[str, NDArray[np.int64]],
    files: list[Path],
    tables: Callable[[str], Iterator[pa.Table]],
) -> TableSource:
    return TableSource(
        class_names=names,
        class_split=paper_class_split(settings, names),
        image_size=size,
        labels=labels,
        shaping={"image_size": size, "layout": "table"},
        files=files,
        tables=tables,
    )
