"""How well requests are spread: `make bench` prints each figure, and fails if it is beyond its bar.

Bars of time hold on a machine that is otherwise idle. Theory is fed with a trial's own arrivals and its own
service times: what is left is neither chance nor the speed of loops. By chance alone, a thousand arrivals
miss the mean wait of endless ones by 28 % (a standard deviation): that law is printed, and no bar.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from lab.experiments.dispatch.trials import least_overhead_s
from lab.hotloop import measure
from lab.models.queueing import mdc_mean_wait, mdc_wait_quantile
from lab.models.simulation import waits
from lab.study.plan import Condition
from lab.study.trial import serve_and_attack

WORKERS = 2
TRIES = {"poisson": (3, 45.0), "constant": (8, 5.0)}
"""How many trials to choose the steadiest of, and how many seconds each lasts."""

NEAR = 0.025
"""How far a trial's utilisation may be from what was asked for: the machine's speed changes meanwhile."""

STEADY = 1.2
"""The ideal queue's p99, in service times, up to which the bar of 1.3 judges dispatch, not the machine."""

TOPOLOGIES: dict[str, dict[str, Any]] = {
    "least-busy": {"topology": "cluster", "dispatch": "least-busy"},
    "reuseport": {"topology": "cluster", "dispatch": "reuseport"},
    "offload": {"topology": "offload"},
}

Values = NDArray[np.float64]

pytestmark = pytest.mark.timeout(900)


def test_poisson_arrivals_wait_as_long_as_in_theory() -> None:
    seen = _steadiest("least-busy", 0.8, "poisson")
    law = (
        mdc_mean_wait(WORKERS, seen.utilisation),
        mdc_wait_quantile(0.99, WORKERS, seen.utilisation),
    )
    for name, of, endless in zip(("mean", "p99"), (_mean, _p99), law, strict=True):
        measured, theory = of(seen.waits), of(seen.ideal_waits)
        print(
            f"least-busy, Poisson at {seen.utilisation:.3f}: {name} wait {measured:.3f} service times, M/D/2 "
            f"of these arrivals {theory:.3f} (bar: 15 % off), of endless ones {endless:.3f}"
        )
        assert measured == pytest.approx(theory, rel=0.15)


def test_hashed_connections_wait_clearly_longer() -> None:
    excess = {}
    for way in ("least-busy", "reuseport"):
        seen = _steadiest(way, 0.8, "poisson")
        excess[way] = _mean(seen.waits) / _mean(seen.ideal_waits)
        head = f"{way}, Poisson at {seen.utilisation:.3f}:"
        print(f"{head} mean wait {excess[way]:.2f} times that in one central queue")
    ratio = excess["reuseport"] / excess["least-busy"]
    print(f"reuseport over least-busy: {ratio:.2f} times the mean wait (bar 1.5)")
    assert ratio >= 1.5


@pytest.mark.parametrize("way", ["least-busy", "offload"])
def test_a_constant_rate_hardly_waits(way: str) -> None:
    seen = _steadiest(way, 0.9, "constant")
    latency, ideal = _p99(seen.latencies), _p99(seen.ideal_latencies)
    print(
        f"{way}, constant at {seen.utilisation:.3f}: p99 {latency:.3f} service times (bar 1.3), of the ideal "
        f"queue {ideal:.3f} (bar: 1.1 times that)"
    )
    assert latency <= 1.1 * ideal
    if latency > 1.3 and ideal > STEADY:
        pytest.skip(f"{way}: the machine was never steady: no dispatch could meet the bar of 1.3")
    assert latency <= 1.3


@dataclass(frozen=True)
class Seen:
    """What a trial's requests took, in multiples of its own mean service time, and what they would ideally.

    Service time is what a worker is taken for: the loop, as it reported it, and what comes on top at least.
    Ideal is one central queue for the same arrivals with the same service times.
    """

    utilisation: float
    extra: float
    """The share of service time that is not the loop."""

    services: Values
    latencies: Values
    ideal_waits: Values

    def __str__(self) -> str:
        return (
            f"utilisation {self.utilisation:.3f}, not loop {self.extra:.1%}; p99 of service "
            f"{_p99(self.services):.3f}, of latency {_p99(self.latencies):.3f}, in the ideal queue "
            f"{_p99(self.ideal_latencies):.3f}"
        )

    @property
    def waits(self) -> Values:
        return self.latencies - self.services

    @property
    def ideal_latencies(self) -> Values:
        return self.ideal_waits + self.services


@lru_cache
def _steadiest(way: str, load: float, arrivals: str) -> Seen:
    """Return the trial with the steadiest loops of several: chosen by service times, never by latency."""
    tries, duration_s = TRIES[arrivals]
    seen = [_seen(way, load, duration_s, arrivals, seed) for seed in range(tries)]
    for one in seen:
        print(f"  {way}, {arrivals}, a try: {one}")
    as_asked = [one for one in seen if abs(one.utilisation - load) <= NEAR]
    if not as_asked:
        pytest.fail(
            f"nothing to judge: the machine's speed changed in each of {tries} tries; run it when idle"
        )
    return min(as_asked, key=lambda one: _p99(one.services))


def _seen(way: str, load: float, duration_s: float, arrivals: str, seed: int) -> Seen:
    """Offer a share of what the workers could do just before."""
    rate = load * WORKERS / _busy_service_s(way)
    found = _requests(way, rate, duration_s, arrivals, seed)
    due_s, loop_s = found["due_s"].to_numpy(), found["service_s"].to_numpy()
    latency_s = found["end_s"].to_numpy() - due_s
    service_s = loop_s + least_overhead_s(found, loop_s, WORKERS)
    unit_s = service_s.mean()
    return Seen(
        rate * unit_s / WORKERS,
        1 - loop_s.mean() / unit_s,
        service_s / unit_s,
        latency_s / unit_s,
        waits(due_s, service_s, WORKERS) / unit_s,
    )


def _busy_service_s(way: str) -> float:
    """Return the loop's time while both workers are busy, which two idle CPUs do not tell."""
    rate = 0.8 * WORKERS / _loop_s()
    return float(_requests(way, rate, 3.0, "constant", 0)["service_s"].median())


def _requests(way: str, rate: float, duration_s: float, arrivals: str, seed: int) -> pd.DataFrame:
    factors = TOPOLOGIES[way] | {"workers": WORKERS, "arrivals": arrivals}
    condition = Condition(rate=rate, duration_s=duration_s, **factors)
    return serve_and_attack(condition, seed).requests


def _mean(values: Values) -> float:
    return float(np.mean(values))


def _p99(values: Values) -> float:
    return float(np.quantile(values, 0.99))


@lru_cache
def _loop_s() -> float:
    return float(np.median([cost.wall_s for cost in measure(repeats=9)]))
