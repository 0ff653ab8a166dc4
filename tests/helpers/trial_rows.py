"""Trials made by hand, with every column that a run gives, so that a test says only what it is about."""

from datetime import UTC, datetime
from typing import Any

import pandas as pd

from lab.study.plan import TRIALS

_COLUMNS: dict[str, Any] = {
    "string": "",
    "int64": 0,
    "double": 0.0,
    "bool": False,
    "timestamp[us, tz=UTC]": datetime(2026, 1, 1, tzinfo=UTC),
}
_QUIET: dict[str, Any] = {
    "experiment": "made-by-hand",
    "block": 1,
    "rate": 10.0,
    "load": float("nan"),
    "quota_cpus": float("nan"),
    "duration_s": 10.0,
    "topology": "single",
    "workers": 1,
    "dispatch": "round-robin",
    "kernel": "python",
    "arrivals": "constant",
    "timeout_s": 30.0,
    "path": "/api/slow",
    "planned": 100,
    "sent": 100,
    "ok": 100,
    "success": 1.0,
    "throughput_rps": 10.0,
    "valid": True,
    "flags": (),
    "loop_s": 0.1,
    "loop_drift": 1.0,
    "loop_ratio": float("nan"),
}


def trials(*rows: dict[str, Any], **common: Any) -> pd.DataFrame:
    """Make a row per dict: 100 requests at 10/s, each answered in a loop time of 0.1 s, unless told.

    As if `common.accounted` had read their requests: all workers could be busy for 10 s.
    """
    empty = {field.name: _COLUMNS.get(str(field.type)) for field in TRIALS}
    times = {name: 0.1 for name in empty if name.startswith(("latency_", "service_"))}
    frame = pd.DataFrame([{**empty, **times, **_QUIET, **common, **row} for row in rows])
    frame = pd.DataFrame({"busy_rps": frame["throughput_rps"], "window_s": 10.0} | dict(frame.items()))
    own = frame["rate"] * frame["service_mean_s"] / frame["workers"]
    return frame if "utilisation" in frame else frame.assign(utilisation=own)


def found_rates(**changes: Any) -> pd.DataFrame:
    """Make what searches found of one process, 9 to 9.5/s, and two workers, 17 to 18/s: loops take 0.1 s."""
    common = {
        "objective": "p95 within 3 times the loop", "slo_percentile": 95, "slo_loops": 3.0,
        "iterations": 1000, "arrivals": "constant", "loop_s": 0.1, "reason": "",
        "consistent": True, "trials": 7, "flagged": 0,
    }  # fmt: skip
    servers = [("single", 1, "round-robin", 9.0, 9.5), ("cluster", 2, "round-robin", 17.0, 18.0)]
    rows = [
        {
            "topology": topology, "workers": workers, "dispatch": dispatch,
            "lower_rps": low, "upper_rps": high,
            "lower_share": low / 10 / workers, "upper_share": high / 10 / workers,
            "limits_rps": [10.0 * workers] * 7,
        }
        for topology, workers, dispatch, low, high in servers
    ]  # fmt: skip
    return pd.DataFrame([common | row | changes for row in rows])
