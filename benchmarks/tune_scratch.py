"""The grid over which training from scratch was tuned, on tasks of open-world classes.

    python benchmarks/tune_scratch.py RUN_DIR [--clients 16]

RUN_DIR is a finished run; its world and client settings are used, its learngene only for its
sizes. The novel classes are not touched: nothing that is reported on them was chosen on them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

GRID = {
    "lr": (0.005, 0.01, 0.02, 0.05),
    "head": ("mlp", "prototype"),
    "stem": ("whole", "separable"),
    "schedule": ("cosine", "constant"),
}
TUNING_SEED = 77  # shards that no reported run draws


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()

    import torch

    from clients.work import run_task
    from learngene.gene import load
    from learngene.world import WorldSettings, build
    from strategies.plan import plan_round

    torch.set_num_threads(1)
    config = json.loads((arguments.run_dir / "results.json").read_text())["run"]["config"]
    data = {k: v for k, v in config["data"].items() if k != "clients_from"}
    world = build(WorldSettings(**data, seed=config["seed"]), Path(config["cache"]))
    gene = load(arguments.run_dir / "learngene.safetensors")
    config |= {"methods": ["scratch"], "shard_seed": TUNING_SEED}
    config["data"]["clients_from"] = "open_world"
    task = plan_round(config, world, gene).task
    for values in itertools.product(*GRID.values()):
        task["method"] = {"scratch": dict(zip(GRID, values, strict=True))}
        found = [run_task(c, 1, task, {})["methods"]["scratch"] for c in range(arguments.clients)]
        failed = [each["error"] for each in found if "error" in each]
        if failed:
            print(f"{values}: {failed[0]}", file=sys.stderr)
            return 1
        last = [each["accuracy"][-1] for each in found]
        error = statistics.stdev(last) / len(last) ** 0.5
        print(
            f"{task['method']['scratch']}  {statistics.mean(last):.4f} +- {error:.4f}", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
