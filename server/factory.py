"""From the configuration to a learngene: evolve a collective, or read a saved learngene."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from learngene.collective.criterion import TrendRule, align
from learngene.collective.forgetting import measures
from learngene.collective.records import TrainerSettings
from learngene.collective.settings import CollectiveSettings
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.dataset import ImageDataset
from learngene.errors import InputError
from learngene.gene.gene import Learngene, extract, load
from learngene.gene.settings import LearngeneSettings
from learngene.networks.growth import PlannedStep, planned_names, read_plan
from learngene.networks.projection import Projection, discriminant
from learngene.open_world.settings import OpenWorldSettings
from learngene.utils.hardware import pin_kernels, torch_threads, usable_cores
from learngene.utils.untrusted import MEBIBYTE, read_limited
from protocol.callbacks import SILENT, RunCallback
from server.collective import TrainedCollective, collective_key, train_collective
from server.cycle import run_cycles
from server.layer_selection import (
    apply_criterion,
    chosen_layers,
    layer_numbers,
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
    cycle: dict[str, Any] | None = None  # what the open-world cycles brought (server.cycle)

    def gene_of(self, round: int) -> Learngene:
        """The learngene that round ``round`` (from 1) sends."""
        return self.snapshots[round - 1].gene if self.snapshots else self.gene

    def sections(self, sigma: float) -> dict[str, Any]:
        """The parts of ``results.json`` that are the factory's."""
        card = self.gene.card
        names = ("layers", "stem", "parameters", "bytes", "top_layers_bytes", "sha256")
        shown = {name: getattr(card, name) for name in names}
        if self.trained is None:
            return {"collective": None, "criterion": None, "open_world": None, "learngene": shown}
        trainer = self.trained.trainer
        return {
            "collective": {
                "tasks": len(trainer.tasks),
                "conv_widths": list(trainer.collective.widths),
                "layers": list(trainer.collective.names),
                "parameters": trainer.stages[-1].parameters,
                "multiply_adds": sum(stage.multiply_adds for stage in trainer.stages),
                "stages": [{**asdict(each), "task": each.task + 1} for each in trainer.stages],
                "continual": measures(
                    [stage.accuracy_by_task for stage in trainer.stages],
                    [stage.accuracy for stage in trainer.stages],
                ),
            },
            "criterion": apply_criterion(self.trained, self.rule).section(sigma, self.rule),
            "open_world": {**self.trained.open_world, "cycle": self._cycle()},
            "learngene": shown,
        }

    def _cycle(self) -> dict[str, Any] | None:
        """The cycles with names in place of class numbers."""
        if self.cycle is None or self.trained is None:
            return None
        names, cycles = self.trained.trainer.dataset.class_names, []
        for record in self.cycle["cycles"]:
            labelled = {names[int(c)]: count for c, count in record["labelled_images"].items()}
            added = [names[c] for c in record["added"]]
            cycles.append({**record, "added": added, "labelled_images": labelled})
        return {**self.cycle, "cycles": cycles}


def choose_device(asked: str) -> torch.device:
    """``auto`` takes a GPU where there is one.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        fix = "Write collective.device=auto"
        raise InputError("collective.device", asked, "torch sees no GPU", fix)
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
        """How ``learngene.layers=auto`` selects."""
        settings = self.learngene
        return TrendRule(settings.auto_layers, settings.auto_bar, settings.auto_large)


def trainer_settings(settings: FactorySettings, device: torch.device) -> TrainerSettings:
    """The part of the configuration that determines a collective.

    Of a growth plan it is what the file says, not the file's name.

    Raises:
        InputError: the plan cannot be read.
    """
    collective = settings.collective
    growth, plan = collective.growth, tuple[PlannedStep, ...]()
    if growth not in ("schedule", "none", "equal"):
        growth, plan = "plan", read_plan(_yaml(growth), growth)
    precision = choose_precision(collective.precision, device)
    return TrainerSettings(
        replace(collective, growth=growth, precision=precision),
        sigma=settings.learngene.sigma,
        calibration_per_class=settings.open_world.calibration_per_class,
        seed=settings.seed,
        plan=plan,
    )


def _yaml(path: str) -> Any:
    try:
        return yaml.safe_load(read_limited(Path(path), PLAN_LIMIT).decode("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problem = f"cannot be read as YAML: {' '.join(str(error).split())[:200]}"
        fix = "conf/growth/deepen.yaml is an example"
        raise InputError("collective.growth", path, problem, fix) from error


def _load_gene(path: str, dataset: ImageDataset) -> Learngene:
    gene = load(path)
    if gene.card.channels != dataset.image_shape[0]:
        made_for = f"made for images of {gene.card.channels} channels"
        problem = f"{made_for}, {dataset.name} has {dataset.image_shape[0]}"
        fix = "Use a learngene of a dataset like this one"
        raise InputError("learngene.path", path, problem, fix)
    return gene


def train_or_load_gene(
    settings: FactorySettings, dataset: ImageDataset, callback: RunCallback = SILENT
) -> FactoryResult:
    """A learngene for the configuration.

    Raises:
        InputError: the saved learngene cannot be used, the dataset is too small for the settings,
            or ``auto`` finds no layer to select.
    """
    if settings.learngene.path:
        return FactoryResult(_load_gene(settings.learngene.path, dataset), None)
    device = choose_device(settings.collective.device)
    pin_kernels(device)
    snapshots: list[GeneSnapshot] = []

    def train(layers: list[int] | None, *, resume: bool) -> TrainedCollective:
        tasks = math.ceil(len(dataset.class_split.base) / setup.collective.classes_per_task)
        key = collective_key(dataset, setup, device)

        def keep(trainer: CollectiveTrainer) -> None:
            if layers is not None:
                snapshots.append(_snapshot(trainer, layers, key, settings))

        return train_collective(
            dataset,
            setup,
            device,
            settings.cache,
            open_world=settings.open_world,
            resume=resume,
            snapshot_tasks=snapshot_tasks(tasks, settings.rounds),
            on_snapshot=keep,
            callback=callback,
        )

    with torch_threads(settings.threads):
        setup = trainer_settings(settings, device)
        _check_fits(dataset, setup)
        names = planned_names(setup.plan)
        auto = settings.learngene.layers == "auto"
        chosen = None if auto else layer_numbers(settings.learngene, names)
        trained = train(chosen, resume=settings.resume)
        if chosen is None:
            chosen = chosen_layers(apply_criterion(trained, settings.rule))
            callback.on_note(f"learngene.layers=auto: the criterion selects {chosen}")
            again = train(chosen, resume=True)  # its checkpoints, read once more for the snapshots
            trained = replace(again, reused=trained.reused)
        cycle, open_world = None, settings.open_world
        if open_world.cycles:
            grown, cycle = run_cycles(
                trained, open_world, settings.cache, resume=settings.resume, callback=callback
            )
            snapshots[-1] = _snapshot(grown, chosen, trained.key, settings)
    gene = snapshots[-1].gene
    return FactoryResult(gene, trained, tuple(snapshots), settings.rule, cycle)


def _snapshot(
    trainer: CollectiveTrainer, layers: list[int], key: str, settings: FactorySettings
) -> GeneSnapshot:
    """The collective as it now is, and its learngene.

    Args:
        layers: numbers of the inherited layers in the collective at the end of its growth.
        key: the collective's.
    """
    stages, names, dataset = trainer.stages, trainer.collective.names, trainer.dataset
    planned = planned_names(trainer.settings.plan)
    inherited = [planned[layer - 1] for layer in layers]
    if absent := [name for name in inherited if name not in names]:
        problem = f"layer {absent[0]} is not there yet after task {len(stages)}"
        raise InputError("learngene.layers", inherited, problem, "Write rounds=1")
    numbers = [names.index(name) + 1 for name in inherited]
    side, projection = None, None
    if settings.stem == "none":
        side = trainer.collective.front_side(dataset.image_shape[1], numbers[-1])
        if settings.learngene.projection == "discriminant":
            projection = _fit_projection(trainer, numbers[-1], settings.learngene.shrinkage)
    gene = extract(
        trainer.collective,
        layers=numbers,
        rho=align([stage.rho for stage in stages], [stage.layers for stage in stages]),
        source={"world": dataset.name, "world_sha256": dataset.sha256, "collective": key},
        side=side,
        projection=projection,
    )
    return GeneSnapshot(len(stages), len(trainer.known), gene)


def _fit_projection(trainer: CollectiveTrainer, depth: int, shrinkage: float) -> Projection:
    """The discriminant of the images that the factory holds now: exemplars, and the last task's."""
    last = trainer.stages[-1].new_classes
    rows = [trainer.train_rows[c] if c in last else trainer.memory[c] for c in trainer.known]
    labels = torch.repeat_interleave(
        torch.arange(len(rows)), torch.tensor([len(of_class) for of_class in rows])
    )
    return discriminant(trainer.front_features(np.concatenate(rows), depth), labels, shrinkage)


def snapshot_tasks(tasks: int, rounds: int) -> list[int]:
    """Tasks done at the end of each of ``rounds`` stretches that are as equal as can be.

    Raises:
        InputError: there are more rounds than tasks.
    """
    if rounds > tasks:
        fix = f"Write rounds={tasks} or less"
        raise InputError("rounds", rounds, f"the collective has {tasks} tasks", fix)
    return [math.ceil(tasks * (number + 1) / rounds) for number in range(rounds)]


def _check_fits(dataset: ImageDataset, settings: TrainerSettings) -> None:
    fewest = min(len(dataset.rows("train", c)) for c in dataset.class_split.base)
    held_out = settings.calibration_per_class
    if fewest <= held_out:
        problem = f"a base class has {fewest} training images: none would be left"
        fix = f"Lower it below {fewest}"
        raise InputError("open_world.calibration_per_class", held_out, problem, fix)
