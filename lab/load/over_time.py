"""An attack second by second: what came of the requests, how long they took, and how many were in flight."""

from typing import Any

import numpy as np
import pandas as pd

from lab.load.outcomes import OUTCOMES, Outcome

QUANTILES = {"p50_s": 50, "p90_s": 90, "p99_s": 99}


def over_time(requests: pd.DataFrame, bin_s: float = 1.0) -> pd.DataFrame:
    """Return a row per `bin_s` of an attack, from time 0 until the last end.

    Columns: `start_s`; `due`, how many fell due in the bin; one per outcome, how many came to that end in it
    (a dropped one when it was due; an unfinished one nowhere); `p50_s`, `p90_s`, `p99_s` of the latencies of
    those *due* in it, NaN if none ended; `in_flight`, how many were due and had not ended when the bin ended.
    """
    due, end = (requests[name].to_numpy(np.float64) for name in ("due_s", "end_s"))
    codes = pd.Categorical(requests["outcome"], categories=OUTCOMES).codes
    left = np.where(codes == Outcome.DROPPED, due, end)
    last = np.nanmax(np.concatenate([due, left]))
    bins = int(_bin(last, bin_s)) + 1
    columns = {"start_s": bin_s * np.arange(bins), "due": np.bincount(_bin(due, bin_s), minlength=bins)}
    for outcome in Outcome:
        its = left[(codes == outcome) & ~np.isnan(left)]
        columns[outcome.name.lower()] = np.bincount(_bin(its, bin_s), minlength=bins)
    latencies = (end - due)[~np.isnan(end)]
    which = _bin(due[~np.isnan(end)], bin_s)
    by_bin = [latencies[which == number] for number in range(bins)]
    for name, percentile in QUANTILES.items():
        columns[name] = np.array(
            [np.percentile(part, percentile) if len(part) else np.nan for part in by_bin]
        )
    gone = np.sum([columns[name] for name in OUTCOMES], axis=0)
    return pd.DataFrame(columns | {"in_flight": np.cumsum(columns["due"] - gone)})


def _bin(times_s: Any, bin_s: float) -> Any:
    """In which bin each time is; what is due at 0.3 s is in the fourth tenth, though 0.3 / 0.1 is under 3."""
    return np.floor(times_s / bin_s + 1e-9).astype(int)
