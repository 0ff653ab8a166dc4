"""Records in, numbers out: what `lab attack --format json` prints. Quantiles are numpy's `linear` ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.load.outcomes import OUTCOMES, Outcome
from lab.load.rates import sending_ends_s
from lab.load.validity import reasons_against

Values = NDArray[np.float64]

_LATENCY_QUANTILES = (50, 90, 95, 99)
_LAG_QUANTILES = (50, 99)


def summarize(
    requests: pd.DataFrame,
    *,
    url: str,
    arrivals: str,
    rate: float,
    duration_s: float,
    generator: Mapping[str, float | None],
    errors: Mapping[str, int] | None = None,
    stopped_s: float | None = None,
    profile: str | None = None,
) -> dict[str, Any]:
    """Return the numbers of an attack, seconds everywhere, None where there is nothing to count.

    `planned`, `sent`, `outcomes` and `errors` are those of `account`; `requests` are those that were sent and
    came to an end. `success` is ok / planned. `throughput` is ok / (0 to the last end, or to the end of the
    sending if that is later: n requests span n gaps). `latency_s` runs from due to end over all `requests`,
    failures too, `latency_ok_s` over the ok ones. `rate` and `duration_s` are what was asked for, `sent_rate`
    is sent / (0 to the end of sending, see `lab.load.rates`); `total_s` is first due to last end; `stopped_s`
    is when an interrupt came. `send_lag_s` runs from due to sent, waits for a slot of the in-flight limit
    included.
    """
    counts = account(requests, errors or {})
    due, sent, end = (requests[name].to_numpy(np.float64) for name in ("due_s", "sent_s", "end_s"))
    latency, ok = end - due, (requests["outcome"] == OUTCOMES[Outcome.OK]).to_numpy()
    answered = counts["outcomes"]["ok"]
    ended = ~np.isnan(latency)
    latency_s = distribution(latency[ended], _LATENCY_QUANTILES)
    lag_s = distribution(_present(sent - due), _LAG_QUANTILES)
    lag_s = {name: lag_s[name] for name in ("p50", "p99", "max")}
    invalid_because = [*_interruption(stopped_s), *reasons_against(latency_s["p50"], generator)]
    planned_s = len(requests) / rate if arrivals == "constant" else duration_s
    ends_s = sending_ends_s(due, sent, planned_s, stopped_s)
    last_end_s = float(end[ended].max()) if ended.any() else 0.0
    return {
        "url": url,
        "arrivals": arrivals,
        "rate": rate,
        "sent_rate": counts["sent"] / ends_s if counts["sent"] else 0.0,
        "profile": profile,
        "duration_s": duration_s,
        "total_s": last_end_s - float(due[0]) if ended.any() else 0.0,
        "stopped_s": stopped_s,
        **counts,
        "requests": int(np.count_nonzero(ended)),
        "ok": answered,
        "success": answered / len(requests) if len(requests) else None,
        "throughput": answered / max(last_end_s, ends_s) if answered else 0.0,
        "status_codes": _counts(requests["status"]),
        "latency_s": latency_s,
        "latency_ok_s": distribution(latency[ok], _LATENCY_QUANTILES),
        "service_s": distribution(_present(requests["service_s"].to_numpy(np.float64)), _LATENCY_QUANTILES),
        "send_lag_s": lag_s,
        "bytes_in": int(np.nansum(requests["bytes_in"].to_numpy(np.float64))),
        "workers": _counts(requests["worker"]),
        "generator": dict(generator),
        "valid": not invalid_because,
        "invalid_because": invalid_because,
    }


def account(requests: pd.DataFrame, errors: Mapping[str, int]) -> dict[str, Any]:
    """Return what became of requests: `planned`, which is the sum of `outcomes`, and how many were `sent`."""
    codes = pd.Categorical(requests["outcome"], categories=OUTCOMES).codes
    counts = np.bincount(codes, minlength=len(OUTCOMES)).tolist()
    return {
        "planned": len(requests),
        "sent": len(requests) - counts[Outcome.DROPPED],
        "outcomes": dict(zip(OUTCOMES, counts, strict=True)),
        "errors": dict(sorted(errors.items(), key=lambda item: -item[1])),
    }


def _interruption(stopped_s: float | None) -> list[str]:
    if stopped_s is None:
        return []
    return [f"interrupted after {stopped_s:.1f} s" if stopped_s > 0 else "interrupted in the warm-up"]


def distribution(values: Values, percentiles: Sequence[int]) -> dict[str, float | None]:
    """Return min, mean, percentiles and max of values without NaN, reordering them; all None without any."""
    names = ["min", "mean", *(f"p{p}" for p in percentiles), "max"]
    if not len(values):
        return dict.fromkeys(names)
    low, *middle, high = np.percentile(values, [0, *percentiles, 100], overwrite_input=True).tolist()
    return dict(zip(names, [low, float(values.mean()), *middle, high], strict=True))


def _present(values: Values) -> Values:
    return values[~np.isnan(values)]


def _counts(column: "pd.Series[Any]") -> dict[str, int]:
    """How often each whole number occurs, as JSON keys; what is missing is not counted."""
    values, counts = np.unique(_present(column.to_numpy(np.float64)), return_counts=True)
    return {str(int(value)): int(count) for value, count in zip(values, counts, strict=True)}
