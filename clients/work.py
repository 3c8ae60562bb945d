"""One client's work in one round, without Flower: shard, methods, metrics."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from learngene import methods
from learngene.determinism import pin_kernels
from learngene.heap import keep_freed_memory
from learngene.methods.interface import generators
from learngene.shard import ShardData, read_shard
from learngene.world import draw_shard, load


def run_task(
    client: int, round: int, task: dict[str, Any], payloads: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Run every method of the task on the client's own shard.

    A method that fails is named with its reason; the others are not touched by it.

    Returns:
        ``client``, ``info`` (classes, image counts, device) and ``methods`` {name: metrics}.
    """
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pin_kernels(device)
    world = load(task["world"])
    shard = draw_shard(
        world,
        ways=task["ways"],
        shots=task["shots"],
        shard_seed=task["shard_seed"],
        client=client,
        classes_from=task["classes_from"],
    )
    data = read_shard(world, shard, device)
    answers: dict[str, dict[str, Any]] = {}
    own = task.get("own_methods", {})
    for name in task["methods"]:
        context = _context(name, client, round, task, payloads.get(name, {}), data, device)
        try:
            answers[name] = methods.find(name, own.get(name)).adapt(context).metrics()
        except Exception as error:  # one method's fault must not take the others' results along
            answers[name] = {"error": f"{type(error).__name__}: {error}"}
    return {
        "client": client,
        "info": {
            "classes": ",".join(str(c) for c in shard.classes),
            "train_images": len(shard.train_rows),
            "test_images": len(shard.test_rows),
            "device": _device_name(device),
        },
        "methods": answers,
    }


def _context(
    name: str,
    client: int,
    round: int,
    task: dict[str, Any],
    payload: dict[str, np.ndarray],
    data: ShardData,
    device: torch.device,
) -> methods.ClientContext:
    drawn = generators(task["seed"], name, round, client)
    card = task.get("cards", {}).get(name, {})
    return methods.ClientContext(task, payload, data, device, client, round, drawn, card)


def _device_name(device: torch.device) -> str:
    """Where the work was done, with the GPU's number on its machine (an actor sees its own as 0).

    A client that was given a GPU which torch cannot see (a pretended one) says both.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if device.type == "cuda":
        return f"cuda:{given or torch.cuda.current_device()}"
    return f"cpu, given gpu {given}" if given else "cpu"
