"""A factory in the tiny dataset, and clients that are sent what it makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.collective.sampling import hold_out
from learngene.data.dataset import ImageDataset
from learngene.data.partition import draw_shard, read_shard
from learngene.data.settings import ShardSettings
from learngene.methods import ClientContext, Factory, Payload, find
from learngene.methods.base import BaseImages
from learngene.seeding import torch_generator
from tests.helpers import CPU

SMALL = {  # what the tiny dataset's nine images of a class can fill
    "maml": {"steps": 2, "tasks": 2, "shots": 2, "queries": 2, "client_steps": 3},
    "protonet": {"ways": 4, "shots": 2, "queries": 2},
    "finetune": {"batch_size": 16},
    "deepemd": {"batch_size": 16, "ways": 3, "queries": 2, "client_steps": 2},
}
SMALL |= {"fomaml": SMALL["maml"], "proto_maml": SMALL["maml"], "matchingnet": SMALL["protonet"]}
SMALL |= {"finetune_pp": SMALL["finetune"]}
TRAINED = tuple(sorted(SMALL))


def small(name: str, **changed: Any) -> Any:
    """The method's settings, small."""
    return find(name).settings_from({**SMALL.get(name, {}), **changed})


def make_factory(name: str, dataset: ImageDataset, budget: int = 200, **changed: Any) -> Factory:
    rows, _ = hold_out(dataset, 5, 3)
    fields = {key: changed.pop(key) for key in ("checkpoint", "keep", "seed") if key in changed}
    made = Factory(
        name=name,
        images=BaseImages(dataset, tuple(rows[c] for c in dataset.class_split.base), CPU),
        settings=small(name, **changed),
        budget=budget,
        ways=3,
        width=0.0625,
        seed=5,
        bf16=False,
    )
    return replace(made, **fields)


def make_context(
    name: str, dataset: ImageDataset, payload: Payload, client: int = 0, **changed: Any
) -> ClientContext:
    shard = draw_shard(dataset, ShardSettings(3, 5, seed=0), client)
    individual = IndividualSettings(
        epochs=2, batch_size=8, lr=0.01, inherited_lr=0.01, weight_decay=0.0, eval_every=1
    )
    return ClientContext(
        settings=small(name, **changed),
        payload=payload.arrays,
        shard=read_shard(dataset, shard, CPU),
        device=CPU,
        client=client,
        round=0,
        seed=5,
        generator=lambda phase: torch_generator(5, f"client-{name}-{phase}", 0, client),
        individual=individual,
        retain=RetainSettings(),
        card=payload.card,
    )


def same(a: Payload, b: Payload) -> bool:
    return (
        a.card == b.card
        and a.arrays.keys() == b.arrays.keys()
        and all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)
    )
