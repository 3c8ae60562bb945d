"""Checkpoints as safetensors and JSON, each whole or not there, checked by sha256 when read.

A card says under ``of`` what its folder's key was made of, so that a folder which was copied to
another key is refused and not taken up.
"""

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

from learngene.utils.files import refuse_other, write_atomically
from learngene.utils.untrusted import MEBIBYTE, read_json, read_limited

CARD_LIMIT = 256 * MEBIBYTE  # bytes; the rows of all exemplars are nearly all of it
WEIGHTS_LIMIT = 8192 * MEBIBYTE  # bytes; the paper's widths take 70 MB


def key_of(parts: Mapping[str, Any]) -> str:
    """Name of a folder or file for what ``parts`` determine: 16 hex digits of their sha256."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_checkpoint(
    stem: Path, state: dict[str, Tensor], card: dict, *, of: Mapping[str, Any] | None = None
) -> None:
    """Write ``stem.safetensors``, then ``stem.json`` with the sha256 of both.

    The card comes last: it is there only when the weights are.

    Args:
        of: what the key of its folder is made of (see ``key_of``).
    """
    data = save_tensors({name: value.contiguous().cpu() for name, value in state.items()})
    write_atomically(_file(stem, ".safetensors"), data)
    if of is not None:
        card = {**card, "of": of}
    write_atomically(_file(stem, ".json"), sealed(card, data))


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)  # the stem itself may have a dot


def sealed(card: Mapping[str, Any], data: bytes = b"") -> bytes:
    """A card as one line of JSON, with the sha256 of itself and of the ``data`` it belongs to."""
    plain = json.loads(json.dumps(card, allow_nan=False))
    return json.dumps({**plain, "sha256": _digest(data, plain)}).encode()


def unsealed(card: Any, data: bytes = b"") -> dict[str, Any] | None:
    """What was ``sealed``, as parsed, without its sha256; None where that does not fit."""
    if not isinstance(card, dict) or card.pop("sha256", None) != _digest(data, card):
        return None
    return card


def _digest(data: bytes, card: dict) -> str:
    """sha256 over the weights and the card beside them."""
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode() + data).hexdigest()


def read_checkpoint(
    stem: Path,
    *,
    of: Mapping[str, Any] | None = None,
    limits: tuple[int, int] = (CARD_LIMIT, WEIGHTS_LIMIT),
) -> tuple[dict[str, Tensor], dict] | None:
    """The state and card of a checkpoint; None when it is not there or not whole.

    A torn or altered file counts as not there: the caller goes on from the one before.

    Args:
        limits: bytes of the card and of the weights that are read at most.

    Raises:
        InputError: it is whole, and was written under other settings than ``of``.
    """
    path = _file(stem, ".json")
    try:
        data = read_limited(_file(stem, ".safetensors"), limits[1])
        if (card := unsealed(read_json(path, limits[0]), data)) is None:
            return None
        state = load_tensors(data)
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError):
        return None
    recorded = card.pop("of", None)
    if of is not None:
        refuse_other(path, recorded, of)
    return state, card
