"""From the configuration to a learngene: evolve a collective, or read a saved learngene."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from learngene.errors import InputError
from learngene.evolution import Evolution, EvolutionSettings
from learngene.gene import Learngene, extract, load
from learngene.openworld import OpenWorldSettings
from learngene.world import World
from server.collective import Life, live


@dataclass(frozen=True)
class Product:
    """What the factory hands over: the learngene and what is known of where it came from."""

    gene: Learngene
    life: Life | None  # None: the learngene was read from a file

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


def open_world_settings(config: Mapping[str, Any]) -> OpenWorldSettings:
    """How unknown images are recognised; changes nothing in the collective itself."""
    named = (field.name for field in fields(OpenWorldSettings))
    return OpenWorldSettings(**{name: config["open_world"][name] for name in named})


def produce(
    config: Mapping[str, Any],
    world: World,
    *,
    on_task: Callable[[Evolution, bool], None] | None = None,
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
        life = live(
            world,
            settings,
            device,
            Path(config["cache"]),
            open_world=open_world_settings(config),
            resume=config["resume"],
            on_task=on_task,
            on_step=on_step,
        )
    finally:
        torch.set_num_threads(before)
    gene = extract(
        life.evolution.collective,
        layers=settings.shared,
        stem_seed=settings.seed,
        rho=[stage.rho for stage in life.evolution.stages],
        source={"world": world.name, "world_sha256": world.sha256, "collective": life.key},
    )
    return Product(gene, life)


def _check_fits(world: World, settings: EvolutionSettings) -> None:
    fewest = min(len(world.rows("train", c)) for c in world.division.base)
    if fewest <= settings.calibration_per_class:
        raise InputError("open_world.calibration_per_class", settings.calibration_per_class,
                         f"a base class has {fewest} training images: none would be left",
                         f"Lower it below {fewest}")  # fmt: skip
