"""The theory beside each arrangement: known answers, and what must hold between them."""

import numpy as np
import pandas as pd
import pytest

from lab.experiments.dispatch.theory import Queue, curves, least_overhead_s, played, queue_of
from lab.models.queueing import mdc_wait_quantile

DISPATCHES = ("shared", "reuseport", "round-robin", "least-busy")
CLUSTERS = {name: queue_of({"topology": "cluster", "dispatch": name}) for name in DISPATCHES}
ONE = {"one process": queue_of({"topology": "single"})}
POOL = {"topology": "offload", "pool": "process", "kernel": "python"}


def at(curve: pd.DataFrame, server: str, utilisation: float) -> "pd.Series[float]":
    mine = curve[(curve["server"] == server) & np.isclose(curve["utilisation"], utilisation)]
    return mine.iloc[0]


def test_poisson_curves_are_the_exact_ones() -> None:
    curve = curves(CLUSTERS | ONE, 2, "poisson", 0.95)
    for server, sharing in (("least-busy", 2), ("round-robin", 2), ("reuseport", 1), ("one process", 1)):
        for name, quantile in (("p50", 0.5), ("tail", 0.95)):
            expected = 1 + mdc_wait_quantile(quantile, sharing, 0.8)
            assert at(curve, server, 0.8)[name] == pytest.approx(expected)


def test_taking_all_that_waits_lies_between_one_queue_and_many() -> None:
    curve = curves(CLUSTERS, 2, "poisson", 0.95)
    for utilisation in (0.5, 0.8):
        central, batches, hashed = (
            at(curve, server, utilisation)["tail"] for server in ("least-busy", "shared", "reuseport")
        )
        assert central < batches < hashed


def test_at_a_constant_rate_only_a_hash_lets_anyone_wait() -> None:
    curve = curves(CLUSTERS | {"pool": queue_of(POOL)}, 2, "constant", 0.95)
    for server in ("shared", "round-robin", "least-busy", "pool"):
        assert curve.loc[curve["server"] == server, "tail"].tolist() == pytest.approx([1.0] * 19)
    assert at(curve, "reuseport", 0.8)["tail"] > 1.5


def test_the_gil_has_no_curve() -> None:
    threads = POOL | {"pool": "thread"}
    assert queue_of(threads) is Queue.GIL
    assert queue_of(threads | {"kernel": "numba"}) is queue_of(POOL) is Queue.CENTRAL
    assert curves({"threads": Queue.GIL}, 2, "poisson", 0.95).empty


def requests(due_s: list[float], service_s: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame({"due_s": due_s, "service_s": service_s})


def test_a_trial_is_played_through_its_own_queue_and_the_ideal_one() -> None:
    burst = requests([0.0, 0.0, 0.5, 0.5])
    theory = played(burst, 2, Queue.BATCHES, 1.0, 0.0, 1)
    # The first worker takes both requests of time 0, the second both of time .5: latencies 1, 2, 1, 2.
    assert theory["mean_theory_s"] == pytest.approx(1.5)
    # One central queue: 1, 1, and .5 of waiting for the others.
    assert theory["mean_ideal_s"] == pytest.approx(1.25)
    assert theory["tail_theory_s"] == pytest.approx(2)
    central = played(burst, 2, Queue.CENTRAL, 1.0, 0.0, 1)
    assert central["mean_theory_s"] == central["mean_ideal_s"]
    assert central["tail_theory_s"] == pytest.approx(1.5)


def test_a_worker_is_taken_for_the_loop_and_for_what_comes_on_top() -> None:
    theory = played(requests([0.0, 0.0]), 1, Queue.ONE, 1.0, 0.5, 1)
    assert theory == {"mean_theory_s": 2.25, "tail_theory_s": 3.0, "mean_ideal_s": 2.25}


def test_the_least_on_top_is_that_of_requests_that_found_an_idle_worker() -> None:
    waited_s = np.array([0.0, 0.0, 0.0, 0.5, 0.9, 1.4, 2.0, np.nan])
    answered = requests([float(n) for n in range(8)]).assign(end_s=np.arange(8) + 1.1 + waited_s)
    assert least_overhead_s(answered) == pytest.approx(0.1)
    assert np.isnan(least_overhead_s(answered.assign(end_s=np.nan)))


def test_a_request_without_an_answer_takes_the_mean() -> None:
    known = played(requests([0.0, 5.0], 2.0), 1, Queue.ONE, 2.0, 0.0, 0.9)
    lost = played(requests([0.0, 5.0], 2.0).assign(service_s=[2.0, np.nan]), 1, Queue.ONE, 2.0, 0.0, 0.9)
    assert known == lost


def test_under_the_gil_the_loop_alone_is_the_measure() -> None:
    theory = played(requests([0.0, 9.0], service_s=7.0), 2, Queue.GIL, 1.0, 0.0, 0.9)
    assert theory["mean_ideal_s"] == 1.0
    assert np.isnan(theory["tail_theory_s"])
