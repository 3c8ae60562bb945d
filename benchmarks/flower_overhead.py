"""What Flower and Ray cost: the client phase against the same work done back to back.

    python -m benchmarks.flower_overhead RUN_DIR [--processes 2]

RUN_DIR is a finished run (its learngene, dataset and settings are used). The client phase is timed
as ``sim.py`` runs it, Ray's start included; the baseline is as many fresh processes as there are
Ray workers, each calling ``clients.work.run_task`` for its share of the clients, their start
included. Both compute the same numbers, which is checked.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.work import run_task
from conf.parts import client_task
from conf.schema import read_config
from learngene.data.cache import build
from learngene.gene.gene import load
from protocol.plan import plan_round
from protocol.task import ClientTask
from runtime.ray_backend import RuntimeSettings, simulate
from strategies.learngene import LearngeneStrategy

Sent = tuple[ClientTask, dict[str, dict[str, np.ndarray]]]  # a task and its payloads


def _work(clients: list[int], sent: list[Sent]) -> list[dict[str, Any]]:
    torch.set_num_threads(sent[0][0].threads)
    return [run_task(client, 1, *sent[client % len(sent)]) for client in clients]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()

    plain = json.loads((arguments.run_dir / "results.json").read_text())["run"]["config"]
    config = read_config(plain)
    dataset = build(config.dataset, Path(config.cache))
    gene = load(arguments.run_dir / "learngene.safetensors")
    count = config.num_clients
    plans = plan_round(client_task(config, plain, dataset.path), gene)
    sent = [(plan.task, plan.payloads) for plan in plans]

    started = time.perf_counter()
    strategy = LearngeneStrategy(count, lambda _: plans)
    simulate(strategy, 1, RuntimeSettings(total_cpus=arguments.processes), count)
    flower = time.perf_counter() - started

    started = time.perf_counter()
    shares = [list(range(i, count, arguments.processes)) for i in range(arguments.processes)]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        answers = pool.starmap(_work, [(share, sent) for share in shares])
    back_to_back = time.perf_counter() - started

    methods = {answer["client"]: answer["methods"] for share in answers for answer in share}
    for result in strategy.rounds[0].clients:
        for name, metrics in result.methods.items():
            if metrics["accuracy"] != methods[result.client][name]["accuracy"]:
                print(f"client {result.client}, {name}: the two runs differ", file=sys.stderr)
                return 1
    print(
        f"clients {count}, processes {arguments.processes}, methods {', '.join(plans[0].methods)}"
    )
    print(f"Flower and Ray   {flower:7.1f} s")
    print(f"back to back     {back_to_back:7.1f} s")
    print(f"ratio            {flower / back_to_back:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
