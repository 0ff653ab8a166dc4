"""What server to start: one frozen value, checked when it is made, that travels to every process as JSON."""

import inspect
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from annotated_types import Ge, Le, MinLen

from lab.checks import A_DAY_S, Before, Count, Seconds, Whole, checked, number
from lab.cpus import available_cpus
from lab.errors import UsageError
from lab.hotloop import ITERATIONS, KernelName
from lab.quota import LEAST_CPUS

Topology = Literal["single", "cluster", "offload"]
DispatchName = Literal["shared", "reuseport", "round-robin", "least-busy"]
Pool = Literal["process", "thread"]

TOPOLOGIES, DISPATCHES, POOLS = get_args(Topology), get_args(DispatchName), get_args(Pool)

MOST_WORKERS_PER_CPU = 64
"""Workers that a CPU may have unless the caller insists: more are probably a slip."""


def most_workers() -> int:
    """Return how many workers a server may have here, unless the caller insists."""
    return MOST_WORKERS_PER_CPU * available_cpus()


@checked
@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """A server: how it spreads CPU-bound requests over processes, and what one request costs.

    topology: `single`, one process whose event loop runs the hot loop; `cluster`, `workers` such processes
        behind one port, kept running by a supervisor; `offload`, one event loop before a pool of `workers`.
    workers: how many; None for the CPUs available to it. A `single` server has one.
    dispatch: which worker gets the next connection. `shared`: workers accept from one listening socket;
        `reuseport`: the kernel hashes connections over one listening socket per worker (Linux);
        `round-robin`: the supervisor passes each on to the next worker; `least-busy`: workers
        accept from one listening socket, too, but each only when it is done with its last request.
    bound: how many requests `least-busy` lets a worker hold: with 2, the supervisor passes the next one on
        ahead, where it waits even if another worker is free first.
    kernel, iterations: the hot loop, and where it starts counting down from.
    host, port: where it listens; with port 0, the system chooses a free one.
    keepalive: whether a connection outlives its answer. None for what suits the dispatch: `least-busy`
        hands out connections, so it balances requests only with one request per connection, and answers
        `Connection: close`; the others keep connections.
    pool: what `offload` runs the loop in, `process` or `thread`.
    pin: give each worker a CPU of its own, in turn (Linux).
    quota_cpus: hold all its processes together to so many CPUs, a fraction, once it accepts; None for all.
    hang_timeout_s: end a worker whose event loop is blocked for longer than this; None for never, because a
        blocked loop is normal here. It acts after at most a quarter more. Not for `offload`: its event loop
        is never blocked, and its pool is not watched.
    recycle_after: replace a worker of a cluster after this many requests plus, at random, up to a tenth more,
        or one; None for never.
    start_timeout_s: how long a worker may take to start accepting.
    drain_s: how long a worker that must go may take to answer what it has accepted.
    unlimited: allow more than `MOST_WORKERS_PER_CPU` workers for each CPU.

    Raises UsageError if any of it is invalid.
    """

    topology: Topology = "cluster"
    workers: Count | None = None
    dispatch: DispatchName = "round-robin"
    kernel: KernelName = "python"
    iterations: Annotated[Whole, Le(2**63 - 1)] = ITERATIONS
    host: Annotated[str, MinLen(1)] = "127.0.0.1"
    port: Annotated[Whole, Le(65535)] = 0
    bound: Count = 1
    keepalive: bool | None = None
    pool: Pool = "process"
    pin: bool = False
    quota_cpus: Annotated[float, Before(number), Ge(LEAST_CPUS), Le(2**20)] | None = None
    hang_timeout_s: Seconds | None = None
    recycle_after: Count | None = None
    start_timeout_s: Seconds = 30.0
    drain_s: Annotated[float, Before(number), Ge(0), Le(A_DAY_S)] = 5.0
    unlimited: bool = False

    def __post_init__(self) -> None:
        if self.workers is None:
            object.__setattr__(self, "workers", 1 if self.topology == "single" else self._cpus)
        self.check_workers(self.count)
        if self.recycle_after is not None and self.topology != "cluster":
            raise UsageError(
                f"recycle_after is for the workers of a cluster: leave it out for {self.topology}"
            )
        if self.hang_timeout_s is not None and self.topology == "offload":
            raise UsageError("hang_timeout_s watches event loops, not pools: leave it out for offload")
        if self.bound > 1 and not self._one_request_per_connection:
            raise UsageError("bound is for dispatch least-busy: leave it out for others")
        if self.keepalive and self._one_request_per_connection:
            raise UsageError("least-busy needs one request per connection: leave keepalive out or False")
        if self.keepalive is None:
            object.__setattr__(self, "keepalive", not self._one_request_per_connection)
        if not sys.platform.startswith("linux") and (self.pin or self.dispatch == "reuseport"):
            raise UsageError(f"{'pin' if self.pin else 'reuseport'} works on Linux only: leave it out here")

    @classmethod
    def received(cls, options: Mapping[str, Any]) -> Self:
        """Return the spec whose maker checked it: without pydantic a worker starts sooner."""
        spec = object.__new__(cls)
        inspect.unwrap(cls.__init__)(spec, **options)
        return spec

    def check_workers(self, count: int) -> None:
        """Raise UsageError unless such a server may have `count` workers."""
        if count < 1:
            raise UsageError(f"workers must be at least 1, got {count}: to have none, stop the server")
        if self.topology == "single" and count != 1:
            raise UsageError(f"a single server has one worker, got {count}: use topology 'cluster'")
        if count > most_workers() and not self.unlimited:
            raise UsageError(
                f"workers must be at most {most_workers()} here, {MOST_WORKERS_PER_CPU} per CPU, got {count}:"
                " unlimited allows more"
            )

    def facts(self) -> dict[str, object]:
        """Return what to show of it: how it spreads requests, and what one costs."""
        spread = {"cluster": self.dispatch, "offload": f"a pool of {self.count} ({self.pool})"}
        facts: dict[str, object] = {
            "workers": self.count,
            "loop": f"{self.kernel}, {self.iterations:,} iterations",
        }
        if self.topology in spread:
            facts = {"dispatch": spread[self.topology]} | facts
        return facts if self.quota_cpus is None else facts | {"quota": f"{self.quota_cpus:g} CPUs"}

    @property
    def has_workers(self) -> bool:
        """Whether the started process leads workers, which can be listed, scaled and recycled."""
        return self.topology == "cluster" or (self.topology == "offload" and self.pool == "process")

    @property
    def count(self) -> int:
        """How many workers, with None resolved."""
        assert self.workers is not None  # noqa: S101 - set on creation, which mypy cannot see
        return self.workers

    @property
    def _cpus(self) -> int:
        """The CPUs that it can use, its own quota rounded up as any other is."""
        cpus = available_cpus()
        return cpus if self.quota_cpus is None else min(cpus, math.ceil(self.quota_cpus))

    @property
    def has_one_queue(self) -> bool:
        """Whether workers take connections from one queue, each when it is done with the last."""
        return self._one_request_per_connection and self.bound == 1

    @property
    def _one_request_per_connection(self) -> bool:
        return self.topology == "cluster" and self.dispatch == "least-busy"
