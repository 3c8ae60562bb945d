"""A Ray for one run: on loopback, behind a token, in a folder that goes when it ends.

By default Ray listens on every interface and runs what anybody sends it. Here its ports are those
of 127.0.0.1, each of them asks for the token that only this run's processes have in their
environment (which the kernel shows to the same user alone), and its sockets and logs lie in a
folder that nobody else may enter.

flwr pins Ray exactly, and tests hold the private names that are used here to what they do.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from learngene.errors import InputError
from learngene.utils.files import sweep_temporary, temporary_name

# Ray's sockets are called FOLDER/r/session_2026-01-01_00-00-00_000000_PID/sockets/plasma_store, and
# no socket may have a longer name than 107 bytes.
ROOM_FOR_SOCKETS = 107 - len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
TEMPORARY = ("RAY_TMPDIR", "TMPDIR")  # where Ray looks for a place, in this order; then /tmp


@contextmanager
def private_ray() -> Iterator[dict[str, Any]]:
    """What ``ray.init`` is to be called with besides; nothing of it is left afterwards.

    The processes of Ray have to be gone by then: their folder is removed.
    """
    from ray._private import ray_constants
    from ray._private.node import Node

    clusters, api_server = ray_constants.ENABLE_RAY_CLUSTER, Node.start_api_server
    changes = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_AUTH_TOKEN_PATH": None,  # goes before the token itself
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
    }
    with _folder() as folder, environment(changes):
        _read_environment()
        # As on Windows and macOS: this node has no address but 127.0.0.1, so that every process
        # binds to it alone. (Otherwise Ray also asks the kernel for the route to 8.8.8.8.)
        ray_constants.ENABLE_RAY_CLUSTER = False
        # With ``include_dashboard=False`` this process has one purpose, a report of usage, which
        # is switched off; it asks the cloud's metadata address (169.254.169.254) all the same.
        Node.start_api_server = lambda self, **asked: None  # type: ignore[method-assign]
        try:
            yield {"_temp_dir": str(folder / "r")}
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = clusters
            Node.start_api_server = api_server  # type: ignore[method-assign]
    _read_environment()


def _read_environment() -> None:
    """Ray's native part reads its variables once: again, since this process may have had others."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """These variables set (None: unset), and afterwards what was there before."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def check_folder() -> None:
    """Hold that ``private_ray`` can have its folder. Before a training: Ray starts at its end.

    Raises:
        InputError: a variable of the environment names another place than one to write to.
    """
    base = _new_folder().parent
    if not (base.is_dir() and os.access(base, os.W_OK | os.X_OK)):
        name = next((each for each in TEMPORARY if os.environ.get(each)), "folder")
        fix = f"Set {TEMPORARY[0]} to a folder of yours, or unset it"
        raise InputError(name, base, "Ray has to write there and cannot", fix)


def _new_folder() -> Path:
    """A name for it: where Ray would have its own, or in /tmp where that leaves no room."""
    base = next(filter(None, map(os.environ.get, TEMPORARY)), "/tmp")
    folder = temporary_name(Path(base) / "ray")
    if len(os.fsencode(folder)) > ROOM_FOR_SOCKETS:
        folder = temporary_name(Path("/tmp/ray"))
    return folder


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that only this user may enter. (Ray opens those that it makes to all users.)

    Those of drivers that were killed are removed on the way.
    """
    folder = _new_folder()
    sweep_temporary(folder.parent, depth=0)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        for _ in range(3):  # a worker that was killed a moment ago may write its last line
            shutil.rmtree(folder, ignore_errors=True)
