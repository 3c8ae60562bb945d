"""Both halves of every method: what the factory makes and what a client does with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from learngene.collective.sampling import one_cycle
from learngene.data.dataset import ImageDataset
from learngene.methods import BUILT_IN, Method, Payload, find, registry, scratch
from learngene.methods.common import head as fitting
from learngene.methods.common import pretraining
from learngene.methods.common.backbone import body_of, fill
from learngene.methods.common.pretraining import Episodes, draw_batches
from learngene.methods.full import rebuild_long
from learngene.methods.registry import AMONG_CLIENTS
from learngene.networks.collective import Collective
from tests.helpers import torch_rng
from tests.learngene.methods.helpers import TRAINED, make_context, make_factory, same

ANSWERS_AT_ONCE = ("protonet", "matchingnet", "deepemd")


@pytest.fixture(scope="module")
def payloads(tiny_dataset: ImageDataset) -> dict[str, Payload]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in tests: sums have one order
    made = {name: find(name).pretrain(make_factory(name, tiny_dataset)) for name in TRAINED}
    torch.set_num_threads(before)
    return made


def test_every_file_of_a_method_is_in_the_registry():
    folder = Path(registry.__file__).parent
    files = {path.stem for path in folder.rglob("*.py") if "\nMETHOD = " in path.read_text()}
    assert files == set(BUILT_IN) and len(BUILT_IN) == len(files)


def test_methods_say_who_trains_them():
    trained = {"factory": set(TRAINED), "collective": {"full", "linear_probe"},
               "clients": set(AMONG_CLIENTS), "none": {"learngene", "scratch"}}  # fmt: skip
    for by, names in trained.items():
        assert {name for name in BUILT_IN if find(name).trained_by == by} == names
    assert {name for name in BUILT_IN if find(name).inherits} == {"learngene"}
    family = {"maml", "fomaml", "proto_maml"}
    assert {name for name in BUILT_IN if find(name).depends_on_ways} == family
    assert {n for n in BUILT_IN if find(n).epochs_setting == "client_steps"} == family


def test_the_reply_is_declared_as_the_methods_answer():
    assert {name for name in BUILT_IN if find(name).training_free} == set(ANSWERS_AT_ONCE)


def test_epochs_are_said_by_a_setting_that_there_is():
    with pytest.raises(ValueError, match="no setting is called steps"):
        Method(print, settings=registry.find("scratch").settings, epochs_setting="steps")


@pytest.mark.parametrize("name", TRAINED)
def test_what_travels_is_the_seven_layers_and_little_else(payloads, name):
    made = payloads[name]
    assert json.loads(json.dumps(made.card)) == made.card
    assert all(a.dtype == np.float32 and np.isfinite(a).all() for a in made.arrays.values())
    convolutions = [a for n, a in made.arrays.items() if n.endswith("conv.weight")]
    assert len(convolutions) == 7
    head = {n for n in made.arrays if n.startswith("head.")}
    assert head == ({"head.weight", "head.bias"} if name in ("maml", "fomaml") else set())
    assert sum(a.size for a in convolutions) > 0.9 * made.parameters


@pytest.mark.parametrize("name", TRAINED)
def test_a_factory_half_is_a_function_of_its_seed(payloads, tiny_dataset, name):
    torch.rand(3)
    assert same(find(name).pretrain(make_factory(name, tiny_dataset)), payloads[name])
    other = find(name).pretrain(make_factory(name, tiny_dataset, seed=6))
    assert not same(other, payloads[name])


@pytest.mark.parametrize(  # MAML's three have one loss
    "name", ["deepemd", "finetune", "finetune_pp", "fomaml", "matchingnet", "protonet"]
)
def test_a_factory_half_brings_its_loss_down(tiny_dataset, monkeypatch, name):
    """Of each phase, on one batch over and over."""
    losses: list[tuple[float, float]] = []

    def run_steps(factory, module, draw, backward, *rest, **options):
        optimiser, batch = torch.optim.SGD(module.parameters(), lr=0.02), draw(0)
        module.train()
        told = []
        for _ in range(8):
            optimiser.zero_grad()
            told.append(float(backward(*batch).detach()))
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
        losses.append((told[0], told[-1]))

    for module in ("pretraining", "meta"):
        monkeypatch.setattr(f"learngene.methods.common.{module}.run_steps", run_steps)
    find(name).pretrain(make_factory(name, tiny_dataset))
    assert len(losses) == (2 if name == "deepemd" else 1)
    assert all(0 < after < before for before, after in losses), losses


def test_steps_at_the_factory_follow_one_cycle_and_decay(payloads, tiny_dataset, monkeypatch):
    rates: list[float] = []
    real = pretraining.set_rate
    monkeypatch.setattr(
        pretraining, "set_rate", lambda optimiser, r: rates.append(r) or real(optimiser, r)
    )
    decayed = find("finetune").pretrain(make_factory("finetune", tiny_dataset, weight_decay=0.5))
    assert rates == pytest.approx([0.001 * one_cycle(step / 12) for step in range(12)])
    assert not same(decayed, payloads["finetune"])  # which does not decay


@pytest.mark.parametrize("name", TRAINED)
def test_the_client_half_answers_with_a_curve(payloads, tiny_dataset, name):
    found = find(name).adapt(make_context(name, tiny_dataset, payloads[name])).metrics()
    again = find(name).adapt(make_context(name, tiny_dataset, payloads[name])).metrics()
    points = {"maml": [0, 1, 2, 3]}.get(name.removeprefix("fo").removeprefix("proto_"), [0, 1, 2])
    assert found["epochs"] == ([0] if name in ANSWERS_AT_ONCE else points)
    for curve in ("accuracy", "loss", "train_loss", "penalty"):
        assert len(found[curve]) == len(found["epochs"]) and np.isfinite(found[curve]).all()
    assert 0 <= found["train_accuracy"] <= 1
    assert {**found, "seconds": 0} == {**again, "seconds": 0}
    if len(points) > 1 and name not in ANSWERS_AT_ONCE:
        assert found["train_loss"][-1] != found["train_loss"][0]


@pytest.mark.parametrize("name", TRAINED)
def test_a_client_refuses_a_payload_that_does_not_fit(payloads, tiny_dataset, name):
    made = payloads[name]
    fewer = {n: a for n, a in made.arrays.items() if n != "stem.5.conv.weight"}
    with pytest.raises(ValueError, match=r"stem\.5\.conv\.weight"):
        find(name).adapt(make_context(name, tiny_dataset, Payload(fewer, made.card)))


@pytest.mark.parametrize("name", ["finetune", "maml", "deepemd"])
def test_half_done_work_goes_on_to_the_same_end(payloads, tiny_dataset, name):
    kept: list = []
    factory = make_factory(
        name, tiny_dataset,
        keep=lambda state, card: kept.append(({k: v.clone() for k, v in state.items()}, card)),
    )  # fmt: skip
    assert same(find(name).pretrain(factory), payloads[name])
    phases = {card["phase"] for _, card in kept}
    assert phases == {"finetune": {0}, "maml": {1}, "deepemd": {0, 1}}[name]
    for found in (kept[0], kept[len(kept) // 2], kept[-1]):
        resumed = find(name).pretrain(make_factory(name, tiny_dataset, checkpoint=found))
        assert same(resumed, payloads[name])


@pytest.mark.parametrize("name", TRAINED)
def test_the_budget_is_spent_and_not_exceeded(tiny_dataset, monkeypatch, name):
    """Image passes counted where images are made; MAML's steps see the same images again."""
    seen: list[int] = []
    factory = make_factory(name, tiny_dataset)
    real = type(factory.images).batch

    def batch(self, positions, draws):
        seen.append(len(positions))
        return real(self, positions, draws)

    monkeypatch.setattr(type(factory.images), "batch", batch)
    find(name).pretrain(factory)
    if name.endswith("maml"):  # 2 of a class at each of 2 steps, for statistics (and prototypes); 2
        factor = (2 * (2 + 1 + (name == "proto_maml")) + 2) / 4
        seen = [round(count * factor) for count in seen]
    assert 0.6 * factory.budget < sum(seen) <= factory.budget


def test_episodes_hold_base_images_alone_and_none_twice(tiny_dataset):
    factory = make_factory("protonet", tiny_dataset)
    every = np.concatenate(factory.images.rows)
    base = set(tiny_dataset.class_split.base)
    assert {int(tiny_dataset.train_labels[row]) for row in every} <= base
    episodes = Episodes(factory, ways=4, shots=2, queries=3)
    for number in range(20):
        drawn = episodes.draw(number)
        task = episodes.lay_out(*drawn)
        assert task.support_y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert task.query_y.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        x = factory.images.batch(*drawn).unflatten(0, (4, 5))
        assert torch.equal(task.support_x, x[:, :2].flatten(0, 1))
        assert torch.equal(task.query_x, x[:, 2:].flatten(0, 1))
        rows = every[drawn[0].numpy()]
        assert len(set(rows.tolist())) == 20
        classes = tiny_dataset.train_labels[rows].reshape(4, 5)
        assert (classes == classes[:, :1]).all() and len(set(classes[:, 0].tolist())) == 4


def test_an_episode_that_asks_for_too_many_images_says_so(tiny_dataset):
    with pytest.raises(ValueError, match="takes 20 images of a class, one base class has 9"):
        Episodes(make_factory("protonet", tiny_dataset), ways=3, shots=10, queries=10)


def test_batches_pass_over_all_images(tiny_dataset):
    factory = make_factory("finetune", tiny_dataset)
    images = sum(len(rows) for rows in factory.images.rows)
    draw, labels = draw_batches(factory, 16)
    seen = torch.cat([draw(step)[0] for step in range(images // 16)])
    assert sorted(seen.tolist()) == list(range(images))
    assert torch.bincount(labels).tolist() == [9] * 16
    rows = np.concatenate(factory.images.rows)
    classes = np.array(tiny_dataset.class_split.base)
    assert (classes[labels] == tiny_dataset.train_labels[rows]).all()
    assert not torch.equal(draw(0)[0], draw(images // 16)[0])  # another epoch, another order


def test_fill_wants_exactly_the_arrays_that_are_due():
    module = torch.nn.Linear(2, 1)
    good = {"weight": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)}
    fill(module, good)
    assert module.weight.tolist() == [[1.0, 1.0]]
    for wrong in (
        {**good, "more": np.zeros(1, np.float32)},
        {"weight": good["weight"]},
        {**good, "bias": np.zeros(2, np.float32)},
    ):
        with pytest.raises(ValueError, match="array"):
            fill(module, wrong)


@pytest.mark.parametrize("block", ["plain", "residual"])
@pytest.mark.parametrize("name", ["full", "linear_probe"])
def test_the_collective_goes_on_where_it_stood(evolved, tiny_dataset, name, block):
    collective, widths = evolved.collective, evolved.collective.widths
    if block == "residual":
        collective = Collective(widths, 6, width=0.0625, generator=torch_rng(), block=block)
    made = find(name).from_collective(collective)
    context = make_context(name, tiny_dataset, made)
    with torch.no_grad():
        x = context.shard.test_x
        assert torch.equal(rebuild_long(context)[0].eval()(x), collective.eval().features(x))
    found = find(name).adapt(context)
    assert found.epochs == [0, 1, 2] and found.loss[0] != found.loss[2]


def test_a_frozen_body_is_not_changed_and_a_tuned_one_is(tiny_dataset, payloads, monkeypatch):
    seen: list[torch.nn.Module] = []
    real = fitting.train

    def spy(network, *rest, **options):
        seen.append(network)
        return real(network, *rest, **options)

    monkeypatch.setattr(fitting, "train", spy)
    before = payloads["finetune"].arrays["stem.4.conv.weight"]
    for rate in (0.0, 0.01):
        context = make_context("finetune", tiny_dataset, payloads["finetune"], client_body_lr=rate)
        find("finetune").adapt(context)
    frozen, tuned = seen
    assert not list(frozen.top.parameters())  # features were taken beforehand
    after = tuned.top.stem[4].conv.weight.detach().numpy()
    assert not np.array_equal(after, before)
    assert np.array_equal(tuned.top.stem[4].norm.running_mean.numpy(),
                          payloads["finetune"].arrays["stem.4.norm.running_mean"])  # fmt: skip


def test_fine_tunings_rates_at_the_client_are_its_own(tiny_dataset, payloads, monkeypatch):
    seen: list[tuple[float, float]] = []
    real = fitting.train

    def spy(network, shard, asked, *rest, **options):
        seen.append((asked.lr, asked.inherited_lr))
        return real(network, shard, asked, *rest, **options)

    monkeypatch.setattr(fitting, "train", spy)
    rates = {"client_lr": 0.0123, "client_body_lr": 0.004}
    find("finetune").adapt(make_context("finetune", tiny_dataset, payloads["finetune"], **rates))
    assert seen == [(0.0123, 0.004)]


def test_deepemds_classes_are_fitted_to_the_shard(tiny_dataset, payloads):
    means, fitted = (
        make_context("deepemd", tiny_dataset, payloads["deepemd"], client_steps=steps)
        for steps in (0, 20)
    )
    adapt = find("deepemd").adapt
    assert adapt(fitted).train_loss[0] < adapt(means).train_loss[0]


@pytest.mark.parametrize("name", ["finetune", "maml", "protonet", "deepemd"])
def test_a_backbone_has_the_collectives_kind_of_layers_at_both_ends(tiny_dataset, payloads, name):
    made = find(name).pretrain(replace(make_factory(name, tiny_dataset), block="residual"))
    skips = [unit.skips for unit in body_of(made.card, 3).layers]
    assert skips == [False] * 4 + [True] * 3  # 64, 128, 256, 512 and on with 512
    plain = payloads[name]  # same draws, same arrays: only the sums differ
    assert "block" not in plain.card and not same(made, plain)
    assert not any(unit.skips for unit in body_of(plain.card, 3).layers)
    found = find(name).adapt(make_context(name, tiny_dataset, made))
    assert 0 <= found.accuracy[-1] <= 1


def test_scratch_has_the_collectives_kind_of_layers(tiny_dataset):
    context = replace(make_context("scratch", tiny_dataset, Payload({}, {})), block="residual")
    layers = scratch.prepare(context).individual.layers
    assert [unit.skips for unit in layers] == [False] * 4 + [True] * 3
