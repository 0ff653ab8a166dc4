"""Deterministic overload: the article's case in numbers, and the law against a queue played through."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.models.overload import Overload, overload
from lab.models.simulation import waits
from lab.models.statistics import quantile

rates = st.floats(0.5, 200)
services = st.floats(0.001, 0.5)
workers = st.integers(1, 9)


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


@given(rates, services, workers)
def test_it_is_what_a_first_come_first_served_queue_does(rate: float, service_s: float, c: int) -> None:
    predicted = overload(rate, 10, service_s, c)
    played = waits(predicted.due_s, service_s, c) + service_s
    np.testing.assert_allclose(predicted.latency_s, played, atol=1e-9)


@given(rates, services, workers)
def test_throughput_is_at_most_what_is_offered_and_what_the_workers_can_do(
    rate: float, service_s: float, c: int
) -> None:
    done = overload(rate, 10, service_s, c)
    answered = len(done.ok)
    assert throughput_rps(done) <= c / service_s * (1 + 1e-9)
    assert throughput_rps(done) <= rate * answered / max(1, answered - 1)


@given(rates, services, workers, st.floats(0.01, 20))
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
def test_bad_input_is_named(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        overload(**{"rate_rps": 50, "duration_s": 30, "service_s": 0.1, **arguments})  # type: ignore[arg-type]
