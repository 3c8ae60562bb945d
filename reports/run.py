"""What a run keeps: the opened data with its checks, the seconds, and the files of the run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from learngene.data.dataset import ImageDataset
from learngene.gene.gene import save
from learngene.utils.hardware import library_version
from protocol.callbacks import SILENT, RunCallback
from reports.client_rows import client_rows, write_clients_csv
from reports.results import build_results, write_results
from reports.traffic import message_section, write_messages_csv
from reports.tuning import read_records, tuning
from server.factory import FactoryResult
from server.gradcam import compute_gradcam
from server.pretraining import Payloads

if TYPE_CHECKING:
    from protocol.rounds import RoundOutcome
    from runtime.federated_rounds import Federated

LIBRARIES = (
    *("flwr", "ray", "torch", "torchvision", "numpy", "hydra-core", "datasets"),
    *("pytorch-ood", "POT"),
)
# Settings that do not change any number.
NOT_RESULTS = ("cache", "runtime", "resume", "report", "faults", "logger")


class Seconds(dict[str, float]):
    """Wall-clock seconds of the parts of a run."""

    def __init__(self) -> None:
        super().__init__()
        self._started = time.perf_counter()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self[part] = time.perf_counter() - started

    def all(self) -> dict[str, float]:
        return {**self, "total": time.perf_counter() - self._started}


def config_digest(config: Mapping[str, Any]) -> str:
    """sha256 of the settings that determine the numbers."""
    kept = {k: v for k, v in config.items() if k not in NOT_RESULTS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def below_home(value: Any) -> Any:
    """``value`` with ``~`` for the home folder, whose name is that of a user, in every path: those
    who read the results find the cache and the data where they are."""
    if isinstance(value, str):
        home = os.path.expanduser("~")  # noqa: PTH111 - ``Path.home`` raises where there is none
        path = rf"(?<![^=\s'\"]){re.escape(home)}(?=/|$)"
        return re.sub(path, "~", value) if len(home) > 1 else value
    if isinstance(value, Mapping):
        return {name: below_home(item) for name, item in value.items()}
    return [below_home(item) for item in value] if isinstance(value, list) else value


def write_run(
    run_dir: Path,
    config: Mapping[str, Any],
    shard_seed: int,
    command: Sequence[str],
    overrides: Sequence[str],
    dataset: ImageDataset,
    leakage: Mapping[str, Any],
    factory: FactoryResult,
    rounds: Sequence[RoundOutcome],
    seconds: Seconds,
    pretrained: Payloads,
    federated: Federated,
    labelled: Mapping[str, Any] | None = None,
    callback: RunCallback = SILENT,
) -> tuple[dict[str, Any], Path]:
    """Write all files of a run; returns the results and the path of the report.

    ``command`` is what a person typed to start it, ``overrides`` what of it is for the run.
    """
    names = dataset.class_names
    last = len(rounds) - 1  # in which the federated methods answer, too
    shots = None if config["data"]["partition"] == "dirichlet" else config["shots"]
    rows = [
        client_rows(each.clients, shots, names, federated.rounds if i == last else None)
        for i, each in enumerate(rounds)
    ]
    outcomes = [*(outcome for history in federated.rounds.values() for outcome in history), *rounds]
    save(factory.gene, run_dir)
    with seconds.of("gradcam"):
        callback.on_progress("report, Grad-CAM")
        shown = config["report"]["gradcam_images"]
        seen = (
            compute_gradcam(factory.trained, Path(config["cache"]), shown)
            if factory.trained
            else None
        )
    callback.on_progress("report, results")
    results = build_results(
        run={
            "seed": config["seed"],
            "shard_seed": shard_seed,
            "command": below_home(shlex.join(command)),
            "experiment": config["experiment"],
            "overrides": below_home(list(overrides)),
            "versions": {"python": platform.python_version()}
            | {name: library_version(name) for name in LIBRARIES},
            "config_sha256": config_digest(config),
            "seconds": seconds.all(),
            "device": _device(),
            "collective_cached": factory.trained is not None
            and factory.trained.reused == len(factory.trained.trainer.tasks),
            "kept_answers": sum(each.kept for each in rounds),
            "collective_key": factory.trained.key if factory.trained else None,
            "collective_precision": factory.trained.trainer.settings.collective.precision
            if factory.trained
            else None,
            "config": below_home(config),
        },
        data={
            "name": dataset.name,
            "image_shape": list(dataset.image_shape),
            "classes": {
                group: [names[c] for c in dataset.class_split.group(group)]
                for group in ("base", "open_world", "novel")
            },
            "sha256": dataset.sha256,
            "duplicates_dropped": dataset.duplicates_dropped,
            "leakage": leakage,
        },
        **factory.sections(config["learngene"]["precision"]),
        clients=rows[-1],
        messages=message_section(outcomes),
        rounds=[
            {
                "round": each.round,
                "tasks": snapshot.tasks,
                "known_classes": snapshot.known_classes,
                "learngene_bytes": snapshot.gene.deepest.card.bytes,
                "clients": of_round,
            }
            for each, snapshot, of_round in zip(rounds, factory.snapshots, rows, strict=True)
        ]
        if factory.snapshots
        else None,
        methods=pretrained.methods,
        pretraining=pretrained.section,
        federated=federated.section,
        labelled=labelled,
        tuning=tuning(config, pretrained.methods, read_records()),
        retain=config["retain"],
        gradcam=seen,
    )
    write_results(results, run_dir / "results.json")
    write_clients_csv(results, run_dir / "clients.csv")
    write_messages_csv(rounds, run_dir / "messages.csv", federated.rounds)
    # Here, since matplotlib and scipy are seconds that the first line need not wait for.
    from reports.html.report import write_report

    return results, write_report(results, run_dir, callback.on_progress)


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    kind = platform.processor() or platform.machine()
    return f"cpu ({kind}, {torch.backends.cpu.get_cpu_capability()})"
