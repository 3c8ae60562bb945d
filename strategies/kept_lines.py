"""What a run keeps as it goes, a line each: a run that was killed has all of them but the last.

``FOLDER/NAME-NNNN.jsonl`` holds what one run has added, behind a line with what the folder's key
was made of; every line has a sha256, so that one which a crash has torn counts as not there. A run
writes to no other run's file: two may add to one folder at once. What a later file says stands.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from learngene.utils.checkpoint import sealed, unsealed
from learngene.utils.files import attach_filename, is_file, refuse_other
from learngene.utils.untrusted import parse_json

SYNC_S = 1.0  # what was kept for so many seconds is lost where the machine itself goes down


class KeptLines:
    """Lines of one name in a folder.

    Args:
        folder: named by its key.
        parts: what that key is made of.
        limit: bytes of a line that are read at most.
    """

    def __init__(self, folder: Path, name: str, parts: Mapping[str, Any], limit: int) -> None:
        self._folder, self._name, self._parts, self._limit = folder, name, dict(parts), limit
        self._seal = folder.name.encode()  # a line of another folder is none of this
        self._mine: Path | None = None  # this run's file, once there is a line to keep
        self._synced = 0.0

    def read(self) -> Iterator[dict[str, Any]]:
        """The lines that are whole, those of older files first.

        Raises:
            InputError: a file is whole, and of other settings.
        """
        for path in sorted(self._files(), key=self._number):
            yield from self._read(path)

    def append(self, card: Mapping[str, Any]) -> None:
        """Keep a line.

        Raises:
            OSError: it cannot be written.
        """
        if self._mine is None:
            self._mine = self._begin()
        self._append(self._mine, sealed(card, self._seal))

    def _files(self) -> Iterator[Path]:
        return self._folder.glob(f"{self._name}-*.jsonl")

    def _number(self, path: Path) -> int:
        digits = path.stem.removeprefix(f"{self._name}-")
        return int(digits) if digits.isdecimal() else 0

    def _begin(self) -> Path:
        """A new file behind those that are there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        number = max(map(self._number, self._files()), default=0)
        while True:
            number += 1
            path = self._folder / f"{self._name}-{number:04d}.jsonl"
            try:
                path.touch(exist_ok=False)
            except FileExistsError:  # another run's, a moment ago
                continue
            self._append(path, sealed({"of": self._parts}))
            return path

    def _append(self, path: Path, line: bytes) -> None:
        with attach_filename(path), path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            if time.monotonic() > self._synced + SYNC_S:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def _read(self, path: Path) -> Iterator[dict[str, Any]]:
        """The lines of a file; nothing where its first one is not whole."""
        if not is_file(path):  # a pipe would never end
            return
        with suppress(OSError), path.open("rb") as file:
            lines = iter(partial(file.readline, self._limit), b"")
            about = unsealed(_parsed(next(lines, b"")))
            if about is None:
                return
            refuse_other(path, about.get("of"), self._parts)
            for line in lines:
                card = unsealed(_parsed(line), self._seal)
                if card is not None:
                    yield card


def _parsed(line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None
