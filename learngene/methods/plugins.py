"""Plugins: methods in a module outside this package, known by its dotted name alone.

The module holds ``METHOD``, as each method here does. Its file's sha256 goes into whatever is kept
of its work, and with the task to the workers, which refuse another file of the same name. What the
module imports is not in the hash: a method is one file.
"""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

from learngene.methods.base import Method, ReplyForm

MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)  # its parts name files and records
NAME_LIMIT = 40  # characters of a name in tables and messages


def name_of(module: str) -> str:
    """How a method is called in tables: the last part of its module's name."""
    return module.rpartition(".")[2]


def describe(module: str) -> dict[str, Any]:
    """What the factory and the clients are told of the method in ``module``, as plain JSON.

    Raises:
        ValueError: there is no such module, it cannot be imported, or it has no ``METHOD``.
    """
    if not MODULE.fullmatch(module) or len(name_of(module)) > NAME_LIMIT:
        raise ValueError("no name of a module")
    method, path = _import(module)
    reply = {field.name: getattr(method, field.name) for field in fields(ReplyForm)}
    return {"module": module, "sha256": _sha256(path), "reply": reply}


def load(plugin: Mapping[str, Any]) -> Method:
    """The method that ``describe`` has described, here or in a worker.

    Raises:
        ValueError: as ``describe``; or the file is another one here.
    """
    method, path = _import(plugin["module"])
    if (sha256 := _sha256(path)) != plugin["sha256"]:
        raise ValueError(
            f"{plugin['module']} is another file here ({path}, sha256 {sha256[:8]}) than at the "
            f"start of the run ({plugin['sha256'][:8]})"
        )
    return method


def _import(module: str) -> tuple[Method, Path]:
    """The module's ``METHOD`` and file."""
    invalidate_caches()  # the file may be younger than this process
    try:
        imported = import_module(module)
    except (Exception, SystemExit) as error:  # somebody else's code: none is ours to handle
        problem = f"importing it raises {type(error).__name__}: {str(error)[:200]}"
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            problem = f"no module {missing} can be imported from here"
        raise ValueError(problem) from error
    method, path = getattr(imported, "METHOD", None), _file(imported)
    if path is None or not isinstance(method, Method):
        raise ValueError(
            f"the module {path or module} has no value METHOD of class learngene.methods.Method"
        )
    if not callable(method.adapt):
        problem = f"an adapt that is no function: {method.adapt!r:.100}"
        raise ValueError(f"METHOD in {path} has {problem}")
    return method, path


def error_line(module: str, error: BaseException) -> str:
    """Where in a method's own file an error came up, ``file:line``; empty where it did not."""
    path = _file(sys.modules[module]) if module in sys.modules else None
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if path and Path(frame.filename) == path]
    return f"{path.name}:{lines[-1]}" if path and lines else ""


def _file(module: ModuleType) -> Path | None:
    path = getattr(module, "__file__", None)
    return None if path is None else Path(path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
