"""Files that are whole or not there and what their place says; questions that do not raise."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from learngene.errors import InputError

MOST_NAMED = 8  # differences in one message


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``: temporary file beside it, fsync, rename.

    Raises:
        OSError: with ``filename``, also where the kernel names none (a full disk).
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp, whose files nobody else may read: results are for sharing.
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> Path:
    """Write rows as CSV with LF line ends, as ``write_atomically`` does; returns the path."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(path, text.getvalue().encode())
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError of the block its file: a write that the disk refuses has none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def is_file(path: Path) -> bool:
    """Whether there is such a file; False, too, for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, a NUL in it, a folder that may not be entered
        return False


def expanded(path: str | Path) -> Path:
    """The path with ``~`` as the home it stands for; as it is where nobody has that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False, too, for names that no folder can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def refuse_other(path: Path, found: Mapping[str, Any] | None, due: Mapping[str, Any]) -> None:
    """Refuse a kept file that was made under other settings than those its folder stands for.

    The name of a folder is the hash of its settings, so this is a folder that somebody copied or
    renamed: its files are whole, and would give other numbers.

    Args:
        found: what the file says it was made of; None (it says nothing) is not refused.
        due: what it has to be made of.

    Raises:
        InputError: naming the settings that differ, with both values.
    """
    if found is None:
        return
    ours, theirs = _flat(json.loads(json.dumps(due))), _flat(found)
    differing = sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )
    if not differing:
        return
    said = [
        f"{name} is {_short(theirs.get(name))} there and {_short(ours.get(name))} here"
        for name in differing[:MOST_NAMED]
    ]
    more = len(differing) - len(said)
    problem = "it was kept under other settings: " + "; ".join(said)
    raise InputError("cache", path, problem + (f"; and {more} more" if more else ""),
                     f"Delete {path.parent}")  # fmt: skip


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Leaves of nested objects by their dotted names."""
    if not isinstance(value, Mapping):
        return {name: value}
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        leaves |= _flat(item, f"{name}.{key}" if name else str(key))
    return leaves


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
