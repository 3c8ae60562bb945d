"""The paper's numbers, each with the place where it stands.

Wang et al., *Learngene: From Open-World to Your Learning Task*, AAAI 2022. Accuracies are percent,
differences percentage points. ± is as printed; the paper does not say what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Quoted:
    """A number of the paper."""

    value: float
    spread: float | None  # the paper's ±
    where: str


@dataclass(frozen=True)
class Claim:
    """A statement of the paper that has a number.

    ``bound`` says how the number is meant: ``about`` is an estimate, ``at least`` and ``at most``
    are met by anything beyond.
    """

    name: str
    words: str
    numbers: Mapping[str, Quoted]  # by world
    unit: str  # %, points, epochs, images
    bound: str  # about | at least | at most
    experiment: str  # which experiment measures it
    quantity: str  # the row of its table (reports.experiments.table.rows)
    direction: tuple[str, ...]  # rows that are all above zero where the effect has the paper's sign


CIFAR, IMAGENET = "cifar100", "imagenet100"
NAMES = {  # as the paper's tables have them: our methods
    "MAML": "maml",
    "First-order MAML": "fomaml",
    "ProtoNet": "protonet",
    "Proto-MAML": "proto_maml",
    "MatchingNet": "matchingnet",
    "Fine-tuning": "finetune",
    "Fine-tuning++": "finetune_pp",
    "DeepEMD": "deepemd",
    "Ours": "learngene",
}
FEW = 25  # images a class: "such a small sample" of figure 4 (c)
OPPONENTS = tuple(name for name in NAMES.values() if name != "learngene")

# What a figure compares: without these methods its experiment has nothing to show.
COMPARED: Mapping[str, tuple[str, ...]] = {
    "fig4_curves": ("learngene", "scratch"),
    "fig4_samples": ("learngene", "scratch"),
    "fig6a_evolution": ("learngene",),
    "fig6b_position": ("learngene",),
}

# Table 2, test images of open-world classes: method -> (CIFAR-100, ImageNet100).
_TABLE_2 = {
    "maml": ((34.07, 0.63), (36.51, 1.01)),
    "fomaml": ((25.40, 0.50), (32.82, 0.65)),
    "protonet": ((33.20, 0.48), (36.26, 0.32)),
    "proto_maml": ((39.09, 0.35), (32.57, 1.28)),
    "matchingnet": ((34.99, 0.34), (37.79, 0.39)),
    "finetune": ((38.72, 1.13), (40.72, 1.36)),
    "finetune_pp": ((38.83, 1.51), (37.08, 1.04)),
    "deepemd": ((39.85, 0.41), (40.21, 0.82)),
    "learngene": ((45.88, 2.99), (42.40, 2.35)),
}
# Table 3, novel classes, 5-way: method -> (CIFAR-100 10-shot, 20-shot, ImageNet100 10-, 20-shot).
_TABLE_3 = {
    "maml": ((51.70, 1.75), (62.36, 2.88), (48.62, 3.10), (57.62, 2.42)),
    "fomaml": ((50.13, 3.73), (60.00, 3.31), (43.38, 2.47), (51.87, 1.96)),
    "protonet": ((56.40, 2.88), (61.02, 3.18), (49.91, 3.36), (58.62, 2.45)),
    "proto_maml": ((53.11, 1.25), (59.57, 1.34), (45.14, 2.52), (53.57, 1.34)),
    "matchingnet": ((56.71, 4.48), (60.98, 3.09), (51.82, 2.58), (59.78, 2.94)),
    "finetune": ((48.98, 3.86), (60.89, 3.77), (51.11, 3.36), (60.71, 2.32)),
    "finetune_pp": ((52.67, 4.02), (61.20, 3.29), (40.80, 2.92), (51.78, 2.81)),
    "deepemd": ((58.03, 1.85), (63.69, 2.05), (50.93, 2.78), (59.69, 2.47)),
    "learngene": ((58.86, 3.12), (64.24, 1.89), (52.96, 4.84), (60.86, 4.48)),  # lambda = 1000
    "learngene, lambda 5000": ((58.21, 2.58), (63.74, 2.46), (52.53, 4.74), (59.76, 5.41)),
}
_COLUMNS_3 = ((CIFAR, 10), (CIFAR, 20), (IMAGENET, 10), (IMAGENET, 20))


def table2(method: str, data: str) -> Quoted | None:
    """Table 2's entry; None where the paper has none (another method, another world)."""
    if method not in _TABLE_2 or data not in (CIFAR, IMAGENET):
        return None
    return Quoted(*_TABLE_2[method][(CIFAR, IMAGENET).index(data)], "table 2")


def table3(method: str, data: str, shots: int, ewc_lambda: float | None = None) -> Quoted | None:
    """Table 3's entry; None where the paper has none. The learngene's is that of lambda = 1000
    unless ``ewc_lambda`` is 5000."""
    row = "learngene, lambda 5000" if (method, ewc_lambda) == ("learngene", 5000) else method
    if row not in _TABLE_3 or (data, shots) not in _COLUMNS_3:
        return None
    return Quoted(*_TABLE_3[row][_COLUMNS_3.index((data, shots))], "table 3")


# Figure 4 (a): "10 epochs" and "40 epochs" to converge, on CIFAR-100.
EPOCHS = {
    "learngene": Quoted(10.0, None, "Experiments, figure 4 (a)"),
    "scratch": Quoted(40.0, None, "Experiments, figure 4 (a)"),
}


def _leads(prefix: str = "") -> tuple[str, ...]:
    return tuple(f"{prefix}lead over {name}" for name in OPPONENTS)


def _said(value: float, where: str, data: tuple[str, ...] = (CIFAR,)) -> dict[str, Quoted]:
    return {name: Quoted(value, None, where) for name in data}


def _cells(shots: int) -> dict[str, Quoted]:
    found = {name: table3("learngene", name, shots) for name in (CIFAR, IMAGENET)}
    return {name: quoted for name, quoted in found.items() if quoted}


def _text_claims() -> tuple[Claim, ...]:
    on_curves, on_samples = "Experiments, figure 4 (a)", "Experiments, figure 4 (c)"
    saved, few = "images a class saved to reach {} %", f"gain at {FEW} images a class"
    over, top = "lead over deepemd", "top over the best other position"
    both, position = (CIFAR, IMAGENET), "Discussion, figure 6 (b)"
    return (
        Claim("epochs", "10 epochs to adapt, 40 from scratch: 30 saved", _said(30, on_curves),
              "epochs", "about", "fig4_curves", "epochs saved", ("epochs saved",)),
        Claim("samples-60", "25 images a class reach 60 % after 10 epochs", _said(25, on_samples),
              "images", "at most", "fig4_samples", "images a class for 60 %, learngene",
              (saved.format(60),)),
        Claim("few-samples", "at least 20 points over scratch with so few images",
              _said(20, on_samples), "points", "at least", "fig4_samples", few, (few,)),
        Claim("saved-60", "2/3 of the images saved on the way to 60 %",
              _said(200 / 3, on_samples), "%", "about", "fig4_samples",
              "share of images saved to reach 60 %", (saved.format(60),)),
        Claim("saved-70", "100 images a class saved on the way to 70 %", _said(100, on_samples),
              "images", "about", "fig4_samples", saved.format(70), (saved.format(70),)),
        # The text says "a relative 6.03 %"; it is 45.88 - 39.85, a difference in points.
        Claim("over-deepemd", "6.03 over DeepEMD on open-world classes",
              _said(6.03, "Experiments, table 2"), "points", "about", "table2_open_world", over,
              (over,)),
        Claim("top", "the top layers end 2 % above other positions", _said(2, position, both),
              "points", "about", "fig6b_position", top, (top,)),
    )  # fmt: skip


def _table_claims() -> tuple[Claim, ...]:
    open_world = {name: table2("learngene", name) for name in (CIFAR, IMAGENET)}
    return (
        Claim("table-2", "table 2: ours on open-world classes, the best of nine",
              {name: quoted for name, quoted in open_world.items() if quoted}, "%", "about",
              "table2_open_world", "learngene", _leads()),
        *(
            Claim(f"table-3-{shots}", f"table 3: ours on novel classes, {shots} shots, "
                  "the best of nine", _cells(shots), "%", "about", "table3_novel",
                  f"{shots}-shot, learngene", _leads(f"{shots}-shot, "))
            for shots in (10, 20)
        ),
    )  # fmt: skip


CLAIMS = (*_text_claims(), *_table_claims())
