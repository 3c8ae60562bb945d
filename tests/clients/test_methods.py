"""The two methods: what each depends on, and what each must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clients.work import client_context
from learngene import methods
from learngene.adaptation import training
from learngene.adaptation.retain import Retain
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.dataset import ImageDataset
from learngene.data.partition import draw_shard, read_shard
from learngene.data.settings import ShardSettings
from learngene.gene.gene import Learngene, reconstruct
from learngene.methods.learngene import start_head
from learngene.networks.individual import Individual
from learngene.networks.layers import STEMS
from tests.clients.helpers import make_task
from tests.helpers import CPU, gene_of, torch_rng

Find = Callable[..., dict[str, Any]]


def gene_with(evolved: CollectiveTrainer, stem: str = "none") -> Learngene:
    layers = range(1, 8) if stem == "none" else [11, 12, 13]
    return gene_of(evolved.collective, layers, stem=stem)


def context_of(name: str, dataset: ImageDataset, gene: Learngene, client: int = 0, **changed: Any):
    task = make_task(dataset, gene, **changed)
    shard = draw_shard(dataset, ShardSettings(3, 5, seed=0), client)
    data = read_shard(dataset, shard, CPU)
    payload = gene.arrays if name == "learngene" else {}
    return client_context(name, methods.find(name), client, 0, task, payload, data, CPU)


@pytest.fixture
def run(evolved, tiny_dataset) -> Find:
    def found(name: str, stem: str = "none", **changed: Any) -> dict[str, Any]:
        context = context_of(name, tiny_dataset, gene_with(evolved, stem), **changed)
        metrics = methods.find(name).adapt(context).metrics()
        return {key: value for key, value in metrics.items() if key != "seconds"}

    return found


@pytest.fixture
def trained(monkeypatch) -> list[Individual]:
    """Every individual that a method hands to training, with its arguments, untrained."""
    seen: list = []

    def spy(individual, shard, settings, generator, retain=None, **options):
        seen.append((individual, SimpleNamespace(**asdict(settings), **options), retain))
        return training.Outcome([0], [0.5], [1.0], [1.0], [0.0])

    monkeypatch.setattr(training, "train", spy)
    return seen


def test_scratch_does_not_depend_on_the_learngenes_settings(run):
    plain = run("scratch")
    assert plain == run(
        "scratch",
        stem="fresh",
        individual__lr=0.7,
        individual__inherited_lr=0.3,
        individual__schedule="constant",
        individual__head="mlp",
        individual__stem="fresh",
        retain__ewc_lambda=7.0,
        retain__labels="true",
    )


@pytest.mark.parametrize(
    "changed",
    [{"lr": 0.05}, {"schedule": "constant"}, {"head": "mlp"}],
)
def test_scratch_depends_on_its_own(run, changed):
    other = run("scratch", **{f"method__scratch__{k}": v for k, v in changed.items()})
    assert other["loss"] != run("scratch")["loss"]


def test_scratch_gets_no_retain_loss_and_its_own_rate(run, trained):
    run("scratch", method__scratch__lr=0.123)
    ((individual, settings, retain),) = trained
    assert retain is None and settings.ewc_lambda == 0 and not settings.freeze_norms
    assert settings.lr == 0.123
    assert all(p.requires_grad for p in individual.parameters())


def test_all_of_scratchs_layers_decay_alike(run, monkeypatch):
    """With a gradient of nothing, every filter shrinks by the same factor."""
    before: list[tuple[Individual, dict[str, torch.Tensor]]] = []
    real = training.train

    def spy(individual, *given, **options):
        weights = {n: v.clone() for n, v in individual.state_dict().items() if ".conv." in n}
        before.append((individual, weights))
        return real(individual, *given, **options)

    monkeypatch.setattr(training, "train", spy)
    monkeypatch.setattr(training.F, "cross_entropy", lambda logits, y: 0.0 * logits.sum())
    run("scratch", individual__weight_decay=0.1, individual__epochs=1)
    ((individual, start),) = before
    after = individual.state_dict()
    shares = [float(after[name].norm() / start[name].norm()) for name in start]
    assert len(shares) == 7 and max(shares) < 1
    assert shares == pytest.approx([shares[0]] * 7, abs=1e-5)


@pytest.mark.parametrize("head", ["prototype", "mlp"])
@pytest.mark.parametrize("stem", STEMS)
def test_every_stem_and_head_adapts(run, stem, head):
    found = run("learngene", stem, individual__head=head)
    assert found["epochs"] == [0, 1, 2] and found["loss"][2] != found["loss"][0]
    assert found["penalty"][2] > 0


def test_the_learngene_starts_where_the_collective_stood(run, trained, evolved, tiny_dataset):
    run("learngene")
    ((individual, settings, retain),) = trained
    gene = gene_with(evolved)
    again = reconstruct(gene, ways=3, head="prototype", generator=torch_rng())
    for part in ("stem", "top"):
        ours, theirs = getattr(individual, part).state_dict(), getattr(again, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert settings.freeze_norms and isinstance(retain, Retain)
    held = {id(p) for p in individual.top.parameters()}
    assert {id(p) for p in retain.parameters} == held
    assert sum(float(f.sum()) for f in retain.fisher) == pytest.approx(
        sum(f.numel() for f in retain.fisher), rel=1e-4
    )


def test_a_fresh_stem_is_measured_on_the_shard(run, trained, evolved, tiny_dataset):
    run("learngene", "fresh")
    ((individual, *_),) = trained
    shard = context_of("learngene", tiny_dataset, gene_with(evolved, "fresh")).shard
    seen = individual.stem[0].conv(shard.train_x)
    assert torch.allclose(individual.stem[0].norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5)


def test_a_fresh_stem_is_trained_with_its_norms(run, trained):
    run("learngene", "fresh")
    ((individual, settings, _),) = trained
    assert not settings.freeze_norms and all(p.requires_grad for p in individual.parameters())


def test_lambda_zero_computes_no_fisher(run, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("not asked for")

    monkeypatch.setattr("learngene.methods.learngene.fisher_diagonal", fail)
    found = run("learngene", retain__ewc_lambda=0.0)
    assert found["penalty"] == [0.0, 0.0, 0.0] and "fisher_mean" not in found


@pytest.mark.parametrize("strength", [0.0, 0.25, 40.0])
def test_lambda_is_the_settings_and_the_fisher_is_normalised(evolved, tiny_dataset, strength):
    context = context_of("learngene", tiny_dataset, gene_with(evolved), retain__ewc_lambda=strength)
    prepare = methods.find("learngene").prepare
    made = prepare(context)
    assert made.ewc_lambda == strength and (made.retain is None) == (strength == 0)
    if strength == 40:
        raw = prepare(replace(context, retain=replace(context.retain, normalise=False))).retain
        assert raw.fisher_mean == pytest.approx(made.retain.fisher_mean)
        assert torch.allclose(raw.fisher[0], made.retain.fisher[0] * raw.fisher_mean)


def test_a_clients_draws_are_its_own(evolved, tiny_dataset):
    zero, one = (
        methods.find("scratch").prepare(
            context_of("scratch", tiny_dataset, gene_with(evolved), client)
        )
        for client in (0, 1)
    )
    assert not torch.equal(
        zero.individual.layers[0].conv.weight, one.individual.layers[0].conv.weight
    )


def test_the_fisher_sample_is_bounded_and_its_labels_are_its_images_own(run, monkeypatch, trained):
    seen: list = []

    def spy(model, held, x, labels=None, batch_size=32):
        seen.append((x, labels))
        return [torch.ones_like(p) for m in held for p in m.parameters()]

    monkeypatch.setattr("learngene.methods.learngene.fisher_diagonal", spy)
    run("learngene", retain__fisher_samples=7, retain__labels="true")
    run("learngene", retain__fisher_samples=1000)
    (few, labels), (all_of_them, none) = seen
    assert few.shape[0] == 7 and labels.shape == (7,) and none is None
    assert all_of_them.shape[0] == 15
    assert len({image.numpy().tobytes() for image in all_of_them}) == 15


def test_labels_of_the_fisher_sample(evolved, tiny_dataset, monkeypatch, trained):
    context = context_of("learngene", tiny_dataset, gene_with(evolved), retain__labels="true")
    of = {
        image.numpy().tobytes(): int(y)
        for image, y in zip(context.shard.train_x, context.shard.train_y, strict=True)
    }

    def spy(model, held, x, labels):
        assert [of[image.numpy().tobytes()] for image in x] == labels.tolist()
        return [torch.ones_like(p) for m in held for p in m.parameters()]

    monkeypatch.setattr("learngene.methods.learngene.fisher_diagonal", spy)
    methods.find("learngene").adapt(context)


def test_prototypes_come_from_the_shard_and_from_mirrors_where_they_keep_the_label(
    evolved, tiny_dataset
):
    context = context_of("learngene", tiny_dataset, gene_with(evolved))
    gene = gene_with(evolved)
    x, y = context.shard.train_x, context.shard.train_y
    for flip in (False, True):
        object.__setattr__(context.shard, "flip", flip)
        individual = reconstruct(gene, ways=3, head="prototype", generator=torch_rng())
        start_head(individual, context)
        again = reconstruct(gene, ways=3, head="prototype", generator=torch_rng())
        views = torch.cat([x, x.flip(3)]) if flip else x
        again.head.start(training.features(again, views), y.repeat(2) if flip else y)
        assert torch.allclose(individual.head.weight, again.head.weight, atol=1e-6)


def test_there_is_no_other_method():
    with pytest.raises(KeyError, match="other"):
        methods.find("other")
