"""What to measure, in which order, and the columns that keep it: conditions become randomized blocks."""

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator

from lab.cards import Card, Shown, listed
from lab.checks import Count, Positive, Whole, checked
from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.hotloop import ITERATIONS, KernelName
from lab.load.arrivals import Arrivals
from lab.load.log import OUTCOMES
from lab.load.records import SCHEMA
from lab.servers.peers import peer
from lab.servers.spec import DispatchName, Pool, ServerSpec, Topology
from lab.units import clock, counted

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


Label = str | int | float | bool

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def _labels(labels: Mapping[str, Any]) -> dict[str, Label]:
    """Return labels in order, with numpy's numbers as Python's."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in labels.items()}
    for name, value in plain.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in NOT_LABELS:
            raise ValueError(f"{name!r} cannot be a column: give it another name, of letters, digits and _")
        if not isinstance(value, str | int | float | bool):
            raise ValueError(f"{name!r} must be text or a number, got {value!r}")
    return dict(sorted(plain.items()))


@checked
@dataclass(frozen=True)
class Condition:
    """One server under one load: the factors of a trial. Rates are per second, `*_s` are seconds.

    A condition has a `rate`, or a `load`: the work offered, as a multiple of what the loop alone would allow
    this server. Each block works out the rate of a load by its own calibration, which is the loop's CPU time:
    what the machine can do at its speed, whatever its neighbours did meanwhile. `keepalive` lets both sides
    keep connections; `pin` gives each worker a CPU of its own, in turn; `quota_cpus` holds the whole server
    to so many CPUs, a fraction, or to none if it is None. `peer` names a server that we did not write, which
    dispatches in its own way. `warmup` requests per worker are sent first and go
    unrecorded. `labels` are further columns that name what the notebook varies, such as {"scenario": "kill"};
    two otherwise equal conditions must differ in them. 20, 20.0 and numpy's 20 are one condition. Raises
    UsageError if a value is invalid.
    """

    duration_s: Positive
    rate: Positive | None = None
    load: Positive | None = None
    topology: Topology = "single"
    workers: Count = 1
    dispatch: DispatchName = "round-robin"
    bound: Count = 1
    pool: Pool = "process"
    kernel: KernelName = "python"
    iterations: Whole = ITERATIONS
    arrivals: Arrivals = "constant"
    timeout_s: Positive = 30.0
    path: str = "/api/slow"
    keepalive: bool = False
    pin: bool = False
    quota_cpus: Positive | None = None
    peer: str = ""
    warmup: Whole = 1
    labels: Annotated[Mapping[str, Any], AfterValidator(_labels)] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.rate is None and self.load is None:
            raise UsageError("a condition needs a rate, or a load to work it out from")
        ServerSpec(
            topology=self.topology,
            workers=self.workers,
            dispatch=self.dispatch,
            bound=self.bound,
            pool=self.pool,
            kernel=self.kernel,
            iterations=self.iterations,
            pin=self.pin,
            quota_cpus=self.quota_cpus,
        )
        if self.peer:
            peer(self.peer)
            if self.pin or self.quota_cpus is not None:
                raise UsageError("pin and quota_cpus are for servers of ours: leave them out with a peer")
        if not self.path.startswith("/"):
            raise UsageError(f"path must start with a slash, such as /api/slow, got {self.path!r}")

    def planned(self, loop_s: float) -> "Condition":
        """Return the condition with the rate that its load comes to if a loop takes `loop_s` of a CPU."""
        if self.load is None:
            return self
        return replace(self, rate=self.load * capacity_rps(self.workers, loop_s, self.quota_cpus))

    @property
    def offered_rps(self) -> float:
        """The rate. Raises UsageError as long as there is only a load."""
        if self.rate is None:
            raise UsageError(f"a load of {self.load:g} has no rate yet: use planned() with the loop's time")
        return self.rate

    def factors(self) -> dict[str, Any]:
        """Return the factors, labels included, as columns of a trial's row."""
        columns: dict[str, Any] = asdict(self)
        labels: dict[str, Label] = columns.pop("labels")
        return columns | labels

    def __str__(self) -> str:
        size = f" x {self.workers}" if self.workers > 1 else ""
        offered = f"load {self.load:g}" if self.rate is None else f"{self.rate:.4g}/s"
        return f"{self.peer or self.topology}{size}, {self.kernel}, {offered} for {self.duration_s:g} s"


def capacity_rps(workers: int, loop_s: float, quota_cpus: float | None = None) -> float:
    """Return the requests per second that the loop alone allows: workers beyond the CPUs add nothing."""
    return min(workers, available_cpus(), quota_cpus or workers) / loop_s


def share_of_limit(rate_rps: Any, service_s: Any, service_cpu_s: Any, workers: Any, cpus: Any) -> Any:
    """Return a rate as a share of what a server's own mean service times allow: 1 is all workers always busy.

    It is rate x service time / workers, of numbers or columns alike. Workers that outnumber their `cpus` also
    wait for one another within a service time: then it is rate x the loop's CPU time / `cpus`, if that is
    known. Workers that share no CPUs, or whose CPUs are unknown, have infinitely many. None is an unknown
    time.
    """
    service_s, service_cpu_s = np.asarray(service_s, float), np.asarray(service_cpu_s, float)
    takes_turns = (np.asarray(workers) > cpus) & np.isfinite(service_cpu_s)
    return rate_rps * np.where(takes_turns, service_cpu_s / np.asarray(cpus), service_s / np.asarray(workers))


FACTORS = tuple(column.name for column in fields(Condition) if column.name != "labels")


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


@dataclass(frozen=True)
class Plan(Shown, Sequence[Block]):
    """The blocks of an experiment, in order; its card says what varies, and how long it takes."""

    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: Any) -> Any:
        return self.blocks[index]

    @property
    def conditions(self) -> list[Condition]:
        """The conditions, each of which every block measures once."""
        return [trial.condition for trial in self.blocks[0].trials]

    def lasts_s(self) -> float:
        """Return the seconds for which load is offered; servers that start and drain come on top."""
        return len(self.blocks) * sum(condition.duration_s for condition in self.conditions)

    def _card(self) -> Card:
        found = self.conditions
        columns = [condition.factors() for condition in found]
        values = {name: sorted({row[name] for row in columns if name in row}, key=str) for name in columns[0]}
        varied = {name: listed(which) for name, which in values.items() if len(which) > 1}
        blocks, each = counted(len(self.blocks), "block"), counted(len(found), "condition")
        return Card(
            f"Plan of {self.blocks[0].experiment}",
            {"trials": f"{len(self.blocks) * len(found)}: {each} in {blocks}, each in random order"}
            | {"load lasts": f"{clock(self.lasts_s())}, and servers' starts"}
            | {f"{name} varies": varied[name] for name in sorted(varied)},
        )


@checked
def make_plan(experiment: str, conditions: Sequence[Condition], *, blocks: Count, seed: int) -> Plan:
    """Plan every condition once in each block, in an order that depends only on `seed` and the conditions.

    A trial's id depends only on experiment, block and condition, so it outlives any other change.
    Trials of one block meet the same arrivals (common random numbers): only their condition differs.
    Raises UsageError if the experiment's name, the number of blocks or the set of conditions is invalid.
    """
    if not _NAME.fullmatch(experiment):
        raise UsageError(f"an experiment's name must be lower-case letters, digits and -, got {experiment!r}")
    if not conditions:
        raise UsageError(f"experiment {experiment} has no conditions: give it at least one")
    if any(condition.rate is not None and condition.load is not None for condition in conditions):
        raise UsageError(f"experiment {experiment} plans a rate and a load for one condition: give it either")
    if len({_digest(experiment, 0, condition) for condition in conditions}) < len(conditions):
        raise UsageError(
            f"experiment {experiment} has a condition twice: give each its own labels, or drop one"
        )
    return Plan(tuple(_make_block(experiment, number, conditions, seed) for number in range(1, blocks + 1)))


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
    """Name a trial by what it is, in a form that also names a file: `rate-sweep.b01.5e1f0c9a77d2`."""
    return f"{experiment}.b{block:02d}.{_digest(experiment, block, condition)}"


_LATER_FACTORS = {name: default for name, default in BEFORE.items() if name in FACTORS}


def _digest(experiment: str, block: int, condition: Condition) -> str:
    columns = asdict(condition)
    for name, default in _LATER_FACTORS.items():
        if columns[name] == default:
            del columns[name]  # runs older than this factor keep their ids, and their trials
    if condition.load is not None:
        del columns["rate"]  # what came of the load, not what was planned
    identity = json.dumps([experiment, block, columns], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:12]
