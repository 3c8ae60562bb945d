"""What determines a collective, and what each of its tasks left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from learngene.collective.settings import CollectiveSettings
from learngene.networks.growth import PlannedStep


@dataclass(frozen=True)
class TrainerSettings:
    """What determines a collective, besides the dataset."""

    collective: CollectiveSettings  # growth: a plan's is "plan"; precision: fp32 | bf16
    rho: str  # invariant | paper: what is compared with ``sigma``
    sigma: float  # Eq. 5
    calibration_per_class: int  # base images held out, never trained on
    seed: int
    plan: tuple[PlannedStep, ...] = ()  # with growth=plan: what the file says, not its name

    def cache_fields(self) -> dict[str, Any]:
        """What a collective's cache key is made of; these names stay, or ``FORMAT`` rises."""
        own = asdict(self)
        collective = own.pop("collective")
        for name in ("device", "threads", "capture"):  # in the key as what they come to
            del collective[name]
        if collective["block"] == "plain":  # collectives from before there was another are known
            del collective["block"]
        return {**collective, **own}


@dataclass(frozen=True)
class TransferProfile:
    """What each depth of the collective was worth to a task's classes before it was learned.

    Accuracies of class means in few-shot episodes, 0..1, by layer of the task before.
    """

    ways: int
    shots: int
    plain: list[float]
    projected: list[float]  # behind the discriminant of the classes known then


@dataclass
class TaskRecord:
    """What one task left behind. Accuracies are shares of the test images of all known classes."""

    task: int
    new_classes: list[int]
    known_classes: int
    widened: list[dict[str, int]]  # layer, counted from 1 at that moment, and its new width
    parameters: int
    accuracy: float
    accuracy_by_task: list[float]  # over the test images of task 0, 1, ... up to this one
    rho: list[float]  # of ``layers``
    image_passes: int
    multiply_adds: int  # of the training, forward and backward
    seconds: float
    layers: list[str] = field(default_factory=list)  # names of the layers in this task, from below
    # What preceded the task, by name: {layer, width} or {layer, deepened: the copy's name}.
    grown: list[dict[str, Any]] = field(default_factory=list)
    transfer: TransferProfile | None = None  # None: the first task, or too few classes or images
    # |W' - W| / |W| of ``layers`` by training in this task, over the channels from before it;
    # None in the first task and for a layer that growth has just made
    weight_change: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.transfer, Mapping):  # as a checkpoint's card has it
            self.transfer = TransferProfile(**self.transfer)


@dataclass(frozen=True)
class Accuracy:
    """Shares of test images that are named right; all known classes are possible answers."""

    known: float  # over the images of all known classes
    by_task: list[float]  # over those of each task's classes
