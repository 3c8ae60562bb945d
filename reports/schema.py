"""The contract of ``results.json`` as data, and one function that holds a dict to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

Results = Mapping[str, Any]

Rule = Callable[[Any], bool]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_fraction(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_list(value: Any) -> bool:
    return isinstance(value, list)


def is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def is_curve(value: Any) -> bool:
    """[[epoch, number or null], ...] with rising epochs."""
    if not is_list(value) or not all(is_list(point) and len(point) == 2 for point in value):
        return False
    epochs = [epoch for epoch, _ in value]
    numbers = all(is_number(epoch) for epoch in epochs)
    return (
        numbers and epochs == sorted(set(epochs)) and all(or_null(is_number)(y) for _, y in value)
    )


def or_null(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def is_signed(value: Any) -> bool:
    """A difference of two fractions."""
    return is_number(value) and -1 <= value <= 1


maybe_fraction = or_null(is_fraction)
maybe_signed = or_null(is_signed)

WORDS: dict[Rule, str] = {
    is_number: "a number",
    is_count: "a whole number, 0 or more",
    is_fraction: "a fraction in 0..1",
    is_text: "a text",
    is_list: "a list",
    is_dict: "an object",
    is_signed: "a number in -1..1",
    maybe_fraction: "null or a fraction in 0..1",
    maybe_signed: "null or a number in -1..1",
    is_curve: "a list of [epoch, number] with rising epochs",
}


def broken(section: Any, rules: Mapping[str, Rule], path: str) -> list[str]:
    """The rules that the section breaks; a field that has a rule must be there."""
    if not is_dict(section):
        return [f"{path}: must be an object, is {section!r}"]
    found = [f"{path}.{key}: missing" for key in rules if key not in section]
    return found + [
        f"{path}.{key}: must be {WORDS[rule]}, is {section[key]!r}"
        for key, rule in rules.items()
        if key in section and not rule(section[key])
    ]


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


# Required fields, in the order in which they are written. Sections in NULLABLE may be null: a run
# that starts from a saved learngene has no collective.
RULES: dict[str, dict[str, Rule]] = {
    "run": {
        "seed": is_count,
        "versions": is_dict,
        "config_sha256": is_text,
        "seconds": is_dict,
        "device": is_text,
    },
    "seconds": {
        "world": is_number,
        "collective": is_number,
        "clients": is_number,
        "total": is_number,
    },
    "data": {"name": is_text, "image_shape": is_list, "classes": is_dict, "sha256": is_text},
    "classes": {"base": is_list, "open_world": is_list, "novel": is_list},
    "collective": {
        "tasks": is_count,
        "conv_widths": is_list,
        "parameters": is_count,
        "stages": is_list,
    },
    "stage": {"task": is_count, "known_classes": is_count, "accuracy": is_fraction},
    "criterion": {"sigma": is_number, "rho": is_list, "selected": is_list},
    "learngene": {"layers": is_list, "parameters": is_count, "bytes": is_count, "sha256": is_text},
    "open_world": {
        "threshold": is_number,
        "auroc": is_fraction,
        "f1": is_fraction,
        "known_accuracy": is_fraction,
    },
    "client": {
        "id": is_count,
        "classes": is_list,
        "shots": is_count,
        "train_images": is_count,
        "test_images": is_count,
        "device": is_text,
    },
    "method": {
        "accuracy": is_fraction,
        "accuracy_by_epoch": is_curve,
        "seconds": is_number,
        "bytes_down": is_count,
        "bytes_up": is_count,
    },
    "gradcam": {"images": is_list, "stages": is_list, "missing": is_list},
    "gradcam image": {"class": is_text, "picture": is_text, "maps": is_text, "predicted": is_list},
    "gradcam stage": {"task": is_count, "known_classes": is_count, "layer": is_count},
    "messages": dict.fromkeys(
        ("asked", "answered", "failed", "missing", "bytes_down", "bytes_up"), is_count
    ),
}
NULLABLE = ("collective", "criterion", "learngene", "open_world")
SECTIONS = (
    *("schema", "run", "data", "collective", "criterion", "learngene", "open_world"),
    *("clients", "summary", "messages"),
)
ORDER: dict[str, tuple[str, ...]] = {name: tuple(rules) for name, rules in RULES.items()}


def check_results(results: Mapping[str, Any]) -> None:
    """Holds ``results`` to the contract.

    Raises:
        ValueError: every broken rule, one a line, each with the field's path and value.
    """
    problems = _problems(results)
    if problems:
        raise ValueError("results.json breaks its contract:\n" + "\n".join(problems))


def _problems(results: Mapping[str, Any]) -> list[str]:
    if not is_dict(results):
        return ["the file must hold an object"]
    problems = [f"{name}: missing" for name in SECTIONS if name not in results]
    if problems:
        return problems
    if results["schema"] != 1:
        return [f"schema: must be 1, is {results['schema']!r}"]
    try:
        json.dumps(results, allow_nan=False)
    except (TypeError, ValueError) as error:
        return [f"not valid JSON: {error}"]
    for name in ("run", "data", "collective", "criterion", "learngene", "open_world", "messages"):
        if results[name] is None and name in NULLABLE:
            continue
        problems += _broken(results[name], name, name)
    if problems:
        return problems
    problems += _broken(results["run"]["seconds"], "seconds", "run.seconds")
    problems += _broken(results["data"]["classes"], "classes", "data.classes")
    for index, stage in enumerate((results["collective"] or {}).get("stages", [])):
        problems += _broken(stage, "stage", f"collective.stages[{index}]")
    problems += continual_problems((results["collective"] or {}).get("continual"))
    problems += cycle_problems((results["open_world"] or {}).get("cycle"))
    problems += _gradcam_problems(results.get("gradcam"))
    if not is_list(results["clients"]):
        return [*problems, "clients: must be a list"]
    for index, client in enumerate(results["clients"]):
        problems += _client_problems(client, f"clients[{index}]")
    ids = Counter(client.get("id") for client in results["clients"] if is_dict(client))
    problems += [f"clients: id {i} occurs {n} times" for i, n in ids.items() if n > 1]
    return problems + _summary_problems(results)


def _broken(section: Any, name: str, path: str) -> list[str]:
    """The rules of ``RULES[name]`` that the section breaks."""
    return broken(section, RULES[name], path)


def _gradcam_problems(section: Any) -> list[str]:
    if section is None:
        return []
    problems = _broken(section, "gradcam", "gradcam")
    if problems:
        return problems
    for index, stage in enumerate(section["stages"]):
        problems += _broken(stage, "gradcam stage", f"gradcam.stages[{index}]")
    for index, image in enumerate(section["images"]):
        problems += _broken(image, "gradcam image", f"gradcam.images[{index}]")
    return problems


def _client_problems(client: Any, path: str) -> list[str]:
    if not is_dict(client):
        return [f"{path}: must be an object, is {client!r}"]
    if "error" in client:  # it may have failed before it knew its classes
        wrong = [] if is_text(client["error"]) else [f"{path}.error: must be a text"]
        wrong += [f"{path}: has both error and methods"] if "methods" in client else []
        return wrong + (
            [] if is_count(client.get("id")) else [f"{path}.id: must be a whole number"]
        )
    problems = _broken(client, "client", path)
    if not is_dict(client.get("methods")):
        return [*problems, f"{path}.methods: missing"]
    for name, method in client["methods"].items():
        problems += _broken(method, "method", f"{path}.methods.{name}")
        curve = method.get("accuracy_by_epoch") if is_dict(method) else None
        if is_curve(curve) and curve and curve[-1][1] != method.get("accuracy"):
            problems.append(
                f"{path}.methods.{name}.accuracy: must be that of the last epoch, "
                f"{curve[-1][1]}, is {method.get('accuracy')}"
            )
    return problems


def _summary_problems(results: Mapping[str, Any]) -> list[str]:
    summary = results["summary"]
    if not is_dict(summary) or "gain" not in summary:
        return ["summary.gain: missing"]
    problems = []
    for name, values in summary.items():
        fields = ("mean", "ci95", "n", *(("wins", "p_value") if name == "gain" else ("std",)))
        if name == "gain" and values is None:  # learngene or scratch was not among the methods
            continue
        if not is_dict(values):
            problems.append(f"summary.{name}: must be an object, is {values!r}")
            continue
        problems += [
            f"summary.{name}.{field}: must be a number or null"
            for field in fields
            if field not in values or not or_null(is_number)(values[field])
        ]
    return problems
