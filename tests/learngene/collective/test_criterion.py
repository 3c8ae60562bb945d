"""rho by hand (Eq. 4-5)."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from learngene.collective.criterion import (
    Criterion,
    TrendRule,
    align,
    in_units_of,
    layer_trend,
    layer_trends,
    rho,
    select_layers,
)
from learngene.networks.collective import COLLECTIVE_START, Collective
from learngene.networks.growth import widen
from learngene.networks.layers import scaled
from tests.helpers import rng, torch_rng


def tiny() -> Collective:
    return Collective((4,) * 13, 3, width=0.0625, generator=torch_rng())


def test_negative_gradients_count():
    gradient = torch.tensor([[0.5, -0.5, 1e-4, -1e-4], [0.002, -0.002, 0.0, 1e-3]])
    # above 1e-3 in absolute value: +-0.5 and +-0.002, four of eight; 1e-3 itself is not above
    assert rho(gradient, 1e-3) == 0.5
    assert rho(-gradient, 1e-3) == 0.5


def test_mean_over_the_steps():
    model, criterion = tiny(), Criterion("paper", 0.1, 13)
    for share in (0.25, 0.75):
        for number, unit in enumerate(model.units):
            unit.conv.weight.grad = torch.zeros_like(unit.conv.weight)
            flat = unit.conv.weight.grad.view(-1)
            if number != 12:
                flat[: round(share * len(flat))] = -1.0
        criterion.observe(model)
    assert criterion.result() == [pytest.approx(0.5, abs=0.01)] * 12 + [0.0]


def test_no_steps_no_rho():
    with pytest.raises(ValueError, match="without a training step"):
        Criterion("paper", 0.1, 13).result()


def test_observe_reads_what_backward_left():
    model = tiny()
    x = torch.randn(4, 3, 32, 32, generator=torch_rng(1))
    F.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
    criterion = Criterion("paper", 0.1, 13)
    criterion.observe(model)
    by_hand = [
        sum(abs(v) > 0.1 for v in u.conv.weight.grad.flatten().tolist()) / u.conv.weight.numel()
        for u in model.units
    ]
    assert criterion.result() == pytest.approx(by_hand, abs=1e-6)
    assert min(by_hand) > 0 and max(by_hand) < 1  # in no layer none or all


def test_the_invariant_form_by_hand():
    weight, gradient = (
        torch.tensor([[3.0, 0.0], [0.0, 4.0]]),
        torch.tensor([[0.1, 0.0], [0.0, -0.2]]),
    )
    # four weights, root mean square 5/2: a gradient counts tenfold
    assert torch.allclose(in_units_of(weight, gradient), 10 * gradient)


def observed(model: Collective, form: str, sigma: float) -> list[float]:
    x, y = torch.randn(8, 3, 32, 32, generator=torch_rng(3)), torch.arange(8) % 3
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    criterion = Criterion(form, sigma, 13)
    criterion.observe(model)
    return criterion.result()


@pytest.fixture(scope="module")
def quarter() -> tuple[Collective, list[float], list[float]]:
    """A collective of a quarter of the paper's widths and both rho of it."""
    made = Collective(scaled(COLLECTIVE_START, 0.25), 3, width=0.25, generator=torch_rng())
    invariant, paper = observed(made, "invariant", 20.0), observed(made, "paper", 0.05)
    assert all(0.2 < value < 0.9 for value in invariant)
    return made, invariant, paper


@pytest.mark.parametrize("layer", range(1, 14))
@pytest.mark.parametrize("times", [1.5, 2, 4])
def test_widening_by_itself_does_not_move_rho(quarter, layer, times):
    """Within 0.02, in every layer; the paper's falls by construction."""
    model, invariant, paper = quarter
    grown = widen(model, layer, int(times * model.widths[layer - 1]), rng(layer))
    within = 0.02 if times > 1.5 else 0.03  # a half of the channels is copied
    assert observed(grown, "invariant", 20.0) == pytest.approx(invariant, abs=within)
    if times == 4 and layer > 4:
        assert observed(grown, "paper", 0.05)[layer - 1] < 0.8 * paper[layer - 1]


def test_the_length_of_filters_in_front_of_a_norm_does_not_move_rho(quarter):
    model, invariant, paper = quarter
    longer = copy.deepcopy(model)
    with torch.no_grad():
        longer.units[4].conv.weight.mul_(10)
    assert observed(longer, "invariant", 20.0) == pytest.approx(invariant, abs=1e-3)
    assert observed(longer, "paper", 0.05)[4] < paper[4] - 0.1


RULE = TrendRule()
# Recipe: first three tasks to last five, at a quarter of the paper's width.
MEASURED = {1: (0.94, 0.77), 2: (0.91, 0.69), 9: (0.70, 0.08), 11: (0.56, 0.05), 12: (0.45, 0.07),
            13: (0.47, 0.20)}  # fmt: skip


def flat(early: float, late: float, tasks: int = 9) -> list[float]:
    """A third early, a third between, a third late, each steady."""
    third = tasks // 3
    between = [(early + late) / 2] * (tasks - 2 * third)
    return [early] * third + between + [late] * third


def test_the_statistic_by_hand():
    found = layer_trend([0.9, 0.7, 0.5, 0.5, 0.3, 0.1], RULE)
    # thirds of two tasks: early 0.8; late 0.2 with a deviation of 0.1
    assert (found.tasks, found.early, found.late) == (6, pytest.approx(0.8), pytest.approx(0.2))
    assert found.fall == pytest.approx(0.75) and found.unsteadiness == pytest.approx(0.125)
    assert found.trend == pytest.approx(0.625)


def test_the_papers_three_scenarios():
    never = layer_trend(flat(0.05, 0.001), RULE)  # falls far, but was never large
    always = layer_trend(flat(0.9, 0.8), RULE)
    third = layer_trend(flat(0.7, 0.05), RULE)
    unsteady = layer_trend([*flat(0.7, 0.05)[:-3], 0.0, 0.6, 0.0], RULE)
    assert never.trend == 0 and always.trend < 0.2 and third.trend > 0.9
    assert unsteady.trend < RULE.bar < third.trend


def test_a_rise_is_against_a_layer():
    assert layer_trend(flat(0.2, 0.6), RULE).trend == pytest.approx(-2.0)


def test_what_the_recipe_measured():
    by_layer = [flat(early, late) for early, late in MEASURED.values()]
    trends = layer_trends([list(row) for row in zip(*by_layer, strict=True)], RULE)
    assert [t.trend > RULE.bar for t in trends] == [False, False, True, True, True, True]
    assert select_layers(trends, RULE) == [3, 4, 5]  # layers 9, 11 and 12: .89, .91 and .84
    assert select_layers(trends, TrendRule(longest=1)) == [4]


def selected(values: list[float], rule: TrendRule = RULE) -> list[int]:
    """What is selected of layers that fall to ``1 - value`` of where they began, steadily."""
    rows = [list(row) for row in zip(*(flat(1.0, 1 - v) for v in values), strict=True)]
    return select_layers(layer_trends(rows, rule), rule)


def test_the_run_is_as_long_as_its_layers_warrant():
    assert selected([0.0, 0.9, 0.0, 0.0]) == [2]
    assert selected([0.0, 0.9, 0.4, 0.9]) == [2, 3, 4]  # 0.1 below the bar, between two 0.4 above
    assert selected([0.0, 0.9, 0.0, 0.8]) == [2]
    assert selected([0.9] * 6) == [4, 5, 6]  # equal: the deepest
    assert selected([0.9, 0.9, 0.9, 0.6, 0.6, 0.6]) == [1, 2, 3]
    assert selected([0.9] * 6, TrendRule(longest=6)) == [1, 2, 3, 4, 5, 6]
    assert selected([0.2, 0.5, 0.1]) == []  # at the bar is not above it
    assert selected([0.2, 0.5, 0.1], TrendRule(bar=0.3)) == [2]


@pytest.mark.parametrize("tasks", [1, 2])
def test_fewer_than_three_tasks_show_no_trend(tasks):
    rows = [[0.9, 0.9], [0.1, 0.9]][:tasks]
    trends = layer_trends(rows, RULE)
    assert [t.trend for t in trends] == [0, 0] and select_layers(trends, RULE) == []
    assert trends[0].early == 0.9 and trends[0].tasks == tasks


def test_zeros_are_no_reason_for_nan():
    found = layer_trend([0.0] * 5, TrendRule(large=0.0))
    assert (found.fall, found.unsteadiness, found.trend) == (0, 0, 0)


def test_rows_of_a_deepening_collective_are_aligned():
    rows = [[0.5, 0.4], [0.3, 0.2, 0.1], [0.3, 0.25, 0.2, 0.1]]
    names = [["1", "2"], ["1", "1b", "2"], ["1", "1c", "1b", "2"]]
    assert align(rows, names) == [
        [0.5, None, None, 0.4], [0.3, None, 0.2, 0.1], [0.3, 0.25, 0.2, 0.1],
    ]  # fmt: skip
    assert [t.tasks for t in layer_trends(align(rows, names), RULE)] == [3, 1, 2, 3]
