"""A learngene that comes from a file: what this run can know of where it has been."""

from __future__ import annotations

from typing import TYPE_CHECKING

from learngene.data.dataset import ImageDataset
from learngene.errors import InputError
from learngene.gene.gene import Learngene
from protocol.callbacks import RunCallback

if TYPE_CHECKING:
    from server.factory import FactorySettings

OTHER_WORLD = (
    "learngene.path: it is of other images, or of another choice of base classes; whether it was "
    "trained on what these clients hold is not known, and the leakage check does not say"
)


def check_saved(
    gene: Learngene, settings: FactorySettings, dataset: ImageDataset, callback: RunCallback
) -> None:
    """Hold that it fits these images, and say where it may have been trained on the clients' ones.

    Raises:
        InputError: its images have other channels, or it has learned the classes that clients hold.
    """
    path, source = settings.learngene.path, gene.card.source
    if gene.card.channels != dataset.image_shape[0]:
        made_for = f"made for images of {gene.card.channels} channels"
        problem = f"{made_for}, {dataset.name} has {dataset.image_shape[0]}"
        fix = "Use a learngene of a dataset like this one"
        raise InputError("learngene.path", path, problem, fix)
    if source.get("world_sha256") != dataset.sha256:
        callback.on_note(OTHER_WORLD)
    elif settings.classes_from == "open_world" and source.get("found_classes"):
        problem = "its collective has learned open-world classes (open_world.cycles)"
        raise InputError("learngene.path", path, problem, "Write data.clients_from=novel")
