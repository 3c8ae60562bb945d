"""benchmarks/command.py: every command says what it is for, and refuses wrong input in one line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from benchmarks.command import end

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
COMMANDS = [path.stem for path in sorted(FOLDER.glob("*.py")) if "\ndef main(" in path.read_text()]


def ended(monkeypatch: pytest.MonkeyPatch, name: str, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    with pytest.raises(SystemExit) as left:
        end(importlib.import_module(f"benchmarks.{name}").main)
    return left.value.code


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_module_and_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, name, "--help") == 0
    first, said = (FOLDER / f"{name}.py").read_text().split("\n")[0], capsys.readouterr().out
    assert first.strip('"') in said and "options:" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("poisoned nowhere", "nowhere has no results.json; name the folder of a finished run"),
        ("tune_methods nowhere --out x.json", "nowhere has no results.json"),
        ("flower_overhead nowhere", "nowhere has no results.json"),
        ("tune_methods --trials 0 nowhere", "--trials: 0 is no whole number from 1 on"),
        ("fixed_runs check x.json --jobs 0", "--jobs: 0 is no whole number from 1 on"),
        ("tune_collective --tasks many", "--tasks: many is no whole number from 1 on"),
        ("tune_collective seed=abc", "tune_collective: seed=abc: not a value of type int"),
        ("tune_collective nothing=1", "nothing=1: there is no field of that name"),
        ("tune_collective data=cifar100 data.root=/nowhere", "no such folder"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, *words.split()) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert said in last
