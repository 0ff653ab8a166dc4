"""Notebook 12 in tests: its parameters, with changes, and trials made by hand for each of its rules."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from helpers.trial_rows import trials

from lab.experiments.folk_rules import throttled
from lab.experiments.folk_rules.rules import Parameters, with_tail
from lab.experiments.folk_rules.trials import (
    ALONE,
    BESIDE,
    CLUSTER,
    FREE,
    HELD,
    INLINE,
    OVERLOAD,
    POOL,
    TAIL,
    THREAD,
)

NEVER_ALIKE = (0.99, 1.01, 1.0, 0.995, 1.005, 1.002)
"""What each block does to a trial by itself."""

Given = float | list[float]
"""Of a server, for all six blocks, or for each."""

PARAMETERS: dict[str, Any] = {
    "run": "",
    "rules": ["workers", "counts", "replicas", "slow", "pool", "memory", "quota"],
    "workers": 2,
    "overload_s": 0.2,
    "load": 0.6,
    "tail_s": 0.2,
    "quotas": [0.5, 1.0],
    "dispatches": ["least-busy", "reuseport"],
    "slow_s": 2.5,
    "slow": 5,
    "quick_s": 0.5,
    "requests": 50,
    "quota": 0.5,
    "quota_s": 0.5,
    "quota_iterations": 20_000,
    "kernel": "python",
    "iterations": 5_000,
    "timeout_s": 10,
    "blocks": 1,
    "seed": 1,
}


def parameters(**changes: Any) -> Parameters:
    return Parameters.from_notebook(PARAMETERS | changes)


def made(part: str, times: Mapping[str, Given], column: str = "latency_p99_s", **common: Any) -> pd.DataFrame:
    """Make trials of servers in six blocks: their column is so many tenths of a second, never quite alike."""
    rows = [
        {"server": server, "block": block, column: 0.1 * mine[block - 1] * NEVER_ALIKE[(block + place) % 6]}
        for place, (server, given) in enumerate(times.items())
        for mine in [given if isinstance(given, list) else [given] * 6]
        for block in range(1, len(mine) + 1)
    ]
    return trials(*rows, part=part, sent=400, **common)


def tails(times: Mapping[str, Given], **common: Any) -> pd.DataFrame:
    """Make trials under random arrivals, whose tail is so many loops, and times an ideal queue's."""
    found = with_tail(made(TAIL, times, workers=2, **common))
    return found.assign(theory=1.0, over_ideal=found["tail_loops"])


def rates(times: Mapping[str, Given], **common: Any) -> pd.DataFrame:
    """Make overloads that do so much work."""
    return made(OVERLOAD, times, "work_cpus", **common)


def told(quota: float, usable: int, others: float = 0.0, **said: float) -> pd.DataFrame:
    """Make what APIs say under a quota, while others use this share of the CPUs."""
    rows = [{"api": api, "cpus": cpus, "because": "no quota"} for api, cpus in said.items()]
    return pd.DataFrame(rows).assign(quota_cpus=quota, ran=quota, usable=usable, others_cpu=others)


def events(**waiting: int) -> pd.DataFrame:
    """Make twenty slow requests for each dispatch: of thirty others, so many wait."""
    usual: dict[str, Any] = {
        "trial_id": "t", "block": 1, "keepalive": False, "workers": 4, "flags": (), "kind": "block",
        "took_s": 0.5, "detail": "9", "met": 40, "lost": 0, "refused": 0, "next_s": 0.01, "due": 30,
        "loops": 1.5, "latency_s": 0.01,
    }  # fmt: skip
    rows = [
        usual | {"dispatch": name.replace("_", "-"), "waited": count, "trial_id": name}
        for name, count in waiting.items()
        for _ in range(20)
    ]
    return pd.DataFrame(rows)


def beside(inline: float, thread: Given, **common: Any) -> pd.DataFrame:
    """Make trials beside a slow request, whose tails are multiples of the pool's."""
    quick = {INLINE: inline, THREAD: thread, POOL: 1.0, CLUSTER: 1.1, ALONE: 0.5}
    found = made(BESIDE, quick, **common)
    return with_tail(found.assign(blocking=np.where(found["server"] == ALONE, 0, 5)))


def looked(*growth: float) -> pd.DataFrame:
    """Make starts of a server whose largest worker doubles as it gets warm, and then grows so many times."""
    fresh = 20.0 * 2**20
    rows = [
        {
            "fresh_bytes": fresh,
            "warm_bytes": 2 * fresh,
            "after_bytes": 2 * fresh * one,
            "answered": 10_000.0,
            "free_bytes": 2.0**32,
        }
        for one in growth
    ]
    return pd.DataFrame(rows)


def held(*late: int, of: int = 50, **common: Any) -> pd.DataFrame:
    """Make trials under a quota in which so many requests take five times as long as without it.

    Beside each is one without a quota, in which none does.
    """
    under = {"part": HELD, "quota_cpus": 0.5, "cpu_periods": 10, "cpu_periods_throttled": 2}
    rows = [
        {"block": block, "trial_id": f"{name}{block}"} | of_it
        for block in range(1, len(late) + 1)
        for name, of_it in (("t", under), ("f", {"part": FREE}))
    ]
    found = trials(*rows, server="workers-2", workers=2, rate=2.0, **common)
    due_s = np.arange(of, dtype=float)
    as_if_free = pd.DataFrame({"due_s": due_s, "end_s": due_s + 0.1, "outcome": "ok", "service_cpu_s": 0.1})
    requests = [
        as_if_free.assign(trial_id=f"t{block}", end_s=due_s + np.where(due_s < count, 0.5, 0.1))
        for block, count in enumerate(late, 1)
    ] + [as_if_free.assign(trial_id=f"f{block}") for block in range(1, len(late) + 1)]
    return throttled.with_delays(found, pd.concat(requests))
