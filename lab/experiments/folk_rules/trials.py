"""The trials of all rules: which servers, under which loads, in how many blocks; what carries them out."""

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from lab.cpus import affinity_cpus, available_cpus, quota_cpus
from lab.experiments.common import resolve
from lab.experiments.failures import trials as failures
from lab.experiments.folk_rules.rules import EXPERIMENT, Parameters
from lab.experiments.other_servers.servers import PEERS, ServerError, blamed_on
from lab.experiments.other_servers.servers import factors as of_server
from lab.servers.spec import DispatchName
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.trial import Attacked, Execute, Measured, fresh_server, offer, serve_and_attack

if TYPE_CHECKING:
    from lab.servers import Server

OVERLOAD, TAIL, BESIDE, HELD, FREE = "overload", "tail", "beside", "held", "free"
"""What a trial is for: the `part` of its condition. Beside slow requests; held to a quota; without it."""

IN_TURN: DispatchName = "round-robin"
"""How requests are spread where numbers of workers are compared."""

CENTRAL, HASHED, BALANCED = "least-busy", "reuseport", "nginx-round-robin"
"""One server whose workers have one queue; and single ones with a queue each, behind a hash or a balancer."""

INLINE, THREAD, POOL, CLUSTER = "event loop", "thread", "pool of processes", "cluster"
"""Where a CPU-heavy request runs."""

ALONE = "nowhere"
"""The control: there is none."""

_BLOCKED_WORKERS, _CALM = 4, 0.3
"""As in notebook 06: one worker is blocked, and the others can carry the load."""

_OVERLOADED = 2.0
"""As in notebook 04: enough to keep all busy, even if the machine becomes faster meanwhile."""

_QUICK_RPS = 600.0
"""Of requests that compute nothing: enough for a p99 within a second, and no load to speak of."""

_USED = 0.4
"""Of a quota: far from all."""

_ENOUGH = 2
"""Workers where their number does not matter: so that one can be busy, and the other free."""


def named(workers: int) -> str:
    """Name a server that takes turns by its number of workers."""
    return f"workers-{workers}"


def numbers(workers: int) -> list[int]:
    """Return the numbers of workers to compare: 1, n, n + 1, 2 n, and 2 n + 1."""
    return sorted({1, workers, workers + 1, 2 * workers, 2 * workers + 1})


def overloads(p: Parameters) -> list[Condition]:
    """Return each number of workers in overload, to see its highest throughput; if that is asked for."""
    return [
        _condition(p, named(n), OVERLOAD, load=_OVERLOADED, duration_s=p.overload_s, **_in_turn(n))
        for n in (numbers(resolve(p.workers)) if p.asks("workers") else ())
    ]


def tails(p: Parameters) -> list[Condition]:
    """Return the servers that meet random arrivals, all at one rate: `load` of what n workers allow."""
    n = resolve(p.workers)
    servers: dict[str, dict[str, Any]] = {named(n): _in_turn(n)}
    if p.asks("workers"):
        servers |= {named(many): _in_turn(many) for many in numbers(n) if many > n}
    if p.asks("replicas"):
        servers |= {server: of_server(server, n) for server in _replicated()}
    return [
        _condition(
            p, server, TAIL, load=round(p.load * _at_once(n) / _at_once(factors["workers"]), 6),
            duration_s=p.tail_s, arrivals="poisson", **factors,
        )
        for server, factors in servers.items()
    ]  # fmt: skip


def loads(p: Parameters) -> list[Condition]:
    """Return the overloads and the random arrivals, which are measured in the same blocks."""
    return [*overloads(p), *tails(p)]


def _replicated() -> Iterator[str]:
    yield from (CENTRAL, HASHED)
    if PEERS[BALANCED].missing is None:
        yield BALANCED


def _at_once(workers: int) -> int:
    return min(workers, available_cpus())


def slow_ones(p: Parameters) -> list[Condition]:
    """Return the servers that meet one slow request after the other, as in notebook 06."""
    as_there = failures.Parameters(
        run=p.run, dispatches=p.dispatches, kept=False, turns=("block",), workers=_BLOCKED_WORKERS,
        load=_CALM, duration_s=p.slow_s, blocking=p.slow, kernel=p.kernel, iterations=p.iterations,
        timeout_s=p.timeout_s, blocks=1, seed=p.seed,
    )  # fmt: skip
    return failures.conditions(as_there)


def beside(p: Parameters) -> list[Condition]:
    """Return where a CPU-heavy request may run, each under quick requests that need no loop."""
    places: dict[str, dict[str, Any]] = {
        INLINE: {"topology": "single"},
        THREAD: {"topology": "offload", "workers": _ENOUGH, "pool": "thread"},
        POOL: {"topology": "offload", "workers": _ENOUGH, "pool": "process"},
        CLUSTER: {"topology": "cluster", "workers": _ENOUGH, "dispatch": CENTRAL},
        ALONE: {"topology": "offload", "workers": _ENOUGH, "pool": "process"},
    }
    return [
        _condition(
            p,
            name,
            BESIDE,
            {"blocking": 0 if name == ALONE else p.slow},
            rate=_QUICK_RPS,
            duration_s=p.quick_s,
            path="/",
            **place,
        )
        for name, place in places.items()
    ]


def held(p: Parameters) -> list[Condition]:
    """Return a server under the quota, and without it at the same rate, if it limits anything here."""
    workers = min(_ENOUGH, affinity_cpus())  # more would wait for a CPU, whatever the quota
    shared = _in_turn(workers) | {
        "iterations": p.quota_iterations, "duration_s": p.quota_s, "arrivals": "poisson",
    }  # fmt: skip
    under = _condition(p, named(workers), HELD, load=_USED, quota_cpus=p.quota, **shared)
    as_much = round(_USED * p.quota / _at_once(workers), 6)
    without = _condition(p, named(workers), FREE, load=as_much, **shared)
    return [under, without] if limits(p.quota) else []


def limits(quota: float) -> bool:
    """Say whether a quota leaves less than there is: by affinity, or by a quota that holds us already."""
    return quota < min(affinity_cpus(), quota_cpus() or math.inf)


def by_blocks(p: Parameters) -> list[tuple[int, list[Condition]]]:
    """Return what is to be measured, and in how many blocks, if no other notebook of the run has it."""
    groups = (
        (p.asks("workers", "replicas"), p.blocks, loads),
        (p.asks("slow"), 1, slow_ones),
        (p.asks("pool"), p.blocks, beside),
        (p.asks("quota"), p.blocks, held),
    )
    return [(blocks, plan(p)) for asked, blocks, plan in groups if asked]


def measure(
    run: Run, p: Parameters, planned: list[Condition], execute: Execute = serve_and_attack
) -> pd.DataFrame:
    """Measure these servers in blocks; a row per trial. A balancer that fails is left out."""
    try:
        return run.measure(EXPERIMENT, planned, blocks=p.blocks, seed=p.seed, execute=_blaming(execute))
    except ServerError as error:
        others = [one for one in planned if one.labels["server"] != BALANCED]
        if error.server != BALANCED or not others:
            raise
        return run.measure(EXPERIMENT, others, blocks=p.blocks, seed=p.seed, execute=execute)


def _blaming(execute: Execute) -> Execute:
    def blaming(condition: Condition, seed: int) -> Measured:
        if not condition.peer:
            return execute(condition, seed)
        with blamed_on(condition.peer):
            return execute(condition, seed)

    return blaming


def beside_slow(condition: Condition, seed: int) -> Measured:
    """Carry out a trial while one client asks for slow requests, each when the one before is answered.

    A request of 0 loops is none: the trial is the control.
    """
    if not condition.labels["blocking"]:
        return serve_and_attack(condition, seed)
    over, slow = threading.Event(), replace(condition, path="/api/slow")
    with fresh_server(condition) as server, ThreadPoolExecutor(1) as client:
        asking = client.submit(_ask, slow, server, over)
        try:
            result = offer(server, condition, seed)
        finally:
            over.set()
        asking.result()
    return Attacked(result.requests, result.summary)


def _ask(slow: Condition, server: "Server", over: threading.Event) -> None:
    while not over.is_set():
        failures.blocked_by_one(slow, server)


def _in_turn(workers: int) -> dict[str, Any]:
    return {"topology": "cluster", "workers": workers, "dispatch": IN_TURN}


def _condition(
    p: Parameters, server: str, part: str, labels: dict[str, Any] | None = None, **factors: Any
) -> Condition:
    shared: dict[str, Any] = {"kernel": p.kernel, "iterations": p.iterations, "timeout_s": p.timeout_s}
    return Condition(labels={"server": server, "part": part} | (labels or {}), **(shared | factors))
