"""Growth keeps the function of both paths, and follows the released code's schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from learngene.expansion import STEPS, growth_plan, widen
from learngene.networks import COLLECTIVE_END, COLLECTIVE_START, Collective, scaled
from tests.made import rng, shake, torch_rng


def collective(stem: str, shared: int, seed: int = 0) -> Collective:
    widths = (4, 4, 5, 4, 6, 6, 6, 7, 8, 8, 8, 7, 6)
    made = Collective(
        widths, 5, stem=stem, shared=shared, width=0.0625, generator=torch_rng(seed)
    ).to(memory_format=torch.channels_last)
    return shake(made, seed).eval()


@torch.no_grad()
def both(model: Collective) -> list[torch.Tensor]:
    x = torch.randn(3, 3, 32, 32, generator=torch_rng(9))
    return [model(x)] + ([model.light_logits(x)] if model.light is not None else [])


def assert_kept(
    before: list[torch.Tensor], after: list[torch.Tensor], within: float = 1e-5
) -> None:
    for was, now in zip(before, after, strict=True):
        assert float(was.std()) > 0.1  # a constant would be easy to keep
        assert torch.allclose(was, now, atol=within), float((was - now).abs().max())


@pytest.mark.parametrize("layer", range(1, 14))
@pytest.mark.parametrize(
    ("stem", "shared"), [("separable", 3), ("whole", 1), ("separable", 5), ("fresh", 3)]
)
def test_every_layer_widens_and_keeps_the_function(stem, shared, layer):
    model = collective(stem, shared)
    before, width = both(model), model.widths[layer - 1]
    picks = widen(model, layer, 2 * width + 3, rng(layer))
    assert model.widths[layer - 1] == 2 * width + 3 and len(picks) == width + 3
    assert_kept(before, both(model))


@examples(max_examples=25, deadline=None, derandomize=True)
@given(
    stem=st.sampled_from(["separable", "whole", "fresh"]),
    shared=st.integers(1, 5),
    seed=st.integers(0, 1000),
    steps=st.lists(st.tuples(st.integers(1, 13), st.integers(0, 20)), min_size=2, max_size=8),
)
def test_a_sequence_of_widenings_keeps_the_function(stem, shared, seed, steps):
    model = collective(stem, shared, seed)
    before, drawn = both(model), rng(seed)
    for layer, more in steps:
        widen(model, layer, model.widths[layer - 1] + more, drawn)
    assert_kept(before, both(model))


def test_the_function_is_kept_in_training_mode_too():
    model = collective("separable", 3).train()
    before = both(model)
    for layer in (3, 10, 11, 13):
        widen(model, layer, model.widths[layer - 1] + 3, rng(layer))
    assert_kept(before, both(model), within=1e-4)  # norms divide by the spread of few positions


def test_the_length_of_the_last_features_is_kept():
    model = collective("separable", 3)
    x = torch.randn(3, 3, 32, 32, generator=torch_rng(9))
    before = model.features(x).norm(dim=1)
    widen(model, 13, 17, rng())
    assert torch.allclose(model.features(x).norm(dim=1), before, rtol=1e-5)


def test_widening_by_hand():
    """Two channels, the second one copied twice: a group of three, 1/sqrt(3) out and in."""
    model = collective("fresh", 3)
    unit, following = model.units[0], model.units[1]
    old = following.conv.weight.detach().clone()
    kept, gain = unit.conv.weight.detach().clone(), unit.norm.weight.detach().clone()

    class Picks:
        def choice(self, old: int, size: int, replace: bool) -> np.ndarray:
            assert (old, size, replace) == (4, 2, False)
            return np.array([1, 1])

    assert widen(model, 1, 6, Picks()).tolist() == [1, 1]
    index, third = [0, 1, 2, 3, 1, 1], 3**-0.5
    factor = torch.tensor([1, third, 1, 1, third, third])
    assert torch.equal(unit.conv.weight, kept[index])
    assert torch.allclose(unit.norm.weight, gain[index] * factor)
    assert torch.allclose(following.conv.weight, old[:, index] * factor.view(1, -1, 1, 1))
    assert (unit.conv.out_channels, unit.norm.num_features, following.conv.in_channels) == (6,) * 3


def test_without_noise_copies_are_equal_and_with_noise_they_part():
    quiet, noisy = collective("fresh", 3), collective("fresh", 3)
    old = quiet.widths[4]
    picks = widen(quiet, 5, old + 4, rng(1))
    assert widen(noisy, 5, old + 4, rng(1), noise=0.01).tolist() == picks.tolist()
    same, moved = (model.units[4].conv.weight.detach() for model in (quiet, noisy))
    assert torch.equal(same[old:], same[picks])
    assert torch.equal(moved[:old], same[:old])  # originals stay
    away = (moved[old:] - moved[picks]).std() / moved.std()
    assert float(away) == pytest.approx(0.01, rel=0.2)


def test_copies_are_random_and_only_repeat_when_they_must():
    first, second = (widen(collective("fresh", 3), 8, 14, rng(s)) for s in (1, 2))
    assert sorted(first) == sorted(second) == list(range(7)) and first.tolist() != second.tolist()


def test_parameters_stay_trainable():
    model = collective("separable", 3).train()
    widen(model, 10, 12, rng())
    widen(model, 13, 9, rng())
    x = torch.randn(2, 3, 32, 32, generator=torch_rng())
    (model(x).square().sum() + model.light_logits(x).square().sum()).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def test_a_layer_cannot_shrink():
    with pytest.raises(ValueError, match="layer 5 has 6 channels and cannot widen to 5"):
        widen(collective("fresh", 3), 5, 5, rng())


def test_the_released_codes_twenty_steps():
    assert len(STEPS) == 20
    layers = "3 4 5 5 6 6 7 7 8 8 9 9 10 10 11 11 12 12 13 13"
    assert " ".join(str(layer) for layer, _ in STEPS) == layers
    assert [add for _, add in STEPS] == [64] * 8 + [128] * 12


@pytest.mark.parametrize("scale", [0.0625, 0.25, 0.3, 1.0])
@pytest.mark.parametrize("tasks", range(2, 31))
def test_the_plan_leads_from_start_to_end(tasks, scale):
    start, plan = growth_plan(tasks, scale, grow=True)
    assert start == scaled(COLLECTIVE_START, scale)
    assert len(plan) == 20
    now = list(start)
    for step in plan:
        assert step.width >= now[step.layer - 1]
        now[step.layer - 1] = step.width
    assert tuple(now) == scaled(COLLECTIVE_END, scale)
    when = [step.task for step in plan]
    assert when == sorted(when) and when[0] == 1 and when[-1] <= tasks - 1
    counts = np.bincount(when, minlength=tasks)[1:]
    assert counts.max() - counts.min() <= 1  # spread evenly over the transitions


def test_twenty_one_tasks_widen_once_between_each():
    _, plan = growth_plan(21, 1.0, grow=True)
    assert [(s.task, s.layer, s.width) for s in plan[:4]] == [
        (1, 3, 128), (2, 4, 128), (3, 5, 192), (4, 5, 256),
    ]  # fmt: skip
    assert [s.task for s in plan] == list(range(1, 21))
    assert plan[-1].width == 512 and plan[-2].width == 384


@pytest.mark.parametrize(("tasks", "grow"), [(1, True), (9, False)])
def test_without_growth_the_widths_are_final(tasks, grow):
    assert growth_plan(tasks, 0.25, grow=grow) == (scaled(COLLECTIVE_END, 0.25), [])


def test_a_pinned_layer_has_its_final_width_from_the_start():
    start, plan = growth_plan(9, 1.0, grow=True, pinned=[10])
    assert start == (*COLLECTIVE_START[:9], 512, *COLLECTIVE_START[10:])
    assert len(plan) == 18 and 10 not in {step.layer for step in plan}
    now = list(start)
    for step in plan:
        now[step.layer - 1] = step.width
    assert tuple(now) == COLLECTIVE_END
