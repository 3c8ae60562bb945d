"""A learngene from Python: the numbers of a client, one's own images, and no Flower."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

import learngene
from clients.work import run_task
from conf.schema import Config
from learngene import IndividualSettings, RetainSettings, adapt, api, predict, shard_of
from learngene.adaptation import training
from learngene.data.partition import draw_shard, read_shard
from learngene.data.settings import ShardSettings
from learngene.gene.gene import digest, load, save
from learngene.utils.settings import limits_of
from tests.clients.helpers import make_task
from tests.helpers import CPU, DIVERGING, gene_of

SHORT = {"epochs": 2, "eval_every": 1, "batch_size": 8}  # as make_task has them


def settings_of(**values: Any) -> dict[str, Any]:
    """The settings that ``adapt`` takes, by the names of their fields."""
    retain = {name: values.pop(name) for name in asdict(RetainSettings()) if name in values}
    return {"individual": IndividualSettings(**values), "retain": RetainSettings(**retain)}


@pytest.fixture(scope="module")
def gene(evolved, tmp_path_factory):
    made = gene_of(evolved.collective)
    return load(save(made, tmp_path_factory.mktemp("gene")))


@pytest.fixture(scope="module")
def shard(tiny_dataset):
    shard = draw_shard(tiny_dataset, ShardSettings(3, 5, seed=0), 0)
    return read_shard(tiny_dataset, shard, CPU)


def test_adapt_gives_the_numbers_of_client_0(gene, shard, tiny_dataset):
    answer = run_task(0, 1, make_task(tiny_dataset, gene), {"learngene": gene.arrays})
    outcome = adapt(gene, shard, seed=0, **settings_of(**SHORT))[1].metrics()
    theirs = answer["methods"]["learngene"]
    assert {**outcome, "seconds": 0} == {**theirs, "seconds": 0}


def test_defaults_are_those_of_a_run(gene, shard, monkeypatch):
    contexts = []
    built = api.method._around

    def seen(gene, context):
        contexts.append(context)
        return built(gene, replace(context, individual=replace(context.individual, epochs=0)))

    monkeypatch.setattr(api.method, "_around", seen)
    adapt(gene, shard)
    adapt(gene, shard, individual=IndividualSettings(epochs=1))
    run = Config(cache="")
    assert (contexts[0].individual, contexts[0].retain) == (run.individual, run.retain)
    assert contexts[1].individual == replace(run.individual, epochs=1)
    assert contexts[1].retain == run.retain


def test_without_epochs_the_individual_is_as_inherited_and_cheap(gene, shard, monkeypatch):
    """Its one point is epoch 0 of a training; neither Fisher information nor optimiser is made."""
    trained = adapt(gene, shard, **settings_of(**SHORT))[1]

    def refuse(*_, **__):
        raise AssertionError("not needed")

    monkeypatch.setattr(api.method, "fisher_diagonal", refuse)
    monkeypatch.setattr(training, "sgd", refuse)
    inherited = adapt(gene, shard, **settings_of(**SHORT | {"epochs": 0}))[1]
    for name in ("epochs", "accuracy", "loss", "train_loss", "penalty"):
        assert getattr(inherited, name) == getattr(trained, name)[:1]
    assert 0 <= inherited.extras["train_accuracy"] <= 1


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_query_is_judged_without_its_company(gene, shard, epochs):
    """Inductive, as the few-shot benchmark wants it: no statistics over the images of a test."""

    def losses(part):
        some = replace(shard, test_x=shard.test_x[part], test_y=shard.test_y[part])
        return adapt(gene, some, **settings_of(**SHORT | {"epochs": epochs}))[1].loss

    parts = [slice(0, 1), slice(1, None)]
    count = len(shard.test_y)
    one, others = (np.array(losses(part)) for part in parts)
    assert losses(slice(None)) == pytest.approx((one + (count - 1) * others) / count, rel=1e-4)


def test_a_runs_stem_is_not_read_and_its_safeguard_is(gene, shard):
    plain, other, guarded = (
        adapt(gene, shard, **settings_of(**SHORT, **changed))[1].metrics()
        for changed in ({}, {"stem": "fresh"}, {"safeguard": True, "safeguard_folds": 2})
    )
    assert {**plain, "seconds": 0} == {**other, "seconds": 0}
    assert guarded["safeguard_fell_back"] in (0, 1)


@pytest.mark.parametrize("block", ["plain", "residual"])
def test_scratch_has_the_kind_of_layers_that_the_learngene_has(gene, shard, monkeypatch, block):
    """Where the safeguard falls back, and in what it compares with."""
    blocks, real = [], api.scratch.prepare

    def seen(context):
        blocks.append(context.block)
        return real(context)

    monkeypatch.setattr(api.scratch, "prepare", seen)
    built = asdict(gene.card) | {"block": None if block == "plain" else block}
    own = replace(gene.card, block=built["block"], sha256=digest(gene.arrays, built))
    changed = {"safeguard": True, "safeguard_folds": 2, "safeguard_epochs": 0}
    adapt(replace(gene, card=own), shard, **settings_of(**SHORT, **changed))
    assert set(blocks) == {block}


def test_own_arrays_make_the_same_shard(shard, tiny_dataset):
    drawn = draw_shard(tiny_dataset, ShardSettings(3, 5, seed=0), 0)
    train, test = drawn.train_rows, drawn.test_rows
    made = shard_of(
        tiny_dataset.train_images[train], tiny_dataset.train_labels[train],
        tiny_dataset.test_images[test], tiny_dataset.test_labels[test], flip=False,
    )  # fmt: skip
    assert torch.equal(made.train_x, shard.train_x) and torch.equal(made.test_x, shard.test_x)
    # The run numbers classes as they were drawn, this function in ascending order.
    assert [made.classes[y] for y in made.train_y] == [shard.classes[y] for y in shard.train_y]
    assert [made.classes[y] for y in made.test_y] == [shard.classes[y] for y in shard.test_y]


@pytest.mark.parametrize(("mirror", "moved"), [(False, False), (True, False), (True, True)])
def test_predict_agrees_with_the_curve(gene, shard, tiny_dataset, mirror, moved):
    short = {**SHORT, "moved_views": moved}
    individual, outcome = adapt(gene, replace(shard, flip=mirror), **settings_of(**short))
    rows = draw_shard(tiny_dataset, ShardSettings(3, 5, seed=0), 0).test_rows
    said = predict(individual, tiny_dataset.test_images[rows], mirror=mirror, moved=moved)
    assert np.mean(said == shard.test_y.numpy()) == outcome.accuracy[-1]


IMAGES, LABELS = np.zeros((4, 32, 32, 3), np.uint8), np.array([7, 7, 9, 9])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train_images": IMAGES / 255}, "float64"),
        ({"train_images": IMAGES[0]}, r"\(32, 32, 3\)"),
        ({"test_labels": LABELS[:3]}, "4 test images have 3 labels"),
        ({"test_images": IMAGES[:, :16, :16]}, r"\(16, 16, 3\)"),
        ({"train_images": IMAGES[:, :16], "test_images": IMAGES[:, :16]}, "H and W differ"),
        ({"test_labels": np.array([7, 7, 9, 8])}, "label 8"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, said):
    whole = {"train_images": IMAGES, "train_labels": LABELS,
             "test_images": IMAGES, "test_labels": LABELS}  # fmt: skip
    with pytest.raises(ValueError, match=said):
        shard_of(**(whole | changed))


def test_grey_images_do_not_fit_a_learngene_of_colour(gene):
    grey = IMAGES[..., :1]
    with pytest.raises(ValueError, match="3 channels, these have 1"):
        adapt(gene, shard_of(grey, LABELS, grey, LABELS))


@pytest.mark.parametrize(
    ("word", "among"),
    [
        ({"head": "protoype"}, "not one of prototype, mlp. Write "),
        ({"schedule": "cosin"}, "not one of cosine, constant. Write "),
        ({"labels": "model"}, "not one of exact, true. Write "),
    ],
)
def test_a_misspelt_word_is_refused_and_not_taken_for_another(gene, shard, word, among):
    ((field, value),) = word.items()
    with pytest.raises(learngene.InputError, match=among) as refused:
        adapt(gene, shard, **settings_of(**{**SHORT, **word}))
    assert (refused.value.field, refused.value.value) == (field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("epochs", -1), ("epochs", 2.5), ("batch_size", 0), ("eval_every", 0), ("momentum", 2)),
        *(("lr", float("nan")), ("inherited_lr", -1.0), ("weight_decay", 2), ("ewc_lambda", -5)),
        *(("fisher_samples", 0), ("ewc_lambda", float("inf")), ("epochs", True)),
    ],
)
def test_a_number_out_of_its_range_is_refused(gene, shard, field, value):
    with pytest.raises(learngene.InputError, match="Write, for instance, ") as refused:
        adapt(gene, shard, **settings_of(**{**SHORT, field: value}))
    assert refused.value.field == field


def test_a_training_that_diverges_is_no_individual(gene, shard, monkeypatch):
    with pytest.raises(ArithmeticError, match=r"not finite: lower individual\.lr"):
        adapt(gene, shard, **settings_of(**DIVERGING))
    real = api.method.adapt

    def infinite(context):
        outcome = real(context)
        return replace(outcome, loss=[*outcome.loss[:-1], float("inf")])

    monkeypatch.setattr(api.method, "adapt", infinite)  # the weights are finite
    with pytest.raises(ArithmeticError, match="not finite"):
        adapt(gene, shard, **settings_of(**SHORT))


def test_every_number_of_adapt_has_a_range_and_numpys_are_numbers(gene, shard):
    numbers = {
        name
        for name, default in (asdict(IndividualSettings()) | asdict(RetainSettings())).items()
        if isinstance(default, int | float) and not isinstance(default, bool)
    }
    limits = {**dict(limits_of(IndividualSettings)), **dict(limits_of(RetainSettings))}
    assert numbers <= {name for name, each in limits.items() if not each.choices}
    same = {"epochs": np.int64(1), "lr": np.float32(0.01), "ewc_lambda": np.int32(1)}
    plain = {"epochs": 1, "lr": float(np.float32(0.01)), "ewc_lambda": 1.0}
    one, other = (
        adapt(gene, shard, **settings_of(**{**SHORT, **values}))[1] for values in (same, plain)
    )
    assert one.accuracy == other.accuracy


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES / 255, "float64"),  # would be normalised twice
        (IMAGES[0], r"\(32, 32, 3\), uint8"),
        (IMAGES[..., :1], "3 channels, these have 1"),
        (IMAGES[:, :16], r"\(4, 16, 32, 3\), H and W differ"),
    ],
)
def test_images_that_do_not_fit_are_not_predicted(gene, shard, images, said):
    individual, _ = adapt(gene, shard, **settings_of(**SHORT))
    with pytest.raises(ValueError, match=said):
        predict(individual, images)


def test_the_package_alone_is_light_and_its_names_bring_no_flower():
    code = (
        "import sys, learngene\n"
        "assert 'torch' not in sys.modules, 'importing learngene brings torch'\n"
        "for name in learngene.__all__: getattr(learngene, name)\n"
        "assert not {'flwr', 'ray', 'hydra'} & set(sys.modules), 'a name brings Flower'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error():
    assert set(learngene.__all__) <= set(dir(learngene))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = learngene.nonsense
