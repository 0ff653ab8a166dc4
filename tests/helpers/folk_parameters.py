"""Parameters of notebook 12, with changes."""

from typing import Any

from lab.experiments.folk_rules.rules import Parameters

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
