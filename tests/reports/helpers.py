"""Synthetic results, built by the product's own ``build_results``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from learngene.collective.forgetting import measures
from reports.experiments.registry import rows
from reports.ledger.page import Key, page
from reports.results import build_results
from reports.schema import Results
from reports.variants import RunGroup
from server.gradcam import encode
from tests.helpers import MANY

WIDTHS = [16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128]
EPOCHS = [0, 1, 5, 10, 15, 20, 25, 30]
LEVELS = {"learngene": 0.93, "scratch": 0.27, "retain_off": 0.92}
BYTES = {"learngene": 1_812_345, "scratch": 412, "retain_off": 1_812_345}
ONE_POINT = ("protonet", "matchingnet", "deepemd")  # they answer without training
LEVELS |= {name: 0.5 + 0.03 * i for i, name in enumerate(MANY[2:])}
BYTES |= {name: 2_160_000 + i for i, name in enumerate(MANY[2:])}


def page_of(
    main: Sequence[Results], experiments: Mapping[Key, RunGroup], drawn: Set[str], base: str
) -> str:
    """The ledger's page with the tables of these runs."""
    tables = {key: rows(group) for key, group in experiments.items()}
    return page(main, experiments, tables, drawn, base)


def make_client(
    number: int,
    rng: np.random.Generator,
    methods: tuple[str, ...] = ("learngene", "scratch"),
    shift: float = 0.0,
) -> dict[str, Any]:
    """A client's answer; ``shift`` is added to the learngene's accuracy."""
    names = [f"letter {chr(97 + int(i))}" for i in rng.choice(20, 5, replace=False)]
    return {
        "id": number,
        "classes": names,
        "shots": 10,
        "train_images": 50,
        "test_images": 300,
        "device": "cpu",
        "methods": {name: make_method(name, rng, shift) for name in methods},
    }


def make_method(name: str, rng: np.random.Generator, shift: float) -> dict[str, Any]:
    level = LEVELS[name] + 0.03 * rng.standard_normal() + (shift if name == "learngene" else 0)
    start = level - 0.02 if name != "scratch" else 0.2
    epochs = EPOCHS[:1] if name in ONE_POINT else EPOCHS
    rise = [start + (level - start) * (1 - np.exp(-epoch / 6)) for epoch in epochs]
    steps = np.clip(np.round(np.array(rise) * 300) / 300, 0, 1)  # of 300 test images
    curve = [[epoch, float(y)] for epoch, y in zip(epochs, steps, strict=True)]
    method = {
        "accuracy": curve[-1][1],
        "accuracy_by_epoch": curve,
        "loss_by_epoch": [[epoch, 2 * (1 - y) + 0.05] for epoch, y in curve],
        "seconds": float(3.2 + rng.random()),
        "bytes_down": BYTES[name],
        "bytes_up": 2311,
        "epochs": 30,
    }
    if name == "learngene":
        method["train_loss_by_epoch"] = [[e, 0.6 * np.exp(-e / 9) + 0.02] for e in EPOCHS[1:]]
        method["penalty_by_epoch"] = [[e, 0.004 * (1 - np.exp(-e / 5))] for e in EPOCHS[1:]]
    return method


def make_sections(tasks: int = 13) -> dict[str, Any]:
    """Everything of a run except clients and messages."""
    rng = np.random.default_rng(7)
    depth = np.linspace(1.0, 0.35, 13)
    time = np.linspace(1.0, 0.3, tasks)
    rho = 0.95 * (1 - (1 - time[:, None]) * (1.35 - depth[None, :])) * depth[None, :]
    rho = np.clip(rho + 0.03 * rng.standard_normal(rho.shape), 0, 1)
    stages = [
        {
            "task": task + 1,
            "new_classes": list(range(5 * task, 5 * task + 5)),
            "known_classes": 5 * (task + 1),
            "accuracy": 0.98 - 0.012 * task,
            "parameters": 520_000 + 18_000 * task,
            "image_passes": 30_000 + 1_000 * task,
            "seconds": 6.1,
            "widened": [] if task == 0 else [{"layer": min(13, 2 + task), "width": 48}],
            "grown": [] if task == 0 else [{"layer": str(min(13, 2 + task)), "width": 48}],
        }
        for task in range(tasks)
    ]
    edges = np.linspace(0, 1, 31)
    known = 2000 * np.exp(-edges[:-1] / 0.12)
    unknown = 400 * np.exp(-(((edges[:-1] - 0.55) / 0.2) ** 2))
    return {
        "run": {
            "seed": 0,
            "shard_seed": 0,
            "command": "python sim.py num_clients=20",
            "overrides": ["num_clients=20"],
            "versions": {"python": "3.11.9", "torch": "2.14.1", "flwr": "1.41.0"},
            "config_sha256": "c0ffee" * 10 + "beef",
            "seconds": {"world": 6.0, "collective": 80.2, "clients": 71.5, "total": 160.9},
            "device": "cpu",
            "config": {"num_clients": 20, "seed": 0, "retain": {"ewc_lambda": 1000.0}},
            "collective_cached": False,
        },
        "data": {
            "name": "glyphs",
            "image_shape": [32, 32, 3],
            "classes": {
                "base": [f"letter {i}" for i in range(64)],
                "open_world": [f"sign {i}" for i in range(16)],
                "novel": [f"letter {chr(97 + i)}" for i in range(20)],
            },
            "sha256": "ab" * 32,
            "duplicates_dropped": 3,
            "leakage": {
                "classes_disjoint": True,
                "shard_test_overlap": 0,
                "shard_base_overlap": 0,
                "test_base_overlap": 0,
                "images_checked": 21_000,
                "passed": True,
            },
        },
        "collective": {
            "tasks": tasks,
            "conv_widths": WIDTHS,
            "parameters": 736_000,
            "stages": stages,
            "continual": make_continual(tasks, 0.98),
        },
        "criterion": {
            "sigma": 1e-3,
            "rho": rho,
            "selected": [11, 12, 13],
            "correlation": {"small rho": -0.423, "steady rho": 0.217, "trend of rho": None},
        },
        "transfer": make_transfer(tasks),
        "learngene": {
            "layers": [11, 12, 13],
            "stem": "fresh",
            "parameters": 455_000,
            "bytes": 1_809_000,
            "sha256": "cd" * 32,
            "top_layers_bytes": 1_770_000,
        },
        "open_world": {
            "threshold": 0.41,
            "auroc": 0.93,
            "f1": 0.88,
            "known_accuracy": 0.91,
            "accepted": 0.951,
            "score": "max_softmax",
            "threshold_from": "calibrated",
            "accept": 0.95,
            "precision": 0.9,
            "recall": 0.861,
            "closed_accuracy": 0.947,
            "known_classes": 64,
            "openness": 0.057,
            "exemplars": 3200,
            "scores": {
                name: {"auroc": area, "aupr_in": 0.97, "aupr_out": 0.7, "fpr95": 0.3, "oscr": 0.8}
                for name, area in (
                    *(("max_softmax", 0.93), ("max_logit", 0.941), ("energy", 0.952)),
                    *(("mahalanobis", 0.812), ("relative_mahalanobis", 0.917)),
                )
            },
            "best_score": "energy",
            "doubled_softmax_floor": 0.95864,
            "paper_thresholds": {
                "paper_cifar100": {
                    "threshold": 0.9587,
                    "one_softmax": {"known_accepted": 1.0, "open_world_found": 0.0},
                    "two_softmaxes": {"known_accepted": 0.0031, "open_world_found": 1.0},
                },
                "paper_imagenet100": {
                    "threshold": 0.9733,
                    "one_softmax": {"known_accepted": 1.0, "open_world_found": 0.0},
                    "two_softmaxes": {"known_accepted": 0.6123, "open_world_found": 0.8},
                },
            },
            "histogram": {
                "edges": edges,
                "known": known.astype(int),
                "open_world": unknown.astype(int),
            },
            "cycle": make_cycle(),
        },
        "gradcam": {
            "images": [
                {
                    "class": name,
                    "group": "novel",
                    "row": number,
                    "picture": encode(rng.integers(0, 256, (8, 8, 3), np.uint8)),
                    "maps": encode(rng.integers(0, 256, (2 * 8, 8), np.uint8)),
                    "predicted": ["letter 3", "letter 4"],
                }
                for number, name in enumerate(("letter a", "letter b"))
            ],
            "stages": [
                {"task": 1, "known_classes": 5, "layer": 10},
                {"task": 13, "known_classes": 65, "layer": 10},
            ],
            "missing": [4],
        },
        "retain": {"ewc_lambda": 1000.0, "normalise": True, "fisher_samples": 128},
    }


def make_transfer(tasks: int) -> dict[str, Any]:
    """A profile that is best at layer 8, plain, and at layer 7 behind the projection."""

    def by_layer(best: int, height: float) -> list[float]:
        return [height - 0.02 * abs(layer - best) for layer in range(1, 14)]

    rows = [
        {
            "task": task,
            "ways": 5,
            "shots": 10,
            "plain": by_layer(8, 0.5 + 0.01 * task),
            "projected": by_layer(7, 0.6 + 0.01 * task),
        }
        for task in range(2, tasks + 1)
    ]
    names = [str(layer) for layer in range(1, 14)]
    return {"names": names, "tasks": rows, **{k: rows[-1][k] for k in ("plain", "projected")}}


def make_cycle() -> dict[str, Any]:
    """Two cycles; no two numbers that mean different things are equal."""
    accuracies = [
        {
            f"{classes}accuracy": None
            if classes == "new_" and not cycle
            else 0.311 + 0.1 * cycle + 0.05 * place
            for place, classes in enumerate(("", "old_", "new_"))
        }
        for cycle in range(3)
    ]
    counts = (
        *("images", "known_images", "unknown_images", "called_unknown", "known_called_unknown"),
        *("unknown_missed", "labels_spent", "known_sent", "called_beyond_budget"),
    )
    numbers = (
        (1600, 803, 797, 291, 88, 594, 271, 68, 20),
        (1500, 905, 595, 303, 127, 419, 281, 105, 22),
    )
    taken = ({"sign 1": 31, "sign 4": 23}, {"sign 7": 29, "sign 9": 17, "sign 2": 19})
    cycles = [
        {
            "cycle": number + 1,
            "threshold": 0.4 + 0.03 * number,
            **dict(zip(counts, values, strict=True)),
            "added": list(labelled),
            "labelled_images": labelled,
            "waiting_classes": (11, 6)[number],
            "known_classes": (66, 69)[number],
            **accuracies[number + 1],
            "seconds": 19.2,
        }
        for number, (values, labelled) in enumerate(zip(numbers, taken, strict=True))
    ]
    sums = ("labels_spent", "known_sent", "unknown_missed", "known_called_unknown")
    return {
        "settings": {"cycles": 2, "labels_per_cycle": 300, "classes_per_cycle": 8},
        "before": accuracies[0],
        "cycles": cycles,
        "discovered": 5,
        "open_world_classes": 16,
        **{name: sum(cycle[name] for cycle in cycles) for name in sums},
    }


def make_continual(tasks: int, start: float) -> dict[str, Any]:
    """A matrix whose tasks fall by 0.03 with every later task, and the measures on it."""
    matrix = [[start - 0.03 * (i - j) for j in range(i + 1)] for i in range(tasks)]
    return measures(matrix, [sum(row) / len(row) for row in matrix])


def make_results(
    n: int = 20,
    *,
    methods: tuple[str, ...] = ("learngene", "scratch"),
    shift: float = 0.0,
    fail: tuple[int, ...] = (),
    collective: bool = True,
    rounds: bool = False,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Results of ``n`` clients; ``change`` edits the sections before they are built."""
    rng = np.random.default_rng(3)
    clients = [make_client(number, rng, methods, shift) for number in range(n)]
    for number in fail:
        clients[number].pop("methods")
        clients[number]["error"] = "RuntimeError: DataLoader worker was killed"
    sections = make_sections()
    if not collective:
        sections |= {
            "collective": None,
            "criterion": None,
            "transfer": None,
            "open_world": None,
            "gradcam": None,
        }
    sections["clients"] = clients
    sections["messages"] = {
        "asked": n,
        "answered": n - len(fail),
        "failed": len(fail),
        "missing": 0,
        "bytes_down": 1_812_757 * n,
        "bytes_up": 4622 * (n - len(fail)),
    }
    if rounds:
        sections["rounds"] = [
            {
                "round": number,
                "tasks": 4 * number,
                "known_classes": 20 * number,
                "learngene_bytes": 600_000 * number,
                "clients": clients
                if number == 3
                else [make_client(c, rng, ("learngene",), 0.1 * number - 0.3) for c in range(n)],
            }
            for number in (1, 2, 3)
        ]
    if change is not None:
        change(sections)
    return build_results(**sections, methods=methods)
