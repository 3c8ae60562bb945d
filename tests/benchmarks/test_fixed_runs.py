"""benchmarks/fixed_runs.py: a run that fails is no run that is equal, and nobody's folder goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import fixed_runs
from tests.benchmarks.test_command import ended

Runs = list[tuple[str, Path]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    """Which runs were started and with which cache; ``lwf`` fails, the others have a hash."""
    started: Runs = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        said = dict(word.split("=", 1) for word in command if "=" in word)
        out = Path(said["hydra.run.dir"])
        started.append((out.name, Path(said["cache"])))
        if out.name == "lwf":
            return SimpleNamespace(returncode=2, stderr="no such field", stdout="")
        out.mkdir(parents=True)
        (out / "results.json").write_text(json.dumps({"run": {"result_sha256": "ab"}}))
        return SimpleNamespace(returncode=0, stderr="", stdout="")

    monkeypatch.setattr(fixed_runs.subprocess, "run", run)
    return started


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return lambda *words: ended(monkeypatch, "fixed_runs", *map(str, words))


def test_a_run_that_fails_is_named_by_both_actions(
    runs: Runs, asked: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "before.json"
    assert asked("write", file, "--only", "ewc", "lwf") == 1
    assert json.loads(file.read_text()) == {"ewc": "ab", "lwf": "exit 2: no such field"}
    assert "1 failed: lwf" in capsys.readouterr().out
    assert asked("check", file, "--only", "ewc", "lwf") == 1
    assert "2 of 2 equal\n1 failed: lwf" in capsys.readouterr().out
    assert asked("check", file, "--only", "ewc") == 0
    file.write_text(json.dumps({"ewc": "another"}))
    assert asked("check", file, "--only", "ewc") == 1


def test_one_that_goes_on_from_another_brings_it_in(
    runs: Runs, asked: Callable[..., Any], tmp_path: Path
) -> None:
    assert asked("write", tmp_path / "x.json", "--only", "resume") == 0
    (first, left), (second, found) = runs
    assert (first, second) == ("serial", "resume") and left == found
    assert not left.parent.exists()  # a folder that nobody named goes


def test_a_folder_that_holds_something_is_refused_and_stays(
    runs: Runs, asked: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "runs", tmp_path / "x.json"
    assert asked("write", file, "--only", "ewc", "--folder", folder) == 0
    assert (folder / "runs" / "ewc" / "results.json").exists()
    for there in (folder, file):
        assert asked("write", file, "--only", "ewc", "--folder", there) == 2
        assert "is there and no empty folder; name another" in capsys.readouterr().err
        assert there.exists()
    assert len(runs) == 1
