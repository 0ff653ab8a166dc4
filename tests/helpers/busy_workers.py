"""Trials of workers that are busy all the time, so what they answer is known, and a run that has them."""

from typing import Any, cast

import pandas as pd
from helpers.trial_rows import trials

from lab.experiments.worker_scaling.scaling import accounted
from lab.study.run import Run

_ANSWERS = 20
"""Of each worker."""

SIX = [{1: 10.0 * speed, 2: 18.0 * speed, 4: 17.0 * speed} for speed in (1, 2, 1, 2, 1, 2)]
"""Blocks of a machine with two speeds: ratios agree where rates do not."""


def scaled(*blocks: dict[int, float], cpus: int = 2, **common: Any) -> pd.DataFrame:
    """Make trials of blocks that map workers to requests per second, offered 1.3 times as much.

    A worker is in its loop for nine tenths of the time. More workers than CPUs take turns on them.
    """
    rows = [
        {
            "trial_id": f"worker-scaling.b{number:02d}.{workers}",
            "block": number,
            "workers": workers,
            "rate": 1.3 * rate_rps / 0.9,
            "utilisation": 1.3 if rate_rps else float("nan"),
            "throughput_rps": rate_rps,
            "service_mean_s": 0.9 * workers / rate_rps if rate_rps else float("nan"),
            "service_cpu_mean_s": 0.9 * min(workers, cpus) / rate_rps if rate_rps else float("nan"),
        }
        for number, block in enumerate(blocks, start=1)
        for workers, rate_rps in block.items()
    ]
    return trials(*rows, **{"topology": "cluster"} | common)


def requests_of(trials: pd.DataFrame) -> pd.DataFrame:
    """Make the requests of such trials: all sent at the start, and answered one after the other."""
    rows = [
        {
            "trial_id": trial["trial_id"],
            "sent_s": 0.0,
            "end_s": done * trial["workers"] / trial["throughput_rps"],
            "outcome": "ok",
            "worker": number,
            "service_s": trial["service_mean_s"],
            "service_cpu_s": trial["service_cpu_mean_s"],
        }
        for _, trial in trials.iterrows()
        for number in range(int(trial["workers"]) if trial["throughput_rps"] else 0)
        for done in range(1, _ANSWERS + 1)
    ]
    names = ["trial_id", "sent_s", "end_s", "outcome", "worker", "service_s", "service_cpu_s"]
    return pd.DataFrame(rows, columns=names)


class BusyRun:
    """A run whose requests are those of its trials."""

    def requests(self, trials: pd.DataFrame) -> pd.DataFrame:
        """Return the requests of these trials."""
        return requests_of(trials)


def measured(*blocks: dict[int, float], **common: Any) -> pd.DataFrame:
    """Make the trials of `scaled`, with what `accounted` adds."""
    return accounted(cast(Run, BusyRun()), scaled(*blocks, **common))
