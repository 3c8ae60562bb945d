"""Training of an individual: Eq. 9, curves, groups of the optimiser."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from learngene.adaptation import training
from learngene.adaptation.retain import Retain, fisher_diagonal
from learngene.adaptation.settings import IndividualSettings
from learngene.adaptation.training import (
    Outcome,
    Transferred,
    cosine,
    features,
    measure,
    rates,
    shard_features,
)
from learngene.data.augment import still_views
from learngene.gene.gene import inherited_modules
from learngene.networks.individual import Front, Individual
from tests.clients.helpers import make_individual, make_shard, train_settings, weights
from tests.helpers import shake, torch_rng

train = partial(training.train, freeze_norms=True)


def retained(individual, shard) -> Retain:
    held = inherited_modules(individual)
    fisher = fisher_diagonal(individual, held, shard.train_x)
    return Retain([p for m in held for p in m.parameters()], fisher, normalise=True)


def started(seed: int = 0):
    """An individual whose classifier has started, and its shard."""
    individual, shard = make_individual(seed), make_shard()
    shake(individual)
    individual.head.start(features(individual, shard.train_x), shard.train_y)
    return individual, shard


def away(individual, before) -> float:
    """Distance of the inherited layers from where they were, as a share of their length."""
    now = weights(individual.top)
    moved = sum(float((a - b).square().sum()) for a, b in zip(now, before, strict=True))
    return math.sqrt(moved / sum(float(b.square().sum()) for b in before))


def run(ewc_lambda: float, **changed) -> tuple[float, Outcome]:
    individual, shard = started()
    before = weights(individual.top)
    retain = retained(individual, shard) if ewc_lambda else None
    asked = train_settings(**changed)
    outcome = train(individual, shard, asked, torch_rng(1), retain, ewc_lambda=ewc_lambda)
    return away(individual, before), outcome


def test_without_the_penalty_inherited_weights_move_and_with_a_huge_one_they_stay():
    free, _ = run(0.0, epochs=8)
    held, outcome = run(1e8, epochs=8, lr=0.05)
    assert free > 0.01
    assert held < free / 3
    assert all(math.isfinite(x) for x in outcome.loss)


def test_a_stiffer_penalty_holds_more():
    distances = [run(strength, epochs=8)[0] for strength in (0.0, 1.0, 30.0)]
    assert distances[0] > distances[1] > distances[2]


def test_inherited_lr_of_zero_freezes_the_inherited_layers_alone():
    individual, shard = started()
    top, stem = weights(individual.top), weights(individual.stem)
    train(individual, shard, train_settings(inherited_lr=0.0), torch_rng(1))
    assert all(torch.equal(a, b) for a, b in zip(weights(individual.top), top, strict=True))
    assert not torch.equal(weights(individual.stem)[0], stem[0])


def test_one_step_is_eq_9_by_hand():
    """lr * gradient of cross-entropy + lambda L_ret, one batch, away from the anchor."""
    individual, shard = started()
    retain = retained(individual, shard)
    with torch.no_grad():
        individual.top[0].conv.weight += 5e-4
        individual.head.scale.fill_(1.0)  # gradients that the clip at 5 lets pass
    before, anchor = individual.top[0].conv.weight.detach().clone(), retain.anchor[0]
    individual.eval()
    (alone,) = torch.autograd.grad(
        F.cross_entropy(individual(shard.train_x), shard.train_y),
        [individual.top[0].conv.weight],
    )
    stepped = before - 0.01 * alone  # SGD on L_rec, then the closed form for lambda L_ret
    pull = 0.01 * 2.0 / (1 - 0.9) * retain.fisher[0]
    due = (stepped + pull * anchor) / (1 + pull)
    asked = train_settings(epochs=1, batch_size=64, schedule="constant")
    outcome = train(individual, shard, asked, torch_rng(1), retain, ewc_lambda=2.0)
    after = individual.top[0].conv.weight.detach()
    assert float((due - stepped).norm()) > 0.1 * float((stepped - before).norm())
    assert torch.allclose(after, due, atol=1e-7)
    penalty = 2.0 * float(retain().detach())  # as reported: after the epoch's one batch
    assert outcome.penalty == [0.0, pytest.approx(penalty, rel=1e-4)]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_comes_to_rest_where_eq_9_has_its_minimum(momentum):
    """There gradient L_rec = -lambda F d. A linear body has one minimum, and reaches it fast."""
    _, shard = started()
    shard = replace(shard, train_x=shard.train_x.mean((2, 3)), test_x=shard.test_x.mean((2, 3)))
    body, head = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    for p in [*body.parameters(), *head.parameters()]:
        torch.nn.init.normal_(p, generator=torch_rng(p.numel()))
    network = Transferred(body, head)
    fisher = fisher_diagonal(network, [body], shard.train_x)
    retain = Retain(list(body.parameters()), fisher, normalise=True)
    asked = train_settings(
        epochs=300, batch_size=64, schedule="constant", eval_every=300, lr=0.0,
        inherited_lr=5 * (1 - momentum), momentum=momentum,
    )  # fmt: skip
    train(network, shard, asked, torch_rng(1), retain, ewc_lambda=0.3)
    loss = F.cross_entropy(network(shard.train_x), shard.train_y)
    gradient = torch.autograd.grad(loss, retain.parameters)
    pull = torch.autograd.grad(retain(), retain.parameters)  # F d
    for g, p in zip(gradient, pull, strict=True):
        assert float(p.norm()) > 0.01
        assert torch.allclose(g, -0.3 * p, atol=1e-4)


def test_a_stiff_retain_loss_is_stable():
    """Explicit steps diverge above lr * lambda * F of about 4; the largest F is a hundred."""
    distances = []
    for stiffness in (1.0, 100.0, 1e6):
        individual, shard = started()
        retain = retained(individual, shard)
        outcome = train(
            individual, shard, train_settings(epochs=5), torch_rng(1), retain, ewc_lambda=stiffness
        )
        assert all(math.isfinite(p) for p in outcome.penalty)
        moved = [(p - a).norm() ** 2 for p, a in zip(retain.parameters, retain.anchor, strict=True)]
        distances.append(float(torch.stack(moved).sum().detach()))
    assert distances[0] > distances[1] > distances[2]


@pytest.mark.parametrize(
    ("epochs", "every", "due"),
    [(5, 2, [0, 2, 4, 5]), (4, 2, [0, 2, 4]), (3, 10, [0, 3]), (0, 5, [0])],
)
def test_curves_start_before_training_and_end_at_the_last_epoch(epochs, every, due):
    individual, shard = started()
    logits = individual.head(features(individual, shard.test_x)).detach()
    outcome = train(
        individual, shard, train_settings(epochs=epochs, eval_every=every), torch_rng(1)
    )
    assert outcome.epochs == due
    for curve in (outcome.accuracy, outcome.loss, outcome.train_loss, outcome.penalty):
        assert len(curve) == len(due) and all(math.isfinite(y) for y in curve)
    assert outcome.loss[0] == pytest.approx(float(F.cross_entropy(logits, shard.test_y)))
    right = int((logits.argmax(1) == shard.test_y).sum())
    assert outcome.accuracy[0] == right / len(shard.test_y)
    last = individual.head(features(individual, shard.test_x)).detach()
    assert outcome.loss[-1] == pytest.approx(float(F.cross_entropy(last, shard.test_y)))


def test_the_first_training_loss_is_of_training_images():
    individual, shard = started()
    logits = individual.head(features(individual, shard.train_x)).detach()
    outcome = train(individual, shard, train_settings(epochs=1), torch_rng(1))
    assert outcome.train_loss[0] == pytest.approx(float(F.cross_entropy(logits, shard.train_y)))


def test_the_training_loss_is_the_mean_over_images():
    """At lr 0 every batch of the epoch sees the same network; 18 images, batches of 5, 5, 5, 3."""
    individual, shard = started()
    logits = individual.head(features(individual, shard.train_x)).detach()
    asked = train_settings(epochs=1, batch_size=5, lr=0.0, inherited_lr=0.0)
    outcome = train(individual, shard, asked, torch_rng(1))
    assert outcome.train_loss[1] == pytest.approx(
        float(F.cross_entropy(logits, shard.train_y)), rel=1e-5
    )


def test_equal_generators_give_equal_runs():
    def weights_after(seed: int) -> list[torch.Tensor]:
        individual, shard = started()
        train(individual, shard, train_settings(augment=True), torch_rng(seed))
        return weights(individual)

    first = weights_after(1)
    torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(first, weights_after(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights_after(2), strict=True))


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_keep_their_statistics(frozen):
    individual, shard = started()
    before = individual.top[0].norm.running_mean.clone()
    training.train(individual, shard, train_settings(), torch_rng(1), freeze_norms=frozen)
    assert torch.equal(individual.top[0].norm.running_mean, before) == frozen


def decayed(individual) -> Individual:
    """Trained one epoch at a rate of 0.01 with no gradient but the decay's, 0.5 times the weight:
    all images are equal and the classifier's scale is zero."""
    shard = make_shard()
    shard = replace(shard, train_x=torch.zeros_like(shard.train_x))
    asked = train_settings(epochs=1, batch_size=64, schedule="constant", weight_decay=0.5)
    with torch.no_grad():
        individual.head.scale.zero_()
    train(individual, shard, asked, torch_rng(1))
    return individual


def test_what_is_inherited_does_not_decay():
    individual, _ = started()
    top, stem = weights(individual.top), individual.stem[0].conv.weight.detach().clone()
    decayed(individual)
    assert all(torch.equal(a, b) for a, b in zip(weights(individual.top), top, strict=True))
    assert torch.allclose(individual.stem[0].conv.weight, stem * (1 - 0.01 * 0.5), atol=1e-7)


def test_own_layers_that_start_as_the_identity_do_not_decay():
    made = Individual(
        ways=3, width=0.0625, head="prototype", generator=torch_rng(), inherited=4,
        top_widths=(4, 4, 6, 6), front=Front(pools=(2, 4), side=4, dimensions=5),
    )  # fmt: skip
    own = weights(made.own)
    assert len(made.own) == 3
    after = decayed(made)
    assert all(torch.equal(a, b) for a, b in zip(weights(after.own), own, strict=True))


@pytest.mark.parametrize(("shots", "due"), [(1, 1e-4), (10, 1e-3), (50, 5e-3), (400, 0.01)])
def test_rates_grow_with_the_shard(shots, due):
    shard = make_shard(shots=shots)
    assert rates(IndividualSettings(), shard) == (pytest.approx(due), pytest.approx(due))
    assert rates(IndividualSettings(lr=0.3), shard) == (0.3, 0.3)
    assert rates(IndividualSettings(inherited_lr=0.0), shard) == (pytest.approx(due), 0.0)


def test_training_without_rates_is_at_those_of_the_shard():
    def trained(**asked) -> list[torch.Tensor]:
        individual, shard = started()  # six images a class
        train(individual, shard, train_settings(epochs=1, **asked), torch_rng(1))
        return weights(individual)

    grown, given = trained(lr=None, inherited_lr=None), trained(lr=6e-4, inherited_lr=6e-4)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(grown, given, strict=True))
    other = trained(lr=6e-4, inherited_lr=0.0)
    assert not all(torch.allclose(a, b, atol=1e-7) for a, b in zip(grown, other, strict=True))


def test_learning_rates_fall_along_half_a_cosine():
    assert [cosine(p) for p in (0, 0.5, 1)] == [1.0, pytest.approx(0.5), pytest.approx(0.0)]


def test_metrics_are_flat():
    outcome = Outcome([0, 1], [0.5, 1.0], [2.0, 1.0], [2.0, 1.0], [0.0, 0.1], 3.5, {"more": 7.0})
    assert outcome.metrics() == {
        "epochs": [0, 1],
        "accuracy": [0.5, 1.0],
        "loss": [2.0, 1.0],
        "train_loss": [2.0, 1.0],
        "penalty": [0.0, 0.1],
        "seconds": 3.5,
        "more": 7.0,
    }


def test_the_training_accuracy_is_of_the_trained_individual_on_plain_images():
    individual, shard = started()
    outcome = train(individual, shard, train_settings(augment=True), torch_rng(1))
    logits = individual.head(features(individual, shard.train_x)).detach()
    right = int((logits.argmax(1) == shard.train_y).sum())
    assert outcome.extras == {"train_accuracy": right / len(shard.train_y)}


def test_mirror_images_are_further_views_where_the_dataset_allows_flips():
    individual, shard = started()
    plain, labels = shard_features(individual, replace(shard, flip=False))
    assert torch.equal(plain, features(individual, shard.train_x))
    assert torch.equal(labels, shard.train_y)
    both, twice = shard_features(individual, replace(shard, flip=True))
    assert torch.equal(both[: len(plain)], plain)
    assert torch.equal(both[len(plain) :], features(individual, shard.train_x.flip(3)))
    assert torch.equal(twice, torch.cat([labels, labels]))
    every, labels = shard_features(individual, replace(shard, flip=True, moved=True))
    views = [features(individual, v) for v in still_views(shard.train_x, mirror=True, moved=True)]
    assert len(views) == 10 and torch.allclose(every, torch.cat(views), atol=1e-4)
    assert torch.equal(labels, shard.train_y.repeat(10))


def test_views_of_a_test_image_are_averaged():
    """Two images, two views each, in which the first class has 0.8 and 0.4, 0.1 and 0.3."""
    first = torch.tensor([0.8, 0.1, 0.4, 0.3])
    p = torch.stack([first, 1 - first], 1)
    y = torch.tensor([0, 0])
    accuracy, loss = measure(lambda rows: 3 + p[rows].log(), torch.arange(4), y.repeat(2), views=2)
    assert accuracy == 0.5
    assert loss == pytest.approx(-(math.log(0.6) + math.log(0.2)) / 2)
    assert measure(lambda rows: p[rows].log(), torch.arange(2), y)[0] == 0.5


def test_mirrored_tests_are_the_mean_of_both_views():
    individual, shard = started()
    assert shard.with_views(mirror=True, moved=False) is shard  # letters do not mirror
    both = replace(shard, flip=True).with_views(mirror=True, moved=False)
    outcome = train(individual, both, train_settings(epochs=0), torch_rng(1))
    x = shard.test_x
    logits = [individual.head(features(individual, view)) for view in (x, x.flip(3))]
    mean = torch.stack(logits).softmax(2).mean(0)
    assert outcome.loss == [pytest.approx(float(F.nll_loss(mean.log(), shard.test_y).detach()))]
    right = int((mean.argmax(1) == shard.test_y).sum())
    assert outcome.accuracy == [right / len(x)]


class Waits(TorchDispatchMode):
    """Counts how often a number is asked for that a GPU would still be computing."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device():
    waits = []
    for size in (2, 100):
        individual, shard = started()
        retain = retained(individual, shard)
        asked = train_settings(epochs=3, eval_every=3, batch_size=size)
        with Waits() as counted:
            train(individual, shard, asked, torch_rng(1), retain, ewc_lambda=1.0)
        waits.append(counted.count)
    assert waits[0] == waits[1] > 0


def test_a_training_that_diverges_says_so_in_its_curve():
    individual, shard = started()
    with torch.no_grad():
        individual.head.weight.fill_(torch.inf)
    outcome = train(individual, shard, train_settings(epochs=1), torch_rng(1))
    assert not math.isfinite(outcome.train_loss[-1])
