"""One client's work in one round, without Flower: shard, methods, metrics (for some, weights)."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.adaptation.training import Outcome
from learngene.data.dataset import World, load
from learngene.data.partition import Shard, ShardData, draw_shard, read_shard
from learngene.gene.quantize import unpack
from learngene.methods import ClientContext, Method, find
from learngene.methods.base import generators
from learngene.methods.plugins import error_line
from learngene.open_world.flagged import draw_labelled_shard, of_text
from learngene.utils.hardware import keep_freed_memory, pin_kernels


def run_task(
    client: int, round: int, task: dict[str, Any], payloads: dict[str, dict[str, np.ndarray]]
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
    world = load(task["world"])
    shard = _shard(world, client, task)
    data = read_shard(world, shard, device)
    answers: dict[str, dict[str, Any]] = {}
    weights: dict[str, dict[str, np.ndarray]] = {}
    plugins = task.get("own_methods", {})
    # The method's own count of rounds: Flower's goes on over several methods.
    number = task.get("federated", round)
    for name in task["methods"]:
        try:
            payload = unpack(payloads.get(name, {}))
            method = find(name, plugins.get(name))
            context = client_context(name, method, client, number, task, payload, data, device)
            if "federated" in task:
                answers[name], weights[name] = _federated_round(name, method, context)
            else:
                answers[name] = _adapted(name, method, context).metrics()
        # One method's fault must not take the others' results along, nor its sys.exit.
        except (Exception, SystemExit) as error:
            where = error_line(plugins[name]["module"], error) if name in plugins else ""
            reason = f"{type(error).__name__}: {error}"
            answers[name] = {"error": f"{reason} ({where})" if where else reason}
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


def _adapted(name: str, method: Method, context: ClientContext) -> Outcome:
    """What the method's client half reports.

    Raises:
        TypeError: it returns something else, as a method does that forgets to.
    """
    started = time.perf_counter()
    outcome = method.adapt(context)
    if not isinstance(outcome, Outcome):
        raise TypeError(f"adapt of {name} returned {type(outcome).__name__}, an Outcome is due")
    outcome.seconds = time.perf_counter() - started
    return outcome


def _shard(world: World, client: int, task: dict[str, Any]) -> Shard:
    """The client's own images: drawn from all, or from those that were named (table 2)."""
    drawn = {name: task[name] for name in ("ways", "shots", "shard_seed")}
    if "labelled" in task:
        flags = of_text(world, task["labelled"]["flags"])
        draws = task["labelled"]["draws"]
        return draw_labelled_shard(world, flags, **drawn, client=client, draws=draws)
    return draw_shard(world, **drawn, client=client, classes_from=task["classes_from"])


def _federated_round(
    name: str, method: Method, context: ClientContext
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Numbers and weights that go up."""
    if method.update is None:
        raise ValueError(f"{name} is not trained among clients")
    update = method.update(context)
    return update.metrics(), update.arrays


def client_context(
    name: str,
    method: Method,
    client: int,
    round: int,
    task: dict[str, Any],
    payload: dict[str, np.ndarray],
    data: ShardData,
    device: torch.device,
) -> ClientContext:
    """What the task says to a method. A federated round names the settings that it reads, and has
    no learngene; what it leaves out has its default and is read by nobody."""
    settings, local = task["method"], {}
    if "federated" not in task:
        local = {
            "scratch": find("scratch").settings_from(settings["scratch"]),
            "width": task["width"],
            "inherited": task["inherited"],
        }
    return ClientContext(
        settings=method.settings_from(settings.get(name, {})),
        payload=payload,
        shard=data,
        device=device,
        client=client,
        round=round,
        seed=task["seed"],
        generator=generators(task["seed"], name, round, client),
        individual=IndividualSettings(**task["individual"]),
        retain=RetainSettings(**task.get("retain", {})),
        card=task["card"] if method.inherits else task.get("cards", {}).get(name, {}),
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
