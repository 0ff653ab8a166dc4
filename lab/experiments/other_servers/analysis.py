"""What the trials say of each server, as numbers: beside its own limit, and beside one ideal queue."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.experiments.common import accounted
from lab.experiments.dispatch import answer as dispatch
from lab.experiments.dispatch.trials import TAILS as TAIL_SHARES
from lab.experiments.dispatch.trials import least_overhead_s
from lab.experiments.failures.trials import BLOCK
from lab.experiments.other_servers.servers import ALONE, PEERS, label
from lab.experiments.other_servers.trials import ALL_OF_NODE, KERNELS, ONE_OF_NODE, OVERLOAD, TAIL
from lab.models.simulation import waits
from lab.models.statistics import (
    BETWEEN_RUNS,
    Estimate,
    busiest_by_chance,
    estimate,
    paired_ratio,
    samples_needed,
)
from lab.study.plan import share_of_limit
from lab.study.run import Run
from lab.study.stability import offered_rps

_THREADS = frozenset({"gunicorn-gthread"})
"""The workers of these run several loops at once, in threads that take turns: what counts is CPU time."""


def beside_ideal(run: Run, trials: pd.DataFrame) -> pd.DataFrame:
    """Add what the trials of a run are compared with; see `compared`."""
    return compared(accounted(run, trials), run.requests(trials), run.manifest.machine.available_cpus)


def compared(trials: pd.DataFrame, requests: pd.DataFrame, cpus: int) -> pd.DataFrame:
    """Add each trial's own limit, and one ideal queue of its own arrivals and loops.

    own_s: the mean time of its loops; of workers with threads that take turns, which is a wait inside the
    loop, their CPU time. limit_share: throughput while all workers could be busy, as a share of what
    `own_s` allows (`plan.share_of_limit`). utilisation: the offered rate as such a share. For the part
    `TAIL`: tail_share, the rarest of `TAIL_SHARES` for which every one of its trials has enough requests,
    or the median; tail_s, that percentile of latency; ideal_tail_s and ideal_s, the same percentile, and
    the mean, in one central queue, where a request occupies a worker for its loop and for the least that
    any server takes on top of one. tail_over_ideal and mean_over_ideal are measured over ideal. busiest:
    the busiest worker's answers over its fair share. coins: draws of what that is by chance.
    """
    trials = trials.reset_index(drop=True)
    mine = dict(list(requests.groupby("trial_id")))
    threads = trials["peer"].isin(_THREADS)
    own_s = trials["service_mean_s"].mask(threads, trials["service_cpu_mean_s"]).fillna(trials["loop_s"])
    limits = (own_s, trials["service_cpu_mean_s"].astype(float), trials["workers"], cpus)
    tails = trials[trials["part"] == TAIL]
    share = next((share for share in TAIL_SHARES if samples_needed(share) <= tails["sent"].min()), 0.5)
    trials = trials.assign(
        own_s=own_s,
        limit_share=share_of_limit(trials["busy_rps"], *limits),
        utilisation=share_of_limit(offered_rps(trials), *limits),
        tail_share=share,
        tail_s=trials[f"latency_p{100 * share:.0f}_s"],
        busiest=trials["worker_max_share"] * trials["workers"],
        connections=trials["ok"],
    )
    overhead_s = _overhead_s(trials[trials["part"] == TAIL].to_dict("records"), mine)
    played = [
        _played(row, mine[row["trial_id"]], overhead_s) if row["part"] == TAIL else _NOT_PLAYED
        for row in trials.to_dict("records")
    ]
    trials = trials.join(pd.DataFrame(played, trials.index, columns=list(_NOT_PLAYED)))
    return trials.assign(
        tail_over_ideal=trials["tail_s"] / trials["ideal_tail_s"],
        mean_over_ideal=trials["latency_mean_s"] / trials["ideal_s"],
    )


_NOT_PLAYED: dict[str, Any] = {"ideal_s": np.nan, "ideal_tail_s": np.nan, "coins": np.array([])}


def _overhead_s(tails: Sequence[Mapping[Any, Any]], requests: Mapping[Any, pd.DataFrame]) -> float:
    """Return the least that any server takes on top of a loop."""
    mine = [(requests[trial["trial_id"]], trial) for trial in tails]
    least_s = [least_overhead_s(rows, _loops_s(trial, rows), int(trial["workers"])) for rows, trial in mine]
    known_s = [value_s for value_s in least_s if np.isfinite(value_s)]
    return max(0.0, min(known_s, default=0.0))


def _loops_s(trial: Mapping[Any, Any], requests: pd.DataFrame) -> np.ndarray:
    loops = "service_cpu_s" if trial["peer"] in _THREADS else "service_s"
    return requests[loops].fillna(trial["own_s"]).to_numpy(float)


def _played(trial: Mapping[Any, Any], requests: pd.DataFrame, overhead_s: float) -> dict[str, Any]:
    loops_s, workers = _loops_s(trial, requests) + overhead_s, int(trial["workers"])
    ideal_s = waits(requests["due_s"].to_numpy(), loops_s, workers) + loops_s
    answered = int(requests["worker"].notna().sum())
    dealt = busiest_by_chance([1] * answered, workers, seed=trial["block"]) if answered else np.array([])
    return {
        "ideal_s": float(ideal_s.mean()),
        "ideal_tail_s": float(np.quantile(ideal_s, trial["tail_share"])),
        "coins": workers * dealt,
    }


LIMIT, TAILS, NEW = "limit_share", "tail_over_ideal", "busiest"


@dataclass(frozen=True)
class Found:
    """What was measured of one server; None where nothing was.

    own_s: the mean time of its loop, overloaded. limit: throughput then as a share of its own limit.
    utilisation: the rate of its random arrivals as such a share. tail: its tail latency then, over one
    ideal queue's. own_tail: the same over its own mean loop. few, many, new: the busiest worker's answers
    over its fair share, with few or many kept connections, and with a new one each; coins: what fair coins
    exceed of each once in twenty times. delayed: of the requests due during a slow one, the share that
    waits for its worker. lost, took_s: by what was done to it, how many requests it lost, and how long
    until it was over.
    """

    server: str
    own_s: Estimate | None
    limit: Estimate | None
    utilisation: Estimate | None
    tail: Estimate | None
    own_tail: Estimate | None
    few: Estimate | None
    many: Estimate | None
    new: Estimate | None
    coins: Mapping[str, float]
    delayed: Estimate | None
    lost: Mapping[str, Estimate | None]
    took_s: Mapping[str, Estimate | None]
    pss_bytes: Estimate | None
    ready_s: Estimate | None

    @property
    def name(self) -> str:
        """What figures and tables call it."""
        return label(self.server)

    def exceeds_coins(self, how: str) -> bool:
        """Say whether the busiest worker answers more than fair coins give it once in twenty times."""
        share: Estimate | None = getattr(self, how)
        return share is not None and share.value > self.coins[how]


def found(trials: pd.DataFrame, looks: pd.DataFrame, events: pd.DataFrame) -> list[Found]:
    """Summarise what was measured of each server that was looked at, in that order."""
    return [
        _found(str(server), mine, trials[trials["server"] == server], events[events["server"] == server])
        for server, mine in looks.groupby("server", sort=False)
    ]


def _found(server: str, looks: pd.DataFrame, trials: pd.DataFrame, events: pd.DataFrame) -> Found:
    tails, overloaded = (trials[trials["part"] == part] for part in (TAIL, OVERLOAD))
    drawn = [draws for draws in tails["coins"] if len(draws)]
    coins = {
        "few": float(looks["few_coins_most"].median()),
        "many": float(looks["many_coins_most"].median()),
        "new": float(np.quantile(np.median(np.stack(drawn), axis=0), 0.95)) if drawn else np.nan,
    }
    shares = {"few": looks["few_busiest"], "many": looks["many_busiest"], "new": tails[NEW]}
    if server in PEERS and PEERS[server].one_process:
        shares, coins = {}, {}  # nobody shares
    of_kind = dict(list(events.groupby("kind")))
    slow = of_kind.get(BLOCK, events.head(0)).groupby("block")[["waited", "due"]].sum()
    return Found(
        server=server,
        own_s=estimated(overloaded["own_s"]),
        limit=estimated(overloaded[LIMIT]),
        utilisation=estimated(tails["utilisation"]),
        tail=estimated(tails[TAILS]),
        own_tail=estimated(tails["tail_s"] / tails["own_s"]),
        **{how: estimated(shares[how], within=EVEN_OR_MORE) if how in shares else None for how in HOW},
        coins=coins,
        delayed=estimated(slow["waited"] / slow["due"], within=(0, 1)),
        lost={str(kind): estimated(mine["lost"], between_runs=0) for kind, mine in of_kind.items()},
        took_s={str(kind): estimated(mine["took_s"]) for kind, mine in of_kind.items()},
        pss_bytes=estimated(looks["pss_bytes"]),
        ready_s=estimated(looks["ready_s"]),
    )


EVEN_OR_MORE = (1, math.inf)
"""Where the busiest worker's share can lie, over its fair one."""

HOW = {"few": "few kept", "many": "many kept", "new": "a new one each"}
"""How clients may use connections, by the names in `Found`."""


def estimated(
    values: "pd.Series[float]",
    between_runs: float = BETWEEN_RUNS,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate | None:
    """Return the estimate of the numbers that are finite; None if none is."""
    known = finite(values)
    return estimate(list(known), between_runs, within) if len(known) else None


def finite(values: "pd.Series[float]") -> "pd.Series[float]":
    """Return the numbers that are finite, in their rows."""
    return pd.to_numeric(values, errors="coerce").replace([np.inf, -np.inf], np.nan).dropna()


MATTERS = 1.02
"""Shares and tails within this factor of each other count as equal here: servers differ by a few percent."""


def against(trials: pd.DataFrame, server: str, other: str, part: str, column: str) -> Estimate | None:
    """Return the ratio of one server's numbers to another's, paired within blocks; None without a pair."""
    mine = trials[trials["part"] == part]
    return _over(*(_by_block(mine[mine["server"] == name], column) for name in (server, other)))


def _by_block(trials: pd.DataFrame, column: str) -> "pd.Series[float]":
    return trials.set_index("block")[column].dropna()


def _over(mine: "pd.Series[float]", theirs: "pd.Series[float]") -> Estimate | None:
    blocks = mine.index.intersection(theirs[theirs > 0].index)
    return paired_ratio(list(mine[blocks]), list(theirs[blocks])) if len(blocks) else None


def tail_name(trials: pd.DataFrame) -> str:
    """Return the name of the percentile for which the trials have enough samples: p99, p95, p90 or p50."""
    return dispatch.tail_name(trials) if len(trials) else "tail"


@dataclass(frozen=True)
class Speed:
    """Requests per second of one loop in overload, by one process and by all workers.

    by_loop: of one process over one in plain Python. by_workers: of all workers over one process. by_both: of
    all workers over one process in plain Python. They are paired within blocks; None without a pair.
    """

    loop: str
    one: Estimate
    all: Estimate
    by_loop: Estimate | None
    by_workers: Estimate | None
    by_both: Estimate | None


_PYTHON = "python"


def speeds(servers: Sequence[Found], trials: pd.DataFrame) -> list[Speed]:
    """Return how much each loop answers in overload, the slowest first.

    These are Python's kernels, in one process and in the first server's workers, and V8's where Node is here.
    """
    overloaded = trials[trials["part"].isin([KERNELS, OVERLOAD])]

    def rates(server: str, kernel: str) -> "pd.Series[float]":
        mine = overloaded[(overloaded["server"] == server) & (overloaded["kernel"] == kernel)]
        if server in (ONE_OF_NODE, ALL_OF_NODE):
            mine = mine[mine["part"] == KERNELS]  # its other loops have more steps
        return _by_block(mine, "busy_rps")

    first = servers[0].server if servers else ""
    kernels = dict.fromkeys(trials.loc[trials["part"] == KERNELS, "kernel"])
    loops = {kernel: (rates(ALONE, kernel), rates(first, kernel)) for kernel in kernels}
    loops["V8 (Node)"] = (rates(ONE_OF_NODE, _PYTHON), rates(ALL_OF_NODE, _PYTHON))
    base = rates(ALONE, _PYTHON)
    found = [
        Speed(
            loop, estimate(list(one)), estimate(list(more)),
            _over(one, base), _over(more, one), _over(more, base),
        )
        for loop, (one, more) in loops.items()
        if len(one) and len(more)
    ]  # fmt: skip
    return sorted(found, key=lambda speed: speed.one.value)


def bought(known: Sequence[Speed]) -> tuple[str, Estimate, Estimate] | None:
    """Return the fastest loop, how many times plain Python it answers, and how many times more workers do.

    None if these were not measured, or not in the same blocks.
    """
    python = next((speed for speed in known if speed.loop == _PYTHON), None)
    if not python or known[-1] is python or not (known[-1].by_loop and python.by_workers):
        return None
    return known[-1].loop, known[-1].by_loop, python.by_workers
