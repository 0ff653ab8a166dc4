"""Overload: the article's case in numbers, the law against a queue played through, and a short backlog."""

import math
from typing import Any

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


SHORT: dict[str, Any] = {"rate_rps": 1, "duration_s": 4, "service_s": 10, "backlog": 1}
"""Four requests, a second apart, of a worker that takes ten each while one more may wait.

The first is in service until 10 and the second waits for it. The third tries again at 3, 5 and 9, in vain,
the fourth at 4, 6 and 10: then the second begins, and it may wait, till 20. The third, again at 17, may not;
the worker has been idle since 30 when it tries the last time, at 33.
"""


@pytest.mark.parametrize(
    ("options", "latencies_s"),
    [
        ({}, [10, 19, 41, 27]),
        ({"timeout_s": 30}, [10, 19, None, 27]),
        ({"timeout_s": 20}, [10, 19, None, None]),
        ({"retries_s": (1, 3, 7, 15)}, [10, 19, None, 27]),
        ({"retries_s": ()}, [10, 19, None, None]),
        ({"workers": 2}, [10, 10, 18, 18]),
        ({"backlog": 2}, [10, 19, 28, 37]),
    ],
)
def test_a_short_backlog_worked_out_by_hand(options: dict[str, Any], latencies_s: list[float | None]) -> None:
    seen = overload(**SHORT | options)
    failed_s = options.get("timeout_s", math.inf)
    assert seen.latency_s.tolist() == [failed_s if one is None else one for one in latencies_s]
    assert seen.ok.tolist() == [one is not None for one in latencies_s]


def test_the_articles_overload_with_a_short_backlog_fails_and_reorders() -> None:
    endless, short = (overload(50, 30, 1 / 27, timeout_s=30, backlog=backlog) for backlog in (None, 20))
    assert success(endless) == 1
    assert success(short) < 1
    assert throughput_rps(short) <= 27
    assert (np.diff(endless.due_s + endless.latency_s) > 0).all()
    answered = short.ok.nonzero()[0]
    assert (np.diff((short.due_s + short.latency_s)[answered]) < 0).any(), "who tries again is overtaken"


@given(rates, services, few_workers, st.none() | st.floats(0.01, 20))
def test_a_backlog_that_is_never_full_is_an_endless_one(
    rate: float, service_s: float, c: int, timeout_s: float | None
) -> None:
    endless = overload(rate, 10, service_s, c, timeout_s)
    long = overload(rate, 10, service_s, c, timeout_s, backlog=len(endless.due_s))
    np.testing.assert_allclose(long.latency_s, endless.latency_s, rtol=0, atol=1e-9)
    undecided = np.abs(endless.latency_s - (timeout_s or math.inf)) < 1e-9
    assert (long.ok == endless.ok)[~undecided].all()


@given(rates, services, few_workers, st.integers(1, 30), st.none() | st.floats(0.01, 40))
def test_each_request_ends_once_and_workers_do_one_at_a_time(
    rate: float, service_s: float, c: int, backlog: int, timeout_s: float | None
) -> None:
    seen = overload(rate, 10, service_s, c, timeout_s, backlog=backlog)
    assert len(seen.due_s) == len(seen.latency_s) == len(seen.ok) == len(overload(rate, 10, service_s).due_s)
    assert (seen.latency_s[seen.ok] >= service_s * (1 - 1e-9)).all()
    assert (seen.latency_s[~seen.ok] == (timeout_s or math.inf)).all()
    start_s = (seen.due_s + seen.latency_s)[seen.ok] - service_s
    others = (start_s[:, None] >= start_s) & (start_s[:, None] < start_s + service_s * (1 - 1e-9) - 1e-9)
    assert others.sum(axis=1).max(initial=0) <= c


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"backlog": 0}, "backlog must be at least 1, got 0"),
        ({"retries_s": (1, 1)}, "retries_s must be in ascending order, got (1, 1)"),
        ({"retries_s": (1, 0)}, "retries_s[1] must be above 0, got 0"),
    ],
)
def test_a_bad_backlog_is_named(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        overload(**SHORT | options)
    assert str(error.value) == line
