"""The opponents' trainings on fixed buffers: equal, where they can be recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from learngene.methods import find
from learngene.methods.common import pretraining
from learngene.methods.matchingnet import attend
from learngene.methods.protonet import class_means, nearness
from learngene.utils.steps import StaticStep
from tests.learngene.methods.helpers import make_factory, same


@pytest.fixture
def fused(monkeypatch):
    """Optimisers as recorded steps have them; others round otherwise."""
    options = pretraining.rate_options
    monkeypatch.setattr(pretraining, "rate_options", lambda *its: options(*its[:2], StaticStep))


@pytest.mark.parametrize(
    ("name", "changed"),
    [("finetune", {}), ("finetune", {"optimiser": "sgd"}), ("protonet", {}), ("matchingnet", {})],
    ids=["adam", "sgd", "protonet", "matchingnet"],
)
def test_steps_on_fixed_buffers_learn_what_steps_as_they_come_learn(
    tiny_dataset, fused, name, changed
):
    made: list[StaticStep] = []
    kept: list = []

    def form(work):
        made.append(StaticStep(work))
        return made[-1]

    def keep(state, card):
        kept.append(({n: value.clone() for n, value in state.items()}, card))

    factory = make_factory(name, tiny_dataset, **changed)
    plain = find(name).pretrain(factory)
    assert same(find(name).pretrain(replace(factory, step_form=form, keep=keep)), plain)
    (step,) = made
    assert step._done == 200 // (16 if name == "finetune" else 4 * 4) and step._replay
    half = replace(factory, step_form=form, checkpoint=kept[len(kept) // 2])
    assert same(find(name).pretrain(half), plain)


@pytest.mark.parametrize(("name", "forms"), [("deepemd", 1), ("maml", 0)])
def test_what_cannot_be_recorded_is_not(tiny_dataset, name, forms):
    """DeepEMD's flows are found on the CPU; only its training on classes is recorded."""
    made: list[StaticStep] = []

    def form(work):
        made.append(StaticStep(work))
        return made[-1]

    find(name).pretrain(replace(make_factory(name, tiny_dataset), step_form=form))
    assert len(made) == forms


def test_episode_losses_wait_for_no_gpu():
    """Tensors without numbers: who asks one for its value gets an error."""
    with FakeTensorMode():
        support, query = (torch.empty(n, 16, device="cuda") for n in (8, 12))
        labels = torch.empty(8, dtype=torch.long, device="cuda")
        assert nearness(query, class_means(support, labels, 4)).shape == (12, 4)
        assert attend(query, support, labels, 4, 50.0).shape == (12, 4)


def test_a_loss_that_is_not_finite_ends_a_training_before_it_is_kept(tiny_dataset):
    kept: list[int] = []
    factory = make_factory("finetune", tiny_dataset, keep=lambda state, card: kept.append(1))
    module = torch.nn.Linear(1, 1)

    def backward(positions, draws):
        loss = module(torch.zeros(1, 1)).sum() / 0
        loss.backward()
        return loss

    draw, _ = pretraining.draw_batches(factory, 4)
    with pytest.raises(ValueError, match=r"the loss of finetune is not finite by step 4: lower"):
        pretraining.run_steps(factory, module, draw, backward, 40, 0.1)
    assert not kept
