"""How fast theory answers: `make bench` prints each figure, and fails if it is beyond its bar.

Seconds are of CPU time, so neighbours hardly count. ciw, a simulator in Python, has its turn in the same run.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import ciw
import numpy as np
import pytest

from lab.models.queueing import mdc_mean_wait, mdc_wait_quantile, mmc_mean_wait
from lab.models.simulation import Dispatch, waits

CUSTOMERS, OF_CIW, SERVERS, UTILISATION = 10_000_000, 20_000, 4, 0.8
RATE = SERVERS * UTILISATION

Answer = TypeVar("Answer")


def test_ten_million_customers_take_seconds_and_a_hundredth_of_ciws_time() -> None:
    simulated_mean_wait(1)  # compiled now, if it never was
    (ours_s, ours), (ciw_s, ciws) = timed(simulated_mean_wait, CUSTOMERS), timed(ciws_mean_wait, OF_CIW)
    times = (ciw_s / OF_CIW) / (ours_s / CUSTOMERS)
    print(f"\n{CUSTOMERS:,} customers in {ours_s:.2f} s (bar 5 s); ciw {OF_CIW:,} in {ciw_s:.2f} s")
    print(f"{times:.0f} times as many a second as ciw (bar 100)")
    exact = mmc_mean_wait(SERVERS, UTILISATION)
    print(f"mean wait {ours:.4f} service times, ciw {ciws:.4f}, exact (M/M/{SERVERS}) {exact:.4f}")
    assert ours == pytest.approx(exact, rel=0.02)
    assert ciws == pytest.approx(exact, rel=0.4)
    assert ours_s < 5
    assert times > 100


def simulated_mean_wait(customers: int) -> float:
    random = np.random.default_rng(1)
    due_s = np.cumsum(random.exponential(1 / RATE, customers))
    return float(waits(due_s, random.exponential(size=customers), SERVERS).mean())


def ciws_mean_wait(customers: int) -> float:
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=RATE)],
        service_distributions=[ciw.dists.Exponential(rate=1)],
        number_of_servers=[SERVERS],
    )
    ciw.seed(1)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(customers)
    return float(np.mean([record.waiting_time for record in simulation.get_all_records()]))


@pytest.mark.parametrize("dispatch", get_args(Dispatch))
def test_each_dispatch_takes_seconds(dispatch: Dispatch) -> None:
    random = np.random.default_rng(1)
    due_s, service_s = np.cumsum(random.exponential(1 / RATE, CUSTOMERS)), random.exponential(size=CUSTOMERS)
    waits(due_s[:1], 1.0, SERVERS, dispatch)  # compiled now, if it never was
    took_s, _ = timed(waits, due_s, service_s, SERVERS, dispatch)
    print(f"\n{dispatch}: {CUSTOMERS:,} customers in {took_s:.2f} s (bar 5 s)")
    assert took_s < 5


def test_sixty_four_workers_take_exact_theory_less_than_a_second() -> None:
    took_s, p99 = timed(mdc_wait_quantile, 0.99, 64, 0.95)
    mean_s, mean = timed(mdc_mean_wait, 64, 0.95)
    print(
        f"\nM/D/64 at .95: p99 {p99:.4f}, mean {mean:.4f} service times, in {took_s + mean_s:.3f} s (bar 1 s)"
    )
    assert took_s + mean_s < 1


def timed(ask: Callable[..., Answer], *arguments: Any) -> tuple[float, Answer]:
    """Return how many seconds of CPU time the answer took, and the answer."""
    start_s = time.process_time()
    answer = ask(*arguments)
    return time.process_time() - start_s, answer
