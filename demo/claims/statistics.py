"""Means over seeds, and how far the mean of many more seeds may be from them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nfnet_mm.analysis.intervals import mean_interval


@dataclass(frozen=True)
class Interval:
    """A mean over ``count`` seeds, their standard deviation, and the 95% confidence interval of the mean."""

    mean: float
    low: float
    high: float
    sd: float
    count: int

    def __str__(self) -> str:
        return f'{self.mean:.3g} ({self.low:.3g} to {self.high:.3g})'

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low > 0


def interval(values: Sequence[float]) -> Interval:
    """Student's t-interval at 95%: mean ± t * sd / sqrt(n), with t of n - 1 degrees of freedom.

    With a single value nothing is known of the spread, and the interval is everything.

    >>> interval([1.0, 2.0, 3.0])
    Interval(mean=2.0, low=-0.484..., high=4.484..., sd=1.0, count=3)
    """
    return Interval(*mean_interval(values), statistics.stdev(values) if len(values) > 1 else math.nan, len(values))


def spread(values: Sequence[float], digits: int = 1) -> str:
    """``mean ± standard deviation``, as it stands in a table.

    >>> spread([1.0, 2.0, 3.0])
    '2.0 ± 1.0'
    """
    deviation = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.fmean(values):.{digits}f}{deviation}'
