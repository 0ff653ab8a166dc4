"""The columns of a run's tables: what each trial and each event is kept with, and what is computed later."""

from enum import StrEnum
from typing import Any

import pyarrow as pa

from lab.load.log import OUTCOMES
from lab.load.records import SCHEMA

LATENCY = ("min", "mean", "p50", "p90", "p95", "p99", "max")
SERVICE = ("mean", "p50", "p99")
LAG = ("p50", "p99", "max")


def _fields(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [pa.field(name, kind) for name in names]


FLAGS = pa.list_(pa.struct([("code", pa.string()), ("value", pa.float64()), ("limit", pa.float64())]))
"""The reasons to doubt a trial: see `lab.flags`."""

TRIALS = pa.schema(
    [
        *_fields(pa.string(), "trial_id", "experiment"),
        *_fields(pa.int64(), "block", "position", "seed"),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        *_fields(pa.float64(), "rate", "load", "duration_s"),
        pa.field("topology", pa.string()),
        pa.field("workers", pa.int64()),
        *_fields(pa.string(), "peer", "dispatch"),
        pa.field("bound", pa.int64()),
        *_fields(pa.string(), "pool", "kernel"),
        pa.field("iterations", pa.int64()),
        pa.field("arrivals", pa.string()),
        pa.field("timeout_s", pa.float64()),
        pa.field("path", pa.string()),
        *_fields(pa.bool_(), "keepalive", "pin"),
        pa.field("quota_cpus", pa.float64()),
        *_fields(pa.int64(), "warmup", "planned", "sent", *OUTCOMES),
        *_fields(pa.float64(), "success", "throughput_rps"),
        *_fields(pa.float64(), *(f"latency_{name}_s" for name in LATENCY)),
        *_fields(pa.float64(), *(f"latency_ok_{name}_s" for name in LATENCY)),
        *_fields(pa.float64(), *(f"service_{name}_s" for name in SERVICE)),
        *_fields(pa.float64(), *(f"service_cpu_{name}_s" for name in SERVICE)),
        *_fields(pa.float64(), *(f"send_lag_{name}_s" for name in LAG)),
        pa.field("workers_seen", pa.int64()),
        *_fields(pa.float64(), "worker_max_share", "server_cpu_s", "generator_cpu_s"),
        pa.field("generators", pa.int64()),
        *_fields(pa.int64(), "cpu_periods", "cpu_periods_throttled"),
        pa.field("cpu_throttled_s", pa.float64()),
        *_fields(pa.float64(), "steal", "others_cpu", "cpu_pressure", "load1"),
        pa.field("valid", pa.bool_()),
        pa.field("flags", FLAGS),
    ]
)
"""A row per trial; the labels of its condition are further columns."""

BEFORE: dict[str, Any] = {"pin": False, "peer": "", "bound": 1} | dict.fromkeys(
    (
        "generators",
        "server_cpu_s",
        *(f"service_cpu_{name}_s" for name in SERVICE),
        "load",
        "quota_cpus",
        "cpu_periods",
        "cpu_periods_throttled",
        "cpu_throttled_s",
    )
)
"""The values of columns for trials measured before those columns existed."""


class Event(StrEnum):
    """What happened to a trial's server: an action began or ended, or the number of workers changed."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    WORKERS = "workers"


EVENTS = pa.schema(
    [
        pa.field("at_s", pa.float64()),
        pa.field("event", pa.string()),
        pa.field("workers", pa.int64()),
        pa.field("detail", pa.string()),
    ]
)
"""A row per `Event`: how many workers accepted then, and how an action ended, in words."""

ADDED = ("loop_s", "loop_drift", "loop_ratio", "utilisation", "latency_s")
"""Columns that are computed when tables are read."""

NOT_LABELS = frozenset([*TRIALS.names, *SCHEMA.names, *ADDED])

LOOP = ["peer", "kernel", "iterations"]
"""The factors that say what a loop costs: a peer's may be in another language."""
