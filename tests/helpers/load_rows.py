"""Request records made by hand."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from lab.load.log import Outcome
from lab.load.records import to_frame

GENERATOR = {"processes": 1, "cpu_s": 0.25, "cpu_share": 0.1, "stall_longest_s": 0.002, "stalled_share": 0.0}


def rows(
    latencies_s: list[float],
    outcomes: list[Outcome] | None = None,
    interval_s: float = 0.1,
    lag_s: float = 0.0,
) -> pd.DataFrame:
    """Return records with these latencies and outcomes (ok if not said), due every `interval_s`."""
    count = len(latencies_s)
    due_s = np.arange(count, dtype=np.float64) * np.float64(interval_s)
    outcome = np.array(outcomes or [Outcome.OK] * count, np.uint8)
    answered = np.isin(outcome, [Outcome.OK, Outcome.HTTP_ERROR])
    ended = ~np.isin(outcome, [Outcome.DROPPED, Outcome.UNFINISHED])
    columns = {
        "sent_s": np.where(outcome != Outcome.DROPPED, due_s + lag_s, np.nan),
        "end_s": np.where(ended, due_s + np.array(latencies_s), np.nan),
        "outcome": outcome,
        "status": np.where(answered, np.where(outcome == Outcome.OK, 200, 503), 0).astype(np.uint16),
        "service_s": np.where(answered, 0.02, np.nan),
        "service_cpu_s": np.where(answered, 0.01, np.nan),
        "worker": np.where(answered, 11 + np.arange(count) % 2, 0).astype(np.int32),
        "bytes_in": np.where(answered, 34, 0),
    }
    return to_frame(due_s, columns)


any_rows = st.lists(
    st.tuples(st.integers(0, 10**9).map(lambda ns: ns / 1e7), st.sampled_from(list(Outcome))),
    min_size=1,
    max_size=60,
).map(lambda pairs: rows([latency for latency, _ in pairs], [outcome for _, outcome in pairs]))
