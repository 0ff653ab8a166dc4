"""What server to start: one frozen value, checked when it is made, that travels to every process as JSON."""

import sys
from dataclasses import dataclass

from lab.errors import UsageError
from lab.hotloop import ITERATIONS, KERNELS
from lab.machine import available_cpus

TOPOLOGIES = ("single", "cluster", "offload")
DISPATCHES = ("shared", "reuseport", "round-robin", "least-busy")
POOLS = ("process", "thread")


@dataclass(frozen=True, kw_only=True)
class ServerSpec:
    """A server: how it spreads CPU-bound requests over processes, and what one request costs.

    topology: `single`, one process whose event loop runs the hot loop; `cluster`, `workers` such processes
        behind one port, kept running by a supervisor; `offload`, one event loop before a pool of `workers`.
    workers: how many; None for the CPUs available here. A `single` server has one.
    dispatch: who gets the next connection of a cluster. `shared`: workers accept from one listening socket;
        `reuseport`: the kernel hashes connections over one listening socket per worker (Linux);
        `round-robin`: the supervisor passes each on to the next worker; `least-busy`: to one that has none.
    kernel, iterations: the hot loop, and where it starts counting down from.
    host, port: where it listens; port 0 is a free one, chosen by the system.
    keepalive: whether a connection outlives its answer. None for what the dispatch does best: `least-busy`
        passes on connections, so it balances requests only with one request per connection, and answers
        `Connection: close`; the others keep connections.
    pool: what `offload` runs the loop in, `process` or `thread`.
    pin: give each worker a CPU of its own, in turn (Linux).
    hang_timeout_s: end a worker whose event loop was blocked for longer than this; None for never, because a
        blocked loop is normal here. It acts after at most a quarter more. Not for `offload`: its event loop
        is never blocked, and its pool is not watched.
    recycle_after: replace a worker of a cluster after this many requests and, at random, up to a tenth more,
        or one; None: never.
    start_timeout_s: how long a worker may take until it accepts.
    drain_s: how long a worker that must go may take to answer what it has accepted.

    Raises UsageError if any of it makes no sense.
    """

    topology: str = "cluster"
    workers: int | None = None
    dispatch: str = "round-robin"
    kernel: str = "python"
    iterations: int = ITERATIONS
    host: str = "127.0.0.1"
    port: int = 0
    keepalive: bool | None = None
    pool: str = "process"
    pin: bool = False
    hang_timeout_s: float | None = None
    recycle_after: int | None = None
    start_timeout_s: float = 30.0
    drain_s: float = 5.0

    def __post_init__(self) -> None:
        self._check()
        if self.workers is None:
            object.__setattr__(self, "workers", 1 if self.topology == "single" else available_cpus())
        if self.keepalive is None:
            object.__setattr__(self, "keepalive", not self._one_request_per_connection)

    @property
    def has_crew(self) -> bool:
        """Whether the started process leads others, which can be asked about, scaled and recycled."""
        return self.topology == "cluster" or (self.topology == "offload" and self.pool == "process")

    @property
    def count(self) -> int:
        """How many workers, None resolved."""
        assert self.workers is not None  # noqa: S101 - set by __post_init__, which mypy cannot see
        return self.workers

    @property
    def _one_request_per_connection(self) -> bool:
        return self.topology == "cluster" and self.dispatch == "least-busy"

    def _check(self) -> None:
        _choose("topology", self.topology, TOPOLOGIES)
        _choose("dispatch", self.dispatch, DISPATCHES)
        _choose("kernel", self.kernel, KERNELS)
        _choose("pool", self.pool, POOLS)
        _number("workers", self.workers, least=1, optional=True)
        _number("iterations", self.iterations, least=0)
        _number("port", self.port, least=0, most=65535)
        _number("recycle_after", self.recycle_after, least=1, optional=True)
        _seconds("hang_timeout_s", self.hang_timeout_s, optional=True)
        _seconds("start_timeout_s", self.start_timeout_s)
        _seconds("drain_s", self.drain_s, zero=True)
        if not isinstance(self.host, str) or not self.host:
            raise UsageError(f"host is a name or an address to listen on, not {self.host!r}")
        if self.topology == "single" and self.workers not in (None, 1):
            raise UsageError(f"a single server has one worker, not {self.workers}: use topology 'cluster'")
        if self.recycle_after is not None and self.topology != "cluster":
            raise UsageError(
                f"recycle_after is for the workers of a cluster: leave it out for {self.topology}"
            )
        if self.hang_timeout_s is not None and self.topology == "offload":
            raise UsageError("hang_timeout_s watches event loops, and no pool: leave it out for offload")
        if self.keepalive and self._one_request_per_connection:
            raise UsageError("least-busy needs one request per connection: leave keepalive out, or False")
        if not sys.platform.startswith("linux") and (self.pin or self.dispatch == "reuseport"):
            raise UsageError(f"{'pin' if self.pin else 'reuseport'} works on Linux only: leave it out here")


def _choose(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"unknown {name} {value!r}: choose one of {', '.join(choices)}")


def _number(name: str, value: object, *, least: int, most: int | None = None, optional: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"{name} is a whole number, not {value!r}")
    if value < least or (most is not None and value > most):
        wanted = f"at least {least}" if most is None else f"from {least} to {most}"
        raise UsageError(f"{name} is {wanted}, not {value}")


def _seconds(name: str, value: object, *, optional: bool = False, zero: bool = False) -> None:
    if optional and value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"{name} is a number of seconds, not {value!r}")
    if not (0 < value < float("inf") or (zero and value == 0)):
        raise UsageError(f"{name} is {'at least' if zero else 'above'} 0 and finite, not {value}")
