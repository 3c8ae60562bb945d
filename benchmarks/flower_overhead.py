"""What Flower and Ray cost: the client phase against the same work done back to back.

    python -m benchmarks.flower_overhead RUN_DIR [--clients N] [--processes 2] [--repeats 3]

RUN_DIR is a finished run (its learngene, dataset and settings are used). Three ways alternate:

- bare: as many fresh processes as there are Ray workers, each calling ``clients.work.run_task`` for
  its share of the clients; their start and their imports included;
- cold: the client phase as ``sim.py`` runs it where the factory had nothing to train, Ray's start
  and end included;
- warm: the same where Ray has begun while the factory trained; what its start took is told apart
  and not in the seconds.

All compute the same numbers, which is checked. Printed are medians, in seconds and in seconds of
processor time of all processes (which another load moves less), and cold and warm as ratios to
bare. The bar is 1.10.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from ray._private.services import psutil  # Ray carries it

from benchmarks.command import end, finished_run, new_parser, positive
from clients.work import run_task
from conf.parts import client_task
from conf.schema import read_config
from learngene.data.cache import build
from learngene.gene.gene import load
from protocol.plan import plan_round
from protocol.rounds import RoundPlan
from protocol.task import ClientTask
from runtime.ray_backend import simulate
from runtime.ray_start import RayStart
from runtime.resources import RuntimeSettings, check_resources
from strategies.learngene import LearngeneStrategy

Sent = tuple[ClientTask, dict[str, dict[str, np.ndarray]]]  # a task and its payloads
Curves = dict[int, dict[str, list[float]]]  # client -> method -> accuracies
BAR = 1.10  # the most that Flower and Ray may cost, as a ratio
LOOK_S = 0.1  # between two looks at processor times: a process that ends has worked as long unseen


class Processors:
    """Seconds of processor time of this process and all below it, also of those that end."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._look()
            time.sleep(LOOK_S)

    def _look(self) -> None:
        this = psutil.Process()
        for process in [this, *this.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.Error:  # it has ended
                continue
            self._seen[process.pid] = times.user + times.system

    def seconds(self) -> float:
        self._look()
        return sum(list(self._seen.values()))


def _work(clients: list[int], sent: list[Sent]) -> dict[int, dict[str, list[float]]]:
    torch.set_num_threads(sent[0][0].threads)
    answers = {client: run_task(client, 1, *sent[client % len(sent)]) for client in clients}
    return {
        client: {name: its["accuracy"] for name, its in answer["methods"].items()}
        for client, answer in answers.items()
    }


def bare(plans: list[RoundPlan], clients: int, processes: int) -> Curves:
    """Each process does its share."""
    sent = [(plan.task, plan.payloads) for plan in plans]
    shares = [list(range(i, clients, processes)) for i in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        answers = pool.starmap(_work, [(share, sent) for share in shares])
    return {client: curves for share in answers for client, curves in share.items()}


def with_flower(plans: list[RoundPlan], clients: int, processes: int, ray: RayStart) -> Curves:
    """The client phase."""
    strategy = LearngeneStrategy(clients, lambda _: plans)
    simulate(strategy, 1, RuntimeSettings(total_cpus=processes), clients, ray=ray)
    return {
        result.client: {name: its["accuracy"] for name, its in result.methods.items()}  # type: ignore[misc]
        for result in strategy.rounds[0].clients
    }


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("run_dir", type=finished_run)
    parser.add_argument("--clients", type=positive, help="default: those of the run")
    parser.add_argument("--processes", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=3)
    asked = parser.parse_args()

    plain = json.loads((asked.run_dir / "results.json").read_text())["run"]["config"]
    config = read_config(plain)
    dataset = build(config.dataset, Path(config.cache))
    gene = load(asked.run_dir / "learngene.safetensors")
    clients, processes = asked.clients or config.num_clients, asked.processes
    plans = plan_round(client_task(config, plain, dataset.path), gene)
    resources = check_resources(RuntimeSettings(total_cpus=processes), clients)
    processors, found = Processors(), list[Curves]()
    wall: dict[str, list[float]] = {}
    worked: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started, before = time.perf_counter(), processors.seconds()
        result = work()
        wall.setdefault(name, []).append(time.perf_counter() - started)
        worked.setdefault(name, []).append(processors.seconds() - before)
        return result

    for _ in range(asked.repeats):
        found.append(timed("bare", lambda: bare(plans, clients, processes)))
        for name in ("cold", "warm"):
            ray = RayStart(resources, None)
            with closing(ray):
                if name == "warm":
                    timed("Ray's start", ray.begin_and_wait)
                found.append(timed(name, partial(with_flower, plans, clients, processes, ray)))
    if any(curves != found[0] for curves in found):
        print("the numbers of two ways differ", file=sys.stderr)
        return 1
    methods = ", ".join(plans[0].methods)
    print(f"clients {clients}, processes {processes}, methods {methods}, repeats {asked.repeats}")
    print(f"{'':12}{'seconds':>9}{'ratio':>7}{'processor':>11}{'ratio':>7}")
    for name in wall:
        line = f"{name:12}"
        for times, width in ((wall, 9), (worked, 11)):
            its, base = median(times[name]), median(times["bare"])
            line += f"{its:{width}.1f}{its / base:7.2f}"
        print(line)
    print(f"bar: {BAR:.2f}")
    return 0


if __name__ == "__main__":
    end(main)
