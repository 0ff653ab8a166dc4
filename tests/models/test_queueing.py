"""Queueing formulas against published tables, another way to solve the chain, and laws that must hold.

Deterministic overload: the article's case in numbers, and the law against a queue played through.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.models.queueing import (
    Overload,
    mdc_mean_wait,
    mdc_wait_cdf,
    mdc_wait_quantile,
    overload,
)
from lab.models.simulation import waits
from lab.models.statistics import quantile

workers = st.integers(1, 40)
utilisations = st.floats(0.01, 0.99)
waits_s = st.floats(0, 20)


def mmc_mean_wait(workers: int, utilisation: float) -> float:
    """Return the mean wait of exponential service, by Erlang's loss recursion: another way to an answer."""
    erlangs, loss = workers * utilisation, 1.0
    for k in range(1, workers + 1):
        loss = erlangs * loss / (k + erlangs * loss)
    return loss / (1 - utilisation * (1 - loss)) / (workers * (1 - utilisation))


@pytest.mark.parametrize(
    ("c", "mean_wait"), [(1, 9), (2, 4.263158), (5, 1.524986), (10, 0.668732), (20, 0.275385)]
)
def test_the_other_way_is_right(c: int, mean_wait: float) -> None:
    """Adan & Resing, Queueing Systems, table 5.1."""
    assert mmc_mean_wait(c, 0.9) == pytest.approx(mean_wait, abs=6e-7)


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
    ],
)
def test_bad_input_is_named(ask: Callable[[], float], line: str) -> None:
    with pytest.raises(UsageError) as error:
        ask()
    assert str(error.value) == line


def test_no_one_waits_less_than_nothing() -> None:
    assert mdc_wait_cdf(-0.001, 2, 0.5) == 0


rates = st.floats(0.5, 200)
services = st.floats(0.001, 0.5)
few_workers = st.integers(1, 9)


def success(seen: Overload) -> float:
    return float(seen.ok.mean())


def throughput_rps(seen: Overload) -> float:
    """Return what is answered in time per second, from the first due time to the last end."""
    return float(seen.ok.sum() / (seen.due_s + seen.latency_s).max())


def test_the_articles_overload() -> None:
    plain = overload(rate_rps=50, duration_s=30, service_s=1 / 27, timeout_s=30)
    assert len(plain.latency_s) == 1500
    assert success(plain) == 1
    assert plain.latency_s.mean() == pytest.approx(12.81, abs=0.005)
    assert quantile(plain.latency_s, 0.99) == pytest.approx(25.3, abs=0.05)
    assert plain.latency_s.max() == pytest.approx(1500 / 27 - 1499 / 50)
    assert plain.latency_s.max() == pytest.approx(25.58, abs=0.005)
    assert throughput_rps(plain) == pytest.approx(27.0, abs=0.005)


@pytest.mark.parametrize("timeout_s", [0.5, 3, 10, 24, 40])
def test_success_with_a_time_out_is_the_closed_form(timeout_s: float) -> None:
    rate, service_s, n = 50, 1 / 27, 1500
    answered = int((timeout_s - service_s) / (service_s - 1 / rate)) + 1
    assert success(overload(rate, 30, service_s, timeout_s=timeout_s)) == min(1, answered / n)


def test_success_cannot_see_an_overload_below_one_plus_time_out_over_duration() -> None:
    edge = 27 * (1 + 10 / 30)
    assert success(overload(0.99 * edge, 30, 1 / 27, timeout_s=10)) == 1
    assert success(overload(1.03 * edge, 30, 1 / 27, timeout_s=10)) < 1


def test_a_client_that_gives_up_sees_its_time_out_and_no_answer() -> None:
    seen = overload(50, 30, 1 / 27, timeout_s=5)
    assert seen.latency_s.max() == 5
    assert (seen.ok == (seen.latency_s < 5)).all()
    assert throughput_rps(seen) == pytest.approx(seen.ok.sum() / (1499 / 50 + 5))


def test_enough_workers_leave_no_queue() -> None:
    clustered = overload(50, 30, 1 / 27, workers=2)
    assert (clustered.latency_s == 1 / 27).all()
    assert throughput_rps(clustered) == pytest.approx(1500 / (1499 / 50 + 1 / 27))


@pytest.mark.parametrize(
    ("rate", "duration_s", "requests"),
    [(50, 30, 1500), (23.456, 5, 118), (0.1, 3, 1), (1 / 3, 90, 30), (4.1, 10, 41)],
)
def test_requests_are_those_due_before_the_end(rate: float, duration_s: float, requests: int) -> None:
    due_s = overload(rate, duration_s, 0.1).due_s
    assert len(due_s) == requests
    assert due_s.max() < duration_s


def test_more_workers_than_requests() -> None:
    assert overload(1, 3, 0.5, workers=8).latency_s.tolist() == [0.5, 0.5, 0.5]


@given(rates, services, few_workers)
def test_it_is_what_a_first_come_first_served_queue_does(rate: float, service_s: float, c: int) -> None:
    predicted = overload(rate, 10, service_s, c)
    played = waits(predicted.due_s, service_s, c) + service_s
    np.testing.assert_allclose(predicted.latency_s, played, atol=1e-9)


@given(rates, services, few_workers)
def test_throughput_is_at_most_what_is_offered_and_what_the_workers_can_do(
    rate: float, service_s: float, c: int
) -> None:
    done = overload(rate, 10, service_s, c)
    answered = len(done.ok)
    assert throughput_rps(done) <= c / service_s * (1 + 1e-9)
    assert throughput_rps(done) <= rate * answered / max(1, answered - 1)


@given(rates, services, few_workers, st.floats(0.01, 20))
def test_another_worker_never_hurts(rate: float, service_s: float, c: int, timeout_s: float) -> None:
    fewer, more = (overload(rate, 10, service_s, n, timeout_s) for n in (c, c + 1))
    assert (more.latency_s <= fewer.latency_s + 1e-12).all()
    assert success(more) >= success(fewer)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rate_rps": 0}, "rate_rps"),
        ({"duration_s": -1}, "duration_s"),
        ({"service_s": float("nan")}, "service_s"),
        ({"workers": 0}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_a_bad_overload_is_named(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        overload(**{"rate_rps": 50, "duration_s": 30, "service_s": 0.1, **arguments})  # type: ignore[arg-type]
