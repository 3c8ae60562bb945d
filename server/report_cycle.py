"""The report's section on the open-world cycles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.format import NONE, joined, percent
from reports.schema import Results
from server.report_page import paragraph, table
from server.rows_collective import cycle_of, deep

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
    path = deep([results])
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
