"""From the configuration to a learngene: evolve a collective, or read a saved learngene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from learngene.collective.criterion import TrendRule, align
from learngene.collective.forgetting import measures
from learngene.collective.records import TaskRecord, TrainerSettings
from learngene.collective.settings import CollectiveSettings
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.dataset import World
from learngene.errors import InputError
from learngene.gene.gene import Learngene, extract, load
from learngene.gene.settings import LearngeneSettings
from learngene.networks.growth import PlannedStep, planned_names, read_plan
from learngene.open_world.settings import OpenWorldSettings
from learngene.utils.hardware import pin_kernels, torch_threads, usable_cores
from learngene.utils.untrusted import MEBIBYTE, read_limited
from protocol.callbacks import SILENT, RunCallback
from server.collective import TrainedCollective, collective_key, train_collective
from server.cycle import run_cycles
from server.layer_selection import (
    TOP,
    Selection,
    apply_criterion,
    chosen_layers,
    layer_numbers,
    shared_layers,
)

PLAN_LIMIT = MEBIBYTE  # bytes of a growth plan


@dataclass(frozen=True)
class GeneSnapshot:
    """A point of the collective's evolution at which clients reconstruct (figure 6a)."""

    tasks: int  # done by then
    known_classes: int
    gene: Learngene


@dataclass(frozen=True)
class FactoryResult:
    """What the factory hands over: the learngene and what is known of where it came from."""

    gene: Learngene
    trained: TrainedCollective | None  # None: the learngene was read from a file
    snapshots: tuple[GeneSnapshot, ...] = ()  # one a round; the last one's learngene is ``gene``
    rule: TrendRule = field(default_factory=TrendRule)
    # With learngene.layers=auto: the criterion on the collective that the choice was made by, where
    # that is not ``trained``.
    chosen_on: Selection | None = None
    cycle: dict[str, Any] | None = None  # what the open-world cycles brought (server.cycle)

    def gene_of(self, round: int) -> Learngene:
        """The learngene that round ``round`` (from 1) sends."""
        return self.snapshots[round - 1].gene if self.snapshots else self.gene

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
        if self.trained is None:
            return {"collective": None, "criterion": None, "open_world": None, "learngene": shown}
        trainer = self.trained.trainer
        criterion = apply_criterion(self.trained, self.rule).section(sigma, self.rule)
        if self.chosen_on is not None:
            criterion["chosen_on"] = {
                "collective": self.chosen_on.collective,
                **self.chosen_on.section(sigma, self.rule),
            }
        return {
            "collective": {
                "tasks": len(trainer.tasks),
                "conv_widths": list(trainer.collective.widths),
                "layers": list(trainer.collective.names),
                "parameters": trainer.stages[-1].parameters,
                "stages": [{**each.as_dict(), "task": each.task + 1} for each in trainer.stages],
                "continual": _continual(trainer.stages),
            },
            "criterion": criterion,
            "open_world": {**self.trained.open_world, "cycle": self._cycle()},
            "learngene": shown,
        }

    def _cycle(self) -> dict[str, Any] | None:
        """The cycles with names in place of class numbers."""
        if self.cycle is None or self.trained is None:
            return None
        names = self.trained.trainer.world.class_names
        named = [
            {
                **record,
                "added": [names[c] for c in record["added"]],
                "labelled_images": {names[int(c)]: n for c, n in record["labelled_images"].items()},
            }
            for record in self.cycle["cycles"]
        ]
        return {**self.cycle, "cycles": named}


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


@dataclass(frozen=True)
class FactorySettings:
    """What the factory reads of the configuration."""

    collective: CollectiveSettings
    learngene: LearngeneSettings
    open_world: OpenWorldSettings
    stem: str  # the individual's
    seed: int
    rounds: int
    cache: Path
    resume: bool = True

    @property
    def threads(self) -> int:
        """``collective.threads``; 0 takes all cores that this process may use.

        Kept work hangs on the number, since rounding does.
        """
        return self.collective.threads or usable_cores()

    @property
    def rule(self) -> TrendRule:
        own = self.learngene
        return TrendRule(own.auto_layers, own.auto_bar, own.auto_large)


def trainer_settings(settings: FactorySettings, device: torch.device) -> TrainerSettings:
    """The part of the configuration that determines a collective.

    Of a growth plan it is what the file says, not the file's name. ``learngene.layers`` counts
    layers in the collective at the end of its growth, and the light path shares these from the
    start; ``auto`` begins with the top three.

    Raises:
        InputError: the plan cannot be read, or the layers are not there from the start.
    """
    collective = settings.collective
    growth, plan = collective.growth, tuple[PlannedStep, ...]()
    if growth not in ("schedule", "none", "equal"):
        growth, plan = "plan", read_plan(_yaml(growth), growth)
    asked, names = settings.learngene.layers, planned_names(plan)
    shared, last = shared_layers(
        layer_numbers(TOP if asked == "auto" else asked, names), names, settings.stem
    )
    return TrainerSettings(
        replace(
            collective, growth=growth, precision=choose_precision(collective.precision, device)
        ),
        stem=settings.stem,
        shared=shared,
        sigma=settings.learngene.sigma,
        calibration_per_class=settings.open_world.calibration_per_class,
        seed=settings.seed,
        shared_last=last,
        plan=plan,
    )


def _yaml(path: str) -> Any:
    try:
        return yaml.safe_load(read_limited(Path(path), PLAN_LIMIT).decode("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            "collective.growth",
            path,
            f"cannot be read as YAML: {reason}",
            "conf/growth/deepen.yaml is an example",
        ) from error


def train_or_load_gene(
    settings: FactorySettings, world: World, callback: RunCallback = SILENT
) -> FactoryResult:
    """A learngene for the configuration.

    With ``learngene.layers=auto`` a collective is trained with the top three layers shared; if
    the criterion selects others, another one is trained with these. Both are kept.

    Raises:
        InputError: the saved learngene cannot be used, the world is too small for the settings, or
            ``auto`` finds no layer to select.
    """
    asked, path = settings.learngene.layers, settings.learngene.path
    if path:
        gene = load(path)
        if gene.card.channels != world.image_shape[0]:
            raise InputError(
                "learngene.path",
                path,
                f"made for images of {gene.card.channels} channels, "
                f"{world.name} has {world.image_shape[0]}",
                "Use a learngene of a world like this one",
            )
        return FactoryResult(gene, None)
    device = choose_device(settings.collective.device)
    pin_kernels(device)
    chosen_on = None
    snapshots: list[GeneSnapshot] = []

    def train_with(setup: TrainerSettings, layers: list[int], *, resume: bool) -> TrainedCollective:
        tasks = math.ceil(len(world.division.base) / setup.collective.classes_per_task)
        inherited = [names[layer - 1] for layer in layers]
        key = collective_key(world, setup, device)
        snapshots.clear()

        def take_snapshot(trainer: CollectiveTrainer) -> None:
            gene = _extract(trainer, inherited, world, key)
            snapshots.append(GeneSnapshot(len(trainer.stages), len(trainer.known), gene))

        return train_collective(
            world,
            setup,
            device,
            settings.cache,
            open_world=settings.open_world,
            resume=resume,
            snapshot_tasks=snapshot_tasks(tasks, settings.rounds),
            on_snapshot=take_snapshot,
            callback=callback,
        )

    with torch_threads(settings.threads):
        setup = trainer_settings(settings, device)
        _check_fits(world, setup)
        names = planned_names(setup.plan)
        layers = layer_numbers(TOP if asked == "auto" else asked, names)
        trained = train_with(setup, layers, resume=settings.resume)
        if asked == "auto":
            first = apply_criterion(trained, settings.rule)
            layers = chosen_layers(first)
            shared, last = shared_layers(layers, names, settings.stem)
            again = (shared, last) != (setup.shared, setup.shared_last)
            callback.on_note(
                f"learngene.layers=auto: the criterion selects {layers}"
                + ("; the collective lives again, its light path sharing these" * again)
            )
            if again:
                chosen_on = first
                setup = replace(setup, shared=shared, shared_last=last)
                trained = train_with(setup, layers, resume=settings.resume)
            elif layers != layer_numbers(TOP, names):  # the same one, read again for other layers
                trained = train_with(setup, layers, resume=True)
        cycle = None
        if settings.open_world.cycles:
            grown, cycle = run_cycles(
                trained,
                settings.open_world,
                settings.cache,
                resume=settings.resume,
                callback=callback,
            )
            inherited = [names[layer - 1] for layer in layers]
            gene = _extract(grown, inherited, world, trained.key)
            snapshots[-1] = GeneSnapshot(len(grown.stages), len(grown.known), gene)
    return FactoryResult(
        snapshots[-1].gene, trained, tuple(snapshots), settings.rule, chosen_on, cycle
    )


def _extract(trainer: CollectiveTrainer, inherited: list[str], world: World, key: str) -> Learngene:
    """The learngene of the layers called ``inherited``, as the collective now is."""
    stages, names = trainer.stages, trainer.collective.names
    absent = [name for name in inherited if name not in names]
    if absent:
        raise InputError(
            "learngene.layers",
            inherited,
            f"layer {absent[0]} is not there yet after task {len(stages)}",
            "Write rounds=1",
        )
    return extract(
        trainer.collective,
        layers=[names.index(name) + 1 for name in inherited],
        stem_seed=trainer.settings.seed,
        rho=align([stage.rho for stage in stages], [stage.layers for stage in stages]),
        source={"world": world.name, "world_sha256": world.sha256, "collective": key},
    )


def snapshot_tasks(tasks: int, rounds: int) -> list[int]:
    """Tasks done at the end of each of ``rounds`` stretches that are as equal as can be.

    Raises:
        InputError: there are more rounds than tasks.
    """
    if rounds > tasks:
        raise InputError(
            "rounds", rounds, f"the collective has {tasks} tasks", f"Write rounds={tasks} or less"
        )
    return [math.ceil(tasks * (number + 1) / rounds) for number in range(rounds)]


def _continual(stages: Sequence[TaskRecord]) -> dict[str, Any]:
    """How well the tasks gone by are kept, by the collective and (under ``light``) its light path.

    ``light`` is null where there is no light path.
    """
    rows = [stage.light_accuracy_by_task for stage in stages if stage.light_accuracy_by_task]
    light = [stage.light_accuracy for stage in stages if stage.light_accuracy is not None]
    return {
        **measures([s.accuracy_by_task for s in stages], [s.accuracy for s in stages]),
        "light": measures(rows, light) if rows else None,
    }


def _check_fits(world: World, settings: TrainerSettings) -> None:
    fewest = min(len(world.rows("train", c)) for c in world.division.base)
    if fewest <= settings.calibration_per_class:
        raise InputError(
            "open_world.calibration_per_class",
            settings.calibration_per_class,
            f"a base class has {fewest} training images: none would be left",
            f"Lower it below {fewest}",
        )
