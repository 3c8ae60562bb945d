"""The grid over which training from scratch was tuned, on tasks of open-world classes.

    python benchmarks/tune_scratch.py RUN_DIR [--clients 16] [--processes 2]

RUN_DIR is a finished run; its world and client settings are used, its learngene only for its
sizes. The novel classes are not touched: nothing that is reported on them was chosen on them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from protocol.task import ClientTask

GRID = {
    "lr": (0.005, 0.01, 0.02, 0.05),
    "head": ("mlp", "prototype"),
    "stem": ("whole", "separable"),
    "schedule": ("cosine",),
}
TUNING_SEED = 77  # shards that no reported run draws


def _work(client: int, task: ClientTask) -> dict[str, Any]:
    import torch

    from clients.work import run_task

    torch.set_num_threads(1)
    return run_task(client, 1, task, {})["methods"]["scratch"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()

    from conf.parts import client_task
    from conf.schema import read_config
    from learngene.data.cache import build
    from learngene.gene.gene import load
    from protocol.plan import plan_round

    config = json.loads((arguments.run_dir / "results.json").read_text())["run"]["config"]
    gene = load(arguments.run_dir / "learngene.safetensors")
    config |= {"methods": ["scratch"], "shard_seed": TUNING_SEED}
    config["data"]["clients_from"] = "open_world"
    typed = read_config(config)
    world = build(typed.dataset, Path(typed.cache))
    task = plan_round(client_task(typed, config, world.path), gene).task
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for values in itertools.result(*GRID.values()):
            task = replace(task, method={"scratch": dict(zip(GRID, values, strict=True))})
            found = pool.starmap(_work, [(c, task) for c in range(arguments.clients)])
            failed = [each["error"] for each in found if "error" in each]
            if failed:
                print(f"{values}: {failed[0]}", file=sys.stderr)
                return 1
            last = [each["accuracy"][-1] for each in found]
            error = statistics.stdev(last) / len(last) ** 0.5
            asked = " ".join(f"{k}={v}" for k, v in task.method["scratch"].items())
            print(f"{asked}: {statistics.mean(last):.4f} +- {error:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
