"""Settings of the open world (``open_world``, ``labelled``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from learngene.utils.settings import setting


@dataclass
class OpenWorldSettings:
    """How unknown images are recognised (Eq. 2, 3), and the cycles that learn them."""

    # max_softmax (Eq. 2) | max_logit | energy | mahalanobis | relative_mahalanobis
    score: str = setting(
        "max_softmax",
        choices=("max_softmax", "max_logit", "energy", "mahalanobis", "relative_mahalanobis"),
    )
    mirror: bool = False  # mean answers of an image and its mirror image (where they are one class)
    threshold: Any = "calibrated"  # (by accept) | paper_cifar100 | paper_imagenet100 | a number
    # share of known images that the calibrated threshold accepts
    accept: float = setting(0.95, gt=0, le=1)
    # base images of a class held out for it, never trained on
    calibration_per_class: int = setting(10, ge=1)
    # streams that the finished collective meets and learns new classes from
    cycles: int = setting(0, ge=0, le=1000)
    labels_per_cycle: int = setting(400, ge=1)  # budget of the labeller, images
    classes_per_cycle: int = setting(8, ge=1)  # M: new classes that a cycle takes in, at most
    images_to_add: int = setting(10, ge=2)  # labelled images that a class needs to be taken in
    # of a stream's images that are of base classes; where these are few, the stream is shorter
    known_share: float = setting(0.5, ge=0, le=0.95)
    # passes over all exemplars after each cycle
    cycle_consolidate_epochs: int = setting(4, ge=0, le=10_000)

    def detector_fields(self) -> dict[str, Any]:
        """What determines the detector of a finished collective; part of a cache key."""
        names = ("score", "mirror", "threshold", "accept")
        return {name: getattr(self, name) for name in names}

    def cycle_fields(self) -> dict[str, Any]:
        """What determines the cycles, besides collective and detector; part of a cache key."""
        names = (
            *("cycles", "labels_per_cycle", "classes_per_cycle", "images_to_add", "known_share"),
            "cycle_consolidate_epochs",
        )
        return {name: getattr(self, name) for name in names}


@dataclass
class LabelledSettings:
    """Table 2's protocol: clients hold images that were flagged as unknown and labelled."""

    # Draws of ``ways`` open-world classes (table 2): clients hold images that the collective called
    # unknown and a labeller named, and client i belongs to draw i modulo draws. 0 = shards are
    # drawn from all images.
    draws: int = setting(0, ge=0, le=100_000)  # at most num_clients
    # who flags: detector (Eq. 3) | random (the control: as many as it flags of known images)
    flags: str = setting("detector", choices=("detector", "random"))
