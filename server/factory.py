"""From the configuration to a learngene: evolve a collective, or read a saved learngene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from learngene.adaptation.settings import IndividualSettings
from learngene.collective.control import with_random_layers
from learngene.collective.criterion import SIGMA, align
from learngene.collective.forgetting import STRATEGIES, measures
from learngene.collective.records import TrainerSettings
from learngene.collective.sampling import class_positions
from learngene.collective.settings import GROWTHS, CollectiveSettings
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.dataset import ImageDataset
from learngene.errors import InputError
from learngene.gene.gene import Learngene, extract, load
from learngene.gene.settings import LearngeneSettings
from learngene.networks.growth import PlannedStep, planned_names, read_plan
from learngene.networks.layers import FEATURE_SIDE, FRONT_SIDE
from learngene.networks.projection import Projection, discriminant
from learngene.open_world.settings import OpenWorldSettings
from learngene.utils.hardware import pin_kernels, torch_threads, usable_cores
from learngene.utils.settings import by_client
from learngene.utils.untrusted import MEBIBYTE, read_limited
from protocol.callbacks import SILENT, RunCallback
from protocol.plan import bytes_by_depth, depths_taken
from server.collective import TrainedCollective, collective_key, train_collective
from server.cycle import run_cycles
from server.layer_selection import criterion_section, layer_numbers
from server.saved_learngene import check_saved
from server.transfer import check_auto, choose_prefix, transfer_section

PLAN_LIMIT = MEBIBYTE  # bytes of a growth plan
CPU = torch.device("cpu")
EMULATED = (
    "warning: this device emulates bf16, which takes many times as long as fp32: "
    "collective.precision=auto takes fp32 here"
)


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
    cycle: dict[str, Any] | None = None  # what the open-world cycles brought (server.cycle)

    def gene_of(self, round: int) -> Learngene:
        """The learngene that round ``round`` (from 1) sends."""
        return self.snapshots[round - 1].gene if self.snapshots else self.gene

    def bytes_by_depth(self, precision: str) -> dict[int, int]:
        """What each prefix of the learngene adds to a message (``protocol.plan``)."""
        return bytes_by_depth(self.gene, precision)

    def sections(self, precision: str = "fp32") -> dict[str, Any]:
        """The parts of ``results.json`` that are the factory's; ``precision`` of the learngene."""
        card = self.gene.deepest.card
        names = ("layers", "stem", "parameters", "bytes", "top_layers_bytes")
        shown: dict[str, Any] = {name: getattr(card, name) for name in names}
        shown["sha256"] = self.gene.card.sha256
        sizes = self.bytes_by_depth(precision)
        shown["bytes_by_depth"] = {str(depth): size for depth, size in sizes.items()}
        shown["control"] = self.gene.card.source.get("control")
        if self.trained is None:
            shown["world_sha256"] = self.gene.card.source.get("world_sha256")
            return {"collective": None, "criterion": None, "open_world": None, "learngene": shown}
        trainer = self.trained.trainer
        transfer = transfer_section(trainer.stages)
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
            "criterion": criterion_section(trainer.stages, trainer.settings, transfer),
            "transfer": transfer,
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
    individual: IndividualSettings  # of which it reads the stem, and how much clients take
    seed: int
    rounds: int
    cache: Path
    resume: bool = True
    deterministic: bool = True  # runtime.deterministic
    classes_from: str = "novel"  # data.clients_from

    @property
    def threads(self) -> int:
        """``collective.threads``; 0 takes all cores that this process may use.

        Kept work hangs on the number, since rounding does.
        """
        return self.collective.threads or usable_cores()

    @property
    def projects(self) -> bool:
        """Whether the learngene has projections."""
        return self.individual.stem == "none" and self.learngene.projection == "discriminant"


def trainer_settings(settings: FactorySettings, device: torch.device) -> TrainerSettings:
    """The part of the configuration that determines a collective.

    Of a growth plan it is what the file says, not the file's name.

    Raises:
        InputError: the plan cannot be read.
    """
    collective = settings.collective
    growth, plan = collective.growth, tuple[PlannedStep, ...]()
    if growth not in GROWTHS:
        growth, plan = "plan", read_plan(_yaml(growth), growth)
    precision = choose_precision(collective.precision, device)
    form, sigma = settings.learngene.rho, settings.learngene.sigma
    return TrainerSettings(
        replace(collective, growth=growth, precision=precision),
        rho=form,
        sigma=SIGMA[form] if sigma is None else sigma,
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


def saved_gene(settings: FactorySettings, *, halves: bool) -> Learngene | None:
    """The saved learngene that the settings name; None: there is a collective to be trained.

    It is read, and the device looked for where something will be trained on it, before seconds or
    minutes are spent on the data.

    Args:
        halves: whether methods' halves are trained at the factory.

    Raises:
        InputError: the learngene cannot be read (``learngene.gene.gene.load``), or there is no such
            device.
    """
    saved = load(settings.learngene.path) if settings.learngene.path else None
    if halves or saved is None:
        choose_device(settings.collective.device)
    return saved


def train_or_load_gene(
    settings: FactorySettings,
    dataset: ImageDataset,
    callback: RunCallback = SILENT,
    saved: Learngene | None = None,
) -> FactoryResult:
    """A learngene for the configuration.

    Args:
        saved: what ``saved_gene`` has read, where that was asked before.

    Raises:
        InputError: the saved learngene cannot be used, the dataset is too small for the settings,
            ``auto`` has no profile to go by, or there is no prefix as it or a client asks for it.
    """
    individual, precision = settings.individual, settings.learngene.precision
    if settings.learngene.path:
        gene = saved or load(settings.learngene.path)
        check_saved(gene, settings, dataset, callback)
        depths_taken(gene, individual, precision)
        return FactoryResult(gene, None)
    device = choose_device(settings.collective.device)
    pin_kernels(device, settings.deterministic)
    snapshots: list[GeneSnapshot] = []

    def train(
        layers: list[int] | None, *, resume: bool, callback: RunCallback = callback
    ) -> TrainedCollective:
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
        if setup.collective.precision == "bf16" and choose_precision("auto", device) == "fp32":
            callback.on_note(EMULATED)
        _check_fits(dataset, setup)
        _check_projections(dataset, settings)
        auto, names = settings.learngene.layers == "auto", planned_names(setup.plan)
        chosen = None if auto else layer_numbers(settings.learngene, names)
        sizes: dict[int, int] = {}
        if chosen is None or individual.bytes is not None:
            untrained = CollectiveTrainer(dataset, setup, CPU)
            every = list(range(1, len(names) + 1))
            planned = _planned_gene(untrained, chosen or every, settings)
            sizes = bytes_by_depth(planned, precision)
            depths_taken(planned, individual, precision)
        if chosen is None:
            check_auto(untrained, settings.learngene, sizes)
        trained = train(chosen, resume=settings.resume)
        if chosen is None:
            transfer = transfer_section(trained.trainer.stages)
            depth, why = choose_prefix(transfer, settings.learngene, sizes)
            callback.on_note(f"learngene.layers=auto: {why}")
            chosen = list(range(1, depth + 1))
            # Its checkpoints, read once more for the snapshots.
            again = train(chosen, resume=True, callback=SILENT)
            trained = replace(again, reused=trained.reused)
        cycle, open_world = None, settings.open_world
        if open_world.cycles:
            grown, cycle = run_cycles(
                trained, open_world, settings.cache, resume=settings.resume, callback=callback
            )
            snapshots[-1] = _snapshot(grown, chosen, trained.key, settings)
    gene = snapshots[-1].gene
    depths_taken(gene, individual, precision)
    return FactoryResult(gene, trained, tuple(snapshots), cycle)


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
    source: dict[str, Any] = {
        "world": dataset.name,
        "world_sha256": dataset.sha256,
        "collective": key,
    }
    if found := {*trainer.known} - {*dataset.class_split.base}:
        source["found_classes"] = len(found)
    if control := settings.learngene.control:
        trainer = with_random_layers(trainer, numbers)
        source["control"] = control
    depth = numbers[-1]
    gene = extract(
        trainer.collective,
        layers=numbers,
        rho=align([stage.rho for stage in stages], [stage.layers for stage in stages]),
        source=source,
        image_side=None if settings.individual.stem == "fresh" else dataset.image_shape[1],
        projections=list(_fit_projections(trainer, range(1, depth + 1), settings).values()),
        joined=_fit_projections(trainer, _joined(settings, depth), settings, FEATURE_SIDE),
    )
    card = replace(gene.card, image_side=dataset.image_shape[1])
    return GeneSnapshot(len(stages), len(trainer.known), replace(gene, card=card))


def _planned_gene(
    trainer: CollectiveTrainer, numbers: list[int], settings: FactorySettings
) -> Learngene:
    """The learngene as it will be at the end, but for its numbers: what it will weigh at most
    (features may have a lower rank) is known before anything is trained. ``trainer`` has not begun,
    and is grown."""
    for task in range(1, len(trainer.tasks)):
        trainer.grow(task)
    collective, (channels, side, _) = trainer.collective.eval(), trainer.dataset.image_shape
    split, open_world = trainer.dataset.class_split, settings.open_world
    found = min(len(split.open_world), open_world.cycles * open_world.classes_per_cycle)
    depth, most = numbers[-1], len(split.base) + found - 1

    def planned(map_side: int) -> list[Projection]:
        with torch.no_grad():
            image = torch.zeros(1, channels, side, side)
            seen = collective.prefix_features(image, depth, map_side)
        sizes = [features.shape[1] for features in seen]
        return [Projection(size, min(size, most)) for size in sizes]

    own, coarse = (planned(map_side) for map_side in (FRONT_SIDE, FEATURE_SIDE))
    return extract(
        collective,
        layers=numbers,
        rho=[],
        source={},
        image_side=None if settings.individual.stem == "fresh" else side,
        projections=own if settings.projects else [],
        joined={each: coarse[each - 1] for each in _joined(settings, depth)},
    )


def _fit_projections(
    trainer: CollectiveTrainer,
    depths: Sequence[int],
    settings: FactorySettings,
    side: int = FRONT_SIDE,
) -> dict[int, Projection]:
    """The discriminants of the prefixes of ``depths`` (rising), where anything is projected, on the
    images that the factory holds now: exemplars, and the last task's."""
    if not settings.projects or not depths:
        return {}
    rows = trainer.held_rows()
    seen = trainer.prefix_features(np.concatenate(rows), depths[-1], side)
    labels, shrinkage = class_positions(rows), settings.learngene.shrinkage
    return {depth: discriminant(seen[depth - 1], labels, shrinkage) for depth in depths}


def _joined(settings: FactorySettings, depth: int) -> list[int]:
    """``learngene.joined``, as far as a learngene of ``depth`` layers has them; rising."""
    asked = by_client(settings.learngene.joined) if settings.projects else []
    return sorted({each for each in asked if each < depth})


def snapshot_tasks(tasks: int, rounds: int) -> list[int]:
    """Tasks done at the end of each of ``rounds`` stretches that are as equal as can be.

    Raises:
        InputError: there are more rounds than tasks.
    """
    if rounds > tasks:
        fix = f"Write rounds={tasks} or less"
        raise InputError("rounds", rounds, f"the collective has {tasks} tasks", fix)
    return [math.ceil(tasks * (number + 1) / rounds) for number in range(rounds)]


def _check_projections(dataset: ImageDataset, settings: FactorySettings) -> None:
    """They are fitted on the last task's classes and, with exemplars, on those before it."""
    collective, classes = settings.collective, len(dataset.class_split.base)
    each = collective.classes_per_task
    kept = STRATEGIES[collective.memory].exemplars and collective.memory_per_class
    for done in snapshot_tasks(math.ceil(classes / each), settings.rounds):
        held = min(done * each, classes) - (0 if kept else (done - 1) * each)
        if settings.projects and held < 2:
            problem = f"after task {done} there are images of one class, and projections need two"
            fix = "Write another number, rounds=1 with exemplars, or learngene.projection=none"
            raise InputError("collective.classes_per_task", each, problem, fix)


def _check_fits(dataset: ImageDataset, settings: TrainerSettings) -> None:
    fewest = min(len(dataset.rows("train", c)) for c in dataset.class_split.base)
    held_out = settings.calibration_per_class
    if fewest <= held_out:
        problem = f"a base class has {fewest} training images: none would be left"
        fix = f"Lower it below {fewest}"
        raise InputError("open_world.calibration_per_class", held_out, problem, fix)
