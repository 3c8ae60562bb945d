"""A learngene on images of one's own, without a run: what a client does, as one call.

``adapt`` goes through the same function as the client half of the method ``learngene``: on a run's
shard, with the run's settings and seed, it gives the numbers of the run's client 0.
"""

from __future__ import annotations

import numpy as np
import torch

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.adaptation.training import Outcome, features
from learngene.data.augment import to_batch
from learngene.data.partition import ShardData, check_images
from learngene.gene.gene import Learngene
from learngene.methods.base import ClientContext, generators
from learngene.methods.learngene import Settings, individual_of
from learngene.networks.individual import Individual


def adapt(
    gene: Learngene,
    shard: ShardData,
    *,
    seed: int = 0,
    individual: IndividualSettings | None = None,
    retain: RetainSettings | None = None,
) -> tuple[Individual, Outcome]:
    """An individual around ``gene``, trained on ``shard``; and its curves, the last epoch last.

    The paper's Algorithm 1: L_rec + lambda L_ret (Eq. 6 to 9). The work is done where the shard's
    tensors lie.

    Args:
        shard: images and labels, as ``shard_of`` makes them.
        seed: of everything that is drawn: weights, order and augmentation of the images, the
            sample for the Fisher information.
        individual: classifier and training; its stem (the learngene brings one) and its safeguard
            (a run's) are not read. None: the defaults of a run.
        retain: the retain loss. None: the defaults of a run.

    Raises:
        InputError: the learngene does not fit the individual, a word is no choice, or a number is
            out of its range.
        ZeroFisher: ``retain.normalise`` finds a Fisher information that is zero everywhere.
        ValueError: the images have another number of channels than those it grew up on.
    """
    channels = shard.train_x.shape[1]
    if channels != gene.card.channels:
        raise ValueError(
            f"the learngene takes images of {gene.card.channels} channels, these have {channels}"
        )
    settings = individual or IndividualSettings()
    context = ClientContext(
        settings=Settings(),
        payload=gene.arrays,
        shard=shard.with_mirrored_tests() if settings.mirror_test else shard,
        device=shard.train_x.device,
        client=0,
        round=1,
        seed=seed,
        generator=generators(seed, "learngene", 1, 0),
        individual=settings,
        retain=retain or RetainSettings(),
    )
    return individual_of(gene, context)


def predict(individual: Individual, images: np.ndarray, *, mirror: bool = False) -> np.ndarray:
    """The class of each image, (N, H, W, C) uint8 -> (N,), counted from 0 as in the shard.

    Args:
        mirror: look at the mirror image, too, as ``individual.mirror_test`` does in ``adapt``.

    Raises:
        ValueError: the images are not of this form, or have another number of channels.
    """
    check_images("images", images)
    channels = individual.channels
    if images.shape[3] != channels:
        raise ValueError(
            f"the individual takes images of {channels} channels, these have {images.shape[3]}"
        )
    device = next(individual.parameters()).device
    x = to_batch(images, device)
    with torch.no_grad():
        views = [individual.head(features(individual, v)) for v in (x, x.flip(3))[: 1 + mirror]]
    return torch.stack(views).softmax(2).mean(0).argmax(1).cpu().numpy()
