"""Check what fields say together, one clear message each; ranges stand beside the fields."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from clients.faults import IN_TRAINING, Order
from conf.methods import RunMethods, add_cwd_to_path, resolve_methods
from conf.schema import Config
from conf.typed import to_typed
from learngene.errors import InputError
from learngene.utils.files import expanded, is_file, is_folder
from reports.experiments.registry import compared_methods
from reports.loggers import check_logger

GROWTHS = ("schedule", "none", "equal")  # of collective.growth, which may also name a file
MOST_INHERITED = 6  # of the individual's seven layers
COLLECTIVE_DEPTH = 13  # without deepening
THRESHOLDS = ("calibrated", "paper_cifar100", "paper_imagenet100")  # or a number


def check(composed: DictConfig) -> Config:
    """The configuration as an object.

    What depends on the data (how many classes and images there are) is checked when the dataset is
    loaded, by ``learngene.data``.

    Raises:
        InputError: for the first field that is out of its range or does not fit another.
    """
    config = to_typed(composed)
    _check_methods(config.methods)
    if config.logger is not None:
        add_cwd_to_path()
        check_logger(config.logger)
    _check_growth(config.collective.growth)
    _check_layers(config.learngene.layers, config.collective.growth)
    _check_open_world(config)
    _check_labelled(config)
    _check_faults(config)
    _check_together(config)
    # Last, since methods bring torch: seconds that a wrong word above need not wait for.
    _check_halves(config, resolve_methods(config.methods, config.method))
    return config


def _check_methods(methods: Any) -> None:
    if not isinstance(methods, Sequence) or isinstance(methods, str):
        raise InputError("methods", methods, "no list", "Write methods=[learngene,scratch]")
    if not methods:
        raise InputError("methods", "[]", "nothing to compare", "Write methods=[learngene,scratch]")
    if len(set(methods)) < len(methods):
        raise InputError("methods", methods, "a method is named twice", "Name each method once")


def _check_growth(growth: str) -> None:
    if growth not in GROWTHS and not is_file(Path(growth)):
        raise InputError(
            "collective.growth",
            growth,
            f"neither {' nor '.join(GROWTHS)}, nor a file that exists",
            "Write collective.growth=schedule, or name a plan like conf/growth/deepen.yaml",
        )


def _check_layers(layers: Any, growth: str) -> None:
    """auto, a number of top layers, or consecutive layers; how deep a plan leads is seen later."""
    if layers == "auto":
        return
    fix = "Write learngene.layers=3, learngene.layers=[5,6,7] or learngene.layers=auto"
    if _whole(layers):
        if not 1 <= layers <= MOST_INHERITED:
            raise InputError(
                "learngene.layers",
                layers,
                f"must be at least 1 and at most {MOST_INHERITED}: an individual has "
                "seven layers, the first its own",
                fix,
            )
        return
    listed = list(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else []
    if not listed or not all(_whole(layer) for layer in listed):
        raise InputError("learngene.layers", layers, "no number of layers, no list of them", fix)
    if listed != list(range(listed[0], listed[0] + len(listed))) or listed[0] < 1:
        raise InputError("learngene.layers", listed, "must be consecutive, lowest first", fix)
    if len(listed) > MOST_INHERITED:
        raise InputError("learngene.layers", listed, f"more than {MOST_INHERITED} layers", fix)
    if growth in GROWTHS and listed[-1] > COLLECTIVE_DEPTH:
        raise InputError(
            "learngene.layers", listed, f"the collective has {COLLECTIVE_DEPTH} layers", fix
        )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_open_world(config: Config) -> None:
    asked = config.open_world
    threshold, score = asked.threshold, asked.score
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not (number and math.isfinite(threshold)) and threshold not in THRESHOLDS:
        raise InputError(
            "open_world.threshold",
            threshold,
            f"neither a finite number nor one of {', '.join(THRESHOLDS)}",
            "Write open_world.threshold=calibrated",
        )
    if not number and threshold.startswith("paper_") and score != "max_softmax":
        raise InputError(
            "open_world.threshold",
            threshold,
            f"the paper's thresholds are for max_softmax (Eq. 2), not for {score}",
            "Write open_world.score=max_softmax or threshold=calibrated",
        )
    if asked.path != "collective" and config.individual.stem == "fresh":
        raise InputError(
            "open_world.path",
            asked.path,
            "individual.stem=fresh grows no light path",
            "Write open_world.path=collective",
        )
    if asked.cycles and config.data.clients_from == "open_world":
        raise InputError(
            "open_world.cycles",
            asked.cycles,
            "the collective would learn the classes that clients hold "
            "(data.clients_from=open_world)",
            "Write open_world.cycles=0 or data.clients_from=novel",
        )
    if asked.cycles and config.collective.memory != "rehearsal":
        raise InputError(
            "open_world.cycles",
            asked.cycles,
            "classes are taken in beside exemplars of the old ones, and "
            f"collective.memory={config.collective.memory} keeps none",
            "Write collective.memory=rehearsal",
        )
    if asked.cycles and config.learngene.path:
        raise InputError(
            "open_world.cycles",
            asked.cycles,
            "a saved learngene meets no stream: there is no collective",
            "Write open_world.cycles=0, or leave learngene.path out",
        )
    memory, exemplars = config.collective.memory, config.collective.memory_per_class
    if score.endswith("mahalanobis") and (memory != "rehearsal" or exemplars == 0):
        setting = f"memory_per_class={exemplars}" if memory == "rehearsal" else f"memory={memory}"
        raise InputError(
            "open_world.score",
            score,
            f"it is fitted on exemplars, and collective.{setting} keeps none",
            "Write open_world.score=energy or collective.memory=rehearsal with exemplars",
        )


def _check_labelled(config: Config) -> None:
    draws = config.labelled.draws
    if not draws:
        return
    if config.data.clients_from != "open_world":
        raise InputError(
            "labelled.draws",
            draws,
            "only open-world images are called unknown and named, and clients hold "
            f"{config.data.clients_from} classes",
            "Write data.clients_from=open_world or labelled.draws=0",
        )
    if draws > config.num_clients:
        raise InputError(
            "labelled.draws",
            draws,
            f"more draws than clients (num_clients={config.num_clients})",
            f"Write labelled.draws={config.num_clients} or less",
        )
    if config.rounds > 1:
        raise InputError(
            "rounds",
            config.rounds,
            f"images are called unknown by the finished collective (labelled.draws={draws})",
            "Write rounds=1 or labelled.draws=0",
        )
    if config.learngene.path:
        raise InputError(
            "labelled.draws",
            draws,
            "a saved learngene has no collective to call images unknown",
            "Write labelled.draws=0, or leave learngene.path out",
        )


def _check_faults(config: Config) -> None:
    fix = "Write, for instance, faults=[0:raise,1:kill_once@2]"
    if not isinstance(config.faults, list):
        raise InputError("faults", config.faults, "not a list", fix)
    seen: set[int] = set()
    for text in config.faults:
        try:
            order = Order.read(text)
        except ValueError as error:
            raise InputError("faults", text, str(error), fix) from error
        if order.client >= config.num_clients:
            raise InputError("faults", text, f"clients are 0 to {config.num_clients - 1}", fix)
        if order.client in seen:
            raise InputError("faults", text, "that client has a fault already", fix)
        if order.kind in IN_TRAINING and order.epoch > config.individual.epochs:
            raise InputError(
                "faults",
                text,
                f"after epoch {order.epoch} it never strikes, "
                f"individual.epochs is {config.individual.epochs}",
                fix,
            )
        seen.add(order.client)


def _check_cache(cache: str) -> None:
    """The folder must be there, or the first of its parents that is must be one to write in."""
    there: Path | None = Path(cache).absolute()
    while there is not None and cache:
        try:
            there.lstat()
            break
        except FileNotFoundError:
            there = there.parent
        except OSError:  # a name that is too long, a file where a folder should be
            there = None
    if not cache or there is None or not is_folder(there) or not os.access(there, os.W_OK):
        raise InputError(
            "cache",
            cache or "''",
            "no folder that can be written in",
            "Write cache=DIR, or set LEARNGENE_CACHE",
        )


def _check_halves(config: Config, run: RunMethods) -> None:
    """What the methods' halves need besides base images, and rounds besides methods."""
    if config.rounds > 1 and not any(method.inherits for method in run.methods.values()):
        raise InputError(
            "rounds",
            config.rounds,
            "no method builds on the collective's evolution",
            "Write rounds=1, or name learngene among the methods",
        )
    cycles = config.open_world.cycles
    if not config.learngene.path and not cycles:
        return
    for name, method in run.methods.items():
        if method.trained_by in ("clients", "none"):
            continue
        if cycles:
            raise InputError("methods", name,
                             "the open-world cycles give the collective further images and passes, "
                             f"and {name} none: no equal terms",
                             "Leave it out, or write open_world.cycles=0")  # fmt: skip
        if method.trained_by == "collective":
            raise InputError("methods", name,
                             "it is sent the collective, and a saved learngene has none",
                             "Leave it out, or leave learngene.path out")  # fmt: skip
        if config.budget is None:
            raise InputError(
                "budget",
                "null",
                f"{name} gets the image passes of the collective's light path, and a "
                "saved learngene has no collective",
                "Write budget=50000",
            )


def _check_together(config: Config) -> None:
    data = config.data
    if config.collective.memory == "ewc":
        from learngene.collective.forgetting import (
            check_growth,  # brings torch: seconds that other runs save
        )

        check_growth(config.collective.memory, config.collective.growth)
    # What can be known of the data before anything of it is read.
    if data.root is not None and not is_folder(expanded(data.root)):
        raise InputError("data.root", data.root, "no such folder", "Name a folder that exists")
    if data.name in ("cifar100", "imagenet100"):
        group = {"novel": 20, "open_world": 16}[data.clients_from]  # the appendix's division
        if config.ways > group:
            raise InputError(
                "ways",
                config.ways,
                f"{data.name} has {group} {data.clients_from} classes",
                f"Write ways={group} or less",
            )
    if data.name == "glyphs":
        share = {"novel": data.novel, "open_world": data.open_world}[data.clients_from]
        if config.ways > math.ceil(data.classes * share):
            raise InputError(
                "ways",
                config.ways,
                f"{data.classes} glyph classes hold {data.classes * share:.0f} "
                f"{data.clients_from} ones",
                f"Lower it, or raise data.classes or data.{data.clients_from}",
            )
        if config.shots > data.train_per_class:
            raise InputError(
                "shots",
                config.shots,
                f"more than the {data.train_per_class} training images of a class",
                "Lower it, or raise data.train_per_class",
            )
    folds = config.individual.safeguard_folds
    if config.individual.safeguard and config.shots < folds:
        raise InputError("individual.safeguard_folds", folds,
                         f"each fold holds out images of every class, and a client has "
                         f"{config.shots} of each (shots)",
                         "Lower it, raise shots, or write individual.safeguard=false")  # fmt: skip
    compared = compared_methods(config.experiment)
    for name in compared:
        if name not in config.methods:
            every = ",".join(dict.fromkeys((*compared, *config.methods)))
            raise InputError("methods", config.methods,
                             f"experiment={config.experiment} compares {name}",
                             f"Write methods=[{every}]")  # fmt: skip
    if config.rounds > 1 and config.learngene.path:
        raise InputError("rounds", config.rounds,
                         "a saved learngene does not evolve: there is no collective",
                         "Write rounds=1, or leave learngene.path out")  # fmt: skip
    asked = config.runtime.min_answered
    if asked is not None and asked > config.num_clients:
        raise InputError(
            "runtime.min_answered",
            asked,
            f"more than the {config.num_clients} clients that are asked",
            f"Lower it to {config.num_clients} or raise num_clients",
        )
    _check_cache(config.cache)
    shares = config.data.base + config.data.open_world + config.data.novel
    if abs(shares - 1) > 1e-6:
        raise InputError(
            "data.base",
            config.data.base,
            f"base, open_world and novel shares add up to {shares:g}, not 1",
            "Change data.base, data.open_world or data.novel",
        )
