"""The theory beside each arrangement: known answers, and what must hold between them."""

from typing import get_args

import numpy as np
import pandas as pd
import pytest

from lab.experiments.dispatch.theory import Queue, curve, least_overhead_s, played, queue_of
from lab.load.arrivals import Arrivals
from lab.models.queueing import mdc_wait_quantile
from lab.servers.spec import DispatchName

DISPATCHES = get_args(DispatchName)
POOL = {"topology": "offload", "pool": "process", "kernel": "python"}


def at(queue: Queue, utilisation: float, arrivals: Arrivals = "poisson") -> "pd.Series[float]":
    found = curve(queue, 2, arrivals, 0.95)
    return found[np.isclose(found["utilisation"], utilisation)].iloc[0]


def test_poisson_curves_are_the_exact_ones() -> None:
    for queue, sharing in ((Queue.CENTRAL, 2), (Queue.TURNS, 2), (Queue.HASHED, 1), (Queue.ONE, 1)):
        for name, quantile in (("p50", 0.5), ("tail", 0.95)):
            assert at(queue, 0.8)[name] == pytest.approx(1 + mdc_wait_quantile(quantile, sharing, 0.8))


def test_taking_all_that_waits_lies_between_one_queue_and_many() -> None:
    for utilisation in (0.5, 0.8):
        central, batches, hashed = (
            at(queue, utilisation)["tail"] for queue in (Queue.CENTRAL, Queue.BATCHES, Queue.HASHED)
        )
        assert central < batches < hashed


def test_at_a_constant_rate_only_a_hash_lets_anyone_wait() -> None:
    for queue in (Queue.BATCHES, Queue.TURNS, Queue.CENTRAL):
        assert curve(queue, 2, "constant", 0.95)["tail"].tolist() == pytest.approx([1.0] * 19)
    assert at(Queue.HASHED, 0.8, "constant")["tail"] > 1.5


def test_a_queue_follows_from_the_factors_of_an_arrangement() -> None:
    found = {dispatch: queue_of({"topology": "cluster", "dispatch": dispatch}) for dispatch in DISPATCHES}
    assert found == {
        "shared": Queue.BATCHES,
        "reuseport": Queue.HASHED,
        "round-robin": Queue.TURNS,
        "least-busy": Queue.CENTRAL,
    }
    assert queue_of({"topology": "single"}) is Queue.ONE
    assert queue_of(POOL) is Queue.CENTRAL


def test_threads_that_hold_the_gil_have_no_curve() -> None:
    threads = POOL | {"pool": "thread"}
    assert queue_of(threads) is Queue.GIL
    assert queue_of(threads | {"kernel": "numba"}) is Queue.CENTRAL
    assert curve(Queue.GIL, 2, "poisson", 0.95).empty


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
