"""Checkpoints as safetensors and JSON, each whole or not there, checked by sha256 when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from learngene.files import write_atomically
from learngene.untrusted import MEBIBYTE, read_json, read_limited

CARD_LIMIT = 256 * MEBIBYTE  # bytes; the rows of all exemplars are nearly all of it
WEIGHTS_LIMIT = 8192 * MEBIBYTE  # bytes; the paper's widths take 70 MB


def key_of(parts: Mapping[str, Any]) -> str:
    """Name of a folder or file for what ``parts`` determine: 16 hex digits of their sha256."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_checkpoint(stem: Path, state: dict[str, Tensor], card: dict) -> None:
    """Write ``stem.safetensors``, then ``stem.json`` with the sha256 of both.

    The card comes last: it is there only when the weights are.
    """
    data = save_tensors({name: value.contiguous().cpu() for name, value in state.items()})
    write_atomically(stem.with_suffix(".safetensors"), data)
    text = json.dumps({**card, "sha256": _digest(data, card)}, allow_nan=False)
    write_atomically(stem.with_suffix(".json"), text.encode())


def _digest(data: bytes, card: dict) -> str:
    """sha256 over the weights and the card beside them."""
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode() + data).hexdigest()


def read_checkpoint(stem: Path) -> tuple[dict[str, Tensor], dict] | None:
    """The state and card of a checkpoint; None when it is not there or not whole.

    A torn or altered file counts as not there: the caller goes on from the one before.
    """
    try:
        card = read_json(stem.with_suffix(".json"), CARD_LIMIT)
        data = read_limited(stem.with_suffix(".safetensors"), WEIGHTS_LIMIT)
        if card.pop("sha256") != _digest(data, card):
            return None
        return load_tensors(data), card
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return None
