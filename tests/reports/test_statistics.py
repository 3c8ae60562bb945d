"""Golden values, worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from learngene.seeding import generator
from reports.statistics import (
    EXACT,
    class_interval,
    difference_of_means,
    holm,
    paired_gain,
    signed_rank_p,
    summarise,
)


def test_mean_deviation_and_interval_of_three_values():
    # mean 4, deviations -2, 0, 2: std = sqrt(8 / 2) = 2; t(0.975, 2) = 4.302653
    summary = summarise([2, 4, 6])
    assert summary["mean"] == 4
    assert summary["std"] == pytest.approx(2)
    assert summary["ci95"] == pytest.approx(4.302653 * 2 / 3**0.5, rel=1e-6)
    assert summary["n"] == 3


def test_one_value_has_no_spread_and_nothing_has_no_mean():
    assert summarise([0.5]) == {"mean": 0.5, "std": None, "ci95": None, "n": 1}
    assert summarise([]) == {"mean": None, "std": None, "ci95": None, "n": 0}


def test_equal_values_have_an_interval_of_width_zero():
    assert summarise([0.5, 0.5]) == {"mean": 0.5, "std": 0.0, "ci95": 0.0, "n": 2}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match=r"values\[1\] is"):
        summarise([0.5, bad])


def test_gain_of_five_winning_pairs():
    # differences .1 .2 .3 .4 .5: mean .3, std sqrt(.1 / 4); all ranks positive: p = 2 / 2^5
    gain = paired_gain([0.6, 0.7, 0.8, 0.9, 1.0], [0.5] * 5)
    assert gain["mean"] == pytest.approx(0.3)
    assert gain["std"] == pytest.approx(0.025**0.5)
    assert gain["ci95"] == pytest.approx(2.776445 * 0.025**0.5 / 5**0.5, rel=1e-6)
    assert (gain["wins"], gain["losses"], gain["ties"], gain["n"]) == (5, 0, 0, 5)
    assert gain["p_value"] == pytest.approx(1 / 16)


def test_signed_ranks_with_one_loss():
    # differences .4 .3 -.1 .2: ranks 4 3 1 2, the negative sum is 1. Of the 16 sign patterns two
    # have a sum of at most 1 ({} and {1}): p = 2 * 2 / 16
    gain = paired_gain([0.9, 0.8, 0.4, 0.7], [0.5] * 4)
    assert (gain["wins"], gain["losses"], gain["ties"]) == (3, 1, 0)
    assert gain["p_value"] == pytest.approx(0.25)


def test_twenty_wins_with_ties_are_counted_exactly():
    # of 2^20 patterns of signs one has as large a sum, one as small: scipy's default says 8.8e-5
    gain = paired_gain([0.9] * 15 + [0.7] * 5, [0.5] * 20)
    assert gain["p_value"] == pytest.approx(2 / 2**20, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_p_is_that_of_all_permutations_of_the_signs(seed):
    drawn = generator(seed, "signed-ranks")
    differences = drawn.integers(-4, 6, size=12) / 10  # ties and zeros
    every = stats.PermutationMethod(n_resamples=np.inf)
    assert signed_rank_p(differences) == pytest.approx(
        stats.wilcoxon(differences, method=every).pvalue, rel=1e-9
    )


def test_p_of_many_values_meets_the_normal_approximation():
    differences = generator(1, "signed-ranks").normal(0.1, 1, EXACT)
    exact = signed_rank_p(differences)
    near = stats.wilcoxon(differences, method="asymptotic").pvalue
    assert exact == pytest.approx(near, rel=0.02)
    assert signed_rank_p(np.append(differences, 0.01)) == pytest.approx(near, rel=0.1)


def test_swapping_the_sides_changes_the_sign_alone():
    a, b = [0.9, 0.8, 0.4, 0.7], [0.5, 0.6, 0.7, 0.1]
    ours, theirs = paired_gain(a, b), paired_gain(b, a)
    assert ours["mean"] == pytest.approx(-theirs["mean"])
    assert (ours["wins"], ours["losses"]) == (theirs["losses"], theirs["wins"])
    assert ours["p_value"] == theirs["p_value"]


def test_last_bits_of_a_difference_are_no_win():
    # 0.1 + 0.2 is 0.30000000000000004
    gain = paired_gain([0.1 + 0.2, 0.5], [0.3, 0.5])
    assert (gain["wins"], gain["ties"], gain["p_value"]) == (0, 2, None)


def test_a_single_pair_has_no_test():
    gain = paired_gain([0.9], [0.5])
    assert (gain["n"], gain["wins"], gain["ci95"], gain["p_value"]) == (1, 1, None, None)


def test_no_pair_at_all():
    gain = paired_gain([], [])
    assert (gain["mean"], gain["n"], gain["wins"], gain["p_value"]) == (None, 0, 0, None)


def test_sides_of_different_length_are_refused():
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_gain([1, 2], [1])


def test_holm_of_its_own_example():
    """Four tests; sorted p times 4, 3, 2, 1, never falling, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_holm_leaves_out_what_was_not_tested():
    assert holm([None, 0.02, None, 0.03]) == [None, 0.04, None, 0.04]
    assert holm([]) == []


def drawn_clients(chance, clients, classes, share):
    """Values of clients with five classes each, mean 0, variance 1, of which the classes make
    ``share``; and the classes' names."""
    of = [chance.choice(classes, 5, replace=False) for _ in range(clients)]
    effects = chance.normal(0, (5 * share) ** 0.5, classes)
    values = [effects[its].mean() + chance.normal(0, (1 - share) ** 0.5) for its in of]
    return values, [[f"class {c}" for c in its] for its in of]


@pytest.mark.parametrize(("clients", "share"), [(20, 0.0), (20, 0.3), (60, 0.7)])
def test_intervals_for_new_classes_hold_the_mean_where_those_over_clients_do_not(clients, share):
    chance = np.random.default_rng(5)
    held, narrow = [], []
    for _ in range(150):
        values, classes = drawn_clients(chance, clients, 20, share)
        held.append(abs(np.mean(values)) <= class_interval(values, classes))
        narrow.append(abs(np.mean(values)) <= summarise(values)["ci95"])
    assert np.mean(held) >= 0.91  # 0.95, two standard errors of 150 draws off
    if share:
        assert np.mean(held) <= 0.995 and np.mean(narrow) < 0.85


def test_where_values_are_of_their_class_alone_classes_are_the_sample():
    # 60 clients with one of six classes each, nearly no rest: Student's t over six class means
    effects = np.array([0.0, 1.0, 2.0, 4.0, 7.0, 10.0])
    of = np.arange(60) % 6
    values = effects[of] + 1e-3 * np.random.default_rng(0).standard_normal(60)
    half = class_interval(values.tolist(), [[str(c)] for c in of])
    by_class = summarise(effects.tolist())["ci95"]
    assert 0.8 * by_class < half < by_class  # whose six are also told from a rest
    assert half > 3 * summarise(values.tolist())["ci95"]


def test_an_interval_for_new_classes_needs_other_classes_and_three_clients():
    assert class_interval([0.1, 0.2, 0.3], [["a", "b"]] * 3) is None
    assert class_interval([0.1, 0.2], [["a"], ["b"]]) is None
    assert class_interval([0.25] * 4, [["a"], ["b"], ["c"], ["a"]]) == 0.0
    half = class_interval([0.1, 0.2, 0.3, 0.5], [["a"], ["b"], ["c"], ["a"]])
    assert class_interval([10.0, 20.0, 30.0, 50.0], [["a"], ["b"], ["c"], ["a"]]) == pytest.approx(
        100 * half
    )
    shifted = class_interval([5.1, 5.2, 5.3, 5.5], [["a"], ["b"], ["c"], ["a"]])
    assert shifted == pytest.approx(half)
    gain = paired_gain([0.6, 0.7, 0.8, 1.0], [0.5] * 4, [["a"], ["b"], ["c"], ["a"]])
    assert gain["ci95_classes"] == pytest.approx(half)
    assert paired_gain([0.6, 0.7], [0.5, 0.5])["ci95_classes"] is None


def test_groups_of_other_units_are_compared_by_welch():
    # variances 1 / 3 and 16 / 3 of the means: 17 / 3; Welch's degrees of freedom 289 / 257 * 2
    found = difference_of_means([1, 2, 3], [10, 14, 18])
    degrees = (17 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (16 / 3) ** 2 / 2)
    assert found["mean"] == -12
    assert found["ci95"] == pytest.approx(stats.t.ppf(0.975, degrees) * (17 / 3) ** 0.5)
    assert difference_of_means([1.0], [2.0, 3.0])["ci95"] is None
