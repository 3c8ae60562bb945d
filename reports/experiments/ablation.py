"""What each part of the learngene is worth, and the controls that its place is held against."""

from __future__ import annotations

from reports.experiments.base import (
    CIFAR,
    IMAGENET,
    OVER_PLAIN,
    OVER_RANDOM,
    Claim,
    Experiment,
    PaperNumber,
)


def _control(name: str, words: str, points: float, quantity: str) -> Claim:
    bar = PaperNumber(points, None, "this project's bar")
    return Claim(
        name=name,
        words=f"control: {words}",
        numbers={CIFAR: bar, IMAGENET: bar},
        unit="points",
        bound="at least",
        quantity=quantity,
        direction=(quantity,),
        control=True,
    )


CLAIMS = (
    _control("random-layers", "random layers in place of the inherited ones", 15, OVER_RANDOM),
    _control("no-projection", "without the projection", 2, OVER_PLAIN),
)
EXPERIMENT = Experiment("ablation", claims=CLAIMS)
