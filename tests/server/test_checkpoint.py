"""A checkpoint is whole or it is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from server.checkpoint import read_checkpoint, write_checkpoint

STATE = {
    "a": torch.arange(6.0).view(2, 3).t(),  # not contiguous
    "count": torch.tensor(7),
    "b": torch.randn(2, 3, 3, 3).to(memory_format=torch.channels_last),
}


@pytest.fixture
def stem(tmp_path) -> Path:
    write_checkpoint(tmp_path / "deep" / "task-001", STATE, {"stages": [1, 0.1]})
    return tmp_path / "deep" / "task-001"


def test_what_is_written_is_read(stem):
    state, card = read_checkpoint(stem)
    assert card == {"stages": [1, 0.1]}
    assert set(state) == set(STATE)
    for name, value in STATE.items():
        assert torch.equal(state[name], value) and state[name].dtype == value.dtype
    assert sorted(p.suffix for p in stem.parent.iterdir()) == [".json", ".safetensors"]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


BROKEN: list[Callable[[Path], object]] = [
    lambda stem: stem.with_suffix(".json").unlink(),
    lambda stem: stem.with_suffix(".safetensors").unlink(),
    lambda stem: flip(stem.with_suffix(".safetensors")),
    lambda stem: stem.with_suffix(".safetensors").write_bytes(b""),
    lambda stem: stem.with_suffix(".json").write_text('{"stages": [1'),
    lambda stem: stem.with_suffix(".json").write_text("{}"),
    lambda stem: stem.with_suffix(".json").write_text("[]"),
    lambda stem: stem.with_suffix(".json").write_text("null"),
    lambda stem: stem.with_suffix(".json").write_bytes(b"\xff\xfe"),
]


@pytest.mark.parametrize("break_it", BROKEN)
def test_what_is_broken_counts_as_not_there(stem, break_it):
    break_it(stem)
    assert read_checkpoint(stem) is None


def test_nothing_is_not_there(tmp_path):
    assert read_checkpoint(tmp_path / "task-001") is None


def test_the_card_is_written_last(stem, monkeypatch):
    """Stopped between the two files, an older card must not vouch for newer weights."""
    write = []

    def stop_at_the_card(path, data):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write.append(path)
        path.write_bytes(data)

    monkeypatch.setattr("server.checkpoint.write_atomically", stop_at_the_card)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(stem, {"a": torch.ones(1)}, {"stages": [2]})
    assert write == [stem.with_suffix(".safetensors")]
    assert read_checkpoint(stem) is None


def test_nan_does_not_get_into_a_card(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_checkpoint(tmp_path / "x", STATE, {"stages": [float("nan")]})
    assert json.dumps(float("nan")) == "NaN"  # what it would have been
    assert read_checkpoint(tmp_path / "x") is None
