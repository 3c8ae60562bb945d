"""An opponent's second row: its body, and behind it the projection that the learngene has.

``methods=[..., finetune_pp+projection]``. The body is trained as the method trains it, once for
both rows. Then the factory fits the discriminant (``learngene.networks.projection``) on the body's
features of the base images that it was trained on, in closed form; a client names the nearest class
mean in that space and trains nothing. It is a head that anybody may take.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from learngene.adaptation.training import Outcome, Transferred, shard_features
from learngene.collective.sampling import class_positions
from learngene.data.augment import to_batch
from learngene.methods.base import Body, ClientContext, Factory, Method, Payload
from learngene.methods.common.backbone import evaluate_once, fill
from learngene.networks.individual import NORM_IMAGES, PrototypeHead, measure_norms
from learngene.networks.layers import arrays_of
from learngene.networks.projection import Projection, discriminant

BATCH = 256  # images


def with_projection(method: Method) -> Method:
    """The method's second row; what the factory trains for it is the method's own.

    Raises:
        ValueError: nothing of it is trained before the clients.
    """
    if method.body is None:
        raise ValueError("no body of it is trained at the factory")
    return replace(
        method,
        adapt=partial(adapt, method.body),
        training_free=True,
        epochs_setting=None,
        extra_metrics=(),
    )


def project(factory: Factory, body_of: Body, payload: Payload, shrinkage: float) -> Payload:
    """The body of the method's payload, without the head that it may have, and the discriminant of
    its features."""
    images = factory.images
    body = body_of(payload.card, images.dataset.image_shape[0])
    arrays = {n: a for n, a in payload.arrays.items() if not n.startswith("head.")}
    unmeasured = {n: a for n, a in arrays_of(body).items() if "running_" in n and n not in arrays}
    fill(body, unmeasured | arrays)
    body = body.to(images.device).to(memory_format=torch.channels_last)
    rows = np.concatenate(images.rows)
    if unmeasured:  # MAML's norms have no statistics of their own
        sample = factory.order("projection").permutation(rows)[:NORM_IMAGES]
        x = to_batch(images.dataset.train_images[sample], images.device)
        measure_norms(body, body, x, factory.generator("norms"))
    body.eval()
    features = []
    with torch.no_grad(), factory.autocast():
        parts = np.array_split(rows, math.ceil(len(rows) / BATCH))
        for done, part in enumerate(parts, start=1):
            x = to_batch(images.dataset.train_images[part], images.device)
            features.append(body(x).float().cpu())
            factory.progress(done, len(parts), 0.0)
    projection = discriminant(torch.cat(features), class_positions(images.rows), shrinkage)
    return Payload(arrays_of(_joined(body, projection)), payload.card)


def adapt(body_of: Body, context: ClientContext) -> Outcome:
    """Name the nearest class mean in the projected space."""
    shard, (dimensions, features) = context.shard, context.payload["projection.matrix"].shape
    body = body_of(context.card, shard.train_x.shape[1])
    layers = _joined(body, Projection(features, dimensions))
    fill(layers, context.payload)
    head = PrototypeHead(dimensions, shard.ways)
    network = Transferred(layers, head).to(context.device).to(memory_format=torch.channels_last)
    head.start(*shard_features(network, shard))
    return evaluate_once(context, lambda x: F.log_softmax(network(x), dim=1))


def _joined(body: nn.Module, projection: Projection) -> nn.Sequential:
    return nn.Sequential(OrderedDict(body=body, projection=projection))
