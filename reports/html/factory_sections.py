"""The report's sections on the factory side: the collective, what it forgot, the criterion, the
open world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.collective import cycle_of, depth_label
from reports.figures.captions import inherited
from reports.format import NONE, joined, percent, points, score_words, seconds, value_text
from reports.html.page import paragraph, table
from reports.schema import Results

Parts = list[str]
Images = Mapping[str, str]  # figure name to its HTML, or to the reason why there is none


def collective(results: Results, images: Images) -> Parts:
    """The collective's life, task by task."""
    if results["collective"] is None:
        return [images["collective"]]
    value = results["collective"]
    rows = [
        (
            stage["task"],
            _count(stage.get("new_classes")),
            stage["known_classes"],
            percent(stage["accuracy"]),
            percent(stage.get("light_accuracy")),
            _whole(stage.get("parameters")),
            seconds(stage.get("seconds")),
            joined([_grown(step) for step in stage.get("grown") or []]) or NONE,
        )
        for stage in value["stages"]
    ]
    headings = (
        *("task", "new classes", "known classes", "accuracy", "light path"),
        *("parameters", "time, s", "growth, layer → channels"),
    )
    reused = " It was taken from the cache." if results["run"].get("collective_cached") else ""
    return [
        paragraph(
            f"{value['tasks']} tasks, {value['parameters']:,} parameters at the end, widths of "
            f"the conv layers 1 to {len(value['conv_widths'])}: {joined(value['conv_widths'])}."
            + reused
        ),
        images["collective"],
        table(headings, rows, range(7)),
    ]


def continual(results: Results, images: Images) -> Parts:
    """How well the tasks gone by are kept."""
    value = (results["collective"] or {}).get("continual")
    if not value:
        return [images["continual"]]
    paths = [value, *([value["light"]] if value["light"] else [])]
    rows = [
        (name, *(show(path[key]) for path in paths))
        for name, key, show in (
            ("average accuracy over tasks, after the last", "average_accuracy", percent),
            ("average incremental accuracy", "average_incremental_accuracy", percent),
            ("forgetting, points", "forgetting", points),
            ("backward transfer, points", "backward_transfer", points),
        )
    ]
    headings = ("measure", "collective", "light path")[: 1 + len(paths)]
    settings = ((results["run"].get("config") or {}).get("collective") or {}).get("memory")
    return [
        paragraph(
            (f"Memory strategy: {settings}. " if settings else "")
            + "Average incremental accuracy is the mean over tasks of the accuracy on all classes "
            "known by then (iCaRL). Forgetting is the mean fall from a task's best accuracy before "
            "the last task (Chaudhry et al. 2018), backward transfer the mean change since a task "
            "was learned (Lopez-Paz and Ranzato 2017). Both count what later classes take by being "
            "confused with earlier ones, and the last row includes the consolidation, if any."
        ),
        images["continual"],
        table(headings, rows, range(1, len(headings))),
    ]


def criterion(results: Results, images: Images) -> Parts:
    """Where the learngene was found."""
    if results["criterion"] is None:
        return [paragraph(f"Inherited layers: {inherited(results)}."), images["criterion"]]
    value = results["criterion"]
    rule = value.get("rule")
    parts = [
        paragraph(
            f"Layers that the criterion selects at σ = {value['sigma']:g}: "
            f"{joined(value['selected']) or 'none'}. Inherited layers: {inherited(results)}."
        ),
        images["criterion"],
    ]
    if "chosen_on" in value:
        parts.append(
            paragraph(
                "The choice was made on an earlier life, with the top layers shared: it selected "
                f"{joined(value['chosen_on']['selected'])}. What is shown here is the life that "
                "shared these."
            )
        )
    if rule is None:
        return parts
    rows = [
        (
            _named(layer["layer"], layer["name"]),
            *(f"{layer[key]:.3f}" for key in ("early", "late", "fall", "unsteadiness", "trend")),
            "yes" if layer["layer"] in value["selected"] else "",
        )
        for layer in reversed(rule["layers"])
    ]
    return [
        *parts,
        paragraph(
            "The rule: early and late are the means of ρ over the first and the last third of a "
            "layer's tasks, fall is 1 − late / early, unsteadiness the standard deviation over the "
            "last third divided by early, trend is fall less unsteadiness (0 where early is below "
            f"{rule['large']:g}, or with fewer than {rule['tasks_needed']} tasks). Selected are at "
            f"most {rule['longest']} consecutive layers whose trends exceed {rule['bar']:g} by the "
            "largest sum. Growth confounds ρ, since new channels have large gradients: compare "
            "experiment=growth_ablation."
        ),
        table(
            ("layer", "early", "late", "fall", "unsteadiness", "trend", "selected"),
            rows,
            range(1, 6),
        ),
    ]


def open_world(results: Results, images: Images) -> Parts:
    """How well the collective tells unknown classes from known ones."""
    value = results["open_world"]
    if value is None:
        return [images["open_world"]]
    score = score_words(value.get("score") or "max_softmax")
    rows = [
        (f"threshold of {score}", f"{value['threshold']:.4f}"),
        ("known test images accepted", percent(value.get("accepted"))),
        ("open-world test images found (recall)", percent(value.get("recall"))),
        ("share of open-world among images called unknown", percent(value.get("precision"))),
        ("F1 of open-world against known", f"{value['f1']:.3f}"),
        ("area under the ROC curve", f"{value['auroc']:.3f}"),
        ("accuracy on known classes, threshold applied", percent(value["known_accuracy"])),
        ("accuracy on known classes, no threshold", percent(value.get("closed_accuracy"))),
        ("openness of the test", _decimal(value.get("openness"))),
    ]
    return [
        paragraph(_how_recognised(value, f"the collective's {depth_label([results])}")),
        images["open_world"],
        table(("measure", "value"), rows, [1]),
        *_scores(value),
        *_paper_thresholds(value),
        *cycles(results, images),
    ]


def _how_recognised(value: Results, collective: str) -> str:
    """The chosen score and threshold in words."""
    score = score_words(value.get("score") or "max_softmax")
    how = {"light": "the light path", "both": "the mean of both paths' logits"}
    by = how.get(value.get("path", "collective"), collective)
    by += " over the image and its mirror image" * bool(value.get("mirror"))
    asked = value.get("threshold_from", "calibrated")
    if asked != "calibrated":
        return f"An image is called unknown by its {score}, from {by}; threshold: {asked}, as set."
    share = percent(value.get("accept"))
    return (
        f"An image is called unknown by its {score}, from {by}. The threshold is calibrated: it "
        f"accepts {share} of held-out base images that were never trained on."
    )


def _scores(value: Results) -> Parts:
    """Every score on the same test images; the chosen and the best are named."""
    scores = value.get("scores")
    if not scores:
        return []
    measures = ("auroc", "aupr_in", "aupr_out", "fpr95", "oscr")
    marks = {value["score"]: " (chosen)"}
    marks[value["best_score"]] = marks.get(value["best_score"], "") + " (best AUROC)"
    rows = [
        (
            score_words(name) + marks.get(name, ""),
            *(_decimal((found or {}).get(m)) for m in measures),
        )
        for name, found in scores.items()
    ]
    headings = ("score", "AUROC", "AUPR known", "AUPR unknown", "FPR at 95 % TPR", "OSCR")
    without = [score_words(name) for name, found in scores.items() if not found]
    missing = f" No exemplars to fit {joined(without)} on." if without else ""
    return [
        table(headings, rows, range(1, 6)),
        paragraph(
            "Test images of base against open-world classes. FPR at 95 % TPR: share of known "
            "images called unknown where 95 % of the open-world ones are found. OSCR: at most the "
            "accuracy without threshold. Distances are fitted on "
            f"{value['exemplars']:,} exemplars. The best score is named after the fact." + missing,
            "note",
        ),
    ]


def _paper_thresholds(value: Results) -> Parts:
    """What the paper's two thresholds do in this run."""
    found = value.get("paper_thresholds")
    if not found:
        return []
    forms = {"one_softmax": "one softmax (Eq. 2)", "two_softmaxes": "softmax applied twice"}
    rows = [
        (f"{score_words(preset)}: {entry['threshold']:.4f}", words,
         percent(entry[form]["known_accepted"]), percent(entry[form]["open_world_found"]))
        for preset, entry in found.items()
        for form, words in forms.items()
    ]  # fmt: skip
    known = value["known_classes"]
    headings = ("the paper's threshold", "form", "known accepted", "open-world found")
    return [
        table(headings, rows, [2, 3]),
        paragraph(
            "With softmax applied twice, Eq. 2 cannot fall below 1 - e / (e + N - 1), which is "
            f"{value['doubled_softmax_floor']:.4f} for this run's N = {known}. The paper's "
            "thresholds are that number for N = 64 and for N = 100, rounded up.",
            "note",
        ),
    ]


def _decimal(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def attention(results: Results, images: Images) -> Parts:
    """Where the stages of the collective look in images of unknown classes, and what they say."""
    found = results.get("gradcam")
    if found is None:
        return [images["gradcam"]]
    stages = found["stages"]
    layers = joined(sorted({stage["layer"] for stage in stages}))
    parts = [
        paragraph(
            f"Maps of layer {layers}: the deepest one with at least 4 positions a side at this "
            "image size."
        ),
        images["gradcam"],
    ]
    if found["missing"]:
        gone = joined(found["missing"])
        note = f"Left out, since the cache no longer holds their checkpoints: tasks {gone}."
        parts.append(paragraph(note, "note"))
    headings = ["class", "group", *(f"{stage['known_classes']} known" for stage in stages)]
    rows = [
        (image["class"], value_text(image.get("group")).replace("_", "-"), *image["predicted"])
        for image in found["images"]
    ]
    return [*parts, paragraph("What each stage takes the image for:"), table(headings, rows)]


def _named(layer: int, name: str) -> str:
    """A layer's number, with its name where deepening has moved it: ``6 (5b)``."""
    return name if name == str(layer) else f"{layer} ({name})"


def _grown(step: Mapping[str, Any]) -> str:
    """One step of growth: ``5 → 48``, or ``5 → 5b`` for a layer copied after itself."""
    return f"{step['layer']} → {step.get('deepened') or step['width']}"


def _count(value: Any) -> str:
    """A number of classes, given as such or as the list of them."""
    return NONE if value is None else str(len(value) if isinstance(value, list) else value)


def _whole(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


KINDS = ("accuracy", "old_accuracy", "new_accuracy")


def cycles(results: Results, images: Mapping[str, str]) -> list[str]:
    """What the streams brought: who was called unknown, what was labelled, what was learned."""
    found = cycle_of(results)
    if not found:
        return [images["cycle"]]  # the reason why there is none
    return [
        "<h3>The cycle</h3>",
        paragraph(
            f"{found['discovered']} of {found['open_world_classes']} open-world classes were "
            f"discovered and learned for {found['labels_spent']:,} labels, of which "
            f"{found['known_sent']:,} were spent on known classes. The learngene that clients "
            "receive is that of the collective after the last cycle. A stream's images of base "
            "classes are test images, which are never trained on; those of classes taken in by an "
            "earlier cycle count as known, too."
        ),
        images["cycle"],
        *_streams(found),
        *_accuracies(results, found),
    ]


def _streams(found: Mapping[str, Any]) -> list[str]:
    """A row a cycle: what was met, what was asked, what was taken in."""
    headings = (
        *("cycle", "known images", "called unknown", "unknown images", "missed", "labels"),
        *("needless", "classes taken in, labelled images of each", "classes waiting"),
    )
    rows = [
        (
            each["cycle"],
            f"{each['known_images']:,}",
            f"{each['known_called_unknown']:,}",
            f"{each['unknown_images']:,}",
            f"{each['unknown_missed']:,}",
            f"{each['labels_spent']:,}",
            f"{each['known_sent']:,}",
            joined([f"{c}\N{NO-BREAK SPACE}{each['labelled_images'][c]}" for c in each["added"]])
            or NONE,
            each["waiting_classes"],
        )
        for each in found["cycles"]
    ]
    return [
        table(headings, rows, (*range(7), 8)),
        paragraph(
            "Missed: images of unknown classes that were taken for known. Needless: labels spent "
            "on images of known classes. Waiting: classes with too few labelled images so far "
            "(open_world.images_to_add), or beyond open_world.classes_per_cycle.",
            "note",
        ),
    ]


def _accuracies(results: Results, found: Mapping[str, Any]) -> list[str]:
    """A row a cycle, and one before them: both paths on all, old and new classes."""
    path = depth_label([results])
    named = [
        f"{name}, {classes}"
        for name in (path, "light path")
        for classes in ("all", "old classes", "new classes")
    ]
    headings = ("after cycle", "known classes", *named)
    keys = [*KINDS, *(f"light_{kind}" for kind in KINDS)]
    moments = [("before", NONE, found["before"])]
    moments += [(each["cycle"], each["known_classes"], each) for each in found["cycles"]]
    rows = [(name, known, *(percent(of[key]) for key in keys)) for name, known, of in moments]
    return [
        table(headings, rows, range(1, len(headings))),
        paragraph(
            "Accuracy on test images, with all classes known by then as possible answers. Old "
            "classes are the base classes, new ones were taken in by the cycles.",
            "note",
        ),
    ]
