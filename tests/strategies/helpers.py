"""Federated trainings of a few rounds in the tiny dataset."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clients.client_app import make_client_app
from clients.work import run_task
from conf.parts import client_task, federation
from conf.schema import Config, read_config
from learngene.data.dataset import ImageDataset
from learngene.gene.gene import Learngene
from learngene.methods.registry import AMONG_CLIENTS
from protocol.task import ClientTask
from runtime.federated_rounds import Federated, run_federated_training
from runtime.resources import Federation
from tests.helpers import method_settings

CLIENTS, ROUNDS = 3, 3
Change = Callable[[int, int, dict[str, Any]], None]


def parts_of(cache: Path, dataset: ImageDataset, **changed: Any) -> tuple[ClientTask, Federation]:
    config = asdict(Config(cache=str(cache), method=method_settings()))
    config |= {"num_clients": CLIENTS, "ways": 3, "shots": 4, **changed}
    config["runtime"] |= {"name": "serial", "num_gpus": 0.0}
    for name in AMONG_CLIENTS:
        config["method"][name] |= {"rounds": ROUNDS, "local_epochs": 1}
    typed = read_config(config)
    return client_task(typed, config, dataset.path), federation(typed, None)


def changed_task(change: Change, client: int, round: int, task: ClientTask, payloads: Any
                 ) -> dict[str, Any]:  # fmt: skip
    answer = run_task(client, round, task, payloads)
    change(client, task.federated, answer)
    return answer


def train(cache: Path, dataset: ImageDataset, *names: str, change: Change | None = None,
          gene: Learngene | None = None, at_end: ExitStack | None = None, **more: Any
          ) -> Federated:  # fmt: skip
    app = make_client_app(partial(changed_task, change)) if change else None
    task, asked = parts_of(cache, dataset, **more)
    return run_federated_training(
        task, names or ("fedavg",), dataset, {"width": 0.0625}, asked, gene=gene, client_app=app,
        at_end=at_end,
    )  # fmt: skip


def same(one: Federated, two: Federated) -> bool:
    return all(
        np.array_equal(a, two.payloads[name].arrays[n])
        for name, payload in one.payloads.items()
        for n, a in payload.arrays.items()
    )
