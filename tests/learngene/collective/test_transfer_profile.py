"""The transfer profile: its episodes, what it looks at, and that training does not feel it."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from learngene.collective import trainer as trainer_module
from learngene.collective import transfer_profile
from learngene.collective.records import TaskRecord
from learngene.collective.sampling import class_positions
from learngene.collective.transfer_profile import (
    EPISODES,
    draw_episodes,
    episode_accuracy,
    late_mean,
    measure_transfer,
    rank_correlation,
    weight_change,
)
from learngene.gene.settings import LearngeneSettings
from learngene.networks.growth import PlannedStep
from learngene.networks.individual import PrototypeHead
from learngene.networks.projection import SHRINKAGE
from tests.helpers import rng, torch_rng


def test_an_episode_has_ways_of_its_own_and_no_image_twice():
    support, queries = draw_episodes(classes=7, each=9, ways=5, shots=3, chance=rng())
    assert support.shape == (EPISODES, 5, 3) and queries.shape == (EPISODES, 5, 6)
    for few, many in zip(support, queries, strict=True):
        classes = few[:, 0] // 9
        assert len(set(classes.tolist())) == 5
        both = np.concatenate([few, many], axis=1)
        assert (both // 9 == classes[:, None]).all() and len(np.unique(both)) == 5 * 9
    assert len({tuple(few[:, 0]) for few in support}) > 1


def test_it_answers_as_an_untrained_individuals_head():
    features = torch.rand(8 * 12, 40, generator=torch_rng()) ** 2
    features += 0.6 * torch.eye(40)[torch.arange(96) // 12]  # classes are apart, but not by much
    support, queries = draw_episodes(8, 12, 5, 4, rng(1))
    right = []
    for few, many in zip(support, queries, strict=True):
        head = PrototypeHead(40, 5)
        head.start(features[few.ravel()], torch.arange(5).repeat_interleave(4))
        said = head(features[many.ravel()]).argmax(1)
        right.append(float((said == torch.arange(5).repeat_interleave(8)).float().mean()))
    assert 0.25 < np.mean(right) < 0.95
    assert episode_accuracy(features, support, queries) == pytest.approx(np.mean(right), abs=1e-3)


def test_it_sees_the_next_tasks_images_and_exemplars_alone(evolve, monkeypatch):
    life = evolve()
    life.run_task()
    seen: list[np.ndarray] = []
    real = life.prefix_features
    monkeypatch.setattr(life, "prefix_features", lambda rows: seen.append(rows) or real(rows))
    found = measure_transfer(life, life.tasks[1])
    unseen = np.concatenate([life.train_rows[c] for c in life.tasks[1]])
    kept = np.concatenate([life.memory[c] for c in life.tasks[0]])
    assert set(seen[0]) == {*unseen, *kept}
    assert (found.ways, found.shots) == (5, 4)  # nine images a class: half of them
    for shares in (found.plain, found.projected):
        assert len(shares) == 13 and all(0 <= share <= 1 for share in shares)
    assert found == measure_transfer(life, life.tasks[1])  # of the seed


def test_its_projections_are_fitted_on_exemplars_alone(evolve, monkeypatch):
    life = evolve()
    life.run_task()
    fitted: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = transfer_profile.discriminant

    def spy(features, labels, shrinkage):
        fitted.append((features, labels))
        return real(features, labels, shrinkage)

    monkeypatch.setattr(transfer_profile, "discriminant", spy)
    measure_transfer(life, life.tasks[1])
    kept = [life.memory[c] for c in life.tasks[0]]
    for (features, labels), due in zip(
        fitted, life.prefix_features(np.concatenate(kept)), strict=True
    ):
        assert torch.allclose(features, due, atol=1e-5)
        assert torch.equal(labels, class_positions(kept))


def test_where_it_is_not_defined_there_is_none(evolve):
    life = evolve()
    life.run_task()
    assert measure_transfer(life, life.tasks[1][:1]) is None
    one = {c: rows[:1] for c, rows in life.memory.items()}  # no class says how it spreads
    life.memory = one | {life.known[0]: life.memory[life.known[0]]}
    assert measure_transfer(life, life.tasks[1]) is not None
    life.memory = one
    assert measure_transfer(life, life.tasks[1]) is None
    life.memory = {c: rows[:0] for c, rows in life.memory.items()}
    assert measure_transfer(life, life.tasks[1]) is None


def test_training_is_the_same_without_it(evolve, monkeypatch):
    with_it, without = evolve(precision="bf16"), evolve(precision="bf16")
    for life in (with_it, without):
        if life is without:
            monkeypatch.setattr(trainer_module, "measure_transfer", lambda *_: None)
        while not life.done:
            life.run_task()
    for one, other in zip(with_it.state().values(), without.state().values(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(with_it.stages, without.stages, strict=True):
        assert one.rho == other.rho and one.accuracy == other.accuracy
    assert [stage.transfer is None for stage in with_it.stages] == [True, False, False]
    assert all(stage.transfer is None for stage in without.stages)


def test_a_record_is_read_back_from_a_checkpoints_card(evolved):
    for stage in evolved.stages:
        assert TaskRecord(**asdict(stage)) == stage


def test_layers_that_growth_makes_have_no_past(evolve):
    life = evolve(growth="plan", plan=(PlannedStep(2, "5", None), PlannedStep(3, "5b", 64)))
    while not life.done:
        life.run_task()
    first, second, third = life.stages
    assert first.weight_change == [None] * 13
    assert len(second.transfer.plain) == 13 and len(third.transfer.plain) == 14
    assert second.layers[5] == "5b" and second.weight_change[5] is None
    assert all(x > 0 for n, x in enumerate(second.weight_change) if n != 5)
    assert all(0 < x < 10 for x in third.weight_change) and len(third.weight_change) == 14


def test_change_is_of_the_channels_that_were_there():
    before = {"1": torch.ones(2, 1, 3, 3), "1b": torch.ones(2, 2, 3, 3)}
    after = {"1": torch.ones(2, 1, 3, 3), "1b": torch.ones(2, 2, 3, 3)}
    after["1"][0] += 0.5  # of nine weights of 18: sqrt(9 / 4) / sqrt(18)
    after["1"][1] += 7  # a channel that growth has made
    assert weight_change(before, after, {"1": (1, 1, 3, 3)}) == [pytest.approx(0.5), None]
    assert weight_change(before, after, {"1": (2, 1, 3, 3)})[0] == pytest.approx(
        (9 * (0.25 + 49) / 18) ** 0.5
    )


def test_the_last_third_and_at_least_one():
    rows = [[0.1, 0.5, None], [0.2, 0.6, None], [0.3, 0.7, None], [0.5, 0.9, 0.4]]
    assert late_mean(rows) == [0.5, 0.9, 0.4]
    assert late_mean([*rows, [0.7, None, None], [0.9, None, None]]) == [
        pytest.approx(0.8), None, None,
    ]  # fmt: skip
    assert late_mean([[0.25]]) == [0.25]


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 25]) == pytest.approx(1 - 6 * 2 / 60)
    assert rank_correlation([1, 2, None, 3], [3, 2, 9, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None  # no order to hold against another
    assert rank_correlation([1, 2, None], [3, None, 1]) is None


def test_the_profile_shrinks_as_a_gene_does_by_default():
    assert LearngeneSettings().shrinkage == SHRINKAGE
