"""Settings: dataclasses whose fields carry their range or their choices beside the default.

    @dataclass
    class IndividualSettings:
        lr: float = setting(0.002, ge=0, le=10)  # of stem and head
        schedule: str = setting("cosine", choices=("cosine", "constant"))

The command line (``conf/``) and the Python functions hold to the same ones. This module brings no
torch, and neither do the ``settings.py`` of the packages, so that a wrong word is refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from numbers import Integral, Real
from typing import Any, get_type_hints

from learngene.errors import InputError
from learngene.utils.files import expand_user


@dataclass(frozen=True)
class Limits:
    """What a field may be: a number in a range, one of some words, or a path."""

    gt: float | None = None  # above this
    ge: float | None = None  # at least this
    le: float = math.inf  # at most this
    choices: tuple[str, ...] = ()
    path: bool = False  # a file or a folder; ``~`` stands for the home
    by_client: bool = False  # a whole number, or a list of them: see ``by_client``


def setting(
    default: Any = MISSING,
    *,
    gt: float | None = None,
    ge: float | None = None,
    le: float = math.inf,
    choices: Sequence[str] = (),
    path: bool = False,
    by_client: bool = False,
) -> Any:
    """A dataclass field with its range (``gt`` or ``ge``, ``le``) or its ``choices``, or a path."""
    limits = Limits(gt, ge, le, tuple(choices), path, by_client)
    return field(default=default, metadata={"limits": limits})


def by_client(value: Any) -> list[Any]:
    """A setting that may differ between clients: client i has entry i modulo their number. Empty
    where it is not set."""
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def of_client(value: Any, client: int) -> Any:
    """The client's entry of a setting that may differ between clients, and is set."""
    entries = by_client(value)
    return entries[client % len(entries)]


@cache
def kinds_of(schema: type) -> dict[str, Any]:
    """Types of a settings class's fields, by name; resolved once, since a check asks for all."""
    return get_type_hints(schema)


def limits_of(settings: Any, prefix: str = "") -> Iterator[tuple[str, Limits]]:
    """Every limited field of a settings class or object, nested ones too, by its dotted name."""
    kinds = kinds_of(settings if isinstance(settings, type) else type(settings))
    for entry in fields(settings):
        if is_dataclass(kinds[entry.name]):
            yield from limits_of(kinds[entry.name], f"{prefix}{entry.name}.")
        elif limits := entry.metadata.get("limits"):
            yield prefix + entry.name, limits


def check_settings(settings: Any, prefix: str = "") -> None:
    """Hold every field of a settings object, nested ones too, to its range and its choices.

    None passes: it is what a field says that is not set. ``prefix`` stands in front of the names in
    messages, as ``individual.``.

    Raises:
        InputError: the first field that is out of its range or none of its choices.
    """
    for entry in fields(settings):
        name, value = prefix + entry.name, getattr(settings, entry.name)
        if is_dataclass(value):
            check_settings(value, f"{name}.")
        elif value is not None and (limits := entry.metadata.get("limits")):
            check_value(name, value, limits, whole=str(entry.type).startswith("int"))


def range_of(limits: Limits) -> str:
    """What a number may be, in words. A bound that is only that of 64 bits is not said."""
    low = f"above {limits.gt:g}" if limits.gt is not None else f"at least {limits.ge or 0:g}"
    return low + (f" and at most {limits.le:,.15g}" if limits.le < 2**63 - 1 else "")


def check_value(name: str, value: Any, limits: Limits, *, whole: bool = False) -> None:
    """Hold one value to its limits.

    Raises:
        InputError: it is none of the choices, no number (``whole``: no integer), out of range, or a
            path that is blank or in nobody's home.
    """
    if limits.by_client:
        if not (entries := by_client(value)):
            raise InputError(name, "[]", "an empty list", f"Write a number, or {name}=null")
        for entry in entries:
            check_value(name, entry, replace(limits, by_client=False), whole=True)
        return
    if limits.path:
        if not str(value).strip():
            fix = f"Write {name}=PATH, or leave it out"
            raise InputError(name, repr(value), "a blank path", fix)
        if str(value).startswith("~") and str(expand_user(value)).startswith("~"):
            fix = "Write the whole path, or ./~ for a name that begins so"
            raise InputError(name, value, "no such folder: nobody has a home of that name", fix)
        return
    if limits.choices:
        if value not in limits.choices:
            problem = f"not one of {', '.join(limits.choices)}"
            raise InputError(name, value, problem, f"Write {name}={limits.choices[0]}")
        return
    low, closed = (limits.gt, False) if limits.gt is not None else (limits.ge or 0, True)
    rule = f"must be {range_of(limits)}"
    nearest = low if closed else (min(limits.le, 1) if low == 0 else low)
    kind: Any = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind):
        rule = f"not {'a whole number' if whole else 'a number'}: {rule}"
    elif math.isfinite(value) and (value >= low if closed else value > low) and value <= limits.le:
        return
    raise InputError(name, value, rule, f"Write, for instance, {name}={nearest:g}")
