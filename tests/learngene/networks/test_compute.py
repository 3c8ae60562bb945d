"""Multiply-adds: by hand, and against torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from learngene.networks.compute import multiply_adds
from tests.clients.helpers import make_individual


def test_a_layer_by_hand():
    conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert multiply_adds(conv, 3, 10) == 10 * 10 * 8 * 3 * 9
    grouped = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4)
    assert multiply_adds(torch.nn.Sequential(grouped, torch.nn.Flatten(), torch.nn.Linear(64, 5)),
                         4, 4) == 4 * 4 * 4 * 9 + 64 * 5  # fmt: skip


@pytest.mark.parametrize("side", [32, 40])
def test_a_network_as_torchs_counter_has_it(side):
    network = make_individual(head="mlp")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.eval()(torch.zeros(1, 3, side, side))
    assert multiply_adds(network.train(), 3, side) == counter.get_total_flops() // 2
    assert network.training  # and no norm has seen the image
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
