"""Every arrangement under constant and random arrivals, and what its trials are compared with.

These are theory, which is the queue that it forms; the ideal, which is one central queue; and fair coins.
"""

import heapq
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from annotated_types import Le
from numpy.typing import NDArray
from pydantic import Field

from lab.checks import Count, Positive, Seconds, Whole
from lab.cpus import available_cpus
from lab.experiments.common import Iterations, Workers, resolve
from lab.hotloop import KernelName
from lab.load.arrivals import Arrivals
from lab.models.queueing import mdc_wait_quantile
from lab.models.simulation import Dispatch, waits
from lab.models.statistics import busiest_by_chance, samples_needed
from lab.servers.spec import DispatchName, Pool
from lab.study.parameters import ListOf, RunToAddTo
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition
from lab.study.run import Run
from lab.study.stability import offered_rps

EXPERIMENT = "dispatch"

_MOST_TIMES_LONGER = 6.0
"""Times the busiest trials' duration: what one process needs beside a server with six CPUs."""

Utilisation = Annotated[Positive, Field(lt=1)]
"""The share of time that workers are busy: from 1 on, they never catch up."""

TAILS = (0.99, 0.95, 0.9)
"""The percentiles by which a tail may be judged, the rarest first: a trial needs enough samples for it."""


AS_NONE = 1000
"""A bound that no worker reaches."""


class Parameters(_Parameters):
    """What notebook 05 lets its reader set; all else is compared with the first of `dispatches`."""

    run: RunToAddTo
    dispatches: Annotated[ListOf[DispatchName], Field(min_length=1)]
    bounds: Annotated[ListOf[Annotated[Count, Le(AS_NONE)]], Field(min_length=1)]
    pools: ListOf[Pool]
    kept: ListOf[Literal["shared", "reuseport", "round-robin", "process"]]
    poisson: Annotated[ListOf[Utilisation], Field(min_length=1)]
    constant: ListOf[Utilisation]
    workers: Workers
    duration_s: Seconds
    kernel: KernelName
    iterations: Iterations
    threads_kernel: KernelName
    threads_iterations: Whole
    timeout_s: Seconds
    blocks: Count
    other_blocks: Whole
    seed: Whole


def arrangements(p: Parameters) -> list[dict[str, Any]]:
    """Return the arrangements to measure, each as factors of a condition, that of reference first."""
    workers = resolve(p.workers)
    loop = {"kernel": p.kernel, "iterations": p.iterations}
    clusters = [
        {"topology": "cluster", "workers": workers, "dispatch": dispatch, "bound": bound, **loop}
        for dispatch in p.dispatches
        for bound in (dict.fromkeys(p.bounds) if dispatch == "least-busy" else [1])
    ]
    pools = [
        {"topology": "offload", "workers": workers, "pool": pool, "kernel": kernel, "iterations": iterations}
        for pool in p.pools
        for kernel, iterations in _loops_in(pool, p).items()
    ]
    return [*clusters, *pools, {"topology": "single", "workers": 1, **loop}]


def _loops_in(pool: Pool, p: Parameters) -> dict[KernelName, int | str]:
    """Return the kernels to run in a pool, and their iterations: threads also run one without the GIL."""
    loops: dict[KernelName, int | str] = {p.kernel: p.iterations}
    return loops if pool == "process" else {p.threads_kernel: p.threads_iterations, **loops}


_FACTORS = ["topology", "dispatch", "bound", "pool", "kernel", "keepalive"]
"""The factors that tell arrangements apart; except for one process, all have as many workers."""


def name_of(arrangement: Mapping[Any, Any]) -> str:
    """Return what figures and tables call an arrangement, by its factors."""
    kept = " (kept)" if arrangement["keepalive"] else ""
    match arrangement["topology"]:
        case "single":
            return "one process"
        case "cluster":
            bound = f", bound {arrangement['bound']}" if arrangement["bound"] > 1 else ""
            return f"{arrangement['dispatch']}{bound}{kept}"
    threads = arrangement["pool"] == "thread"
    return f"threads, {arrangement['kernel']}" if threads else f"pool of processes{kept}"


def by_arrangement(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split trials by their arrangement: each with its name, as planned, new connections before kept ones."""
    groups = rows.sort_values(["place", "keepalive"], kind="stable").groupby(_FACTORS, sort=False)
    return [(name_of(group.iloc[0].to_dict()), group) for _, group in groups]


def measure(run: Run, p: Parameters) -> pd.DataFrame:
    """Measure what is compared in `blocks` blocks, and all else in `other_blocks`; a row per trial."""
    wanted = by_blocks(p)
    tables = [run.measure(EXPERIMENT, group, blocks=blocks, seed=p.seed) for blocks, group in wanted.items()]
    return pd.concat(tables, ignore_index=True)


def by_blocks(p: Parameters) -> dict[int, list[Condition]]:
    """Return the conditions by the number of blocks to measure them in; those in none are left out."""
    groups: dict[int, list[Condition]] = {}
    for one in conditions(p):
        groups.setdefault(p.blocks if _is_compared(p, one) else p.other_blocks, []).append(one)
    return {blocks: group for blocks, group in groups.items() if blocks}


def _is_compared(p: Parameters, condition: Condition) -> bool:
    busiest = condition.arrivals == "poisson" and condition.load == max(p.poisson)
    return condition.topology != "single" and condition.pool == "process" and busiest


def compared(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials to choose by, as they were planned, whatever came of them.

    These spread random arrivals over several processes, at the highest utilisation that was aimed at.
    """
    poisson = trials[trials["arrivals"] == "poisson"]
    busiest = poisson["load"] == poisson["load"].max()
    spread = (poisson["topology"] != "single") & (poisson["pool"] == "process") & (poisson["workers"] > 1)
    chosen: pd.DataFrame = poisson[busiest & spread]
    return chosen


def conditions(p: Parameters) -> list[Condition]:
    """Return each arrangement at each utilisation, under both arrivals.

    One process and a lower load are attacked longer, for as many loops: percentiles need them. At most
    `_MOST_TIMES_LONGER`: with many CPUs, one process would be attacked for hours.
    """
    cpus = available_cpus()
    most = max(p.poisson) * min(resolve(p.workers), cpus)
    return [
        Condition(
            load=load,
            duration_s=p.duration_s * min(_MOST_TIMES_LONGER, longer),
            timeout_s=p.timeout_s,
            arrivals=arrivals,
            keepalive=keepalive,
            labels={"place": place},
            **arrangement,
        )
        for place, arrangement in enumerate(arrangements(p))
        for arrivals, load, keepalive in _loads(p, arrangement)
        for longer in [most / (load * min(arrangement["workers"], cpus))]
    ]


def _loads(p: Parameters, arrangement: dict[str, Any]) -> Iterator[tuple[Arrivals, float, bool]]:
    if arrangement.get("bound", 1) > 1:  # only to be compared with a bound of 1
        yield "poisson", max(p.poisson), False
        return
    yield from (("poisson", load, False) for load in dict.fromkeys(p.poisson))
    yield from (("constant", load, False) for load in dict.fromkeys(p.constant))
    if arrangement.get("dispatch", arrangement.get("pool")) in p.kept:
        yield "poisson", max(p.poisson), True


class Queue(StrEnum):
    """Where requests wait."""

    CENTRAL = "one central queue"
    TURNS = "workers take turns"
    BATCHES = "a free worker takes all that wait"
    HASHED = "a queue per worker, by hash"
    ONE = "one worker, one queue"
    GIL = "one at a time: the GIL"


_OF_CLUSTER = {
    "shared": Queue.BATCHES,
    "reuseport": Queue.HASHED,
    "round-robin": Queue.TURNS,
    "least-busy": Queue.CENTRAL,
}

_PLAYED: dict[Queue, Dispatch] = {
    Queue.BATCHES: "batches",
    Queue.HASHED: "random",
    Queue.TURNS: "round-robin",
}


def queue_of(factors: Mapping[Any, Any]) -> Queue:
    """Return the queue that an arrangement forms with new connections, by the factors of its condition."""
    match factors["topology"]:
        case "single":
            return Queue.ONE
        case "cluster":
            return _OF_CLUSTER[factors["dispatch"]]
    holds_gil = factors["pool"] == "thread" and factors["kernel"] == "python"
    return Queue.GIL if holds_gil else Queue.CENTRAL


def played_as(factors: Mapping[Any, Any]) -> Dispatch:
    """Return how `lab.models.simulation` plays the queue of an arrangement, by its factors."""
    return _PLAYED.get(queue_of(factors), "central")


_REQUESTS = 60_000
"""Requests in a simulated curve: enough for a p99 that is right within a few percent."""


def curve(queue: Queue, workers: int, arrivals: str, tail_share: float) -> pd.DataFrame:
    """Return a queue's latency: utilisation, p50 and tail in service times; no rows for the GIL.

    `tail` is the latency that a share of `tail_share` does not exceed. It is exact where there is a formula
    (Poisson arrivals: M/D/c for one central queue and for turns, M/D/1 for a hash and for one process;
    constant arrivals: no wait except by hash), else simulated.
    """
    rows = [
        (u, *(latency(queue, workers, float(u), arrivals, q) for q in (0.5, tail_share)))
        for u in np.linspace(0.05, 0.95, 19)
        if queue != Queue.GIL
    ]
    return pd.DataFrame(rows, columns=["utilisation", "p50", "tail"])


def latency(queue: Queue, workers: int, utilisation: float, arrivals: str, quantile: float) -> float:
    """Return a quantile of a queue's latency, in service times, as `curve` draws it."""
    if arrivals == "poisson" and queue != Queue.BATCHES:
        sharing = 1 if queue in (Queue.HASHED, Queue.ONE) else workers
        return 1 + mdc_wait_quantile(quantile, sharing, utilisation)
    if arrivals == "constant" and queue != Queue.HASHED:
        return 1.0
    return 1 + float(np.quantile(_simulated(queue, workers, utilisation, arrivals), quantile))


@lru_cache(maxsize=64)
def _simulated(queue: Queue, workers: int, utilisation: float, arrivals: str) -> NDArray[np.float64]:
    rate = workers * utilisation
    random = np.random.default_rng(0)
    gaps = random.exponential(1 / rate, _REQUESTS) if arrivals == "poisson" else np.full(_REQUESTS, 1 / rate)
    return waits(np.cumsum(gaps), 1.0, workers, _PLAYED[queue])


def beside_theory(trials: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    """Add what trials are compared with.

    own_s: the trial's own mean service time; for threads that take turns at the GIL, which is a wait inside
    the loop, its mean CPU time; the calibrated loop time, if there is neither. utilisation: that of the run,
    but under the GIL by own_s, and of the one worker that it leaves. tail_share: the rarest of `TAILS` for
    which every trial has enough requests, or the median; tail_s: that percentile of latency. theory_s,
    theory_tail_s, ideal_s, connections, coins: see `_played`. over_ideal: mean latency over ideal_s. extra_s:
    what requests take on top of their loops, at least. overhead_s: the least of these over all trials with
    new connections, for all, so that an arrangement's own costs count. busiest: the busiest worker's answers
    over its fair share.
    """
    trials = trials.reset_index(drop=True)
    queues = [queue_of(factors) for factors in trials.to_dict("records")]
    gil = pd.Series([queue is Queue.GIL for queue in queues], trials.index, dtype=bool)
    own_s = trials["service_mean_s"].mask(gil, trials["service_cpu_mean_s"]).fillna(trials["loop_s"])
    share = next((share for share in TAILS if samples_needed(share) <= trials["sent"].min()), 0.5)
    mine = dict(list(requests.groupby("trial_id")))
    trials = trials.assign(queue=pd.Series(queues, trials.index, dtype=object), own_s=own_s)
    least_s = [
        least_overhead_s(mine[row["trial_id"]], _loops_s(row, mine[row["trial_id"]]), int(row["workers"]))
        for row in trials.to_dict("records")
    ]
    extra_s = pd.Series(least_s, trials.index, dtype=float).mask(gil)
    overhead_s = max(0.0, np.nan_to_num(float(extra_s.mask(trials["keepalive"]).min())))
    trials = trials.assign(
        utilisation=trials["utilisation"].mask(gil, offered_rps(trials) * own_s),
        tail_share=share,
        tail_s=trials[f"latency_p{share * 100:.0f}_s"],
        extra_s=extra_s,
        overhead_s=overhead_s,
        busiest=trials["worker_max_share"] * trials["workers"],
    )
    played = [_played(row, mine[row["trial_id"]]) for row in trials.to_dict("records")]
    trials = trials.join(pd.DataFrame(played))
    return trials.assign(over_ideal=trials["latency_mean_s"] / trials["ideal_s"])


_FASTEST = 0.1


def least_overhead_s(requests: pd.DataFrame, loops_s: NDArray[np.float64], workers: int) -> float:
    """Return the least that requests take on top of their loops, to connect, parse and answer; or nan.

    It is seen of requests that find an idle worker even in an ideal queue without it: of a server that others
    keep from its CPUs, all the rest may have waited.
    """
    idle = waits(requests["due_s"].to_numpy(), loops_s, workers) == 0
    return float((requests["end_s"] - requests["due_s"] - loops_s)[idle].quantile(_FASTEST))


def _loops_s(trial: Mapping[Any, Any], requests: pd.DataFrame) -> NDArray[np.float64]:
    return requests["service_s"].fillna(trial["own_s"]).to_numpy(float)


_HASHES = 20
"""Random hashes of a trial's arrivals to simulate, as the kernel's own is unknown."""


def _played(trial: Mapping[Any, Any], requests: pd.DataFrame) -> dict[str, Any]:
    """Play a trial's arrivals through its queue, through one central queue, and over fair coins.

    Each request occupies a worker for the loop that it reported, or `own_s`, plus `overhead_s`. So chance in
    arrivals and the speed of loops cannot explain a difference from the measurement. `theory_s` and `ideal_s`
    are mean latencies, `theory_tail_s` the tail; `coins` are draws of what `busiest` would be by chance.
    """
    queue, workers, due_s = trial["queue"], int(trial["workers"]), requests["due_s"].to_numpy()
    loops_s = _loops_s(trial, requests) + trial["overhead_s"]
    theory_s = np.array([np.nan])
    if queue is Queue.GIL:
        loops_s = np.full(len(due_s), trial["own_s"])
    else:
        dispatch, seeds = played_as(trial), range(_HASHES if queue is Queue.HASHED else 1)
        waits_s = [waits(due_s, loops_s, workers, dispatch, seed) for seed in seeds]
        theory_s = np.concatenate([waited_s + loops_s for waited_s in waits_s])
    sizes = answers_by_connection(requests, kept=trial["keepalive"] and trial["topology"] == "cluster")
    return {
        "theory_s": float(theory_s.mean()),
        "theory_tail_s": float(np.quantile(theory_s, trial["tail_share"])),
        "ideal_s": float((waits(due_s, loops_s, workers) + loops_s).mean()),
        "connections": len(sizes),
        "coins": workers * busiest_by_chance(sizes, workers, seed=trial["block"]) if sizes else np.array([]),
    }


def answers_by_connection(requests: pd.DataFrame, *, kept: bool) -> list[int]:
    """Return how many answers each of a trial's connections gave; unless they were kept, one each.

    The generator (`lab.load.sender`) takes the idle connection that it used last, or opens another.
    """
    answered = requests[requests["worker"].notna()].sort_values("sent_s")
    if not kept:
        return [1] * len(answered)
    sizes: list[int] = []
    idle: list[int] = []
    busy: list[tuple[float, int]] = []
    for sent_s, end_s in zip(answered["sent_s"], answered["end_s"], strict=True):
        while busy and busy[0][0] <= sent_s:
            idle.append(heapq.heappop(busy)[1])
        connection = idle.pop() if idle else len(sizes)
        sizes += [0] * (connection == len(sizes))
        sizes[connection] += 1
        heapq.heappush(busy, (end_s, connection))
    return sizes
