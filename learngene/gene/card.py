"""The card of a learngene: what a client must know to build around it, and what it may say.

A card comes out of a file or a message and decides how much memory an individual takes. It is
therefore held to what a learngene can be before any array is read or allocated: types and ranges
of all fields, and the shapes to those of the individual that it describes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError

from learngene.errors import InputError
from learngene.networks.individual import (
    DEPTH_LIMIT,
    DIMENSIONS_LIMIT,
    Front,
    Joined,
    Layer,
    MapSide,
    Whole,
)
from learngene.networks.layers import (
    CHANNELS_LIMIT,
    FEATURE_SIDE,
    LAYERS,
    STEMS,
    build_layers,
    shape_problem,
    state_of,
)
from learngene.networks.projection import Projection
from learngene.utils.untrusted import MEBIBYTE, first_problem

SCHEMA = 2
COPY_AGAIN = "Copy the file and its card again from the run that made them"
CARD_LIMIT = 16 * MEBIBYTE  # bytes of the card's file; rho of a thousand tasks is a tenth of it
HEADER_LIMIT = MEBIBYTE  # bytes of a safetensors file besides its arrays
ARRAYS_LIMIT = 1024 * MEBIBYTE  # bytes of the arrays; the paper's widths take 30 MB
WIDTH_LIMIT = 4.0  # of collective.width, as in collective.settings
IMAGE_SIDE_LIMIT = 512  # as data.image_size

Side = Annotated[Whole, Field(ge=1, le=ARRAYS_LIMIT)]
ImageSide = Annotated[Whole, Field(ge=8, le=IMAGE_SIDE_LIMIT)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]


@dataclass(frozen=True)
class Card:
    """What a client must know of a learngene to build around it, and where it came from."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    # of the collective at the end of its growth, consecutive, counted from 1
    layers: Annotated[
        list[Layer],
        Field(min_length=1, max_length=DEPTH_LIMIT),
    ]
    stem: Annotated[str, Field(pattern=f"^({'|'.join(STEMS)})$")]
    width: Annotated[float, Strict(), Field(gt=0, le=WIDTH_LIMIT)]
    channels: Annotated[Whole, Field(ge=1, le=16)]  # of the images
    shapes: Annotated[
        dict[str, Annotated[list[Side], Field(min_length=1, max_length=4)]],
        Field(max_length=1000),
    ]
    parameters: Whole
    bytes: Whole  # of the arrays
    top_layers_bytes: Whole  # of the inherited layers alone, the projection left out
    # see ``learngene.gene.digest``
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    # by task and layer, Eq. 5; None before a layer was there
    rho: list[list[Share | None]] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)  # the run that it came from
    schema: Whole = SCHEMA
    # Of layers that begin with the collective's first (stem=none): ``networks.individual.Front``.
    pools: list[Whole] | None = None  # which of them end with a pool, counted from 1
    # the map behind each of them is pooled to so many rows and columns
    sides: list[MapSide] | None = None
    # shallower prefixes whose projected features are read beside those of all, see
    # ``networks.individual.Joined``; None: of none
    joined: Annotated[list[Layer], Field(min_length=1, max_length=DEPTH_LIMIT)] | None = None
    block: Annotated[str, Field(pattern="^residual$")] | None = None  # None: plain layers
    # Rows and columns of the images that it grew up on. The sha256 is not over it, and it travels
    # in the task (``protocol.task``): a simulated client's images have this size already.
    image_side: ImageSide | None = None

    @property
    def depths(self) -> list[int]:
        """Of the prefixes that are learngenes themselves: all, or where there are projections those
        that have one. Behind a stem the layers stay together."""
        whole = len(self.layers)
        if self.stem != "none":
            return [whole]
        return list(dimensions_by_depth(self.shapes, whole)) or list(range(1, whole + 1))

    def for_client(self) -> dict:
        """The part that travels: without history, and without what a stem makes superfluous."""
        whole = asdict(replace(self, rho=[], source={}, image_side=None))
        optional = (*OPTIONAL, "image_side")
        return {n: v for n, v in whole.items() if v is not None or n not in optional}

    def front(self, shapes: Mapping[str, Sequence[int]]) -> Front | None:
        """How an individual begins with these layers; None: they stand behind a stem."""
        if self.stem != "none":
            return None
        assert self.pools is not None and self.sides is not None
        depth = len(self.layers)
        dimensions = dimensions_by_depth(shapes, depth).get(depth)
        joined = [
            Joined(d, joined_side(self.sides[d - 1]), shapes[f"joined.{d}.matrix"][0])
            for d in self.joined or []
        ]
        return Front(tuple(self.pools), self.sides[-1], dimensions, tuple(joined))


FORM = TypeAdapter(Card)
FRONT = ("pools", "sides", "joined")  # fields of a card whose layers have no stem before them
OPTIONAL = (*FRONT, "block")  # the sha256 is over these where they are said


def joined_side(side: int) -> int:
    """Rows and columns of a map that is read beside the deepest one, of ``side`` otherwise."""
    return min(FEATURE_SIDE, side)


def dimensions_by_depth(shapes: Mapping[str, Sequence[int]], layers: int) -> dict[int, int]:
    """Dimensions of the projections among the arrays, by the depth of the prefix they are for."""
    names = {depth: f"projection.{depth}.matrix" for depth in range(1, layers + 1)}
    return {depth: shapes[name][0] for depth, name in names.items() if name in shapes}


def read_card(raw: Any, where: str) -> Card:
    """A card from what JSON held.

    Raises:
        InputError: it is no card of a learngene that can be; ``where`` names the file or client.
    """
    if not isinstance(raw, Mapping):
        raise refuse(where, "not a learngene: its card is no JSON object")
    try:
        FORM.validate_python(raw)
    except ValidationError as error:
        raise refuse(where, f"not a learngene: the card's {first_problem(error)}") from None
    card = Card(**raw)  # the numbers as they stand there, for the sha256
    if problem := _problem(card) or misfit(card, card.shapes):
        raise refuse(where, problem)
    return card


def refuse(where: str, problem: str, fix: str = COPY_AGAIN) -> InputError:
    """The error for a learngene that cannot be used; ``where`` names its file or client. A number
    of a card may have hundreds of digits: the middle of a long problem is left out."""
    if len(problem) > 300:
        problem = f"{problem[:200]} ... {problem[-90:]}"
    return InputError("learngene.path", where, problem, fix)


def _problem(card: Card) -> str | None:
    """What is wrong across fields that are each what they can be, or None."""
    if card.schema != SCHEMA:
        return f"card of schema {card.schema}, this release reads {SCHEMA}"
    if card.layers != list(range(card.layers[0], card.layers[0] + len(card.layers))):
        return f"not a learngene: the card's layers {card.layers} are not consecutive"
    if problem := _front_problem(card):
        return f"not a learngene: the card's {problem}"
    sizes = {name: math.prod(shape) for name, shape in card.shapes.items()}
    top = sum(size for name, size in sizes.items() if name.startswith("top."))
    due = {"parameters": sum(sizes.values()), "bytes": 4 * sum(sizes.values())}
    for name, value in {**due, "top_layers_bytes": 4 * top}.items():
        if getattr(card, name) != value:
            return f"the card says {name}={getattr(card, name)}, its shapes make {value}"
    if due["bytes"] > ARRAYS_LIMIT:
        return f"{due['bytes']:,} bytes of arrays, at most {ARRAYS_LIMIT:,} are read"
    return None


def _front_problem(card: Card) -> str | None:
    """What is wrong with layers that have no stem before them, or with those that have one."""
    if card.stem != "none":
        if len(card.layers) >= LAYERS:
            return f"layers are {len(card.layers)}, behind a stem there are {LAYERS - 1} at most"
        said = [name for name in FRONT if getattr(card, name) is not None]
        return f"{said[0]} are of layers without a stem, its stem is {card.stem}" if said else None
    if card.layers[0] != 1:
        return f"layers {card.layers} need a stem: they do not begin with layer 1"
    if card.pools is None or any(not 1 <= place <= len(card.layers) for place in card.pools):
        return f"pools {card.pools} are no places among {len(card.layers)} layers"
    if card.image_side is not None and card.image_side >> len(card.pools) == 0:
        return f"pools are {len(card.pools)}: nothing is left of an image of side {card.image_side}"
    if (joined := card.joined) is not None:
        depth = len(card.layers)
        if joined != sorted({*joined}) or joined[-1] >= depth:
            return f"joined {joined} are no rising depths below {depth}"
        if depth not in dimensions_by_depth(card.shapes, depth):
            return f"joined {joined} stand beside no projection of all layers"
    sides = card.sides or []
    fits = len(sides) == len(card.layers)
    return None if fits else f"sides are {len(sides)}, its layers {len(card.layers)}"


def misfit(card: Card, shapes: Mapping[str, list[int]]) -> str | None:
    """Where ``shapes`` of arrays are not those of the individual that the card describes."""
    names = [f"top.{place}.conv.weight" for place in range(len(card.layers))]
    if missing := [name for name in names if name not in shapes]:
        return f"array {missing[0]} is missing"
    convs = [shapes[name] for name in names]
    for name, shape in zip(names, convs, strict=True):
        if len(shape) != 4 or shape[2:] != [3, 3]:
            return f"array {name} has shape {shape}, the network needs [.., .., 3, 3]"
        if max(shape) > CHANNELS_LIMIT:
            return f"array {name} has shape {shape}, at most {CHANNELS_LIMIT} channels are read"
    projected = {} if card.sides is None else dimensions_by_depth(shapes, len(convs))
    if projected and len(convs) not in projected:
        return f"array projection.{len(convs)}.matrix is missing"
    joined = {}
    for depth in card.joined or []:
        if (name := f"joined.{depth}.matrix") not in shapes:
            return f"array {name} is missing"
        joined[depth] = shapes[name][0]
    every = [*projected.values(), *joined.values()]
    if any(not 1 <= dimensions <= DIMENSIONS_LIMIT for dimensions in every):
        most = max(every)
        return f"a projection to {most} dimensions, {DIMENSIONS_LIMIT} can be at most"
    widths, sides = tuple(conv[0] for conv in convs), tuple(card.sides or ())
    c_in = card.channels if sides else convs[0][1]
    due = due_shapes(c_in, widths, sides, tuple(projected.items()), tuple(joined.items()))
    return shape_problem(shapes, due)


@lru_cache(maxsize=16)  # the clients of a process are sent few different learngenes
def due_shapes(
    c_in: int,
    widths: tuple[int, ...],
    sides: tuple[int, ...],
    projected: tuple[tuple[int, int], ...],
    joined: tuple[tuple[int, int], ...],
) -> Mapping[str, list[int]]:
    """Name and shape of every array that comes along, by the inherited layers' widths, the sides of
    their maps and (depth, dimensions) of the projections, each depth's own and joined ones."""
    parts: dict[str, torch.nn.Module] = {}
    with torch.device("meta"):  # shapes alone: no memory is taken
        parts["top"] = build_layers(c_in, widths)
        for depth, dimensions in projected:
            features = widths[depth - 1] * sides[depth - 1] ** 2
            parts[f"projection.{depth}"] = Projection(features, dimensions)
        for depth, dimensions in joined:
            features = widths[depth - 1] * joined_side(sides[depth - 1]) ** 2
            parts[f"joined.{depth}"] = Projection(features, dimensions)
    return {
        name: list(value.shape)
        for part, module in parts.items()
        for name, value in state_of(module, f"{part}.").items()
    }
