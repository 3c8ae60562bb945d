"""The card of a learngene: what a client must know to build around it, and what it may say.

A card comes out of a file or a message and decides how much memory an individual takes. It is
therefore held to what a learngene can be before any array is read or allocated: types and ranges
of all fields, and the shapes to those of the individual that it describes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch

from learngene.errors import InputError
from learngene.networks.individual import Front
from learngene.networks.layers import CHANNELS_LIMIT, LAYERS, STEMS, build_stem, build_top, state_of
from learngene.networks.projection import Projection
from learngene.utils.untrusted import MEBIBYTE, is_finite_number, is_int_in_range

SCHEMA = 1
OPTIONAL = {"rho", "source", "schema", "pools", "side"}
COPY_AGAIN = "Copy the file and its card again from the run that made them"
CARD_LIMIT = 16 * MEBIBYTE  # bytes of the card's file; rho of a thousand tasks is a tenth of it
ARRAYS_LIMIT = 1024 * MEBIBYTE  # bytes of the arrays; the paper's widths take 30 MB
WIDTH_LIMIT = 4.0  # of collective.width, as in conf.validate
DEPTH_LIMIT = 500  # layers of a collective
SIDE_LIMIT = 64  # rows and columns of a map of features
DIMENSIONS_LIMIT = 100_000  # of a projection: one less than the factory has classes


@dataclass(frozen=True)
class Card:
    """What a client must know of a learngene to build around it, and where it came from."""

    layers: list[int]  # of the collective at the end of its growth, consecutive, counted from 1
    stem: str  # separable | seeded | whole | fresh | none
    stem_seed: int | None  # of a seeded stem
    width: float
    channels: int  # of the images
    shapes: dict[str, list[int]]
    parameters: int
    bytes: int  # of the arrays
    top_layers_bytes: int  # of the inherited layers alone, the stem left out
    sha256: str  # see ``learngene.gene.digest``
    # [task][layer], Eq. 5; None before a layer was there
    rho: list[list[float | None]] = field(default_factory=list)
    source: dict = field(default_factory=dict)  # the run that it came from
    schema: int = SCHEMA
    # Of layers that begin with the collective's first (stem=none), see ``networks.Front``:
    pools: list[int] | None = None  # which of them end with a pool, counted from 1
    side: int | None = None  # their map is pooled to so many rows and columns

    def for_client(self) -> dict:
        """The part that travels: without history, and without what a stem makes superfluous."""
        whole = asdict(replace(self, rho=[], source={}))
        return {n: v for n, v in whole.items() if v is not None or n not in ("pools", "side")}

    def front(self, shapes: Mapping[str, Sequence[int]]) -> Front | None:
        """How an individual begins with these layers; None: they stand behind a stem."""
        if self.stem != "none":
            return None
        assert self.pools is not None and self.side is not None
        matrix = shapes.get("projection.0.matrix")
        return Front(tuple(self.pools), self.side, None if matrix is None else matrix[0])


def read_card(raw: Any, where: str) -> Card:
    """A card from what JSON held.

    Raises:
        InputError: it is no card of a learngene that can be; ``where`` names the file or client.
    """
    if not isinstance(raw, Mapping):
        raise refuse(where, "not a learngene: its card is no JSON object")
    names = {f.name for f in fields(Card)}
    if unexpected := sorted(set(map(str, raw)) - names):
        problem = f"the card has an unexpected field {unexpected[0][:40]!r}"
        raise refuse(where, f"not a learngene: {problem}")
    if missing := sorted(names - OPTIONAL - set(raw)):
        raise refuse(where, f"not a learngene: the card is missing the field {missing[0]!r}")
    card = Card(**raw)
    check_card(card, where)
    return card


def refuse(where: str, problem: str) -> InputError:
    """The error for a learngene that cannot be used; ``where`` names its file or client."""
    return InputError("learngene.path", where, problem, COPY_AGAIN)


def check_card(card: Card, where: str) -> None:
    """Raise InputError unless ``card`` describes a learngene that can be."""
    if problem := _problem(card) or misfit(card, card.shapes):
        raise refuse(where, problem)


def _problem(card: Card) -> str | None:
    """What is wrong with a card in words, or None. Allocates nothing that depends on it."""
    if not is_int_in_range(card.schema, SCHEMA, SCHEMA):
        return f"card of schema {_short(card.schema)}, this release reads {SCHEMA}"
    rules = {
        "layers": _run(card.layers, deepest=DEPTH_LIMIT if card.stem == "none" else LAYERS - 1),
        "pools": _pools(card),
        "side": is_int_in_range(card.side, 1, SIDE_LIMIT)
        if card.stem == "none"
        else card.side is None,
        "stem": isinstance(card.stem, str) and card.stem in STEMS,
        "stem_seed": is_int_in_range(card.stem_seed, 0, 2**63 - 1)
        if card.stem == "seeded"
        else card.stem_seed is None,
        "width": is_finite_number(card.width, 0, WIDTH_LIMIT) and card.width > 0,
        "channels": is_int_in_range(card.channels, 1, 16),
        "shapes": _shapes(card.shapes),
        "sha256": isinstance(card.sha256, str)
        and re.fullmatch("[0-9a-f]{64}", card.sha256) is not None,
        "rho": _rho(card.rho),
        "source": isinstance(card.source, dict),
    }
    for name, fits in rules.items():
        if not fits:
            return f"not a learngene: the card says {name}={_short(getattr(card, name))}"
    sizes = {name: math.prod(shape) for name, shape in card.shapes.items()}
    top = sum(size for name, size in sizes.items() if name.startswith("top."))
    due = {"parameters": sum(sizes.values()), "bytes": 4 * sum(sizes.values())}
    for name, value in {**due, "top_layers_bytes": 4 * top}.items():
        if not is_int_in_range(getattr(card, name), value, value):
            return f"the card says {name}={_short(getattr(card, name))}, its shapes make {value}"
    if due["bytes"] > ARRAYS_LIMIT:
        return f"{due['bytes']:,} bytes of arrays, at most {ARRAYS_LIMIT:,} are read"
    return None


def misfit(card: Card, shapes: Mapping[str, list[int]]) -> str | None:
    """Where ``shapes`` of arrays are not those of the individual that the card describes."""
    names = [f"top.{place}.conv.weight" for place in range(len(card.layers))]
    if missing := [name for name in names if name not in shapes]:
        return f"array {missing[0]} is missing"
    convs = [shapes[name] for name in names]
    for name, shape in zip(names, convs, strict=True):
        if len(shape) != 4 or shape[2:] != [3, 3]:
            return f"array {name} has shape {shape}, the individual needs [.., .., 3, 3]"
        if max(shape) > CHANNELS_LIMIT:
            return f"array {name} has shape {shape}, at most {CHANNELS_LIMIT} channels are read"
    front = card.front(shapes)
    if front is not None and not 1 <= (front.dimensions or 1) <= DIMENSIONS_LIMIT:
        return (
            f"the projection has {front.dimensions} dimensions, at most {DIMENSIONS_LIMIT} can be"
        )
    due = due_shapes(card, convs, front)
    if missing := [name for name in due if name not in shapes]:
        return f"array {missing[0]} is missing"
    for name, shape in sorted(shapes.items()):
        if name not in due:
            return f"array {name[:80]} has no place in the individual"
        if shape != due[name]:
            return f"array {name} has shape {shape}, the individual needs {due[name]}"
    return None


def due_shapes(card: Card, convs: list[list[int]], front: Front | None) -> dict[str, list[int]]:
    """Name and shape of every array that comes along, by the inherited layers' ``convs`` shapes."""
    stem_layers, c_in, widths = LAYERS - len(convs), convs[0][1], [conv[0] for conv in convs]
    parts: dict[str, torch.nn.Module] = {}
    with torch.device("meta"):  # shapes alone: no memory is taken
        if front is not None:
            parts["top"] = build_top(card.channels, widths)
            if front.dimensions is not None:
                projection = Projection(widths[-1] * front.side**2, front.dimensions)
                parts["projection"] = torch.nn.Sequential(projection)
        else:
            parts["top"] = build_top(c_in, widths)
        if card.stem in ("separable", "whole"):
            parts["stem"] = build_stem(card.stem, stem_layers, c_in, card.width, card.channels)
    return {
        name: list(value.shape)
        for part, module in parts.items()
        for name, value in state_of(module, f"{part}.").items()
    }


def _run(layers: Any, deepest: int) -> bool:
    """Consecutive layers of a collective, one to ``deepest`` of them."""
    if not isinstance(layers, list) or not 1 <= len(layers) <= deepest:
        return False
    if not all(is_int_in_range(layer, 1, DEPTH_LIMIT) for layer in layers):
        return False
    return layers == list(range(layers[0], layers[0] + len(layers)))


def _pools(card: Card) -> bool:
    """Places of pools among layers that begin with the collective's first; None behind a stem."""
    if card.stem != "none":
        return card.pools is None
    return (
        isinstance(card.pools, list)
        and isinstance(card.layers, list)
        and card.layers[:1] == [1]
        and all(is_int_in_range(place, 1, len(card.layers)) for place in card.pools)
    )


def _shapes(shapes: Any) -> bool:
    return (
        isinstance(shapes, dict)
        and len(shapes) <= 1000
        and all(
            isinstance(name, str)
            and isinstance(shape, list)
            and 1 <= len(shape) <= 4
            and all(is_int_in_range(side, 1, ARRAYS_LIMIT) for side in shape)
            for name, shape in shapes.items()
        )
    )


def _rho(rho: Any) -> bool:
    return isinstance(rho, list) and all(
        isinstance(row, list)
        and all(value is None or is_finite_number(value, 0, 1) for value in row)
        for row in rho
    )


def _short(value: Any) -> str:
    """A value for a message: odd ones can be long, and huge integers have no text at all."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
