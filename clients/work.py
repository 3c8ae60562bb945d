"""One client's work in one round, without Flower: shard, methods, metrics (for some, weights)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from learngene import methods
from learngene.adaptation.training import Outcome
from learngene.data.dataset import World, load
from learngene.data.partition import Shard, ShardData, draw_shard, read_shard
from learngene.gene.quantize import unpack
from learngene.methods.base import generators
from learngene.methods.plugins import place_in
from learngene.open_world.flagged import decode_flags, draw_labelled_shard
from learngene.utils.hardware import keep_freed_memory, pin_kernels
from protocol.task import ClientTask


def run_task(
    client: int, round: int, task: ClientTask, payloads: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Run every method of the task on the client's own shard.

    A method that fails is named with its reason; the others are not touched by it.

    Returns:
        ``client``, ``info`` (classes, image counts, device) and ``methods`` {name: metrics}; in a
        round of federated training ``arrays`` {name: weights}, too.
    """
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pin_kernels(device)
    world = load(task.world)
    shard = _shard(world, client, task)
    data = read_shard(world, shard, device)
    answers: dict[str, dict[str, Any]] = {}
    weights: dict[str, dict[str, np.ndarray]] = {}
    for name in task.methods:
        # The method's own count of rounds: Flower's goes on over several methods.
        number = round if task.federated is None else task.federated
        try:
            payload = unpack(payloads.get(name, {}))
            context = _context(name, client, number, task, payload, data, device)
            if task.federated is not None:
                answers[name], weights[name] = _federated_round(name, context)
            else:
                answers[name] = _adapted(name, task.own_methods.get(name), context).metrics()
        # One method's fault must not take the others' results along, nor its sys.exit.
        except (Exception, SystemExit) as error:
            own = task.own_methods.get(name)
            where = place_in(own["module"], error) if own else ""
            told = f"{type(error).__name__}: {error}"
            answers[name] = {"error": f"{told} ({where})" if where else told}
    return {
        "client": client,
        "info": {
            "classes": ",".join(str(c) for c in shard.classes),
            "train_images": len(shard.train_rows),
            "test_images": len(shard.test_rows),
            "device": _device_name(device),
        },
        "methods": answers,
        **({"arrays": weights} if weights else {}),
    }


def _adapted(name: str, own: Mapping[str, Any] | None, context: methods.ClientContext) -> Outcome:
    """What the method's client half reports.

    Raises:
        TypeError: it returns something else, as a method does that forgets to.
    """
    made = methods.find(name, own).adapt(context)
    if not isinstance(made, Outcome):
        raise TypeError(f"adapt of {name} returned {type(made).__name__}, an Outcome is due")
    return made


def _shard(world: World, client: int, task: ClientTask) -> Shard:
    """The client's own images: drawn from all, or from those that were named (table 2)."""
    drawn = {"ways": task.ways, "shots": task.shots, "shard_seed": task.shard_seed}
    if task.labelled is not None:
        flags = decode_flags(world, task.labelled.flags)
        draws = task.labelled.draws
        return draw_labelled_shard(world, flags, **drawn, client=client, draws=draws)
    return draw_shard(world, **drawn, client=client, classes_from=task.classes_from)


def _federated_round(
    name: str, context: methods.ClientContext
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Numbers and weights that go up."""
    update = methods.find(name).update
    if update is None:
        raise ValueError(f"{name} is not trained among clients")
    made = update(context)
    return made.metrics(), made.arrays


def _context(
    name: str,
    client: int,
    round: int,
    task: ClientTask,
    payload: dict[str, np.ndarray],
    data: ShardData,
    device: torch.device,
) -> methods.ClientContext:
    drawn = generators(task.seed, name, round, client)
    card = dict(task.cards.get(name, {}))
    return methods.ClientContext(task.to_plain(), payload, data, device, client, round, drawn, card)


def _device_name(device: torch.device) -> str:
    """Where the work was done, with the GPU's number on its machine (an actor sees its own as 0).

    A client that was given a GPU which torch cannot see (a pretended one) says both.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if device.type == "cuda":
        return f"cuda:{given or torch.cuda.current_device()}"
    return f"cpu, given gpu {given}" if given else "cpu"
