"""Who should get the next request? Every arrangement, under constant and under random arrivals."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from lab.checks import Count, Positive, Seconds, Whole
from lab.cpus import available_cpus
from lab.experiments.common import Workers, resolve
from lab.experiments.dispatch.theory import Queue, least_overhead_s, played, queue_of
from lab.hotloop import KernelName
from lab.load.arrivals import Arrivals
from lab.models.statistics import samples_needed
from lab.servers.spec import DispatchName, Pool
from lab.study.parameters import ListOf
from lab.study.parameters import Parameters as _Parameters
from lab.study.plan import Condition
from lab.study.run import Run

EXPERIMENT = "dispatch"

Utilisation = Annotated[Positive, Field(lt=1)]
"""The share of time that workers are busy: from 1 on, they never catch up."""

TAILS = (0.99, 0.95, 0.9)
"""The percentiles by which a tail may be judged, the rarest first: a trial needs enough samples for it."""


class Parameters(_Parameters):
    """What notebook 05 lets its reader set."""

    run: str
    dispatches: ListOf[DispatchName]
    pools: ListOf[Pool]
    poisson: Annotated[ListOf[Utilisation], Field(min_length=1)]
    constant: ListOf[Utilisation]
    workers: Workers
    duration_s: Seconds
    kernel: KernelName
    iterations: Whole
    threads_kernel: KernelName
    threads_iterations: Whole
    timeout_s: Seconds
    blocks: Count
    other_blocks: Count
    seed: Whole


def arrangements(p: Parameters) -> list[dict[str, Any]]:
    """Return the arrangements to compare, each as factors of a condition, one process first."""
    workers = resolve(p.workers)
    loop = {"kernel": p.kernel, "iterations": p.iterations}
    clusters = [
        {"topology": "cluster", "workers": workers, "dispatch": dispatch, **loop} for dispatch in p.dispatches
    ]
    pools = [
        {"topology": "offload", "workers": workers, "pool": pool, "kernel": kernel, "iterations": iterations}
        for pool in p.pools
        for kernel, iterations in _loops_in(pool, p).items()
    ]
    return [{"topology": "single", "workers": 1, **loop}, *clusters, *pools]


def _loops_in(pool: Pool, p: Parameters) -> dict[KernelName, int]:
    """Return the kernels to run in a pool, and their iterations: threads also run one without the GIL."""
    loops = {p.kernel: p.iterations}
    return loops if pool == "process" else {p.threads_kernel: p.threads_iterations} | loops


_FACTORS = ["topology", "dispatch", "pool", "kernel"]
"""The factors that tell arrangements apart; except for one process, all have as many workers."""


def name_of(arrangement: Mapping[Any, Any]) -> str:
    """Return what figures and tables call an arrangement, by its factors."""
    match arrangement["topology"]:
        case "single":
            return "one process"
        case "cluster":
            return str(arrangement["dispatch"])
    return f"threads, {arrangement['kernel']}" if arrangement["pool"] == "thread" else "pool of processes"


def by_arrangement(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split trials or requests by their arrangement: each with its name, in the order of the plan."""
    groups = rows.sort_values("place", kind="stable").groupby(_FACTORS, sort=False)
    return [(name_of(group.iloc[0].to_dict()), group) for _, group in groups]


def measure(run: Run, p: Parameters) -> pd.DataFrame:
    """Measure `compared` conditions in `blocks` blocks, all others in `other_blocks`; a row per trial."""
    planned = conditions(p, run.loop_s)
    groups = (
        ([condition for condition in planned if compared(p, condition)], p.blocks),
        ([condition for condition in planned if not compared(p, condition)], p.other_blocks),
    )
    return pd.concat(
        [run.measure(EXPERIMENT, group, blocks=blocks, seed=p.seed) for group, blocks in groups if group],
        ignore_index=True,
    )


def compared(p: Parameters, condition: Condition) -> bool:
    """Say whether a condition is one to choose between: these need many blocks, others only a look.

    These are arrangements over several processes, at the highest Poisson utilisation, with a connection per
    request.
    """
    spreads = condition.topology != "single" and condition.pool == "process"
    busiest = condition.arrivals == "poisson" and condition.labels["load"] == max(p.poisson)
    return spreads and busiest and not condition.keepalive


def conditions(p: Parameters, loop_s: Callable[[str, int], float]) -> list[Condition]:
    """Return each arrangement at each utilisation, under both arrivals; `loop_s` times a kernel's loop.

    Arrangements of several processes are also measured with kept connections, where these can matter. One
    process, a longer loop and a lower load are attacked longer, for as many requests: percentiles need them.
    """
    cpus = available_cpus()
    requests = p.duration_s * max(p.poisson + p.constant) * min(resolve(p.workers), cpus)
    requests /= loop_s(p.kernel, p.iterations)
    return [
        Condition(
            rate=rate,
            duration_s=requests / rate,
            timeout_s=p.timeout_s,
            arrivals=arrivals,
            keepalive=keepalive,
            labels={"load": load, "place": place},
            **arrangement,
        )
        for place, arrangement in enumerate(arrangements(p))
        for own_s in [loop_s(arrangement["kernel"], arrangement["iterations"])]
        for arrivals, load, keepalive in _loads(p, arrangement)
        for rate in [load * min(arrangement["workers"], cpus) / own_s]
    ]


def _loads(p: Parameters, arrangement: dict[str, Any]) -> Iterator[tuple[Arrivals, float, bool]]:
    yield from (("poisson", load, False) for load in dict.fromkeys(p.poisson))
    yield from (("constant", load, False) for load in dict.fromkeys(p.constant))
    if _may_keep(**arrangement):
        yield "poisson", max(p.poisson), True


def _may_keep(topology: str, dispatch: str = "", pool: str = "process", **_: object) -> bool:
    """Say whether it spreads over processes and may keep connections; least-busy must close each."""
    return topology != "single" and pool == "process" and dispatch != "least-busy"


def tail_of(trials: pd.DataFrame) -> float:
    """Return the rarest of `TAILS` for which every one of these trials has enough samples, or the median."""
    fewest = trials["sent"].min()
    return next((share for share in TAILS if samples_needed(share) <= fewest), 0.5)


def beside_theory(trials: pd.DataFrame, requests: pd.DataFrame) -> pd.DataFrame:
    """Add what makes trials of different arrangements comparable.

    queue: the one that the arrangement forms in theory. cost_s: the trial's own mean service time, which is
    its loop as its workers reported it, plus overhead_s. (Threads that take turns at the GIL report that wait
    as service, so theirs is the calibrated loop time.) overhead_s: `_overhead_s`. utilisation: rate x cost_s
    / workers, of which the GIL leaves one. tail_share: `tail_of` all these trials; tail_s: that percentile of
    latency; p50, tail: percentiles in multiples of cost_s. mean_theory_s, tail_theory_s, mean_ideal_s: those
    of `theory.played`. excess: mean latency as a multiple of the ideal one.
    """
    trials = trials.reset_index(drop=True)
    of_each = [queue_of(factors) for factors in trials.to_dict("records")]
    queues = pd.Series(of_each, trials.index, dtype=object)
    loop_s = trials["service_mean_s"].where(queues != Queue.GIL, trials["loop_s"]).fillna(trials["loop_s"])
    overhead_s = _overhead_s(trials, requests).where(queues != Queue.GIL, 0)
    cost_s = loop_s + overhead_s
    share = tail_of(trials)
    tail_s = trials[f"latency_p{share * 100:.0f}_s"]
    of_trial = dict(list(requests.groupby("trial_id")))
    theory = pd.DataFrame(
        played(of_trial[trial_id], workers, queue, own_s, over_s, share)
        for trial_id, workers, queue, own_s, over_s in zip(
            trials["trial_id"], trials["workers"], of_each, loop_s, overhead_s, strict=True
        )
    )
    return trials.join(theory).assign(
        queue=queues,
        overhead_s=overhead_s,
        cost_s=cost_s,
        utilisation=trials["rate"] * cost_s / trials["workers"].where(queues != Queue.GIL, 1),
        tail_share=share,
        tail_s=tail_s,
        p50=trials["latency_p50_s"] / cost_s,
        tail=tail_s / cost_s,
        excess=trials["latency_mean_s"] / theory["mean_ideal_s"],
    )


def _overhead_s(trials: pd.DataFrame, requests: pd.DataFrame) -> "pd.Series[float]":
    """Return what a request takes on top of its loop: the least over all trials of its arrangement.

    In a trial with more work than time, the queue hides it. Kept connections need at most as much as new.
    """
    least_s = trials["trial_id"].map(requests.groupby("trial_id").apply(least_overhead_s))
    arrangement = [trials[factor] for factor in _FACTORS]
    with_new_s = least_s.mask(trials["keepalive"]).groupby(arrangement).transform("min")
    with_any_s = least_s.groupby(arrangement).transform("min")
    return with_new_s.where(~trials["keepalive"], with_any_s).fillna(0)


def busiest(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials with Poisson arrivals at the highest utilisation, new connections and kept ones."""
    poisson = trials[trials["arrivals"] == "poisson"]
    top: pd.DataFrame = poisson[poisson["load"] == poisson["load"].max()]
    return top


def spread_over_processes(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials of a cluster, or of a pool of processes, that had more than one worker."""
    several = (trials["topology"] != "single") & (trials["pool"] == "process") & (trials["workers"] > 1)
    chosen: pd.DataFrame = trials[several]
    return chosen


def steady(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that had a steady state: at their own utilisation, workers can catch up."""
    kept: pd.DataFrame = trials[trials["utilisation"] < 1]
    return kept
