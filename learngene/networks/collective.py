"""The networks of the paper: the 13-layer collective and the seven-layer individual.

Every layer is a 3x3 convolution, BatchNorm and ReLU (appendix, figure 1). Layers are counted from
1, as in the paper. Widths are the paper's, times a scale.

The collective carries a *light path* beside its 13 layers: the individual's own stem, then a run
of the same convolutions (the top ones, unless asked otherwise). Both paths are trained at once, so
the layers that will be inherited grow up behind the stem that they will meet again (difference from
the paper, see docs/FIDELITY.md). The two paths share the convolutions and not the
normalisation: their activations differ in scale, and each keeps its own BatchNorm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.networks.layers import (
    FEATURE_SIDE,
    FRONT_SIDE,
    INDIVIDUAL_POOLS,
    LAYERS,
    NO_LIGHT_PATH,
    CosineHead,
    Unit,
    Units,
    build_stem,
    initialise,
)

COLLECTIVE_START = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256, 256)
COLLECTIVE_END = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
# Figure 6b's network, "the same capacity for each layer": one width everywhere. With 369 channels
# its convolutions have as many weights as those of COLLECTIVE_END (14.7 million).
COLLECTIVE_EQUAL = (369,) * 13
COLLECTIVE_POOLS = (2, 4, 7, 10, 13)  # a max-pool follows these layers


class LightPath(nn.Module):
    """What the individual has of its own while the collective grows: stem, norms and head.

    The convolutions of the shared run are the collective's and are handed to ``features``.
    """

    def __init__(
        self,
        stem: nn.Sequential,
        top_widths: Sequence[int],
        classes: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in top_widths)
        self.head = CosineHead(top_widths[-1] * FEATURE_SIDE**2, classes, generator)

    def features(self, x: Tensor, top: list[Unit]) -> Tensor:  # (B, C, H, W) -> (B, D)
        x = self.stem(x)
        first = len(self.stem) + 1
        for position, (unit, norm) in enumerate(zip(top, self.norms, strict=True), start=first):
            x = F.relu(norm(unit.conv(x)))
            if position in INDIVIDUAL_POOLS:
                x = F.max_pool2d(x, 2)
        return F.adaptive_avg_pool2d(x, FEATURE_SIDE).flatten(1)


class Collective(nn.Module):
    """Thirteen conv layers, a growing head, and (unless ``stem`` is fresh or none) the light path.

    Args:
        widths: channels of the 13 layers.
        classes: known classes at the start.
        stem: kind of the light path's stem; without one (``fresh``, the paper's form, and
            ``none``) there is no light path.
        shared: how many consecutive layers the light path shares.
        last: the last of these layers, 1..13; None = 13, the top. A run that begins with layer 1
            takes as many channels from the stem as an image has.
        width: scale of the stem's widths.
        generator: every initial weight is drawn from it.
        stem_generator: the stem's weights are drawn from this one instead (a seeded stem is drawn
            by factory and client alike, so nothing else may draw from its generator).

    Attributes:
        names: the layers' names, lowest first: ``1``..``13``, and after ``expansion.deepen`` also
            ``5b``, ``5c``, ... for the copies of layer 5 in the order in which they were made.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        classes: int,
        *,
        stem: str,
        shared: int,
        width: float,
        generator: torch.Generator,
        channels: int = 3,
        last: int | None = None,
        stem_generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        ins = (channels, *widths[:-1])
        self.units = Units(
            Unit(i, o, pool=n in COLLECTIVE_POOLS)
            for n, (i, o) in enumerate(zip(ins, widths, strict=True), start=1)
        )
        initialise(self.units, generator)
        self.head = CosineHead(widths[-1], classes, generator)
        self.names = [str(n) for n in range(1, len(widths) + 1)]
        self.stem_kind, self.shared, self.width = stem, shared, width
        last = len(widths) if last is None else last
        self.first = last - shared + 1  # of the shared run, counted from 1
        self.light: LightPath | None = None
        if stem not in NO_LIGHT_PATH:
            layers = build_stem(stem, LAYERS - shared, ins[self.first - 1], width, channels)
            initialise(layers, stem_generator or generator)
            self.light = LightPath(layers, widths[self.first - 1 : last], classes, generator)

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(unit.conv.out_channels for unit in self.units)

    @property
    def run(self) -> list[int]:
        """Numbers of the layers that both paths share, counted from 1 in the present depth."""
        return list(range(self.first, self.first + self.shared))

    @property
    def top(self) -> list[Unit]:
        """The layers that both paths share, lowest first (by default the collective's top)."""
        return [self.units[number - 1] for number in self.run]

    def features(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, widths[-1])
        for unit in self.units:
            x = unit(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def front_features(self, x: Tensor, depth: int, side: int) -> Tensor:
        """What the first ``depth`` layers see: (B, C, H, W) -> (B, channels * side**2)."""
        for unit in list(self.units)[:depth]:
            x = unit(x)
        return F.adaptive_avg_pool2d(x, side).flatten(1)

    def front_side(self, image_side: int, depth: int) -> int:
        """Rows and columns that the map of the first ``depth`` layers is pooled to."""
        pools = sum(unit.pool for unit in list(self.units)[:depth])
        return max(1, min(FRONT_SIDE, image_side >> pools))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, known classes)
        return self.head(self.features(x))

    def light_logits(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, known classes)
        assert self.light is not None, "this collective has no light path"
        return self.light.head(self.light.features(x, self.top))
