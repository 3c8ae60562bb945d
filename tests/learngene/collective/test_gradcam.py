"""Grad-CAM: against the definition by hand, on a network whose answer is known, and its layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from learngene.collective.gradcam import choose_layer, grad_cam
from learngene.networks.collective import Collective
from tests.helpers import shake, torch_rng

WIDTHS = (4,) * 13


def made() -> Collective:
    collective = Collective(WIDTHS, 5, width=0.0625, generator=torch_rng(1))
    return shake(collective).eval()  # type: ignore[return-value]


@pytest.mark.parametrize(("side", "layer"), [(84, 13), (64, 13), (63, 10), (32, 10), (16, 7)])
def test_the_deepest_layer_with_four_positions_a_side(side: int, layer: int) -> None:
    collective = made()
    assert choose_layer(collective, side) == layer
    seen: list[tuple[int, ...]] = []
    hook = collective.units[layer - 1].relu.register_forward_hook(
        lambda module, given, out: seen.append(tuple(out.shape[2:]))
    )
    with torch.no_grad():
        x = torch.zeros(1, 3, side, side)
        for unit in list(collective.units)[:layer]:
            x = unit(x)
    hook.remove()
    assert min(seen[0]) >= 4


def test_it_is_the_definition() -> None:
    """ReLU of the sum of maps, each weighted by the mean gradient of the predicted logit."""
    collective, layer = made(), 10
    x = torch.randn(6, 3, 32, 32, generator=torch_rng(2))
    maps, predicted = grad_cam(collective, x, layer)
    activation = x
    for unit in list(collective.units)[:layer]:
        shape = activation
        activation = unit(activation)
    unit = collective.units[layer - 1]
    activation = F.relu(unit.norm(unit.conv(shape))).detach().requires_grad_()
    out = F.max_pool2d(activation, 2)
    for above in list(collective.units)[layer:]:
        out = above(out)
    logits = collective.head(F.adaptive_avg_pool2d(out, 1).flatten(1))
    assert torch.equal(predicted, logits.argmax(1))
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), [activation])
    weights = gradient.mean((2, 3), keepdim=True)
    coarse = F.relu((weights * activation).sum(1, keepdim=True)).detach()
    due = F.interpolate(coarse, (32, 32), mode="bilinear", align_corners=False)[:, 0]
    peak = due.amax((1, 2), keepdim=True)
    assert (peak > 0).any()
    due = torch.where(peak > 0, due / peak, 0.0)
    assert maps.shape == (6, 32, 32)
    assert torch.allclose(maps, due, atol=1e-4)
    assert float(maps.min()) >= 0 and float(maps.max()) == pytest.approx(1)


def test_it_finds_the_corner_that_decides() -> None:
    """Layers that pass their input on: red below left speaks for the class, green against it."""
    collective = made()
    with torch.no_grad():
        for unit in collective.units:
            unit.conv.weight.zero_()
            for c in range(4):
                unit.conv.weight[c, c % unit.conv.in_channels, 1, 1] = 1.0
            norm = unit.norm
            norm.weight.fill_(1), norm.bias.zero_()
            norm.running_mean.zero_(), norm.running_var.fill_(1)
        collective.head.weight.fill_(-1)
        collective.head.weight[2] = torch.tensor([1.0, 0.2, 0.1, 0.3])
    x = torch.full((1, 3, 32, 32), -1.0)
    x[:, 0, 24:, :8] = 2.0
    x[:, 1, :8, 24:] = 1.0
    maps, predicted = grad_cam(collective, x, 10)
    assert predicted.tolist() == [2]
    row, column = divmod(int(maps[0].argmax()), 32)
    assert row >= 24 and column < 8
    assert float(maps[0, :12, 16:].max()) < 0.05


def test_nothing_speaks_for_the_class_gives_zeros_not_nan() -> None:
    collective = made()
    with torch.no_grad():
        collective.head.scale.zero_()
    maps, _ = grad_cam(collective, torch.randn(2, 3, 32, 32, generator=torch_rng(3)), 10)
    assert float(maps.abs().max()) == 0


def test_the_collective_and_the_images_stay_as_they_were() -> None:
    collective = made().train()
    collective.units[3].eval()
    x = torch.randn(2, 3, 32, 32, generator=torch_rng(4))
    copy, state = x.clone(), {k: v.clone() for k, v in collective.state_dict().items()}
    modes = [module.training for module in collective.modules()]
    with torch.no_grad():  # a caller that wants no gradients still gets maps
        maps, _ = grad_cam(collective, x, 10)
    assert float(maps.max()) > 0
    assert modes == [module.training for module in collective.modules()]
    assert all(torch.equal(v, state[k]) for k, v in collective.state_dict().items())
    assert all(p.grad is None for p in collective.parameters())
    assert torch.equal(x, copy) and not x.requires_grad
    assert not collective.units[9].relu._forward_hooks
