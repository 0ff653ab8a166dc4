"""Trials and looks of notebook 07 made by hand: every server at its ideal, unless a test says otherwise."""

from typing import Any

import pandas as pd
from helpers.trial_rows import trials

from lab.experiments.other_servers.servers import COLUMNS
from lab.models.statistics import busiest_by_chance

NEVER_ALIKE = (0.99, 1.01, 1.0, 0.995, 1.005, 1.002)
"""What each block does to a trial by itself."""

PARAMETERS: dict[str, Any] = {
    "run": "",
    "ours": ["least-busy", "round-robin"],
    "peers": [],
    "workers": 2,
    "overload_s": 0.5,
    "load": 0.8,
    "tail_s": 1.0,
    "kept": [2, 4],
    "answers": 8,
    "looks": 1,
    "events": ["block", "reload", "kill"],
    "events_s": 3.0,
    "blocking": 20,
    "kernels": [],
    "kernel": "python",
    "iterations": 20_000,
    "timeout_s": 10,
    "blocks": 1,
    "other_blocks": 1,
    "seed": 1,
}


COMPARED = [
    *("coins", "connections", "own_s", "tail_s", "tail_share", "busiest"),
    *("limit_share", "tail_over_ideal", "mean_over_ideal"),
]
"""The columns that `analysis.compared` adds, as far as they are made here."""


def measured(servers: dict[str, dict[str, float]], blocks: int = 6) -> pd.DataFrame:
    """Make an overload and random arrivals per server and block: `limit` and `tail` are the two results."""
    rows = [
        {
            "server": server, "part": part, "block": block,
            "limit_share": found.get("limit", 0.99) * wobble if part == "overload" else 0.8,
            "tail_over_ideal": found.get("tail", 1.0) * wobble,
            "mean_over_ideal": found.get("mean", found.get("tail", 1.0)) * wobble,
            "latency_mean_s": 0.1 * found.get("tail", 1.0) * wobble,
            "busiest": found.get("busiest", 1.0),
            "workers": 1 if server == "node" else 2,
        }
        for place, (server, found) in enumerate(servers.items())
        for block in range(1, blocks + 1)
        for part in ("overload", "tail")
        for wobble in [NEVER_ALIKE[(block + place) % 6]]
    ]  # fmt: skip
    made = trials(*rows, topology="cluster", arrivals="poisson", keepalive=False, aimed=0.8)
    coins = [2 * busiest_by_chance([1] * 60, 2, seed=block) for block in made["block"]]
    return made.assign(
        trial_id=[str(number) for number in made.index],
        coins=pd.Series(coins, made.index),
        connections=60, own_s=0.1, tail_s=0.2, tail_share=0.9,
    )  # fmt: skip


def seen(*servers: str, **changes: Any) -> pd.DataFrame:
    """Make a look at each server."""
    fair = {name: 1.0 for name in COLUMNS if name != "server"}
    return pd.DataFrame([fair | {"server": server, "pss_bytes": 50 * 2**20} | changes for server in servers])
