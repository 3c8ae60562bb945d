"""A file is there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learngene.errors import InputError
from learngene.utils import files
from learngene.utils.files import (
    NO_LOCKS,
    STALE_S,
    sole_use,
    sweep_temporary,
    temporary_name,
    write_atomically,
)


def test_writes_and_makes_the_folder(tmp_path):
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["c.bin"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "x", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, broken):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os if broken == "fsync" else Path, broken, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


HOLDS = """
import sys, time
from pathlib import Path
from learngene.utils.files import sole_use
with sole_use(Path(sys.argv[1]), "hydra.run.dir"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_one_runs_until_its_process_is_gone(tmp_path):
    command = [sys.executable, "-c", HOLDS, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == b"held\n"
            said = r"run-dir=.*another run is writing there\. Wait"
            with pytest.raises(InputError, match=said), sole_use(tmp_path, "run-dir"):
                pytest.fail("two at once")
        finally:  # else a failure here would wait for its ten minutes
            other.kill()
    with sole_use(tmp_path, "run-dir"):
        pass
    with sole_use(tmp_path, "run-dir"):  # given back at the end of the block
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", sorted(NO_LOCKS))
def test_where_there_are_no_locks_a_run_goes_on(code, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    with sole_use(tmp_path, "run-dir"):
        pass
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output"), sole_use(tmp_path, "run-dir"):
        pytest.fail("a broken disk passed for one without locks")


ROOT = Path(__file__).resolve().parents[3]
# Killed between its temporary file and the name that this should have got.
KILLED = """
import os, signal, sys
from pathlib import Path
from learngene.utils.files import temporary_name, write_atomically
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
temporary_name(folder / "datasets" / "0123").mkdir(parents=True)
temporary_name(folder / "faults").mkdir()
write_atomically(folder / "collectives" / "k" / "cycles-k" / "cycle-001.json", b"half")
"""


def test_what_a_killed_writer_leaves_is_swept_everywhere(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, check=False)
    assert killed.returncode == -9
    left = list(tmp_path.rglob(".*"))
    assert [path.parent.name for path in left if path.is_file()] == ["cycles-k"]
    assert len(left) == 3
    sweep_temporary(tmp_path)
    assert list(tmp_path.rglob(".*")) == []
    assert (tmp_path / "collectives" / "k" / "cycles-k").is_dir()


def test_what_is_being_written_is_not_swept(tmp_path, monkeypatch):
    mine = temporary_name(tmp_path / "mine")  # by this process, however long it takes
    monkeypatch.setattr(files, "_machine", lambda: "0" * 8)
    young, old = (temporary_name(tmp_path / name) for name in ("young", "old"))
    monkeypatch.undo()
    foreign = [tmp_path / ".git", tmp_path / ".x.12-34-56", tmp_path / ".env.0-1-2.txt"]
    for path in (mine, young, old, *foreign):
        path.mkdir()
        then = time.time() - (0 if path == young else 2 * STALE_S)
        os.utime(path, (then, then))
    sweep_temporary(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, young, *foreign])


def test_a_link_is_taken_away_and_not_what_it_points_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 2**30)  # beyond all that there are
    link = temporary_name(tmp_path / "link")
    monkeypatch.undo()
    there = tmp_path / "there"
    there.mkdir()
    link.symlink_to(there)
    sweep_temporary(tmp_path)
    assert list(tmp_path.iterdir()) == [there]
