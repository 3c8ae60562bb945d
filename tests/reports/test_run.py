"""What a run writes down of the machine that it ran on."""

from __future__ import annotations

from typing import Any

import pytest

from reports.run import below_home


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/ann/.cache/learngene", "~/.cache/learngene"),
        ("/home/ann", "~"),
        ("/home/anna/photos", "/home/anna/photos"),  # another user's
        ("/mnt/home/ann/x", "/mnt/home/ann/x"),
        ("python sim.py cache=/home/ann/c 'data.root=/home/ann/my photos'",
         "python sim.py cache=~/c 'data.root=~/my photos'"),
        ({"cache": "/home/ann/c", "data": {"root": None}, "methods": ["/home/ann/m", 3]},
         {"cache": "~/c", "data": {"root": None}, "methods": ["~/m", 3]}),
    ],
)  # fmt: skip
def test_the_home_folder_is_a_tilde(monkeypatch: pytest.MonkeyPatch, value: Any, kept: Any) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert below_home(value) == kept


@pytest.mark.parametrize("home", ["", "/"])
def test_without_a_home_paths_stay(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    assert below_home("cache=/home/ann/c") == "cache=/home/ann/c"
