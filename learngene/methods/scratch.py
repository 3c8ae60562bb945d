"""The same seven layers trained from nothing: what the learngene has to beat.

Same shard, same test images, same epochs and batches, same augmentation, same initialisation
scheme. Its stem, classifier, learning rate and schedule are its own (``method.scratch``), tuned on
tasks of open-world classes (docs/FIDELITY.md says over what), never those of the learngene.
"""

from __future__ import annotations

import time

import torch

from learngene.adaptation.training import Outcome, TrainSettings, train
from learngene.methods.base import ClientContext, Method
from learngene.methods.learngene import start_head
from learngene.networks.individual import Individual, measure_norms


def adapt(context: ClientContext) -> Outcome:
    """Draw an individual at random and train all of it."""
    started = time.perf_counter()
    task, shard = context.task, context.shard
    settings, own = task["individual"], task["method"]["scratch"]
    individual = (
        Individual(
            stem_kind=own["stem"],
            inherited=task["inherited"],
            ways=shard.ways,
            width=task["width"],
            head=own["head"],
            generator=context.generator("weights"),
            channels=shard.train_x.shape[1],
        )
        .to(context.device)
        .to(memory_format=torch.channels_last)
    )
    measure_norms(individual, individual, shard.train_x)
    start_head(individual, context)
    outcome = train(
        individual,
        shard,
        TrainSettings.of(
            settings,
            lr=own["lr"],
            inherited_lr=own["lr"],
            schedule=own["schedule"],
            freeze_norms=False,
        ),
        context.generator("training"),
    )
    outcome.seconds = time.perf_counter() - started
    return outcome


METHOD = Method(adapt)
