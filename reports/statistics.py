"""Summaries over clients: of one method, of the paired difference of two, of many such tests.

A client is the unit: every client is one draw of a task, so intervals say how a further client
drawn in the same way would fare. A thousand clients that share six classes and their images tell
no more of other classes, or of a further collective, than twenty do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

# Accuracies are ratios of small integers; differences that are equal on paper differ in the last
# bits and would be ranked apart (or counted as a win) without this rounding.
_DECIMALS = 12
EXACT = 200  # differences up to which all patterns of signs are counted, in milliseconds


def summarise(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean and spread of one number per client.

    Args:
        values: (n,) finite numbers, any unit.

    Returns:
        ``mean``; ``std`` (n - 1 in the denominator); ``ci95``, half the width of the 95 %
        Student-t interval of the mean; ``n``. What n does not determine is None: the mean of
        nothing, the spread of one value (which is unknown, not zero).

    Raises:
        ValueError: a value is not finite.
    """
    array = _finite(values, "values")
    n = len(array)
    mean = float(array.mean()) if n else None
    if n < 2:
        return {"mean": mean, "std": None, "ci95": None, "n": n}
    std = float(array.std(ddof=1))
    ci95 = float(stats.t.ppf(0.975, n - 1)) * std / n**0.5
    return {"mean": mean, "std": std, "ci95": ci95, "n": n}


def paired_gain(a: Sequence[float], b: Sequence[float]) -> dict[str, float | int | None]:
    """What ``a`` gains over ``b`` on the same clients.

    Args:
        a, b: (n,) accuracies as fractions, ``a[i]`` and ``b[i]`` of the same client.

    Returns:
        ``mean``, ``std``, ``ci95`` and ``n`` of a - b as in :func:`summarise`; ``wins``,
        ``losses``, ``ties``: clients with a > b, a < b, a = b; ``p_value``: two-sided Wilcoxon
        signed-rank test (``signed_rank_p``), None with fewer than two clients or without any
        difference.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs need as many values on both sides, got {len(a)} and {len(b)}")
    difference = np.round(_finite(a, "a") - _finite(b, "b"), _DECIMALS)
    p_value = None
    if len(difference) >= 2 and difference.any():
        p_value = signed_rank_p(difference)
    return {
        **summarise(difference),
        "wins": int((difference > 0).sum()),
        "losses": int((difference < 0).sum()),
        "ties": int((difference == 0).sum()),
        "p_value": p_value,
    }


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (1945), exact also where ranks are tied.

    The sum of the ranks of positive differences is held against all 2^n ways to set the signs,
    counted rank by rank. Equal magnitudes share their mean rank, zeros are left out. Where scipy
    takes the normal approximation (ties among more than 13 values), 20 wins of 20 have p = 9e-5 in
    place of 2e-6. Beyond ``EXACT`` values the approximation is taken here, too.

    Args:
        differences: (n,), at least one of them not 0.
    """
    differences = differences[differences != 0]
    if len(differences) > EXACT:
        return float(stats.wilcoxon(differences, method="asymptotic").pvalue)
    ranks = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)  # halves become whole
    share = np.ones(1)  # of the sign patterns, by the (doubled) sum of the positive ranks
    for rank in ranks:
        share = (np.pad(share, (0, rank)) + np.pad(share, (rank, 0))) / 2
    positive = ranks[differences > 0].sum()
    return float(min(1.0, 2 * min(share[: positive + 1].sum(), share[positive:].sum())))


def holm(p_values: Sequence[float | int | None]) -> list[float | None]:
    """Holm's step-down correction (1979): the chance of any false claim among all stays below p.

    Args:
        p_values: one a comparison; None (no test was possible) stays None and does not count.

    Returns:
        The corrected values in the same order, at most 1.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[place] = largest
    return corrected


def _finite(values: Sequence[float], name: str) -> np.ndarray:
    """(n,) float64 copy of the values, all finite."""
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"{name}[{bad[0]}] is {array[bad[0]]}: only finite numbers are summarised")
    return array
