"""Paired differences against SciPy, and how many seeds one needs."""

import numpy as np
import pytest
from scipy import stats

from afd_jax.reports.paired import Difference, paired, seeds_needed, spread


def test_the_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    own, baseline = ({s: float(v) for s, v in enumerate(rng.normal(90, 2, 6))} for _ in range(2))
    found = paired(own, dict(reversed(baseline.items())))
    test = stats.ttest_rel([*own.values()], [*baseline.values()])
    expected = test.confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), rtol=1e-12)
    differences = np.subtract([*own.values()], [*baseline.values()])
    np.testing.assert_allclose(found.mean, differences.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, differences.std(ddof=1), rtol=1e-12)
    assert found.count == 6 and found.told == (test.pvalue < 0.05)


def test_seeds_that_one_lacks_are_left_out():
    own, baseline = {1: 3.0, 2: 5.0, 7: 9.0, 8: 100.0}, {0: -50.0, 1: 2.0, 2: 3.0, 7: 6.0}
    assert paired(own, baseline) == paired({s: own[s] for s in (1, 2, 7)}, baseline)
    assert (paired(own, baseline).mean, paired(own, baseline).count) == (2.0, 3)
    assert paired(own, {3: 1.0}) is None


def test_a_single_seed_has_no_interval():
    found = paired({3: 2.5}, {3: 2.0})
    assert found == Difference(0.5, None, None, None, 1)
    assert not found.told and found.seeds_for(0.5) is None
    assert spread([2.0]).deviation is None and spread([2.0, 4.0]).deviation == np.sqrt(2)


@pytest.mark.parametrize(
    ("values", "told"),
    [((1.0, 1.1, 1.2), True), ((-1.0, -1.1, -1.2), True), ((-1.0, 1.0, 0.5), False)],
)
def test_told_apart_is_an_interval_without_zero(values, told):
    found = paired(dict(enumerate(values)), dict.fromkeys(range(3), 0.0))
    assert found.told is told
    assert (found.low > 0) == (told and values[0] > 0)


@pytest.mark.parametrize(
    ("effect", "power", "seeds"),
    # As G*Power and statsmodels' TTestPower have them.
    [(0.5, 0.8, 34), (1.0, 0.8, 10), (0.8, 0.8, 15), (0.2, 0.8, 199), (0.5, 0.9, 44)],
)
def test_seeds_needed_are_those_of_the_tables(effect, power, seeds):
    for sign in (1, -1):
        assert seeds_needed(2.0, sign * 2 * effect, power=power) == seeds
    assert Difference(9.0, 0.0, 1.0, 2.0, 4).seeds_for(2 * effect) == seeds_needed(1, effect)
    assert seeds_needed(0.0, 0.5) == seeds_needed(8e-15, 0.38) == 2  # all equal, but for rounding
    assert seeds_needed(1.0, 0.01) == 10_000  # or more


def test_seeds_needed_fall_with_the_effect():
    """Also where SciPy's noncentral t is NaN on one side."""
    found = [seeds_needed(1.0, effect) for effect in np.geomspace(0.1, 1000, 60)]
    assert found == sorted(found, reverse=True) and found[-1] == 2
    # Chances to find it by simulation: 0.556 and 0.999, 0.994.
    assert (seeds_needed(1.0, 6.93), seeds_needed(1.0, 25.0)) == (3, 2)


def test_seeds_needed_find_it_in_four_of_five_studies():
    rng = np.random.default_rng(0)
    seeds = seeds_needed(0.7, 0.6)
    for count, least, most in ((seeds, 0.79, 0.86), (seeds - 1, 0.7, 0.81)):
        draws = rng.normal(0.6, 0.7, size=(20_000, count))
        found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
        assert least < found < most
