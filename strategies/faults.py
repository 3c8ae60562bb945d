"""Planted faults on the driver's side: from the configuration to what a task says of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def fault_orders(config: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """``faults`` as ``clients.faults.armed`` reads it, or None where none is planted.

    Its folder remembers who has been killed once. It lies in the cache, which all workers can
    write to, and is gone when the run is over; a folder that a killed driver leaves behind is empty
    or holds empty files, and nothing ever looks into it again.
    """
    if not config["faults"]:
        yield None
        return
    cache = Path(config["cache"]).absolute()
    cache.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="faults-", dir=cache)
    try:
        yield {"orders": list(config["faults"]), "folder": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
