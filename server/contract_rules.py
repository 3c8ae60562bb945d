"""What a field of ``results.json`` may be: rules, their words, and who breaks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
