"""Means of few values, with Student's interval."""

import math
import statistics
from collections.abc import Sequence

import numpy as np


def student_quantile(df: int, inside: float = 0.95) -> float:
    """The t for which Student's distribution of ``df`` degrees of freedom has ``inside`` between -t and t.

    >>> [round(student_quantile(df), 3) for df in (1, 2, 4, 30)]
    [12.706, 4.303, 2.776, 2.042]
    """
    # t = sqrt(df) tan(u) has a density of cos(u)^(df - 1), on a finite interval
    constant = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    u = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(u) ** (df - 1)
    mass = 2 * constant * np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)]) * u[1]
    return math.sqrt(df) * math.tan(float(np.interp(inside, mass, u)))


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, lower end, upper end) of the 95% interval of the true mean; of a single value it is infinite.

    The values, such as differences of pairs of runs, are taken to be independent and normally distributed.

    >>> mean_interval([1.0, 2.0, 3.0])  # 4.303 / sqrt(3) to either side
    (2.0, -0.4841377119..., 4.4841377119...)
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = student_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half
