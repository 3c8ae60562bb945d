"""Rows of the experiments that are figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from reports.experiments.base import Arrived, Row, any_rows, methods, row, wins
from reports.experiments.paper import CIFAR, EPOCHS
from reports.experiments.savings import Curve, Saving, to_converge, to_level, to_where_scratch_ends
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.summary import answered
from reports.units import (
    Measured,
    Unit,
    accuracies,
    counted,
    differences,
    over,
    over_runs,
    seeds_of,
)
from reports.variants import Arm, Gathered, between, groups

LEVELS = (0.6, 0.7)  # of figure 4 (c, d)
ENDS = 3  # so many layers at either end have their rho told in numbers: the paper inherits three
DEPTH = 13  # layers of a collective whose results do not say: a saved learngene's


def fig3(gathered: Gathered) -> list[Row]:
    """rho of the front and of the top layers, early and late, and what the criterion selects."""
    found = []
    for arm in gathered.arms:
        runs = [run for run in arm.runs if run["criterion"]]
        names = layer_names(arm.runs[0])
        for part_of in (slice(ENDS), slice(-ENDS, None)):
            lowest, *_, highest = names[part_of]
            for part, late in (("first", False), ("last", True)):
                values = [(run, _rho(run, part_of, late)) for run in runs]
                quantity = f"rho of layers {lowest} to {highest}, {part} third of the tasks"
                measured = over_runs([(run, value) for run, value in values if value is not None])
                found.append(row(arm, quantity, "share", measured))
        chosen = sorted({tuple(run["criterion"]["selected"]) for run in runs})
        is_top = [(run, float(run["criterion"]["selected"] == _top(run))) for run in runs]
        said = "; ".join(f"[{', '.join(names[n - 1] for n in each)}]" for each in chosen)
        note = f"the paper selects the top three; selected here: {said}"
        name = "runs that select the top three"
        found.append(row(arm, name, "share", over_runs(is_top), note=note))
    return found


def fig4_curves(gathered: Gathered) -> list[Row]:
    """Accuracies at the end; epochs until each arm's own curve has converged, and how many fewer
    they are with the learngene (the paper's 10 against 40); epochs to where scratch ends."""
    found = any_rows(gathered)
    for arm in gathered.arms:
        ours, scratch = ([curves(run, name) for run in arm.runs] for name in (MAIN, REFERENCE))
        own = [to_converge(a, b) for a, b in zip(ours, scratch, strict=True)]
        for name, side in ((MAIN, "ours"), (REFERENCE, "scratch")):
            measured = over([_there(getattr(each, side)) for each in own])
            note = "epochs to come within a point of the own last accuracy"
            quoted = EPOCHS[name] if gathered.data == CIFAR else None
            name = f"epochs to converge, {name}"
            found.append(row(arm, name, "epochs", measured, note=note, quoted=quoted))
        found.append(_saved(arm, "epochs saved", "epochs", own))
        there = [to_where_scratch_ends(a, b).ours for a, b in zip(ours, scratch, strict=True)]
        reached = _arrived(there)
        at_once = _arrived([{u: 0 if x == 0 else None for u, x in each.items()} for each in there])
        name = f"epochs to where scratch ends, {MAIN}"
        note = f"{at_once.clients} of {at_once.of} clients are there before any training"
        measured = over([_there(each) for each in there])
        found.append(row(arm, name, "epochs", measured, note=note, arrived=reached))
    return found


def fig4_samples(gathered: Gathered) -> list[Row]:
    """Images to reach a level and images saved, along the shots of every client."""
    return [row for group in groups(gathered, "shots") for row in _samples(group)]


def _samples(group: Gathered) -> list[Row]:
    found: list[Row] = []
    last, told = group.arms[-1], ["shots"]
    ours, scratch = (along_shots(group, name) for name in (MAIN, REFERENCE))
    # One number of images is no line: every client would need as many, and save none.
    for level in LEVELS if len(group.arms) > 1 else ():
        to = f"{100 * level:.0f} %"
        savings = [to_level(a, b, level) for a, b in zip(ours, scratch, strict=True)]
        for name, side in ((MAIN, "ours"), (REFERENCE, "scratch")):
            reached = [getattr(each, side) for each in savings]
            needed, arrived = over([_there(each) for each in reached]), _arrived(reached)
            quantity = f"images a class for {to}, {name}"
            found.append(
                row(last, quantity, "images", needed, told=told, arrived=arrived, arms=group.arms)
            )
        saved = f"images a class saved to reach {to}"
        found.append(_saved(last, saved, "images", savings, told, group.arms))
        shares = over([{u: 100 * x for u, x in each.shares.items()} for each in savings])
        share = f"share of images saved to reach {to}"
        said, both = _words(savings), _both_arrived(savings)
        found.append(
            row(last, share, "%", shares, note=said, told=told, arrived=both, arms=group.arms)
        )
    for arm in group.arms:
        gain = arm.measured(differences(MAIN, REFERENCE))
        quantity = f"gain at {arm.config('shots')} images a class"
        found.append(row(arm, quantity, "points", gain, note=wins(arm), told=told))
    return found


def fig5(gathered: Gathered) -> list[Row]:
    """How much the figure shows; the paper has no number for it."""
    found = []
    for arm in gathered.arms:
        seen = [run["gradcam"] for run in arm.runs if run.get("gradcam")]
        note = "test images of classes that the collective does not know, drawn from the seed"
        shown = sum(len(each["images"]) for each in seen)
        measured = Measured(float(shown), None, counted(len(seen), "run"))
        found.append(row(arm, "images looked at", "images", measured, note=note))
    return found


def fig6a(gathered: Gathered) -> list[Row]:
    """Accuracy at every point of the evolution, and what the last adds to the first."""
    found = []
    for arm in gathered.arms:
        runs = [run for run in arm.runs if run.get("rounds")]
        for number in range(len(runs[0]["rounds"]) if runs else 0):
            values = [of_round(run, number) for run in runs]
            known = runs[0]["rounds"][number]["known_classes"]
            found.append(row(arm, f"accuracy at {known} classes", "%", over(values)))
        change = []
        for run in runs:
            first, last = of_round(run, 0), of_round(run, -1)
            change.append({unit: last[unit] - first[unit] for unit in last if unit in first})
        note = "the paper: continually improves, no number"
        found.append(row(arm, "last point less the first", "points", over(change), note=note))
        if REFERENCE in methods(arm):
            found.append(row(arm, REFERENCE, "%", arm.measured(accuracies(REFERENCE))))
    return found


def fig6b(gathered: Gathered) -> list[Row]:
    """Accuracy by position, and the top's lead over the best of the others."""
    found, told = any_rows(gathered), ["learngene.layers"]
    for group in groups(gathered, *told):
        top = top_of(group.arms)
        others = [arm for arm in group.arms if arm is not top]
        if top is None or not others:
            continue
        best = max(others, key=lambda arm: arm.measured(accuracies(MAIN)).mean or 0.0)
        note = f"the best other: layers {layers_of(best)}"
        lead = between(top, best, MAIN)
        name = "top over the best other position"
        found.append(row(top, name, "points", lead, note=note, told=told, arms=(top, best)))
    return found


def top_of(arms: Sequence[Arm]) -> Arm | None:
    """The arm that inherits from the top; None where there is none."""
    return next((arm for arm in arms if layers_of(arm)[-1] == _top(arm.runs[0])[-1]), None)


def _saved(
    arm: Arm,
    quantity: str,
    unit: str,
    savings: Sequence[Saving],
    told: Sequence[str] = (),
    arms: Sequence[Arm] = (),
) -> Row:
    measured, said = over([s.saved for s in savings]), _words(savings)
    both = _both_arrived(savings)
    return row(arm, quantity, unit, measured, note=said, told=told, arrived=both, arms=arms)


def _there(reached: Mapping[Unit, float | None]) -> dict[Unit, float]:
    """The clients that arrived."""
    return {unit: effort for unit, effort in reached.items() if effort is not None}


def _arrived(reached: Sequence[Mapping[Unit, float | None]]) -> Arrived:
    """Clients that arrived; one that several collectives have has to arrive with each."""
    every = [(unit[1:], effort) for each in reached for unit, effort in each.items()]
    missing = {task for task, effort in every if effort is None}
    return Arrived(len({task for task, _ in every} - missing), len({task for task, _ in every}))


def _both_arrived(savings: Sequence[Saving]) -> Arrived:
    """Clients that arrived with the learngene and from scratch."""
    return _arrived([side for each in savings for side in (each.ours, each.scratch)])


def _words(savings: Sequence[Saving]) -> str:
    ours, scratch = (sum(each.never[side] for each in savings) for side in (0, 1))
    return f"never with the learngene {ours}, never from scratch {scratch}"


def layers_of(arm: Arm) -> list[int]:
    """The layers that the arm inherits."""
    return list(arm.runs[0]["learngene"]["layers"])


def layer_names(run: Results) -> list[str]:
    """The layers of the run's collective at its end, from below; a copy of layer 5 is ``5b``."""
    found = run["criterion"] or {}
    depth = len(found["rho"][0]) if found else DEPTH
    return list(found.get("names") or map(str, range(1, depth + 1)))


def _top(run: Results) -> list[int]:
    """The top three layers, counted from 1 in the collective at its end."""
    depth = len(layer_names(run))
    return list(range(depth - ENDS + 1, depth + 1))


def _rho(run: Results, layers: slice, late: bool) -> float | None:
    """Mean rho of some layers in a third of the tasks; None where none of them was there yet."""
    rho = run["criterion"]["rho"]
    third = max(1, len(rho) // 3)
    tasks = rho[-third:] if late else rho[:third]
    values = [value for task in tasks for value in task[layers] if value is not None]
    return fmean(values) if values else None


def curves(run: Results, method: str) -> dict[Unit, Curve]:
    """By client: accuracy over epochs."""
    seeds = seeds_of(run)
    return {
        (*seeds, client["id"]): [
            (epoch, y)
            for epoch, y in client["methods"][method]["accuracy_by_epoch"]
            if y is not None
        ]
        for client in answered(run)
    }


def along_shots(gathered: Gathered, method: str) -> list[dict[Unit, Curve]]:
    """By seed, a curve a client: accuracy over images per class. Clients in every run only."""
    by_seed: dict[tuple[int, int], dict[Unit, dict[int, float]]] = {}
    for arm in gathered.arms:
        for run in arm.runs:
            seeds = seeds_of(run)
            of = by_seed.setdefault(seeds, {})
            for client in answered(run):
                accuracy = client["methods"][method]["accuracy"]
                of.setdefault((*seeds, client["id"]), {})[arm.config("shots")] = accuracy
    found = []
    for clients in filter(None, by_seed.values()):
        longest = max(len(curve) for curve in clients.values())
        full = {unit: clients[unit] for unit in clients if len(clients[unit]) == longest}
        found.append({unit: sorted(curve.items()) for unit, curve in full.items()})
    return found


def of_round(run: Results, number: int) -> dict[Unit, float]:
    """The learngene's accuracy by client in a round, percent; the last one's are the run's."""
    each = run["rounds"][number]
    clients = each.get("clients") or run["clients"]
    seeds = seeds_of(run)
    return {
        (*seeds, c["id"]): 100 * c["methods"][MAIN]["accuracy"] for c in clients if "methods" in c
    }
