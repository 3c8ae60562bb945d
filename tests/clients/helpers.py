"""Tasks, shards and individuals for the tests of the clients."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from conf.schema import Config
from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.data.dataset import ImageDataset
from learngene.data.partition import ShardData
from learngene.gene.gene import Learngene
from learngene.networks.individual import Individual
from protocol.task import ClientTask
from tests.helpers import method_settings, torch_rng


def make_task(dataset: ImageDataset, gene: Learngene, **changed: Any) -> ClientTask:
    """The task that the server would send; ``changed`` is ``section__field=value``."""
    config = asdict(Config(cache="", method=method_settings()))
    config["individual"] |= {"epochs": 2, "eval_every": 1, "batch_size": 8}
    for name, value in changed.items():
        *path, last = name.split("__")
        section = config
        for part in path:
            section = section[part]
        section[last] = value
    return ClientTask(
        world=str(dataset.path),
        methods=tuple(config["methods"]),
        seed=config["seed"],
        shard_seed=config["seed"],
        ways=3,
        shots=5,
        classes_from="novel",
        threads=1,
        width=gene.card.width,
        individual=IndividualSettings(**config["individual"]),
        retain=RetainSettings(**config["retain"]),
        method=config["method"],
        card=gene.card.for_client(),
    )


def make_shard(ways: int = 3, shots: int = 6, seed: int = 0) -> ShardData:
    """Images of noise around a faint colour a class: they can be learnt, but not at a glance."""
    drawn = torch_rng(seed)
    labels = torch.arange(ways).repeat(shots)
    colours = 0.2 * torch.randn(ways, 3, 1, 1, generator=drawn)
    x, test = (colours[labels] + torch.randn(len(labels), 3, 32, 32, generator=drawn) for _ in "ab")
    return ShardData(tuple(range(ways)), x, labels, test, labels.clone(), flip=False)


def make_individual(seed: int = 0, head: str = "prototype", ways: int = 3) -> Individual:
    return Individual(inherited=3, ways=ways, width=0.0625, head=head, generator=torch_rng(seed))


def train_settings(**changed: Any) -> IndividualSettings:
    made: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 4,
        "lr": 0.01,
        "inherited_lr": 0.01,
        "schedule": "cosine",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "augment": False,
        "eval_every": 1,
    }
    return IndividualSettings(**{**made, **changed})


def weights(part: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in part.parameters()]
