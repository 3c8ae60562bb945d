"""The contract of ``results.json`` as data, and one function that holds a dict to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

Rule = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _fraction(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _dict(value: Any) -> bool:
    return isinstance(value, dict)


def _curve(value: Any) -> bool:
    """[[epoch, number or null], ...] with rising epochs."""
    if not _list(value) or not all(_list(point) and len(point) == 2 for point in value):
        return False
    epochs = [epoch for epoch, _ in value]
    numbers = all(_number(epoch) for epoch in epochs)
    return numbers and epochs == sorted(set(epochs)) and all(_or_null(_number)(y) for _, y in value)


def _or_null(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


WORDS: dict[Rule, str] = {
    _number: "a number",
    _count: "a whole number, 0 or more",
    _fraction: "a fraction in 0..1",
    _text: "a text",
    _list: "a list",
    _dict: "an object",
    _curve: "a list of [epoch, number] with rising epochs",
}

# Required fields, in the order in which they are written. Sections in NULLABLE may be null: a run
# that starts from a saved learngene has no collective.
RULES: dict[str, dict[str, Rule]] = {
    "run": {
        "seed": _count,
        "versions": _dict,
        "config_sha256": _text,
        "seconds": _dict,
        "device": _text,
    },
    "seconds": {"world": _number, "collective": _number, "clients": _number, "total": _number},
    "data": {"name": _text, "image_shape": _list, "classes": _dict, "sha256": _text},
    "classes": {"base": _list, "open_world": _list, "novel": _list},
    "collective": {"tasks": _count, "conv_widths": _list, "parameters": _count, "stages": _list},
    "stage": {"task": _count, "known_classes": _count, "accuracy": _fraction},
    "criterion": {"sigma": _number, "rho": _list, "selected": _list},
    "learngene": {"layers": _list, "parameters": _count, "bytes": _count, "sha256": _text},
    "open_world": {
        "threshold": _number,
        "auroc": _fraction,
        "f1": _fraction,
        "known_accuracy": _fraction,
    },
    "client": {
        "id": _count,
        "classes": _list,
        "shots": _count,
        "train_images": _count,
        "test_images": _count,
        "device": _text,
    },
    "method": {
        "accuracy": _fraction,
        "accuracy_by_epoch": _curve,
        "seconds": _number,
        "bytes_down": _count,
        "bytes_up": _count,
    },
    "gradcam": {"images": _list, "stages": _list, "missing": _list},
    "gradcam image": {"class": _text, "picture": _text, "maps": _text, "predicted": _list},
    "gradcam stage": {"task": _count, "known_classes": _count, "layer": _count},
    "messages": dict.fromkeys(
        ("asked", "answered", "failed", "missing", "bytes_down", "bytes_up"), _count
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
    if not _dict(results):
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
    problems += _gradcam_problems(results.get("gradcam"))
    if not _list(results["clients"]):
        return [*problems, "clients: must be a list"]
    for index, client in enumerate(results["clients"]):
        problems += _client_problems(client, f"clients[{index}]")
    ids = Counter(client.get("id") for client in results["clients"] if _dict(client))
    problems += [f"clients: id {i} occurs {n} times" for i, n in ids.items() if n > 1]
    return problems + _summary_problems(results)


def _broken(section: Any, name: str, path: str) -> list[str]:
    """The rules of ``RULES[name]`` that the section breaks."""
    if not _dict(section):
        return [f"{path}: must be an object, is {section!r}"]
    found = [f"{path}.{key}: missing" for key in RULES[name] if key not in section]
    return found + [
        f"{path}.{key}: must be {WORDS[rule]}, is {section[key]!r}"
        for key, rule in RULES[name].items()
        if key in section and not rule(section[key])
    ]


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
    if not _dict(client):
        return [f"{path}: must be an object, is {client!r}"]
    if "error" in client:  # it may have failed before it knew its classes
        wrong = [] if _text(client["error"]) else [f"{path}.error: must be a text"]
        wrong += [f"{path}: has both error and methods"] if "methods" in client else []
        return wrong + ([] if _count(client.get("id")) else [f"{path}.id: must be a whole number"])
    problems = _broken(client, "client", path)
    if not _dict(client.get("methods")):
        return [*problems, f"{path}.methods: missing"]
    for name, method in client["methods"].items():
        problems += _broken(method, "method", f"{path}.methods.{name}")
        curve = method.get("accuracy_by_epoch") if _dict(method) else None
        if _curve(curve) and curve and curve[-1][1] != method.get("accuracy"):
            problems.append(
                f"{path}.methods.{name}.accuracy: must be that of the last epoch, "
                f"{curve[-1][1]}, is {method.get('accuracy')}"
            )
    return problems


def _summary_problems(results: Mapping[str, Any]) -> list[str]:
    summary = results["summary"]
    if not _dict(summary) or "gain" not in summary:
        return ["summary.gain: missing"]
    problems = []
    for name, values in summary.items():
        fields = ("mean", "ci95", "n", *(("wins", "p_value") if name == "gain" else ("std",)))
        if name == "gain" and values is None:  # learngene or scratch was not among the methods
            continue
        if not _dict(values):
            problems.append(f"summary.{name}: must be an object, is {values!r}")
            continue
        problems += [
            f"summary.{name}.{field}: must be a number or null"
            for field in fields
            if field not in values or not _or_null(_number)(values[field])
        ]
    return problems
