"""Building blocks of the networks: conv units, stems, heads, and the paper's widths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

INDIVIDUAL_WIDTHS = (64, 128, 256, 512, 512, 512, 512)
LAYERS = len(INDIVIDUAL_WIDTHS)
INDIVIDUAL_POOLS = (1, 2, 3, 7)
BLOCKS = ("plain", "residual")  # of the layers, see ``Unit``
STEMS = ("none", "fresh")  # in front of what is inherited: nothing, or random layers (the paper)
CHANNELS_LIMIT = 8192  # of a layer, at most: sixteen times the paper's widest
FEATURE_SIDE = 2  # the individual's features are pooled to 2 x 2 positions
FRONT_SIDE = 4  # those of the collective's first layers to 4 x 4, where their maps are as large


def scaled(widths: tuple[int, ...], scale: float) -> tuple[int, ...]:
    """The paper's widths times ``scale``, at least 4 channels each."""
    return tuple(max(4, round(width * scale)) for width in widths)


class Unit(nn.Module):
    """A 3x3 convolution, BatchNorm, ReLU, and a 2x2 max-pool where the layer has one.

    With ``block=residual`` a layer of as many channels in as out is a residual block (He et al.,
    CVPR 2016): its input is added before the ReLU. It has the arrays of a plain one.
    """

    def __init__(self, c_in: int, c_out: int, *, pool: bool, block: str = "plain") -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU()  # a module: collective.gradcam looks at what comes out of it
        self.pool = pool
        self.skips = block == "residual" and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H, W), half of H and W behind a pool."""
        y = self.norm(self.conv(x))
        x = self.relu(y + x if self.skips else y)
        return F.max_pool2d(x, 2) if self.pool else x


class Units(nn.ModuleList):
    """A ``ModuleList`` whose elements are known to be units."""

    def __iter__(self) -> Iterator[Unit]:
        return super().__iter__()  # type: ignore[return-value]

    def __getitem__(self, index: int) -> Unit:  # type: ignore[override]
        return super().__getitem__(index)  # type: ignore[return-value]


class CosineHead(nn.Module):
    """Classifier on the cosine between features and class weights, times a learned scale.

    Its logits do not favour the classes with the longest weights, which are the newest ones in
    class-incremental training, and prototypes (class means) are weights of the same kind.
    """

    def __init__(self, features: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.scale = nn.Parameter(torch.tensor(10.0))
        nn.init.normal_(self.weight, std=1 / math.sqrt(features), generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to logits (B, classes)."""
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Append ``classes`` new random class weights; the old logits do not change."""
        fresh = torch.empty(classes, self.weight.shape[1])
        nn.init.normal_(fresh, std=1 / math.sqrt(fresh.shape[1]), generator=generator)
        weight = torch.cat([self.weight.data, fresh.to(self.weight)])
        self.weight = nn.Parameter(weight)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, then each of its parts back into the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def state_of(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Weights and statistics by name; batch counters are of no use to a client."""
    return {
        prefix + name: value
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def arrays_of(module: nn.Module, prefix: str = "") -> dict[str, np.ndarray]:
    """Weights and statistics as float32 arrays: copies, the module may be trained on."""
    return {
        name: np.array(value.detach().float().cpu().numpy(), order="C")
        for name, value in state_of(module, prefix).items()
    }


def shape_problem(
    shapes: Mapping[str, Sequence[int]], due: Mapping[str, Sequence[int]]
) -> str | None:
    """The first array that is missing, has no place or another shape than is due, in words."""
    for name in sorted(due.keys() | shapes.keys()):
        if name not in shapes:
            return f"array {name[:80]} is missing"
        if name not in due:
            return f"array {name[:80]} has no place in the network"
        if (shape := list(shapes[name])) != (needed := list(due[name])):
            return f"array {name} has shape {shape}, the network needs {needed}"
    return None


def load_arrays(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Load ``arrays``, whose names and shapes are known to fit; what they lack stays as it is."""
    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    module.load_state_dict(state, strict=False)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """He initialisation of every convolution and linear layer, from one generator, in order:
    the same numbers on every device; shapes alone (``meta``) stay shapes alone."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and not part.weight.is_meta:
            if isinstance(part, nn.Conv2d):  # BatchNorm follows: the backward pass counts
                fan = part.weight.shape[0] * part.weight[0, 0].numel()
            else:  # nothing rescales a classifier's layers: the forward pass counts
                fan = part.in_features
            drawn = torch.empty_like(part.weight, device=generator.device)
            nn.init.normal_(drawn, std=math.sqrt(2 / fan), generator=generator)
            part.weight.data.copy_(drawn)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def build_layers(
    c_in: int, widths: Sequence[int], pools: Sequence[int] | None = None, block: str = "plain"
) -> Units:
    """Layers in a row with ``widths`` channels, weights not yet drawn.

    Args:
        c_in: channels that the first one takes.
        pools: which of them end with a pool, counted from 1; None: as the last of the paper's
            seven do.
    """
    if pools is None:
        pools = [n - LAYERS + len(widths) for n in INDIVIDUAL_POOLS]
    return Units(
        Unit(i, o, pool=n in pools, block=block)
        for n, (i, o) in enumerate(pairwise((c_in, *widths)), start=1)
    )


def identity_unit(channels: int) -> Unit:
    """A layer that hands on what it is given, which must not be negative, until it is trained."""
    unit = Unit(channels, channels, pool=False)
    nn.init.dirac_(unit.conv.weight)
    nn.init.constant_(unit.norm.weight, math.sqrt(1 + unit.norm.eps))  # undoes mean 0, variance 1
    return unit
