"""The few-shot benchmarks' protocol, beside published networks.

Published numbers are percent at 5 ways, 1 and 5 shots, inductive, with 15 queries a class or more,
of networks that were trained on all 600 images of a base class, all classes at once. Each was
looked up where ``Published.source`` says.
"""

from __future__ import annotations

from dataclasses import dataclass

from learngene.networks.individual import Individual
from learngene.networks.layers import LAYERS
from learngene.seeding import torch_generator
from reports.experiments.base import Experiment, Row, rank_note, row
from reports.experiments.table import format_measured
from reports.format import NONE
from reports.results import MAIN
from reports.schema import Results
from reports.units import Measured
from reports.variants import RunGroup, Variant

SHOTS = (1, 5)
HEADINGS = ("method", "form", "network", "parameters", "1-shot", "5-shot", "source")
INHERITED = "as inherited"


@dataclass(frozen=True)
class Published:
    """A published pair of accuracies, percent."""

    method: str
    network: str
    parameters: str  # of the network, where they are known
    accuracies: tuple[float, float]  # by ``SHOTS``
    source: str


CONV, RESNET = "Conv-4-64", "ResNet-12"
CONV_SIZE, RESNET_SIZE = "0.11 M", "12 M"  # 113,088 by its widths; EASY's README
BERTINETTO = "Bertinetto et al. 2019"
EASY = "Bendou et al. 2022, README of ybendou/easy"
INV_EQ = f"Rizve et al. 2021, as in the {EASY.partition(', ')[2]}"
LIBRARY = "Li et al. 2021, LibFewShot's config/reproduce"
EASY_NETWORK = ("2 ResNet-12, 1/√2 of the width", RESNET_SIZE)
PUBLISHED = {
    "cifar_fs": (
        Published("R2D2", CONV, CONV_SIZE, (60.0, 76.1), BERTINETTO),
        Published("R2D2", "Conv-4, 96 to 512 channels", "2.6 M", (64.0, 78.9), BERTINETTO),
        Published("RENet", RESNET, RESNET_SIZE, (74.51, 86.60), "Kang et al. 2021"),
        Published("EASY", *EASY_NETWORK, (75.24, 88.38), EASY),
        Published("SKD", RESNET, RESNET_SIZE, (76.9, 88.9), "Rajasegaran et al. 2020"),
        Published("InvEq", RESNET, RESNET_SIZE, (77.87, 89.74), INV_EQ),
    ),
    "fc100": (
        Published("InvEq", RESNET, RESNET_SIZE, (47.76, 65.30), INV_EQ),
        Published("EASY", *EASY_NETWORK, (47.94, 64.14), EASY),
    ),
    "mini_imagenet": (
        Published("ProtoNet", CONV, CONV_SIZE, (47.05, 68.56), LIBRARY),
        Published("RENet", CONV, CONV_SIZE, (57.62, 74.14), LIBRARY),
        Published("EASY", *EASY_NETWORK, (70.63, 86.28), EASY),
    ),
}


def forms(variant: Variant) -> list[tuple[str, str, Measured]]:
    """Method, form and accuracy, percent; the learngene as it was inherited and as trained."""
    found = []
    for method in variant.methods:
        curves = 100 * variant.curves(method)
        if curves.empty:  # nobody answered
            continue
        last = curves.columns.max()
        if method == MAIN:
            found.append((method, INHERITED, variant.mean(curves[0])))
        if method != MAIN or last > 0:
            form = f"{last} epochs" if last > 0 else "no training"
            found.append((method, form, variant.accuracy(method)))
    return found


def rows(group: RunGroup) -> list[Row]:
    """Every method and form at every number of shots."""
    table = []
    for variant in group.variants:
        shots = variant.config("shots")
        for method, form, mean in forms(variant):
            note = "" if form == INHERITED else rank_note(variant, method)
            name = f"{shots}-shot, {method}, {form}"
            table.append(row(variant, name, "%", mean, note=note, hide_settings=["shots"]))
    return table


def overview(group: RunGroup) -> list[tuple[str, ...]]:
    """One table over shots, published networks below ours; the first row has the headings."""
    table: list[tuple[str, ...]] = [HEADINGS]
    ours: dict[tuple[str, ...], dict[int, str]] = {}
    for variant in group.variants:
        others = variant.label_without(("shots", "methods"))
        for method, form, mean in forms(variant):
            size = parameters(variant.runs[0], method)
            shown = ", ".join(filter(None, (form, others)))
            inherited = len(variant.runs[0]["learngene"]["layers"]) if method == MAIN else 0
            width = f"{max(LAYERS, inherited)} layers, width {variant.config('collective.width'):g}"
            key = (method, shown, width, f"{size / 1e6:.2f} M" if size else NONE)
            cell = f"{format_measured(mean, '%')} ({mean.n})"
            ours.setdefault(key, {})[variant.config("shots")] = cell
    table += [(*key, *(cells.get(n, NONE) for n in SHOTS), "here") for key, cells in ours.items()]
    for each in PUBLISHED.get(group.data, ()):
        about = each.method, "published: other network, other training", each.network
        table.append((*about, each.parameters, *map("{:.1f}".format, each.accuracies), each.source))
    return table


def parameters(run: Results, method: str) -> int | None:
    """Parameters of a method's network, its classifier left out, as they are sent or, of scratch,
    drawn; None where neither is known."""
    if method == MAIN:
        return run["learngene"]["parameters"]
    if sent := ((run.get("pretraining") or {}).get("methods") or {}).get(method):
        return int(sent["parameters"])
    if method != "scratch":
        return None
    width = run["run"]["config"]["collective"]["width"]
    drawn = torch_generator(0, "counted")
    network = Individual(ways=2, width=width, head="prototype", generator=drawn)
    return sum(each.numel() for part in (network.stem, network.top) for each in part.parameters())


EXPERIMENT = Experiment("few_shot_benchmark", (MAIN,), rows, overview=overview)
