"""A checkpoint is whole or it is not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from learngene.errors import InputError
from learngene.utils.checkpoint import read_checkpoint, write_checkpoint

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

    monkeypatch.setattr("learngene.utils.checkpoint.write_atomically", stop_at_the_card)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(stem, {"a": torch.ones(1)}, {"stages": [2]})
    assert write == [stem.with_suffix(".safetensors")]
    assert read_checkpoint(stem) is None


def test_nan_does_not_get_into_a_card(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_checkpoint(tmp_path / "x", STATE, {"stages": [float("nan")]})
    assert json.dumps(float("nan")) == "NaN"  # what it would have been
    assert read_checkpoint(tmp_path / "x") is None


OF = {"settings": {"lr": 0.05, "plan": (), "memory": "rehearsal"}, "world": "a" * 64, "threads": 2}


def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path):
    stem = tmp_path / "KEY" / "task-001"
    write_checkpoint(stem, STATE, {"stages": []}, of=OF)
    assert read_checkpoint(stem, of=OF) is not None
    other = {**OF, "settings": {**OF["settings"], "lr": 0.1}, "threads": 4}
    with pytest.raises(InputError) as caught:
        read_checkpoint(stem, of=other)
    assert caught.value.field == "cache" and str(tmp_path / "KEY") in caught.value.fix
    said = "settings.lr is 0.05 there and 0.1 here; threads is 2 there and 4 here"
    assert caught.value.problem.endswith(said)


def test_settings_that_were_altered_are_a_torn_card_and_no_other_one(tmp_path):
    stem = tmp_path / "task-001"
    write_checkpoint(stem, STATE, {"stages": []}, of=OF)
    path = stem.with_suffix(".json")
    path.write_text(path.read_text().replace("0.05", "0.15"))
    assert read_checkpoint(stem, of=OF) is None


def test_very_many_differences_are_counted(tmp_path):
    write_checkpoint(tmp_path / "x", {}, {}, of={f"k{i:02d}": i for i in range(20)})
    with pytest.raises(InputError, match="k07 is 7 there and null here; and 12 more"):
        read_checkpoint(tmp_path / "x", of={})
