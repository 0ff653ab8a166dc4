"""What to measure, in which order: conditions become blocks, each one randomized round of all of them."""

import hashlib
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

from lab.errors import UsageError
from lab.hotloop import ITERATIONS
from lab.load.arrivals import ARRIVALS
from lab.load.log import OUTCOMES
from lab.load.records import SCHEMA
from lab.servers.spec import ServerSpec

LATENCY = ("min", "mean", "p50", "p90", "p95", "p99", "max")
SERVICE = ("mean", "p50", "p99")
LAG = ("p50", "p99", "max")


def _fields(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [pa.field(name, kind) for name in names]


FLAGS = pa.list_(pa.struct([("code", pa.string()), ("value", pa.float64()), ("limit", pa.float64())]))
"""Why a trial should be doubted: see `lab.flags`."""

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
        pa.field("flags", FLAGS),
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

Label = str | int | float | bool

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Condition:
    """One server under one load: the factors of a trial. Rates are per second, `*_s` are seconds.

    `keepalive` lets connections be kept by both sides; `pin` gives each worker a CPU of its own, in turn.
    `warmup` requests per worker are sent first and not recorded. `labels` are further columns that name what
    the notebook varies, such as {"load": 0.8}; two conditions that are otherwise alike must differ in them.
    Raises UsageError if a value makes no sense.
    """

    rate: float
    duration_s: float
    topology: str = "single"
    workers: int = 1
    dispatch: str = "round-robin"
    pool: str = "process"
    kernel: str = "python"
    iterations: int = ITERATIONS
    arrivals: str = "constant"
    timeout_s: float = 30.0
    path: str = "/api/slow"
    keepalive: bool = False
    pin: bool = False
    warmup: int = 1
    labels: Mapping[str, Label] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("rate", "duration_s", "timeout_s"):
            self._coerce(name, _positive(name, getattr(self, name)))
        for name, least in (("workers", 1), ("iterations", 0), ("warmup", 0)):
            self._coerce(name, _whole(name, getattr(self, name), least))
        server: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("topology", "workers", "dispatch", "pool", "kernel", "iterations", "pin")
        }
        ServerSpec(**server)
        if self.arrivals not in ARRIVALS:
            raise UsageError(f"unknown arrivals {self.arrivals!r}: choose one of {', '.join(ARRIVALS)}")
        if not self.path.startswith("/"):
            raise UsageError(f"path starts with a slash, such as /api/slow, not {self.path!r}")
        self._coerce("labels", {name: _label(name, value) for name, value in sorted(self.labels.items())})

    def _coerce(self, name: str, value: object) -> None:
        """Keep plain Python numbers, so that 20, 20.0 and numpy's 20 are one condition with one trial_id."""
        object.__setattr__(self, name, value)

    def factors(self) -> dict[str, Any]:
        """Return the factors as columns of a trial's row, labels among them."""
        columns: dict[str, Any] = asdict(self)
        labels: dict[str, Label] = columns.pop("labels")
        return columns | labels

    def __str__(self) -> str:
        size = f" x {self.workers}" if self.workers > 1 else ""
        return f"{self.topology}{size}, {self.kernel}, {self.rate:.4g}/s for {self.duration_s:g} s"


FACTORS = tuple(column.name for column in fields(Condition) if column.name != "labels")


def _positive(name: str, value: Any) -> float:
    number = _plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise UsageError(f"{name} is a finite number above 0, not {value!r}")
    return float(number)


def _whole(name: str, value: Any, least: int) -> int:
    number = _plain(value)
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or number != number // 1
        or number < least
    ):
        raise UsageError(f"{name} is a whole number, {least} or more, not {value!r}")
    return int(number)


def _label(name: str, value: Any) -> Label:
    plain = _plain(value)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in NOT_LABELS:
        raise UsageError(f"label {name!r} cannot be a column: give it another name, of letters, digits and _")
    if not isinstance(plain, str | int | float | bool):
        raise UsageError(f"label {name!r} is text or a number, not {value!r}")
    return plain


def _plain(value: Any) -> Any:
    """Return numpy's scalars as Python's."""
    return value.item() if hasattr(value, "item") else value


@dataclass(frozen=True)
class Trial:
    """One planned trial: its condition, its place, and the seed of its arrivals."""

    trial_id: str
    experiment: str
    block: int
    position: int
    seed: int
    condition: Condition


@dataclass(frozen=True)
class Block:
    """One randomized round of all conditions; blocks and positions count from 1."""

    experiment: str
    number: int
    trials: tuple[Trial, ...]


def make_plan(experiment: str, conditions: Sequence[Condition], *, blocks: int, seed: int) -> list[Block]:
    """Plan every condition once in each block, in an order that only `seed` and the conditions decide.

    A trial's id depends on experiment, block and condition alone, so it outlives a change of the rest.
    Trials of one block meet the same arrivals (common random numbers): only their condition differs.
    Raises UsageError if the experiment's name, the number of blocks or the set of conditions makes no sense.
    """
    if not _NAME.fullmatch(experiment):
        raise UsageError(f"an experiment is named with small letters, digits and -, not {experiment!r}")
    if not conditions:
        raise UsageError(f"experiment {experiment} has no conditions: give it at least one")
    if len({_digest(experiment, 0, condition) for condition in conditions}) < len(conditions):
        raise UsageError(
            f"experiment {experiment} has a condition twice: give each its own labels, or drop one"
        )
    numbers = range(1, _whole("blocks", blocks, 1) + 1)
    return [_make_block(experiment, number, conditions, seed) for number in numbers]


def _make_block(experiment: str, number: int, conditions: Sequence[Condition], seed: int) -> Block:
    by_id = {trial_id(experiment, number, condition): condition for condition in conditions}
    order = sorted(by_id)
    random.Random(f"{seed}/{experiment}/{number}").shuffle(order)
    arrivals_seed = int.from_bytes(hashlib.sha256(f"{seed}/{experiment}/{number}".encode()).digest()[:4])
    trials = tuple(
        Trial(name, experiment, number, position, arrivals_seed, by_id[name])
        for position, name in enumerate(order, start=1)
    )
    return Block(experiment, number, trials)


def trial_id(experiment: str, block: int, condition: Condition) -> str:
    """Name a trial by what it is, in a form that is also a file's name: `rate-sweep.b01.5e1f0c9a77d2`."""
    return f"{experiment}.b{block:02d}.{_digest(experiment, block, condition)}"


def _digest(experiment: str, block: int, condition: Condition) -> str:
    columns = asdict(condition)
    if not condition.pin:
        del columns["pin"]  # runs from before this factor keep their ids, and their trials
    identity = json.dumps([experiment, block, columns], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:12]
