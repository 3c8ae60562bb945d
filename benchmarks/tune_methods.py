"""Tune every method on tasks of open-world classes, each with the same number of trials.

    python -m benchmarks.tune_methods RUN_DIR --out tuned.json [--trials 8] [--clients 16]
        [--methods maml,protonet] [--processes 2]

RUN_DIR is a finished run: its dataset, budget and client settings are used, its collective is found
in the cache. A trial is one setting of a method's own space: what it has at the factory is trained
anew with the run's whole budget (and kept in the cache), then CLIENTS tasks of open-world classes
are adapted to and tested. The first trial is the settings as they are, the others are drawn without
repeats. The novel classes are not touched: nothing that is reported on them was chosen on them.
Results are written after every trial; the same command goes on where it was stopped. A method
whose trials are all done gets a record in reports/tuned/ (--records), which the footnote of every
run's table reads.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import shlex
import statistics
import sys
from contextlib import ExitStack
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from omegaconf import OmegaConf

from benchmarks.command import end, finished_run, new_parser, positive
from clients.work import run_task
from conf.methods import resolve_methods
from conf.parts import client_task, factory_settings, federation, pretraining_settings
from conf.schema import read_config
from learngene.data.cache import build
from learngene.data.dataset import ImageDataset
from learngene.errors import InputError
from learngene.methods import BUILT_IN
from learngene.methods.common.backbone import body_card
from learngene.seeding import generator
from learngene.utils.checkpoint import key_of
from learngene.utils.files import write_atomically
from protocol.plan import plan_round
from protocol.task import ClientTask
from reports.tuning import FOLDER, write_record
from reports.variants import flatten
from runtime.federated_rounds import federated_methods, run_federated_training
from server.factory import FactoryResult, train_or_load_gene
from server.pretraining import budget_of, pretrain_methods

TUNING_SEED = 77  # shards that no reported run draws
# Settings, or groups of them, that change no trial; which methods there are is in the records.
OF_NO_TRIAL = {
    *("cache", "resume", "logger", "runtime", "report", "faults", "experiment", "scale", "methods"),
    *("data.root", "data.download", "individual.keep"),
}
SPACES: dict[str, dict[str, list[Any]]] = yaml.safe_load(
    Path(__file__).with_name("spaces.yaml").read_text()
)


def _points(method: str, axis: str, values: list[Any]) -> list[dict[str, Any]]:
    """An axis of a space: what its points set, by dotted name."""
    fields = axis.split()
    paths = [field if "." in field else f"method.{method}.{field}" for field in fields]
    points = values if len(fields) > 1 else [[value] for value in values]
    return [dict(zip(paths, point, strict=True)) for point in points]


def trials(method: str, config: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Settings to try: first those of ``config``, then others drawn from the space.

    Raises:
        ValueError: the space holds fewer than ``count``.
    """
    axes = [_points(method, axis, values) for axis, values in SPACES[method].items()]
    sizes, defaults = [len(axis) for axis in axes], dict(flatten(config))
    first = {path: defaults[path] for axis in axes for path in axis[0]}

    def settings(place: int) -> dict[str, Any]:
        chosen = zip(axes, np.unravel_index(place, sizes), strict=True)
        return {path: value for axis, at in chosen for path, value in axis[at].items()}

    own = [[point.items() <= first.items() for point in axis] for axis in axes]
    inside = all(map(any, own))  # whether what is set is a point of the space
    others = math.prod(sizes) - inside
    if others < count - 1:
        raise ValueError(f"{method}: {others + 1} settings, {count} trials are asked for")
    order = generator(TUNING_SEED, f"tune-{method}").permutation(others)[: count - 1]
    if inside:  # it is none of the others: those behind it move up
        place = np.ravel_multi_index([axis.index(True) for axis in own], sizes)
        order += order >= place
    return [first, *map(settings, order)]


def _work(client: int, task: ClientTask, payloads: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    return run_task(client, 1, task, payloads)["methods"]


def run_trial(
    pool: Pool,
    name: str,
    settings: dict[str, Any],
    plain: dict[str, Any],
    dataset: ImageDataset,
    result: FactoryResult,
    at_end: ExitStack | None = None,
) -> dict[str, Any]:
    """Train what the method has at the factory, adapt to every client's task and test; ``at_end``
    as ``run_federated_training`` takes it."""
    changed = OmegaConf.create({**plain, "methods": [name]})
    for path, value in settings.items():
        OmegaConf.update(changed, path, value)
    plain = cast(dict[str, Any], OmegaConf.to_container(changed))
    config = read_config(plain)
    task = client_task(config, plain, dataset.path)
    try:
        if any(path.startswith(("collective.", "learngene.")) for path in settings):
            result = train_or_load_gene(factory_settings(config), dataset)
        trained = pretrain_methods(pretraining_settings(config, plain), dataset, result)
        names, card = federated_methods(trained.methods), result.gene.card
        body = body_card(card.width, card.block)
        federated = run_federated_training(
            task, names, dataset, body, federation(config, None), gene=result.gene, at_end=at_end
        )
        payloads = trained.merge(federated.payloads, federated.failed).payloads
    except (InputError, RuntimeError) as error:  # it diverged: a bad trial, not the end
        return {"settings": settings, "accuracy": None, "error": str(error)}
    plans = plan_round(
        task,
        result.gene,
        1,
        payloads,
        precision=config.learngene.precision,
        payload_precision=config.payload_precision,
    )
    sent = [(client, plans[client % len(plans)]) for client in range(config.num_clients)]
    answers = pool.starmap(_work, [(client, plan.task, plan.payloads) for client, plan in sent])
    return {"settings": settings, **measured([methods[name] for methods in answers])}


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("run_dir", type=finished_run)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=positive, default=8)
    parser.add_argument("--clients", type=positive, default=16)
    parser.add_argument("--methods", default=",".join(SPACES))
    parser.add_argument("--processes", type=positive, default=2)
    parser.add_argument("--records", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    names = arguments.methods.split(",")
    if absent := [name for name in names if name not in SPACES]:
        parser.error(f"--methods: {absent[0]}: there is no such method. Choose of {list(SPACES)}")

    plain = json.loads((arguments.run_dir / "results.json").read_text())["run"]["config"]
    plain |= {"shard_seed": TUNING_SEED, "rounds": 1}
    # A run holds the settings of its methods alone.
    plain["method"] = resolve_methods(BUILT_IN, plain["method"]).settings
    plain["data"]["clients_from"] = "open_world"
    plain["num_clients"] = arguments.clients  # who trains together, for federated methods
    try:
        plan = {name: trials(name, plain, arguments.trials) for name in names}
    except ValueError as error:
        parser.error(f"--trials: {error}")
    config = read_config(plain)
    dataset = build(config.dataset, Path(config.cache))
    result = train_or_load_gene(factory_settings(config), dataset)
    budget = budget_of(pretraining_settings(config, plain), dataset, result)
    conditions = conditions_of(plain, budget, dataset.sha256)
    try:
        records = trials_so_far(arguments.out, conditions)
    except ValueError as error:
        parser.error(str(error))
    command = shlex.join(["python", "-m", "benchmarks.tune_methods", *sys.argv[1:]])
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for name, tried in plan.items():
            done = records.setdefault(name, [])
            for number, settings in enumerate(tried, start=1):
                if any(record["settings"] == settings for record in done):
                    continue
                with ExitStack() as at_end:
                    trial = run_trial(pool, name, settings, plain, dataset, result, at_end)
                done.append(trial)
                text = json.dumps(
                    {
                        "classes": "open_world",
                        "conditions": conditions,
                        "trials": arguments.trials,
                        "best": {method: best(theirs) for method, theirs in records.items()},
                        "methods": records,
                    },
                    indent=1,
                )
                write_atomically(arguments.out, text.encode())
                print(f"{name} {number}/{len(tried)}: {done[-1]}", flush=True)
            record = record_of(name, conditions, tried, done, command)
            print(write_record(record, arguments.records))
    return 0


def conditions_of(config: dict[str, Any], budget: int, sha256: str) -> dict[str, Any]:
    """What every trial has in common, and what a trial of another run may have otherwise.

    Args:
        sha256: of the images.
    """
    flat = dict(flatten(config))
    others = {n: v for n, v in flat.items() if not {n, n.split(".")[0]} & OF_NO_TRIAL}
    return {
        "data": config["data"]["name"],
        "width": config["collective"]["width"],
        "shots": config["shots"],
        "ways": config["ways"],
        "budget": budget,
        "clients": config["num_clients"],
        "seed": config["seed"],
        "individual": config["individual"],
        "settings": key_of({**others, "images": sha256}),
    }


def trials_so_far(out: Path, conditions: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The trials that an earlier call wrote to ``out``, by method.

    Raises:
        ValueError: they were made under other conditions, so they say nothing about these.
    """
    if not out.exists():
        return {}
    before = json.loads(out.read_text())
    if before.get("conditions") != conditions:
        raise ValueError(
            f"--out: {out} holds trials under other conditions, {before.get('conditions')}; these "
            f"are {conditions}. Name another file."
        )
    return before["methods"]


def record_of(
    method: str,
    conditions: dict[str, Any],
    tried: list[dict[str, Any]],
    done: list[dict[str, Any]],
    command: str,
) -> dict[str, Any]:
    """What is kept of a method's trials (``reports.tuning``): those of this plan and no others."""
    these = [record for record in done if record["settings"] in tried]
    return {
        "method": method,
        "data": conditions["data"],
        "classes": "open_world",
        "conditions": conditions,
        "trials": len(these),
        "tried": these,
        "best": best(these),
        "command": command,
    }


def measured(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean accuracy at the last epoch over clients with its standard error, or what went wrong."""
    if errors := [answer["error"] for answer in answers if "error" in answer]:
        return {"accuracy": None, "error": errors[0]}
    last = [answer["accuracy"][-1] for answer in answers]
    spread = statistics.stdev(last) if len(last) > 1 else 0.0
    return {"accuracy": statistics.mean(last), "standard_error": spread / len(last) ** 0.5}


def best(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The settings of the most accurate trial."""
    good = [record for record in records if record["accuracy"] is not None]
    return max(good, key=lambda record: record["accuracy"])["settings"] if good else None


if __name__ == "__main__":
    end(main)
