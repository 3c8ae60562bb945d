"""Plugins: methods in a module outside this package, known by its dotted name alone.

The module holds ``METHOD``, as each method here does. Its file's sha256 goes into whatever is kept
of its work, and with the task to the workers, which refuse another file of the same name. What the
module imports is not in the hash: a method is one file.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from importlib import import_module, invalidate_caches
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch

from learngene.methods.base import Method, ReplyForm
from learngene.methods.isolation import in_words, isolated

MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)  # its parts name files and records
NAME_LIMIT = 40  # characters of a name in tables and messages
IMPORT_S = 120.0  # an import that takes longer is taken for endless, seconds


# Each module's file as it was when this process imported it: what runs is that one.
_IMPORTED = WeakKeyDictionary[ModuleType, str]()


class NoModule(ValueError):
    """There is no module of that name."""


def name_of(module: str) -> str:
    """How a method is called in tables: the last part of its module's name."""
    return module.rpartition(".")[2]


def describe(module: str) -> dict[str, Any]:
    """What the factory and the clients are told of the method in ``module``, as plain JSON.

    Raises:
        NoModule: there is none of that name, or it is no name of one.
        ValueError: it cannot be imported, or has no ``METHOD``.
    """
    if not MODULE.fullmatch(module) or len(name_of(module)) > NAME_LIMIT:
        raise NoModule("no name of a module")
    if module not in sys.modules:
        _rehearse(module)
    method, _, sha256 = _import(module)
    _unchanged(module, sha256)
    reply = {field.name: getattr(method, field.name) for field in fields(ReplyForm)}
    return {"module": module, "sha256": sha256, "reply": reply}


def load(plugin: Mapping[str, Any]) -> Method:
    """The method that ``describe`` has described, here or in a worker.

    Raises:
        ValueError: as ``describe``; or the file is another one here.
    """
    method, path, sha256 = _import(plugin["module"])
    if sha256 != plugin["sha256"]:
        raise ValueError(
            f"{plugin['module']} is another file here ({path}, sha256 {sha256[:8]}) than at the "
            f"start of the run ({plugin['sha256'][:8]})"
        )
    _unchanged(plugin["module"], sha256)
    return method


def _rehearse(module: str) -> None:
    """Import the module in a fork of this process: it may never end, or end the process.

    Raises:
        ValueError: it does.
    """
    fork = get_context("fork")  # of what is imported already: milliseconds, where a spawn takes 3 s
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=_import_only, args=(module, there), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(IMPORT_S):
            raise ValueError(f"importing it is not done within {IMPORT_S:g} s")
        here.recv_bytes()
    except EOFError:
        process.join()
        raise ValueError(
            f"importing it ends the process, with exit code {process.exitcode}"
        ) from None
    finally:
        process.kill()
        process.join()
        here.close()


def _import_only(module: str, told: Connection) -> None:
    """Say that the import has come to an end; what it raises it will raise in the driver, too."""
    signal.set_wakeup_fd(-1)  # the driver's: a signal to this process is none to it
    torch.set_num_threads(1)  # those of the driver were not copied: waiting for them would not end
    silence = os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):  # the driver's own import prints
        os.dup2(silence, standard)
    invalidate_caches()
    with suppress(BaseException):
        import_module(module)
    told.send_bytes(b"done")


def _import(module: str) -> tuple[Method, Path, str]:
    """The module's ``METHOD``, its file, and the sha256 of what lies there now."""
    invalidate_caches()  # the file may be younger than this process
    try:
        with isolated(0, f"import-{module}"):
            imported = import_module(module)
    except Exception as error:  # somebody else's code: none is ours to handle
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            raise NoModule(f"no module {missing} can be imported from here") from error
        raise ValueError(f"importing it raises {in_words(error)[:200]}") from error
    method, path = getattr(imported, "METHOD", None), _file(imported)
    if path is None or not isinstance(method, Method):
        raise ValueError(
            f"the module {path or module} has no value METHOD of class learngene.methods.Method"
        )
    if not callable(method.adapt):
        problem = f"an adapt that is no function: {method.adapt!r:.100}"
        raise ValueError(f"METHOD in {path} has {problem}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    _IMPORTED.setdefault(imported, sha256)
    return method, path, sha256


def _unchanged(module: str, sha256: str) -> None:
    """Raises:
    ValueError: what this process has imported is not that.
    """
    if _IMPORTED[sys.modules[module]] != sha256:
        raise ValueError(f"{module} has changed since it was imported: start the command again")


def error_line(module: str, error: BaseException) -> str:
    """Where in a method's own file an error came up, ``file:line``; empty where it did not."""
    path = _file(sys.modules[module]) if module in sys.modules else None
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if path and Path(frame.filename) == path]
    return f"{path.name}:{lines[-1]}" if path and lines else ""


def _file(module: ModuleType) -> Path | None:
    path = getattr(module, "__file__", None)
    return None if path is None else Path(path)
