"""What can be told only from the log of all generators together: each of them knows its own share alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


def joint_figures(due_s: Times, columns: Mapping[str, NDArray[Any]]) -> dict[str, float | None]:
    """Return figures about the generators, warm-up apart.

    waited: how many requests waited for a slot of the in-flight limit; most_in_flight: the most that were
    sent and had not ended at one time; lag_p99_s: the p99 of the send lag of those that did not wait for a
    slot, the generators' own fault, None if there are none.
    """
    counted = due_s >= 0
    sent_s, end_s, waited = (columns[name][counted] for name in ("sent_s", "end_s", "waited"))
    own_lag_s = (sent_s - due_s[counted])[(waited == 0) & ~np.isnan(sent_s)]
    return {
        "waited": int(np.count_nonzero(waited)),
        "most_in_flight": most_in_flight(sent_s, end_s),
        "lag_p99_s": float(np.percentile(own_lag_s, 99)) if len(own_lag_s) else None,
    }


def most_in_flight(sent_s: Times, end_s: Times) -> int:
    """Return how many requests were sent and not ended at once, at most.

    NaN is what was never sent, or has never ended. What ends at the instant of a send was there no longer.
    """
    sent, end = (np.sort(times[~np.isnan(times)]) for times in (sent_s, end_s))
    there = np.arange(1, len(sent) + 1) - np.searchsorted(end, sent, side="right")
    return int(there.max(initial=0))
