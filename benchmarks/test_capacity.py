"""How long a plan takes: `make bench` prints each figure, and fails if it is beyond its bar."""

import time
from typing import Any

import numpy as np
import pytest

from lab.models.balancing import policies
from lab.models.capacity import workers_needed

BILLION_RPS, BAR_S = 1e9, 5.0

SAMPLES: dict[str, Any] = {
    "one service time": [0.1],
    "a million that hardly vary": np.random.default_rng(1).normal(0.1, 0.003, 1_000_000),
    "a million that vary": np.random.default_rng(1).exponential(0.1, 1_000_000),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_billion_requests_a_second_are_planned_in_seconds(sample: str) -> None:
    workers_needed(1.0, SAMPLES[sample], slo_s=1.0)  # the simulation is compiled now, if it never was
    began_s = time.perf_counter()
    found = workers_needed(BILLION_RPS, SAMPLES[sample], slo_s=1.0)
    took_s = time.perf_counter() - began_s
    print(f"\n{BILLION_RPS:g}/s, {sample}: {found.workers:,} workers in {took_s:.2f} s (bar {BAR_S:g} s)")
    assert took_s < BAR_S


def test_policies_are_compared_within_seconds() -> None:
    policies(replications=1, requests=1000)
    began_s = time.perf_counter()
    rows = policies()
    took_s = time.perf_counter() - began_s
    print(f"\n{len(rows)} simulated latencies of balancing policies in {took_s:.2f} s (bar 15 s)")
    assert took_s < 15
