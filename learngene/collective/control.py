"""The control that stands beside what is inherited: the same layers, drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from learngene.collective.trainer import CollectiveTrainer
from learngene.data.augment import to_batch
from learngene.networks.individual import measure_norms
from learngene.networks.layers import initialise
from learngene.seeding import torch_generator

IMAGES = 256  # that the norms are measured on


def with_random_layers(trainer: CollectiveTrainer, numbers: Sequence[int]) -> CollectiveTrainer:
    """A copy of ``trainer`` whose layers ``numbers`` (from 1) have learned nothing.

    Their weights are drawn anew from the seed, and the statistics of their BatchNorms measured on
    images that the factory holds, equally many of every known class.
    """
    control = trainer.clone()
    units = control.collective.units
    drawn = nn.ModuleList(units[number - 1] for number in numbers)
    draws = torch_generator(trainer.settings.seed, "random-layers")
    initialise(drawn, draws)
    for part in drawn.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
    held = [rows for rows in trainer.held_rows() if len(rows)]
    rows = np.concatenate([rows[: max(1, IMAGES // len(held))] for rows in held])
    x = to_batch(trainer.dataset.train_images[rows], trainer.device)
    measure_norms(drawn, control.collective, x, draws)
    return control
