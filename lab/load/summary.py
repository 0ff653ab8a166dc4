"""Records in, numbers out: what `lab attack --format json` prints. Quantiles are numpy's `linear` ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.flags import Flag, passed
from lab.load.arrivals import Times
from lab.load.log import OUTCOMES, Outcome

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
    stages: str | None = None,
) -> dict[str, Any]:
    """Return the numbers of an attack, in seconds throughout, None where there is nothing to count.

    `planned`, `sent`, `outcomes` and `errors` are those of `account`; `requests` were sent and have ended.
    `success` is ok / planned. `throughput` is ok / (0 to the last end, or to the end of sending if that is
    later: n requests span n gaps). `latency_s` runs from due to end over all `requests`, including failures;
    `latency_ok_s` over the ok ones; `service_s` and
    `service_cpu_s` are wall and CPU time of the server's loop. `rate` and `duration_s` are what was asked
    for. `sent_rate` is
    sent / (0 to the end of sending, see `sending_ends_s`). `total_s` is first due to last end; `stopped_s` is
    when an interrupt came. `send_lag_s` runs from due to sent, including waits for a slot of the in-flight
    limit.
    """
    counts = account(requests, errors or {})
    due, sent, end = (requests[name].to_numpy(np.float64) for name in ("due_s", "sent_s", "end_s"))
    latency, ok = end - due, (requests["outcome"] == OUTCOMES[Outcome.OK]).to_numpy()
    answered = counts["outcomes"]["ok"]
    ended = ~np.isnan(latency)
    latency_s = latency_of(requests)
    lag_s = distribution(_present(sent - due), _LAG_QUANTILES)
    lag_s = {name: lag_s[name] for name in ("p50", "p99", "max")}
    failed_here = counts["outcomes"]["client_error"] / max(1, len(requests))
    flags = flags_against(latency_s["p50"], generator, client_errors=failed_here, stopped_s=stopped_s)
    planned_s = len(requests) / rate if arrivals == "constant" else duration_s
    ends_s = sending_ends_s(due, sent, planned_s, stopped_s)
    last_end_s = float(end[ended].max()) if ended.any() else 0.0
    return {
        "url": url,
        "arrivals": arrivals,
        "rate": rate,
        "sent_rate": counts["sent"] / ends_s if counts["sent"] else 0.0,
        "stages": stages,
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
        "service_s": _reported(requests["service_s"]),
        "service_cpu_s": _reported(requests["service_cpu_s"]),
        "send_lag_s": lag_s,
        "bytes_in": int(np.nansum(requests["bytes_in"].to_numpy(np.float64))),
        "workers": _counts(requests["worker"]),
        "generator": dict(generator),
        "valid": not flags,
        "flags": [flag.to_dict() for flag in flags],
        "invalid_because": [str(flag) for flag in flags],
    }


def latency_of(requests: pd.DataFrame) -> dict[str, float | None]:
    """Return the distribution of latency, in seconds from due to end, over all requests that ended."""
    latency_s = requests["end_s"].to_numpy(np.float64) - requests["due_s"].to_numpy(np.float64)
    return distribution(latency_s[~np.isnan(latency_s)], _LATENCY_QUANTILES)


def account(requests: pd.DataFrame, errors: Mapping[str, int]) -> dict[str, Any]:
    """Return what became of requests: `planned`, the sum of `outcomes`, and how many were `sent`."""
    codes = pd.Categorical(requests["outcome"], categories=OUTCOMES).codes
    counts = np.bincount(codes, minlength=len(OUTCOMES)).tolist()
    return {
        "planned": len(requests),
        "sent": len(requests) - counts[Outcome.DROPPED],
        "outcomes": dict(zip(OUTCOMES, counts, strict=True)),
        "errors": dict(sorted(errors.items(), key=lambda item: -item[1])),
    }


def distribution(values: Values, percentiles: Sequence[int]) -> dict[str, float | None]:
    """Return min, mean, percentiles and max of values without NaN, or all None; the values are reordered."""
    names = ["min", "mean", *(f"p{p}" for p in percentiles), "max"]
    if not len(values):
        return dict.fromkeys(names)
    low, *middle, high = np.percentile(values, [0, *percentiles, 100], overwrite_input=True).tolist()
    return dict(zip(names, [low, float(values.mean()), *middle, high], strict=True))


def _reported(times_s: "pd.Series[Any]") -> dict[str, float | None]:
    return distribution(_present(times_s.to_numpy(np.float64)), _LATENCY_QUANTILES)


def _present(values: Values) -> Values:
    """The finite values: a server may say that its loop took for ever, which is not a number."""
    return values[np.isfinite(values)]


def _counts(column: "pd.Series[Any]") -> dict[str, int]:
    """How often each whole number occurs, with JSON keys; missing values are left out."""
    values, counts = np.unique(_present(column.to_numpy(np.float64)), return_counts=True)
    return {str(int(value)): int(count) for value, count in zip(values, counts, strict=True)}


LEAST_LAG_S = 0.001
MOST_LAG_S = 0.01
LAG_SHARE = 0.1
STALL_S = 0.1
STALLED_SHARE = 0.01
CPU_SHARE = 0.9
CLIENT_ERRORS_SHARE = 0.001
"""Failures of the client's own, which say nothing about the server: one in a thousand may be chance."""


def flags_against(
    latency_p50_s: float | None,
    generator: Mapping[str, float | None],
    *,
    client_errors: float = 0.0,
    stopped_s: float | None = None,
) -> list[Flag]:
    """Return the reasons not to believe a result; empty without any.

    - Send lag is a part of latency that is not the server's. Its p99 may be 1 ms, or a tenth of the median
      latency if that is more, but at most 10 ms: a late generator may itself have made the median so long.
      Requests that waited, as asked, for a slot of the in-flight limit do not count.
    - The generator's event loop may not stall for 100 ms at once, or for 1 % of the time in all: answers
      that arrived meanwhile were stamped late. A long pause of the garbage collector is a stall, too.
    - It may use at most 90 % of a core: beyond that it was the bottleneck, or about to be. All together may
      use at most 90 % of all CPUs: beyond that, nothing was left for the server.
    - At most one request in a thousand may fail in the client itself (`client_errors` is their share).
    - It must not be interrupted; `stopped_s` is when it was, negative in the warm-up.
    """
    lag_limit_s = min(max(LEAST_LAG_S, LAG_SHARE * (latency_p50_s or 0.0)), MOST_LAG_S)
    found = [
        Flag("send_lag", generator.get("lag_p99_s"), lag_limit_s),
        Flag("stall", generator.get("stall_longest_s"), STALL_S),
        Flag("stalled", generator.get("stalled_share"), STALLED_SHARE),
        Flag("generator_cpu", generator.get("cpu_share"), CPU_SHARE),
        Flag("generators_cpu", generator.get("cpu_share_of_all"), CPU_SHARE),
        Flag("client_errors", client_errors, CLIENT_ERRORS_SHARE),
    ]
    interrupted = [] if stopped_s is None else [Flag("interrupted", stopped_s)]
    return interrupted + passed(found)


def sending_ends_s(due_s: Times, sent_s: Times, ends_s: float, stopped_s: float | None = None) -> float:
    """Return the end of the time to send, which rates are counted over; 0 if nothing was sent.

    n sends span n gaps: from 0 until `ends_s`, when another one would have been due. After an interrupt, they
    span until the next one would have been due, or until `stopped_s` if that is later: the generator was
    behind. In any case, they span at least until the last send.
    """
    (which,) = np.nonzero(~np.isnan(sent_s))
    if not len(which):
        return 0.0
    if stopped_s is not None:
        next_s = due_s[which[-1] + 1] if which[-1] + 1 < len(due_s) else ends_s
        ends_s = min(max(next_s, stopped_s), ends_s)
    return max(ends_s, float(np.nanmax(sent_s)))


QUANTILES = {"p50_s": 50, "p90_s": 90, "p99_s": 99}


def over_time(requests: pd.DataFrame, bin_s: float = 1.0) -> pd.DataFrame:
    """Return a row per `bin_s` of an attack, from time 0 until the last end.

    Columns: `start_s`; `due`, how many fell due in the bin; one per outcome, how many met that outcome in it
    (a dropped request when it was due, an unfinished one nowhere); `p50_s`, `p90_s`, `p99_s` of the latencies
    of those *due* in it, NaN if none ended; `in_flight`, how many were due but not ended when the bin ended.
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
    """The bin of each time; 0.3 s is in the fourth tenth, although 0.3 / 0.1 is below 3."""
    return np.floor(times_s / bin_s + 1e-9).astype(int)
