"""Growth keeps the function, and follows the released code's schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from learngene.errors import InputError
from learngene.networks.collective import COLLECTIVE_END, COLLECTIVE_START, Collective
from learngene.networks.growth import (
    PARTS,
    STEPS,
    Growth,
    PlannedStep,
    cancelling,
    deepen,
    growth_plan,
    planned_names,
    read_plan,
    widen,
    written_plan,
)
from learngene.networks.layers import scaled
from tests.helpers import rng, shake, torch_rng

WIDTHS = (4, 4, 5, 4, 6, 6, 6, 7, 8, 8, 8, 7, 6)


def collective(seed: int = 0) -> Collective:
    made = Collective(WIDTHS, 5, width=0.0625, generator=torch_rng(seed)).to(
        memory_format=torch.channels_last
    )
    return shake(made, seed).eval()


@torch.no_grad()
def logits(model: Collective) -> torch.Tensor:
    x = torch.randn(3, 3, 32, 32, generator=torch_rng(9))
    return model(x.to(model.head.weight))


def assert_kept(was: torch.Tensor, now: torch.Tensor, within: float = 1e-5) -> None:
    assert float(was.std()) > 0.1  # a constant would be easy to keep
    assert torch.allclose(was, now, atol=within), float((was - now).abs().max())


def grow_at_random(
    model: Collective, steps: list[tuple[float, int]], seed: int
) -> tuple[Collective, int]:
    """Take steps (place 0..1, channels to add or -1 for deepen); how many layers were inserted."""
    drawn, deeper = rng(seed), 0
    for place, more in steps:
        layer = 1 + int(place * len(model.units))
        if more >= 0:
            model = widen(model, layer, model.widths[layer - 1] + more, drawn)
        else:
            model, deeper = deepen(model, layer, drawn), deeper + 1
    return model, deeper


@pytest.mark.parametrize("layer", range(1, 14))
def test_every_layer_widens_and_keeps_the_function(layer):
    model = collective()
    before, width = logits(model), model.widths[layer - 1]
    grown = widen(model, layer, 2 * width + 3, rng(layer))
    assert grown.widths[layer - 1] == 2 * width + 3
    assert_kept(before, logits(grown))


@pytest.mark.parametrize("layer", range(1, 14))
def test_every_layer_deepens_and_keeps_the_function(layer):
    model = collective()
    grown = deepen(model, layer, rng(layer))
    assert len(grown.units) == 14
    assert grown.names[layer - 1 : layer + 1] == [str(layer), f"{layer}b"]
    assert_kept(logits(model), logits(grown))


@examples(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    steps=st.lists(
        st.tuples(st.floats(0, 0.999), st.one_of(st.just(-1), st.integers(0, 20))),
        min_size=2,
        max_size=8,
    ),
)
def test_a_random_sequence_keeps_the_function(seed, steps):
    model = collective(seed).double()  # rounding of float32 adds up to more than 1e-5
    grown, deeper = grow_at_random(model, steps, seed)
    assert len(grown.units) == 13 + deeper == len(grown.names) == len(set(grown.names))
    assert_kept(logits(model), logits(grown), within=1e-10)


@pytest.mark.parametrize("operation", [lambda m: widen(m, 10, 20, rng()),
                                       lambda m: deepen(m, 4, rng(), 0.1)])  # fmt: skip
def test_growth_is_pure(operation):
    model = collective()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names, pools = list(model.names), [unit.pool for unit in model.units]
    grown = operation(model)
    assert model.names == names and [unit.pool for unit in model.units] == pools
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    ours = {p.data_ptr() for p in model.parameters()}
    assert not ours & {p.data_ptr() for p in grown.parameters()}


def test_the_function_is_kept_in_training_mode_too():
    """But for the norms' eps, which is small beside a batch's variance."""
    model = collective().double().train()
    for unit in model.units:
        unit.norm.eps = 1e-15
    before = logits(model)
    for layer in (3, 10, 11, 13):
        model = widen(model, layer, model.widths[layer - 1] + 3, rng(layer))
    assert_kept(before, logits(model), within=1e-8)


def test_the_length_of_the_last_features_is_kept():
    model = collective()
    x = torch.randn(3, 3, 32, 32, generator=torch_rng(9))
    before = model.features(x).norm(dim=1)
    model = widen(model, 13, 17, rng())
    assert torch.allclose(model.features(x).norm(dim=1), before, rtol=1e-5)


def test_widening_by_hand():
    """Channel 1 is copied twice: filters and output times 1/sqrt(3), parts of sum 1 further on."""
    model = collective()
    unit, following = model.units[0], model.units[1]
    old = following.conv.weight.detach().clone()
    kept, gain = unit.conv.weight.detach().clone(), unit.norm.weight.detach().clone()

    class Drawn:
        def permutation(self, old: int) -> np.ndarray:
            assert old == 4
            return np.array([1, 1, 0, 2])  # the first two of them are needed

        def uniform(self, low: float, high: float, size: int) -> np.ndarray:
            assert (low, high, size) == (*PARTS, 6)
            return np.array([1.0, 0.5, 1.0, 1.0, 0.6, 0.9])

    grown = widen(model, 1, 6, Drawn())
    unit, following = grown.units[0], grown.units[1]
    index, third = [0, 1, 2, 3, 1, 1], 3**-0.5
    out = torch.tensor([1, third, 1, 1, third, third])
    parts = torch.tensor([1, 0.25, 1, 1, 0.3, 0.45])
    assert torch.allclose(unit.conv.weight, kept[index] * out.view(-1, 1, 1, 1))
    assert torch.allclose(unit.norm.weight, gain[index] * out)
    assert torch.allclose(following.conv.weight, old[:, index] * (parts / out).view(1, -1, 1, 1))
    assert (unit.conv.out_channels, unit.norm.num_features, following.conv.in_channels) == (6,) * 3


def copies_of(model: Collective, layer: int, old: int) -> list[int]:
    """Of which of the first ``old`` filters each later one is a copy."""
    flat = model.units[layer - 1].conv.weight.detach().flatten(1)
    return torch.cdist(flat[old:], flat[:old]).argmin(1).tolist()


def steps(model: Collective, count: int = 0) -> list[torch.Tensor]:
    """The filters' gradients after ``count`` steps down the gradient of one batch."""
    x, y = torch.randn(4, 3, 32, 32, generator=torch_rng(9)), torch.arange(4)
    weights = list(model.train().parameters())
    for number in range(count + 1):
        loss = F.cross_entropy(model(x.to(model.head.weight)), y)
        gradients = dict(zip(weights, torch.autograd.grad(loss, weights), strict=True))
        for weight in weights if number < count else ():
            weight.data -= 0.05 * gradients[weight]
    return [gradients[unit.conv.weight] for unit in model.units]


@pytest.mark.parametrize("layer", [1, 5, 12])
def test_with_noise_gradients_of_copies_point_apart_and_the_function_is_kept(layer):
    model, old = collective().double(), WIDTHS[layer - 1]
    before = logits(model)
    assert_kept(before, logits(widen(model, layer, 3 * old, rng(1), noise=2.0)), within=1e-8)
    grown = widen(model, layer, 2 * old, rng(layer), noise=2.0)
    whole, after = steps(model)[layer - 1], steps(grown)[layer - 1] / 2**0.5
    origin, copied = after[:old], after[old:][np.argsort(copies_of(grown, layer, old))]
    assert torch.allclose(origin + copied, whole, rtol=1e-3, atol=1e-5)  # the norms' eps
    assert float(F.cosine_similarity(origin.flatten(1), copied.flatten(1)).max()) < 0.9


@pytest.mark.parametrize("layer", [1, 5, 12, 13])
def test_copies_share_the_gradient_unequally(layer):
    """Its parts of sum 1, on filters of 1/sqrt(2) the length."""
    model, old = collective().double(), WIDTHS[layer - 1]
    grown = widen(model, layer, 2 * old, rng(layer))
    before, after = steps(model)[layer - 1], steps(grown)[layer - 1] / 2**0.5
    origin, copied = after[:old], after[old:][np.argsort(copies_of(grown, layer, old))]
    near = {"rtol": 1e-3, "atol": 1e-5}  # the norms' eps
    assert torch.allclose(origin + copied, before, **near)
    parts = origin.flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    assert torch.allclose(origin, parts.view(-1, 1, 1, 1) * before, **near)
    assert 0.05 < float((parts - 0.5).abs().max()) < 0.251


@pytest.mark.parametrize("layer", [3, 13])
def test_copies_part_because_their_parts_are_unequal(layer, monkeypatch):
    def distance() -> float:
        old = WIDTHS[layer - 1]
        grown = widen(collective().double(), layer, 2 * old, rng(1))
        picks = copies_of(grown, layer, old)
        steps(grown, 5)
        filters = grown.units[layer - 1].conv.weight.detach()
        return float((filters[old:] - filters[picks]).norm() / filters.norm())

    unequal = distance()
    monkeypatch.setattr("learngene.networks.growth.PARTS", (1.0, 1.0))
    assert unequal > 1e-4 and distance() < 1e-9


def test_copies_are_random_and_only_repeat_when_they_must():
    first, second = (copies_of(widen(collective(), 8, 18, rng(s)), 8, 7) for s in (1, 2))
    assert sorted(first[:7]) == sorted(second[:7]) == list(range(7)) and first != second
    assert len(set(first[7:])) == 4


def test_deepening_by_hand():
    """Layer 4 takes five channels and gives four; its pool moves to the copy."""
    model = collective()
    assert [unit.pool for unit in model.units[3:5]] == [True, False]
    quiet, noisy = deepen(model, 4, rng(3)), deepen(model, 4, rng(3), noise=0.5)
    assert [unit.pool for unit in quiet.units[3:6]] == [False, True, False]
    assert quiet.widths[3:5] == (4, 4)
    dirac = torch.zeros(4, 4, 3, 3)
    dirac[range(4), range(4), 1, 1] = 1
    assert torch.equal(quiet.units[4].conv.weight, dirac)
    copied = model.units[3].conv.weight.detach()
    found = (noisy.units[4].conv.weight.detach() - dirac) / 0.5
    for i in range(4):  # every input channel of the copy is one of the layer's own
        gaps = (copied - found[:, i : i + 1]).flatten(2).abs().amax((0, 2))
        assert float(gaps.min()) < 1e-6
    assert all(
        torch.equal(a.conv.weight, b.conv.weight)
        for a, b in zip(model.units[:4], noisy.units[:4], strict=True)
    )


def test_noise_lets_the_copied_features_in():
    model = collective()
    before, after = logits(model), logits(deepen(model, 7, rng(), noise=0.3))
    assert float((before - after).abs().max()) > 1e-3


def test_the_inserted_norm_expects_a_rectified_normal():
    """Its statistics are those of relu(x), x normal with the affine part of the norm in front."""
    model = collective()
    norm, made = model.units[5].norm, deepen(model, 6, rng()).units[6].norm
    x = norm.bias + norm.weight * torch.randn(400_000, 6, generator=torch_rng(2))
    assert torch.allclose(made.running_mean, x.relu().mean(0), atol=5e-3)
    assert torch.allclose(made.running_var, x.relu().var(0), atol=1e-2)
    assert torch.allclose(made.weight**2, made.running_var + made.eps)
    assert torch.equal(made.bias, made.running_mean)


def test_channels_that_are_dead_or_have_no_spread_are_kept_too():
    model = collective()
    with torch.no_grad():
        model.units[4].norm.bias[:2] = -50.0
        model.units[4].norm.weight[2:4] = 0.0
        model.units[4].norm.weight[4] = -1.0
    assert_kept(logits(model), logits(deepen(model, 5, rng())))


def test_copies_are_named_in_the_order_in_which_they_are_made():
    model = collective()
    for name in ("5", "5", "5b", "7", "5c"):
        model = deepen(model, model.names.index(name) + 1, rng())
    expected = "1 2 3 4 5 5c 5e 5b 5d 6 7 7b 8 9 10 11 12 13"
    assert " ".join(model.names) == expected


def test_parameters_stay_trainable():
    model = collective().train()
    model = deepen(widen(widen(model, 10, 12, rng()), 13, 9, rng()), 6, rng(), 0.01)
    x = torch.randn(2, 3, 32, 32, generator=torch_rng())
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def test_a_layer_cannot_shrink():
    with pytest.raises(ValueError, match="layer 5 has 6 channels and cannot widen to 5"):
        widen(collective(), 5, 5, rng())


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
        assert step.width >= now[int(step.layer) - 1]
        now[int(step.layer) - 1] = step.width
    assert tuple(now) == scaled(COLLECTIVE_END, scale)
    when = [step.task for step in plan]
    assert when == sorted(when) and when[0] == 1 and when[-1] <= tasks - 1
    counts = np.bincount(when, minlength=tasks)[1:]
    assert counts.max() - counts.min() <= 1  # spread evenly over the transitions


def test_twenty_one_tasks_widen_once_between_each():
    _, plan = growth_plan(21, 1.0, grow=True)
    assert [(s.task, s.layer, s.width) for s in plan[:4]] == [
        (1, "3", 128), (2, "4", 128), (3, "5", 192), (4, "5", 256),
    ]  # fmt: skip
    assert [s.task for s in plan] == list(range(1, 21))
    assert plan[-1].width == 512 and plan[-2].width == 384


@pytest.mark.parametrize(("tasks", "grow"), [(1, True), (9, False)])
def test_without_growth_the_widths_are_final(tasks, grow):
    assert growth_plan(tasks, 0.25, grow=grow) == (scaled(COLLECTIVE_END, 0.25), [])


PLAN = [
    {"task": 3, "layer": "5b", "widen_by": 64},
    {"task": 2, "layer": 5, "deepen": True},
    {"task": 3, "layer": 10, "widen_by": 256},
]


def test_a_written_plan_by_hand():
    steps = read_plan(PLAN, "plan.yaml")
    assert steps == (
        PlannedStep(2, "5", None), PlannedStep(3, "5b", 64), PlannedStep(3, "10", 256),
    )  # fmt: skip
    start, plan = written_plan(steps, 3, 0.25)
    assert start == scaled(COLLECTIVE_START, 0.25)
    # the copy of a layer of 128 channels grows by 64: 192 at width 1, 48 at a quarter
    assert plan == [Growth(1, "5", None), Growth(2, "5b", 48), Growth(2, "10", 128)]
    assert planned_names(steps)[4:7] == ["5", "5b", "6"]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (None, "list of at least one step"),
        ([], "list of at least one step"),
        ({"task": 2}, "list of at least one step"),
        (["deepen"], "step 1: 'deepen' is no step"),
        ([PLAN[1], {**PLAN[0], "by": 3}], "step 2: there is no key by"),
        ([{"layer": 5, "deepen": True}], "step 1: it has no task"),
        ([{"task": 2, "deepen": True}], "step 1: it has no layer"),
        ([{"task": 2, "layer": 5}], "either widen_by or deepen"),
        ([{**PLAN[0], "deepen": True}], "either widen_by or deepen"),
        ([{**PLAN[0], "task": "two"}], "task 'two' is no number"),
        ([{**PLAN[0], "widen_by": 0}], "widen_by 0"),
        ([{**PLAN[0], "widen_by": True}], "widen_by True"),
        ([{**PLAN[0], "widen_by": 1.5}], "widen_by 1.5"),
        ([{**PLAN[1], "deepen": False}], "deepen False"),
    ],
)
def test_a_plan_that_cannot_be_read(items, words):
    with pytest.raises(InputError, match=words) as raised:
        read_plan(items, "plan.yaml")
    assert raised.value.field == "collective.growth" and raised.value.value == "plan.yaml"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (PlannedStep(1, "5", None), "tasks 2 to 3"),
        (PlannedStep(4, "5", None), "tasks 2 to 3"),
        (PlannedStep(2, "14", 64), "no such layer"),
        (PlannedStep(2, "5b", 64), "no such layer"),
        (PlannedStep(2, "10", 40_000), "at most 8192 are grown"),
    ],
)
def test_a_step_that_is_not_legal(step, words):
    with pytest.raises(InputError, match=words) as raised:
        written_plan([step], 3, 0.25)
    assert raised.value.field == "collective.growth"
    assert f"layer {step.layer}" in raised.value.value


def test_names_for_copies_end():
    steps = [PlannedStep(2, "5", None)] * 26
    assert planned_names(steps[:25])[5] == "5z"
    for read in (planned_names, lambda asked: written_plan(asked, 3, 0.25)):
        with pytest.raises(InputError, match="no names for more"):
            read(steps)


def test_what_parts_copies_is_made_on_the_device_of_the_weights():
    """A pretended GPU holds shapes and devices, not numbers; the index lies on the CPU."""
    index, copies = torch.tensor([0, 1, 2, 0, 0]), torch.tensor([3, 1, 1, 3, 3])
    with FakeTensorMode(allow_non_fake_inputs=True):
        made = cancelling(torch.empty(4, 5, 3, 3, device="cuda"), index, copies, rng())
    assert made.device.type == "cuda" and made.shape == (4, 5, 3, 3)
