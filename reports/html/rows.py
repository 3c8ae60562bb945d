"""Rows of the report's tables, cells as text; headings and prose are in the templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.collective import depth_label
from reports.figures.run import mean_curve
from reports.format import (
    NONE,
    decimal,
    joined,
    percent,
    points,
    score_words,
    seconds,
    size,
    thousands,
    value_text,
)
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.summary import answered, method_names, method_rows

Row = tuple[object, ...]
Section = Mapping[str, Any]  # a part of the results

CHECKS = {
    "classes_disjoint": "base, open-world and novel classes are disjoint",
    "shard_test_overlap": "images in a client's shard and in its test set",
    "shard_base_overlap": "images in a client's shard and in base training data",
    "test_base_overlap": "images in a client's test set and in base training data",
    "images_checked": "images checked",
}
ACCURACIES = ("accuracy", "old_accuracy", "new_accuracy")


def traffic(results: Results) -> list[Row]:
    """A row a method: KB that one client receives and sends."""
    return [(row.name, row.kb_down, row.kb_up) for row in method_rows(results)]


def clients(results: Results) -> tuple[list[str], list[Row], range]:
    """A row a client that answered, with its headings and which columns are numbers."""
    names = method_names(results)
    compared = results["summary"]["gain"] is not None
    rows: list[Row] = []
    for client in answered(results):
        accuracy = {name: client["methods"][name]["accuracy"] for name in names}
        gain = [points(accuracy[MAIN] - accuracy[REFERENCE])] if compared else []
        percents = map(percent, accuracy.values())
        rows.append((client["id"], *percents, *gain, client["device"], joined(client["classes"])))
    # The numbers first: on a phone the classes are what one scrolls to.
    numbers = [*names, *(["gain, points"] if compared else [])]
    return ["client", *numbers, "device", "classes"], rows, range(1, 1 + len(numbers))


def stages(collective: Section) -> list[Row]:
    """A row a task of the collective."""
    return [
        (
            stage["task"],
            len(stage["new_classes"]),
            stage["known_classes"],
            percent(stage["accuracy"]),
            percent(stage["light_accuracy"]),
            thousands(stage["parameters"]),
            seconds(stage["seconds"]),
            joined([_growth(step) for step in stage["grown"]]) or NONE,
        )
        for stage in collective["stages"]
    ]


def _growth(step: Section) -> str:
    """One step of growth: ``5 → 48``, or ``5 → 5b`` for a layer copied after itself."""
    return f"{step['layer']} → {step.get('deepened') or step['width']}"


def layers(criterion: Section) -> list[Row]:
    """A row a layer, the deepest first: ``6 (5b)`` where deepening has moved it."""
    return [
        (
            name if name == str(number) else f"{number} ({name})",
            *(decimal(layer[key]) for key in ("early", "late", "fall", "unsteadiness", "trend")),
            "yes" if number in criterion["selected"] else "",
        )
        for layer in reversed(criterion["rule"]["layers"])
        for number, name in [(layer["layer"], layer["name"])]
    ]


def depth(results: Results) -> str:
    """The collective's main path: ``13 layers``."""
    return depth_label([results])


def scores(open_world: Section) -> list[Row]:
    """A row a score on the same test images; the chosen and the best are named."""
    return [
        (
            score_words(name)
            + " (chosen)" * (name == open_world["score"])
            + " (best AUROC)" * (name == open_world["best_score"]),
            *(
                decimal((measures or {}).get(key))
                for key in ("auroc", "aupr_in", "aupr_out", "fpr95", "oscr")
            ),
        )
        for name, measures in open_world["scores"].items()
    ]


def unfitted_scores(open_world: Section) -> list[str]:
    """Scores that had no exemplars to be fitted on."""
    return [score_words(name) for name, measures in open_world["scores"].items() if not measures]


def paper_thresholds(open_world: Section) -> list[Row]:
    """Two rows a threshold of the paper's: what it does in this run in either form."""
    forms = {"one_softmax": "one softmax (Eq. 2)", "two_softmaxes": "softmax applied twice"}
    return [
        (
            f"{score_words(preset)}: {entry['threshold']:.4f}",
            words,
            percent(entry[form]["known_accepted"]),
            percent(entry[form]["open_world_found"]),
        )
        for preset, entry in open_world["paper_thresholds"].items()
        for form, words in forms.items()
    ]


def streams(cycle: Section) -> list[Row]:
    """A row a cycle: what was met, what was labelled, what was taken in."""
    counts = (
        *("known_images", "known_called_unknown", "unknown_images", "unknown_missed"),
        *("labels_spent", "known_sent"),
    )
    return [
        (
            record["cycle"],
            *(thousands(record[count]) for count in counts),
            joined(
                [
                    f"{name}\N{NO-BREAK SPACE}{record['labelled_images'][name]}"
                    for name in record["added"]
                ]
            )
            or NONE,
            record["waiting_classes"],
        )
        for record in cycle["cycles"]
    ]


def cycle_accuracies(cycle: Section) -> list[Row]:
    """A row a cycle, and one before them: both paths on all, old and new classes."""
    keys = (*ACCURACIES, *(f"light_{key}" for key in ACCURACIES))
    records = [("before", NONE, cycle["before"])]
    records += [(record["cycle"], record["known_classes"], record) for record in cycle["cycles"]]
    return [
        (name, known, *(percent(record[key]) for key in keys)) for name, known, record in records
    ]


def predictions(gradcam: Section) -> tuple[list[str], list[Row]]:
    """A row an image: what each stage takes it for; with its headings."""
    headings = ["class", "group", *(f"{s['known_classes']} known" for s in gradcam["stages"])]
    return headings, [
        (image["class"], value_text(image["group"]).replace("_", "-"), *image["predicted"])
        for image in gradcam["images"]
    ]


def pretraining(section: Section) -> list[Row]:
    """A row a method with a half at the factory."""
    return [
        (
            name,
            thousands(method["image_passes"] or None),
            "found" if method["cached"] else seconds(method["seconds"]),
            thousands(method["parameters"]),
            size(method["bytes"]),
        )
        for name, method in section["methods"].items()
    ]


def federated(methods: Section) -> list[Row]:
    """A row a method that clients train together."""
    return [
        (
            name,
            method["rounds"],
            method["local_epochs"],
            *(decimal(method["loss_by_round"][end][1]) for end in (0, -1)),
            size(method["bytes_down"]),
            size(method["bytes_up"]),
        )
        for name, method in methods.items()
    ]


def left_out(methods: Section) -> list[Row]:
    """A row for each client that a round of federated training went without."""
    return [
        (name, entry["round"], entry["client"], entry["error"])
        for name, method in methods.items()
        for entry in method["left_out"]
    ]


def records(crossed: Sequence[Section]) -> list[Row]:
    """A row a kind of record that crossed between server and clients."""
    return [
        (
            *(row["record"], row["direction"], row["kind"], thousands(row["messages"])),
            *(thousands(row["entries"]), size(row["bytes"])),
            "refused" if row["refused"] else "as declared",
        )
        for row in crossed
    ]


def checks(data: Section) -> list[Row]:
    """A row a check of the data, with its result."""
    results = [(words, data["leakage"][key]) for key, words in CHECKS.items()]
    return [
        *((words, value_text(v) if isinstance(v, bool) else thousands(v)) for words, v in results),
        ("duplicate images dropped", value_text(data["duplicates_dropped"])),
    ]


def divisions(data: Section) -> list[Row]:
    """A row a group of classes."""
    groups = [(name, data["classes"][name]) for name in ("base", "open_world", "novel")]
    return [(name.replace("_", "-"), len(names), joined(names)) for name, names in groups]


def penalties(results: Results) -> list[Row]:
    """A row an epoch: the retain penalty, the loss beside it and the penalty's share, means over
    the clients that have a penalty; none where no client has."""
    holders = [c for c in answered(results) if "penalty_by_epoch" in c["methods"].get(MAIN, {})]
    losses = dict(mean_curve(holders, MAIN, "train_loss_by_epoch"))
    rows: list[Row] = []
    for epoch, summary in mean_curve(holders, MAIN, "penalty_by_epoch"):
        penalty, loss = summary["mean"], losses.get(epoch, {}).get("mean")
        share = percent(penalty / (penalty + loss)) if loss else NONE
        loss_text = NONE if loss is None else f"{loss:.4g}"
        rows.append((f"{epoch:g}", f"{penalty:.4g}", loss_text, share))
    return rows


def facts(results: Results) -> list[Row]:
    """What identifies the run: seeds, hashes, seconds, versions."""
    run, data = results["run"], results["data"]
    return [
        ("seed", run["seed"]),
        ("shard seed", run["shard_seed"]),
        ("configuration, sha256", run["config_sha256"]),
        ("data, sha256", data["sha256"]),
        ("image shape", " × ".join(map(str, data["image_shape"]))),
        ("server's device", run["device"]),
        *((f"seconds: {name}", seconds(value)) for name, value in run["seconds"].items()),
        *((f"version: {name}", value) for name, value in run["versions"].items()),
    ]


def settings(config: Section, prefix: str = "") -> Iterator[Row]:
    """Nested settings as the command line names them: ``retain.ewc_lambda``."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value_text(value)
