"""Who should get the next request? Every way to spread them, under constant and under random arrivals."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from lab.cpus import available_cpus
from lab.experiments.common import Workers, resolve
from lab.experiments.queues import Queue, played, queue_of
from lab.study.parameters import Count, DispatchName, KernelName, ListOf, PoolName, Positive, Whole
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition

EXPERIMENT = "dispatch"

ONE_PROCESS = "one process"
KEPT = "kept connections"
NEW = "a connection per request"

Utilisation = Annotated[Positive, Field(lt=1)]
"""The share of their time for which workers are busy: from 1 on they never catch up."""

_MAY_KEEP = ("shared", "reuseport", "round-robin", "pool of processes")
"""Ways that spread over processes and may keep connections: least-busy closes each, as it must."""


class Parameters(_Parameters):
    """What notebook 05 lets its reader set."""

    run: str
    dispatches: ListOf[DispatchName]
    pools: ListOf[PoolName]
    poisson: Annotated[ListOf[Utilisation], Field(min_length=1)]
    constant: ListOf[Utilisation]
    workers: Workers
    duration_s: Positive
    kernel: KernelName
    iterations: Whole
    threads_kernel: KernelName
    threads_iterations: Whole
    timeout_s: Positive
    blocks: Count
    seed: Whole


@dataclass(frozen=True)
class Arrangement:
    """A way to spread requests, by the name that figures use, and the factors of a condition that make it."""

    name: str
    factors: dict[str, Any] = field(hash=False)


def arrangements(p: Parameters) -> list[Arrangement]:
    """Return the ways to compare, one process first."""
    workers = resolve(p.workers)
    loop = {"kernel": p.kernel, "iterations": p.iterations}
    found = [Arrangement(ONE_PROCESS, {"topology": "single", **loop})]
    for dispatch in p.dispatches:
        factors = {"topology": "cluster", "workers": workers, "dispatch": dispatch, **loop}
        found.append(Arrangement(dispatch, factors))
    for pool in p.pools:
        for kernel, iterations in _loops_in(pool, p).items():
            factors = {"topology": "offload", "workers": workers, "pool": pool}
            name = f"threads, {kernel}" if pool == "thread" else "pool of processes"
            found.append(Arrangement(name, factors | {"kernel": kernel, "iterations": iterations}))
    return found


def _loops_in(pool: str, p: Parameters) -> dict[str, int]:
    """Return the kernels to run in a pool, and their iterations: threads also run one without the GIL."""
    loops = {p.kernel: p.iterations}
    return loops if pool == "process" else {p.threads_kernel: p.threads_iterations} | loops


def conditions(p: Parameters, loop_s: Callable[[str, int], float]) -> list[Condition]:
    """Return each way at each utilisation, with arrivals of both kinds; `loop_s` times a kernel's loop.

    Connections are new ones, and at the highest Poisson utilisation also kept ones where that can matter.
    """
    shared = p.model_dump(include={"duration_s", "timeout_s"})
    return [
        Condition(
            rate=load * min(way.factors.get("workers", 1), available_cpus()) / loop_s(kernel, iterations),
            arrivals=arrivals,
            keepalive=keepalive,
            labels={"server": way.name, "load": load, "place": place},
            **shared,
            **way.factors,
        )
        for place, way in enumerate(arrangements(p))
        for kernel, iterations in [(way.factors["kernel"], way.factors["iterations"])]
        for arrivals, load, keepalive in _loads(p, way)
    ]


def _loads(p: Parameters, way: Arrangement) -> Iterator[tuple[str, float, bool]]:
    yield from (("poisson", load, False) for load in dict.fromkeys(p.poisson))
    yield from (("constant", load, False) for load in dict.fromkeys(p.constant))
    if way.name in _MAY_KEEP:
        yield "poisson", max(p.poisson), True


def beside_theory(trials: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    """Put one way after another, and add what makes their trials comparable.

    cost_s: the trial's own mean service time, as its workers reported it; but threads that take turns at the
    GIL report that wait as service, so theirs is the loop's time on its own. utilisation: rate x cost_s /
    workers. p50, p99: of latency, in multiples of cost_s. mean_theory_s, p99_theory_s, p99_ideal_s: of
    `queues.played`. excess: p99 as a multiple of the ideal one. connections: kept or new, in words.
    """
    trials = trials.sort_values(["place", "arrivals", "load", "keepalive", "block"], ignore_index=True)
    queues = trials["server"].map(queue_of)
    cost_s = trials["service_mean_s"].where(queues != Queue.GIL, trials["loop_s"])
    of_trial = dict(list(requests.groupby("trial_id")))
    theory = pd.DataFrame(
        played(of_trial[trial_id], workers, queue, own_s)
        for trial_id, workers, queue, own_s in zip(
            trials["trial_id"], trials["workers"], queues, cost_s, strict=True
        )
    )
    return trials.join(theory).assign(
        cost_s=cost_s,
        utilisation=trials["rate"] * cost_s / trials["workers"],
        p50=trials["latency_p50_s"] / cost_s,
        p99=trials["latency_p99_s"] / cost_s,
        excess=trials["latency_p99_s"] / theory["p99_ideal_s"],
        connections=trials["keepalive"].map({True: KEPT, False: NEW}),
    )


def busiest(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials with Poisson arrivals at the highest utilisation, new connections and kept ones."""
    poisson = trials[trials["arrivals"] == "poisson"]
    top: pd.DataFrame = poisson[poisson["load"] == poisson["load"].max()]
    return top


def excesses(trials: pd.DataFrame) -> "pd.Series[float]":
    """Return each way's `excess` at the highest utilisation of these trials, best first.

    New connections; the median over blocks. One process is left out, because it spreads nothing, and so are
    threads that the GIL lets run one at a time.
    """
    top = trials[(trials["load"] == trials["load"].max()) & ~trials["keepalive"]]
    top = top[(top["server"] != ONE_PROCESS) & (top["server"].map(queue_of) != Queue.GIL)]
    return pd.Series(top.groupby("server")["excess"].median()).dropna().sort_values()


def shares(requests: pd.DataFrame) -> pd.DataFrame:
    """Return what share of a trial's answers each worker gave, busiest first.

    Columns server, connections, rank (1 is the busiest) and share, the median over trials.
    """
    answered = requests[requests["worker"].notna()]
    of_trial = ["server", "keepalive", "trial_id"]
    share = answered.groupby(of_trial)["worker"].value_counts(normalize=True).rename("share").reset_index()
    share["rank"] = share.groupby(of_trial)["share"].rank(ascending=False, method="first").astype(int)
    share["connections"] = share["keepalive"].map({True: KEPT, False: NEW})
    return pd.DataFrame(share.groupby(["server", "connections", "rank"])["share"].median()).reset_index()
