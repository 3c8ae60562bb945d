"""The paper's 13-layer collective; ``individual.py`` has the seven-layer individual.

Every layer is a 3x3 convolution, BatchNorm and ReLU (appendix, figure 1). Layers are counted from
1, as in the paper. Widths are the paper's, times a scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.networks.layers import FRONT_SIDE, CosineHead, build_layers, initialise

COLLECTIVE_START = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256, 256)
COLLECTIVE_END = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
# Figure 6b's network, "the same capacity for each layer": one width everywhere. With 369 channels
# its convolutions have as many weights as those of COLLECTIVE_END (14.7 million).
COLLECTIVE_EQUAL = (369,) * 13
COLLECTIVE_POOLS = (2, 4, 7, 10, 13)  # a max-pool follows these layers


class Collective(nn.Module):
    """Thirteen conv layers of ``widths``, the paper's times ``width``, and a growing head.

    Attributes:
        names: the layers' names, lowest first: ``1``..``13``, and after ``growth.deepen`` also
            ``5b``, ``5c``, ... for the copies of layer 5 in the order in which they were made.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        classes: int,
        *,
        width: float,
        generator: torch.Generator,
        channels: int = 3,
        block: str = "plain",
    ) -> None:
        super().__init__()
        self.units = build_layers(channels, widths, COLLECTIVE_POOLS, block)
        initialise(self.units, generator)
        self.head = CosineHead(widths[-1], classes, generator)
        self.names = [str(n) for n in range(1, len(widths) + 1)]
        self.width = width
        self.block = block  # of ``BLOCKS``

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each layer, lowest first."""
        return tuple(unit.conv.out_channels for unit in self.units)

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, widths[-1]), pooled over the map."""
        for unit in self.units:
            x = unit(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)

    def prefix_features(
        self, x: Tensor, depth: int | None = None, most: int = FRONT_SIDE
    ) -> list[Tensor]:
        """What every prefix of the first ``depth`` layers sees of (B, C, H, W), in one pass:
        (B, channels · side²) each, side at most ``most``."""
        image_side, seen = x.shape[2], []
        for number, unit in enumerate(list(self.units)[:depth], start=1):
            x = unit(x)
            side = self.front_side(image_side, number, most)
            seen.append(F.adaptive_avg_pool2d(x, side).flatten(1))
        return seen

    def front_side(self, image_side: int, depth: int, most: int = FRONT_SIDE) -> int:
        """Rows and columns that the map of the first ``depth`` layers is pooled to."""
        pools = sum(unit.pool for unit in list(self.units)[:depth])
        return max(1, min(most, image_side >> pools))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, known classes)."""
        return self.head(self.features(x))
