"""The contract of what a collective kept, and of the streams that it met."""

from __future__ import annotations

from typing import Any

from server.contract_rules import (
    Rule,
    broken,
    is_count,
    is_dict,
    is_fraction,
    is_list,
    is_number,
    maybe_fraction,
    maybe_signed,
)

CONTINUAL: dict[str, Rule] = {
    "average_accuracy": is_fraction,
    "average_incremental_accuracy": is_fraction,
    "forgetting": maybe_signed,  # null: one task
    "backward_transfer": maybe_signed,
}
SUMS = ("labels_spent", "known_sent", "unknown_missed", "known_called_unknown")
ACCURACIES: dict[str, Rule] = {
    "accuracy": is_fraction,
    "old_accuracy": is_fraction,
    "new_accuracy": maybe_fraction,  # null: no new class
    "light_accuracy": maybe_fraction,  # null: no light path
    "light_old_accuracy": maybe_fraction,
    "light_new_accuracy": maybe_fraction,
}
MET: dict[str, Rule] = {
    "settings": is_dict,
    "before": is_dict,
    "cycles": is_list,
    "discovered": is_count,
    "open_world_classes": is_count,
    **dict.fromkeys(SUMS, is_count),
}
CYCLE: dict[str, Rule] = {
    "cycle": is_count,
    "threshold": is_number,
    **dict.fromkeys(("images", "known_images", "unknown_images", "called_unknown"), is_count),
    **dict.fromkeys((*SUMS, "waiting_classes", "known_classes"), is_count),
    "added": is_list,
    "labelled_images": is_dict,
    **ACCURACIES,
}


def continual_problems(section: Any) -> list[str]:
    """Of ``collective.continual``: measures of one or two paths; kept results have no matrix."""
    if section is None:
        return []
    path, found = "collective.continual", []
    light = section.get("light") if is_dict(section) else None
    for each, where in ((section, path), (light, f"{path}.light")):
        if each is None and where != path:
            continue
        found += broken(each, CONTINUAL, where)
        if is_dict(each) and "matrix" in each and not _is_triangle(each["matrix"]):
            found.append(f"{where}.matrix: must be rows of 1, 2, 3... fractions in 0..1")
    return found


def _is_triangle(rows: Any) -> bool:
    return (
        is_list(rows)
        and all(is_list(row) and len(row) == place for place, row in enumerate(rows, start=1))
        and all(is_fraction(value) for row in rows for value in row)
    )


def cycle_problems(section: Any) -> list[str]:
    """Of ``open_world.cycle``: a record a cycle, and what their sums are."""
    if section is None:
        return []
    path = "open_world.cycle"
    found = broken(section, MET, path)
    if found:
        return found
    found += broken(section["before"], ACCURACIES, f"{path}.before")
    for index, each in enumerate(section["cycles"]):
        found += _record_problems(each, index, f"{path}.cycles[{index}]")
    if found:
        return found
    due = {name: sum(each[name] for each in section["cycles"]) for name in SUMS}
    due["discovered"] = sum(len(each["added"]) for each in section["cycles"])
    return [
        f"{path}.{name}: must be the sum over cycles, {value}, is {section[name]}"
        for name, value in due.items()
        if section[name] != value
    ] + [
        f"{path}.discovered: more than open_world_classes, {section['open_world_classes']}"
        for _ in range(section["discovered"] > section["open_world_classes"])
    ]


def _record_problems(each: Any, index: int, path: str) -> list[str]:
    found = broken(each, CYCLE, path)
    if found:
        return found
    if each["cycle"] != index + 1:
        found.append(f"{path}.cycle: must be {index + 1}, is {each['cycle']}")
    if sorted(each["labelled_images"]) != sorted(map(str, each["added"])):
        found.append(f"{path}.labelled_images: must be of the classes in added")
    for part, whole in (
        ("known_sent", "labels_spent"),
        ("known_called_unknown", "known_images"),
        ("unknown_missed", "unknown_images"),
    ):
        if each[part] > each[whole]:
            found.append(f"{path}.{part}: more than {whole}, {each[whole]}")
    return found
