"""``python -m runtime.federation``: files that cannot be, and nobody who reads what it says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from learngene.errors import RunError
from runtime.federation import __main__ as command

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("folder", ["/proc/nope", "/dev/null", "/dev/null/keys"])
def test_a_folder_that_cannot_be_is_code_2_and_one_line(folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["federation", "credentials", folder])
    assert command.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"federation: cannot use {folder}: ")


def test_a_full_disk_is_code_1(monkeypatch, tmp_path, capsys) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "ca.key"))

    monkeypatch.setattr(command, "make_credentials", full)
    monkeypatch.setattr(sys, "argv", ["federation", "credentials", str(tmp_path)])
    assert command.main() == 1
    assert "No space left on device" in capsys.readouterr().err


def test_a_reader_that_left_does_not_end_it() -> None:
    """It goes on past its first line, to a run folder that cannot be."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", '"$@" | head -0', "bash", sys.executable, "-m",
         "runtime.federation", "up", "--run-dir", "/dev/null/x"],
        cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line == "federation: cannot use /dev/null/x/logs: Not a directory. Name another path"


def test_nodes_without_images_of_their_own_are_told_the_runs_cache(monkeypatch, tmp_path):
    """It has the dataset and nowhere else is it: they would all fail, after the whole training."""
    started: list[dict[str, object]] = []

    class Recorded(MagicMock):
        def __enter__(self) -> Recorded:
            return self

        def start_node(self, number: int, config: dict[str, object], gpus: str | None) -> None:
            started.append(config)

        def wait_online(self, number: int) -> None:
            raise RunError("far enough")

    monkeypatch.setattr("runtime.federation.deployment.Deployment", Recorded)
    monkeypatch.setattr(command, "make_credentials", lambda folder, nodes: None)
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(sys, "argv", [
        *("federation", "up", "--supernodes", "2", "--data-root", str(tmp_path / "images")),
        *("--run-dir", str(tmp_path / "run"), "--", "scale=tiny", "cache=/of/the/run"),
    ])  # fmt: skip
    assert command.main() == 1
    assert [each.get("cache") for each in started] == [None, "/of/the/run"]
