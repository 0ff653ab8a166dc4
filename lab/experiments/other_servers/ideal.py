"""Each trial beside its own limit, and beside one ideal queue of its own arrivals and loops."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lab.experiments.common import accounted
from lab.experiments.dispatch.trials import TAILS, least_overhead_s
from lab.experiments.other_servers.trials import TAIL
from lab.models.simulation import waits
from lab.models.statistics import busiest_by_chance, samples_needed
from lab.study.plan import share_of_limit
from lab.study.run import Run

_THREADS = frozenset({"gunicorn-gthread"})
"""The workers of these run several loops at once, in threads that take turns: what counts is CPU time."""


def beside_ideal(run: Run, trials: pd.DataFrame) -> pd.DataFrame:
    """Add what the trials of a run are compared with; see `compared`."""
    return compared(accounted(run, trials), run.requests(trials), run.manifest.machine.available_cpus)


def compared(trials: pd.DataFrame, requests: pd.DataFrame, cpus: int) -> pd.DataFrame:
    """Add each trial's own limit, and one ideal queue of its own arrivals and loops.

    own_s: the mean time of its loops; of workers with threads that take turns, which is a wait inside the
    loop, their CPU time. limit_share: throughput while all workers could be busy, as a share of what `own_s`
    allows (`plan.share_of_limit`). utilisation: the offered rate as such a share. For the part `TAIL`:
    tail_share, the rarest of `TAILS` for which every one of its trials has enough requests, or the median;
    tail_s, that percentile of latency; ideal_tail_s and ideal_s, the same percentile, and the mean, in one
    central queue, where a request occupies a worker for its loop and for the least that any server takes on
    top of one. tail_over_ideal and mean_over_ideal are measured over ideal. busiest: the busiest worker's
    answers over its fair share. coins: draws of what that is by chance.
    """
    trials = trials.reset_index(drop=True)
    mine = dict(list(requests.groupby("trial_id")))
    threads = trials["peer"].isin(_THREADS)
    own_s = trials["service_mean_s"].mask(threads, trials["service_cpu_mean_s"]).fillna(trials["loop_s"])
    limits = (own_s, trials["service_cpu_mean_s"].astype(float), trials["workers"], cpus)
    tails = trials[trials["part"] == TAIL]
    share = next((share for share in TAILS if samples_needed(share) <= tails["sent"].min()), 0.5)
    least_s = [least_overhead_s(mine[name]) for name in tails["trial_id"]]
    overhead_s = max(0.0, np.nan_to_num(np.nanmin(least_s, initial=np.inf), posinf=0.0)) if least_s else 0.0
    trials = trials.assign(
        own_s=own_s,
        limit_share=share_of_limit(trials["busy_rps"], *limits),
        utilisation=share_of_limit(trials["rate"], *limits),
        tail_share=share,
        tail_s=trials[f"latency_p{100 * share:.0f}_s"],
        busiest=trials["worker_max_share"] * trials["workers"],
        connections=trials["ok"],
    )
    played = [
        _played(row, mine[row["trial_id"]], overhead_s) if row["part"] == TAIL else _NOT_PLAYED
        for row in trials.to_dict("records")
    ]
    trials = trials.join(pd.DataFrame(played, trials.index, columns=list(_NOT_PLAYED)))
    return trials.assign(
        tail_over_ideal=trials["tail_s"] / trials["ideal_tail_s"],
        mean_over_ideal=trials["latency_mean_s"] / trials["ideal_s"],
    )


_NOT_PLAYED: dict[str, Any] = {"ideal_s": np.nan, "ideal_tail_s": np.nan, "coins": np.array([])}


def _played(trial: Mapping[Any, Any], requests: pd.DataFrame, overhead_s: float) -> dict[str, Any]:
    loops = "service_cpu_s" if trial["peer"] in _THREADS else "service_s"
    loops_s = requests[loops].fillna(trial["own_s"]).to_numpy(float) + overhead_s
    workers = int(trial["workers"])
    ideal_s = waits(requests["due_s"].to_numpy(), loops_s, workers) + loops_s
    answered = int(requests["worker"].notna().sum())
    dealt = busiest_by_chance([1] * answered, workers, seed=trial["block"]) if answered else np.array([])
    return {
        "ideal_s": float(ideal_s.mean()),
        "ideal_tail_s": float(np.quantile(ideal_s, trial["tail_share"])),
        "coins": workers * dealt,
    }
