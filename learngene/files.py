"""Files that are there whole or not at all, and questions that do not raise."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``: temporary file beside it, fsync, rename."""
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


def is_file(path: Path) -> bool:
    """Whether there is such a file; False, too, for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, a NUL in it, a folder that may not be entered
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False, too, for names that no folder can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
