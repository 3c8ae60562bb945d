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
from learngene.collective.records import Stage, TrainerSettings
from learngene.collective.settings import CollectiveSettings
from learngene.collective.trainer import Evolution
from learngene.data.dataset import World
from learngene.errors import InputError
from learngene.gene.gene import Learngene, extract, load
from learngene.gene.settings import LearngeneSettings
from learngene.networks.growth import PlannedStep, planned_names, read_plan
from learngene.open_world.settings import OpenWorldSettings
from learngene.utils.hardware import pin_kernels, torch_threads, usable_cores
from learngene.utils.untrusted import MEBIBYTE, read_limited
from protocol.callbacks import SILENT, RunCallback
from server.collective import Life, life_key, live
from server.cycle import run_cycles
from server.layer_selection import (
    TOP,
    Selection,
    chosen_layers,
    judge,
    run_of,
    shared_run,
)

PLAN_LIMIT = MEBIBYTE  # bytes of a growth plan


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
    rule: TrendRule = field(default_factory=TrendRule)
    # With learngene.layers=auto: what the life said on which the choice was made, where it is
    # not ``life`` itself.
    chosen_on: Selection | None = None
    cycle: dict[str, Any] | None = None  # what the open-world cycles brought (server.cycle)

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
        criterion = judge(self.life, self.rule).section(sigma, self.rule)
        if self.chosen_on is not None:
            criterion["chosen_on"] = {
                "collective": self.chosen_on.collective,
                **self.chosen_on.section(sigma, self.rule),
            }
        return {
            "collective": {
                "tasks": len(evolution.tasks),
                "conv_widths": list(evolution.collective.widths),
                "layers": list(evolution.collective.names),
                "parameters": evolution.stages[-1].parameters,
                "stages": [{**each.as_dict(), "task": each.task + 1} for each in evolution.stages],
                "continual": _continual(evolution.stages),
            },
            "criterion": criterion,
            "open_world": {**self.life.open_world, "cycle": self._cycle()},
            "learngene": shown,
        }

    def _cycle(self) -> dict[str, Any] | None:
        """The cycles with names in place of class numbers."""
        if self.cycle is None or self.life is None:
            return None
        names = self.life.evolution.world.class_names
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
    shared, last = shared_run(
        run_of(TOP if asked == "auto" else asked, names), names, settings.stem
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
        raise InputError("collective.growth", path, f"cannot be read as YAML: {reason}",
                         "conf/growth/deepen.yaml is an example") from error  # fmt: skip


def produce(settings: FactorySettings, world: World, callback: RunCallback = SILENT) -> Product:
    """A learngene for the configuration.

    With ``learngene.layers=auto`` a collective lives with the top three layers shared; if the
    criterion selects others, it lives again with these. Both lives are kept.

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
        return Product(gene, None)
    device = choose_device(settings.collective.device)
    pin_kernels(device)
    chosen_on = None
    moments: list[Moment] = []

    def live_with(trainer: TrainerSettings, layers: list[int], *, resume: bool) -> Life:
        tasks = math.ceil(len(world.division.base) / trainer.collective.classes_per_task)
        inherited = [names[layer - 1] for layer in layers]
        key = life_key(world, trainer, device)
        moments.clear()

        def keep_moment(evolution: Evolution) -> None:
            gene = _extract(evolution, inherited, world, key)
            moments.append(Moment(len(evolution.stages), len(evolution.known), gene))

        return live(
            world,
            trainer,
            device,
            settings.cache,
            open_world=settings.open_world,
            resume=resume,
            stops=stops(tasks, settings.rounds),
            on_stop=keep_moment,
            callback=callback,
        )

    with torch_threads(settings.threads):
        trainer = trainer_settings(settings, device)
        _check_fits(world, trainer)
        names = planned_names(trainer.plan)
        layers = run_of(TOP if asked == "auto" else asked, names)
        life = live_with(trainer, layers, resume=settings.resume)
        if asked == "auto":
            first = judge(life, settings.rule)
            layers = chosen_layers(first)
            shared, last = shared_run(layers, names, settings.stem)
            again = (shared, last) != (trainer.shared, trainer.shared_last)
            callback.on_note(
                f"learngene.layers=auto: the criterion selects {layers}"
                + ("; the collective lives again, its light path sharing these" * again)
            )
            if again:
                chosen_on = first
                trainer = replace(trainer, shared=shared, shared_last=last)
                life = live_with(trainer, layers, resume=settings.resume)
            elif layers != run_of(TOP, names):  # the same life, read again for other layers
                life = live_with(trainer, layers, resume=True)
        cycle = None
        if settings.open_world.cycles:
            grown, cycle = run_cycles(
                life,
                settings.open_world,
                settings.cache,
                resume=settings.resume,
                callback=callback,
            )
            inherited = [names[layer - 1] for layer in layers]
            gene = _extract(grown, inherited, world, life.key)
            moments[-1] = Moment(len(grown.stages), len(grown.known), gene)
    return Product(moments[-1].gene, life, tuple(moments), settings.rule, chosen_on, cycle)


def _extract(evolution: Evolution, inherited: list[str], world: World, key: str) -> Learngene:
    """The learngene of the layers called ``inherited``, as the collective now is."""
    stages, names = evolution.stages, evolution.collective.names
    absent = [name for name in inherited if name not in names]
    if absent:
        raise InputError("learngene.layers", inherited,
                         f"layer {absent[0]} is not there yet after task {len(stages)}",
                         "Write rounds=1")  # fmt: skip
    return extract(
        evolution.collective,
        layers=[names.index(name) + 1 for name in inherited],
        stem_seed=evolution.settings.seed,
        rho=align([stage.rho for stage in stages], [stage.layers for stage in stages]),
        source={"world": world.name, "world_sha256": world.sha256, "collective": key},
    )


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


def _check_fits(world: World, settings: TrainerSettings) -> None:
    fewest = min(len(world.rows("train", c)) for c in world.division.base)
    if fewest <= settings.calibration_per_class:
        raise InputError("open_world.calibration_per_class", settings.calibration_per_class,
                         f"a base class has {fewest} training images: none would be left",
                         f"Lower it below {fewest}")  # fmt: skip
