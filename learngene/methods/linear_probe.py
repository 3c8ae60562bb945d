"""A linear classifier on the frozen features of the whole collective.

No paper: the practitioner's cheapest use of a big model; the same payload as ``full``.
"""

from __future__ import annotations

from learngene.adaptation.training import Outcome
from learngene.methods.base import ClientContext, Method
from learngene.methods.full import rebuild_long, take
from learngene.methods.head import fit, linear_head


def adapt(context: ClientContext) -> Outcome:
    body, own = rebuild_long(context), context.task["method"]["linear_probe"]
    head = linear_head(
        body.units[-1].conv.out_channels, context.shard.ways, context.generator("head")
    )
    return fit(context, body, head, lr=own["client_lr"], body_lr=0.0)


METHOD = Method(adapt, take=take)
