"""Clients that differ: what a learngene gives that training among the clients does not, and back.

Not in the paper. Bytes are of whole methods: of a federated one, of all its rounds and of the
message in which its clients are sent what came of them.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from statistics import fmean

import pandas as pd

from learngene.methods.registry import AMONG_CLIENTS
from reports.experiments.base import Experiment, Row, client_rows, lead_rows, rank_note, row
from reports.figures import style
from reports.figures.measured import interval
from reports.format import format_bytes, kilobytes, seconds
from reports.results import MAIN, REFERENCE
from reports.runs import origin_of
from reports.summary import answered, client_mean
from reports.variants import RunGroup, Variant

ON_TOP = "fed_learngene"  # begins as the learngene and is trained on among the clients
BOTH = {  # what the two are worth, each on top of the other
    "gain by federated rounds after the learngene": (ON_TOP, MAIN),
    "gain by the learngene before federated rounds": (ON_TOP, "fedavg"),
}


def rows(group: RunGroup) -> list[Row]:
    """For every variant: chance; of each method accuracy, gain over scratch on the same clients and
    what a client received; the learngene's leads; what learngene and federated rounds add to each
    other."""
    if not (there := _with_answers(group)):
        return client_rows(group)
    table = []
    for variant in there:
        table.append(_chance(variant))
        for name in variant.methods:
            note = rank_note(variant, name)
            table.append(row(variant, name, "%", variant.accuracy(name), note=note))
            if name != REFERENCE:
                table.append(_difference(variant, f"gain over scratch, {name}", name, REFERENCE))
            received = variant.mean(variant.final_by_client(name).bytes / 1000)
            costs = _costs(variant, name)
            table.append(row(variant, f"received, {name}", "KB", received, note=costs))
        table += lead_rows(variant, hide_settings=())
        table += [
            _difference(variant, quantity, first, second)
            for quantity, (first, second) in BOTH.items()
            if {first, second} <= set(variant.methods)
        ]
    return table


def _with_answers(group: RunGroup) -> list[Variant]:
    return [each for each in group.variants if any(answered(run) for run in each.runs)]


def _chance(variant: Variant) -> Row:
    """Of naming a client's classes blindly, over the clients that a mean accuracy is over."""
    clients = {
        (*origin_of(run), client["id"]): (len(client["classes"]), client["train_images"])
        for run in variant.runs
        for client in answered(run)
    }
    ways, images = zip(*clients.values(), strict=True)
    chance = pd.Series([100 / each for each in ways], pd.MultiIndex.from_tuples(clients))
    note = f"{min(ways)} to {max(ways)} classes, {min(images)} to {max(images)} training images"
    return row(variant, "chance", "%", variant.mean(chance), note=f"{note} a client")


def _difference(variant: Variant, quantity: str, first: str, second: str) -> Row:
    measured = variant.mean_difference(variant.differences(first, second))
    return row(variant, quantity, "points", measured)


def _costs(variant: Variant, method: str) -> str:
    """What a client sends, its seconds and, of a federated method, rounds."""
    sent, spent = (_mean(variant, method, field) for field in ("bytes_up", "seconds"))
    note = f"{kilobytes(sent)} KB sent, {seconds(spent)} s at a client"
    if method in AMONG_CLIENTS:
        note += f", {variant.config(f'method.{method}.rounds')} rounds"
    return note


def _mean(variant: Variant, method: str, field: str) -> float:
    """Of a number of a method, over clients and the runs that did not leave it out."""
    runs = (run for run in variant.runs if method in run["summary"])
    means = (client_mean(run, method, field) for run in runs)
    return fmean(mean for mean in means if mean is not None)


def figure(group: RunGroup, path: Path) -> Path:
    """What each method gains over scratch, with all bytes that a client exchanges for it beside its
    name; a panel a variant."""
    panels = _with_answers(group)
    most = max(len(variant.methods) for variant in panels)
    figure = style.new_figure((0.9 + 0.3 * most) * len(panels))
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, variant in zip(grid, panels, strict=True):
        names = [name for name in variant.methods if name != REFERENCE]
        looks = style.method_style(names)
        for place, name in enumerate(names):
            gain = variant.mean(variant.differences(name, REFERENCE))
            interval(axes, place, gain.mean, gain.ci95, color=looks[name]["color"])
        both = (sum(_mean(variant, n, f"bytes_{way}") for way in ("down", "up")) for n in names)
        labels = [f"{n}, {format_bytes(size)}" for n, size in zip(names, both, strict=True)]
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.axvline(0, color=style.GREY, lw=1)
        axes.set_title(textwrap.fill(variant.label, 52), loc="left", fontsize=10)
    grid[-1].set_xlabel("gain over scratch (points)")
    return style.save(figure, path)


EXPERIMENT = Experiment("heterogeneous", (MAIN, REFERENCE), rows, figure)
