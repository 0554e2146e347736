"""Comparing two ways to train, seed by seed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

_MOST_SEEDS = 10_000


@dataclasses.dataclass(frozen=True)
class Spread:
    """Values of several seeds.

    Attributes:
      mean: of them.
      deviation: of the sample; None for a single value.
      count: how many.
    """

    mean: float
    deviation: float | None
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample deviation."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, len(values))


@dataclasses.dataclass(frozen=True)
class Difference:
    """One way minus the other, over the seeds that both have.

    Attributes:
      mean: of the differences.
      low: end of the 95 % interval of the mean, by Student's t; None for a single seed.
      high: the other end.
      deviation: of the differences; None for a single seed.
      count: seeds.
    """

    mean: float
    low: float | None
    high: float | None
    deviation: float | None
    count: int

    @property
    def told(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def seeds_for(self, difference: float) -> int | None:
        """How many seeds would show such a difference in 4 of 5 studies; None for a single seed."""
        return None if self.deviation is None else seeds_needed(self.deviation, difference)


def paired(own: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """The difference of two ways, each a value per seed; None if they share no seed.

    A seed gives both the same labels, first parameters and batches, so that what these do
    to the result is not in the difference.
    """
    seeds = sorted({*own} & {*baseline})
    if not seeds:
        return None
    from scipy import stats  # half a second at every start, if imported above

    differences = np.array([own[s] - baseline[s] for s in seeds])
    mean, count = float(np.mean(differences)), len(seeds)
    if count == 1:
        return Difference(mean, None, None, None, 1)
    deviation = float(np.std(differences, ddof=1))
    half = float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return Difference(mean, mean - half, mean + half, deviation, count)


def seeds_needed(deviation: float, difference: float, *, power: float = 0.8) -> int:
    """The fewest seeds with which a paired t-test at 5 % finds a true difference.

    Args:
      deviation: of the differences between seeds.
      difference: that is there, in the same unit; not 0.
      power: how often it is to be found.

    Returns:
      At most 10,000, which stands for more, too.
    """
    from scipy import stats

    if deviation <= 1e-9 * abs(difference):  # equal, but for rounding
        return 2
    for count in range(2, _MOST_SEEDS):
        limit = stats.t.ppf(0.975, count - 1)
        shift = abs(difference) / deviation * math.sqrt(count)
        # Without the wrong side, which hardly ever happens, and for which SciPy may return NaN.
        if stats.nct.sf(limit, count - 1, shift) >= power:
            return count
    return _MOST_SEEDS
