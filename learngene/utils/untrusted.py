"""Reading files that somebody else may have written, or that a crash left in pieces.

Every reader here knows before it reads how much it will take, and raises ``ValueError`` (or
``OSError``) for whatever is wrong: callers turn that into their own word for it. Nothing is
executed, and nothing is allocated because a file says so: sizes are held against the file first.
"""

from __future__ import annotations

import io
import json
import math
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydantic import ValidationError

MEBIBYTE = 1 << 20
RESULTS_LIMIT = 1024 * MEBIBYTE  # bytes of results.json; 100,000 clients take a third of it
JSON_DEPTH = 32  # objects and lists inside one another; our own files have eight


def read_limited(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: it is not there or cannot be read.
        ValueError: it is larger, or no regular file (a pipe would never end). It is not read then.
    """
    with path.open("rb") as file:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file")
        if status.st_size > limit:
            raise ValueError(f"{path} has {status.st_size:,} bytes, at most {limit:,} are due")
        data = file.read(limit + 1)  # it may have grown since
    if len(data) > limit:
        raise ValueError(f"{path} has more than {limit:,} bytes")
    return data


def parse_json(data: bytes | str) -> Any:
    """JSON as RFC 8259 has it: no NaN, no Infinity, nothing nested deeper than ``JSON_DEPTH``.

    Raises:
        ValueError: it is not that.
    """
    try:
        value = json.loads(data, parse_constant=_refuse)
    except RecursionError as error:  # the parser's own limit, far above ours
        raise ValueError("nested too deeply") from error
    level = [value]
    for _ in range(JSON_DEPTH + 1):
        level = [
            part
            for node in level
            if isinstance(node, dict | list)
            for part in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return value
    raise ValueError(f"nested deeper than {JSON_DEPTH} levels")


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def read_json(path: Path, limit: int) -> Any:
    """The content of a JSON file; see ``read_limited`` and ``parse_json``."""
    return parse_json(read_limited(path, limit))


def map_npy(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
    """A ``.npy`` file of this very dtype and shape, mapped read-only.

    The header must be, byte for byte, what NumPy writes for such an array: nothing of it is parsed
    (NumPy's own parser raises errors of many kinds) and a file cannot ask for memory.

    Raises:
        OSError, ValueError: it is not there, or something else.
    """
    header = npy_header(dtype, shape)
    with path.open("rb") as file:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path} is no regular file")
        if file.read(len(header)) != header:
            raise ValueError(f"{path} is another array: {dtype} {shape} is due")
    due = len(header) + math.prod(shape) * dtype.itemsize
    if (size := path.stat().st_size) != due:
        raise ValueError(f"{path} has {size:,} bytes, {due:,} are due")
    return np.memmap(path, dtype, "r", len(header), shape)


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The beginning of a ``.npy`` file, as NumPy writes it."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def is_int_in_range(value: Any, low: int, high: int) -> bool:
    """Whether ``value`` is an integer (no bool) in ``low`` .. ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def first_problem(error: ValidationError) -> str:
    """The first value that pydantic refuses, shown shortly: odd ones can be long."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"]) or "it"
    if first["type"] == "missing":
        return f"{place} is missing"
    try:
        value = repr(first["input"])[:80]
    except (ValueError, RecursionError):  # huge integers have no text at all
        value = f"a {type(first['input']).__name__} too large to show"
    return f"{place} is {value}: {first['msg'][:100]}"
