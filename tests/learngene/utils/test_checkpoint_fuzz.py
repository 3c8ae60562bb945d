"""Checkpoints that were torn, altered or forged: not there, and the life is as it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learngene.utils.checkpoint import CARD_LIMIT, read_checkpoint, write_checkpoint
from server.collective import checkpoint_card, restore
from tests.learngene.utils.test_checkpoint import STATE

CARD = {"stages": [{"task": 0, "rho": [0.5, 1e-3]}], "exemplars": {"1": [2, 3]}}


@pytest.fixture
def stem(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "task-001", STATE, CARD)
    return tmp_path / "task-001"


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_every_flipped_byte_and_every_truncation(stem: Path, suffix: str) -> None:
    path = stem.with_suffix(suffix)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in (at % 8, 7):
            data = bytearray(whole)
            data[at] ^= 1 << bit
            path.write_bytes(bytes(data))
            assert read_checkpoint(stem) is None
        path.write_bytes(whole[:at])
        assert read_checkpoint(stem) is None
    path.write_bytes(whole)
    assert read_checkpoint(stem) is not None


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.binary(max_size=100))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    stem = tmp_path_factory.getbasetemp() / "any-checkpoint" / "x"
    for suffix in (".safetensors", ".json"):
        write_checkpoint(stem, STATE, CARD)
        stem.with_suffix(suffix).write_bytes(data)
        assert read_checkpoint(stem) is None


def test_deep_and_large_cards_are_not_there(stem: Path) -> None:
    card = stem.with_suffix(".json")
    for text in ("[" * 10**6, '{"sha256": ' + "[" * 100 + "]" * 100 + "}", '{"sha256": NaN}'):
        card.write_text(text)
        assert read_checkpoint(stem) is None
    with card.open("r+b") as file:
        file.truncate(CARD_LIMIT + 1)
    assert read_checkpoint(stem) is None


def without_a_tensor(state: dict, card: dict) -> None:
    state.pop(next(iter(state)))


def with_another_shape(state: dict, card: dict) -> None:
    name = next(iter(state))
    state[name] = torch.zeros(1, 2, 3)


def stage(**changed: Any) -> Callable[[dict, dict], None]:
    return lambda state, card: card["stages"][0].update(changed)


def card_of(**changed: Any) -> Callable[[dict, dict], None]:
    return lambda state, card: card.update(changed)


FORGED: list[Callable[[dict, dict], Any]] = [
    without_a_tensor,
    with_another_shape,
    stage(new_classes=[0, 1]),
    stage(new_classes="all"),
    stage(known_classes=10**12),
    stage(known_classes="many"),
    stage(unheard_of=1),
    card_of(stages=3),
    card_of(stages=[{}]),
    card_of(stages=[None]),
    card_of(exemplars={"x": [1]}),
    card_of(exemplars={"0": [10**9]}),
    card_of(exemplars={"0": [-1]}),
    card_of(exemplars=[]),
    card_of(exemplars={}),
    lambda state, card: card.clear(),
]


def test_forged_lives_are_not_taken_up(evolve, evolved) -> None:
    """Their checksums would be right: whoever writes a file can write its checksum."""
    done = evolved
    state, card = done.state(), json.loads(json.dumps(checkpoint_card(done)))
    for number, forge in enumerate(FORGED):
        mine, theirs = dict(state), copy.deepcopy(card)
        forge(mine, theirs)
        fresh = evolve()
        before = {name: value.clone() for name, value in fresh.state().items()}
        assert not restore(fresh, mine, theirs), number
        assert fresh.stages == [] and fresh.memory == {}
        after = fresh.state()
        assert set(before) == set(after)
        assert all(torch.equal(before[name], after[name]) for name in before)
    fresh = evolve()
    assert restore(fresh, state, card)
    assert fresh.stages == done.stages and fresh.known == done.known
    assert all(torch.equal(value, fresh.state()[name]) for name, value in state.items())
