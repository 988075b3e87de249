"""Medians, intervals and lines, against hand computations and NumPy's."""

import numpy as np
import pytest

from nfnet_mm.benchmark.statistics import fit_line, paired_ratio, summary


def test_median_and_quartiles_are_those_of_numpy():
    values = [0.9, 3.1, 2.2, 8.0, 1.7, 2.5]
    found = summary(values)
    expected = np.percentile(values, [50, 25, 75])
    assert (found.median, found.low, found.high) == pytest.approx(tuple(expected))
    assert summary([2.0]) == type(found)(2.0, 2.0, 2.0)


# (pairs, the places of the interval's ends in order, its confidence): the sign test's, by hand from binomial sums
@pytest.mark.parametrize(
    'n, low, high, confidence',
    [
        (1, 1, 1, 0.0),
        (2, 1, 2, 1 / 2),
        (5, 1, 5, 1 - 2 / 32),
        (7, 1, 7, 1 - 2 / 128),  # leaving out one on either side: 1 - 16 / 128
        (9, 2, 8, 1 - 2 * (1 + 9) / 512),
        (20, 6, 15, 1 - 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20),
    ],
)
def test_the_interval_is_the_sign_tests(n, low, high, confidence):
    ours = list(range(1, n + 1))
    np.random.default_rng(0).shuffle(ours)
    found = paired_ratio([2.0 * value for value in ours], [2.0] * n)
    assert (found.median, found.low, found.high) == ((n + 1) / 2, low, high)
    assert found.confidence == pytest.approx(confidence, abs=1e-12)


def test_the_ratio_is_of_pairs():
    """A machine that becomes ten times slower half way changes nothing: ratios 1/2, 1/2, 1/2."""
    assert paired_ratio([1.0, 10.0, 10.0], [2.0, 20.0, 20.0]).median == 0.5


def test_the_line_is_numpys():
    x, y = [4, 8, 12, 16, 30], [1.0, 1.7, 2.9, 3.2, 6.6]
    line = fit_line(x, y)
    slope, intercept = np.polyfit(x, y, 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert line.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
