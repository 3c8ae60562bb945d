"""The individual: shapes, prototypes by hand, measured norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from learngene.networks.individual import (
    LAYERS,
    NORM_IMAGES,
    Individual,
    PrototypeHead,
    measure_norms,
    mlp_head,
)
from learngene.networks.layers import evaluation_mode
from tests.helpers import torch_rng


def shapes(units: list[nn.Module], x: torch.Tensor) -> list[tuple[int, ...]]:
    found = []
    for unit in units:
        x = unit(x)
        found.append(tuple(x.shape[1:]))
    return found


@pytest.mark.parametrize(
    ("side", "sides"),
    [(32, [16, 8, 4, 4, 4, 4, 2]), (84, [42, 21, 10, 10, 10, 10, 5])],
)
@pytest.mark.parametrize("inherited", [0, 3])
def test_individual_pools_after_1_2_3_7(side, sides, inherited):
    made = Individual(inherited=inherited, ways=5, width=0.0625, head="mlp", generator=torch_rng())
    x = torch.randn(2, 3, side, side, generator=torch_rng())
    found = shapes(made.layers, x)
    assert [s[0] for s in found] == [4, 8, 16, 32, 32, 32, 32]  # 64 128 256 512 512 512 512 / 16
    assert [s[1] for s in found] == sides
    assert made.features(x).shape == (2, 32 * 2 * 2) == (2, made.feature_count)
    assert made(x).shape == (2, 5)


def test_individual_at_the_papers_width():
    made = Individual(ways=5, width=1.0, head="mlp", generator=torch_rng())
    assert [u.conv.out_channels for u in made.layers] == [64, 128, 256, 512, 512, 512, 512]
    layers = [(p.in_features, p.out_features) for p in made.head if isinstance(p, nn.Linear)]
    assert layers == [(2048, 1024), (1024, 1024), (1024, 5)]


@pytest.mark.parametrize("inherited", range(1, 7))
def test_stem_and_inherited_layers_are_seven_together(inherited):
    made = Individual(
        inherited=inherited, ways=2, width=0.0625, head="prototype",
        generator=torch_rng(), c_in=20, top_widths=(24,) * inherited,
    )  # fmt: skip
    assert len(made.stem) + len(made.top) == LAYERS and len(made.top) == inherited
    assert made.top[0].conv.in_channels == made.stem[-1].conv.out_channels == 20
    assert made(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_prototype_head_starts_as_nearest_class_mean():
    head = PrototypeHead(2, 2)
    # Of length 1: (1,0) (0.6,0.8) (0,1) (-0.6,0.8); their mean is (0.25, 0.65).
    features = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 5.0], [-0.6, 0.8]])
    head.start(features, torch.tensor([0, 0, 1, 1]))
    assert torch.allclose(head.centre, torch.tensor([0.25, 0.65]))
    centred = torch.tensor([[0.75, -0.65], [0.35, 0.15], [-0.25, 0.35], [-0.85, 0.15]])
    embedded = centred / centred.norm(dim=1, keepdim=True)
    means = torch.stack([embedded[:2].mean(0), embedded[2:].mean(0)])
    prototypes = means / means.norm(dim=1, keepdim=True)
    assert torch.allclose(head.weight, prototypes, atol=1e-6)
    assert torch.allclose(head(features), 10 * embedded @ prototypes.T, atol=1e-5)
    assert head(features).argmax(1).tolist() == [0, 0, 1, 1]


def test_evaluation_mode_gives_every_part_its_mode_back():
    run = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()))
    run[1][0].eval()
    with pytest.raises(KeyError), evaluation_mode(run):
        assert not any(part.training for part in run.modules())
        raise KeyError
    assert [part.training for part in run.modules()] == [True, True, True, False, True]


def test_measured_norms_are_those_of_the_images():
    drawn = torch_rng(4)
    run = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    run.train()
    run[3].running_mean.fill_(7.0)
    x = torch.randn(6, 3, 5, 5, generator=drawn)
    measure_norms(run[:2], run, x, drawn)
    seen = run[0](x).detach().transpose(0, 1).flatten(1)  # (4, 150)
    assert torch.allclose(run[1].running_mean, seen.mean(1), atol=1e-6)
    assert torch.allclose(run[1].running_var, seen.var(1), atol=1e-6)
    assert torch.equal(run[3].running_mean, torch.full((4,), 7.0))  # not a norm of the part
    assert run.training and run[1].training and run[1].momentum == 0.1


def test_norms_are_measured_on_no_more_images_than_pass_together():
    seen: list[torch.Tensor] = []
    run = nn.Sequential(nn.BatchNorm2d(1))
    run.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.arange(3.0 * NORM_IMAGES).reshape(-1, 1, 1, 1)
    for images in (x, x, x[:NORM_IMAGES]):
        measure_norms(run, run, images, torch_rng())
    drawn, again, whole = (each.flatten() for each in seen)
    assert len(drawn.unique()) == NORM_IMAGES and torch.equal(drawn, again)
    assert abs(drawn.mean() / x.mean() - 1) < 0.1  # from all over the shard
    assert torch.equal(whole, x[:NORM_IMAGES].flatten())  # as they are
    assert torch.allclose(run[0].running_mean, whole.mean())


def test_measuring_leaves_every_part_in_its_mode():
    run = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    run.train()
    run[3].eval()
    measure_norms(run, run, torch.randn(6, 3, 5, 5, generator=torch_rng()), torch_rng())
    assert [part.training for part in run] == [True, True, True, False]


def test_mlp_head_is_scaled_with_the_network():
    sizes = [p.out_features for p in mlp_head(32, 5, 0.25) if isinstance(p, nn.Linear)]
    assert sizes == [256, 256, 5]
