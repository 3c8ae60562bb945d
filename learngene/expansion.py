"""Growth of the collective (figure 2, Eq. 1): layers widen by spliced copies of their channels.

A copied channel gives the same activations as its original. So that the next layer sees the same
sum, the group of n equal channels (the original and its copies) is scaled by 1/sqrt(n) on the way
out (in the affine part of BatchNorm) and by 1/sqrt(n) on the way in (in the next layer's weights).
Splitting the factor between the two sides also keeps the length of the last layer's features,
hence the cosine classifiers: the function before and after is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from learngene.networks import (
    COLLECTIVE_END,
    COLLECTIVE_START,
    FEATURE_SIDE,
    Collective,
    CosineHead,
    Unit,
    scaled,
)

# The released code's 20 steps between 21 tasks: (layer, channels added at width 1).
STEPS: tuple[tuple[int, int], ...] = (
    *((layer, 64) for layer in (3, 4, 5, 5, 6, 6, 7, 7)),
    *((layer, 128) for layer in (8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13)),
)


@dataclass(frozen=True)
class Growth:
    """One widening: ``layer`` (counted from 1) grows to ``width`` channels before ``task``."""

    task: int
    layer: int
    width: int


def growth_plan(tasks: int, scale: float, *, grow: bool, pinned: Sequence[int] = ()) -> tuple[
    tuple[int, ...], list[Growth]
]:  # fmt: skip
    """Widths at the start, and the widenings between ``tasks`` tasks.

    The 20 steps are spread evenly over the transitions, in the released code's order. Without
    growth, or with one task, the collective has its final widths from the start. ``pinned``
    layers do, too: a frozen random stem has no copies to make, so the collective's layer at the
    same place cannot widen along with it.
    """
    if not grow or tasks < 2:
        return scaled(COLLECTIVE_END, scale), []
    now = list(COLLECTIVE_START)
    for layer in pinned:
        now[layer - 1] = COLLECTIVE_END[layer - 1]
    start = scaled(tuple(now), scale)
    steps = [step for step in STEPS if step[0] not in pinned]
    plan = []
    for number, (layer, add) in enumerate(steps):
        now[layer - 1] += add
        task = 1 + number * (tasks - 1) // len(steps)
        plan.append(Growth(task, layer, scaled((now[layer - 1],), scale)[0]))
    return start, plan


def widen(
    collective: Collective,
    layer: int,
    width: int,
    generator: np.random.Generator,
    noise: float = 0.0,
) -> np.ndarray:
    """Widen ``layer`` (counted from 1) to ``width`` channels in place; both paths are kept.

    Randomly chosen channels are copied and spliced to the end. With ``noise`` > 0 the copied
    filters are disturbed by that many standard deviations of the layer's weights, so that a copy
    and its original can part; with 0 the function is the same up to rounding.

    Returns:
        The channels that were copied, int64 (width - old width,).

    Raises:
        ValueError: when ``width`` is smaller than the layer is.
    """
    units = collective.units
    unit = units[layer - 1]
    old = unit.conv.out_channels
    if width < old:
        raise ValueError(f"layer {layer} has {old} channels and cannot widen to {width}")
    picks = generator.choice(old, width - old, replace=width - old > old)
    index = torch.from_numpy(np.concatenate([np.arange(old), picks]))
    factor = torch.bincount(index, minlength=old)[index].float().rsqrt()

    producers = [(unit.conv, unit.norm)]
    shared_from = len(units) - collective.shared + 1
    light = collective.light
    if light is not None and layer == shared_from - 1:
        last = light.stem[-1]
        assert isinstance(last, Unit)
        producers.append((last.conv, last.norm))
    for conv, norm in producers:
        _splice_outputs(conv, index, noise, old, generator)
        _splice_norm(norm, index, factor)
    if light is not None and layer >= shared_from:
        own = light.norms[layer - shared_from]
        assert isinstance(own, nn.BatchNorm2d)
        _splice_norm(own, index, factor)

    if layer < len(units):
        _splice_inputs(units[layer].conv, index, factor)
    else:
        _splice_head(collective.head, index, factor, positions=1)
        if light is not None:
            _splice_head(light.head, index, factor, positions=FEATURE_SIDE**2)
    return picks


def _splice_outputs(
    conv: nn.Conv2d, index: Tensor, noise: float, old: int, generator: np.random.Generator
) -> None:
    weight = conv.weight.data[index].clone()
    if noise > 0:
        drawn = generator.standard_normal(weight[old:].shape, dtype=np.float32)
        weight[old:] += noise * float(weight.std()) * torch.from_numpy(drawn).to(weight)
    _set_weight(conv, weight)
    conv.out_channels = len(index)


def _splice_inputs(conv: nn.Conv2d, index: Tensor, factor: Tensor) -> None:
    weight = conv.weight.data[:, index] * factor.to(conv.weight).view(1, -1, 1, 1)
    _set_weight(conv, weight)
    conv.in_channels = len(index)


def _splice_norm(norm: nn.BatchNorm2d, index: Tensor, factor: Tensor) -> None:
    scale = factor.to(norm.weight)
    norm.weight = nn.Parameter(norm.weight.data[index] * scale)
    norm.bias = nn.Parameter(norm.bias.data[index] * scale)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean = norm.running_mean[index].clone()
    norm.running_var = norm.running_var[index].clone()
    norm.num_features = len(index)


def _splice_head(head: CosineHead, index: Tensor, factor: Tensor, positions: int) -> None:
    classes = head.weight.shape[0]
    by_channel = head.weight.data.view(classes, -1, positions)  # (classes, channels, positions)
    grown = by_channel[:, index] * factor.to(by_channel).view(1, -1, 1)
    head.weight = nn.Parameter(grown.reshape(classes, -1))


def _set_weight(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
