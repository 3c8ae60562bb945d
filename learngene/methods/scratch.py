"""The same layers trained from nothing: what the learngene has to beat.

Same shard, same test images, same epochs and batches, same augmentation, same initialisation
scheme. Its classifier, learning rate and schedule are its own (``method.scratch``), tuned on
tasks of open-world classes (docs/FIDELITY.md says over what), never those of the learngene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from learngene.adaptation.training import Outcome, Training
from learngene.methods.base import ClientContext, Method, trained
from learngene.methods.learngene import start_head
from learngene.networks.individual import Individual, measure_norms
from learngene.utils.settings import setting


@dataclass
class Settings:
    """What scratch is trained with."""

    lr: float = setting(0.01, gt=0, le=10)
    schedule: str = setting("cosine", choices=("cosine", "constant"))  # cosine | constant
    head: str = setting("prototype", choices=("prototype", "mlp"))  # prototype | mlp


def prepare(context: ClientContext) -> Training:
    """Draw an individual at random, all of which is to be trained."""
    settings: Settings = context.settings
    shard = context.shard
    individual = Individual(
        ways=shard.ways,
        width=context.width,
        head=settings.head,
        generator=context.generator("weights"),
        channels=shard.train_x.shape[1],
        block=context.block,
    )
    individual = individual.to(context.device).to(memory_format=torch.channels_last)
    measure_norms(individual, individual, shard.train_x, context.generator("norms"))
    start_head(individual, context)
    training = replace(context.individual, lr=settings.lr, schedule=settings.schedule)
    return Training(
        individual=individual,
        shard=shard,
        settings=training,
        generator=context.generator("training"),
        freeze_norms=False,
    )


def adapt(context: ClientContext) -> Outcome:
    return trained(prepare(context), context)


METHOD = Method(adapt, prepare=prepare, settings=Settings)
