"""Queueing formulas against published tables, another way to solve the chain, and laws that must hold."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.models.queueing import (
    mdc_mean_wait,
    mdc_wait_cdf,
    mdc_wait_quantile,
    mmc_mean_wait,
    mmc_wait_cdf,
    mmc_wait_probability,
    mmc_wait_quantile,
    ps_mean_latency,
    two_choices_mean_latency,
)

workers = st.integers(1, 40)
utilisations = st.floats(0.01, 0.99)
waits_s = st.floats(0, 20)


def erlang_c(workers: int, utilisation: float) -> float:
    """Return the probability to wait in M/M/c by Erlang's loss recursion: another way to an answer."""
    erlangs, loss = workers * utilisation, 1.0
    for k in range(1, workers + 1):
        loss = erlangs * loss / (k + erlangs * loss)
    return loss / (1 - utilisation * (1 - loss))


@pytest.mark.parametrize(
    ("c", "probability", "mean_wait"),
    [
        (1, 0.9, 9),
        (2, 0.852632, 4.263158),
        (5, 0.762493, 1.524986),
        (10, 0.668732, 0.668732),
        (20, 0.550769, 0.275385),
    ],
)
def test_mmc_at_utilisation_nine_tenths(c: int, probability: float, mean_wait: float) -> None:
    """Adan & Resing, Queueing Systems, table 5.1."""
    assert mmc_wait_probability(c, 0.9) == pytest.approx(probability, abs=6e-7)
    assert mmc_mean_wait(c, 0.9) == pytest.approx(mean_wait, abs=6e-7)


@pytest.mark.parametrize("c", [100, 1000, 10_000, 100_000])
@pytest.mark.parametrize("utilisation", [0.01, 0.5, 0.95, 0.999, 0.9999])
def test_mmc_is_sound_for_many_workers(c: int, utilisation: float) -> None:
    expected = pytest.approx(erlang_c(c, utilisation), rel=1e-8, abs=1e-300)
    assert mmc_wait_probability(c, utilisation) == expected
    assert math.isfinite(mmc_wait_quantile(0.99, c, utilisation))


@given(workers, utilisations)
def test_mmc_is_erlangs_recursion(c: int, utilisation: float) -> None:
    assert mmc_wait_probability(c, utilisation) == pytest.approx(erlang_c(c, utilisation), rel=1e-9)


@given(workers, utilisations, st.floats(0.001, 0.999999), st.floats(1e-4, 10))
def test_mmc_quantile_distribution_and_mean_agree(
    c: int, utilisation: float, q: float, service_s: float
) -> None:
    wait = mmc_wait_quantile(q, c, utilisation)
    reached = mmc_wait_cdf(wait * service_s, c, utilisation, service_s)
    assert reached == pytest.approx(q if wait else mmc_wait_cdf(0, c, utilisation))
    assert reached >= q - 1e-9
    assert mmc_wait_cdf(0, c, utilisation) == 1 - mmc_wait_probability(c, utilisation)
    busy_s = mmc_mean_wait(c, utilisation, service_s) / mmc_wait_probability(c, utilisation)
    assert busy_s == pytest.approx(service_s / (c * (1 - utilisation)))


@pytest.mark.parametrize(("utilisation", "latency"), [(0.5, 1.26569), (0.9, 2.61406)])
def test_the_shorter_of_two_queues(utilisation: float, latency: float) -> None:
    assert two_choices_mean_latency(utilisation) == pytest.approx(latency, abs=5e-6)
    assert two_choices_mean_latency(utilisation, service_s=0.02) == pytest.approx(0.02 * latency, abs=1e-7)


@given(st.floats(0.01, 0.9999))
def test_two_choices_are_better_than_none(utilisation: float) -> None:
    """One exponential queue takes 1 / (1 - rho), as a shared processor does."""
    assert 1 <= two_choices_mean_latency(utilisation) <= ps_mean_latency(utilisation)
    assert ps_mean_latency(utilisation) == pytest.approx(1 + mmc_mean_wait(1, utilisation))
    assert ps_mean_latency(utilisation, 3.0) == 3 / (1 - utilisation)


@pytest.mark.parametrize(("c", "mean", "p99"), [(1, 2.0, 10.356), (2, 0.9033, 5.070), (4, 0.3861, 2.455)])
def test_mdc_at_utilisation_eight_tenths(c: int, mean: float, p99: float) -> None:
    assert mdc_mean_wait(c, 0.8) == pytest.approx(mean, abs=6e-5)
    assert mdc_wait_quantile(0.99, c, 0.8) == pytest.approx(p99, abs=6e-4)


def test_mdc_example_to_nine_digits() -> None:
    """Two workers, two arrivals a second of .6 s each; Little's law gives the mean number in the system."""
    mean_wait = mdc_mean_wait(2, utilisation=0.6, service_s=0.6)
    assert mean_wait == pytest.approx(0.175821646, abs=2e-9)
    assert 2 * (mean_wait + 0.6) == pytest.approx(1.551643291, abs=3e-9)


@pytest.mark.parametrize(("c", "utilisation"), [(1, 0.3), (2, 0.6), (3, 0.95), (8, 0.8), (16, 0.5)])
def test_mdc_agrees_with_its_chain_solved_as_linear_equations(c: int, utilisation: float) -> None:
    law = _stationary_law(c, utilisation)
    in_queue = np.maximum(np.arange(len(law)) - c, 0) @ law
    assert mdc_mean_wait(c, utilisation) == pytest.approx(in_queue / (c * utilisation), rel=1e-7)
    assert mdc_wait_cdf(0, c, utilisation) == pytest.approx(law[:c].sum(), abs=1e-10)


def _stationary_law(
    c: int, utilisation: float, states: int = 400
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Solve N' = max(N - c, 0) + Poisson(c rho), cut off at `states`."""
    load = c * utilisation
    arrivals = np.exp([n * math.log(load) - load - math.lgamma(n + 1) for n in range(states)])
    step = np.zeros((states, states))
    for n in range(states):
        left = max(n - c, 0)
        step[n, left:] = arrivals[: states - left]
    equations = step.T - np.eye(states)
    equations[-1] = 1
    return np.asarray(np.linalg.solve(equations, np.eye(states)[-1]))


@pytest.mark.parametrize("utilisation", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("c", [2, 8, 32])
def test_cosmetatos_approximation_is_within_three_per_cent_and_allen_cunneens_is_not(
    c: int, utilisation: float
) -> None:
    exact, half = mdc_mean_wait(c, utilisation), mmc_mean_wait(c, utilisation) / 2
    correction = (1 - utilisation) * (c - 1) * (math.sqrt(4 + 5 * c) - 2) / (16 * utilisation * c)
    assert half * (1 + correction) == pytest.approx(exact, rel=0.03)
    if (c, utilisation) == (32, 0.5):
        assert half / exact == pytest.approx(1 - 0.39, abs=0.005)


@given(utilisations)
def test_one_worker_in_closed_form(utilisation: float) -> None:
    assert mdc_mean_wait(1, utilisation) == pytest.approx(utilisation / (2 * (1 - utilisation)))
    assert mdc_wait_cdf(0, 1, utilisation) == pytest.approx(1 - utilisation)


@given(st.integers(2, 40), utilisations)
def test_sharing_a_queue_is_never_worse_than_a_queue_each(c: int, utilisation: float) -> None:
    assert mdc_mean_wait(c, utilisation) <= mdc_mean_wait(1, utilisation)
    assert mdc_wait_quantile(0.99, c, utilisation) <= mdc_wait_quantile(0.99, 1, utilisation) + 1e-9


@settings(max_examples=30)
@given(workers, utilisations)
def test_the_mean_is_the_area_above_the_distribution(c: int, utilisation: float) -> None:
    longest = mdc_wait_quantile(0.999999, c, utilisation) + 1
    edges = np.linspace(0, longest, 2001)
    above = np.array([1 - mdc_wait_cdf(x, c, utilisation) for x in edges])
    assert np.trapezoid(above, edges) == pytest.approx(mdc_mean_wait(c, utilisation), rel=0.02, abs=1e-3)


@given(workers, utilisations, waits_s, st.floats(0, 5))
def test_a_longer_wait_is_never_less_likely(c: int, utilisation: float, wait_s: float, more_s: float) -> None:
    shorter, longer = mdc_wait_cdf(wait_s, c, utilisation), mdc_wait_cdf(wait_s + more_s, c, utilisation)
    assert 0 <= shorter <= longer + 1e-12
    assert longer <= 1


@given(workers, st.floats(0.01, 0.9), st.floats(1.001, 1.09))
def test_more_load_waits_longer(c: int, utilisation: float, factor: float) -> None:
    busier = utilisation * factor
    assert mdc_mean_wait(c, utilisation) <= mdc_mean_wait(c, busier) + 1e-12


@given(workers, utilisations)
def test_constant_service_waits_less_than_random_service(c: int, utilisation: float) -> None:
    assert mdc_mean_wait(c, utilisation) <= mmc_mean_wait(c, utilisation) + 1e-12


@given(st.floats(0.5, 0.999), workers, utilisations)
def test_quantile_and_distribution_are_inverse(q: float, c: int, utilisation: float) -> None:
    wait = mdc_wait_quantile(q, c, utilisation)
    assert mdc_wait_cdf(wait, c, utilisation) >= q - 1e-9
    if wait > 1e-6:
        assert mdc_wait_cdf(wait - 1e-6, c, utilisation) <= q


@given(workers, utilisations, st.floats(1e-4, 10))
def test_waits_are_in_the_unit_of_the_service_time(c: int, utilisation: float, service_s: float) -> None:
    mean_wait_s = mdc_mean_wait(c, utilisation, service_s)
    assert mean_wait_s == pytest.approx(service_s * mdc_mean_wait(c, utilisation))
    assert mdc_wait_cdf(2 * service_s, c, utilisation, service_s) == mdc_wait_cdf(2, c, utilisation)


@pytest.mark.parametrize("utilisation", [0, -0.1, 1, 1.2, math.nan, math.inf])
def test_without_a_steady_state_there_is_no_wait(utilisation: float) -> None:
    wrong = "above 0" if utilisation <= 0 else "at most 0.9999"
    with pytest.raises(UsageError, match=f"^utilisation must be {wrong}, got {utilisation}$"):
        mdc_mean_wait(2, utilisation)
    with pytest.raises(UsageError, match="utilisation must be"):
        mdc_wait_cdf(1, 2, utilisation)


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (lambda: mdc_mean_wait(0, 0.5), "workers must be at least 1, got 0"),
        (lambda: mdc_mean_wait(1, 0.5, service_s=0), "service_s must be above 0, got 0"),
        (lambda: mdc_wait_quantile(1, 2, 0.5), "quantile must be at most 0.999999, got 1"),
        (lambda: mmc_wait_probability(2, 1), "utilisation must be at most 0.9999, got 1"),
        (lambda: mmc_mean_wait(1.5, 0.5), "workers must be a whole number, got 1.5"),  # type: ignore[arg-type]
        (lambda: mmc_wait_cdf(math.nan, 2, 0.5), "wait_s must be a finite number, got nan"),
        (lambda: mmc_wait_quantile(0, 2, 0.5), "quantile must be above 0, got 0"),
        (lambda: two_choices_mean_latency(1), "utilisation must be at most 0.9999, got 1"),
        (lambda: ps_mean_latency(0.5, service_s=-1), "service_s must be above 0, got -1"),
    ],
)
def test_bad_input_is_named(ask: Callable[[], float], line: str) -> None:
    with pytest.raises(UsageError) as error:
        ask()
    assert str(error.value) == line


def test_no_one_waits_less_than_nothing() -> None:
    assert mdc_wait_cdf(-0.001, 2, 0.5) == mmc_wait_cdf(-0.001, 2, 0.5) == 0
