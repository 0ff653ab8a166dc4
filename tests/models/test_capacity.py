"""Workers, machines and cost: known answers, laws that must hold, and input that no plan can be made from."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.models import capacity
from lab.models.capacity import (
    Needed,
    cost_per_million,
    highest_utilisation,
    machines_needed,
    workers_needed,
)
from lab.models.queueing import mdc_wait_quantile
from lab.models.simulation import Dispatch, latencies

CONSTANT = [1.0]
EXPONENTIAL = -np.log1p(-(np.arange(1000) + 0.5) / 1000)
"""Service times by their quantiles: the mean is 1, nearly."""


def needed(rate: float, slo_s: float = 2.0, service_s: Any = CONSTANT, **changes: Any) -> Needed:
    return workers_needed(rate, service_s, slo_s=slo_s, **changes)


def test_eight_erlangs_with_a_p99_wait_of_one_service_time() -> None:
    """Ten workers on a central queue, sixty by hash."""
    assert needed(8).workers == needed(8, dispatch="round-robin").workers == 10
    assert needed(8, dispatch="random").workers == 60
    assert needed(8 / 0.037, slo_s=0.074, service_s=[0.037]).workers == 10


def test_a_load_that_just_fills_its_workers_needs_one_more() -> None:
    assert needed(1, slo_s=1001).workers == needed(0.99999, slo_s=1001).workers == 2
    assert needed(0.999, slo_s=10_001).workers == 1


@pytest.mark.parametrize(("workers", "p99_wait"), [(1, 10.356), (2, 5.070), (4, 2.455)])
def test_the_highest_utilisation_is_where_the_p99_of_mdc_is_the_limit(workers: int, p99_wait: float) -> None:
    """At a utilisation of .8, by the published numbers."""
    found = highest_utilisation(workers, CONSTANT, slo_s=1 + p99_wait)
    assert found == pytest.approx(0.8, abs=2e-4)


def test_without_any_wait_allowed_a_queue_of_its_own_may_be_as_busy_as_one_in_a_hundred_waits() -> None:
    assert highest_utilisation(1, CONSTANT, slo_s=1.0) == pytest.approx(0.01, abs=1e-5)
    assert highest_utilisation(9, CONSTANT, slo_s=1.0, dispatch="random") == pytest.approx(0.01, abs=1e-5)


def test_exponential_service_is_simulated_and_agrees_with_theory() -> None:
    """One worker: latency is exponential with mean 1 / (1 - rho), so p99 = ln(100) / (1 - rho)."""
    found = highest_utilisation(1, EXPONENTIAL, slo_s=math.log(100) / (1 - 0.6))
    assert found == pytest.approx(0.6, abs=0.03)


def test_processor_sharing_of_constant_work_waits_longer_than_a_queue() -> None:
    shared = highest_utilisation(2, CONSTANT, slo_s=3.0, dispatch="sharing")
    queued = highest_utilisation(2, CONSTANT, slo_s=3.0)
    assert 0 < shared < queued


def test_looking_at_two_queues_is_between_chance_and_all() -> None:
    found: dict[Dispatch, float] = {
        dispatch: highest_utilisation(8, EXPONENTIAL, slo_s=12.0, dispatch=dispatch)
        for dispatch in ("random", "two-choices", "central")
    }
    assert found["random"] + 0.05 < found["two-choices"] < found["central"]


@settings(max_examples=30)
@given(st.floats(0.1, 20), st.floats(0.1, 5))
def test_the_workers_are_enough_and_one_less_is_not(erlangs: float, wait_s: float) -> None:
    workers = needed(erlangs, slo_s=1 + wait_s).workers
    assert workers is not None
    assert mdc_wait_quantile(0.99, workers, erlangs / workers) <= wait_s + 1e-6
    fewer = workers - 1
    assert (
        fewer < 1
        or erlangs / fewer > 0.9999
        or mdc_wait_quantile(0.99, fewer, erlangs / fewer) >= wait_s - 1e-6
    )


@settings(max_examples=30)
@given(
    st.floats(0.1, 5000),
    st.floats(1, 3),
    st.floats(1, 50),
    st.sampled_from(["central", "random"]),
    st.floats(0, 1),
)
def test_more_rate_a_tighter_limit_or_more_headroom_never_need_fewer(
    rate: float, times: float, slo_s: float, dispatch: Dispatch, headroom: float
) -> None:
    usual = needed(rate, slo_s, dispatch=dispatch).workers
    more = needed(rate * times, slo_s, dispatch=dispatch).workers
    looser = needed(rate, slo_s * times, dispatch=dispatch).workers
    roomier = needed(rate, slo_s, dispatch=dispatch, headroom=headroom).workers
    assert usual is not None
    assert more is not None
    assert looser is not None
    assert roomier is not None
    assert looser <= usual <= more
    assert usual <= roomier
    assert usual >= rate, "the busy ones at least"


@given(st.integers(1, 40), st.floats(1, 20))
def test_sharing_a_queue_allows_a_higher_utilisation(workers: int, slo_s: float) -> None:
    alone, shared = (highest_utilisation(n, CONSTANT, slo_s=slo_s) for n in (1, workers))
    assert alone <= shared + 1e-6
    assert highest_utilisation(workers, CONSTANT, slo_s=slo_s, dispatch="random") == alone


@pytest.mark.parametrize("workers", [50, 200, 500])
def test_what_stands_for_the_law_with_many_workers_is_below_it_and_near(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand workers and more the wait is bounded: here for fewer, whose law is known."""
    limits = (1.0, 1.1, 2.0, 4.0)
    exact = [highest_utilisation(workers, CONSTANT, slo_s=slo_s) for slo_s in limits]
    monkeypatch.setattr(capacity, "_MOST_COMPUTED", workers - 1)
    bounded = [highest_utilisation(workers, CONSTANT, slo_s=slo_s) for slo_s in limits]
    assert all(low <= high + 1e-6 for low, high in zip(bounded, exact, strict=True))
    assert bounded == pytest.approx(exact, rel=1 / math.sqrt(workers))
    assert bounded[0] == pytest.approx(exact[0], abs=1e-5), "that nobody waits is known exactly"


def test_a_billion_requests_a_second_need_hardly_more_than_are_busy() -> None:
    found = needed(1e9, slo_s=0.3, service_s=[0.1])
    assert found.workers == pytest.approx(1e8, rel=1e-3)
    assert found.erlangs == pytest.approx(1e8)
    assert found.utilisation < 1
    hashed = needed(1e9, slo_s=0.3, service_s=[0.1], dispatch="random")
    assert hashed.workers is not None
    assert hashed.workers > 2e8


def test_a_billion_requests_a_second_that_are_simulated_are_no_better_than_sixty_four() -> None:
    found = needed(1e9, slo_s=9.0, service_s=EXPONENTIAL)
    highest = highest_utilisation(capacity.MOST_SIMULATED, EXPONENTIAL, slo_s=9.0)
    assert found.utilisation == pytest.approx(highest, abs=1e-6)


def test_a_million_service_times_or_one() -> None:
    times_s = np.random.default_rng(1).normal(0.1, 0.005, 1_000_000)
    many, one = (needed(80, slo_s=0.3, service_s=sample).workers for sample in (times_s, [0.1]))
    assert many == one


def test_a_limit_below_the_service_time_is_impossible_and_says_why() -> None:
    found = needed(10, slo_s=0.05, service_s=[0.1, 0.1])
    assert found.workers is None
    assert found.why == "the 99th percentile of the service times alone is 0.1 s, and 0.05 s are allowed"
    assert math.isnan(found.utilisation)
    assert highest_utilisation(4, [0.1], slo_s=0.05) == 0
    fleet = machines_needed(10, 4, [0.1], slo_s=0.05)
    assert fleet.machines is None
    assert fleet.why == found.why


def test_service_times_of_which_too_many_are_long_are_impossible_whatever_the_queue() -> None:
    times_s = [0.01] * 97 + [1.0] * 3
    assert needed(10, slo_s=0.5, service_s=times_s).workers is None
    assert needed(10, slo_s=0.5, service_s=times_s, slo_quantile=0.95).workers is not None
    edge = needed(10, slo_s=0.5, service_s=times_s, slo_quantile=0.97)
    assert edge.workers is None
    assert edge.why.endswith("and no more may be late: no request may wait")


def test_the_few_requests_that_are_too_long_by_themselves_are_counted() -> None:
    """Nine in a thousand are: then no more than one in a thousand of all may wait too long."""
    times_s = np.array([1.0] * 991 + [2.0] * 9)
    highest = highest_utilisation(2, times_s, slo_s=1.5)
    due_s = np.cumsum(np.random.default_rng(1).exponential(times_s.mean() / (2 * highest), 1_000_000))
    drawn_s = np.random.default_rng(2).choice(times_s, len(due_s))
    assert np.mean(latencies(due_s, drawn_s, 2) > 1.5) == pytest.approx(0.01, rel=0.1)


def test_machines_behind_a_random_balancer_are_queues_of_their_own() -> None:
    """8 erlangs on machines of one CPU are hashed over single workers."""
    assert machines_needed(8, 1, CONSTANT, slo_s=2.0).machines == 60
    larger = machines_needed(8, 10, CONSTANT, slo_s=2.0)
    assert (larger.machines, larger.workers) == (1, 10)
    assert larger.utilisation == pytest.approx(0.8)
    roomy = machines_needed(8, 10, CONSTANT, slo_s=2.0, headroom=0.5)
    assert roomy.machines == 2


def test_cost_by_hand_and_a_price_of_zero() -> None:
    """A hundred cores at .04 an hour answer 3.6 million requests in it at 1,000/s."""
    assert cost_per_million(1000, 100, 0.04) == pytest.approx(4 / 3.6)
    assert cost_per_million(1000, 100, 0) == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"service_s": [0.1, 0, 0]}, "service_s: 2 of 3 times are not above 0: leave them out"),
        ({"service_s": [0.1, math.nan]}, "service_s: 1 of 2 times are not finite: leave them out"),
        ({"service_s": []}, "service_s: give at least one service time, in seconds"),
        ({"service_s": ["slow"]}, "service_s: give a list of numbers, in seconds"),
        ({"slo_s": 0}, "slo_s must be above 0, got 0"),
        ({"slo_quantile": 1}, "slo_quantile must be at most 0.9999, got 1"),
        ({"rate_rps": 0}, "rate_rps must be above 0, got 0"),
        ({"rate_rps": 1e300}, "rate_rps must be at most 1e+12, got 1e+300"),
        ({"headroom": -0.1}, "headroom must be at least 0, got -0.1"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], line: str) -> None:
    usual: dict[str, Any] = {"rate_rps": 10, "service_s": [0.1], "slo_s": 0.3}
    with pytest.raises(UsageError) as error:
        workers_needed(**usual | arguments)
    assert str(error.value) == line


def test_more_workers_than_there_can_be_are_one_line() -> None:
    with pytest.raises(UsageError, match=r"^workers must be at most 1e\+09"):
        highest_utilisation(10**30, CONSTANT, slo_s=3.0)
    with pytest.raises(UsageError, match=r"^cpus_per_machine must be at most 1e\+09"):
        machines_needed(10, 10**30, CONSTANT, slo_s=3.0)


def test_a_price_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="price_per_core_hour must be at least 0, got -1"):
        cost_per_million(10, 1, -1)
