"""What notebook 06 is asked for in tests, and the conditions that come of it."""

from typing import Any

from lab.experiments.failures import trials as study
from lab.study.plan import Condition

PARAMETERS: dict[str, Any] = {
    "run": "",
    "dispatches": ["round-robin", "reuseport"],
    "kept": False,
    "turns": ["kill", "block"],
    "workers": 4,
    "load": 0.3,
    "duration_s": 9,
    "blocking": 40,
    "kernel": "python",
    "iterations": 1000,
    "timeout_s": 10,
    "blocks": 1,
    "seed": 1,
}


def conditions(**changes: Any) -> list[Condition]:
    return study.conditions(study.Parameters.from_notebook(PARAMETERS | changes))
