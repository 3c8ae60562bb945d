"""stdout and stderr that end no run: closed, broken, full, or of a terminal without Unicode."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any

# What an encoding without them is given for the signs that the terminal's lines are made of.
ASCII = {"±": "+-", "−": "-", "–": "-", "·": "*", "ρ": "rho", "×": "x", "…": "..."}
PLAIN = "plain"  # the name of ``plain`` among the ways to treat what cannot be encoded


class _Lossy(FileIO):
    """Loses what it cannot write: its reader has left (``| head``), the disk is full, the terminal
    is gone. The run's results are in files; a line less must not cost them."""

    def write(self, data: Any, /) -> int:
        with suppress(OSError):
            return super().write(data)
        return len(data)


def plain(error: UnicodeError) -> tuple[str, int]:
    """``codecs`` error handler: in ASCII what has a form there, else as Python escapes it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    escaped = (c.encode("ascii", "backslashreplace").decode() for c in lost)
    return "".join(ASCII.get(c, e) for c, e in zip(lost, escaped, strict=True)), error.end


codecs.register_error(PLAIN, plain)


def steady_streams() -> None:
    """From now on nothing that is printed can raise. For the main program, before it prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed (``>&-``): else the next file opened would be written as stdout
            # The lowest number that is free is this one. Ray's processes want it, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in enumerate(("stdout", "stderr"), 1):
        encoding = getattr(getattr(sys, name), "encoding", "utf-8")
        raw = BufferedWriter(_Lossy(number, "w", closefd=False))
        setattr(sys, name, TextIOWrapper(raw, encoding, PLAIN, line_buffering=True))
