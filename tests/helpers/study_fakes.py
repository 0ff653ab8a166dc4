"""A trial without a server: what an attack would give, computed from the condition and its seed."""

from typing import Any

import numpy as np
import pandas as pd

from lab.load.log import OUTCOMES
from lab.load.summary import summarize
from lab.study.plan import Condition
from lab.study.trial import Attacked

QUICK = 1_000
"""Iterations of a loop too short to wait for."""


def condition(rate: float | None = 20, **changes: Any) -> Condition:
    values: dict[str, Any] = {"duration_s": 1, "iterations": QUICK, "rate": rate}
    return Condition(**(values | changes))


def fake_attack(condition: Condition, seed: int) -> Attacked:
    """Answer every request well, each after a random part of 10 ms; every tenth one is refused."""
    assert condition.rate is not None, "a load becomes a rate before the trial"
    count = round(condition.rate * condition.duration_s)
    random = np.random.default_rng(seed)
    requests = pd.DataFrame(
        [_request(i, i / condition.rate, random.uniform(0.001, 0.011)) for i in range(count)]
    )
    requests["outcome"] = pd.Categorical(requests["outcome"], OUTCOMES)
    requests = requests.astype({"status": "Int16", "worker": "Int32", "bytes_in": "Int64"})
    summary = summarize(
        requests,
        url="http://127.0.0.1:1/api/slow",
        arrivals=condition.arrivals,
        rate=condition.rate,
        duration_s=condition.duration_s,
        generator={"cpu_s": 0.01},
    )
    return Attacked(requests, summary)


def _request(i: int, due_s: float, latency_s: float) -> dict[str, Any]:
    request = {"due_s": due_s, "sent_s": due_s, "end_s": due_s + latency_s}
    if i % 10 == 9:
        return request | {
            "outcome": "refused",
            "status": None,
            "service_s": None,
            "service_cpu_s": None,
            "worker": None,
            "bytes_in": 0,
        }
    return request | {
        "outcome": "ok",
        "status": 200,
        "service_s": 0.001,
        "service_cpu_s": 0.0009,
        "worker": 100 + i % 2,
        "bytes_in": 34,
    }
