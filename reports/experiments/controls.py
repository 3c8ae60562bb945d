"""The controls of the main job: random layers in place of the inherited ones, no projection."""

from __future__ import annotations

from reports.experiments import base


def _control(name: str, words: str, points: float, quantity: str) -> base.Claim:
    bar = base.PaperNumber(points, None, "this project's bar")
    bars = {base.CIFAR: bar, base.IMAGENET: bar}
    words = f"control: {words}"
    return base.Claim(name, words, quantity, numbers=bars, bound="at least", control=True)


CLAIMS = (
    _control("random-layers", "random layers in place of the inherited ones", 15, base.OVER_RANDOM),
    _control("no-projection", "without the projection", 2, base.OVER_PLAIN),
)
EXPERIMENT = base.Experiment("controls", claims=CLAIMS)
