"""The networks against the table of facts.md."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from learngene.networks.collective import COLLECTIVE_END, COLLECTIVE_START, Collective
from learngene.networks.layers import CosineHead, Unit, initialise, scaled
from tests.helpers import CPU, torch_rng

START = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256, 256)
END = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def collective(widths: tuple[int, ...], seed: int = 0) -> Collective:
    return Collective(widths, 6, width=0.0625, generator=torch_rng(seed))


def shapes(units: list[nn.Module], x: torch.Tensor) -> list[tuple[int, ...]]:
    found = []
    for unit in units:
        x = unit(x)
        found.append(tuple(x.shape[1:]))
    return found


def test_widths_of_the_paper():
    assert COLLECTIVE_START == START and COLLECTIVE_END == END


def test_scaled_widths_are_at_least_four():
    assert scaled((64, 128, 512), 0.25) == (16, 32, 128)
    assert scaled((64, 128, 512), 0.01) == (4, 4, 5)


def test_collective_has_thirteen_3x3_layers_and_pools_after_2_4_7_10_13():
    made = collective(scaled(END, 0.0625))
    assert len(made.units) == 13 and made.widths == (4, 4, 8, 8, 16, 16, 16, *[32] * 6)
    assert [unit.conv.in_channels for unit in made.units] == [3, 4, 4, 8, 8, 16, 16, 16, *[32] * 5]
    assert {unit.conv.kernel_size for unit in made.units} == {(3, 3)}
    # a pool halves the side of what the layer gives: 32 -> 16 8 4 2 1
    found = shapes(made.units, torch.zeros(1, 3, 32, 32))
    assert [s[1] for s in found] == [32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1]


def test_shapes_alone_draw_no_number():
    """Whoever looks at a card's shapes would draw, for a card that lies, gigabytes."""
    generator = torch_rng()
    before = generator.get_state()
    with torch.device("meta"):
        made = Collective(scaled(END, 0.0625), 6, width=0.0625, generator=generator)
    assert made.units[0].conv.weight.is_meta and torch.equal(generator.get_state(), before)


def test_a_residual_layer_adds_its_input_before_the_relu_where_widths_are_equal():
    plain, residual = (
        Collective(scaled(END, 0.0625), 6, width=0.0625, generator=torch_rng(), block=block)
        for block in ("plain", "residual")
    )
    residual.load_state_dict(plain.state_dict())  # the same arrays
    skips = [unit.skips for unit in residual.units]
    assert skips == [n in (2, 4, 6, 7, 9, 10, 11, 12, 13) for n in range(1, 14)]
    assert not any(unit.skips for unit in plain.units)
    unit = residual.units[1].eval()  # with a pool behind it
    x = torch.randn(2, 4, 6, 6, generator=torch_rng(1))
    with torch.no_grad():
        due = nn.functional.max_pool2d((unit.norm(unit.conv(x)) + x).clamp(min=0), 2)
        assert torch.equal(unit(x), due)


def test_a_layer_is_convolution_norm_relu_in_that_order():
    unit = Unit(1, 1, pool=True).eval()
    with torch.no_grad():
        unit.conv.weight.zero_()[0, 0, 1, 1] = 2.0
        unit.norm.running_mean.fill_(1.0)
        unit.norm.running_var.fill_(4.0 - unit.norm.eps)
        unit.norm.weight.fill_(3.0)
        unit.norm.bias.fill_(0.5)
    x = torch.tensor([[[[1.0, -4.0], [0.0, 2.0]]]])
    # 2x = 2 -8 0 4; (2x - 1) / 2 * 3 + 0.5 = 2 -13 -1 5; ReLU, then the largest of four
    with torch.no_grad():
        assert unit(x).item() == pytest.approx(5.0)
        assert unit(-x).item() == pytest.approx((8 - 1) / 2 * 3 + 0.5)
        assert unit(torch.full_like(x, -1.0)).item() == 0.0


def test_he_initialisation():
    conv = nn.Conv2d(64, 32, 3)
    linear = nn.Linear(300, 200)
    initialise(nn.ModuleList([conv, linear]), torch_rng())
    assert float(conv.weight.detach().std()) == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.05)
    assert float(linear.weight.detach().std()) == pytest.approx(math.sqrt(2 / 300), rel=0.05)
    assert linear.bias.tolist() == [0.0] * 200


def test_weights_depend_on_the_generator_alone():
    torch.rand(3)  # global state moves on
    first = collective(scaled(START, 0.0625), 1)
    torch.rand(3)
    again = collective(scaled(START, 0.0625), 1)
    other = collective(scaled(START, 0.0625), 2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(first.units[1].conv.weight, other.units[1].conv.weight)


def test_cosine_head_by_hand():
    head = CosineHead(2, 2, torch_rng())
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[5.0, 0.0], [3.0, 4.0]]))
        head.scale.fill_(10.0)
    x = torch.tensor([[0.0, 7.0], [2.0, 0.0]])
    assert torch.allclose(head(x), torch.tensor([[0.0, 8.0], [10.0, 6.0]]))


def test_cosine_head_grows_behind_the_old_logits():
    head, x = CosineHead(8, 3, torch_rng()), torch.randn(5, 8, generator=torch_rng(1))
    before = head(x)
    head.grow(2, torch_rng(2))
    assert head(x).shape == (5, 5)
    assert torch.equal(head(x)[:, :3], before)
    assert head.weight.requires_grad
    assert not torch.equal(head.weight[3], head.weight[4])


def test_weights_are_drawn_where_the_generator_is():
    """One of the CPU draws nothing on a GPU: a layer there is given what was drawn."""
    drawn, draw = list[torch.device](), nn.init.normal_
    with FakeTensorMode():
        layer = nn.Linear(3, 2, device="cuda")
        with patch.object(
            nn.init, "normal_", lambda t, **k: (drawn.append(t.device), draw(t, **k))[1]
        ):
            initialise(layer, torch_rng())
    assert layer.weight.is_cuda and drawn == [CPU]
