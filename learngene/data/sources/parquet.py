"""Images in tables: parquet with the hub's columns, or the hub itself, through ``datasets``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from learngene.data.class_lists import class_list, files_of
from learngene.data.class_split import named_class_split, unusable
from learngene.data.dataset import SPLITS
from learngene.data.settings import SeededDataSettings, value_bounds
from learngene.data.sources.base import BATCH, Source, check_file, hash_files
from learngene.data.sources.decode import Encoded
from learngene.errors import InputError
from learngene.utils.checkpoint import key_of
from learngene.utils.untrusted import MEBIBYTE, first_problem, parse_json, read_json

HUB = {"cifar100": "uoft-cs/cifar100", "imagenet100": "timm/mini-imagenet"}
_META_LIMIT = 16 * MEBIBYTE  # bytes of meta.json
COLUMNS = {"cifar100": ("img", "fine_label"), "imagenet100": ("image", "label")}


@dataclass(kw_only=True)
class TableSource(Source):
    """Encoded images in a column of tables that are read one batch at a time."""

    files: list[Path]  # what the tables are read from
    tables: Callable[[str], Iterator[pa.Table]]  # split -> tables of at most BATCH rows

    def content(self) -> str:
        return hash_files(self.files)

    def encoded(self, split: str) -> Iterator[list[Encoded]]:
        row, tables = 0, self.tables(split)
        while (images := self._next(tables, f"{split} from row {row}")) is not None:
            # An image without bytes is an empty one: it does not decode and is named.
            yield [(data or b"", self.where(split, row + i)) for i, data in enumerate(images)]
            row += len(images)

    def _next(self, tables: Iterator[pa.Table], where: str) -> list[bytes | None] | None:
        """The bytes of the next images, None behind the last."""
        try:
            table = next(tables, None)
        except Exception as error:  # Arrow, ``datasets`` and the disk each raise their own
            raise _unreadable(self.files[0].parent, f"{where}: {error}") from error
        if table is None:
            return None
        return table.column(0).combine_chunks().field("bytes").to_pylist()


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
    below = (f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith("."))
    for folder in (root, *below):
        files = {split: sorted(folder.glob(f"{split}*.parquet")) for split in SPLITS}
        if any(files.values()):
            return files
    return {split: [] for split in SPLITS}


class _Label(BaseModel):
    """A column of labels, as the hub describes it."""

    names: list[str] | None = None


class _Info(BaseModel):
    features: dict[str, Any] = {}  # other columns may be described in any way


class _Card(BaseModel):
    """The key ``huggingface`` of a parquet file's metadata."""

    info: _Info = _Info()


_META = TypeAdapter(dict[str, Any])


def _names(name: str, column: str, schema: pa.Schema, folder: Path) -> tuple[str, ...]:
    """Class names: the file's Hugging Face metadata, else ``meta.json``, else the known list.

    Raises:
        ValueError, OSError: one of these is there and is not what it has to be.
    """
    card = _Card.model_validate(parse_json((schema.metadata or {}).get(b"huggingface", b"{}")))
    if names := _Label.model_validate(card.info.features.get(column, {})).names:
        return tuple(names)
    meta = folder / "meta.json"
    known = _META.validate_python(read_json(meta, _META_LIMIT)) if meta.is_file() else {}
    return tuple(_Label(names=known.get(f"{column}_names")).names or class_list(name))


def _label_values(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A column of labels (N,) as whole numbers: nothing is cut off, nothing made up.

    Raises:
        ValueError: it holds something else, or nothing in some row.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"it is of type {column.type}, whole numbers are due")
    if column.null_count:
        raise ValueError(f"{column.null_count:,} rows have none")
    return column.cast(pa.int64()).to_numpy()  # ``cast`` refuses what is not whole


def _check_columns(schema: pa.Schema, name: str, file: Path) -> None:
    image, label = COLUMNS[files_of(name)]
    if lacking := [c for c in (image, label) if c not in schema.names]:
        problem = f"lacks the column {lacking[0]}, it has {', '.join(schema.names)}"
        fix = f"{name} needs {image} and {label}, as on the hub"
        raise InputError("data.root", file, problem, fix)
    kind = schema.field(schema.names.index(image)).type
    held = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    if held.get("bytes") not in (pa.binary(), pa.large_binary(), pa.binary_view()):
        problem = f"the column {image} is of type {kind}, a struct with bytes (binary) is due"
        raise InputError("data.root", file, problem, "Write it with datasets.Image, as on the hub")


def open_parquet(
    files: dict[str, list[Path]], settings: SeededDataSettings, size: int
) -> TableSource:
    """Local parquet of a named data set with the hub's columns.

    Raises:
        InputError: a split is missing, a file is damaged or lacks a column, or classes differ.
    """
    image_column, label_column = COLUMNS[files_of(settings.name)]
    labels: dict[str, NDArray[np.int64]] = {}
    names: tuple[str, ...] = ()
    for split in SPLITS:
        if not files[split]:
            problem = f"found no {split}*.parquet beside the other split"
            raise unusable(settings, problem, "Fetch both splits")
        columns = []
        for file in files[split]:
            check_file(file)
            try:
                schema = pq.read_schema(file)
                _check_columns(schema, settings.name, file)
                rows, size_of_file = pq.read_metadata(file).num_rows, file.stat().st_size
                if rows > size_of_file:  # a column of one value may be told in a few bytes
                    raise _unreadable(file, f"{rows:,} images in {size_of_file:,} bytes")
                column = pq.read_table(file, columns=[label_column]).column(0)
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise _unreadable(file, error) from error
            try:
                columns.append(_label_values(column))
            except (pa.ArrowException, ValueError) as error:
                problem = f"the column {label_column} holds no class numbers ({error})"
                raise InputError("data.root", file, problem, "Write them as integers") from error
            try:
                names = names or _names(settings.name, label_column, schema, file.parent)
            except (ValueError, OSError) as error:
                reason = first_problem(error) if isinstance(error, ValidationError) else error
                problem = f"its class names, or those of meta.json, are none ({reason})"
                raise InputError("data.root", file, problem, "Fetch the files again") from error
        labels[split] = np.concatenate(columns)
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

    name = files_of(settings.name)
    image_column, label_column = COLUMNS[name]
    try:
        with _quiet():
            splits: Any = {s: datasets.load_dataset(HUB[name], split=s) for s in SPLITS}
            columns = {
                s: splits[s].select_columns([label_column]).with_format("arrow")[:].column(0)
                for s in SPLITS
            }
            labels = {s: _label_values(columns[s]) for s in SPLITS}
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
    value_range = value_bounds(settings)
    given = {"value_range": value_range} if value_range else {}
    split = named_class_split(settings, names)
    # Names may stand beside the tables (meta.json), and the division goes by them.
    classes = key_of({"names": names, "split": asdict(split)})
    return TableSource(
        class_names=names,
        class_split=split,
        image_size=size,
        labels=labels,
        shaping={"image_size": size, "layout": "table", "classes": classes, **given},
        value_range=value_range,
        files=files,
        tables=tables,
    )
