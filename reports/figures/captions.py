"""A caption and a text in place of the image for each figure, with the run's own numbers."""

from __future__ import annotations

from collections.abc import Callable

from reports.collective import depth_label, layer_names
from reports.figures import pareto
from reports.figures.run import mean_curve
from reports.format import percent, points, score_label, score_words
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.summary import answered, method_names, method_rows

CAPTIONS = {
    "accuracy_over_epochs": "Mean test accuracy over clients by epoch on their shards. Bands are "
    "95 % intervals over clients. Epoch 0 is before any training on the shard; a method that "
    "answers without training has one point there, with a dotted line at its level.",
    "clients_paired": "Each line is one client: from its accuracy from scratch (square) to its "
    "accuracy with the learngene (circle), both at the last epoch. The largest gain is on top; a "
    "dotted line is a loss.",
    "evolution": "The same clients, reconstructed from the learngene of each point of the "
    "collective's evolution. The band is the 95 % interval over clients. Only after the last task "
    "does the collective consolidate, which is part of the last step.",
    "criterion": "The criterion ρ: share of a layer's gradients that are large, by task. A layer "
    "whose ρ falls and stays low holds what the tasks have in common. Framed layers are "
    "inherited, the bar at the right marks those that the criterion selects.",
    "collective": "Accuracy of the collective on the test images of all classes known so far, "
    "after each task.",
    "continual": "Accuracy on the test images of each task (columns) after each task (rows), with "
    "all classes known by then as possible answers. Down a column one sees a task being forgotten; "
    "the diagonal is what was just learned.",
    "bytes": "What one client receives for a method, and the accuracy it reaches with it.",
    "frontier": "Accuracy against what one client receives. On the dashed line lie the methods "
    "that no other beats: more accuracy costs more bytes. Bars are 95 % intervals.",
    "open_world": "How unknown test images of known and of open-world classes look to the "
    "collective. Right of the threshold an image is called unknown; the outermost steps hold all "
    "that lies beyond. Below, how well each score tells the two groups apart, on the same images.",
    "cycle": "Accuracy of the collective on the base classes and on those that the cycles took in, "
    "with all classes known by then as possible answers; 0 is before the first cycle.",
    "gradcam": "Grad-CAM for the class that the collective predicts, in test images of classes "
    "that it does not know, drawn from the seed; above a column the number of classes known by "
    "then. Bright is where the prediction comes from. Every map is scaled by its own peak, so "
    "brightness cannot be compared between maps; one without any bright spot holds nothing that "
    "speaks for its class.",
}


def alt_text(name: str, results: Results) -> str:
    """What the figure shows, in words and numbers, for those who do not see it.

    Only for figures that were drawn: the others' data is absent.
    """
    return ALT[name](results)


def _accuracy(results: Results) -> str:
    clients, parts = answered(results), []
    for name in method_names(results):
        curve = mean_curve(clients, name)
        if curve:
            (first, start), (last, end) = curve[0], curve[-1]
            parts.append(
                f"{name} from {percent(start['mean'])} at epoch {first:g} "
                f"to {percent(end['mean'])} at epoch {last:g}"
            )
    return f"Line chart of mean test accuracy over epochs: {'; '.join(parts)}."


def _clients(results: Results) -> str:
    gains = [
        client["methods"][MAIN]["accuracy"] - client["methods"][REFERENCE]["accuracy"]
        for client in answered(results)
    ]
    return (
        f"Dumbbell chart of {len(gains)} clients from scratch to learngene accuracy: "
        f"{sum(g > 0 for g in gains)} gain, {sum(g < 0 for g in gains)} lose, "
        f"{sum(g == 0 for g in gains)} are equal; gains run from "
        f"{points(min(gains))} to {points(max(gains))} points."
    )


def _evolution(results: Results) -> str:
    shown = [
        f"{percent(entry['summary'][MAIN]['mean'])} at {entry['known_classes']} classes"
        for entry in results["rounds"]
    ]
    return f"Line chart of the clients' accuracy by known classes: {', '.join(shown)}."


def _criterion(results: Results) -> str:
    rho = results["criterion"]["rho"]
    names = layer_names(results)
    ends = [f"layer {names[i]} {_rho(rho[0][i])} to {_rho(rho[-1][i])}" for i in (0, -1)]
    return (
        f"Heat map of rho for {len(names)} layers and {len(rho)} tasks. From the first task to "
        f"the last: {', '.join(ends)}. Inherited layers: {inherited(results)}. Selected layers: "
        f"{', '.join(map(str, results['criterion']['selected'])) or 'none'}."
    )


def _collective(results: Results) -> str:
    first, last = (results["collective"]["stages"][i] for i in (0, -1))
    light = ""
    if last.get("light_accuracy") is not None and first.get("light_accuracy") is not None:
        light = (
            f" The light path: {percent(first['light_accuracy'])}, then "
            f"{percent(last['light_accuracy'])}."
        )
    return (
        f"Line chart of the collective's accuracy: {percent(first['accuracy'])} on "
        f"{first['known_classes']} classes after task {first['task']}, "
        f"{percent(last['accuracy'])} on {last['known_classes']} classes after task {last['task']}."
        + light
    )


def _continual(results: Results) -> str:
    value = results["collective"]["continual"]
    first, last = value["matrix"][0][0], value["matrix"][-1]
    return (
        f"Heat map of accuracy by task, {len(last)} tasks. The first task: {percent(first)} when "
        f"it was learned, {percent(last[0])} at the end; the last task: {percent(last[-1])}. "
        f"Average accuracy {percent(value['average_accuracy'])}, "
        f"forgetting {points(value['forgetting'])} points."
    )


def _bytes(results: Results) -> str:
    rows = [f"{row.name} {row.kb_down} KB for {row.accuracy}" for row in method_rows(results)]
    return f"Bars of what a client receives beside its accuracy: {'; '.join(rows)}."


def _open_world(results: Results) -> str:
    values = results["open_world"]
    areas = [
        f"{score_words(name)} {measures['auroc']:.3f}"
        for name, measures in values["scores"].items()
        if measures
    ]
    return (
        f"Histogram of the {score_label(values)} of known and open-world test images, "
        f"with the threshold at {values['threshold']:.3f}; area under the ROC curve "
        f"{values['auroc']:.3f}. Of every score: {', '.join(areas)}."
    )


def _cycle(results: Results) -> str:
    cycle = results["open_world"]["cycle"]
    last, paths = cycle["cycles"][-1], []
    for name, prefix in ((depth_label([results]), ""), ("light path", "light_")):
        if last.get(f"{prefix}accuracy") is None:
            continue
        old, new = (f"{prefix}{classes}_accuracy" for classes in ("old", "new"))
        paths.append(
            f"{name}, old classes {percent(cycle['before'][old])} before and {percent(last[old])} "
            f"after, new classes {percent(last[new])} after"
        )
    return f"Line chart of accuracy over {len(cycle['cycles'])} cycles: {'; '.join(paths)}."


def _gradcam(results: Results) -> str:
    gradcam = results["gradcam"]
    known = ", ".join(str(stage["known_classes"]) for stage in gradcam["stages"])
    names = ", ".join(image["class"] for image in gradcam["images"])
    return (
        f"Contact sheet of Grad-CAM maps: {len(gradcam['images'])} images of unknown classes "
        f"({names}), seen by the collective when it knew {known} classes."
    )


def inherited(results: Results) -> str:
    """The layers that clients inherit, as a list in words."""
    layers = (results["learngene"] or {}).get("layers", [])
    return ", ".join(str(layer) for layer in layers) or "none"


def _rho(value: float | None) -> str:
    return "(no value)" if value is None else f"{value:.2f}"


ALT: dict[str, Callable[[Results], str]] = {
    "accuracy_over_epochs": _accuracy,
    "clients_paired": _clients,
    "evolution": _evolution,
    "criterion": _criterion,
    "collective": _collective,
    "continual": _continual,
    "bytes": _bytes,
    "frontier": pareto.alt,
    "open_world": _open_world,
    "cycle": _cycle,
    "gradcam": _gradcam,
}
