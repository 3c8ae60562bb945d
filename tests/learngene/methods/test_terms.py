"""Equal terms: views, budgets and recipes that the opponents may have as the learngene has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from learngene.methods import find
from learngene.methods.common import head as fitting
from learngene.methods.common import meta
from learngene.methods.common.backbone import fill
from learngene.methods.common.support_norm import set_mode, with_support_norms
from tests.clients.helpers import make_individual
from tests.learngene.methods.helpers import TRAINED, make_context, make_factory, same


@pytest.fixture(scope="module")
def start(tiny_dataset):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    made = {name: find(name).pretrain(make_factory(name, tiny_dataset)) for name in
            ("finetune_pp", "maml", "proto_maml")}  # fmt: skip
    torch.set_num_threads(before)
    return made


@pytest.mark.parametrize("name", ["finetune_pp", "linear_probe"])
def test_a_head_on_a_frozen_body_sees_mirrored_views(
    start, evolved, tiny_dataset, monkeypatch, name
):
    seen = []
    real = fitting.train

    def spy(network, shard, *rest, **options):
        seen.append(shard)
        return real(network, shard, *rest, **options)

    monkeypatch.setattr(fitting, "train", spy)
    made = start.get(name) or find(name).from_collective(evolved.collective)
    context = make_context(name, tiny_dataset, made)
    for flip in (False, True):
        find(name).adapt(replace(context, shard=replace(context.shard, flip=flip)))
    plain, mirrored = seen
    count = len(plain.train_y)
    assert len(mirrored.train_y) == 2 * count == len(mirrored.train_x)
    assert torch.allclose(mirrored.train_x[:count], plain.train_x, atol=1e-5)
    assert not torch.allclose(mirrored.train_x[count:], plain.train_x, atol=1e-5)
    assert torch.equal(mirrored.train_y[count:], plain.train_y)
    assert not mirrored.flip  # features have no mirror image


@pytest.mark.parametrize("name", ["maml", "proto_maml"])
def test_the_maml_familys_statistics_and_means_are_of_mirrored_views_too(
    start, tiny_dataset, monkeypatch, name
):
    seen = []
    real = meta.train

    def spy(network, *rest, **options):
        seen.append(network.support)
        return real(network, *rest, **options)

    monkeypatch.setattr(meta, "train", spy)
    context = make_context(name, tiny_dataset, start[name])
    for flip in (False, True):
        find(name).adapt(replace(context, shard=replace(context.shard, flip=flip)))
    assert torch.equal(seen[1], torch.cat([seen[0], seen[0].flip(3)]))


def test_the_norms_follow_the_weights_whenever_the_network_is_tested(start, tiny_dataset):
    context = make_context("maml", tiny_dataset, start["maml"])
    body = with_support_norms(meta.body_of(start["maml"].card, 3))
    network = meta.OnSupport(body, torch.nn.Identity(), context.shard.train_x)
    x = context.shard.test_x[:4]
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(0.1)
        found = network.eval()(x)
        set_mode(body, "store")
        body(context.shard.train_x)
        set_mode(body, "use")
        assert torch.allclose(found, body(x))
        network.train()  # of the batch itself
        assert not torch.allclose(found, network(x))


def test_the_maml_familys_steps_are_its_own(start, tiny_dataset):
    def last(**changed) -> tuple:
        found = find("maml").adapt(make_context("maml", tiny_dataset, start["maml"], **changed))
        return found.epochs[-1], found.loss[-1]

    plain = last()
    assert plain[0] == 3
    assert last(client_steps=5)[0] == 5
    for changed in ({"client_lr": 0.02}, {"client_momentum": 0.0}):
        assert last(**changed)[1] != plain[1]
    assert last(inner_lr=0.5) == plain  # the factory's


def test_proto_maml_starts_from_class_means(start, tiny_dataset):
    context = make_context("proto_maml", tiny_dataset, start["proto_maml"], client_steps=0)
    found = find("proto_maml").adapt(context)
    shard = context.shard
    body = with_support_norms(meta.body_of(context.card, 3))
    fill(body, context.payload)
    with torch.no_grad():
        set_mode(body, "store")
        support = body(shard.train_x)
        set_mode(body, "use")
        means = torch.stack([support[shard.train_y == c].mean(0) for c in range(3)])
        nearest = torch.cdist(body(shard.test_x), means).argmin(1)
    assert found.accuracy == [pytest.approx(float((nearest == shard.test_y).float().mean()))]


def test_a_start_from_fine_tunings_body_shares_the_budget_and_goes_on_where_it_stood(tiny_dataset):
    kept: list = []

    def keep(state, card) -> None:
        kept.append(({k: v.clone() for k, v in state.items()}, card))

    asked = {"class_share": 0.5, "tasks": 1}
    whole = find("maml").pretrain(make_factory("maml", tiny_dataset, keep=keep, **asked))
    assert {card["phase"] for _, card in kept} == {0, 1}
    for found in (kept[0], kept[-2]):
        again = make_factory("maml", tiny_dataset, checkpoint=found, **asked)
        assert same(find("maml").pretrain(again), whole)


def test_norms_take_the_slopes_of_those_that_they_replace():
    network = make_individual()
    slopes = {n: p for n, p in network.named_parameters() if "norm" in n}
    with torch.no_grad():
        for slope in slopes.values():
            slope.uniform_(0.5, 2)
    kept = {n: p.clone() for n, p in slopes.items()}
    found = dict(with_support_norms(network).named_parameters())
    assert kept and all(torch.equal(found[n], p) for n, p in kept.items())


def test_sgd_at_the_factory_goes_on_where_it_stood(tiny_dataset):
    kept: list = []

    def keep(state, card) -> None:
        kept.append(({k: v.clone() for k, v in state.items()}, card))

    asked = {"optimiser": "sgd", "lr": 0.05}
    factory = make_factory("finetune_pp", tiny_dataset, keep=keep, **asked)
    whole = find("finetune_pp").pretrain(factory)
    state, _ = kept[len(kept) // 2]
    assert any(name.endswith("momentum_buffer") for name in state)
    again = make_factory("finetune_pp", tiny_dataset, checkpoint=kept[len(kept) // 2], **asked)
    assert same(find("finetune_pp").pretrain(again), whole)
    adam = find("finetune_pp").pretrain(make_factory("finetune_pp", tiny_dataset, lr=0.05))
    assert not same(adam, whole)


def test_every_method_that_is_trained_may_have_a_multiple_of_the_passes():
    for name in TRAINED:
        assert find(name).settings().budget_factor == 1
