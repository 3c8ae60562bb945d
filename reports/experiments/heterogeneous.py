"""Clients that differ: what a learngene gives that training among the clients does not, and back.

Not in the paper. Bytes are of whole methods: of a federated one, of all its rounds and of the
message in which its clients are sent what came of them.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from learngene.methods.registry import AMONG_CLIENTS
from reports.experiments.base import Experiment, Row, lead_rows, rank_note, row
from reports.figures import style
from reports.format import kilobytes, seconds
from reports.results import MAIN, REFERENCE
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
    table = []
    for variant in group.variants:
        table.append(_chance(variant))
        for name in variant.methods:
            note = rank_note(variant, name)
            table.append(row(variant, name, "%", variant.accuracy(name), note=note))
            if name != REFERENCE:
                table.append(_difference(variant, f"gain over scratch, {name}", name, REFERENCE))
            received = variant.mean(variant.final_by_client(name).bytes / 1000)
            costs = _costs(variant, name)
            table.append(row(variant, f"received, {name}", "KB", received, note=costs))
        table += lead_rows(variant)
        table += [
            _difference(variant, quantity, first, second)
            for quantity, (first, second) in BOTH.items()
            if {first, second} <= set(variant.methods)
        ]
    return table


def _chance(variant: Variant) -> Row:
    """Of naming a client's classes blindly, over the clients that a mean accuracy is over."""
    ways = pd.Series({task: len(names) for task, names in variant.classes.items()})
    clients = [client for run in variant.runs for client in answered(run)]
    images = [client["train_images"] for client in clients]
    index = [(seed, *task) for seed in [0] for task in ways.index]
    chance = pd.Series((100 / ways).to_numpy(), pd.MultiIndex.from_tuples(index))
    note = f"{ways.min()} to {ways.max()} classes, {min(images)} to {max(images)} training images"
    return row(variant, "chance", "%", variant.mean(chance), note=f"{note} a client")


def _difference(variant: Variant, quantity: str, first: str, second: str) -> Row:
    measured = variant.mean_difference(variant.differences(first, second))
    return row(variant, quantity, "points", measured)


def _costs(variant: Variant, method: str) -> str:
    """What a client sends, its seconds and, of a federated method, rounds; the mean over runs."""
    runs = [run for run in variant.runs if answered(run)]
    sent, spent = (
        fmean(client_mean(run, method, field) or 0.0 for run in runs)
        for field in ("bytes_up", "seconds")
    )
    note = f"{kilobytes(sent)} KB sent, {seconds(spent)} s at a client"
    if method in AMONG_CLIENTS:
        note += f", {variant.config(f'method.{method}.rounds')} rounds"
    return note


def figure(group: RunGroup, path: Path) -> Path:
    """Gain over scratch against all bytes that a client exchanges, a panel a variant."""
    panels = group.variants
    figure = style.new_figure(0.6 + 2.4 * len(panels))
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, variant in zip(grid, panels, strict=True):
        names = [name for name in variant.methods if name != REFERENCE]
        looks = style.method_style(names)
        for name in names:
            runs = [run for run in variant.runs if answered(run)]
            exchanged = np.mean(
                [
                    [client_mean(run, name, field) or 0.0 for field in ("bytes_down", "bytes_up")]
                    for run in runs
                ],
                axis=0,
            ).sum()
            gain = variant.mean(variant.differences(name, REFERENCE))
            half = gain.ci95 or 0.0
            axes.errorbar(
                exchanged,
                gain.mean or 0.0,
                yerr=half,
                ls="",
                ms=8,
                capsize=3,
                label=name,
                **looks[name],
            )
        axes.axhline(0, color=style.GREY, lw=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(style.size_tick)
        axes.set_ylabel("gain over scratch (points)")
        axes.set_title(variant.label, loc="left")
    grid[-1].set_xlabel("bytes received and sent by a client, log scale")
    return style.save_with_legend(figure, grid[0], path)


EXPERIMENT = Experiment("heterogeneous", (MAIN, REFERENCE), rows, figure)
