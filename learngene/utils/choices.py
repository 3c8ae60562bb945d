"""What settings of an individual may be: words and ranges. Anything else is refused.

The command line (``conf.validate``) and the Python functions hold to the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from learngene.errors import InputError

HEADS = ("prototype", "mlp")
LABELS = ("exact", "true")  # of the Fisher information
SCHEDULES = ("cosine", "constant")
Ranges = Mapping[str, tuple[float, float]]  # field: smallest, largest
INDIVIDUAL: Ranges = {
    "epochs": (0, 100_000),
    "batch_size": (2, 65_536),
    "lr": (0, 10),
    "inherited_lr": (0, 10),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "eval_every": (1, 100_000),
}
RETAIN: Ranges = {"ewc_lambda": (0, math.inf), "fisher_samples": (1, 1_000_000)}
WHOLE = ("epochs", "batch_size", "eval_every", "fisher_samples")


def among(field: str, value: str, words: tuple[str, ...]) -> str:
    """``value``, which must be one of ``words``.

    Raises:
        InputError: it is none of them, so that a misspelt one does not pass for another.
    """
    if value not in words:
        raise InputError(
            field, value, "there is no such choice", f"Write one of {', '.join(words)}"
        )
    return value


def check_ranges(settings: Mapping[str, Any], ranges: Ranges) -> None:
    """Hold that each setting that ``ranges`` names is a number within its range.

    Raises:
        InputError: one is not.
    """
    for field, (low, high) in ranges.items():
        value = settings[field]
        kind = Integral if field in WHOLE else Real  # NumPy's, too
        fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
        if not (fits and low <= value <= high):
            number = "a whole number" if field in WHOLE else "a number"
            upper = "" if math.isinf(high) else f" to {high:,}"
            raise InputError(field, value, f"not {number} in its range",
                             f"Write {number} from {low:,}{upper}")  # fmt: skip
