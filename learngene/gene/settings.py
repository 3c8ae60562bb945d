"""Settings of the learngene (``learngene``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from learngene.utils.settings import setting

PRECISIONS = ("fp32", "fp16", "int8")  # number formats of what travels (``gene.quantize``)


@dataclass
class LearngeneSettings:
    """Which layers are the learngene, and how it travels."""

    # inherited: front (the first ``depth``) | top (the last three, as in the paper) | 2 (the last
    # two) | [5,6,7] (these, counted from 1) | auto (the fewest that the transfer profile finds
    # enough). Those that do not begin with layer 1 need individual.stem=fresh.
    layers: Any = "front"
    depth: int = setting(7, ge=1, le=13)  # layers=front: how many
    # of what begins with layer 1: discriminant (of the factory's classes, closed form) | none
    projection: str = setting("discriminant", choices=("discriminant", "none"))
    # 5 | [5,7]: shallower prefixes whose projected features are read beside those of all layers, in
    # the same pass; a projection more each, of a map of 2 x 2
    joined: Any = setting(None, ge=1, le=12, by_client=True)
    # of the discriminant: share of the mean variance that every direction is given
    shrinkage: float = setting(1.0, gt=0, le=1000)
    # start clients from this learngene.safetensors, without any collective
    path: str | None = setting(None, path=True)
    # fp32 | fp16 | int8 (a scale a channel): how it is sent to clients
    precision: str = setting("fp32", choices=PRECISIONS)
    # invariant (gradients in units of the layer's weights, which widening leaves as they are)
    # | paper (plain gradients): what of Eq. 5 is compared with sigma
    rho: str = setting("invariant", choices=("invariant", "paper"))
    # Eq. 5: a gradient above this is large; null: 1 (invariant, nats), 0.001 (paper)
    sigma: float | None = setting(None, gt=0)
    # layers=auto: points below the best prefix, on classes that the collective had not yet learned
    tolerance: float = setting(1.0, ge=0, le=100)
    # layers=auto: the best prefix that adds at most so many bytes to a message, not by tolerance
    bytes: int | None = setting(None, ge=1)
    # random: a control, with layers drawn at random in place of the inherited ones
    control: str | None = setting(None, choices=("random",))
