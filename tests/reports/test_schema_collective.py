"""What breaks the contract of measures of not forgetting and of open-world cycles is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reports.ledger import compact
from reports.schema import check_results

KEPT = ("collective", "continual")
CYCLE, RECORD = ("open_world", "cycle"), ("open_world", "cycle", "cycles", 1)
DELETED = object()


def spoil(results: Any, path: tuple[str | int, ...], value: Any) -> None:
    *parents, last = path
    for key in parents:
        results = results[key]
    if value is DELETED:
        del results[last]
    else:
        results[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (KEPT, [], r"collective\.continual: must be an object, is \[\]"),
        ((*KEPT, "forgetting"), DELETED, r"collective\.continual\.forgetting: missing"),
        ((*KEPT, "forgetting"), 19.5, r"continual\.forgetting: must be null or a number in -1"),
        ((*KEPT, "average_accuracy"), 1.01, r"continual\.average_accuracy: must be a fraction"),
        ((*KEPT, "backward_transfer"), -1.2, r"continual\.backward_transfer: must be null or"),
        ((*KEPT, "matrix", 2), [0.1, 0.2], r"continual\.matrix: must be rows of 1, 2, 3"),
        ((*KEPT, "matrix", 1, 1), 1.5, r"continual\.matrix: must be rows of 1, 2, 3"),
        (CYCLE, [], r"open_world\.cycle: must be an object"),
        ((*CYCLE, "discovered"), -1, r"cycle\.discovered: must be a whole number"),
        ((*CYCLE, "discovered"), 4, r"cycle\.discovered: must be the sum over cycles, 5, is 4"),
        ((*CYCLE, "labels_spent"), 551, r"labels_spent: must be the sum over cycles, 552, is 551"),
        ((*CYCLE, "open_world_classes"), 4, r"discovered: more than open_world_classes, 4"),
        ((*CYCLE, "before", "old_accuracy"), None, r"before\.old_accuracy: must be a fraction"),
        ((*CYCLE, "before", "new_accuracy"), 2, r"new_accuracy: must be null or a fraction"),
        ((*CYCLE, "cycles"), {}, r"cycle\.cycles: must be a list"),
        (RECORD, 7, r"cycles\[1\]: must be an object, is 7"),
        ((*RECORD, "cycle"), 3, r"cycles\[1\]\.cycle: must be 2, is 3"),
        ((*RECORD, "threshold"), None, r"cycles\[1\]\.threshold: must be a number"),
        ((*RECORD, "waiting_classes"), 1.5, r"cycles\[1\]\.waiting_classes: must be a whole"),
        ((*RECORD, "accuracy"), 51.1, r"cycles\[1\]\.accuracy: must be a fraction"),
        ((*RECORD, "old_accuracy"), DELETED, r"cycles\[1\]\.old_accuracy: missing"),
        ((*RECORD, "added"), ["sign 7"], r"labelled_images: must be of the classes in added"),
        ((*RECORD, "labels_spent"), 104, r"cycles\[1\]\.known_sent: more than labels_spent, 104"),
        ((*RECORD, "known_images"), 126, r"known_called_unknown: more than known_images, 126"),
        ((*RECORD, "unknown_images"), 418, r"unknown_missed: more than unknown_images, 418"),
    ],
)
def test_what_breaks_it_is_named(
    results: dict[str, Any], path: tuple[str | int, ...], value: Any, message: str
) -> None:
    check_results(results)
    spoil(results, path, value)
    with pytest.raises(ValueError, match=message):
        check_results(results)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (KEPT, DELETED),
        ((*KEPT, "forgetting"), None),
        (CYCLE, None),
        (CYCLE, DELETED),
        ((*RECORD, "new_accuracy"), None),
    ],
)
def test_what_may_be_absent(results: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    spoil(results, path, value)
    check_results(results)


def test_kept_results_have_both_sections(make: Callable[..., dict[str, Any]]) -> None:
    def change(sections: dict[str, Any]) -> None:
        sections["run"]["config"]["experiment"] = "open_world_cycle"

    kept = compact.compact_results(make(3, change=change))
    check_results(kept)
    measures = {"average_accuracy", "average_incremental_accuracy", "forgetting"}
    measures |= {"backward_transfer"}
    assert set(kept["collective"]["continual"]) == measures
    assert len(kept["open_world"]["cycle"]["cycles"]) == 2


def test_a_profile_has_a_value_a_layer(results: dict[str, Any]) -> None:
    results["transfer"]["tasks"][1]["plain"].pop()
    with pytest.raises(ValueError, match="must be one value a layer, 13, is 12"):
        check_results(results)
