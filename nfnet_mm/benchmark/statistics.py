"""Medians, their spread, ratios of pairs with an interval, and fitted lines."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """The middle of repeated measurements, in their unit."""

    median: float
    low: float  # the first quartile
    high: float  # the third


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of pairs, and an interval that holds the true one with probability ``confidence``."""

    median: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Line:
    """The least-squares line y = intercept + slope * x; ``r2`` is the part of y's variance that it explains."""

    intercept: float
    slope: float
    r2: float


def summary(values: Sequence[float]) -> Summary:
    """Median and quartiles, interpolated between the values.

    >>> summary([4.0, 1.0, 3.0, 2.0, 5.0])
    Summary(median=3.0, low=2.0, high=4.0)
    """
    if len(values) == 1:
        return Summary(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method='inclusive')
    return Summary(median, low, high)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The ratio of two sides that were measured in turns, by their pairs.

    What slows the machine down for a while falls on both sides of a pair, so that the ratios of pairs vary less than
    either side. The interval is between two of these ratios, in order, and assumes nothing of how they are spread: the
    true median is below the k-th of n with the probability that fewer than k of n fair coins show heads (the sign
    test). It is that of the largest k which keeps 95%; fewer than six pairs cannot, and have all their ratios in it.

    Args:
        ours, theirs: as many values each, of which the i-th are a pair; none of ``theirs`` is zero.

    >>> paired_ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    Ratio(median=1.0, low=0.5, high=1.5, confidence=0.75)
    """
    ratios = sorted(a / b if b else math.nan for a, b in zip(ours, theirs))
    n, k = len(ratios), 1
    outside = 2 / 2**n
    while 2 * k + 1 < n and (more := outside + 2 * math.comb(n, k) / 2**n) <= 1 - _CONFIDENCE:
        k, outside = k + 1, more
    return Ratio(statistics.median(ratios), ratios[k - 1], ratios[n - k], 1 - outside)


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The least-squares line through points of at least two different x.

    >>> fit_line([1, 2, 3], [3, 5, 7])
    Line(intercept=1.0, slope=2.0, r2=1.0)
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    dx, dy = xs - xs.mean(), ys - ys.mean()
    slope = float(dx @ dy / (dx @ dx))
    spread = float(dy @ dy)
    rest = dy - slope * dx
    return Line(float(ys.mean() - slope * xs.mean()), slope, 1 - float(rest @ rest) / spread if spread else 1.0)
