"""Numbers, sizes and p values as people read them."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from reports.schema import Results

NONE = "–"  # shown where a number does not exist


def format_number(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number with so many decimals, halves to even: of ten digits, since 80.35 is not a
    binary fraction and would come out as 80.3."""
    exact = Decimal(f"{value:.10g}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN)
    if exact == 0:  # "-0.0" would claim a direction
        return f"{abs(exact)}"
    return f"{exact:+}" if sign else f"{exact}"


def percent(fraction: float | None, ci95: float | None = None) -> str:
    """A fraction as percent with one digit: ``93.1 %``, or ``93.1 ± 1.2 %`` with an interval."""
    if fraction is None:
        return NONE
    interval = "" if ci95 is None else f" ± {format_number(100 * ci95)}"
    return f"{format_number(100 * fraction)}{interval} %"


def format_points(fraction: float | None, ci95: float | None = None) -> str:
    """A difference of fractions as signed percentage points: ``+65.7`` or ``+65.7 ± 3.1``."""
    if fraction is None:
        return NONE
    interval = "" if ci95 is None else f" ± {format_number(100 * ci95)}"
    return format_number(100 * fraction, sign=True).replace("-", "−") + interval


def p_value(value: float | None) -> str:
    """A p value; below a thousandth only that it is."""
    return NONE if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def kilobytes(count: float | None) -> str:
    """Bytes as KB, without the unit: one digit below 100 KB, none from there on."""
    if count is None:
        return NONE
    return f"{count / 1e3:,.1f}" if 0 < count < 99_950 else f"{count / 1e3:,.0f}"


def format_bytes(count: float | None) -> str:
    """Bytes with the unit that suits them: ``312 B``, ``48.0 KB``, ``1.8 MB``."""
    if count is None:
        return NONE
    if count < 1e3:
        return f"{count:.0f} B"
    return f"{count / 1e3:.1f} KB" if count < 999_950 else f"{count / 1e6:,.1f} MB"


def seconds(value: float | None) -> str:
    """Seconds, without the unit."""
    return NONE if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def value_text(value: Any) -> str:
    """A setting as people write it."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def thousands(value: int | None) -> str:
    """A whole number with commas: ``48,000``."""
    return NONE if value is None else f"{value:,}"


def decimal(value: float | None) -> str:
    """A number with three decimals."""
    return NONE if value is None else f"{value:.3f}"


def score_words(name: str) -> str:
    """The name of an open-world score as it is read."""
    return name.replace("_", " ")


def rho_label(criterion: Results) -> str:
    """What the colours of a map of rho are, by its form (``learngene.collective.criterion``)."""
    invariant = criterion.get("form") == "invariant"
    compared = "|N rms(w) ∂L/∂w|" if invariant else "gradients"
    return f"ρ: share of {compared} above σ = {criterion['sigma']:g}"


def score_label(open_world: Results) -> str:
    """What the horizontal axis of the open-world histogram holds."""
    name = open_world.get("score") or "max_softmax"
    if name == "max_softmax":
        return "unknown probability (Eq. 2)"
    return f"{score_words(name)} (higher = more unknown)"
