"""Files that are whole or not there, and whether they belong where they lie."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import io
import json
import os
import platform
import pwd
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from learngene.errors import InputError

MOST_NAMED = 8  # differences in one message
STALE_S = 24 * 3600.0  # after this, what a process elsewhere was writing counts as abandoned
# A full disk, a full quota, and a file larger than the process may write.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What ``flock`` says where there are none: NFS (the last, of a folder), Lustre, FUSE.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
TEMPORARY = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes ``path`` at the end of the block: temporary file beside it,
    fsync, rename. Nothing is left of it where the block raises.

    Raises:
        OSError: with ``filename``, also where the kernel names none (a full disk).
    """
    with attach_filename(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)  # not mkstemp's, which nobody else may read
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` as an ``atomic_file``."""
    with atomic_file(path) as file:
        file.write(data)


def temporary_name(path: Path) -> Path:
    """Where this process makes what is to become ``path``: .NAME.MACHINE-PID-RANDOM beside it."""
    mine = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{mine}")


def sweep_temporary(folder: Path, *, depth: int = 3) -> None:
    """Remove what writers that were killed have left in ``folder``, and so many folders below.

    It goes by the name (``temporary_name``): its process is gone, or ran elsewhere (a shared disk,
    another container) and what it made has not changed for a day. Other users' files stay, and all
    do on Windows, which cannot ask for a process without ending it.
    """
    for level in range(depth + 1 if os.name == "posix" else 0):
        pattern = "*/" * level + ".*.*-*-*"
        # ``Path.glob`` raises where another process takes a folder away meanwhile.
        for name in glob.glob(pattern, root_dir=folder):  # noqa: PTH207
            path = folder / name
            with suppress(OSError):  # its owner, or another sweeper, was faster
                if _abandoned(path):
                    if path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        path.unlink()


def _abandoned(path: Path) -> bool:
    made, there = TEMPORARY.fullmatch(path.name), path.lstat()
    if made is None or there.st_uid != os.getuid():
        return False
    if made["machine"] != _machine():
        return time.time() - there.st_mtime > STALE_S
    try:
        os.kill(int(made["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # it lives, as another user's
        pass
    return False


@cache
def _machine() -> str:
    """Where a process id says which process it is: this machine until it boots, this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        where = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        where = platform.node()
    return hashlib.sha256(where.encode()).hexdigest()[:8]


@contextmanager
def sole_use(folder: Path, field: str) -> Iterator[None]:
    """Make ``folder`` and keep other runs out of it until the block ends, or this process does.

    The lock is on the folder itself and leaves no file behind. A file system that has none (some
    network disks), and Windows, go without.

    Args:
        field: of the configuration, that names the folder.

    Raises:
        InputError: another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "Wait until it has ended, or name another folder"
            raise InputError(field, folder, "another run is writing there", fix) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> Path:
    """Write rows as CSV with LF line ends, one after another, as an ``atomic_file``."""
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        text.detach()  # flushed; the file is not this one's to close
    return path


@contextmanager
def attach_filename(path: Path) -> Iterator[None]:
    """Give an OSError of the block its file: a write that the disk refuses has none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def no_room(error: OSError) -> str:
    """What to say of an error in ``NO_ROOM``: the folder, what is free there, and what to do."""
    named = Path(error.filename or ".").absolute()
    folder = next(each for each in named.parents if each.is_dir())  # it may not be made yet
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"cannot write {named}: {error.strerror}; {free:,.1f} MB are free in {folder}. What was "
        "finished is kept: make room, and the same command goes on"
    )


# Unlike those of ``Path``, these answer False for names that nothing can have: too long, a NUL in
# them, in a folder that may not be entered.
is_file, is_folder = os.path.isfile, os.path.isdir


def check_writable(path: Path, field: str) -> None:
    """Hold that ``path`` can be written, before the work that fills it; nothing is left there.

    Raises:
        InputError: no; naming ``field``.
    """
    try:
        if is_folder(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(each for each in path.absolute().parents if each.exists())
        trial = temporary_name(folder / path.name)
        trial.touch()
        trial.unlink()
    except OSError as error:
        problem = f"no file can be written there ({error.strerror})"
        raise InputError(field, path, problem, "Name another file") from None


def expand_user(path: str | Path) -> Path:
    """The path with ``~`` as the home it stands for; as it is where nobody has that name.

    An empty ``HOME`` is none: the home is then that of the user's account.
    """
    home, _, below = os.fspath(path).partition("/")
    if home == "~" and not os.environ.get("HOME", "").strip():
        with suppress(KeyError):  # an account without an entry, as containers have
            return Path(pwd.getpwuid(os.getuid()).pw_dir, below)
        return Path(path)
    return Path(os.path.expanduser(path))  # noqa: PTH111 - ``Path.expanduser`` raises there


def refuse_other(path: Path, recorded: Any, due: Mapping[str, Any]) -> None:
    """Refuse a cached file of other settings than those its folder stands for.

    The name of a folder is the hash of its settings, so this is a folder that somebody copied or
    renamed: its files are whole, and would give other numbers.

    Raises:
        InputError: naming the settings that differ, as the file records them and as they are due.
    """
    ours, theirs = _flat(json.loads(json.dumps(due))), _flat(recorded)
    differing = [
        f"{name} is {_short(theirs.get(name))} there and {_short(ours.get(name))} here"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if not differing:
        return
    problem = "it was kept under other settings: " + "; ".join(differing[:MOST_NAMED])
    if len(differing) > MOST_NAMED:
        problem += f"; and {len(differing) - MOST_NAMED} more"
    raise InputError("cache", path, problem, f"Delete {path.parent}")


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
