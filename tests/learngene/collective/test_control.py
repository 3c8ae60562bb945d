"""The control: layers that have learned nothing, behind others that have."""

from __future__ import annotations

import numpy as np
import torch

from learngene.collective.control import IMAGES, with_random_layers
from learngene.data.augment import to_batch
from learngene.seeding import torch_generator


def test_the_norms_of_a_control_are_measured_behind_what_was_learned(evolved):
    control = with_random_layers(evolved, [12, 13])
    for unit, theirs in zip(control.collective.units, evolved.collective.units, strict=True):
        drawn = unit in control.collective.units[11:]
        assert torch.equal(unit.conv.weight, theirs.conv.weight) != drawn
        assert torch.equal(unit.norm.running_mean, theirs.norm.running_mean) != drawn
    fresh = torch.empty_like(control.collective.units[11].conv.weight)
    fan = fresh.shape[0] * 9
    torch.nn.init.normal_(
        fresh, std=(2 / fan) ** 0.5, generator=torch_generator(5, "random-layers")
    )
    assert torch.equal(control.collective.units[11].conv.weight, fresh)
    rows = np.concatenate([its[: IMAGES // len(evolved.known)] for its in evolved.held_rows()])
    x = to_batch(evolved.dataset.train_images[rows])
    with torch.no_grad():
        for unit in list(evolved.collective.eval().units)[:11]:
            x = unit(x)
        seen = control.collective.units[11].conv(x)
    norm = control.collective.units[11].norm
    assert torch.equal(norm.weight, torch.ones_like(norm.weight)) and not norm.bias.any()
    assert norm.momentum == evolved.collective.units[11].norm.momentum
    assert torch.allclose(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, seen.var((0, 2, 3)), atol=1e-4)
