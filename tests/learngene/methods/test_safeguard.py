"""The safeguard: what is held out, how it decides, and what poisoned learngenes come to."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.poisoned import forged, randomised, scaled
from clients.work import client_context
from learngene import methods
from learngene.adaptation.training import Outcome
from learngene.data.dataset import ImageDataset
from learngene.errors import InputError
from learngene.gene.gene import Learngene
from learngene.methods.safeguard import Verdict, compare, folds, guarded
from tests.clients.helpers import make_shard, make_task
from tests.helpers import CPU, gene_of, torch_rng


@pytest.fixture
def gene(evolved) -> Learngene:
    return gene_of(evolved.collective)


def context_of(dataset: ImageDataset, gene: Learngene, **changed) -> methods.ClientContext:
    changed = {"individual__safeguard": True, "individual__epochs": 4, **changed}
    task = make_task(dataset, gene, **changed)
    method = methods.find("learngene")
    return client_context("learngene", method, 0, 1, task, gene.arrays, make_shard(shots=9), CPU)


def run(context: methods.ClientContext) -> dict:
    found = methods.find("learngene").adapt(context).metrics()
    assert json.loads(json.dumps(found, allow_nan=False)) == found  # numbers only, all finite
    return {name: value for name, value in found.items() if name != "seconds"}


def scratch(context: methods.ClientContext) -> dict:
    found = methods.find("scratch").adapt(context.as_scratch()).metrics()
    return {name: value for name, value in found.items() if name != "seconds"}


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=4, max_size=60), st.integers(2, 6), st.integers(0, 99))
def test_folds_part_the_shard_evenly(labels, count, seed):
    y = torch.tensor(labels)
    found = folds(y, count, torch_rng(seed))
    assert found.shape == y.shape and int(found.min()) >= 0 and int(found.max()) < count
    sizes = torch.bincount(found, minlength=count)
    assert int(sizes.max() - sizes.min()) <= 1
    for c in y.unique():
        of_class = torch.bincount(found[y == c], minlength=count)
        assert int(of_class.max() - of_class.min()) <= 1
    assert torch.equal(found, folds(y, count, torch_rng(seed)))


def outcomes(*accuracies: float, loss: float = 1.0):
    """A method that gives these accuracies, call by call."""
    left = list(accuracies)
    return lambda context: Outcome([0], [left.pop(0)], [loss], [1.0], [0.0])


@pytest.mark.parametrize(
    ("gene_folds", "scratch_folds", "hurts"),
    [
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), False),
        ((1.0, 0.0, 5 / 9), (0.0, 1.0, 5 / 9), False),  # a tie keeps the learngene
        ((1.0, 0.0, 5 / 9), (0.0, 1.0, 6 / 9), True),  # one image more
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), False),
    ],
)
def test_the_one_that_names_more_held_out_images_wins(
    tiny_dataset, gene, gene_folds, scratch_folds, hurts
):
    verdict = compare(context_of(tiny_dataset, gene), outcomes(*gene_folds),
                      outcomes(*scratch_folds))  # fmt: skip
    assert verdict.hurts is hurts and verdict.broken == 0
    assert verdict.gene == pytest.approx(sum(gene_folds) / 3)
    assert verdict.scratch == pytest.approx(sum(scratch_folds) / 3)


def test_a_class_of_fewer_images_than_folds_is_refused(tiny_dataset, gene):
    """It would be missing in some fold: both ways break there, and a tie keeps the learngene."""
    for shots, fits in ((2, False), (3, True)):
        context = replace(context_of(tiny_dataset, gene), shard=make_shard(shots=shots))
        with nullcontext() if fits else pytest.raises(InputError, match="safeguard_folds=3: each"):
            compare(context, outcomes(*[0.5] * 3), outcomes(*[0.5] * 3))


def test_every_image_is_held_out_once_and_never_trained_on_then(tiny_dataset, gene):
    context, seen = context_of(tiny_dataset, gene, individual__safeguard_epochs=1), []

    def spy(inside: methods.ClientContext) -> Outcome:
        held = {image.numpy().tobytes() for image in inside.shard.test_x}
        trained = {image.numpy().tobytes() for image in inside.shard.train_x}
        assert not held & trained and len(held) + len(trained) == 27
        assert inside.individual.epochs == 1  # safeguard_epochs
        assert set(inside.shard.train_y.tolist()) == {0, 1, 2}
        seen.append((held, inside.generator("weights").initial_seed()))
        return Outcome([0], [0.5], [1.0], [1.0], [0.0])

    compare(context, spy, spy)
    held = [images for images, _ in seen]
    assert len(seen) == 6 and held[0] == held[1] and held[2] == held[3]  # the same for both
    assert len(held[0] | held[2] | held[4]) == sum(map(len, held[::2])) == 27
    assert len({drawn for _, drawn in seen}) == 6
    assert not set(held[0]) & {image.numpy().tobytes() for image in context.shard.test_x}


def broken(context: methods.ClientContext) -> Outcome:
    return Outcome([0], [0.9], [math.nan], [1.0], [0.0])


def raises(context: methods.ClientContext) -> Outcome:
    raise ZeroDivisionError


@pytest.mark.parametrize("bad", [broken, raises])
def test_training_that_is_not_finite_hurts(tiny_dataset, gene, bad):
    context = context_of(tiny_dataset, gene)
    outcome = guarded(context, bad, outcomes(*[0.4] * 3, 0.7))
    assert outcome.accuracy == [0.7]
    assert outcome.extras["safeguard_fell_back"] == 1
    assert outcome.extras["safeguard_broken_folds"] == 3
    assert outcome.extras["safeguard_gene"] == 0


def test_training_that_breaks_only_on_the_whole_shard_falls_back(tiny_dataset, gene):
    calls = []

    def late(context: methods.ClientContext) -> Outcome:
        calls.append(1)
        return Outcome([0], [1.0], [math.inf if len(calls) == 4 else 1.0], [1.0], [0.0])

    outcome = guarded(context_of(tiny_dataset, gene), late, outcomes(*[0.1] * 3, 0.6))
    assert outcome.accuracy == [0.6] and outcome.extras["safeguard_fell_back"] == 1
    assert outcome.extras["safeguard_gene"] == 1.0


def test_faults_that_are_no_numbers_are_not_hidden(tiny_dataset, gene):
    def fails(context: methods.ClientContext) -> Outcome:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        guarded(context_of(tiny_dataset, gene), fails, outcomes(*[0.1] * 9))


def test_a_learngene_that_is_kept_gives_what_it_gives_without(tiny_dataset, gene, monkeypatch):
    monkeypatch.setattr(
        "learngene.methods.safeguard.compare",
        lambda *_: Verdict(gene=0.5, scratch=0.4, broken=0),
    )
    kept = run(context_of(tiny_dataset, gene))
    plain = run(context_of(tiny_dataset, gene, individual__safeguard=False))
    assert kept.pop("safeguard_fell_back") == 0 and kept.pop("safeguard_broken_folds") == 0
    assert (kept.pop("safeguard_gene"), kept.pop("safeguard_scratch")) == (0.5, 0.4)
    assert kept == plain


@pytest.mark.parametrize("poison", [randomised, scaled])
def test_poisoned_learngenes_are_found_and_cost_nothing(tiny_dataset, gene, poison):
    """The card vouches for the poison; a client that falls back has its scratch's numbers."""
    bad = forged(gene, poison)
    asked = {"method__scratch__lr": 0.02, "individual__epochs": 12, "individual__eval_every": 12}
    found = run(context_of(tiny_dataset, bad, **asked))
    assert found["safeguard_fell_back"] == 1
    assert found["safeguard_scratch"] > found["safeguard_gene"]
    assert found == run(context_of(tiny_dataset, bad, **asked))
    plain = scratch(context_of(tiny_dataset, bad, **asked))
    assert {name: found[name] for name in plain} == plain
    unguarded = context_of(tiny_dataset, bad, **asked, individual__safeguard=False)
    assert run(unguarded)["accuracy"][-1] < found["accuracy"][-1]


def test_a_gene_that_is_not_what_its_card_says_is_still_refused(tiny_dataset, gene):
    context = context_of(tiny_dataset, gene)
    bad = replace(context, payload=randomised(gene.arrays))
    with pytest.raises(ValueError, match="sha256"):
        methods.find("learngene").adapt(bad)
