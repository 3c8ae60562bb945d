"""One client's work in one round, without Flower: shard, methods, metrics (for some, weights)."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from logging import INFO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.common.logger import log

from clients.cohort import from_cohort
from clients.node import NodeSettings, private
from clients.private_state import PrivateState
from learngene.adaptation.settings import RetainSettings
from learngene.adaptation.training import Outcome
from learngene.data.dataset import ImageDataset, load
from learngene.data.own_images import read_own_images
from learngene.data.partition import Shard, ShardData, draw_shard, read_shard
from learngene.data.settings import ShardSettings, range_in
from learngene.data.sources.decode import Range
from learngene.gene.kept import describe_individual, save_individual
from learngene.gene.quantize import unpack
from learngene.methods import ClientContext, Method, find
from learngene.methods.base import generators
from learngene.methods.isolation import in_words, isolated
from learngene.methods.plugins import error_line
from learngene.methods.registry import base_of
from learngene.networks.individual import Individual
from learngene.open_world.flagged import decode_flags, draw_labelled_shard
from learngene.utils.files import expand_user
from learngene.utils.hardware import keep_freed_memory, pin_kernels
from protocol.reply_schema import OF_OWN_IMAGES, too_long
from protocol.task import ClientTask

SIMULATED = NodeSettings(simulated=True)


@dataclass(frozen=True)
class ClientImages:
    """A client's shard as methods take it, and what is told of it."""

    data: ShardData
    class_names: tuple[str, ...]  # label i stands for class_names[i]
    image_side: int
    told: dict[str, Any]  # fields of the answer's ``info``
    value_range: Range | None = None


def run_task(
    client: int,
    round: int,
    task: ClientTask,
    payloads: dict[str, dict[str, np.ndarray]],
    node: NodeSettings = SIMULATED,
) -> dict[str, Any]:
    """Run every method of the task on the client's own shard, or on the node's own images.

    A method that fails is named with its reason; the others are not touched by it. Each is given a
    task and a shard of its own, which it may write to.

    Returns:
        ``client``, ``info`` (classes, image counts, device) and ``methods`` {name: metrics}; in a
        round of federated training ``arrays`` {name: weights}, too.
    """
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pin_kernels(device, task.deterministic is not False)
    own = _own_images(task, node, device) if node.data_root else _drawn(client, task, node, device)
    data, folder = own.data, node.keep or (task.keep if node.simulated else None)
    data = data.with_views(mirror=task.individual.mirror_test, moved=task.individual.moved_views)
    answers: dict[str, dict[str, Any]] = {}
    weights: dict[str, dict[str, np.ndarray]] = {}
    # The method's own count of rounds: Flower's goes on over several methods.
    number = round if task.federated is None else task.federated
    for name in task.methods:
        plugin, kept = task.own_methods.get(name), list[Individual]()
        try:
            payload, (said, shown) = unpack(payloads.get(name, {})), deepcopy((task, data))
            with isolated(task.seed, f"client-{name}", number, client):
                method = find(name, plugin)
                context = client_context(name, method, client, number, said, payload, shown, device)
                card, cache = task.cards.get(name, {}), node.cache_folder(task.world)
                kept_here = PrivateState.of(card, cache, name, client)
                if kept_here is not None:
                    context = replace(context, private=kept_here.load())
                if task.federated is not None:
                    if method.update is None:
                        raise ValueError(f"{name} is not trained among clients")
                    update = method.update(context)
                    if kept_here is not None:
                        kept_here.save(update.private)
                    answers[name], weights[name] = update.metrics(), update.arrays
                    continue
                if folder and method.inherits:
                    context = replace(context, keep=kept.append)
                outcome = _adapted(name, method, context)
            if kept:
                stem = f"client-{client:04d}" if node.keep is None else "individual"
                with private("the individual cannot be kept"):
                    _keep(kept[-1], outcome, own, task, Path(folder or "") / stem)
            answers[name] = outcome.metrics()
        except Exception as error:  # one method's fault must not take the others' results along
            where = error_line(plugin["module"], error) if plugin else ""
            answers[name] = {"error": f"{in_words(error)} ({where})" if where else in_words(error)}
    return {
        "client": client,
        "info": {**own.told, "device": _device_name(device)},
        "methods": answers,
        **({"arrays": weights} if weights else {}),
    }


def _adapted(name: str, method: Method, context: ClientContext) -> Outcome:
    """What the method's client half reports.

    Raises:
        TypeError: it returns something else, as a method does that forgets to.
    """
    if (shared := from_cohort(name, method, context)) is not None:
        return shared
    started = time.perf_counter()
    outcome = method.adapt(context)
    if not isinstance(outcome, Outcome):
        raise TypeError(f"adapt of {name} returned {type(outcome).__name__}, an Outcome is due")
    outcome.seconds = time.perf_counter() - started
    return outcome


def _drawn(client: int, task: ClientTask, node: NodeSettings, device: torch.device) -> ClientImages:
    """The client's shard of the run's dataset."""
    folder = node.dataset(task.world)
    what = "the dataset in this node's cache cannot be used"
    with nullcontext() if node.simulated else private(what):
        dataset = load(folder)
    shard = _shard(dataset, client, task)
    told: dict[str, Any] = {
        "classes": ",".join(str(c) for c in shard.classes),
        "train_images": len(shard.train_rows),
        "test_images": len(shard.test_rows),
    }
    names = tuple(dataset.class_names[c] for c in shard.classes)
    data = read_shard(dataset, shard, device)
    return ClientImages(data, names, dataset.image_shape[1], told, dataset.value_range)


def _own_images(task: ClientTask, node: NodeSettings, device: torch.device) -> ClientImages:
    """The node's own images, brought to the size that the learngene grew up on.

    Raises:
        PrivateProblem: they cannot be used.
        ValueError: the run is of the server's classes, or the learngene's card names no size.
    """
    if any(each is not None for each in (task.labelled, task.federated, task.partition)):
        raise ValueError("this run is of the server's own classes: a node's own have no part in it")
    if task.image_side is None:
        raise ValueError("the learngene's card names no image size: take it from a run once more")
    with private("the node's own images cannot be used"):
        own = read_own_images(
            expand_user(node.data_root or ""),
            side=task.image_side,
            test_share=node.test_share,
            seed=node.seed,
            value_range=range_in(node.value_range),
        )
    for note in own.notes:
        log(INFO, "data-root: %s", note)
    told: dict[str, Any] = {
        "own_classes": len(own.class_names),
        "train_images": len(own.labels["train"]),
        "test_images": len(own.labels["test"]),
    }
    if node.class_names:
        names = "\n".join(own.class_names)
        if problem := next(too_long("class_names", names, OF_OWN_IMAGES["class_names"]), None):
            log(INFO, "class-names: the server is told none: %s", problem)
        else:
            told["class_names"] = names
    data = own.shard(flip=node.flip, device=device)
    return ClientImages(data, own.class_names, task.image_side, told, own.value_range)


def _keep(
    individual: Individual, outcome: Outcome, own: ClientImages, task: ClientTask, stem: Path
) -> None:
    kept = describe_individual(
        individual,
        class_names=own.class_names,
        image_side=own.image_side,
        mirror=task.individual.mirror_test and own.data.flip,
        moved=task.individual.moved_views,
        value_range=own.value_range,
        accuracy=outcome.accuracy[-1],
        images=(len(own.data.train_x), len(own.data.test_x)),
        learngene_sha256=(task.card or {}).get("sha256"),
    )
    save_individual(kept, stem.with_suffix(".safetensors"))


def _shard(dataset: ImageDataset, client: int, task: ClientTask) -> Shard:
    """The client's own images: drawn from all, or from those that were named (table 2)."""
    draws = 0 if task.labelled is None else task.labelled.draws
    drawn = task.ways, task.shots, task.shard_seed, task.classes_from
    shards = ShardSettings(*drawn, draws, task.queries, task.partition)
    if task.labelled is None:
        return draw_shard(dataset, shards, client)
    flags = decode_flags(dataset, task.labelled.flags)
    return draw_labelled_shard(dataset, flags, shards, client)


def client_context(
    name: str,
    method: Method,
    client: int,
    round: int,
    task: ClientTask,
    payload: dict[str, np.ndarray],
    data: ShardData,
    device: torch.device,
) -> ClientContext:
    """What the task says to a method. A federated round names the settings that it reads, and has
    no learngene; what it leaves out has its default and is read by nobody."""
    local: dict[str, Any] = {}
    if task.federated is None:
        local = {
            "scratch": find("scratch").settings_from(task.method["scratch"]),
            "width": task.width,
            "block": task.block or "plain",
        }
    card = task.card if method.inherits else task.cards.get(name)
    return ClientContext(
        settings=method.settings_from(task.method.get(base_of(name), {})),
        payload=payload,
        shard=data,
        device=device,
        client=client,
        round=round,
        seed=task.seed,
        generator=generators(task.seed, name, round, client),
        individual=task.individual,
        retain=task.retain or RetainSettings(),
        card=dict(card or {}),
        **local,
    )


def _device_name(device: torch.device) -> str:
    """Where the work was done, with the GPU's number on its machine (an actor sees its own as 0).

    A client that was given a GPU which torch cannot see (a pretended one) says both.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if device.type == "cuda":
        return f"cuda:{given or torch.cuda.current_device()}"
    return f"cpu, given gpu {given}" if given else "cpu"
