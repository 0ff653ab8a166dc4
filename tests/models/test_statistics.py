"""Quantiles by hand, intervals that cover, ratios within blocks, and refusals where the data cannot tell."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from helpers import coverage
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from lab.errors import UsageError
from lab.models.statistics import (
    BETWEEN_RUNS,
    Estimate,
    Interval,
    crossing,
    estimate,
    fewest_trials,
    paired_ratio,
    proportion,
    quantile,
    samples_needed,
)

numbers = st.lists(st.floats(0.01, 100), min_size=1, max_size=30)


def test_quantiles_by_hand() -> None:
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    assert quantile([1, 2, 3, 4], 0.99) == pytest.approx(3.97)
    assert quantile([4, 1, 3, 2], 0) == 1
    assert quantile([7], 0.99) == 7


@given(numbers, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_are_monotone_and_inside(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert min(values) <= quantile(values, low) <= quantile(values, high) <= max(values)


def test_the_median_by_hand() -> None:
    assert estimate([1, 2, 9]).value == 2
    assert estimate([1, 2, 3, 9]).value == 2.5


def test_too_few_trials_have_their_range_and_no_interval() -> None:
    few = estimate([1, 2, 3, 4, 50])
    assert (few.value, few.low, few.high, few.trials) == (3, 1, 50, 5)
    assert not few.is_interval
    assert estimate([1, 2, 3, 4, 5, 6]).is_interval


def test_fewest_trials_follow_from_the_coverage_of_the_range() -> None:
    for confidence in (0.5, 0.8, 0.9, 0.95, 0.99):
        n = fewest_trials(confidence)
        assert 1 - 2 ** (1 - n) >= confidence > 1 - 2 ** (2 - n)
    assert fewest_trials() == 6


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=12))
@example([1.0, *[80.19963502124504] * 5])  # a resampled median of these is one rounding lower
def test_an_interval_is_inside_the_trials_and_around_their_median(values: list[float]) -> None:
    found = estimate(values, between_runs=0)
    slack = 1e-9 * max(values)
    assert min(values) - slack <= found.low <= found.value <= found.high <= max(values) + slack


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=12), st.floats(0, 0.2), st.floats(0.5, 2))
def test_what_runs_differ_by_adds_to_an_interval_in_quadrature(
    values: list[float], share: float, scale: float
) -> None:
    """So it moves no end by more than itself, whatever the unit, and one that is far off hardly at all."""
    own, found = estimate(values, between_runs=0), estimate(values, between_runs=share)
    again = estimate(np.multiply(values, scale), between_runs=share)
    assert (again.low, again.high) == pytest.approx((scale * found.low, scale * found.high))
    for end, further in ((own.low, found.low), (own.high, found.high)):
        was, now = abs(math.log(end / own.value)), abs(math.log(further / own.value))
        assert now == pytest.approx(math.hypot(was, math.log1p(share)) if was else 0, abs=1e-9)


def test_what_runs_differ_by_by_hand() -> None:
    """A triangle of sides 3, 4 and 5, in logarithms."""
    thirds, share = math.exp(0.03), math.expm1(0.04)
    found = estimate([1 / thirds, 1 / thirds, 1, 1, thirds, thirds], between_runs=share)
    assert (found.value, found.low, found.high) == pytest.approx((1, math.exp(-0.05), math.exp(0.05)))
    mirrored = estimate([-thirds, -thirds, -1, -1, -1 / thirds, -1 / thirds], between_runs=share)
    assert (mirrored.low, mirrored.high) == pytest.approx((-math.exp(0.05), -math.exp(-0.05)))
    across = estimate([-1, 2, 2, 2, 2, 3], between_runs=share)
    assert across.low == -1
    assert across.high > 3


def test_an_interval_ends_where_its_number_can_lie() -> None:
    found = estimate([0.9, 0.95, 0.98, 0.985, 0.99, 0.999], within=(0, 1))
    assert 0.88 < found.low < 0.9
    assert found.high == 1
    even = estimate([49 * (1 / 49)] * 6, within=(1, 49))
    assert even.low == even.value == even.high, "a rounding below 1"


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=8))
def test_without_what_runs_differ_by_an_end_is_a_trial_to_the_last_digit(values: list[float]) -> None:
    """Else a ratio that was 1 in the worst replication would be below 1."""
    found = estimate(values, between_runs=0)
    assert (found.low, found.high) == (min(values), max(values))


def test_intervals_hold_the_machine_of_another_hour() -> None:
    """Two hours differ by 1 % (standard deviation) beyond the scatter of blocks, be it less or more."""
    random, pairs = np.random.default_rng(8), 2000
    for scatter in (0.001, 0.01, 0.1):

        def hour(scatter: float = scatter) -> Estimate:
            speed = random.lognormal(0, BETWEEN_RUNS / 2)
            return estimate(speed * random.lognormal(0, scatter, 6))

        hours = [(hour(), hour()) for _ in range(pairs)]
        overlap = sum(one.low <= two.high and two.low <= one.high for one, two in hours)
        held = sum(one.low <= two.value <= one.high for one, two in hours)
        assert overlap >= 0.95 * pairs
        assert held >= 0.80 * pairs


def test_trials_that_agree_have_an_interval_of_no_width() -> None:
    agreed = estimate([27.0] * 8)
    assert agreed.low == agreed.high == 27


def test_the_same_trials_give_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(50, 2, 10)
    assert estimate(values) == estimate(list(values))


@pytest.mark.parametrize(("trials", "rank"), [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (20, 6), (25, 8)])
def test_the_ends_of_an_interval_are_trials(trials: int, rank: int) -> None:
    found = estimate(np.arange(1.0, trials + 1)[::-1], between_runs=0)
    assert (found.low, found.high) == (rank, trials + 1 - rank)


@pytest.mark.parametrize("trials", [6, 7, 12, 20])
@pytest.mark.parametrize("scatter", coverage.DRAWS)
def test_intervals_cover_the_true_median_as_often_as_they_say(trials: int, scatter: str) -> None:
    assert coverage.of_medians(trials, scatter, draws=2000) >= 0.94


@pytest.mark.parametrize("blocks", [6, 7, 12])
def test_intervals_of_paired_ratios_cover_the_true_one_though_blocks_differ(blocks: int) -> None:
    assert coverage.of_paired_ratios(blocks, draws=1000) >= 0.94


@pytest.mark.parametrize(("part", "whole"), [(0, 20), (1, 20), (19, 20), (20, 20), (444, 444), (3, 7)])
def test_proportions_are_those_of_scipy(part: int, whole: int) -> None:
    found, expected = proportion(part, whole), binomtest(part, whole).proportion_ci(0.95, method="exact")
    assert (found.value, found.trials) == (part / whole, whole)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.interval is Interval.PROPORTION
    assert found.is_interval


@pytest.mark.parametrize("whole", [6, 20, 60])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_intervals_of_proportions_cover_the_true_one(whole: int, share: float) -> None:
    assert coverage.of_proportions(whole, share, draws=2000) >= 0.94


@pytest.mark.parametrize("effect", [0.8, 0.97, 1.05, 1.2])
def test_a_ratio_further_from_1_than_the_smallest_told_is_told_from_1(effect: float) -> None:
    scatter = np.array([0.9, 0.97, 1.0, 1.01, 1.02, 1.06])
    smallest = estimate(scatter).smallest_told
    assert smallest is not None
    found = estimate(effect * scatter / np.median(scatter))
    assert (found.low > 1 or found.high < 1) == (max(effect, 1 / effect) - 1 > smallest)
    assert found.smallest_told == pytest.approx(smallest), "it is of the scatter, whatever the ratio"


def test_too_few_trials_could_have_seen_nothing() -> None:
    assert estimate([1.0, 1.1, 1.2]).smallest_told is None
    assert estimate([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]).smallest_told is None


def test_ratios_are_taken_within_blocks() -> None:
    one_worker = np.array([10, 20, 30, 40, 50, 60], dtype=float)
    ratio = paired_ratio(2 * one_worker, one_worker)
    assert (ratio.low, ratio.value, ratio.high) == (2, 2, 2)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=9))
def test_the_order_of_blocks_does_not_matter(pairs: list[tuple[float, float]]) -> None:
    over, under = zip(*pairs, strict=True)
    forth, back = paired_ratio(over, under), paired_ratio(over[::-1], under[::-1])
    assert forth.value == back.value


def test_samples_needed() -> None:
    assert samples_needed(0.99) == 299
    assert samples_needed(0.95) == 59
    assert samples_needed(0.5) == 5


@given(st.floats(0.01, 0.999), st.floats(0.5, 0.999))
def test_samples_needed_are_enough_and_one_less_is_not(share: float, confidence: float) -> None:
    n = samples_needed(share, confidence)
    assert 1 - share**n >= confidence - 1e-12
    assert n == 1 or 1 - share ** (n - 1) < confidence


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (lambda: estimate([1, math.nan]), "values: 1 of 2 values are not finite: leave them out"),
        (
            lambda: quantile([], 0.5),
            "values must be a list of at least one number, but its shape is (0,), got []",
        ),
        (lambda: quantile([1], 99), "share must be at most 1, got 99"),
        (lambda: proportion(3, 2), "a part is at most the whole, got 3 of 2"),
        (lambda: proportion(0, 0), "whole must be at least 1, got 0"),
        (lambda: fewest_trials(95), "confidence must be below 1, got 95"),
        (lambda: samples_needed(0), "share must be above 0, got 0"),
        (lambda: paired_ratio([1, 2], [1]), "pairs need as many values on both sides, got 2 and 1"),
        (lambda: paired_ratio([1, 2], [1, 0]), "a ratio needs a denominator above 0 in every block"),
    ],
)
def test_what_cannot_be_summarised_is_refused(ask: Callable[[], object], line: str) -> None:
    with pytest.raises(UsageError) as error:
        ask()
    assert str(error.value).startswith(line)


def _trials(seed: int, count: int = 24) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    x = random.uniform(0.3, 0.9, count)
    return x, np.exp(3 * x**2) * random.lognormal(sigma=0.15, size=count)


LEVEL = float(np.exp(3 * 0.6**2))


def test_a_crossing_is_where_the_trend_reaches_the_level() -> None:
    x = np.linspace(0.2, 0.9, 30)
    found = crossing(x, np.exp(x**2), float(np.exp(0.25)))
    assert found is not None
    assert found.value == pytest.approx(0.5, abs=0.003)
    assert (found.trials, found.interval) == (30, Interval.CROSSING)


def test_the_interval_of_a_crossing_covers_it_in_nineteen_of_twenty_runs() -> None:
    found = [crossing(*_trials(seed), LEVEL) for seed in range(60)]
    covered = sum(one is not None and one.low <= 0.6 <= one.high for one in found)
    assert covered >= 52


def test_no_crossing_is_told_by_few_trials_by_one_side_or_by_a_trend_that_falls() -> None:
    x, y = _trials(1)
    assert crossing(x[:7], y[:7], LEVEL) is None
    assert crossing(x, y, 100.0) is None
    assert crossing(x, y, 0.1) is None
    assert crossing(x, 1 / y, 1 / LEVEL) is None
    assert crossing(np.full(10, 0.5), y[:10], LEVEL) is None


@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_a_crossing_does_not_depend_on_the_unit_of_what_is_measured(scale: float) -> None:
    x, y = _trials(3)
    one, other = crossing(x, y, LEVEL), crossing(x, scale * y, LEVEL * scale)
    assert one is not None
    assert other is not None
    assert other.value == pytest.approx(one.value, abs=0.004)
    assert other.high == pytest.approx(one.high, abs=0.004)
