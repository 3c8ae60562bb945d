"""The individual: seven conv layers around those that it inherits (Algorithm 1, RECONSTRUCT)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, Strict
from torch import Tensor, nn

from learngene.networks.layers import (
    FEATURE_SIDE,
    INDIVIDUAL_POOLS,
    INDIVIDUAL_WIDTHS,
    LAYERS,
    Unit,
    build_layers,
    evaluation_mode,
    identity_unit,
    initialise,
    scaled,
)
from learngene.networks.projection import Projection
from learngene.utils.settings import Limits, check_value

HEADS = ("prototype", "mlp")
FC_WIDTH = 1024  # the paper's fully connected layers, at width 1
NORM_IMAGES = 1024  # that norms are measured on, at most: they pass together
DEPTH_LIMIT = 500  # layers of a collective
SIDE_LIMIT = 64  # rows and columns of a map of features
DIMENSIONS_LIMIT = 100_000  # of a projection: one less than the factory has classes

# What numbers of a file may be; calls of ours are not held to it.
Whole = Annotated[int, Strict()]  # no bool, no 3.0
Layer = Annotated[Whole, Field(ge=1, le=DEPTH_LIMIT)]
MapSide = Annotated[Whole, Field(ge=1, le=SIDE_LIMIT)]
Dimensions = Annotated[Whole, Field(ge=1, le=DIMENSIONS_LIMIT)]


class PrototypeHead(nn.Module):
    """Cosine classifier that starts from the class means of the shard's features.

    Features are brought to length 1, moved by their mean over the shard and brought to length 1
    again; a class weight is the mean of its images. With these weights the head is a
    nearest-prototype classifier before any training; weights, centre and scale can then be trained.
    """

    centre: Tensor

    def __init__(self, features: int, ways: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(ways, features))
        self.register_buffer("centre", torch.zeros(features))
        self.scale = nn.Parameter(torch.tensor(10.0))

    def _embed(self, features: Tensor) -> Tensor:
        return F.normalize(F.normalize(features) - self.centre)

    @torch.no_grad()
    def start(self, features: Tensor, labels: Tensor) -> None:
        """Set centre and class means from (N, D) features and (N,) labels 0..ways-1."""
        self.centre.copy_(F.normalize(features).mean(0))
        embedded = self._embed(features)
        for way in range(len(self.weight)):
            self.weight[way] = F.normalize(embedded[labels == way].mean(0), dim=0)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to logits (B, ways)."""
        return self.scale * F.linear(self._embed(features), F.normalize(self.weight))


def mlp_head(features: int, ways: int, width: float) -> nn.Sequential:
    """The paper's classifier: FC 1024, FC 1024, FC ways, the 1024 scaled with the network."""
    hidden = max(8, round(FC_WIDTH * width))
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, ways),
    )


@dataclass(frozen=True)
class Joined:
    """A shallower prefix, whose projected features are read beside those of all layers; its map is
    pooled further than an individual's own (``FEATURE_SIDE``), for a quarter of the bytes."""

    depth: Layer  # its layers
    side: MapSide  # their map is pooled to so many rows and columns
    dimensions: Dimensions  # of its projection


@dataclass(frozen=True)
class Front:
    """What an individual that begins with the collective's first layers must know of them."""

    # which of the inherited layers end with a pool, counted from 1
    pools: Annotated[tuple[Layer, ...], Field(max_length=DEPTH_LIMIT)]
    side: MapSide  # their map is pooled to so many rows and columns
    dimensions: Dimensions | None  # of the projection; None: there is none
    # where there is one
    joined: Annotated[tuple[Joined, ...], Field(max_length=DEPTH_LIMIT)] = ()


@dataclass(frozen=True)
class Form:
    """What an individual was built by: arguments of ``Individual``, which says what they are."""

    ways: int
    width: float
    head: str
    inherited: int = 0
    channels: int = 3
    c_in: int | None = None
    top_widths: tuple[int, ...] | None = None
    front: Front | None = None
    block: str = "plain"


class Individual(nn.Module):
    """Stem, inherited layers, classifier: images (B, C, H, W) to logits (B, ways).

    Source: the paper's Algorithm 1 (RECONSTRUCT); widths and pools from its appendix, figure 1.

    With ``front`` there is no stem: the inherited layers are the collective's first ones, with its
    pools. Layers of the individual's own follow up to seven in all and start as the identity, then
    the projection that came along: before any training it computes what was inherited. Projected
    features of several depths stand side by side, each part brought to length 1. Without ``front``
    the stem is random, as in the paper; with nothing inherited it is all seven layers.

    Args:
        ways: number of classes.
        width: factor of the paper's channels, 64 to 512, and of the MLP's 1024.
        channels: of the images.
        inherited: number of layers after the stem; the stem has the rest of the seven.
        top_widths: channels of the inherited layers' outputs; None = the paper's times ``width``.
        c_in: channels that the first inherited layer takes; None = the paper's times ``width``.
        head: ``prototype`` or ``mlp``.
        generator: every initial weight is drawn from it.
        front: of inherited layers that begin with the collective's first.
        block: of all layers but those that start as the identity, one of ``layers.BLOCKS``.

    Raises:
        InputError: there is no such head.
    """

    def __init__(
        self,
        *,
        ways: int,
        width: float,
        head: str,
        generator: torch.Generator,
        inherited: int = 0,
        channels: int = 3,
        c_in: int | None = None,
        top_widths: tuple[int, ...] | None = None,
        front: Front | None = None,
        block: str = "plain",
    ) -> None:
        super().__init__()
        check_value("head", head, Limits(choices=HEADS))
        self.form = Form(ways, width, head, inherited, channels, c_in, top_widths, front, block)
        self.channels = channels
        self.own, self.projection = nn.Sequential(), nn.Sequential()
        self.joined, self.joined_sides = nn.ModuleDict(), dict[int, int]()  # by depth
        if front is None:
            stem_layers = LAYERS - inherited
            paper = scaled(INDIVIDUAL_WIDTHS, width)
            tops = top_widths or paper[stem_layers:]
            c_in = c_in or paper[stem_layers - 1]
            stem_widths = (*paper[: stem_layers - 1], c_in)
            self.stem = nn.Sequential(*build_layers(channels, stem_widths, INDIVIDUAL_POOLS, block))
            self.top = build_layers(c_in, tops, block=block)
            self.side = FEATURE_SIDE
        else:
            assert top_widths is not None, "what is inherited has widths"
            tops, self.stem, self.side = top_widths, nn.Sequential(), front.side
            self.top = build_layers(channels, tops, front.pools, block)
        features = self.layers[-1].conv.out_channels * self.side**2
        if front is not None and front.dimensions is not None:
            self.projection.add_module(str(inherited), Projection(features, front.dimensions))
            features = front.dimensions
            for each in front.joined:
                seen = tops[each.depth - 1] * each.side**2
                self.joined[str(each.depth)] = Projection(seen, each.dimensions)
                self.joined_sides[each.depth] = each.side
                features += each.dimensions
        self.feature_count = features
        self.head: nn.Module = PrototypeHead(features, ways)
        if head == "mlp":
            self.head = mlp_head(features, ways, width)
        initialise(self, generator)
        if front is not None:  # after the drawing, which would undo the identity
            self.own.extend(identity_unit(tops[-1]) for _ in range(inherited, LAYERS))

    @property
    def layers(self) -> list[Unit]:
        """All conv layers, lowest first."""
        parts = (*self.stem, *self.top, *self.own)
        return [unit for unit in parts if isinstance(unit, Unit)]

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to what the classifier sees, (B, D)."""
        x, parts = self.stem(x), list[Tensor]()
        for depth, unit in enumerate(self.top, start=1):
            x = unit(x)
            if (side := self.joined_sides.get(depth)) is not None:
                seen = F.adaptive_avg_pool2d(x, side).flatten(1)
                parts.append(self.joined[str(depth)](seen))
        x = self.projection(F.adaptive_avg_pool2d(self.own(x), self.side).flatten(1))
        return torch.cat([F.normalize(part) for part in (*parts, x)], 1) if parts else x

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, ways)."""
        return self.head(self.features(x))


@torch.no_grad()
def measure_norms(part: nn.Module, run: nn.Module, x: Tensor, draws: torch.Generator) -> None:
    """Set the running statistics of the norms in ``part`` to those of ``x`` sent through ``run``.

    A stem that is drawn and not inherited has never seen an image: its statistics are measured on
    the shard before anything is trained. Of more than ``NORM_IMAGES`` images so many are drawn.
    """
    if len(x) > NORM_IMAGES:
        x = x[torch.randperm(len(x), generator=draws)[:NORM_IMAGES].to(x.device)]
    norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    with evaluation_mode(run):
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        run(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
