"""What a collective's settings reach in its training: noise, precision, size of the crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from learngene.collective.trainer import CollectiveTrainer
from learngene.data.augment import shrink, to_batch
from learngene.networks.compute import TRAINING, multiply_adds
from tests.helpers import CPU, settings


def test_growth_noise_is_in_the_grown_weights(evolve):
    quiet, loud = evolve(growth_noise=0.0), evolve(growth_noise=2.0)
    for life in (quiet, loud):
        life.grow(1)
    pairs = zip(quiet.collective.units, loud.collective.units, strict=True)
    assert any(not torch.equal(one.conv.weight, two.conv.weight) for one, two in pairs)


def test_bf16_is_what_a_collective_is_trained_in(evolve):
    plain, narrow = evolve(), evolve(precision="bf16")
    for life in (plain, narrow):
        life.run_task()
    assert not torch.equal(plain.collective.head.weight, narrow.collective.head.weight)


def test_smaller_crops_are_what_the_teacher_sees_and_what_is_counted(tiny_dataset):
    large = tiny_dataset.train_images.repeat(2, axis=1).repeat(2, axis=2)
    dataset = replace(tiny_dataset, train_images=large, image_shape=(3, 64, 64))
    life = CollectiveTrainer(dataset, settings(train_size=32), CPU)
    first = life.run_task()
    of_one = TRAINING * multiply_adds(life.collective, 3, 32)
    assert first.multiply_adds == first.image_passes * of_one
    rows = np.array([5, 90, 7])
    teacher = life.collective.eval()
    goals = life._distillation_targets(teacher, rows)
    with torch.no_grad():
        said = teacher(shrink(to_batch(large[rows]), 32))
    due = F.softmax(said / life.settings.collective.temperature, 1)
    assert torch.allclose(goals, due, atol=1e-6)
