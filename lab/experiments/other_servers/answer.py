"""What the trials say of each server: numbers with intervals, the answer, two verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lab import units
from lab.experiments.claims import Verdict, Word, weighed
from lab.experiments.dispatch import answer as dispatch
from lab.experiments.dispatch.answer import ratio, told
from lab.experiments.failures.trials import BLOCK
from lab.experiments.other_servers.servers import ALONE, PEERS, label
from lab.experiments.other_servers.trials import EXPERIMENT, KERNELS, OVERLOAD, TAIL
from lab.models.statistics import Estimate, estimate, paired_ratio
from lab.study.estimates import Stated, stated

LIMIT, TAILS, NEW = "limit_share", "tail_over_ideal", "busiest"

ONE_OF_NODE, ALL_OF_NODE = "node", "node-cluster"


@dataclass(frozen=True)
class Found:
    """What was measured of one server; None where nothing was.

    limit: throughput in overload as a share of its own limit. utilisation: the rate of its random arrivals as
    such a share. tail: its tail latency then, over one ideal queue's. own_tail: the same over its own mean
    loop. few, many, new: the busiest worker's answers over its fair share, with few or many kept connections,
    and with a new one each; coins: what fair coins exceed of each once in twenty times. delayed: of the
    requests due during a slow one, the share that waits for its worker. lost, took_s: by what was done to it,
    how many requests it lost, and how long until it was over.
    """

    server: str
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


def found(trials: pd.DataFrame, looks: pd.DataFrame, events: pd.DataFrame) -> list[Found]:
    """Summarise what was measured of each server that was looked at, in that order."""
    return [
        _found(str(server), mine, trials[trials["server"] == server], events[events["server"] == server])
        for server, mine in looks.groupby("server", sort=False)
    ]


def _found(server: str, looks: pd.DataFrame, trials: pd.DataFrame, events: pd.DataFrame) -> Found:
    tails = trials[trials["part"] == TAIL]
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
        limit=_estimate(trials.loc[trials["part"] == OVERLOAD, LIMIT]),
        utilisation=_estimate(tails["utilisation"]),
        tail=_estimate(tails[TAILS]),
        own_tail=_estimate(tails["tail_s"] / tails["own_s"]),
        **{how: _estimate(shares[how]) if how in shares else None for how in HOW},
        coins=coins,
        delayed=_estimate(slow["waited"] / slow["due"]),
        lost={str(kind): _estimate(mine["lost"]) for kind, mine in of_kind.items()},
        took_s={str(kind): _estimate(mine["took_s"]) for kind, mine in of_kind.items()},
        pss_bytes=_estimate(looks["pss_bytes"]),
        ready_s=_estimate(looks["ready_s"]),
    )


HOW = {"few": "few kept", "many": "many kept", "new": "a new one each"}
"""How clients may use connections, by the names in `Found`."""


def _estimate(values: "pd.Series[float]") -> Estimate | None:
    known = pd.to_numeric(values, errors="coerce").replace([np.inf, -np.inf], np.nan).dropna()
    return estimate(list(known)) if len(known) else None


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
        mine = (overloaded["server"] == server) & (overloaded["kernel"] == kernel)
        return _by_block(overloaded[mine], "busy_rps")

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


def answer(servers: Sequence[Found], trials: pd.DataFrame) -> str:
    """Say how far all are from the ideal, who is nearer than the first, and what a faster loop buys."""
    tail = f"Their {tail_name(trials)} is {{}} times one ideal queue's"
    few = "On few kept connections, the busiest worker has {} times its fair share"
    parts = [
        _span(servers, "limit", units.percent, "Overloaded, they answer {} of what their own loops allow")
        + _better(servers, trials, OVERLOAD, LIMIT, "more"),
        _span(servers, "tail", "{:.2f}".format, tail) + _better(servers, trials, TAIL, TAILS, "less"),
        _span(servers, "few", "{:.2f}".format, few),
    ]
    if buys := bought(speeds(servers, trials)):
        loop, faster, more = buys
        parts.append(
            f"A loop in {loop} answers {ratio(faster)} times as much as one in plain Python, and"
            f" {int(trials['workers'].max())} workers answer {ratio(more)} times as much as one process"
        )
    return f"**Answer.** {'. '.join(filter(None, parts))}."


def _span(servers: Sequence[Found], measure: str, write: Callable[[float], str], text: str) -> str:
    """Put the least and the most of a measure into a text, each with whose it is; then the first server's."""
    known = {one.name: found.value for one in servers if (found := getattr(one, measure))}
    if not known:
        return ""
    ends = dict.fromkeys([min(known, key=known.__getitem__), max(known, key=known.__getitem__)])
    said = text.format(" to ".join(f"{write(known[name])} ({name})" for name in ends))
    first = servers[0].name
    return said if first in ends or first not in known else f"{said}; {first}: {write(known[first])}"


def _better(servers: Sequence[Found], trials: pd.DataFrame, part: str, column: str, word: str) -> str:
    """Name the servers that are nearer to the ideal than the first one, by whole intervals."""
    first, *others = servers
    beside = {one.name: against(trials, one.server, first.server, part, column) for one in others}
    names = [name for name, found in beside.items() if found and told(found, MATTERS) == word]
    return f". By whole intervals, nearer than {first.name}: {'; '.join(names)}" if names else ""


def estimates(trials: pd.DataFrame) -> list[Stated]:
    """State each server's share of its own limit, its tail over the ideal queue's, its busiest worker."""
    if trials.empty:
        return []
    measures = (
        ("share of the own limit, overloaded", OVERLOAD, LIMIT),
        (f"{tail_name(trials)} over one ideal queue's", TAIL, TAILS),
        ("busiest worker over its fair share, by server", TAIL, NEW),
    )
    return [
        stated(EXPERIMENT, quantity, found, server=server)
        for server, mine in trials.groupby("server", sort=False)
        for quantity, part, column in measures
        if (column != NEW or mine["workers"].max() > 1)
        and (found := _estimate(mine.loc[mine["part"] == part, column]))
    ]


def verdicts(trials: pd.DataFrame) -> list[Verdict]:
    """Judge claim 4 by Node's own two ways, and claim 9 by a process manager and by a balancer."""
    if trials.empty:
        return [Verdict(9)]
    mine = trials[trials["part"] == TAIL]
    nodes = mine[mine["server"].isin(_DISPATCH_OF_NODE)]
    as_ours = nodes.assign(
        topology="cluster", pool="process", dispatch=nodes["server"].map(_DISPATCH_OF_NODE),
        load=nodes["aimed"], over_ideal=nodes["mean_over_ideal"], place=0,
    )  # fmt: skip
    node = replace(dispatch.verdict(as_ours), about="Node's cluster") if len(nodes) else None
    judged = mine[mine["server"].isin([*_MANAGED, *_BALANCED])]
    manager = weighed(judged, _manages) if len(judged) else Verdict(9)
    return [*([node] if node and node.evidence else []), replace(manager, about="on one machine")]


_DISPATCH_OF_NODE = {ALL_OF_NODE: "round-robin", "node-cluster-shared": "shared"}
_MANAGED, _BALANCED = ("pm2", ALL_OF_NODE), ("nginx-round-robin", "round-robin")


def _manages(trials: pd.DataFrame) -> Verdict:
    """The manager does the same, and the balancer no worse, unless requests take longer, over an ideal queue.

    `told` says so by whole intervals. A pair that was not measured leaves its part open.
    """
    pairs = {pair: against(trials, *pair, TAIL, "mean_over_ideal") for pair in (_MANAGED, _BALANCED)}
    if not any(pairs.values()):
        return Verdict(9)
    evidence = "; ".join(
        f"{label(one)} over {label(other)}: {ratio(beside) if beside else 'not measured'}"
        for (one, other), beside in pairs.items()
    )
    words = [told(beside) if beside else None for beside in pairs.values()]
    parts = [None if word is None else word != "more" for word in words]
    return Verdict(9, f"mean latency over an ideal queue's, {evidence}", Word.of(*parts))
