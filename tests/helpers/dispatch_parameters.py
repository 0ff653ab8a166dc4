"""Parameters of notebook 05, with changes."""

from typing import Any

from lab.experiments.dispatch.trials import Parameters

PARAMETERS: dict[str, Any] = {
    "run": "",
    "dispatches": ["shared", "reuseport", "round-robin", "least-busy"],
    "bounds": [1],
    "pools": ["process", "thread"],
    "kept": ["round-robin", "process"],
    "poisson": [0.5, 0.8],
    "constant": [0.9],
    "workers": 1,
    "duration_s": 2,
    "kernel": "python",
    "iterations": 1000,
    "threads_kernel": "numba",
    "threads_iterations": 5000,
    "timeout_s": 30,
    "blocks": 2,
    "other_blocks": 1,
    "seed": 1,
}


def parameters(**changes: Any) -> Parameters:
    return Parameters.from_notebook(PARAMETERS | changes)
