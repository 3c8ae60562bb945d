"""Trained together or alone: the same curves up to rounding, and nobody takes another along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from learngene.adaptation import retain as retaining
from learngene.adaptation import together
from learngene.adaptation.retain import Retain, fisher_diagonal
from learngene.adaptation.together import bytes_of, clip_each, form_of, train_together
from learngene.adaptation.training import CLIP, Outcome, Training, shard_features
from learngene.gene.gene import inherited_modules
from learngene.networks.individual import Front, Individual, measure_norms
from tests.clients.helpers import make_shard, train_settings
from tests.helpers import torch_rng

FRONT = Front(pools=(1, 2, 4), side=4, dimensions=None)


def training(
    seed: int, form: str = "front", flip: bool = True, shots: int = 6, moved: bool = False
) -> Training:
    """The learngene's (``front``, ``fresh``) or scratch's, for the client of this number."""
    shard = replace(make_shard(shots=shots, seed=seed), flip=flip)
    shard = shard.with_views(mirror=True, moved=moved)
    individual = Individual(
        inherited={"front": 4, "fresh": 3, "scratch": 0}[form],
        ways=3,
        width=0.0625,
        head="mlp" if form == "fresh" else "prototype",
        generator=torch_rng(seed),
        top_widths=(4, 8, 16, 32) if form == "front" else None,
        front=FRONT if form == "front" else None,
    )
    measure_norms(individual, individual, shard.train_x, torch_rng(seed))
    if form != "fresh":
        individual.head.start(*shard_features(individual, shard))
    retain = None
    if form != "scratch":
        held = inherited_modules(individual)
        fisher = fisher_diagonal(individual, held, shard.train_x)
        retain = Retain([p for m in held for p in m.parameters()], fisher, normalise=True)
    return Training(
        individual=individual,
        shard=shard,
        settings=train_settings(augment=True, weight_decay=5e-4, eval_every=2),
        generator=torch_rng(seed + 50),
        retain=retain,
        freeze_norms=form == "front",
        ewc_lambda=0.5 if retain else 0.0,
        extras={"depth": 4},
    )


def assert_close(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.epochs == other.epochs == [0, 2, 3]
        assert one.extras == other.extras and list(one.extras) == ["train_accuracy", "depth"]
        assert one.accuracy == other.accuracy
        for name in ("loss", "train_loss", "penalty"):
            mine, alone = getattr(one, name), getattr(other, name)
            assert mine == pytest.approx(alone, rel=1e-3, abs=1e-6), name


def test_residual_layers_are_another_form():
    plain, residual = training(0), training(0)
    for unit in residual.individual.top:
        unit.skips = True
    assert form_of(plain) == form_of(training(1)) != form_of(residual)


@pytest.mark.parametrize("form", ["front", "fresh", "scratch"])
@pytest.mark.parametrize("unfold", [False, True], ids=["grouped", "unfolded"])
def test_each_has_the_curves_of_training_alone(monkeypatch, form, unfold):
    monkeypatch.setattr(together, "UNFOLD_ON", ("cpu",) if unfold else ())
    trainings = [training(seed, form) for seed in range(3)]
    before = [p.clone() for each in trainings for p in each.individual.parameters()]
    found = train_together(trainings)
    after = [p for each in trainings for p in each.individual.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert_close(found, [training(seed, form).run() for seed in range(3)])
    assert len({tuple(each.loss) for each in found}) == 3
    assert (found[0].penalty[-1] > 0) == (form != "scratch")


def test_moved_views_are_another_form_with_the_curves_of_training_alone():
    trainings = [training(seed, moved=True) for seed in range(2)]
    assert form_of(trainings[0]) != form_of(training(0))
    assert_close(train_together(trainings), [training(seed, moved=True).run() for seed in range(2)])


def test_without_epochs_each_is_tested_as_inherited():
    """What ``individual.epochs=0`` asks for: nothing is held, and nothing is trained."""
    settings = train_settings(epochs=0)
    made = [replace(training(n), settings=settings, retain=None, ewc_lambda=0.0) for n in range(3)]
    for one, alone in zip(train_together(made), [each.run() for each in made], strict=True):
        assert one.epochs == alone.epochs == [0] and one.accuracy == alone.accuracy
        assert one.extras == alone.extras and one.loss == pytest.approx(alone.loss, rel=1e-3)


def test_one_that_diverges_takes_no_other_along():
    broken = training(1)
    broken.shard.train_x.fill_(torch.nan)
    first, lost, third = train_together([training(0), broken, training(2)])
    assert not any(map(torch.isfinite, torch.tensor(lost.train_loss)))
    assert_close([first, third], [training(0).run(), training(2).run()])


def test_what_differs_in_form_is_told_apart():
    same = {form_of(training(seed)) for seed in range(3)}
    others = {
        form_of(training(0, "scratch")),
        form_of(training(0, "fresh")),
        form_of(training(0, shots=5)),
        form_of(training(0, flip=False)),
        form_of(replace(training(0), settings=train_settings(epochs=9))),
        form_of(replace(training(0), ewc_lambda=0.7)),
    }
    assert len(same) == 1 and len(others) == 6 and not same & others


def test_gradients_are_clipped_as_torch_does_it_for_each():
    drawn = [torch.randn(3, *shape, generator=torch_rng(7)) for shape in [(4, 5), (6,), ()]]
    drawn = [gradient * torch.tensor([1e-2, 10.0, 1e3]).view(3, *[1] * (gradient.ndim - 1))
             for gradient in drawn]  # fmt: skip
    due: list[list[Tensor]] = []
    for client in range(3):
        alone = [nn.Parameter(torch.zeros_like(gradient[client])) for gradient in drawn]
        for parameter, gradient in zip(alone, drawn, strict=True):
            parameter.grad = gradient[client].clone()
        nn.utils.clip_grad_norm_(alone, CLIP)
        due.append([p.grad for p in alone if p.grad is not None])
    clip_each(drawn)
    for client in range(3):
        torch.testing.assert_close([gradient[client] for gradient in drawn], due[client])


def test_the_estimate_of_memory_grows_with_what_a_client_holds():
    small, images, layers = bytes_of(training(0)), training(0, shots=60), training(0, "scratch")
    assert small > 4 * sum(p.numel() for p in training(0).individual.parameters())
    assert bytes_of(images) - small > 2 * images.shard.train_x.nbytes
    assert bytes_of(layers) != small


def test_fisher_of_all_images_at_once_is_that_of_one_after_the_other(monkeypatch):
    individual, shard = training(0).individual, training(0).shard
    held = inherited_modules(individual)
    loop = fisher_diagonal(individual, held, shard.train_x)
    monkeypatch.setattr(retaining, "AT_ONCE_ON", ("cpu",))
    torch.testing.assert_close(fisher_diagonal(individual, held, shard.train_x), loop)
