"""rho by hand (Eq. 4-5)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from learngene.criterion import Criterion, rho
from learngene.networks import Collective
from tests.made import torch_rng


def tiny(stem: str = "separable") -> Collective:
    return Collective((4,) * 13, 3, stem=stem, shared=3, width=0.0625, generator=torch_rng())


def test_negative_gradients_count():
    gradient = torch.tensor([[0.5, -0.5, 1e-4, -1e-4], [0.002, -0.002, 0.0, 1e-3]])
    # above 1e-3 in absolute value: +-0.5 and +-0.002, four of eight; 1e-3 itself is not above
    assert rho(gradient, 1e-3) == 0.5
    assert rho(-gradient, 1e-3) == 0.5


def test_mean_over_the_steps():
    model, criterion = tiny(), Criterion(0.1, 13)
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
        Criterion(0.1, 13).result()


def test_observed_is_the_gradient_of_the_collectives_loss_alone(evolve):
    """Two lives that differ in the light path alone: its stem is drawn anew in the second."""
    first, second = evolve(epochs=1), evolve(epochs=1)
    for unit in second.collective.light.stem:
        torch.nn.init.normal_(unit.conv.weight, std=3.0, generator=torch_rng(8))
    seen: list[list[float]] = []
    for life in (first, second):
        gradients: list[list[float]] = []
        original = Criterion.observe

        def spy(self, collective, kept=gradients, call=original):
            kept.append([float(u.conv.weight.grad.abs().sum()) for u in collective.units])
            call(self, collective)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Criterion, "observe", spy)
            life.run_task()
        seen.append(gradients[0])  # afterwards the shared weights differ
    assert seen[0] == seen[1]


def test_observe_reads_what_backward_left():
    model = tiny()
    x = torch.randn(4, 3, 32, 32, generator=torch_rng(1))
    F.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
    criterion = Criterion(1e-3, 13)
    criterion.observe(model)
    by_hand = [
        sum(abs(v) > 1e-3 for v in u.conv.weight.grad.flatten().tolist()) / u.conv.weight.numel()
        for u in model.units
    ]
    assert criterion.result() == pytest.approx(by_hand, abs=1e-6)
    assert min(by_hand) > 0 or max(by_hand) > 0
