"""A linear classifier on the frozen features of the whole collective.

No paper: the practitioner's cheapest use of a big model; the same payload as ``full``.
"""

from __future__ import annotations

from dataclasses import dataclass

from learngene.adaptation.training import Outcome
from learngene.methods.base import ClientContext, Method
from learngene.methods.common.head import fit, linear_head
from learngene.methods.full import from_collective, rebuild_long
from learngene.utils.settings import setting


@dataclass
class Settings:
    """The client's training."""

    client_lr: float = setting(0.01, gt=0, le=10)  # of the classifier


def adapt(context: ClientContext) -> Outcome:
    settings: Settings = context.settings
    body, features = rebuild_long(context)
    head = linear_head(features, context.shard.ways, context.generator("head"))
    return fit(context, body, head, lr=settings.client_lr, body_lr=0.0)


METHOD = Method(adapt, from_collective=from_collective, settings=Settings)
