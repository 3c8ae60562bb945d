"""From the configuration to a learngene: evolve a collective, or read a saved learngene."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from learngene.continual import measures
from learngene.errors import InputError
from learngene.evolution import Evolution, EvolutionSettings, Stage
from learngene.gene import Learngene, extract, load
from learngene.world import World
from server.collective import Life, life_key, live


@dataclass(frozen=True)
class Moment:
    """A point of the collective's evolution at which clients reconstruct (figure 6a)."""

    tasks: int  # done by then
    known_classes: int
    gene: Learngene


@dataclass(frozen=True)
class Product:
    """What the factory hands over: the learngene and what is known of where it came from."""

    gene: Learngene
    life: Life | None  # None: the learngene was read from a file
    moments: tuple[Moment, ...] = ()  # one a round; the last one's learngene is ``gene``

    def gene_of(self, round: int) -> Learngene:
        """The learngene that round ``round`` (from 1) sends."""
        return self.moments[round - 1].gene if self.moments else self.gene

    def sections(self, sigma: float) -> dict[str, Any]:
        """The parts of ``results.json`` that are the factory's."""
        card = self.gene.card
        shown = {
            "layers": card.layers,
            "stem": card.stem,
            "parameters": card.parameters,
            "bytes": card.bytes,
            "top_layers_bytes": card.top_layers_bytes,
            "sha256": card.sha256,
        }
        if self.life is None:
            return {"collective": None, "criterion": None, "open_world": None, "learngene": shown}
        evolution = self.life.evolution
        return {
            "collective": {
                "tasks": len(evolution.tasks),
                "conv_widths": list(evolution.collective.widths),
                "parameters": evolution.stages[-1].parameters,
                "stages": [stage.as_dict() for stage in evolution.stages],
                "continual": _continual(evolution.stages),
            },
            "criterion": {
                "sigma": sigma,
                "rho": [stage.rho for stage in evolution.stages],
                "selected": card.layers,
            },
            "open_world": self.life.open_world,
            "learngene": shown,
        }


def choose_device(asked: str) -> torch.device:
    """``auto`` takes a GPU where there is one.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "collective.device", asked, "torch sees no GPU", "Write collective.device=auto"
        )
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(asked)


def choose_precision(asked: str, device: torch.device) -> str:
    """``auto`` takes bf16 where the device computes with it and does not only emulate it."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has else "fp32"


def evolution_settings(config: Mapping[str, Any], device: torch.device) -> EvolutionSettings:
    """The part of the configuration that determines a collective."""
    own = config["collective"]
    named = {f.name for f in fields(EvolutionSettings)}
    taken = {name: value for name, value in own.items() if name in named}
    taken["precision"] = choose_precision(own["precision"], device)
    return EvolutionSettings(
        **taken,
        stem=config["individual"]["stem"],
        shared=config["learngene"]["layers"],
        sigma=config["learngene"]["sigma"],
        calibration_per_class=config["open_world"]["calibration_per_class"],
        seed=config["seed"],
    )


def produce(
    config: Mapping[str, Any],
    world: World,
    *,
    on_task: Callable[[Evolution, bool], None] = lambda evolution, found: None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Product:
    """A learngene for the configuration.

    Raises:
        InputError: the saved learngene cannot be used, or the world is too small for the settings.
    """
    path = config["learngene"]["path"]
    if path:
        gene = load(path)
        if gene.card.channels != world.image_shape[0]:
            raise InputError("learngene.path", path,
                             f"made for images of {gene.card.channels} channels, "
                             f"{world.name} has {world.image_shape[0]}",
                             "Use a learngene of a world like this one")  # fmt: skip
        return Product(gene, None)
    device = choose_device(config["collective"]["device"])
    threads = config["collective"]["threads"] or os.cpu_count() or 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        settings = evolution_settings(config, device)
        _check_fits(world, settings)
        tasks = math.ceil(len(world.division.base) / settings.classes_per_task)
        key = life_key(world, settings, device)
        moments: list[Moment] = []

        def keep_moment(evolution: Evolution) -> None:
            gene = extract(
                evolution.collective,
                layers=settings.shared,
                stem_seed=settings.seed,
                rho=[stage.rho for stage in evolution.stages],
                source={"world": world.name, "world_sha256": world.sha256, "collective": key},
            )
            moments.append(Moment(len(evolution.stages), len(evolution.known), gene))

        life = live(
            world,
            settings,
            device,
            Path(config["cache"]),
            accept=config["open_world"]["accept"],
            resume=config["resume"],
            stops=stops(tasks, config["rounds"]),
            on_stop=keep_moment,
            on_task=on_task,
            on_step=on_step,
        )
    finally:
        torch.set_num_threads(before)
    return Product(moments[-1].gene, life, tuple(moments))


def stops(tasks: int, rounds: int) -> list[int]:
    """Tasks done at the end of each of ``rounds`` stretches that are as equal as can be.

    Raises:
        InputError: there are more rounds than tasks.
    """
    if rounds > tasks:
        raise InputError("rounds", rounds, f"the collective has {tasks} tasks",
                         f"Write rounds={tasks} or less")  # fmt: skip
    return [math.ceil(tasks * (number + 1) / rounds) for number in range(rounds)]


def _continual(stages: Sequence[Stage]) -> dict[str, Any]:
    """How well the tasks gone by are kept, by the collective and (under ``light``) its light path.

    ``light`` is null where there is no light path.
    """
    rows = [stage.light_accuracy_by_task for stage in stages if stage.light_accuracy_by_task]
    light = [stage.light_accuracy for stage in stages if stage.light_accuracy is not None]
    return {
        **measures([s.accuracy_by_task for s in stages], [s.accuracy for s in stages]),
        "light": measures(rows, light) if rows else None,
    }


def _check_fits(world: World, settings: EvolutionSettings) -> None:
    fewest = min(len(world.rows("train", c)) for c in world.division.base)
    if fewest <= settings.calibration_per_class:
        raise InputError("open_world.calibration_per_class", settings.calibration_per_class,
                         f"a base class has {fewest} training images: none would be left",
                         f"Lower it below {fewest}")  # fmt: skip
