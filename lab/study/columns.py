"""The columns of the tables that a run keeps: seconds, requests per second, and shares from 0 to 1."""

import pyarrow as pa

from lab.load.outcomes import OUTCOMES
from lab.load.records import SCHEMA

LATENCY = ("min", "mean", "p50", "p90", "p95", "p99", "max")
SERVICE = ("mean", "p50", "p99")
LAG = ("p50", "p99", "max")


def _fields(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [pa.field(name, kind) for name in names]


TRIALS = pa.schema(
    [
        *_fields(pa.string(), "trial_id", "experiment"),
        *_fields(pa.int64(), "block", "position", "seed"),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        *_fields(pa.float64(), "rate", "duration_s"),
        pa.field("topology", pa.string()),
        pa.field("workers", pa.int64()),
        *_fields(pa.string(), "dispatch", "pool", "kernel"),
        pa.field("iterations", pa.int64()),
        pa.field("arrivals", pa.string()),
        pa.field("timeout_s", pa.float64()),
        pa.field("path", pa.string()),
        *_fields(pa.bool_(), "keepalive", "pin"),
        *_fields(pa.int64(), "warmup", "planned", "sent", *OUTCOMES),
        *_fields(pa.float64(), "success", "throughput_rps"),
        *_fields(pa.float64(), *(f"latency_{name}_s" for name in LATENCY)),
        *_fields(pa.float64(), *(f"latency_ok_{name}_s" for name in LATENCY)),
        *_fields(pa.float64(), *(f"service_{name}_s" for name in SERVICE)),
        *_fields(pa.float64(), *(f"send_lag_{name}_s" for name in LAG)),
        pa.field("workers_seen", pa.int64()),
        *_fields(pa.float64(), "worker_max_share", "generator_cpu_s"),
        *_fields(pa.float64(), "steal", "others_cpu", "cpu_pressure", "load1"),
        pa.field("valid", pa.bool_()),
        pa.field("invalid_because", pa.string()),
    ]
)
"""A row per trial; the labels of its condition are further columns."""

BEFORE = {"pin": False}
"""What held of trials that were measured before there was a column for it."""

EVENTS = pa.schema(
    [
        pa.field("at_s", pa.float64()),
        pa.field("event", pa.string()),
        pa.field("workers", pa.int64()),
    ]
)
"""What was done to a trial's server, and how many workers it had then; without an event these changed."""

ADDED = ("loop_s", "loop_drift", "loop_ratio", "latency_s")
"""Columns that are computed when tables are read."""

NOT_LABELS = frozenset([*TRIALS.names, *SCHEMA.names, *ADDED])
